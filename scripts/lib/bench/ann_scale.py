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


def _last(set_name):
    """The newest figures of ours over a set: (rows, {label: figures})."""
    path = report.CACHE / "ann.jsonl"
    for line in reversed(path.read_text().splitlines() if path.exists() else []):
        kept = json.loads(line)
        ours = {label: one for label, one in kept["figures"].get("search", {}).items() if label.startswith("kinodex")}
        if kept["set"] == set_name and ours:
            return kept["about"]["rows"], ours
    return None


def _work(figures):
    """(CPU us, codes, refined) of a query at the recall, between measured points."""
    points = figures["points"]

    def between(key):
        value = ann_curves.at([(point["recall"], 1.0 / max(point[key], 1e-9)) for point in points], RECALL)
        return 1.0 / value if value else None

    rate = ann_curves.at([(point["recall"], 1e6 / point["us"]) for point in points], RECALL)
    return (1e6 / rate if rate else None), between("codes"), between("refined")


def _growth(label, rows, us):
    """How a query's time grows with the rows: the exponent between 100,000 and these, both measured."""
    small = _last("quick")
    if small and label in small[1]:
        (less, figures) = small[0], small[1][label]
        before = _work(figures)[0]
        if before and rows > less:
            return max(0.0, math.log(us / before) / math.log(rows / less))
    return None


def table(args, contenders, vectors):
    last = _last("generated")
    if last is None:
        print("  needs a run of --part search over the generated set first")
        return {}
    rows, ours = last
    label = next(iter(ours))
    us, codes, refined = _work(ours[label])
    grows = _growth(label, rows, us) if us else None
    if grows is None:
        print(f"  needs points beyond recall {RECALL}, and a run with --quick")
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
