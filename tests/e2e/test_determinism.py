"""The same stored bytes however the work was cut and shared out."""
import unittest

import kit
from kit import Case, catalogue, ffmpeg, samples


def clips():
    """Every sample that tests have, and what they lack: B-frames over several segments, WebM, a transport stream."""
    x264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1")
    return [
        *samples(*kit.SMALL, "cityCC0.mpg"),
        ffmpeg("long.mp4", *kit.picture(65, "320x240"), *kit.sound(65), *x264, "-bf", "3", "-g", "50"),
        ffmpeg("vp9.webm", "-t", "25", *kit.picture(25, "320x180"), *kit.sound(25, 330), "-c:v", "libvpx-vp9", "-deadline",
               "realtime", "-cpu-used", "8", "-threads", "1", "-c:a", "libopus"),
        ffmpeg("stream.ts", *kit.picture(24, "320x240", pattern="testsrc"), *kit.sound(24, 300), *x264, "-bf", "2", "-g", "48",
               "-c:a", "mp2", "-f", "mpegts"),
        ffmpeg("late.mkv", *kit.picture(31, "176x144"), *x264, "-vf", "setpts='PTS+3.3/TB'", "-bf", "2", "-vsync", "vfr"),
    ]


class Determinism(Case):
    def test_digest_does_not_depend_on_how(self):
        films = catalogue(self.dir / "films", clips())
        ways = {
            "as it comes": (),
            "one of each": ("--workers", 1, "--streams", 1, "--batch", 1, "--segment", 300),
            "many workers": ("--workers", 4, "--streams", 2, "--batch", 4, "--segment", 30),
            "smallest segments": ("--workers", 2, "--streams", 2, "--batch", 1, "--segment", 10),
            "one stream": ("--workers", 4, "--streams", 1, "--batch", 4, "--segment", 10),
        }
        proofs = {}
        for i, (way, options) in enumerate(ways.items()):
            data = self.dir / f"data-{i}"
            report = self.index(films, *options, data=data)
            self.assertEqual((report["done"], report["partial"]), (len(clips()), 0), way)
            proofs[way] = self.verify(data)
        self.assertEqual({way: proof["digest"] for way, proof in proofs.items()},
                         dict.fromkeys(ways, proofs["as it comes"]["digest"]))

    def test_digest_depends_on_what(self):
        """That it is equal above means something only if it can differ."""
        films = catalogue(self.dir / "films", samples("carphone_pristine.mp4", "basketball.mp4"))
        digests = set()
        for i, options in enumerate([(), ("--fps", "2"), ("--visual", "lite0", "--precision", "f32", "--fps", "0.5")]):
            self.index(films, *options, data=self.dir / f"data-{i}")
            digests.add(self.digest(self.dir / f"data-{i}"))
        (films / "basketball.mp4").unlink()
        self.index(films)
        digests.add(self.digest())
        self.assertEqual(len(digests), 4)

    def test_order_and_history_do_not_count(self):
        """Indexed in one go, or piece by piece with changes in between."""
        names = ["carphone_pristine.mp4", "basketball.mp4", "R6llTwEh07w.mp4"]
        films = catalogue(self.dir / "films", samples(*names))
        self.index(films, data=self.dir / "at-once")
        pieces = self.dir / "pieces"
        grown = catalogue(self.dir / "grown", samples(names[2]))
        self.index(grown, data=pieces)
        catalogue(grown, samples("bikes.mp4", names[0]))
        self.index(grown, "--fps", "3", data=pieces)
        (grown / "bikes.mp4").unlink()
        catalogue(grown, samples(names[1]))
        self.index(grown, data=pieces)
        self.assertEqual(self.digest(pieces), self.digest(self.dir / "at-once"))


if __name__ == "__main__":
    unittest.main()
