"""Clips that are made for a benchmark: real ones scaled and joined, then encoded as films and streams are. Kept in
.cache/bench/clips."""
import pathlib
import subprocess
import sys

from . import report

FOLDER = report.CACHE / "clips"

# 18 s: film, people, things on a table, film. (clip, from, seconds)
PIECES = [("bbb.mp4", 60, 5), ("basketball.mp4", 2, 4), ("box.mp4", 3, 4), ("bbb.mp4", 300, 5)]
FPS = 24

X264 = ["-c:v", "libx264", "-preset", "fast", "-crf", "22", "-bf", "3", "-sc_threshold", "0", "-pix_fmt", "yuv420p"]
X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "24", "-tag:v", "hvc1", "-x265-params",
        "log-level=none:keyint=48:min-keyint=48:scenecut=0:bframes=4"]

MADE = {
    "h264-1080p-gop2.mp4": ("1920:1080", [*X264, "-g", "48"]),
    "h264-1080p-gop10.mp4": ("1920:1080", [*X264, "-g", "240"]),
    "h264-720p-gop2.mp4": ("1280:720", [*X264, "-g", "48"]),
    "hevc-1080p.mp4": ("1920:1080", [*X265, "-pix_fmt", "yuv420p"]),
    "hevc-720p-10bit.mp4": ("1280:720", [*X265, "-pix_fmt", "yuv420p10le"]),
    "vp9-720p.webm": ("1280:720", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "7", "-b:v", "2M", "-g", "48",
                                   "-pix_fmt", "yuv420p"]),
    "av1-720p.mp4": ("1280:720", ["-c:v", "libsvtav1", "-preset", "10", "-crf", "35", "-g", "48", "-pix_fmt", "yuv420p"]),
}


def _make(samples, size, codec, out):
    words = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    chains = []
    for i, (clip, start, seconds) in enumerate(PIECES):
        words += ["-ss", str(start), "-t", str(seconds), "-i", str(samples / clip)]
        chains.append(f"[{i}:v:0]fps={FPS},scale={size}:flags=bicubic,setsar=1[v{i}];")
    joined = "".join(chains) + "".join(f"[v{i}]" for i in range(len(PIECES))) + f"concat=n={len(PIECES)}[v]"
    part = out.with_name("part-" + out.name)
    done = subprocess.run([*words, "-filter_complex", joined, "-map", "[v]", "-an", *codec, "-movflags", "+faststart",
                           str(part)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: ffmpeg could not make {out.name} ({done.returncode}):\n{done.stderr[-1000:]}")
    part.rename(out)


def clips(samples):
    """Paths of all of them, made where they are not there yet (some minutes the first time)."""
    samples = pathlib.Path(samples)
    for clip, _, _ in PIECES:
        if not (samples / clip).exists():
            sys.exit(f"error: {samples / clip} is not there. Run scripts/samples all first.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (size, codec) in MADE.items():
        if not (FOLDER / name).exists():
            print(f"  making {name}", file=sys.stderr, flush=True)
            _make(samples, size, codec, FOLDER / name)
    return [FOLDER / name for name in MADE]
