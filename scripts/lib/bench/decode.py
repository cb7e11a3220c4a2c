"""scripts/bench decode: CPU time of sampling a file, kinodex against ffmpeg, PyAV, torchcodec, decord and OpenCV."""
import contextlib
import json
import math
import os
import pathlib
import select
import statistics
import subprocess
import sys

from . import made, measure, report, samplers

SIDE = samplers.SIDE
SHORT_BYTES = 5_000_000
PATIENCE_S = 1800  # for an answer of a peer: ten minutes of film on a busy machine
# Files in which pictures lean on later ones, from 720p up: what selective decoding is for.
TARGETS = {"exact": 1.5, "each": 1.0, "hd": 1.6, "tol": 3.0, "keyframe": 1.5, "torch": 1.6, "librosa": 4.0}


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=3, help="turns; each one's least CPU time counts (3)")
    parser.add_argument("--clips", type=pathlib.Path, default=report.ROOT / "samples", help="folder (samples/)")
    parser.add_argument("--rates", default="1,3", help="frames a second (1,3)")
    parser.add_argument("--only", default="", help="files whose name has this in it")
    parser.add_argument("--peers", default=",".join(["ffmpeg", "ffmpeg-fast", *samplers.PICTURES]),
                        help="of " + ", ".join(["ffmpeg", "ffmpeg-fast", *samplers.PICTURES]))
    parser.add_argument("--parts", default="exact,tol,keyframe,sound", help="of exact, tol, keyframe, sound (all)")


