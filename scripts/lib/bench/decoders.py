"""Ways to get frames and log-mel patches in Python. Each opens a clip and gives frames() in batches, then patches()."""
import math

import numpy as np

from . import features

SIDE = 224
HD_LINES = 720


def _stft_patches(wave, magnitudes):
    """Patches of a 16 kHz wave; magnitudes(wave) gives [257][hops] of 400-sample windows centred in 512 samples."""
    wave = features.fill_up(wave)
    if len(wave) == 0:
        return np.zeros((0, features.PATCH_HOPS, 64), np.float32)
    # The window sits in the middle of the frame: 56 samples before and after put hop i on sample 160 i.
    side = (features.FFT - features.WINDOW) // 2
    spectrum = magnitudes(np.pad(wave, side))
    return features.patches(np.log(spectrum.T @ features.mel_matrix() + 0.001))


def librosa_patches(wave):
    import librosa

    return _stft_patches(wave, lambda padded: np.abs(librosa.stft(
        padded, n_fft=features.FFT, win_length=features.WINDOW, hop_length=features.HOP, center=False)))


def torchaudio_patches(wave):
    import torch
    import torchaudio

    torch.set_num_threads(1)
    spectrogram = torchaudio.transforms.Spectrogram(n_fft=features.FFT, win_length=features.WINDOW,
                                                    hop_length=features.HOP, power=1, center=False)
    return _stft_patches(wave, lambda padded: spectrogram(torch.from_numpy(padded)).numpy())


class PyAv:
    """PyAV: one pass over the packets; every frame is decoded, those wanted go through libswscale's area filter."""

    @staticmethod
    def load():
        import av
        import librosa
        import onnxruntime

        librosa.stft(np.zeros(features.RATE, np.float32))  # what it loads lazily
        del av, onnxruntime

    def __init__(self, path, batch):
        import av

        self._av, self._batch = av, batch
        self._flags = self._scaling(av.video.reformatter.Interpolation)
        self._container = av.open(path, metadata_errors="replace")
        self._video = next(iter(self._container.streams.video), None)
        self._audio = next(iter(self._container.streams.audio), None)
        for stream in (self._video, self._audio):
            if stream is not None:
                stream.thread_count = 1
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=features.RATE)
        self._video_start = self._audio_start = None
        self._wave = []

    def _scaling(self, names):
        return names.AREA | names.ACCURATE_RND | names.FULL_CHR_H_INT

    def _hear(self, frame):
        if self._audio_start is None:
            self._audio_start = frame.time or 0.0
        self._wave += [out.to_ndarray()[0] for out in self._resampler.resample(frame)]

    def _decoded(self):
        """Video frames with their times; sound is heard in passing."""
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        for packet in self._container.demux(streams):
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:
                continue
            for frame in frames:
                if packet.stream is self._audio:
                    self._hear(frame)
                    continue
                ticks = self._ticks(frame)
                if ticks is None:
                    continue
                at = float(ticks * frame.time_base)
                if self._video_start is None:
                    self._video_start = at
                yield at - self._video_start, frame

    def _ticks(self, frame):
        """AVI has no times of presentation: what stands there goes by the order of the packets."""
        first, second = (frame.dts, frame.pts) if self._container.format.name == "avi" else (frame.pts, frame.dts)
        return first if first is not None else second

    def _picture(self, frame):
        matrix = "ITU709" if frame.height >= HD_LINES and frame.colorspace == 2 else None
        return frame.reformat(SIDE, SIDE, "rgb24", src_colorspace=matrix,
                              interpolation=self._flags).to_ndarray()

    def _sampled(self):
        held, k, picture = None, 0, None
        for at, frame in self._decoded():
            while held is not None and k < at - 1e-6:
                picture = self._picture(held) if picture is None else picture
                yield picture
                k += 1
            held, picture, last = frame, None, at
        while held is not None and k <= last + 1e-6:
            picture = self._picture(held) if picture is None else picture
            yield picture
            k += 1

    def frames(self):
        batch = []
        for picture in self._sampled():
            batch.append(picture)
            if len(batch) == self._batch:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    def _heard(self):
        """The whole wave on the picture's clock."""
        if self._audio_start is None:
            return np.zeros(0, np.float32)
        self._wave += [out.to_ndarray()[0] for out in self._resampler.resample(None)]
        # What the stream says: where a container has no times of presentation, decoders count the first frame late.
        video = self._video
        zero = self._audio_start if video is None else float((video.start_time or 0) * video.time_base)
        late = self._audio_start - zero
        return features.place(np.concatenate(self._wave).astype(np.float32) / 32768, late)

    def patches(self):
        return librosa_patches(self._heard())


class PyAvFast(PyAv):
    """The same without libswscale's accurate rounding: faster, and pixels that are 1 % darker."""

    def _scaling(self, names):
        return names.AREA


class TorchCodec:
    """torchcodec: only the frames that are asked for come out, at full size, to be scaled by OpenCV's area filter."""

    @staticmethod
    def load():
        import cv2
        import onnxruntime
        import torchaudio
        import torchcodec

        del cv2, onnxruntime, torchaudio, torchcodec

    def __init__(self, path, batch):
        import torch
        from torchcodec.decoders import AudioDecoder, VideoDecoder

        torch.set_num_threads(1)
        self._batch = batch
        self._video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, **self._options())
        try:
            self._audio = AudioDecoder(path, sample_rate=features.RATE)
        except (RuntimeError, ValueError):  # no sound
            self._audio = None

    def _options(self):
        return {"seek_mode": "exact"}

    def _scale(self, frame):
        import cv2

        cv2.setNumThreads(1)
        return cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    def frames(self):
        known = self._video.metadata
        start = known.begin_stream_seconds
        last = known.end_stream_seconds - 1 / known.average_fps - start
        times = [start + k for k in range(math.floor(last + 1e-6) + 1)]
        for at in range(0, len(times), self._batch):
            frames = self._video.get_frames_played_at(times[at : at + self._batch]).data.numpy()
            yield np.stack([self._scale(frame) for frame in frames])

    def _wave(self):
        """libswresample's own mix to mono, where only its loudness differs: a mean instead of a sum."""
        samples = self._audio.get_all_samples()
        sound = samples.data.numpy()
        weights = {2: [1, 1], 6: [1, 1, 2**0.5, 0, 0.5**0.5, 0.5**0.5]}.get(len(sound), [1] * len(sound))
        late = samples.pts_seconds - self._video.metadata.begin_stream_seconds
        return features.place(np.asarray(weights, np.float32) / sum(weights) @ sound, late)

    def patches(self):
        return torchaudio_patches(self._wave()) if self._audio else np.zeros((0, features.PATCH_HOPS, 64), np.float32)


class TorchCodecResize(TorchCodec):
    """The same with torchcodec's own scaler, which is bilinear: faster, and other pixels."""

    def _options(self):
        from torchcodec.transforms import Resize

        return {"seek_mode": "approximate", "transforms": [Resize((SIDE, SIDE))]}

    def _scale(self, frame):
        return frame


DECODERS = {"pyav": PyAv, "pyav-fast": PyAvFast, "torchcodec": TorchCodec, "torchcodec-resize": TorchCodecResize}
