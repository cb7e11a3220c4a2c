"""Sweeps of scripts/bench ann: every contender's knobs over a set's queries, in turns; what is read off them."""
import json
import math
import sys

import numpy as np

from . import ann_contenders, ann_curves, ann_data, ann_peers, report

CHUNK = 2000
ENOUGH = 0.9992  # no harder knob is tried once recall is beyond
RECALLS = (0.95, 0.96, 0.98, 0.99)
RESULTS = ann_data.FOLDER / "results"


class Sweep:
    """One contender's knobs on one set: the least time of each chunk over the rounds, and the answers of the first."""

    def __init__(self, contender, vectors, how, threads):
        self.contender, self.vectors, self.how, self.threads = contender, vectors, how, threads
        self.chunks = [(start, min(start + CHUNK, len(vectors.queries))) for start in range(0, len(vectors.queries), CHUNK)]
        self.points = []

    def knob(self, at):
        return self.contender.knobs[at] if at < len(self.contender.knobs) else None

    def wanted(self, at):
        if self.knob(at) is None:
            return False
        if at < len(self.points):
            return True
        return not self.points or self.points[-1]["recall"] < ENOUGH

    def measure(self, at):
        if not self.wanted(at):
            return
        answers, took = [], []
        for start, stop in self.chunks:
            for _ in range(2):  # whoever was asked before has left the caches as he needs them: the second time counts
                found, said = self.contender.search(self.knob(at), start, stop, self.how, self.threads)
            answers.append(found)
            took.append(said)
        if at == len(self.points):
            point = {"knob": self.knob(at), "recall": round(self.vectors.recall(np.concatenate(answers)), 5),
                     "cpu_s": [math.inf] * len(took), "wall_s": [math.inf] * len(took)}
            self.points.append(point | {key: took[0][key] for key in ("cells", "codes", "refined") if key in took[0]})
        point = self.points[at]
        for clock in ("cpu_s", "wall_s"):
            point[clock] = [min(old, new[clock]) for old, new in zip(point[clock], took)]
        for key in ("p50_us", "p99_us"):
            if key in took[0]:
                point[key] = min(point.get(key, math.inf), min(said[key] for said in took))

    def curve(self, clock="cpu_s"):
        return [(point["recall"], len(self.vectors.queries) / sum(point[clock])) for point in self.points]

    def net(self):
        """Of CPU time, without what calling from Python costs a query (ours is called from C)."""
        call = self.contender.call_us * 1e-6 if self.how == "one" else 0.0
        return [(recall, 1.0 / (1.0 / rate - call)) for recall, rate in self.curve()]


def in_turns(sweeps, rounds):
    """Every contender's first knob, then every one's second: what else the machine does hits all alike."""
    most = max(len(sweep.contender.knobs) for sweep in sweeps)
    for turn in range(rounds):
        for at in range(most):
            for sweep in sweeps:
                try:
                    sweep.measure(at)
                except ann_contenders.Failed as failure:
                    print(f"  {failure}", file=sys.stderr)
                    sweep.contender.knobs = sweep.contender.knobs[:len(sweep.points)]
        print(f"  round {turn + 1} of {rounds} is done", flush=True)


def _kept(contender, vectors):
    return RESULTS / f"{vectors.name}-{len(vectors.queries)}-{contender.key}-{contender.version}.json"


def _from_before(contender, vectors):
    """A peer's curves of an earlier run, as sweeps; only for a look: what is reported is of one run."""
    path = _kept(contender, vectors)
    if not path.exists():
        return None
    kept = []
    for one in json.loads(path.read_text()):
        sweep = Sweep(contender, vectors, one["how"], 1)
        sweep.points = one["points"]
        kept.append(sweep)
    return kept


def _name(sweep):
    if sweep.how == "one":
        return sweep.contender.label
    return sweep.contender.label + (", batch API" if sweep.how == "batch" else f", {sweep.how} a call")


def _print_points(sweeps):
    rows = []
    for sweep in sweeps:
        for point, (recall, rate), (_, wall) in zip(sweep.points, sweep.curve(), sweep.curve("wall_s")):
            work = [f"{point[key]:.0f}" if key in point else "-" for key in ("cells", "codes", "refined")]
            rows.append([_name(sweep), " ".join(f"{number:g}" for number in point["knob"]), f"{recall:.4f}", f"{rate:,.0f}",
                         f"{wall:,.0f}", f"{1e6 / rate:.1f}", *work])
    report.table(["one thread", "knob", "recall@10", "q/s of CPU", "q/s of wall", "CPU us", "cells", "codes", "refined"], rows)


def _print_at(sweeps):
    """Returns our rates in memory, by how we were asked."""
    rows, ours = [], {}
    for sweep in sweeps:
        rates = [ann_curves.at(sweep.net(), recall) for recall in RECALLS]
        if sweep.contender.key == "ivf":
            ours[sweep.how] = dict(zip(RECALLS, rates))
        most = max(point["recall"] for point in sweep.points)
        rows.append([_name(sweep), *[f"{rate:,.0f}" if rate else "-" for rate in rates], f"{most:.4f}"])
    print()
    print("  Below without the call from Python:")
    report.table(["queries a CPU-second at recall@10 of", *map(str, RECALLS), "reached"], rows)
    return ours


