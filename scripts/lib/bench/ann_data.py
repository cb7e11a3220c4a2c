"""The data sets of scripts/bench ann, made once and kept in .cache/bench/ann: vectors, queries, attributes, exact answers.

NAME-base.fbin, NAME-query.fbin    int32 rows, int32 dimension, then float32, row after row
NAME-attributes.ibin               the same with int32: class, a, b of each row of the base
NAME-query-class.ibin              class of each query, [n][1]
NAME-truth.ibin, NAME-truth.fbin   the 100 nearest rows of each query and their inner products, best first
NAME-truth-FILTER.ibin/.fbin       the same among the rows that the filter keeps (-1 and -inf where there are fewer)
NAME-drift-*                       generated only: rows to come in (mostly of clusters that are new), queries of then
NAME.json                          the recipe, the estimated intrinsic dimension, figures to know the set by

python -m bench.ann_data NAME...: makes them.
"""
import dataclasses
import json
import os
import sys
import time

import numpy as np

from . import ann_generate, ann_truth, report

FOLDER = report.CACHE / "ann"
QUERIES = 10_000
NEAREST = 100
# filter: how many of attribute a's 10,000 values it keeps; class: the query's own.
FILTERS = {"10": 1000, "1": 100, "0.1": 10, "0.01": 1, "class": None}
DRIFT = 200_000
DRIFT_QUERIES = 2_000
ROWS_AT_ONCE = 1_000_000
# of which set: rows, queries, recipe
GENERATED = {
    "generated": (1_000_000, QUERIES, ann_generate.Recipe()),
    "quick": (100_000, QUERIES, ann_generate.Recipe()),
    "wide": (200_000, QUERIES, ann_generate.Recipe(dim=1280)),
    "large": (10_000_000, 1000, ann_generate.Recipe()),  # 10 GB, all of it in memory while it is made
}
SETS = (*GENERATED, "real")


