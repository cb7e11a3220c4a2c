"""The parts of scripts/bench ann beside plain searching: what a build costs, filters, inserts, a mixed load, opening cold."""
import os
import pathlib
import shutil
import sys

import numpy as np

from . import ann_contenders, ann_curves, ann_data, ann_truth, report

FILTER_QUERIES = 1000
FILTER_ROUNDS = 2
INSERTS = 20_000
EACH = 100
MIXED_RECALL = 0.97


def _guarded(contender, what):
    """None when it failed, which is said."""
    try:
        return what()
    except ann_contenders.Failed as failure:
        print(f"  {failure}", file=sys.stderr)
        return None
    finally:
        contender.stop()


def build(args, contenders, vectors):
    found, rows = {}, []
    for contender in contenders:
        built = contender.built()
        found[contender.label] = built
        rows.append([contender.label, f"{built['cpu_s']:.0f}", f"{built['wall_s']:.0f}", f"{built['disk_bytes'] / 1e6:,.0f}",
                     f"{built['disk_bytes'] / len(vectors.base):.0f}"])
    report.table(["build, one thread", "CPU s", "wall s", "disk MB", "bytes a vector"], rows)
    return found


# --- Filters ---------------------------------------------------------------------------------------------------------


def _filtered(contender, vectors, filtered):
    """[(recall, rate)] over the contender's knobs."""
    contender.filter(filtered)
    points = []
    for knob in contender.knobs:
        least = float("inf")
        for _ in range(FILTER_ROUNDS):
            answers, took = contender.search(knob, 0, FILTER_QUERIES)
            least = min(least, took["cpu_s"])
        points.append((round(vectors.recall(answers, filtered, FILTER_QUERIES), 5), FILTER_QUERIES / least))
        if points[-1][0] > 0.9995:
            break
    return points


def filters(args, contenders, vectors):
    """A filter at a time, all contenders one after another."""
    able = [contender for contender in contenders if contender.filters and _opened(contender)]
    found = {}
    for filtered in ann_data.FILTERS:
        share = "own class" if filtered == "class" else f"{filtered} %"
        rows = []
        for contender in able:
            try:
                points = _filtered(contender, vectors, filtered)
            except ann_contenders.Failed as failure:
                print(f"  {failure}", file=sys.stderr)
                continue
            found.setdefault(filtered, {})[contender.label] = points
            best = max(points)
            rows.append([contender.label, *[f"{rate:,.0f}" if (rate := ann_curves.at(points, recall)) else "-"
                                            for recall in (0.95, 0.99)], f"{best[0]:.4f} at {best[1]:,.0f}"])
        report.table([f"filter: {share}", "q/s at .95", "at .99", "most recall, q/s"], rows)
    for contender in able:
        contender.stop()
    return found


def _opened(contender, **how):
    try:
        contender.open(**how)
        return True
    except ann_contenders.Failed as failure:
        print(f"  {failure}", file=sys.stderr)
        contender.stop()
        return False


# --- Changes ---------------------------------------------------------------------------------------------------------


def _copy(contender):
    """Of the durable ones' folders, since a change stays."""
    copy = contender.scratch / f"copy-{contender.key}"
    shutil.rmtree(copy, ignore_errors=True)
    if contender.durable:
        shutil.copytree(contender.folder, copy)
        return copy
    return None


def inserts(args, contenders, vectors):
    """Rows a second, 100 at a time, one thread: ours synced at each hundred when durable, Qdrant and zvec flushed at each."""
    if not vectors.path("drift-base.fbin").exists():
        print("  there are no rows to come for this set")
        return {}
    found, rows = {}, []
    for contender in [one for one in contenders if one.changes]:
        kept = contender.folder

        def run(contender=contender):
            contender.open(more=INSERTS, folder=_copy(contender))
            return contender.insert(INSERTS, EACH)

        took = _guarded(contender, run)
        contender.folder = kept
        if took:
            found[contender.label] = took
            rows.append([contender.label, f"{INSERTS / took['cpu_s']:,.0f}", f"{INSERTS / took['wall_s']:,.0f}",
                         "synced" if contender.durable else "in memory"])
    report.table([f"{INSERTS:,} inserts, {EACH} at a time", "a CPU-second", "a second", ""], rows)
    return found


