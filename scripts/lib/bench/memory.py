"""scripts/bench memory: what all processes hold together while ten minutes and an hour of film are indexed."""
import pathlib
import subprocess
import sys
import tempfile

from . import measure, report
from .kinodex import Kinodex

LIMIT_MIB = 700
# The longer film may hold this much more and count as flat: the store's own buffers fill up in time.
FLAT = 1.10
MIB = 1 << 20


def add_arguments(parser):
    parser.add_argument("--film", type=pathlib.Path, default=report.ROOT / "samples" / "bbb.mp4",
                        help="ten minutes (samples/bbb.mp4)")
    parser.add_argument("--times", type=int, default=6, help="how often it is joined for the long one (6: an hour)")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16"])


def join(film, times, folder):
    """The film as often as said in one file, without encoding anew."""
    listed, out = folder / "list.txt", folder / f"{film.stem}-x{times}{film.suffix}"
    listed.write_text(f"file '{film.resolve()}'\n" * times)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-f", "concat", "-safe", "0", "-i", listed, "-map", "0:v:0",
                    "-map", "0:a:0", "-c", "copy", "-y", out], check=True)
    return out


def _index(kinodex, film, precision, data):
    memory = measure.PeakMemory()
    done, counts = kinodex.index([film], data, precision, watch=memory)
    if counts["done"] != 1:
        sys.exit(f"error: {film} was not indexed: {counts}")
    return {"film": film.name, "hours": counts["hours"], "wall_s": done.wall_s, "cpu_s": done.cpu_s,
            "rss_mib": memory.rss / MIB, "pss_mib": memory.pss / MIB, "processes": memory.processes,
            "samples": memory.samples, "pss_mib_by_tenth": _tenths(memory.line)}


def _tenths(line):
    """The peak in each tenth of the run."""
    size = -(-len(line) // 10) or 1
    return [round(max(line[at : at + size]) / MIB, 1) for at in range(0, len(line), size)]


def main(args):
    if not args.film.exists():
        sys.exit(f"error: there is no {args.film}. Run scripts/samples all first, or name a film with --film.")
    kinodex = Kinodex(args.kinodex, args.bundles)
    out = report.Report("memory")
    report.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        folder = pathlib.Path(folder)
        films = [args.film, join(args.film, args.times, folder)]
        runs = [_index(kinodex, film, args.precision, folder / "data") for film in films]
    keys = ("film", "hours", "wall_s", "cpu_s", "rss_mib", "pss_mib", "processes")
    report.table(["film", "hours", "wall s", "CPU s", "peak RSS MiB", "peak PSS MiB", "processes"],
                 [[run[key] for key in keys] for run in runs])
    for run in runs:
        tenths = " ".join(f"{mib:.0f}" for mib in run["pss_mib_by_tenth"])
        print(f"  {run['film']}: peak PSS MiB by tenth of the run: {tenths}")
    print("  RSS counts pages that processes share once for each; PSS counts them once")
    peak, growth = max(run["rss_mib"] for run in runs), runs[1]["rss_mib"] / runs[0]["rss_mib"]
    good = report.verdict("peak RSS of all processes", f"{peak:.0f} MiB", f"< {LIMIT_MIB} MiB", peak < LIMIT_MIB)
    good = report.verdict("long film / short film", f"{growth:.2f}", f"<= {FLAT}", growth <= FLAT) and good
    out.write(precision=args.precision, runs=runs, growth=growth)
    return 0 if good else 1
