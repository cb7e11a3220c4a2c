"""What every benchmark prints first, and the lines of JSON it leaves in .cache/bench for docs/benchmarks.md."""
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "bench"


def _cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib():
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0].strip()
    except OSError:
        return ""


def versions(packages=()):
    found = {"kernel": platform.release(), "python": platform.python_version()}
    found["ffmpeg"] = _first_line("ffmpeg", "-version").split(" ")[2:3]
    found["ffmpeg"] = found["ffmpeg"][0] if found["ffmpeg"] else "none"
    found["source"] = _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "no commit"
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


class Report:
    """Prints, and collects what goes into one line of JSON."""

    def __init__(self, name, packages=()):
        self.fields = {
            "benchmark": name,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib()},
            "load_before": round(os.getloadavg()[0], 2),
            "versions": versions(packages),
            "command": "scripts/bench " + shlex.join(sys.argv[1:]),
        }
        machine = self.fields["machine"]
        print(f"{name}: {self.fields['date']}, {machine['cpu']}, {machine['cores']} cores, "
              f"{machine['memory_gib']} GiB, load {self.fields['load_before']}")
        print("  " + ", ".join(f"{key} {value}" for key, value in self.fields["versions"].items()))
        print(f"  {self.fields['command']}", flush=True)

    def write(self, **fields):
        self.fields.update(fields)
        CACHE.mkdir(parents=True, exist_ok=True)
        path = CACHE / f"{self.fields['benchmark']}.jsonl"
        with open(path, "a") as out:
            out.write(json.dumps(self.fields) + "\n")
        print(f"  -> {path.relative_to(ROOT)}")


def table(head, rows):
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    cells = [head] + [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        first = row[0].ljust(widths[0])
        print("  " + "  ".join([first] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]).rstrip())


def verdict(what, value, target, good):
    print(f"  {what}: {value} (target {target}): {'met' if good else 'MISSED'}")
    return good
