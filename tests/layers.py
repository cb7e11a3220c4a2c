#!/usr/bin/env python3
"""Holds the tree to its layout: who may include whom, where an outside library may appear, how long things may be.

    layers.py [ROOT]

Prints one line a violation and exits 1 when there is any. The rules are the tables below and docs/decisions/0001-layers.md;
tests/test_layers.py breaks each rule once.
"""
import os
import re
import sys

# From the lowest to the highest. A folder includes itself and what stands in lower rows, never a neighbour.
LAYERS = [
    ["common/base"],
    ["common/config", "common/record"],
    ["common/bus", "common/wire", "common/learn", "common/kv", "common/fetch"],
    ["coordinator", "worker", "shard", "gateway"],
    ["cli"],
    ["tests"],
]

# The same within a role; roles never include each other.
INSIDE = {
    "coordinator": [["source", "core", "ledger"], ["run"]],
    "worker": [["media", "model"], ["pipeline"], ["run"]],
    "shard": [["store", "ann"], ["index"], ["query"], ["run"]],
    "gateway": [["http", "json", "backend"], ["run"]],
}

# Outside libraries: what their headers start with, and the only folders that may know them.
OUTSIDE = {
    "librdkafka/": ["common/bus"],
    "zmq": ["common/wire"],
    "rocksdb/": ["common/kv"],
    "libav": ["worker/media"],
    "libsw": ["worker/media"],
    "openvino/": ["worker/model"],
    "protobuf-c/": ["common/record"],
    "seccomp.h": ["worker/pipeline"],
    "cblas.h": ["common/learn"],
    "lapack": ["common/learn"],
    "openblas": ["common/learn"],
    "openssl/": ["common/base"],
    "curl/": ["common/fetch"],
    "expat": ["common/fetch"],
    "zlib.h": ["cli"],
    "jansson": ["coordinator/source", "worker/model", "gateway/json", "cli"],
    "microhttpd.h": ["gateway/http"],
}
GENERATED = ("proto/", ["common/record"])

TEST_ONLY = {"cmocka.h", "setjmp.h"}

# C, POSIX and Linux. What is in none of these tables is a library nobody has decided about.
SYSTEM = set("""
    alloca.h arm_neon.h assert.h byteswap.h complex.h cpuid.h ctype.h dirent.h dlfcn.h endian.h errno.h fcntl.h fenv.h float.h
    fnmatch.h ftw.h fts.h getopt.h glob.h grp.h iconv.h ifaddrs.h immintrin.h inttypes.h iso646.h langinfo.h libgen.h limits.h
    locale.h malloc.h math.h mntent.h netdb.h poll.h pthread.h pwd.h regex.h sched.h search.h semaphore.h signal.h
    spawn.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdio_ext.h stdlib.h stdnoreturn.h
    string.h strings.h syscall.h sysexits.h syslog.h termios.h time.h uchar.h unistd.h wchar.h wctype.h x86intrin.h
""".split())
SYSTEM_FOLDERS = ("sys/", "linux/", "net/", "netinet/", "arpa/", "asm/")

FUNCTION_MAX = 100
FILE_MAX = 1000
README_MAX = 25
SUFFIXES = (".c", ".h", ".py", ".proto")
LEFT_OUT = {"build", "bundles", "samples", "__pycache__"}  # made, not written
NO_README = {"cmake", "docs"}  # their files say it themselves

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
CALL_LIKE = re.compile(r"\b(?!KX_|__attribute__)(\w+)\s*\(")
HEAD_END = re.compile(r"\)\s*(?:(?:KX_\w+|__attribute__)\s*(?:\(.*\))?\s*)*$", re.DOTALL)


def rank(folder):
    """Where a folder stands, as (row, row within its role); None for one that is in no table."""
    for row, names in enumerate(LAYERS):
        for name in names:
            if folder != name and not folder.startswith(name + "/"):
                continue
            if name not in INSIDE:
                return (row, 0)
            for inner, parts in enumerate(INSIDE[name]):
                if folder.split("/")[1:2] and folder.split("/")[1] in parts:
                    return (row, inner)
            return None
    return None


def role(folder):
    top = folder.split("/")[0]
    return top if top in LAYERS[3] else None


def is_test(path):
    name = os.path.basename(path)
    return path.startswith("tests/") or name.startswith("test") and name.endswith((".c", ".h"))


