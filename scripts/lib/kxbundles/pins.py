"""What each finished bundle's manifest must hash to, and whether a folder is one. Standard library only: it runs
before anything is installed. `python3 pins.py OUT NAME...` prints the names that have to be built."""
import hashlib
import json
import pathlib
import sys


def read():
    lines = (pathlib.Path(__file__).parent / "pins.txt").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line and line[0] != "#")}


def _hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_finished(folder, digest):
    try:
        if _hash(folder / "bundle.json") != digest:
            return False
        manifest = json.loads((folder / "bundle.json").read_bytes())
        return all(_hash(folder / manifest[part]["file"]) == manifest[part]["sha256"] for part in ("model", "labels")) \
            and all((folder / path).stat().st_size for pair in manifest["golden"] for path in pair.values())
    except OSError:
        return False


if __name__ == "__main__":
    pinned = read()
    print(*(name for name in sys.argv[2:] if not is_finished(pathlib.Path(sys.argv[1]) / name, pinned.get(name))))
