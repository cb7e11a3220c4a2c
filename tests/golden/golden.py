"""Embeddings of real clips against an independent path, which shares no code with Kinodex.

Pictures: the ffmpeg tool picks frames by the times that ffprobe gives and scales them in libswscale's accurate mode;
sound: ffmpeg resamples, numpy makes log-mel patches; ONNX Runtime runs both networks in fp32; pooling is numpy's, in
fp32 without the stored codes. Prints the cosine of each clip and fails under the tolerance.

golden.py --kinodex EXECUTABLE --bundles DIR --precision f32|bf16 CLIP...
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from bench import features

SIDE = 224
# What is stored has 8 bits a number. Measured lowest over the 20 clips: 0.9997 in f32, 0.9989 in bf16.
TOLERANCE = {"f32": 0.999, "bf16": 0.998}


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE).stdout


def probe(clip):
    return json.loads(run("ffprobe", "-v", "quiet", "-show_streams", "-of", "json", clip))["streams"]


def frame_times(clip, stream):
    """Presentation times of a stream's decoded frames, in order."""
    shown = json.loads(run("ffprobe", "-v", "quiet", "-select_streams", stream, "-show_entries",
                           "frame=best_effort_timestamp_time", "-of", "json", clip)).get("frames", [])
    return np.array([float(frame["best_effort_timestamp_time"]) for frame in shown
                     if "best_effort_timestamp_time" in frame])


def sample_frames(times):
    """For each grid second the number of the last frame with pts <= it."""
    times = times - times[0]
    return np.searchsorted(times, np.arange(int(times[-1] + 1e-6) + 1) + 1e-6, side="right") - 1


def read_frames(clip, stream):
    """[n][224][224][3] u8: the frames at 0, 1, 2, ... s."""
    wanted = sample_frames(frame_times(clip, "v:0"))
    numbers = "+".join(f"eq(n,{n})" for n in sorted(set(wanted)))
    # Without a matrix in the stream: BT.709 from 720 lines, else BT.601.
    unknown = stream.get("color_space", "unknown") == "unknown"
    matrix = ":in_color_matrix=bt709" if unknown and stream["height"] >= 720 else ""
    raw = run("ffmpeg", "-nostdin", "-v", "quiet", "-i", clip, "-map", "0:v:0", "-vf",
              f"select='{numbers}',scale={SIDE}:{SIDE}:flags=area+accurate_rnd+full_chroma_int{matrix}",
              "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE, 3)
    return frames[np.searchsorted(sorted(set(wanted)), wanted)]


def read_patches(clip, video):
    """Patches on the picture's clock. Its zero is the stream's own word: where a container has no times of
    presentation, decoders count the first frame late."""
    times = frame_times(clip, "a:0")
    zero = float(video["start_time"]) if video else times[0]
    raw = run("ffmpeg", "-nostdin", "-v", "quiet", "-i", clip, "-map", "0:a:0", "-ac", 1, "-ar", features.RATE, "-f",
              "s16le", "-")
    wave = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    wave = features.fill_up(features.place(wave, times[0] - zero))
    return features.patches(features.log_mel(wave, features.mel_matrix()))


class Reference:
    def __init__(self, bundles):
        self._visual, self._audio = features.lite0(bundles), features.yamnet(bundles)

    def embed(self, clip):
        """{"visual": vector or None, "audio": vector or None}"""
        streams = probe(clip)
        video = next((s for s in streams if s["codec_type"] == "video"), None)
        out = {"visual": None, "audio": None}
        if video:
            rows, _ = self._visual.run_batches(read_frames(clip, video), 8)
            out["visual"] = features.embed(rows, 1.0, stored=False)
        if any(s["codec_type"] == "audio" for s in streams):
            result = self._audio.run_batches(read_patches(clip, video), 16)
            out["audio"] = features.embed(result[0], features.PATCH_SECONDS, stored=False) if result else None
        return out


def kinodex_embeddings(args, folder):
    data, out = folder / "data", folder / "npy"
    run(args.kinodex, "index", *args.clips, "--data", data, "--bundles", args.bundles, "--precision", args.precision,
        "--quiet")
    run(args.kinodex, "export", "--data", data, "--format", "npy", "--out", out)
    arrays = {name: np.load(out / f"{name}.npy") if (out / f"{name}.npy").stat().st_size else None
              for name in ("visual", "audio")}
    with open(out / "index.jsonl") as index:
        rows = [json.loads(line) for line in index]
    return {row["id"]: {name: arrays[name][row[name]] if row[name] is not None else None for name in arrays}
            for row in rows}


def compare(clip, ours, theirs, tolerance):
    """Prints a line; returns whether it is good."""
    good, shown = True, []
    for name in ("visual", "audio"):
        if (ours[name] is None) != (theirs[name] is None):
            shown.append("one has none")
            good = False
        elif ours[name] is None:
            shown.append("-")
        else:
            cosine = float(ours[name] @ theirs[name])
            shown.append(f"{cosine:.5f}")
            good = good and cosine >= tolerance
    print(f"  {clip:<60} {shown[0]:>12} {shown[1]:>12}{'' if good else '  BAD'}")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinodex", required=True)
    parser.add_argument("--bundles", required=True)
    parser.add_argument("--precision", choices=TOLERANCE, required=True)
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    args.clips = [os.path.abspath(clip) for clip in args.clips]
    tolerance = TOLERANCE[args.precision]
    reference = Reference(args.bundles)
    with tempfile.TemporaryDirectory(prefix="kx-golden-") as folder:
        ours = kinodex_embeddings(args, pathlib.Path(folder))
    print(f"cosine of {args.precision} embeddings with ffmpeg + numpy + ONNX Runtime fp32, tolerance {tolerance}")
    print(f"  {'clip':<60} {'visual':>12} {'audio':>12}")
    bad = 0
    for clip in args.clips:
        name = os.path.basename(clip)
        if name not in ours:
            print(f"  {name:<60} is not in the store: {', '.join(sorted(ours))}")
            bad += 1
        elif not compare(name, ours[name], reference.embed(clip), tolerance):
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