class Peer:
    """A process that samples what it is asked to (samplers.py)."""

    def __init__(self, name):
        self.name, self.child = name, None

    def _start(self):
        self.child = subprocess.Popen([sys.executable, "-m", "bench.samplers", self.name], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def sample(self, clip, fps):
        if self.child is None:
            self._start()
        try:
            self.child.stdin.write(json.dumps({"clip": str(clip), "fps": fps}) + "\n")
            self.child.stdin.flush()
            ready, _, _ = select.select([self.child.stdout], [], [], PATIENCE_S)
            answer = json.loads(self.child.stdout.readline() or "{}") if ready else {}
        except (BrokenPipeError, ValueError):
            answer = {}
        if not answer:
            self.child.kill()
            self.close()
        return answer.get("cpu_s"), answer.get("frames")

    def close(self):
        if self.child is not None:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.close()
            self.child.wait()
            self.child = None


class Ffmpeg:
    """The command on one thread: user and system time of the process. Starting it is part of that, as for whoever runs it;
    start() says how much."""

    def __init__(self, flags, before=()):
        self.flags, self.before = flags, before

    def _run(self, arguments):
        return measure.run(["ffmpeg", "-nostdin", "-v", "quiet", *arguments], ok=range(256))

    def start(self):
        nothing = ["-f", "lavfi", "-i", f"nullsrc=s={SIDE}x{SIDE}:d=0.04", "-pix_fmt", "rgb24", "-f", "rawvideo", "-y",
                   "/dev/null"]
        return min(self._run(nothing).cpu_s for _ in range(5))

    def sample(self, clip, fps):
        rate = [] if fps is None else [f"fps={fps}:round=up"]
        filters = ",".join([*rate, f"scale={SIDE}:{SIDE}:flags={self.flags}"])
        done = self._run(["-threads", "1", *self.before, "-i", clip, "-map", "0:v:0", "-filter_threads", "1", "-vf", filters,
                          "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-y", "/dev/null"])
        return (done.cpu_s if done.status == 0 else None), None

    def close(self):
        pass


class Kinodex:
    """tests/bench/bench_parts.c: opening, decoding and scaling, in its own process, after a run that does not count. Short
    clips several times over, since peers' processes are warm from the clips before."""

    def __init__(self, parts, tracks, mode):
        self.parts, self.tracks, self.mode = parts, tracks, mode

    def sample(self, clip, fps):
        times = 5 if clip.stat().st_size < SHORT_BYTES else 1
        done = measure.run([self.parts, "sample", self.tracks, self.mode, fps or 1, *[clip] * times])
        answer = json.loads(done.out)
        return answer["cpu_s"] / times, (answer["frames"] + answer["patches"]) // times

    def close(self):
        pass


def _peer(name):
    if name == "ffmpeg":
        return Ffmpeg("area")
    if name == "ffmpeg-fast":
        return Ffmpeg("fast_bilinear")
    return Peer(name)


def _in_turns(contenders, clip, fps, runs):
    """Least CPU time of each that can sample the file; the others are left out after their first failure."""
    best, wanted = {}, None
    for turn in range(runs):
        for name, contender in contenders.items():
            if turn > 0 and name not in best:
                continue
            took, count = contender.sample(clip, fps)
            wanted = count if wanted is None else wanted  # kinodex is the first
            # What gives other than so many frames did other work.
            if took is not None and (count is None or abs(count - wanted) <= 1 + wanted // 50):
                best[name] = min(took, best.get(name, math.inf))
    return best


def _geometric(values):
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def _compare(title, contenders, clips, fps, runs, names=None):
    """Prints a table; returns {file: (ratio to the best peer, times)}."""
    print(f"\n  {title}")
    peers = [name for name in contenders if name != "kinodex"]
    rows, found = [], {}
    for clip in clips:
        took = _in_turns(contenders, clip, fps, runs)
        others = {name: took[name] for name in peers if name in took}
        if not others:
            continue
        best = min(others, key=others.get)
        ratio = others[best] / took["kinodex"]
        found[clip.name] = (ratio, took)
        rows.append([clip.name, took["kinodex"], *[f"{took[name]:.3f}" if name in took else "-" for name in peers], best,
                     f"{ratio:.2f}"])
    report.table(["CPU s", "kinodex", *peers, "best peer", "ratio"], rows)
    print(f"  geometric mean {_geometric([ratio for ratio, _ in found.values()]):.3f}; least "
          f"{min((ratio for ratio, _ in found.values()), default=math.nan):.2f}", flush=True)
    return found


def _has(clip, kind):
    done = subprocess.run(["ffprobe", "-v", "error", "-select_streams", f"{kind}:0", "-show_entries",
                           "stream=codec_name,height,has_b_frames", "-of", "json", str(clip)], capture_output=True,
                          text=True, check=False)
    streams = json.loads(done.stdout or "{}").get("streams", [])
    return streams[0] if streams else None


def _leans(clip):
    video = _has(clip, "v")
    return video["codec_name"] in ("h264", "hevc") and video["height"] >= 720 and video.get("has_b_frames", 0) > 0


def _exact(args, parts, clips, out):
    good = True
    with contextlib.ExitStack() as stack:
        contenders = {"kinodex": Kinodex(parts, "visual", "exact")}
        for name in args.peers.split(","):
            contenders[name] = _peer(name)
            stack.callback(contenders[name].close)
        for fps in map(float, args.rates.split(",")):
            found = _compare(f"exact frames, {fps:g} a second, to {SIDE}x{SIDE}", contenders, clips, fps, args.runs)
            out[f"exact_{fps:g}"] = found
            if fps != 1 or not found:
                continue
            mean = _geometric([ratio for ratio, _ in found.values()])
            least = min(found, key=lambda name: found[name][0])
            leaning = {clip.name: found[clip.name][0] for clip in clips if clip.name in found and _leans(clip)}
            good &= report.verdict("exact, geometric mean over the best peer of each file", f"{mean:.3f}",
                                   f">= {TARGETS['exact']}", mean >= TARGETS["exact"])
            good &= report.verdict("exact, the least", f"{found[least][0]:.2f} ({least})", f">= {TARGETS['each']}",
                                   found[least][0] >= TARGETS["each"])
            if leaning:
                low = min(leaning, key=leaning.get)
                good &= report.verdict("H.264 and HEVC from 720p with B-frames, the least",
                                       f"{leaning[low]:.2f} ({low})", f">= {TARGETS['hd']}",
                                       leaning[low] >= TARGETS["hd"])
    return good


def _tolerant(args, parts, clips, out):
    clip = [clip for clip in clips if clip.name == "h264-1080p-gop2.mp4"]
    with contextlib.ExitStack() as stack:
        contenders = {"kinodex": Kinodex(parts, "visual", "tol=0.5")}
        for name in args.peers.split(","):
            contenders[name] = _peer(name)
            stack.callback(contenders[name].close)
        found = _compare("tol=0.5 against exact peers, 1 a second", contenders, clip, 1, args.runs)
    out["tol"] = found
    ratio = min((ratio for ratio, _ in found.values()), default=math.nan)
    return not found or report.verdict("tol half an interval, 1080p GOP 2 s", f"{ratio:.2f}", f">= {TARGETS['tol']}",
                                       ratio >= TARGETS["tol"])


def _less_start(found, start):
    """Ratios with ffmpeg's start taken off its times. Where less than that is left, nothing can be told from it."""
    ratios = {}
    for name, (_, took) in found.items():
        left = min(cpu_s for peer, cpu_s in took.items() if peer != "kinodex") - start
        if left > start:
            ratios[name] = left / took["kinodex"]
    return ratios


def _keyframe(args, parts, clips, out):
    # One thread of each kind; its command makes no copies of a frame for grid points, so it is asked for each once.
    contenders = {"kinodex": Kinodex(parts, "visual", "keyframe"),
                  "ffmpeg -skip_frame nokey": Ffmpeg("area", ["-skip_frame", "nokey"]),
                  "the same, fast_bilinear": Ffmpeg("fast_bilinear", ["-skip_frame", "nokey"])}
    found = _compare("key frames, each grid point of 1 a second the nearest; ffmpeg: each key frame once", contenders, clips,
                     None, args.runs)
    out["keyframe"] = found
    if not found:
        return True
    without = out["keyframe_less_start"] = _less_start(found, out["ffmpeg_start_s"])
    for name, ratio in without.items():
        print(f"    {name}: {ratio:.2f} without ffmpeg's start")
    started = _geometric([ratio for ratio, _ in found.values()])
    mean = _geometric(without.values())
    return report.verdict(f"keyframe, geometric mean over ffmpeg -skip_frame nokey less its start, {len(without)} files "
                          f"(with it, {len(found)} files: {started:.2f})", f"{mean:.2f}", f">= {TARGETS['keyframe']}",
                          mean >= TARGETS["keyframe"])


def _sound(args, parts, clips, out):
    clips = [clip for clip in clips if _has(clip, "a")]
    good = True
    for peer, target in (("torchcodec+torchaudio", "torch"), ("librosa", "librosa")):
        contenders = {"kinodex": Kinodex(parts, "audio", "exact"), peer: Peer(peer)}
        found = _compare(f"sound to log-mel patches against {peer}", contenders, clips, 1, args.runs)
        contenders[peer].close()
        out[f"sound_{target}"] = found
        mean = _geometric([ratio for ratio, _ in found.values()])
        good &= not found or report.verdict(f"sound, geometric mean over {peer}", f"{mean:.3f}", f">= {TARGETS[target]}",
                                            mean >= TARGETS[target])
    return good


def main(args):
    # Debian's libav brings OpenBLAS along, whose threads would spin for some 30 ms in each process, ours and theirs.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    parts = pathlib.Path(args.kinodex).parents[1] / "tests" / "bench" / "kx_bench_parts"
    if not parts.exists():
        sys.exit(f"error: there is no {parts}. Build the target kx_bench_parts beside that kinodex.")
    out = report.Report("decode", ["av", "torchcodec", "torch", "torchaudio", "decord", "opencv-python-headless", "librosa"])
    folder = pathlib.Path(args.clips)
    clips = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    clips = [clip for clip in clips + made.clips(report.ROOT / "samples") if args.only in clip.name]
    start = Ffmpeg("area").start()
    print(f"  ffmpeg: {start:.3f} s of each run are its start; the others' imports and first runs do not count")
    figures, good = {"ffmpeg_start_s": start}, True
    for part, measured in (("exact", _exact), ("tol", _tolerant), ("keyframe", _keyframe), ("sound", _sound)):
        if part in args.parts.split(","):
            good &= measured(args, parts, clips, figures)
    out.write(clips=len(clips), runs=args.runs, figures=figures)
    return 0 if good else 1
