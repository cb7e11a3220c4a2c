"""Running commands: their wall time, the CPU time of all their processes, and their memory while they run."""
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

SAMPLE_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Run:
    wall_s: float
    cpu_s: float  # of the process and of all below it that were waited for, start to end
    status: int
    out: str


def run(command, env=None, ok=(0,), watch=None):
    """Runs to the end; exits with the command's own words when its status is not among ok. watch(pid): called in
    between, every SAMPLE_S."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = subprocess.Popen(words, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                 env={**os.environ, **(env or {})})
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(child.pid, ended, watch)) if watch else None
        if watcher:
            watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        if watcher:
            watcher.join()
        out.seek(0)
        err.seek(0)
        if child.returncode not in ok:
            sys.exit(f"error: `{' '.join(words[:6])} ...' ended with {child.returncode}:\n"
                     f"{err.read().decode(errors='replace')[-2000:]}")
        return Run(wall, usage.ru_utime + usage.ru_stime, child.returncode, out.read().decode())


def _watch(pid, ended, watch):
    while not ended.wait(SAMPLE_S):
        watch(pid)


def _parents():
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            # The name may hold anything, also blanks and brackets.
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def tree(pid):
    """The process and all below it."""
    parents, found = _parents(), [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found


def memory(pid):
    """(resident, proportional) bytes of one process; shared pages count whole in the first and by share in the
    second. Zeros when it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return sizes["Rss"], sizes["Pss"]
    except PermissionError:
        resident = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        return resident, resident
    except (OSError, KeyError, IndexError):
        return 0, 0


class PeakMemory:
    """For run(watch=...): the most that all processes of a command held together, and a line of it over time."""

    def __init__(self):
        self.rss = self.pss = self.processes = self.samples = 0
        self.line = []

    def __call__(self, pid):
        pids = tree(pid)
        sizes = [memory(each) for each in pids]
        rss, pss = (sum(column) for column in zip(*sizes))
        self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)
        self.processes = max(self.processes, len(pids))
        self.samples += 1
        self.line.append(pss)
