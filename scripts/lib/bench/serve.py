"""scripts/bench serve: queries a second and their times in the process, over ZeroMQ and over HTTP, one and 100 a request."""
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from . import measure, report


def add_arguments(parser):
    parser.add_argument("--program", type=pathlib.Path, default=report.ROOT / "build/release/tests/bench/kx_bench_serve",
                        help="what makes the store and asks (build/release)")
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 20000], help="sizes of the stores (2000 20000)")
    parser.add_argument("--dim", type=int, default=1280, help="of the vectors (1280, as of lite0)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100], help="queries a request (1 100)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="that ask at a time (1 8)")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn (3)")
    parser.add_argument("--runs", type=int, default=3, help="turns; the median counts (3)")


@contextlib.contextmanager
def _running(command, first_word):
    """A process that says so when it is ready; its first line."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith(first_word):
            sys.exit(f"error: {command[0]} {command[1]} does not start")
        yield line
    finally:
        process.terminate()
        process.stdin.close()
        process.wait()


def _ask(args, way, at, batch, clients):
    run = measure.run([args.program, way, at, args.dim, batch, clients, args.seconds])
    return json.loads(run.out)


def _measure(args, folder, videos):
    """Medians by way, batch and clients; the ways take turns."""
    # A folder of data has a file that says so, which `serve` looks for; the store alone is what the maker makes.
    store = folder / f"store-{videos}"
    measure.run([args.program, "make", store, videos, args.dim])
    (store / "FORMAT").write_text("kinodex data 1\n")
    endpoint = f"ipc://{folder}/shard-{videos}"
    serve = [args.kinodex, "serve", "--data", store, "--listen", "127.0.0.1:0", "--bundles", args.bundles]
    behind = [args.kinodex, "serve", "--shards", endpoint, "--listen", "127.0.0.1:0", "--bundles", args.bundles]
    found = {}
    with _running([args.program, "host", store, endpoint], "ready"), _running(serve, "http://") as line, \
            _running(behind, "http://") as line_behind:
        at = {"inprocess": store, "zeromq": endpoint, "http": line.split()[0].removeprefix("http://"),
              "http-zeromq": line_behind.split()[0].removeprefix("http://")}
        for batch in args.batch:
            for clients in args.clients:
                runs = {way: [] for way in at}
                for _ in range(args.runs):
                    for way in at:
                        runs[way].append(_ask(args, way.partition("-")[0], at[way], batch, clients))
                for way in at:
                    found[way, batch, clients] = {key: statistics.median(run[key] for run in runs[way])
                                                  for key in ("queries_s", "p50_ms", "p99_ms")}
                print(f"  {videos} videos, batch {batch}, {clients} clients: "
                      + ", ".join(f"{way} {found[way, batch, clients]['queries_s']:.0f}/s" for way in at), flush=True)
    return found


def main(args):
    out = report.Report("serve")
    report.CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="kx-bs-") as folder:  # short: a socket's path ends at 107 bytes
        for videos in args.videos:
            found = _measure(args, pathlib.Path(folder), videos)
            for (way, batch, clients), one in found.items():
                rows.append({"videos": videos, "way": way, "batch": batch, "clients": clients, **one})
    report.table(["way", "videos", "batch", "clients", "queries/s", "p50 ms", "p99 ms"],
                 [[row["way"], row["videos"], row["batch"], row["clients"], f"{row['queries_s']:.0f}", row["p50_ms"],
                   row["p99_ms"]] for row in rows])
    out.write(dim=args.dim, seconds=args.seconds, runs=args.runs, rows=rows)
    return 0