def write(path, rows):
    """fbin or ibin, by the type of the rows; under its name only when it is whole."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as out:
        np.array(rows.shape, np.int32).tofile(out)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            np.ascontiguousarray(rows[start:start + ROWS_AT_ONCE]).tofile(out)
    os.replace(temporary, path)


def read(path):
    """Mapped, not read."""
    rows, dim = np.fromfile(path, np.int32, 2)
    return np.memmap(path, np.float32 if path.suffix == ".fbin" else np.int32, "r", 8, (int(rows), int(dim)))


class Set:
    """One of them, as arrays."""

    def __init__(self, name):
        self.name = name
        self.about = json.loads((FOLDER / f"{name}.json").read_text())
        self.base, self.queries = self._read("base.fbin"), np.array(self._read("query.fbin"))
        self.attributes = np.array(self._read("attributes.ibin"))
        self.query_class = np.array(self._read("query-class.ibin"))[:, 0]

    def _read(self, what):
        return read(self.path(what))

    def path(self, what):
        return FOLDER / f"{self.name}-{what}"

    def truth(self, filtered=None):
        """(ids, scores)"""
        what = f"truth-{filtered}" if filtered else "truth"
        return self._read(f"{what}.ibin"), self._read(f"{what}.fbin")

    def kept(self, filtered, query_class=None):
        """Rows that a filter keeps, [rows] bool."""
        if FILTERS[filtered] is None:
            return self.attributes[:, 0] == query_class
        return self.attributes[:, 1] < FILTERS[filtered]

    def allows(self, filtered):
        """For ann_truth.recall: whether an answer is one that the filter keeps."""
        if filtered is None:
            return None
        if FILTERS[filtered] is None:
            return lambda ids, queries: self.attributes[ids, 0] == self.query_class[queries][:, None]
        return lambda ids, queries: self.attributes[ids, 1] < FILTERS[filtered]

    def recall(self, answers, filtered=None, count=None):
        n = count or len(answers)
        return ann_truth.recall(self.base, self.queries[:n], answers[:n], self.truth(filtered)[1], 10,
                                self.allows(filtered))


def _truths(name, base, queries, attributes, query_class):
    def path(what):
        return FOLDER / f"{name}-truth{what}"

    def keep(what, ids, scores):
        write(path(f"{what}.ibin"), ids)
        write(path(f"{what}.fbin"), scores)

    ids, scores = ann_truth.exact(base, queries, NEAREST)
    keep("", ids, scores)
    for filtered, below in FILTERS.items():
        if below is not None:
            keep(f"-{filtered}", *ann_truth.exact(base, queries, NEAREST, np.flatnonzero(attributes[:, 1] < below)))
            continue
        own_ids, own_scores = np.full_like(ids, -1), np.full_like(scores, -np.inf)
        for which in np.unique(query_class):
            rows = np.flatnonzero(attributes[:, 0] == which)
            of_it = np.flatnonzero(query_class == which)
            if len(rows):
                own_ids[of_it], own_scores[of_it] = ann_truth.exact(base, queries[of_it], NEAREST, rows)
        keep(f"-{filtered}", own_ids, own_scores)
    return ids, scores


def _describe(ids, scores, attributes, query_class):
    distances = np.sqrt(np.maximum(2 - 2 * scores.astype(np.float64), 0))
    apart = distances[:, 0] > 0.1  # a query's near-duplicate says nothing of the dimension
    sizes = np.sort(np.bincount(attributes[:, 0]))[::-1]
    return {
        "intrinsic_dimension": {k: round(float(ann_generate.intrinsic_dimension(distances[apart][:, :k])), 1)
                                for k in (10, 20, 50, 100)},
        "score_of_nearest": {k: round(float(scores[:, k - 1].mean()), 3) for k in (1, 10, 100)},
        "queries_with_a_near_duplicate": round(float(1 - apart.mean()), 4),
        "nearest_10_of_own_class": round(float((attributes[ids[:, :10], 0] == query_class[:, None]).mean()), 3),
        "class_sizes": {"classes": int((sizes > 0).sum()), "largest": int(sizes[0]), "median": int(np.median(sizes))},
        "filter_rows": {name: int((attributes[:, 1] < below).sum()) for name, below in FILTERS.items() if below},
    }


def _finish(name, rows, classes, attributes, about, count=QUERIES):
    """Splits the queries off (rows come in random order), finds the truth, writes all."""
    base, queries = rows[:-count], rows[-count:]
    query_class = np.ascontiguousarray(classes[-count:])
    attributes = np.column_stack([classes[:-count], attributes[:-count]]).astype(np.int32)
    write(FOLDER / f"{name}-base.fbin", base)
    write(FOLDER / f"{name}-query.fbin", queries)
    write(FOLDER / f"{name}-attributes.ibin", attributes)
    write(FOLDER / f"{name}-query-class.ibin", query_class[:, None])
    ids, scores = _truths(name, base, queries, attributes, query_class)
    about = {"rows": len(base), "dim": base.shape[1], "queries": count, **about,
             **_describe(ids, scores, attributes, query_class)}
    (FOLDER / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def _drift(name, recipe):
    """Rows that come in while it is searched: the share of new clusters rises from none to all. Their classes count on
    from the old ones'."""
    new = ann_generate.Mixture(dataclasses.replace(recipe, clusters=200), family=1)
    total = DRIFT + 2 * DRIFT_QUERIES
    rows, classes = new.draw(total)
    classes += recipe.clusters
    back, back_classes = ann_generate.Mixture(recipe).block(10_000, total)
    rng = np.random.Generator(np.random.PCG64([recipe.seed, 7]))
    stays_old = rng.random(total) >= np.concatenate([np.linspace(0, 1, DRIFT), np.full(total - DRIFT, 0.5)])
    rows[stays_old], classes[stays_old] = back[stays_old], back_classes[stays_old]
    write(FOLDER / f"{name}-drift-base.fbin", rows[:DRIFT])
    write(FOLDER / f"{name}-drift-class.ibin", classes[:DRIFT, None])
    write(FOLDER / f"{name}-drift-query.fbin", rows[DRIFT:])


def _generate(name):
    count, queries, recipe = GENERATED[name]
    mixture = ann_generate.Mixture(recipe)
    rows, classes = mixture.draw(count + queries)
    if recipe.dim == 256 and queries == QUERIES:
        _drift(name, recipe)
    return _finish(name, rows, classes, mixture.attributes(count + queries), {"recipe": dataclasses.asdict(recipe)}, queries)


def make(name):
    """Returns what NAME.json says; makes the set when it is not there yet."""
    about = FOLDER / f"{name}.json"
    if about.exists():
        return json.loads(about.read_text())
    FOLDER.mkdir(parents=True, exist_ok=True)
    if name in GENERATED:
        return _generate(name)
    from . import ann_real

    rows, classes, said = ann_real.draw(FOLDER)
    attributes = np.random.Generator(np.random.PCG64([1, len(rows)])).integers(
        0, ann_generate.ATTRIBUTE_RANGE, (len(rows), 2), np.int32)
    return _finish(name, rows, classes, attributes, said)


def main():
    for name in sys.argv[1:] or SETS:
        started = time.monotonic()
        about = make(name)
        print(f"{name}: {time.monotonic() - started:.0f} s: {json.dumps(about)}", flush=True)


if __name__ == "__main__":
    main()
