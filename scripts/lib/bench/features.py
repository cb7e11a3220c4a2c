"""What Kinodex computes from decoded pictures and sound, said once more in numpy: log-mel patches, pooling, classes.

The peers of `scripts/bench index` and the golden test share it. It follows worker/media/media.h (patches),
common/learn/learn.h (codes, pooling) and shard/store/merge.h (whole videos), and none of their code.
"""
import pathlib

import numpy as np

RATE = 16000
HOP, WINDOW, FFT = 160, 400, 512
PATCH_HOPS, PATCH_STEP = 96, 48
PATCH_SAMPLES = (PATCH_HOPS - 1) * HOP + WINDOW
PATCH_SECONDS = PATCH_STEP * HOP / RATE
CELL_SECONDS = 10
TOP_CLASSES = 20


def mel_matrix():
    """[257][64] HTK mel triangles from 125 to 7500 Hz, straight in mel as TensorFlow's are (librosa's are in Hz)."""

    def mel(hz):
        return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    at = mel(np.arange(FFT // 2 + 1) * (RATE / FFT))[:, None]
    rise = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)


def fill_up(wave):
    """Sound shorter than a patch is filled up to one with silence; under 0.1 s there is none."""
    if len(wave) <= RATE // 10:
        return wave[:0]
    return np.pad(wave, (0, max(0, PATCH_SAMPLES - len(wave))))


def hann():
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def log_mel(wave, matrix):
    """[hops][64] of 16 kHz mono samples, by numpy alone."""
    if len(wave) < WINDOW:
        return np.zeros((0, matrix.shape[1]), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    return np.log(np.abs(np.fft.rfft(frames * hann(), FFT)).astype(np.float32) @ matrix + 0.001)


def patches(mel):
    """[n][96][64], one every 48 hops; what does not fill a patch is dropped."""
    if len(mel) < PATCH_HOPS:
        return np.zeros((0, PATCH_HOPS, mel.shape[1]), np.float32)
    return np.lib.stride_tricks.sliding_window_view(mel, PATCH_HOPS, axis=0)[::PATCH_STEP].transpose(0, 2, 1)


def place(wave, late_s):
    """The wave on a clock on which it starts late_s seconds after 0 (before 0 when negative)."""
    samples = round(late_s * RATE)
    return np.pad(wave, (samples, 0)) if samples > 0 else wave[-samples:]


def unit(v):
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.divide(v, length, out=np.zeros_like(v), where=length > 0)


def quantize(rows):
    """Rows as they come out of affine u8 codes, which is how features are stored."""
    low = rows.min(axis=1, keepdims=True)
    step = (rows.max(axis=1, keepdims=True) - low) / 255
    codes = np.rint(np.divide(rows - low, step, out=np.zeros_like(rows), where=step > 0))
    return low + codes * step


def moments(rows, seconds, stored=True):
    """Cells of 10 s: unit vectors [cells][dim] and how many rows are in each. rows[k] is at k * seconds."""
    rows = quantize(rows) if stored else rows
    rows = unit(np.sign(rows) * np.sqrt(np.abs(rows)))
    cell = (np.arange(len(rows)) * round(seconds * 1e6) // (CELL_SECONDS * 1_000_000)).astype(int)
    count = np.bincount(cell)
    sums = np.add.reduceat(rows, np.flatnonzero(np.diff(cell, prepend=-1)), axis=0)
    return unit(sums), count[count > 0]


def embed(rows, seconds, stored=True):
    """The embedding of a video from its rows, or None where there are none."""
    if len(rows) == 0:
        return None
    vectors, count = moments(np.asarray(rows, np.float32), seconds, stored)
    return unit((vectors * count[:, None]).sum(axis=0))


def top_classes(scores, seconds):
    """The 20 best classes of each moment with their mean scores: what is kept of classes."""
    cell = (np.arange(len(scores)) * round(seconds * 1e6) // (CELL_SECONDS * 1_000_000)).astype(int)
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    means = np.add.reduceat(scores, starts, axis=0) / np.bincount(cell)[np.unique(cell)][:, None]
    ids = np.argsort(-means, axis=1)[:, :TOP_CLASSES]
    return ids, np.take_along_axis(means, ids, axis=1)


class Network:
    """A bundle's model in ONNX Runtime, one thread."""

    def __init__(self, folder, activation):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(pathlib.Path(folder) / "model.onnx"), options,
                                                     ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._activation = activation

    def run(self, items):
        """[n][...] to (features, scores)."""
        features, logits = self._session.run(["features", "logits"], {self._input: np.ascontiguousarray(items)})
        if self._activation == "sigmoid":
            return features, 0.5 * (1 + np.tanh(0.5 * logits))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return features, powers / powers.sum(axis=1, keepdims=True)

    def run_batches(self, items, batch):
        """Like run(), a batch at a time; None for no items."""
        parts = [self.run(items[at : at + batch]) for at in range(0, len(items), batch)]
        return tuple(np.concatenate(part) for part in zip(*parts)) if parts else None


def lite0(bundles):
    return Network(pathlib.Path(bundles) / "lite0", "softmax")


def yamnet(bundles):
    return Network(pathlib.Path(bundles) / "yamnet", "sigmoid")
