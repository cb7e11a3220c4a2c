"""Ways to sample a file that scripts/bench decode compares with, each as its users do it fastest on one thread.

python -m bench.samplers NAME reads requests from standard input, {"clip", "fps"} a line, and answers each with
{"cpu_s", "frames"}: the CPU time of this process from opening the file to the last frame, 224x224 RGB, in its memory.
Importing and one run over a first clip come before and do not count. Frame k is the last one with pts <= k/fps.
"""
import json
import math
import sys
import time

import numpy as np

SIDE = 224


def _pick(frames, fps):
    """Of (time, frame) in order: the frame on screen at each k/fps, as often as it is."""
    k, held = 0, None
    for at, frame in frames:
        while held is not None and k / fps < at - 1e-6:
            yield held
            k += 1
        held, last = frame, at
    while held is not None and k / fps <= last + 1e-6:
        yield held
        k += 1


class PyAv:
    """PyAV, every frame decoded; libswscale's area filter."""

    def __init__(self):
        import av

        self.av = av
        self.flags = self.interpolation(av.video.reformatter.Interpolation)

    def interpolation(self, names):
        return names.AREA

    def _frames(self, container):
        stream = container.streams.video[0]
        stream.thread_count = 1
        start = None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except self.av.error.InvalidDataError:
                continue
            for frame in decoded:
                ticks = frame.pts if frame.pts is not None else frame.dts
                if ticks is not None:
                    at = float(ticks * frame.time_base)
                    start = at if start is None else start
                    yield at - start, frame

    def sample(self, path, fps):
        count = 0
        with self.av.open(path, metadata_errors="replace") as container:
            for frame in _pick(self._frames(container), fps):
                frame.reformat(SIDE, SIDE, "rgb24", interpolation=self.flags).to_ndarray()
                count += 1
        return count


class PyAvFast(PyAv):
    """The same with its bilinear filter, which is the usual one."""

    def interpolation(self, names):
        return names.FAST_BILINEAR


class TorchCodec:
    """torchcodec, exact seeking, frames at full size scaled by OpenCV's area filter."""

    OPTIONS = {"seek_mode": "exact"}

    def __init__(self):
        import cv2
        import torch
        import torchcodec.decoders

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.cv2, self.decoder = cv2, torchcodec.decoders.VideoDecoder

    def scale(self, frame):
        return self.cv2.resize(frame, (SIDE, SIDE), interpolation=self.cv2.INTER_AREA)

    def sample(self, path, fps):
        video = self.decoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, **self.OPTIONS)
        known = video.metadata
        start = known.begin_stream_seconds or 0
        last = known.end_stream_seconds - 1 / known.average_fps - start
        times = [start + k / fps for k in range(math.floor(last * fps + 1e-6) + 1)]
        for at in range(0, len(times), 16):
            for frame in video.get_frames_played_at(times[at : at + 16]).data.numpy():
                self.scale(frame)
        return len(times)


class TorchCodecFast(TorchCodec):
    """The same seeking by the container's word, scaled (bilinear) on the way to RGB."""

    def __init__(self):
        super().__init__()
        from torchcodec.transforms import Resize

        self.OPTIONS = {"seek_mode": "approximate", "transforms": [Resize((SIDE, SIDE))]}

    def scale(self, frame):
        return frame


class Decord:
    """decord with its own scaler (bicubic), frames by their timestamps."""

    def __init__(self):
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.decord = decord

    def sample(self, path, fps):
        if path.endswith(".avi"):
            raise ValueError("decord never comes back from some of these")
        video = self.decord.VideoReader(path, width=SIDE, height=SIDE, num_threads=1)
        times = video.get_frame_timestamp(range(len(video)))[:, 0]
        times = times - times[0]
        wanted = [max(0, int(np.searchsorted(times, k / fps + 1e-6, side="right")) - 1)
                  for k in range(math.floor(times[-1] * fps + 1e-6) + 1)]
        for at in range(0, len(wanted), 16):
            video.get_batch(wanted[at : at + 16]).asnumpy()
        return len(wanted)


class OpenCv:
    """OpenCV: every frame grabbed, those wanted retrieved and scaled by the area filter. It can't go back by a frame, so
    these are the first ones at or after k/fps: as many, and as much work."""

    INTERPOLATION = "INTER_AREA"

    def __init__(self):
        import cv2

        cv2.setNumThreads(1)
        self.cv2 = cv2

    def sample(self, path, fps):
        cv2 = self.cv2
        video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        how, k, start = getattr(cv2, self.INTERPOLATION), 0, None
        while video.grab():
            at = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = at if start is None else start
            while k / fps <= at - start + 1e-6:
                ok, frame = video.retrieve()
                if ok:
                    cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (SIDE, SIDE), interpolation=how)
                k += 1
        return k


class OpenCvFast(OpenCv):
    """The same with its bilinear filter, which is the usual one."""

    INTERPOLATION = "INTER_LINEAR"


class SoundTorch:
    """torchcodec to 16 kHz mono, torchaudio to log-mel."""

    def __init__(self):
        import torch
        from torchcodec.decoders import AudioDecoder

        from . import decoders

        torch.set_num_threads(1)
        self.decoder, self.patches = AudioDecoder, decoders.torchaudio_patches

    def sample(self, path, _):
        samples = self.decoder(path, sample_rate=16000, num_channels=1).get_all_samples()
        return len(self.patches(samples.data.numpy()[0]))


class SoundLibrosa:
    """PyAV to 16 kHz mono, librosa to log-mel."""

    def __init__(self):
        import av

        from . import decoders

        self.av, self.patches = av, decoders.librosa_patches

    def sample(self, path, _):
        wave = []
        with self.av.open(path, metadata_errors="replace") as container:
            resampler = self.av.AudioResampler(format="s16", layout="mono", rate=16000)
            for frame in container.decode(audio=0):
                wave += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            wave += [out.to_ndarray()[0] for out in resampler.resample(None)]
        return len(self.patches(np.concatenate(wave).astype(np.float32) / 32768))


PICTURES = {"pyav": PyAv, "pyav-fast": PyAvFast, "torchcodec": TorchCodec, "torchcodec-fast": TorchCodecFast,
            "decord": Decord, "opencv": OpenCv, "opencv-fast": OpenCvFast}
SOUND = {"torchcodec+torchaudio": SoundTorch, "librosa": SoundLibrosa}


def main():
    sampler = {**PICTURES, **SOUND}[sys.argv[1]]()
    warm = False
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if not warm:  # what is loaded and compiled with the first use
                sampler.sample(request["clip"], request["fps"])
                warm = True
            begun = time.process_time()
            frames = sampler.sample(request["clip"], request["fps"])
            answer = {"cpu_s": time.process_time() - begun, "frames": frames}
        except Exception as failure:  # a peer may not know a file; that is an answer, too
            answer = {"failed": f"{type(failure).__name__}: {failure}"[:200]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
