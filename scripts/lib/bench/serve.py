"""scripts/bench serve: queries a second, their times, CPU time and recall: in the process, over ZeroMQ, over HTTP, one, 100 and
1,000 a request, on made-up vectors with structure (tests/bench/factors.h)."""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from . import measure, report


def add_arguments(parser):
    parser.add_argument("--program", type=pathlib.Path, default=report.ROOT / "build/release/tests/bench/kx_bench_serve",
                        help="what makes the store and asks (build/release)")
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 50000], help="sizes of the stores (2000 50000)")
    parser.add_argument("--dim", type=int, default=1280, help="of the vectors (1280, as of lite0)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100, 1000], help="queries a request (1 100 1000)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="that ask at a time (1 8)")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn (3)")
    parser.add_argument("--runs", type=int, default=3, help="turns; the median counts (3)")


@contextlib.contextmanager
def _running(command, first_word):
    """A process that says so when it is ready: its number and its first line."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith(first_word):
            sys.exit(f"error: {command[0]} {command[1]} does not start")
        yield process.pid, line
    finally:
        process.terminate()
        process.stdin.close()
        process.wait()


def _cpu_s(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _ask(args, way, at, servers, batch, clients):
    """What the asking program says, and the CPU time of a query in all processes. The program waits for a line where its
    clients begin and where they end."""
    command = [str(word) for word in (args.program, way, at, args.dim, batch, clients, args.seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        cpu = []
        for word in ("begin", "end"):
            if process.stdout.readline() != word + "\n":
                sys.exit(f"error: {' '.join(command)} failed")
            cpu.append(sum(map(_cpu_s, servers)))
            process.stdin.write("\n")
            process.stdin.flush()
        said = json.loads(process.stdout.readline())
    return {**said, "cpu_us": (said["cpu_s"] + cpu[1] - cpu[0]) * 1e6 / (said["requests"] * batch)}


def _turns(args, ways, batch, clients):
    """Medians by way; the ways take turns."""
    runs = {way: [] for way in ways}
    for _ in range(args.runs):
        for way, (at, servers) in ways.items():
            runs[way].append(_ask(args, way.partition("-")[0], at, servers, batch, clients))
    return {way: {key: statistics.median(run[key] for run in runs[way]) for key in ("queries_s", "p50_ms", "p99_ms", "cpu_us", "recall")}
            for way in ways}


def _measure(args, folder, videos):
    store = folder / f"store-{videos}"
    measure.run([args.program, "make", store, videos, args.dim])
    (store / "FORMAT").write_text("kinodex data 1\n")  # what makes a folder with a store a data directory
    endpoint = f"ipc://{folder}/shard-{videos}"
    serve = [args.kinodex, "serve", "--listen", "127.0.0.1:0", "--bundles", args.bundles, "--timeout", "120000"]
    found = {}
    with _running([args.program, "host", store, endpoint], "ready") as (host, _), \
            _running([*serve, "--data", store], "http://") as (alone, line), \
            _running([*serve, "--shards", endpoint], "http://") as (before, line_before):
        ways = {"inprocess": (store, []), "zeromq": (endpoint, [host]), "http": (_address(line), [alone]),
                "http-zeromq": (_address(line_before), [before, host])}
        for batch in args.batch:
            for clients in args.clients:
                for way, one in _turns(args, ways, batch, clients).items():
                    found[way, batch, clients] = one
                    print(f"  {videos} videos, batch {batch}, {clients} clients, {way}: {one['queries_s']:.0f}/s, "
                          f"{one['cpu_us']:.0f} us of CPU, recall {one['recall']:.3f}", flush=True)
    return found


def _address(line):
    return line.split()[0].removeprefix("http://")


def main(args):
    out = report.Report("serve")
    report.CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="kx-bs-") as folder:  # short: a socket's path ends at 107 bytes
        for videos in args.videos:
            found = _measure(args, pathlib.Path(folder), videos)
            for (way, batch, clients), one in found.items():
                rows.append({"videos": videos, "way": way, "batch": batch, "clients": clients, **one})
    report.table(["way", "videos", "batch", "clients", "queries/s", "p50 ms", "p99 ms", "CPU us/query", "recall@10"],
                 [[row["way"], row["videos"], row["batch"], row["clients"], f"{row['queries_s']:.0f}", row["p50_ms"],
                   row["p99_ms"], f"{row['cpu_us']:.1f}", f"{row['recall']:.3f}"] for row in rows])
    out.write(dim=args.dim, seconds=args.seconds, runs=args.runs, rows=rows)
    return 0
