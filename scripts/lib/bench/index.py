"""scripts/bench index: the same clips through Kinodex and through Python pipelines, in turns."""
import json
import os
import pathlib
import statistics
import sys
import tempfile

from . import clips, measure, report
from .kinodex import Kinodex, read_export

PACKAGES = ("numpy", "onnxruntime", "av", "librosa", "chroma-hnswlib", "torch", "torchaudio", "torchcodec",
            "opencv-python-headless")
PEERS = ("pyav", "pyav-fast", "torchcodec", "torchcodec-resize")
# Peers whose embeddings are under it have other pixels; they are measured all the same.
FLOOR = 0.999
FLOOR_BF16 = 0.998
TARGET = 1.3
KINODEX = "kinodex"


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=3, help="turns; the median counts (3)")
    parser.add_argument("--clips", type=pathlib.Path, default=report.ROOT / "samples", help="folder (samples/)")
    parser.add_argument("--long", action="store_true", help="also clips over 20 MB (ten minutes of film)")
    parser.add_argument("--repeat", type=int, default=4, help="also a turn with each clip this many times, by which "
                        "starting counts less (4; 0: none)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}; torchcodec downloads 3 GB")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16"],
                        help="kinodex's in the measured runs (auto); outputs are compared in f32 and in this one")


class Contest:
    """One set of clips, all contestants."""

    def __init__(self, kinodex, peers, paths, precision, work):
        self.kinodex, self.peers, self.paths = kinodex, peers, paths
        self.precision, self.work = precision, work
        self.runs = {name: [] for name in (KINODEX, *peers)}
        self.counts = {}

    def _run_peer(self, name):
        env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        done = measure.run([sys.executable, "-m", "bench.peer", "--decoder", name, "--bundles", self.kinodex.bundles,
                            "--out", self.work / name, *self.paths], env=env)
        counts = json.loads(done.out)
        for clip, why in counts["failed"].items():
            print(f"  {name} failed on {clip}: {why[:100]}")
        self.counts[name] = counts
        return done

    def run_all(self, runs):
        """In turns, and each turn in another order, so that what else the machine does falls on all alike."""
        names = list(self.runs)
        for turn in range(runs):
            for name in names[turn % len(names):] + names[: turn % len(names)]:
                if name == KINODEX:
                    done, self.counts[name] = self.kinodex.index(self.paths, self.work / "data", self.precision)
                else:
                    done = self._run_peer(name)
                self.runs[name].append(done)
                print(f"  turn {turn + 1}: {name:<18} {done.cpu_s:8.2f} s CPU {done.wall_s:8.2f} s wall", flush=True)

    def medians(self):
        return {name: {"cpu_s": statistics.median(run.cpu_s for run in runs),
                       "wall_s": statistics.median(run.wall_s for run in runs),
                       "cpu_s_all": [round(run.cpu_s, 3) for run in runs]} for name, runs in self.runs.items()}


def _cosine(ours, theirs, name):
    if theirs is None or (ours[name] is None) != (theirs[name] is None):
        return None
    return float(ours[name] @ theirs[name]) if ours[name] is not None else 1.0


def compare(contest, precision):
    """Per peer and clip the cosine of our embeddings in that precision with the peer's."""
    data = contest.work / f"data-{precision}"
    contest.kinodex.index(contest.paths, data, precision)
    ours = contest.kinodex.export(data)
    theirs = {name: read_export(contest.work / name) for name in contest.peers}
    return {name: {clip: [_cosine(vectors, found.get(clip), track) for track in ("visual", "audio")]
                   for clip, vectors in ours.items()} for name, found in theirs.items()}


def _worst(cosines):
    """The lowest of a peer over both tracks; a clip that one of the two has not is passed over."""
    return min((value for pair in cosines.values() for value in pair if value is not None), default=0.0)


def _show_cosines(cosines, precision):
    print(f"\n  cosine of {precision} embeddings, picture / sound (-: one of the two could not read it)")
    names = list(cosines)
    rows = []
    for clip in cosines[names[0]]:
        pairs = [cosines[name][clip] for name in names]
        rows.append([clip] + [" / ".join("-" if value is None else f"{value:.5f}" for value in pair) for pair in pairs])
    rows.append(["lowest"] + [f"{_worst(cosines[name]):.5f}" for name in names])
    report.table(["clip", *names], rows)


