"""A mixed load in a peer's process: queries one after another beside a thread that changes rows at a fixed pace, as
tests/bench/kx_bench_ann.c does it for ours."""
import threading
import time

import numpy as np

from . import ann_data

CHANGES_A_SECOND = 10


class _Changer(threading.Thread):
    def __init__(self, peer, vector_set, seconds, inserts, deletes, ids):
        super().__init__()
        self.peer, self.seconds, self.inserts, self.deletes, self.ids = peer, seconds, inserts, deletes, ids
        self.rows = ann_data.read(vector_set.path("drift-base.fbin"))
        self.first, self.inserted, self.deleted, self.late, self.spent, self.failure = len(vector_set.base), 0, 0, 0.0, 0.0, None

    def _once(self, inserts, deletes):
        rows = np.array(self.rows[self.inserted:self.inserted + inserts])
        ids = np.arange(self.first + self.inserted, self.first + self.inserted + inserts)
        self.peer.insert(ids, rows, np.full((inserts, 3), -1, np.int32))
        if deletes:
            self.peer.delete(self.ids[self.deleted:self.deleted + deletes])
        if hasattr(self.peer, "sync"):
            self.peer.sync()
        self.inserted, self.deleted = self.inserted + inserts, self.deleted + deletes

    def run(self):
        start = time.perf_counter()
        try:
            for at in range(self.seconds * CHANGES_A_SECOND):
                due = start + at / CHANGES_A_SECOND
                time.sleep(max(0.0, due - time.perf_counter()))
                began = time.perf_counter()
                self.late = max(self.late, began - due)
                self._once(self.inserts // CHANGES_A_SECOND, self.deletes // CHANGES_A_SECOND)
                self.spent += time.perf_counter() - began
        except Exception as failure:
            self.failure = f"{type(failure).__name__}: {failure}"


def _query_on(peer, queries, knob, goes_on):
    took = []
    while goes_on(len(took)):
        query = queries[len(took) % len(queries)][None]
        if hasattr(peer, "prepare"):
            peer.prepare(query, knob)
        started = time.perf_counter()
        peer.one(query, knob)
        took.append((time.perf_counter() - started) * 1e6)
    p50, p99, p999 = np.percentile(took, [50, 99, 99.9])
    return {"queries": len(took), "p50_us": round(p50, 1), "p99_us": round(p99, 1), "p999_us": round(p999, 1)}


def _ask(peer, queries, knob):
    if hasattr(peer, "prepare"):
        peer.prepare(queries, knob)
    found = peer.one(queries, knob)
    return peer.named_ids(found) if hasattr(peer, "named_ids") else found


def run(peer, vector_set, knob, seconds, inserts, deletes, ids, out):
    until = time.perf_counter() + seconds / 4
    quiet = _query_on(peer, vector_set.queries, knob, lambda _: time.perf_counter() < until)
    changer = _Changer(peer, vector_set, seconds, inserts, deletes, ann_data.read(ids)[:, 0])
    changer.start()
    loaded = _query_on(peer, vector_set.queries, knob, lambda _: changer.is_alive())
    changer.join()
    if changer.failure:
        raise RuntimeError(changer.failure)
    drift = np.array(ann_data.read(vector_set.path("drift-query.fbin")))
    started = time.process_time()
    ann_data.write(out, np.ascontiguousarray(_ask(peer, drift, knob)))
    return {"quiet": quiet, "loaded": loaded, "inserted": changer.inserted, "deleted": changer.deleted,
            "late_ms": round(changer.late * 1e3, 1), "change_ms": round(changer.spent * 1e3 / (seconds * CHANGES_A_SECOND), 3),
            "after": {"cpu_s": time.process_time() - started}}
