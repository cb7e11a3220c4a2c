"""The clips a benchmark runs over."""
import os
import pathlib
import sys

# Ten minutes in one file would be most of the work of all the others together.
LONG_BYTES = 20_000_000


def find(folder, long=False):
    """Files of the folder by name; those over LONG_BYTES only when asked for."""
    folder = pathlib.Path(folder)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in entries if path.is_file() and not path.name.startswith(".")]
    if not found:
        sys.exit(f"error: there are no clips in {folder}. Run scripts/samples all, or name a folder with --clips.")
    return [path for path in found if long or path.stat().st_size <= LONG_BYTES]


def repeat(paths, times, folder):
    """Copies under other names that end in a few bytes of their own, so that no content is there twice."""
    folder.mkdir(parents=True)
    copies = []
    for turn in range(times):
        for path in paths:
            copy = folder / f"{path.stem}-{turn:03}{path.suffix}"
            copy.write_bytes(path.read_bytes() + b"\0" * 8 + turn.to_bytes(4, "little"))
            copies.append(copy)
    os.sync()
    return copies
