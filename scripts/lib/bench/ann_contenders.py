"""The processes that scripts/bench ann measures, ours and the peers', asked in the same way."""
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from . import ann_data, ann_peers, ann_worker

OURS = ("ivf", "index")
RECALLS = [[recall] for recall in (0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.9995)]
A_CALL = ("100", "1000")  # queries in one call of ours, besides one
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Failed(Exception):
    pass


class _Process:
    command, text = [], ""

    def __init__(self):
        self.child = None

    def start(self, nice=0):
        self.child = subprocess.Popen(["nice", "-n", str(nice), *map(str, self.command)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                      env={**os.environ, **ONE_THREAD})

    def say(self, line):
        if self.child is None:
            self.start()
        try:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
            answer = self.child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise Failed(f"{self.label} ended with {self.child.wait()} at `{line[:80]}'")
        answer = json.loads(answer)
        if "error" in answer:
            raise Failed(f"{self.label}: {answer['error']}")
        return answer

    def stop(self):
        if self.child is not None:
            self.child.stdin.close()
            self.child.wait()
            self.child = None


class PeerProcess(_Process):
    """ann_worker.py with one peer."""

    def __init__(self, key, name, scratch):
        super().__init__()
        self.key, self.kind, self.name, self.scratch = key, ann_peers.PEERS[key], name, pathlib.Path(scratch)
        self.label, self.knobs = self.kind.label, self.kind.knobs
        self.durable, self.filters, self.changes = self.kind.durable, self.kind.filters, self.kind.changes
        self.mixes = self.changes and self.kind.mixes
        self.version = importlib.metadata.version(self.kind.package) if key != "hnswlib" else "0.8.0"
        self.folder = ann_worker.folder_of(key, name)
        self.command = [sys.executable, "-m", "bench.ann_worker", key, name]
        self.call_us, self.filtered = 0.0, None

    def ask(self, do, **more):
        return self.say(json.dumps({"do": do, **more}))

    def built(self):
        said = self.folder / "built.json"
        return json.loads(said.read_text()) if said.exists() else None

    def build(self):
        if self.built() is None:
            print(f"  building {self.label} over {self.name}", flush=True)
            self.start(nice=0 if self.name == "quick" else 10)
            self.ask("build")
            self.stop()
        return self.built()

    def open(self, more=0, folder=None):
        self.filtered = None
        said = self.ask("open", more=more, folder=str(folder) if folder else None)
        self.call_us = said["call_us"]
        return said

    def resident(self):
        return self.ask("resident")["bytes"]

    def filter(self, filtered):
        self.filtered = filtered
        if filtered:
            self.ask("filter", name=filtered)

    def search(self, knob, start, stop, how="one", threads=1):
        out = self.scratch / f"{self.key}.npy"
        took = self.ask("search", knob=knob, start=start, stop=stop, out=str(out), how=how, threads=threads,
                        filtered=self.filtered)
        return np.load(out), took

    def insert(self, count, each):
        return self.ask("insert", count=count, each=each, sync=self.durable)

    def mixed(self, knob, seconds, inserts, deletes, ids, out):
        return self.ask("mixed", knob=knob, seconds=seconds, inserts=inserts, deletes=deletes, ids=str(ids), out=str(out))


class Ours(_Process):
    """tests/bench/kx_bench_ann.c."""

    filters = changes = mixes = True

    def __init__(self, key, name, scratch, tool, cells=0):
        super().__init__()
        self.key, self.name, self.scratch, self.cells = key, name, pathlib.Path(scratch), cells
        self.label = {"ivf": "kinodex in memory", "index": "kinodex durable"}[key]
        self.durable, self.knobs, self.call_us = key == "index", RECALLS, 0.0
        self.version = _source()
        self.set_paths = [ann_data.FOLDER / f"{name}-{what}" for what in ("base.fbin", "query.fbin", "attributes.ibin")]
        self.tool = pathlib.Path(tool)
        self.use(ann_worker.folder_of("kinodex-" + key, name))

    def use(self, folder):
        self.folder = pathlib.Path(folder)
        self.command = [self.tool, self.key, *self.set_paths, self.folder]

    def built(self):
        said = self.folder / "built.json"
        return json.loads(said.read_text()) if said.exists() else None

    def build(self):
        """Ours changes, so what an older commit built is built anew."""
        built = self.built()
        if built and built["version"] == self.version:
            return built
        print(f"  building {self.label} over {self.name}", flush=True)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)
        self.folder.mkdir(parents=True)
        self.start(nice=0 if self.name == "quick" else 10)
        took = self.say(f"build {self.cells}")
        self.stop()
        took |= {"version": self.version, "disk_bytes": ann_worker.disk(self.folder)}
        (self.folder / "built.json").write_text(json.dumps(took))
        return took

    def open(self, more=0, folder=None):
        if folder:
            self.use(folder)
        said = self.say(f"open {more}")
        self.before = said["resident_before"]
        return said

    def resident(self):
        said = self.say("resident")
        self.hot = said["hot_bytes"]
        return max(0, said["bytes"] - self.before)

    def filter(self, filtered):
        if not filtered:
            return self.say("filter none")
        if ann_data.FILTERS[filtered] is None:
            return self.say(f"filter class {ann_data.FOLDER / (self.name + '-query-class.ibin')}")
        return self.say(f"filter below {ann_data.FILTERS[filtered]}")

    def search(self, knob, start, stop, how="one", threads=1):
        """how: one, or how many queries a call."""
        out = self.scratch / f"kinodex-{self.key}.ibin"
        if how == "one":
            took = self.say(f"search {knob[0]} {start} {stop} {threads} {out}")
        else:
            took = self.say(f"search_many {knob[0]} {start} {stop} {threads} {how} {out}")
        return np.array(ann_data.read(out)), took

    def insert(self, count, each):
        return self.say(f"insert {ann_data.FOLDER / (self.name + '-drift-base.fbin')} {count} {each}")

    def mixed(self, knob, seconds, inserts, deletes, ids, out):
        drift = ann_data.FOLDER / f"{self.name}-drift"
        took = self.say(f"mixed {knob[0]} {seconds} {inserts} {deletes} {drift}-base.fbin {ids}")
        before = self.say(f"ask {knob[0]} {drift}-query.fbin {out}")
        took["after"] = {key: before[key] for key in ("cpu_s", "cells", "codes", "refined")}
        return took


def _source():
    done = subprocess.run(["git", "-C", str(ann_data.report.ROOT), "log", "-1", "--format=%h", "--", "shard", "common"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def make(keys, name, scratch, tool, cells=0):
    return [Ours(key, name, scratch, tool, cells) if key in OURS else PeerProcess(key, name, scratch) for key in keys]
