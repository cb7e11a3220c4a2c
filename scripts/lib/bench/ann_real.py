"""Real text embeddings for scripts/bench ann: what dictionaries say, embedded by wordllama.

The texts are the definitions and example sentences of two dictionaries that Debian 12 packages (WordNet 3.0 and the GNU
Collaborative International Dictionary of English), without duplicates; `apt-get download` brings the packages, which are
unpacked and not installed. wordllama's wheel holds a table of 32,000 token vectors of 256 numbers (fp16, safetensors) and
its tokenizer; a text's embedding is the mean of its tokens' vectors, scaled to length 1, as wordllama's own `embed` does
(it is not imported: that would need four more packages).

A text's class is WordNet's field of its word (45 of them: noun.animal, verb.motion, ...) or, for the other dictionary,
45 + the first letter of its word.
"""
import gzip
import hashlib
import importlib.util
import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np

PACKAGES = {
    "dict-gcide=0.48.5+nmu2": "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    "wordnet-base=1:3.0-37": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
}
LEAST_CHARACTERS = 34  # shorter ones are mostly fragments, many alike
MOST_CHARACTERS = 400
SEED = 20261127


def _fetch(folder):
    """The unpacked packages' /usr/share."""
    folder = folder / "texts"
    share = folder / "root" / "usr" / "share"
    if (share / "wordnet").exists() and (share / "dictd").exists():
        return share
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: apt-get can't download {', '.join(PACKAGES)} (Debian 12's): {done.stderr.strip()[-500:]}\n"
                 "Run apt-get update, or leave the real set out with --set generated.")
    for package in folder.glob("*.deb"):
        if hashlib.sha256(package.read_bytes()).hexdigest() not in PACKAGES.values():
            sys.exit(f"error: {package} is not the package that the real set is made of. Remove it and try again.")
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    return share


def _wordnet(folder):
    """(class, text): a synset's definitions, and each of its examples."""
    for name in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{name}").read_text(errors="replace").splitlines():
            if line.startswith(" "):
                continue  # the licence
            field, gloss = int(line.split(" ", 2)[1]), line.partition("|")[2]
            for example in re.findall(r'"([^"]+)"', gloss):
                yield field, example
            yield field, re.sub(r'"[^"]*"', "", gloss)


def _gcide(path):
    """(class, text): each sentence of each entry, without its head, marks and sources."""
    body = gzip.decompress(path.read_bytes()).decode(errors="replace")
    for entry in re.split(r"\n(?=\S)", body):
        head, _, rest = entry.partition("\n")
        letter = head[:1].lower()
        if not "a" <= letter <= "z":
            continue
        rest = re.sub(r"\[[^\]]*\]|--[A-Z][\w.]*(?: [A-Z][\w.]*)*|\([A-Z][a-z]*\.\)|[{}_]", " ", rest)
        for sentence in re.split(r"(?<=[.;:?!])\s+|\n\s*\n", rest):
            yield 45 + ord(letter) - ord("a"), sentence


def texts(folder):
    """([texts], [their classes]) in random order, each text once."""
    share = _fetch(folder)
    found = {}
    for which, text in [*_wordnet(share / "wordnet"), *_gcide(share / "dictd" / "gcide.dict.dz")]:
        text = re.sub(r"^(?:\d+\.|\([a-z]\))\s*", "", " ".join(text.split()).strip(" ;"))
        if LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS and " " in text:
            found.setdefault(text, which)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(found))
    all_texts, classes = list(found), np.fromiter(found.values(), np.int32)
    return [all_texts[at] for at in order], classes[order]


def _table(package):
    """Token vectors, [tokens][256] float32: safetensors is a length, JSON and the numbers."""
    raw = (package / "weights" / "l2_supercat_256.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    about = json.loads(raw[8:8 + size])["embedding.weight"]
    assert about["dtype"] == "F16", about
    start, stop = about["data_offsets"]
    return np.frombuffer(raw[8 + size + start:8 + size + stop], np.float16).reshape(about["shape"]).astype(np.float32)


def embed(some_texts):
    """[texts][256], unit length."""
    from tokenizers import Tokenizer

    package = pathlib.Path(importlib.util.find_spec("wordllama").submodule_search_locations[0])
    table = _table(package)
    tokenizer = Tokenizer.from_file(str(package / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    rows = np.zeros((len(some_texts), table.shape[1]), np.float32)
    for start in range(0, len(some_texts), 10_000):
        encoded = tokenizer.encode_batch(some_texts[start:start + 10_000], add_special_tokens=False)
        for at, one in enumerate(encoded, start):
            rows[at] = table[np.minimum(one.ids, len(table) - 1)].mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1e-12)


def _different(rows):
    """Which rows to keep so that no two are the same (texts of the same words in another order)."""
    first = {}
    for at, row in enumerate(np.round(rows, 5)):
        first.setdefault(row.tobytes(), at)
    return np.fromiter(first.values(), np.int64)


def draw(folder):
    """(rows, classes, what to say of them), in random order."""
    all_texts, classes = texts(folder)
    rows = embed(all_texts)
    keep = _different(rows)
    said = {"source": "wordllama 0.4.0.post1 over " + ", ".join(PACKAGES), "texts": len(all_texts),
            "mean_characters": round(float(np.mean([len(text) for text in all_texts])), 1)}
    return rows[keep], classes[keep], said
