"""What 100 million and a thousand million videos would take, computed from what the last runs of scripts/bench ann measured
per vector and per query. Nothing here was run at such sizes.
"""
import json
import math

from . import ann_curves, report

SHARD_ROWS = 25_000_000
VIDEOS = (100_000_000, 1_000_000_000)
DIMS = (256, 1280)  # of one vector a video: projected, as lite0 makes it
PAGE = 4096
RECALL = 0.98
CODE_EXTRA = 12  # of a vector beside its bits: row, two factors
CELL_ROWS = 250


def _runs(set_name):
    """Figures of ours over a set, newest first: (commit, rows, {label: figures})."""
    path = report.CACHE / "ann.jsonl"
    for line in reversed(path.read_text().splitlines() if path.exists() else []):
        kept = json.loads(line)
        ours = {label: one for label, one in kept["figures"].get("search", {}).items() if label.startswith("kinodex")}
        if kept["set"] == set_name and ours:
            yield kept["versions"]["source"], kept["about"]["rows"], ours


def _pair():
    """The newest run over the generated set and the one over the quick set that measured the same code: how time grows with
    rows is not to be read off two versions of the program."""
    quick = {}
    for commit, rows, ours in _runs("quick"):
        quick.setdefault(commit, (rows, ours))
    for commit, rows, ours in _runs("generated"):
        if commit in quick:
            return (rows, ours), quick[commit]
    return None


def _work(figures):
    """(CPU us, codes, refined) of a query at the recall, between measured points."""
    points = figures["points"]

    def between(key):
        value = ann_curves.at([(point["recall"], 1.0 / max(point[key], 1e-9)) for point in points], RECALL)
        return 1.0 / value if value else None

    rate = ann_curves.at([(point["recall"], 1e6 / point["us"]) for point in points], RECALL)
    return (1e6 / rate if rate else None), between("codes"), between("refined")


def _growth(label, small, rows, us):
    """How a query's time grows with the rows: the exponent between those of the small run and these, both measured."""
    less, figures = small
    if label not in figures or rows <= less:
        return None
    before = _work(figures[label])[0]
    return max(0.0, math.log(us / before) / math.log(rows / less)) if before else None


def table(args, contenders, vectors):
    pair = _pair()
    if pair is None:
        print("  needs runs of --part search over the generated set and with --quick, at one commit")
        return {}
    (rows, ours), small = pair
    label = next(iter(ours))
    us, codes, refined = _work(ours[label])
    grows = _growth(label, small, rows, us) if us else None
    if grows is None:
        print(f"  needs points beyond recall {RECALL}")
        return {}
    print(f"  measured, {label}, {rows:,} x 256 at recall {RECALL}: {us:.0f} us, {codes:.0f} codes, {refined:.0f} full vectors "
          f"a query; time grows with rows ** {grows:.2f}")
    lines = []
    for videos in VIDEOS:
        for dim in DIMS:
            shards = -(-videos // SHARD_ROWS)
            hot = dim / 8 + CODE_EXTRA + dim * 5 / CELL_ROWS  # code; centroid of a cell as float and int8
            full = 2 * dim
            cpu = shards * us * (dim / 256) * (min(videos, SHARD_ROWS) / rows) ** grows
            lines.append([f"{videos / 1e6:,.0f} M x {dim}", shards, f"{videos * hot / 1e9:,.0f}", f"{videos * full / 1e9:,.0f}",
                          f"{videos * (hot + full) / 1e9:,.0f}", f"{shards * refined:,.0f}",
                          f"{shards * refined * -(-full // PAGE) * PAGE / 1e6:.1f}", f"{cpu / 1e3:.1f}"])
    report.table(["computed", "shards", "codes in RAM, GB", "vectors, GB", "disk, GB", "reads a query", "MB a query",
                  "CPU ms a query"], lines)
    return {"rows": lines, "us": us, "codes": codes, "refined": refined, "grows": grows}