def check_outside(path, header):
    folder = os.path.dirname(path)
    if header in TEST_ONLY:
        return None if is_test(path) else f"<{header}> is for tests"
    for start, folders in OUTSIDE.items():
        if header.startswith(start):
            return None if folder in folders else f"<{header}> may be known only in {', '.join(folders)}"
    if header in SYSTEM or header.startswith(SYSTEM_FOLDERS):
        return None
    return f"<{header}> is of no library that docs/decisions/0004-dependencies.md names (else add it here too)"


def check_own(root, path, header):
    folder, target = os.path.dirname(path), os.path.dirname(header)
    if header.startswith(GENERATED[0]) and header.endswith(".pb-c.h"):
        return None if folder in GENERATED[1] else f'"{header}" may be known only in {", ".join(GENERATED[1])}'
    if not os.path.isfile(os.path.join(root, header)):
        return f'"{header}" is not written from the root of the tree'
    here, there = rank(folder), rank(target)
    if here is None or there is None:
        return f"{folder if here is None else target} is in no row of the layers; decide where it stands"
    if role(folder) and role(target) and role(folder) != role(target):
        return f'"{header}": roles never include each other'
    if folder != target and there >= here and not path.startswith("tests/"):
        return f'"{header}" is not below {folder} in the layers'
    return None


def blank(match):
    """Something that takes no part in counting, as many lines long."""
    return "\n" * match.group().count("\n") or " "


def check_includes(root, path, text):
    code = re.sub(r"/\*.*?\*/", blank, text, flags=re.DOTALL)
    for match in INCLUDE.finditer(code):
        kind, header = match.groups()
        wrong = check_outside(path, header) if kind == "<" else check_own(root, path, header)
        if wrong:
            yield f"{path}:{code.count(chr(10), 0, match.start(2)) + 1}: {wrong}"


def functions(text):
    """(name, first line, lines) of each function: braces counted, strings, comments and macros left out."""
    code = DIRECTIVE.sub(blank, TOKEN.sub(blank, text))
    depth, head_at, found = 0, 0, None
    for at, char in enumerate(code):
        if char == "{":
            if depth == 0:
                head = code[head_at:at]
                name = CALL_LIKE.search(head)
                if name and "=" not in head and HEAD_END.search(head):
                    found = name.group(1), head_at + len(head) - len(head.lstrip())
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0 and found:
                first = code.count("\n", 0, found[1]) + 1
                yield found[0], first, code.count("\n", 0, at) + 2 - first
                found = None
        if depth == 0 and char in ";}":
            head_at = at + 1


def check_lengths(path, text):
    lines = text.count("\n")
    if lines > FILE_MAX:
        yield f"{path}: {lines} lines; {FILE_MAX} are the most"
    if path.endswith((".c", ".h")):
        for name, first, count in functions(text):
            if count > FUNCTION_MAX:
                yield f"{path}:{first}: {name}() has {count} lines; {FUNCTION_MAX} are the most"


def folders(root):
    for name in sorted(os.listdir(root)):
        if not name.startswith(".") and name not in LEFT_OUT and os.path.isdir(os.path.join(root, name)):
            yield name


def files(root, top):
    for folder, below, names in os.walk(os.path.join(root, top)):
        below[:] = sorted(name for name in below if name not in LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), root)


def check_readme(root, top):
    path = os.path.join(root, top, "README.md")
    if not os.path.isfile(path):
        yield f"{top}/README.md: missing; at most {README_MAX} lines: purpose, threads, what it may use, where to start"
        return
    with open(path, encoding="utf-8") as file:
        lines = len(file.readlines())
    if lines > README_MAX:
        yield f"{top}/README.md: {lines} lines; {README_MAX} are the most"


def check(root):
    for top in folders(root):
        paths = list(files(root, top))
        if paths and top not in NO_README:
            yield from check_readme(root, top)
        for path in paths:
            if not path.endswith(SUFFIXES) and not path.startswith("scripts/"):
                continue
            with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
                text = file.read()
            yield from check_lengths(path, text)
            if path.endswith((".c", ".h")):
                yield from check_includes(root, path, text)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    wrong = list(check(os.path.normpath(root)))
    for line in wrong:
        print(line)
    print(f"layers: {len(wrong)} violation{'' if len(wrong) == 1 else 's'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
