"""The executable under test."""
import json
import pathlib
import shutil
import tempfile

import numpy as np

from . import measure
from .report import ROOT


def read_export(folder):
    """{id: {"visual": unit vector or None, "audio": ...}} of `export --format npy`, or of a peer's like it."""
    folder = pathlib.Path(folder)

    def array(name):
        path = folder / f"{name}.npy"
        return np.load(path) if path.exists() and path.stat().st_size else None

    arrays = {name: array(name) for name in ("visual", "audio")}
    with open(folder / "index.jsonl") as index:
        rows = [json.loads(line) for line in index]
    return {row["id"]: {name: arrays[name][row[name]] if row[name] is not None else None for name in arrays}
            for row in rows}


class Kinodex:
    def __init__(self, path, bundles):
        self.path, self.bundles = pathlib.Path(path), bundles

    @property
    def parts(self):
        """kx_bench_parts of the same build."""
        return self.path.parents[1] / "tests" / "bench" / "kx_bench_parts"

    def _command(self, name, *args):
        return [self.path, name, *args]

    def index(self, sources, data, precision="auto", workers=0, fresh=True, watch=None):
        """(measure.Run, what it reported). Quarantined inputs (status 3) are the report's matter."""
        if fresh:
            shutil.rmtree(data, ignore_errors=True)
        command = self._command("index", *sources, "--data", data, "--bundles", self.bundles, "--fps", 1, "--workers",
                                workers, "--streams", workers, "--precision", precision, "--json", "--quiet")
        done = measure.run(command, ok=(0, 3), watch=watch)
        return done, json.loads(done.out)

    def export(self, data):
        with tempfile.TemporaryDirectory(prefix="kx-bench-") as folder:
            measure.run(self._command("export", "--format", "npy", "--out", folder, "--data", data))
            return read_export(folder)

    def similar(self, name, data, k):
        """The hits, best first."""
        done = measure.run(self._command("similar", name, "-k", k, "--json", "--data", data, "--bundles", self.bundles))
        return json.loads(done.out)["hits"]


def default():
    return ROOT / "build" / "release" / "cli" / "kinodex"
