"""scripts/bench overhead: CPU time of indexing over the sum of its parts, decoding alone and inference alone."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from . import clips, measure, report
from .kinodex import Kinodex

TARGET = 1.15


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=3, help="turns; the median counts (3)")
    parser.add_argument("--clips", type=pathlib.Path, default=report.ROOT / "samples", help="folder (samples/)")
    parser.add_argument("--short", action="store_true", help="leave out clips over 20 MB")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16"])


def _deal(paths, hands):
    """As many lists of about the same size, as far as whole files allow."""
    dealt = [[] for _ in range(hands)]
    for path in sorted(paths, key=os.path.getsize, reverse=True):
        min(dealt, key=lambda hand: sum(map(os.path.getsize, hand))).append(path)
    return [hand for hand in dealt if hand]


def decode_alone(parts, paths):
    """One process a core at a time, as when indexing: what cores share costs the same."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as in a decoder host
    running = [subprocess.Popen([parts, "decode", *hand], stdout=subprocess.PIPE, text=True, env=env)
               for hand in _deal(paths, os.cpu_count())]
    found = [json.loads(child.communicate()[0]) for child in running]
    if any(child.returncode for child in running):
        sys.exit("error: kx_bench_parts could not decode every clip (see above)")
    return {key: sum(one[key] for one in found) for key in ("cpu_s", "frames", "patches")}


def infer_alone(parts, bundle, precision, items):
    done = measure.run([parts, "infer", bundle, precision, os.cpu_count(), items])
    return json.loads(done.out)["cpu_s"]


def _turn(kinodex, paths, precision, data):
    decode = decode_alone(kinodex.parts, paths)
    pictures = infer_alone(kinodex.parts, kinodex.bundles / "lite0", precision, decode["frames"])
    sound = infer_alone(kinodex.parts, kinodex.bundles / "yamnet", precision, decode["patches"])
    whole, counts = kinodex.index(paths, data, precision)
    return {"decode_s": decode["cpu_s"], "pictures_s": pictures, "sound_s": sound, "index_s": whole.cpu_s,
            "index_wall_s": whole.wall_s, "frames": decode["frames"], "patches": decode["patches"],
            "hours": counts["hours"], "decode_in_index_s": counts["decode_cpu_s"]}


def _starting(kinodex, precision, data):
    """CPU time of indexing nothing: loading, compiling and checking the models, opening and closing the store."""
    with tempfile.TemporaryDirectory() as empty:
        return kinodex.index([empty], data, precision)[0].cpu_s


def main(args):
    paths = clips.find(args.clips, long=not args.short)
    kinodex = Kinodex(args.kinodex, args.bundles)
    if not kinodex.parts.exists():
        sys.exit(f"error: there is no {kinodex.parts}. Build the target kx_bench_parts beside that kinodex.")
    out = report.Report("overhead")
    report.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        data = pathlib.Path(folder) / "data"
        starting = _starting(kinodex, args.precision, data)
        turns = [_turn(kinodex, paths, args.precision, data) for _ in range(args.runs)]
    middle = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
    alone = middle["decode_s"] + middle["pictures_s"] + middle["sound_s"]
    ratio = middle["index_s"] / alone
    print(f"  {len(paths)} clips, {middle['hours']:.3f} h, {middle['frames']:.0f} frames, {middle['patches']:.0f} "
          f"patches; median of {args.runs}")
    report.table(["CPU seconds", ""], [
        ["decoding alone", middle["decode_s"]],
        ["inference alone, pictures", middle["pictures_s"]],
        ["inference alone, sound", middle["sound_s"]],
        ["sum", alone],
        ["indexing", middle["index_s"]],
        ["  of it decoding, as it says", middle["decode_in_index_s"]],
        ["  of it starting with nothing to do", starting]])
    good = report.verdict("indexing / sum of its parts", f"{ratio:.3f}", f"<= {TARGET}", ratio <= TARGET)
    out.write(clips=len(paths), precision=args.precision, ratio=ratio, starting_s=starting, turns=turns, **middle)
    return 0 if good else 1
