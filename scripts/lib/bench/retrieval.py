"""scripts/bench retrieval: whether re-encoded, cropped, rescaled, sped-up and mirrored clips find their originals."""
import concurrent.futures
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

from . import clips, report
from .kinodex import Kinodex

EVEN = "trunc(iw/2)*2:trunc(ih/2)*2"
# name: (video filter, audio filter, crf)
VARIANTS = {
    "re-encoded": (f"scale={EVEN}", None, 40),
    "cropped": ("crop=trunc(iw*0.8/2)*2:trunc(ih*0.8/2)*2", None, 23),
    "half size": ("scale=trunc(iw/4)*2:trunc(ih/4)*2", None, 23),
    "1.25x speed": (f"scale={EVEN},setpts=PTS/1.25", "atempo=1.25", 23),
    "mirrored": (f"scale={EVEN},hflip", None, 23),
}


def add_arguments(parser):
    parser.add_argument("--clips", type=pathlib.Path, default=report.ROOT / "samples", help="folder (samples/)")
    parser.add_argument("--short", action="store_true", help="leave out clips over 20 MB")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16"])


def _recipe(clip, name):
    video, audio, crf = VARIANTS[name]
    return ["-i", clip, "-map", "0:v:0", "-map", "0:a:0?", "-vf", video, "-c:v", "libx264", "-preset", "veryfast",
            "-crf", crf, "-pix_fmt", "yuv420p", *(["-af", audio] if audio else []), "-c:a", "aac", "-b:a", "64k",
            "-ac", 2]


def make(clip, name, folder):
    """The variant's file, from the last time where clip and recipe are the same."""
    recipe = [str(word) for word in _recipe(clip, name)]
    stat = clip.stat()
    key = hashlib.sha256(repr((recipe, stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:16]
    out = folder / f"{clip.stem[:40]}-{name.replace(' ', '-')}-{key}.mp4"
    if not out.exists():
        part = folder / f".{out.name}"
        subprocess.run(["ffmpeg", "-nostdin", "-v", "fatal", "-threads", "1", *recipe, "-threads", "1", "-y", part],
                       check=True)
        part.rename(out)
    return out


def make_all(paths):
    folder = report.CACHE / "variants"
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        made = {(path, name): pool.submit(make, path, name, folder) for path in paths for name in VARIANTS}
        return {key: one.result() for key, one in made.items()}


def _look_up(kinodex, clip, variant, data, count):
    """Rank of the original, its score, and the best score of another."""
    hits = kinodex.similar(variant, data, count)
    ids = [hit["id"] for hit in hits]
    rank = ids.index(clip.name) + 1 if clip.name in ids else None
    score = hits[rank - 1]["score"] if rank else 0.0
    other = next(((hit["id"], hit["score"]) for hit in hits if hit["id"] != clip.name), ("", 0.0))
    return {"clip": clip.name, "rank": rank, "score": score, "other": other[0], "other_score": other[1]}


def _show(paths, found):
    rows = []
    for clip in paths:
        row = [clip.name[:40]]
        for name in VARIANTS:
            one = found[clip.name, name]
            row.append(f"{one['rank'] or '-'}  {one['score']:.3f} ({one['score'] - one['other_score']:+.3f})")
        rows.append(row)
    print("  rank of the original, its score, and how far it is ahead of the best other clip")
    report.table(["clip", *VARIANTS], rows)


def main(args):
    paths = clips.find(args.clips, long=not args.short)
    kinodex = Kinodex(args.kinodex, args.bundles)
    out = report.Report("retrieval")
    variants = make_all(paths)
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        data = pathlib.Path(folder) / "data"
        _, counts = kinodex.index(paths, data, args.precision)
        if counts["done"] != len(paths):
            sys.exit(f"error: of {len(paths)} clips {counts['done']} were indexed: {counts['reasons']}")
        found = {(clip.name, name): _look_up(kinodex, clip, variant, data, len(paths))
                 for (clip, name), variant in variants.items()}
    _show(paths, found)
    missed = [(clip, name, one) for (clip, name), one in found.items() if one["rank"] != 1]
    for clip, name, one in missed:
        print(f"  {clip}, {name}: {one['other']} comes first with {one['other_score']:.3f}")
    good = report.verdict("originals found first", f"{len(found) - len(missed)} of {len(found)}", "all", not missed)
    out.write(clips=len(paths), precision=args.precision, missed=len(missed),
              found=[{"variant": name, **one} for (_, name), one in found.items()])
    return 0 if good else 1