def _show_times(medians, counts):
    ours = medians[KINODEX]
    rows = [[name, one["cpu_s"], one["wall_s"], one["cpu_s"] / ours["cpu_s"], one["wall_s"] / ours["wall_s"],
             counts[name].get("frames", "")] for name, one in medians.items()]
    report.table(["median", "CPU s", "wall s", "CPU ratio", "wall ratio", "frames"], rows)


def _cheapest(medians, names):
    return min(names, key=lambda name: medians[name]["cpu_s"])


def _ratio(medians, name):
    return medians[name]["cpu_s"] / medians[KINODEX]["cpu_s"]


def _repeated(args, contest, peers):
    """A turn over copies of the clips: the medians, and how much there was."""
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        copies = clips.repeat(contest.paths, args.repeat, pathlib.Path(folder) / "clips")
        print(f"\n  each clip {args.repeat} times ({len(copies)} files)")
        again = Contest(contest.kinodex, peers, copies, args.precision, pathlib.Path(folder))
        again.run_all(1)
        medians = again.medians()
        _show_times(medians, again.counts)
        return {"times": args.repeat, "files": len(copies), "medians": medians, "hours": again.counts[KINODEX]["hours"]}


def _contest(args, peers, paths, folder):
    """All turns and comparisons of the clips as they are."""
    contest = Contest(Kinodex(args.kinodex, args.bundles), peers, paths, args.precision, folder)
    contest.run_all(args.runs)
    fields = {"clips": len(paths), "hours": contest.counts[KINODEX]["hours"], "precision": args.precision,
              "medians": contest.medians(), "cosines": {}}
    for precision in dict.fromkeys(["f32", args.precision if args.precision != "auto" else "f32"]):
        fields["cosines"][precision] = compare(contest, precision)
        _show_cosines(fields["cosines"][precision], precision)
    print()
    _show_times(fields["medians"], contest.counts)
    return contest, fields


def _judge(fields, equal):
    """The target is for the cheapest peer with our pixels; the cheapest of all is there to be seen."""
    good = report.verdict("peers with the same outputs", ", ".join(equal) or "none", f"cosine >= {FLOOR}", bool(equal))
    if equal and "bf16" in fields["cosines"]:
        lowest = max(_worst(fields["cosines"]["bf16"][name]) for name in equal)
        good = report.verdict("their lowest cosine with bf16", f"{lowest:.5f}", f">= {FLOOR_BF16}",
                              lowest >= FLOOR_BF16) and good
    fields["ratios"] = {}
    again = fields.get("repeated", {}).get("medians", {})
    for title, medians in (("", fields["medians"]), (", repeated clips", again)):
        same, every = ([name for name in names if name in medians] for names in (equal, PEERS))
        if every:
            name = _cheapest(medians, every)
            fields["ratios"]["any" + title] = ratio = _ratio(medians, name)
            print(f"  CPU time of the cheapest peer{title}, whatever its outputs ({name}) / kinodex: {ratio:.2f}x")
        if same:
            name = _cheapest(medians, same)
            fields["ratios"]["same outputs" + title] = ratio = _ratio(medians, name)
            what = f"CPU time of the cheapest peer{title}, same outputs ({name}) / kinodex"
            good = report.verdict(what, f"{ratio:.2f}x", f">= {TARGET}x", ratio >= TARGET) and good
    return good


def main(args):
    paths = clips.find(args.clips, args.long)
    peers = [name for name in args.peers.split(",") if name]
    if not peers or set(peers) - set(PEERS):
        sys.exit(f"error: --peers takes some of {','.join(PEERS)}")
    out = report.Report("index", PACKAGES)
    report.CACHE.mkdir(parents=True, exist_ok=True)
    print(f"  {len(paths)} clips, {sum(map(os.path.getsize, paths)) / 1e6:.0f} MB; {args.runs} turns; "
          f"peers with {os.cpu_count()} processes of one thread", flush=True)
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        contest, fields = _contest(args, peers, paths, pathlib.Path(folder))
    equal = [name for name in peers if _worst(fields["cosines"]["f32"][name]) >= FLOOR]
    if args.repeat:
        best = {_cheapest(fields["medians"], names) for names in (equal, peers) if names}
        fields["repeated"] = _repeated(args, contest, sorted(best))
    good = _judge(fields, equal)
    out.write(**fields)
    return 0 if good else 1
