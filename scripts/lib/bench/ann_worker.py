"""A process of scripts/bench ann that holds one peer's index: python -m bench.ann_worker PEER SET; a JSON object a line in,
one a line out. All of a peer's threads and memory are in it, so that its CPU clock and its resident bytes are the peer's.
"""
import json
import os
import pathlib
import shutil
import sys
import threading
import time

import numpy as np

from . import ann_data, ann_mixed, ann_peers


def folder_of(peer, name):
    return ann_data.FOLDER / "indexes" / f"{name}-{peer}"


def _resident():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def _peak():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def disk(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Worker:
    def __init__(self, peer, name):
        self.kind, self.name = ann_peers.PEERS[peer], name
        self.set = ann_data.Set(name)
        self.folder = folder_of(peer, name)
        self.peer = self.kind(self.set.base.shape[1], self.folder, len(self.set.base))

    def build(self, **_):
        """Once; what it took is kept beside it."""
        said = self.folder / "built.json"
        if said.exists():
            return json.loads(said.read_text())
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        base = np.array(self.set.base)
        before, cpu, wall = _resident(), time.process_time(), time.monotonic()
        self.peer.build(base, self.set.attributes)
        took = {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.monotonic() - wall, 1),
                "peak_bytes_above_base": max(0, _peak() - before), "disk_bytes": disk(self.folder)}
        said.write_text(json.dumps(took))
        return took

    def open(self, more=0, folder=None, **_):
        """Resident bytes count from before it; the first answer is timed with it."""
        if folder:
            self.peer.folder = pathlib.Path(folder)
        call_us = self._call_us()  # first: it loads the library, which is not the index's memory
        before, cpu, wall = _resident(), time.process_time(), time.monotonic()
        self.peer.open(**({"more": more} if more else {}))
        opened = time.monotonic() - wall
        self._one(self.set.queries[:1], self.kind.knobs[len(self.kind.knobs) // 2])
        self.before = before
        return {"open_s": round(opened, 4), "first_answer_s": round(time.monotonic() - wall, 4),
                "cpu_s": round(time.process_time() - cpu, 4), "call_us": call_us}

    def resident(self, **_):
        return {"bytes": max(0, _resident() - self.before)}

    def _call_us(self):
        tiny = self.peer.tiny(np.array(self.set.base[:128]))
        if tiny is None:
            return 0.0
        queries = self.set.queries[:1000]
        tiny(queries)
        took = []
        for _ in range(5):
            started = time.process_time()
            tiny(queries)
            took.append(time.process_time() - started)
        return round(min(took) * 1e6 / len(queries), 2)

    def _one(self, queries, knob, keys=None):
        if hasattr(self.peer, "prepare"):
            self.peer.prepare(queries, knob, keys)
        cpu, wall = time.process_time(), time.perf_counter()
        found = self.peer.one_filtered(queries, knob, keys) if keys else self.peer.one(queries, knob)
        took = time.process_time() - cpu, time.perf_counter() - wall
        return (self.peer.named_ids(found) if hasattr(self.peer, "named_ids") else found), took

    def _batch(self, queries, knob, threads):
        if hasattr(self.peer, "prepare_batch"):
            self.peer.prepare_batch(queries, knob)
        cpu, wall = time.process_time(), time.perf_counter()
        found = self.peer.batch(queries, knob, threads)
        return found, (time.process_time() - cpu, time.perf_counter() - wall)

    def _side_by_side(self, queries, knob, threads):
        """Where a peer has no threads of its own, Python's: its calls let the interpreter go on."""
        parts = np.array_split(queries, threads)
        clones = []
        for part in parts:
            clone = object.__new__(type(self.peer))
            clone.__dict__.update(self.peer.__dict__)
            if hasattr(clone, "prepare"):
                clone.prepare(part, knob)
            clones.append(clone)
        found = [None] * threads

        def run(at):
            found[at] = clones[at].one(parts[at], knob)

        runners = [threading.Thread(target=run, args=(at,)) for at in range(threads)]
        cpu, wall = time.process_time(), time.perf_counter()
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        took = time.process_time() - cpu, time.perf_counter() - wall
        found = np.concatenate(found)
        return (self.peer.named_ids(found) if hasattr(self.peer, "named_ids") else found), took

    def filter(self, name, **_):
        """What the filter needs that does not depend on the query, before anything is timed."""
        self.filtered = name
        if ann_data.FILTERS[name] is not None:
            self.peer.set_filter({name: self.set.kept(name)})
            return {}
        self.peer.set_filter({int(which): self.set.attributes[:, 0] == which for which in np.unique(self.set.query_class)})
        return {}

    def search(self, knob, start, stop, out, how="one", threads=1, filtered=None, **_):
        queries = self.set.queries[start:stop]
        keys = None
        if filtered:
            own = ann_data.FILTERS[filtered] is None
            keys = [int(which) for which in self.set.query_class[start:stop]] if own else [filtered] * len(queries)
        if how == "batch":
            found, took = self._batch(queries, knob, threads)
        elif threads > 1 and self.peer.batch_threads and hasattr(self.peer, "batch"):
            found, took = self._batch(queries, knob, threads)
        elif threads > 1:
            found, took = self._side_by_side(queries, knob, threads)
        else:
            found, took = self._one(queries, knob, keys)
        np.save(out, found)
        return {"cpu_s": took[0], "wall_s": took[1]}

    def insert(self, count, each=100, sync=False, **_):
        """count rows of the set that drifts, in batches; durable where the peer can be and `sync` says so."""
        rows = np.array(ann_data.read(self.set.path("drift-base.fbin"))[:count])
        about = np.zeros((count, 3), np.int32)
        first = len(self.set.base)
        cpu, wall = time.process_time(), time.perf_counter()
        for start in range(0, count, each):
            ids = np.arange(first + start, first + start + each)
            self.peer.insert(ids, rows[start:start + each], about[start:start + each])
            if sync:
                self.peer.sync()
        return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}

    def mixed(self, knob, seconds, inserts, deletes, ids, out, **_):
        """Queries one after another beside a thread that changes rows at a fixed pace."""
        return ann_mixed.run(self.peer, self.set, knob, seconds, inserts, deletes, pathlib.Path(ids), pathlib.Path(out))

    def close(self, **_):
        if hasattr(self.peer, "close"):
            self.peer.close()
        return {}


def main():
    peer, name = sys.argv[1:3]
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is not an answer
    worker = Worker(peer, name)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = getattr(worker, asked.pop("do"))(**asked)
        except Exception as failure:  # said to whoever asked, who goes on with the others
            said = {"error": f"{type(failure).__name__}: {failure}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