def _vanishing(vectors, count):
    """Rows to delete: those of whole classes, one after another: old clusters that vanish."""
    rng = np.random.Generator(np.random.PCG64(7))
    order, rows = rng.permutation(int(vectors.attributes[:, 0].max()) + 1), []
    for which in order:
        rows += list(np.flatnonzero(vectors.attributes[:, 0] == which))
        if len(rows) >= count:
            break
    return np.array(rows[:count], np.int32)


def _recall_after(vectors, deleted, inserted, answers):
    """Against exact answers over what is there then."""
    drift = np.array(ann_data.read(vectors.path("drift-base.fbin"))[:inserted])
    queries = np.array(ann_data.read(vectors.path("drift-query.fbin")))
    everything = np.concatenate([vectors.base, drift])
    there = np.ones(len(everything), bool)
    there[deleted] = False
    _, scores = ann_truth.exact(everything, queries, 10, np.flatnonzero(there))
    return ann_truth.recall(everything, queries, answers, scores, 10, lambda ids, _: there[ids])


def _knob_for(contender, vectors):
    """The first that reaches the recall on the first 1,000 queries."""
    for knob in contender.knobs:
        answers, _ = contender.search(knob, 0, 1000)
        if vectors.recall(answers, count=1000) >= MIXED_RECALL:
            break
    return knob


def mixed(args, contenders, vectors):
    """1,000 inserts and 100 deletes a second beside queries, new clusters coming and old ones going: latency of a query
    against a quiet index's, and recall afterwards."""
    if not vectors.path("drift-base.fbin").exists():
        print("  there are no rows to come for this set")
        return {}
    inserted, deleted = 1000 * args.seconds, 100 * args.seconds
    if inserted > ann_data.DRIFT:
        sys.exit(f"error: --seconds can be {ann_data.DRIFT // 1000} at most")
    found, rows = {}, []
    for contender in [one for one in contenders if one.mixes]:
        kept = contender.folder
        ids, out = contender.scratch / "deleted.ibin", contender.scratch / "after.ibin"
        gone = _vanishing(vectors, deleted)
        ann_data.write(ids, gone[:, None])

        def run(contender=contender):
            contender.open(more=inserted, folder=_copy(contender))
            took = contender.mixed(_knob_for(contender, vectors), args.seconds, 1000, 100, ids, out)
            return took | {"resident_bytes": contender.resident()}

        took = _guarded(contender, run)
        contender.folder = kept
        if took:
            took["recall_after"] = round(_recall_after(vectors, gone, inserted, np.array(ann_data.read(out))), 4)
            found[contender.label] = took
            quiet, loaded = took["quiet"], took["loaded"]
            rows.append([contender.label, quiet["p50_us"], quiet["p99_us"], loaded["p50_us"], loaded["p99_us"],
                         f"{loaded['p99_us'] / quiet['p99_us']:.1f}", took["change_ms"], took["late_ms"], took["recall_after"]])
    report.table(["wall us", "quiet p50", "p99", "loaded p50", "p99", "p99 ratio", "ms a 110 changes", "late ms", "recall after"],
                 [[str(cell) for cell in row] for row in rows])
    return found


# --- Opening ---------------------------------------------------------------------------------------------------------


def _forget(folder):
    """Takes an index's files out of the page cache."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def opening(args, contenders, vectors):
    """Seconds to the first answer after the index's files were dropped from the page cache; then warm."""
    found, rows = {}, []
    for contender in contenders:
        took = []
        for cold in (True, False):
            if cold:
                _forget(contender.folder)
            said = _guarded(contender, contender.open)
            if said:
                took.append(said)
        if len(took) == 2:
            found[contender.label] = {"cold": took[0], "warm": took[1]}
            rows.append([contender.label, took[0]["first_answer_s"], took[1]["first_answer_s"], took[0]["cpu_s"]])
    report.table(["open to first answer, s", "cold", "warm", "CPU s, cold"], rows)
    return found
