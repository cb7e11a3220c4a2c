"""The Python pipeline that Kinodex is compared with: what a good user would write today.

python -m bench.peer --decoder NAME --bundles DIR --out DIR [--processes N] CLIP...: one process a core, each decoding
and inferring whole clips, the longest first; ONNX Runtime with one thread a process; an HNSW index at the end. Writes
visual.npy, audio.npy and index.jsonl as `kinodex export --format npy` does. It samples as Kinodex does: frame k is the
last one with pts <= k seconds.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import time

import numpy as np

from . import decoders, features

BATCH = 16

_state = {}


def _start(decoder, bundles):
    _state["open"] = decoders.DECODERS[decoder]
    _state["visual"] = features.lite0(bundles)
    _state["audio"] = features.yamnet(bundles)


def _infer(network, batches):
    parts = [network.run(batch) for batch in batches]
    return tuple(np.concatenate(part) for part in zip(*parts)) if parts else None


def _describe(result, seconds):
    """What is kept of one track: rows, classes of the moments, the embedding."""
    if result is None:
        return None
    rows, scores = result
    features.top_classes(scores, seconds)
    return features.embed(rows, seconds), len(rows)


def _index(path):
    try:
        clip = _state["open"](path, BATCH)
        visual = _infer(_state["visual"], clip.frames())
        audio = _state["audio"].run_batches(clip.patches(), BATCH)
    except Exception as failure:  # one bad clip must not end the run, as it does not end Kinodex's
        return path, None, None, f"{type(failure).__name__}: {failure}"
    return path, _describe(visual, 1.0), _describe(audio, features.PATCH_SECONDS), None


def _build_index(vectors):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=200, M=16)
    index.add_items(vectors, num_threads=1)


def _write(out, results):
    out.mkdir(parents=True, exist_ok=True)
    arrays = {"visual": [], "audio": []}
    with open(out / "index.jsonl", "w") as index:
        for path, visual, audio, _ in sorted(results):
            row = {"id": os.path.basename(path), "visual": None, "audio": None}
            for name, track in (("visual", visual), ("audio", audio)):
                if track is not None:
                    row[name] = len(arrays[name])
                    arrays[name].append(track[0])
            index.write(json.dumps(row) + "\n")
    for name, vectors in arrays.items():
        if vectors:
            np.save(out / f"{name}.npy", np.stack(vectors))
            _build_index(np.stack(vectors))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--decoder", required=True)
    parser.add_argument("--bundles", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    started = time.monotonic()
    clips = sorted(args.clips, key=os.path.getsize, reverse=True)
    decoders.DECODERS[args.decoder].load()  # once, before the processes part
    with multiprocessing.get_context("fork").Pool(args.processes, _start, (args.decoder, args.bundles)) as pool:
        results = list(pool.imap_unordered(_index, clips))
        pool.close()
        pool.join()
    _write(args.out, results)
    print(json.dumps({
        "wall_s": time.monotonic() - started,
        "frames": sum(visual[1] for _, visual, _, _ in results if visual),
        "patches": sum(audio[1] for _, _, audio, _ in results if audio),
        "failed": {os.path.basename(path): failure for path, _, _, failure in results if failure},
    }))


if __name__ == "__main__":
    main()
