"""Inputs for golden pairs that look and sound like the real thing, made from nothing but a seed."""
import numpy as np

RATE = 16000


def _texture(rng, size, falloff):
    """Noise with a 1/f spectrum, which is what photographs have, scaled to 0..1."""
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    radius = np.hypot(x, y)
    radius[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / radius**falloff
    field = np.fft.irfft2(spectrum, s=(size, size))
    return (field - field.min()) / (field.max() - field.min())


def picture(seed, size=224, shift=0.0):
    """[size][size][3] u8: lit ground and sky, textured, with a few shaded round things in front."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    horizon = rng.uniform(0.3, 0.6)
    ground = (y > horizon)[..., None]
    colours = rng.uniform(40, 220, (2, 3))
    image = np.where(ground, colours[0], colours[1]) * (0.6 + 0.4 * _texture(rng, size, 1.2))[..., None]
    for _ in range(4):
        cx, cy, r = rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.9), rng.uniform(0.08, 0.25)
        distance = np.hypot(x - (cx + shift) % 1.0, y - cy) / r
        shade = np.clip(1.1 - np.hypot(x - cx + r / 3, y - cy + r / 3) / (1.5 * r), 0.15, 1)
        inside = np.clip((1 - distance) * 20, 0, 1)[..., None]
        skin = rng.uniform(60, 255, 3) * (0.7 + 0.3 * _texture(rng, size, 0.8))[..., None] * shade[..., None]
        image = image * (1 - inside) + skin * inside
    image += rng.normal(0, 2, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def clip(seed, frames):
    """[3][frames][224][224] u8: a picture in which things move to the right."""
    return np.stack([picture(seed, shift=0.004 * t) for t in range(frames)]).transpose(3, 0, 1, 2).copy()


def sound(kind, seconds=1.2):
    """Mono f64 samples at 16 kHz."""
    rng = np.random.default_rng(7)
    t = np.arange(int(seconds * RATE)) / RATE
    if kind == "chord":
        notes = sum(np.sin(2 * np.pi * f * h * t) / h**1.5 for f in (220.0, 277.18, 329.63) for h in range(1, 9))
        return 0.12 * notes * np.exp(-1.5 * t)
    if kind == "noise":
        clicks = np.exp(-60 * (t % 0.3)) * rng.standard_normal(t.size)
        return 0.03 * rng.standard_normal(t.size) + 0.4 * clicks
    pitch = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 1.7 * t)) / RATE
    formants = ((600, 90), (1150, 110), (2500, 160))
    voice = np.zeros_like(t)
    for h in range(1, 40):
        gain = sum(np.exp(-(((h * 120 - f * (1 + 0.2 * np.sin(2 * np.pi * 2.1 * t))) / (2 * w)) ** 2))
                   for f, w in formants)
        voice += gain * np.sin(h * pitch)
    return 0.1 * voice * (0.3 + 0.7 * (np.sin(2 * np.pi * 2.5 * t) > -0.4)) + 0.002 * rng.standard_normal(t.size)


def log_mel(wave):
    """The first [96][64] patch, as the yamnet bundle wants it."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([wave[i * 160 : i * 160 + 400] * window for i in range(96)])
    magnitude = np.abs(np.fft.rfft(frames, 512))

    def mel(hz):
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    bins = mel(np.arange(257) * (RATE / 512))[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    return np.log(magnitude @ filters + 0.001).astype(np.float32)