def _verdicts(sweeps, ours):
    """Against the best peer that is asked as ours is, and ours one at a time against the best in batches."""
    for recall in RECALLS:
        for mine, theirs, words in (("one", "one", "one at a time"), ("one", "batch", "batches"),
                                    (ann_contenders.A_CALL[-1], "batch", "batches, ours too")):
            others = [(ann_curves.at(sweep.net(), recall), sweep.contender.label) for sweep in sweeps
                      if sweep.contender.key not in ann_contenders.OURS and sweep.how == theirs]
            others = [other for other in others if other[0]]
            rate = ours.get(mine, {}).get(recall)
            if rate and others:
                best, name = max(others)
                report.verdict(f"recall {recall}, over the best peer, {words} ({name})", f"{rate / best:.2f}", ">= 1.0",
                               rate >= best)


def _several_threads(contenders, vectors, rounds, threads):
    """The knob of each that reaches .98, on several threads: wall time, of which the machine's other work takes its part."""
    rows, found = [], {}
    sweeps = []
    for contender, points in contenders:
        fit = [point for point in points if point["recall"] >= 0.98] or points[-1:]
        one = Sweep(contender, vectors, "one", threads)
        one.fixed = fit[0]["knob"]
        one.knob = lambda at, one=one: one.fixed if at == 0 else None
        sweeps.append(one)
    for _ in range(rounds):
        for sweep in sweeps:
            sweep.measure(0)
    for sweep in sweeps:
        (recall, wall), (_, cpu) = sweep.curve("wall_s")[0], sweep.curve()[0]
        found[sweep.contender.key] = {"recall": recall, "wall_qps": wall, "cpu_qps": cpu}
        rows.append([sweep.contender.label, f"{recall:.4f}", f"{wall:,.0f}", f"{cpu:,.0f}"])
    print()
    report.table([f"{threads} threads", "recall@10", "q/s of wall", "q/s of CPU"], rows)
    return found


def _opened(args, contenders, vectors):
    """([sweeps to make], [sweeps of earlier runs])"""
    sweeps, kept = [], []
    for contender in contenders:
        before = None if args.fresh or contender.key in ann_contenders.OURS else _from_before(contender, vectors)
        if before:
            print(f"  {contender.label}: of an earlier run (--fresh measures it now)")
            kept += before
            continue
        try:
            contender.open()
            sweeps.append(Sweep(contender, vectors, "one", 1))
            if contender.key in ann_contenders.OURS:
                sweeps += [Sweep(contender, vectors, how, 1) for how in ann_contenders.A_CALL]
        except ann_contenders.Failed as failure:
            print(f"  {failure}", file=sys.stderr)
    return sweeps, kept


def _measured(sweeps, vectors, rounds):
    """One query at a time, and in batches whoever has a call for them: it saves Python's calls, and may share work."""
    sweeps += [Sweep(sweep.contender, vectors, "batch", 1) for sweep in sweeps
               if sweep.how == "one" and hasattr(ann_peers.PEERS.get(sweep.contender.key), "batch")]
    if sweeps:
        in_turns(sweeps, rounds)
    return [sweep for sweep in sweeps if sweep.points]


def _keep(sweeps, vectors):
    RESULTS.mkdir(parents=True, exist_ok=True)
    for contender in {sweep.contender for sweep in sweeps if sweep.contender.key not in ann_contenders.OURS}:
        _kept(contender, vectors).write_text(json.dumps(
            [{"how": sweep.how, "points": sweep.points} for sweep in sweeps if sweep.contender is contender]))


def _figures(sweep):
    n = len(sweep.vectors.queries)
    points = [{**point, "cpu_s": sum(point["cpu_s"]), "wall_s": sum(point["wall_s"]), "us": 1e6 * sum(point["cpu_s"]) / n}
              for point in sweep.points]
    return {"call_us": sweep.contender.call_us, "version": sweep.contender.version, "points": points,
            "at": {recall: ann_curves.at(sweep.net(), recall) for recall in RECALLS}}


def _memory(sweeps, rows, figures):
    lines = []
    for sweep in sweeps:
        if sweep.how != "one":
            continue
        resident = sweep.contender.resident()
        hot = getattr(sweep.contender, "hot", None)
        figures[_name(sweep)] |= {"resident_bytes": resident, "hot_bytes": hot}
        lines.append([sweep.contender.label, f"{resident / rows:.0f}", f"{hot / rows:.0f}" if hot else "-"])
    if lines:
        print()
        report.table(["bytes a vector", "resident", "codes and centroids"], lines)


def _draw(folder, sweeps, vectors):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ann-{vectors.name}.svg"
    title = f"{vectors.name}: {len(vectors.base):,} x {vectors.base.shape[1]}, one thread, one query at a time, CPU time"
    path.write_text(ann_curves.svg(title, {_name(sweep): sweep.net() for sweep in sweeps if sweep.how == "one"}))
    print(f"  -> {path}")


def search(args, contenders, vectors):
    """Opens all, sweeps all in turns, prints and draws."""
    sweeps, kept = _opened(args, contenders, vectors)
    sweeps = _measured(sweeps, vectors, args.rounds)
    _keep(sweeps, vectors)
    everything = sweeps + kept
    _print_points(everything)
    _verdicts(everything, _print_at(everything))
    figures = {_name(sweep): _figures(sweep) for sweep in everything}
    for threads in [int(threads) for threads in args.threads.split(",") if int(threads) > 1]:
        alone = [(sweep.contender, sweep.points) for sweep in sweeps if sweep.how == "one"]
        if alone:
            figures[f"{threads} threads"] = _several_threads(alone, vectors, args.rounds, threads)
    _memory(sweeps, len(vectors.base), figures)
    if args.svg and everything:
        _draw(args.svg, everything, vectors)
    for contender in contenders:
        contender.stop()
    return figures
