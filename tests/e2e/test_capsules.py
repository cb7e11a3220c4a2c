"""A failure leaves a folder with which it can be run again, anywhere, and made small."""
import hashlib
import json
import os
import shutil
import unittest
from pathlib import Path

import kit
from kit import H264, Case, ffmpeg, picture

MIB = 1 << 20


class Capsules(Case):
    def setUp(self):
        super().setUp()
        self.films = self.dir / "films"
        self.films.mkdir()

    def put(self, name, data):
        path = self.films / name
        path.write_bytes(data)
        return path

    def capsule(self, name):
        """Its folder, as kinodex dead show names it, and what stands in it."""
        folder = Path(self.ask("dead show", name).json()["capsule"])
        return folder, json.loads((folder / "capsule.json").read_text())

    def replay(self, folder, *options, status=kit.DONE, **how):
        return self.run_kinodex("replay", folder, *options, "--json", status=status, **how).json()

    def test_a_crash_comes_again(self):
        self.put("film.mp4", ffmpeg("short.mp4", *picture(2), *H264).read_bytes())
        crash = {"KINODEX_FAULT": "child.abort:1"}
        report = self.index(self.films, "--attempts", "2", status=kit.QUARANTINED, env=crash)
        self.assertEqual(report["reasons"], {"crashed": 1})
        folder, capsule = self.capsule("film.mp4")
        self.assertEqual((capsule["id"], capsule["reason"]), ("film.mp4", "crashed"))
        self.assertIn("SIGABRT", capsule["message"])
        self.assertIn("about to abort", capsule["stderr"])
        self.assertTrue(capsule["input"]["in_capsule"])
        data = (folder / "input").read_bytes()
        self.assertEqual((len(data), hashlib.sha256(data).hexdigest()),
                         (capsule["input"]["bytes"], capsule["input"]["sha256"]))
        for part in ("kinodex", "media", "kernel", "cpu"):
            self.assertTrue(capsule["versions"][part], part)
        moved = self.dir / "elsewhere"
        shutil.copytree(folder, moved)
        shutil.rmtree(self.data)
        shutil.rmtree(self.films)
        answer = self.replay(moved, env=crash)
        self.assertEqual((answer["same"], answer["reason"]), (True, "crashed"))
        answer = self.replay(moved, status=kit.FAILED)  # mended
        self.assertEqual((answer["same"], answer["expected"], answer["reason"]), (False, "crashed", "none"))

    def test_a_cut_file_is_reduced(self):
        clip = ffmpeg("big.mp4", *picture(30, "640x480", pattern="mandelbrot"), *H264, "-b:v", "2M").read_bytes()
        self.assertGreater(len(clip), 2 * MIB)
        path = self.put("cut.mp4", clip[:2 * MIB])
        self.index(self.films, status=kit.QUARANTINED)
        folder, capsule = self.capsule("cut.mp4")
        self.assertEqual((capsule["reason"], capsule["job"]["purpose"]), ("truncated", "probe"))
        self.assertFalse(capsule["input"]["in_capsule"])  # too large to be copied without being asked
        self.assertTrue(self.replay("cut.mp4", "--data", self.data)["same"])
        answer = self.replay(folder, "--reduce")
        self.assertLess(answer["reduced_bytes"], 1000)
        path.unlink()
        self.assertTrue(self.replay(folder)["same"])

    def test_a_reference_is_to_the_file_that_failed(self):
        clip = ffmpeg("big.mp4", *picture(30, "640x480", pattern="mandelbrot"), *H264, "-b:v", "2M").read_bytes()
        path = self.put("cut.mp4", clip[:2 * MIB])
        self.index(self.films, status=kit.QUARANTINED)
        folder, _ = self.capsule("cut.mp4")
        path.write_bytes(clip[:2 * MIB + 1])
        result = self.run_kinodex("replay", folder, status=kit.FAILED)
        self.says_one_line(result, "cut.mp4", "not the file")

    def test_a_damaged_file_is_reduced(self):
        """Its headers are good and its pictures are not: a job fails, not a probe."""
        clip = ffmpeg("short.mp4", *picture(1, "64x64"), *H264, "-movflags", "+faststart").read_bytes()
        at = clip.index(b"mdat") + 4
        self.put("bad.mp4", clip[:at] + b"\xff" * (len(clip) - at))
        report = self.index(self.films, status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"no-frames": 1})
        folder, capsule = self.capsule("bad.mp4")
        self.assertEqual((capsule["job"]["purpose"], capsule["job"]["decode"]), ("sample", "exact"))
        before = (folder / "input").read_bytes()
        self.replay(folder, "--reduce")
        after = (folder / "input").read_bytes()
        # The index says how long the file has to be, but hardly any of it matters.
        self.assertLess(len(after) - after.count(0), (len(before) - before.count(0)) // 10)
        answer = self.replay(folder)
        self.assertEqual((answer["same"], answer["reason"]), (True, "no-frames"))

    def test_a_violation_comes_again(self):
        clip = self.put("film.mp4", ffmpeg("short.mp4", *picture(2), *H264).read_bytes())
        fault = {"KINODEX_FAULT": "child.socket:1"}
        self.index(clip, status=kit.QUARANTINED, env=fault)
        folder, _ = self.capsule("film.mp4")
        self.assertEqual(self.replay(folder, env=fault)["reason"], "sandbox-violation")

    def test_what_is_healed_keeps_none(self):
        path = self.put("film.mp4", b"no film at all" * 100)
        self.put("other.mp4", b"no film either" * 100)
        self.index(self.films, status=kit.QUARANTINED)
        folder, _ = self.capsule("film.mp4")
        other, _ = self.capsule("other.mp4")
        path.write_bytes(ffmpeg("short.mp4", *picture(2), *H264).read_bytes())
        self.index(self.films, status=kit.QUARANTINED)
        self.assertEqual((folder.exists(), other.exists()), (False, True))

    def test_all_of_them_are_bounded(self):
        self.put("old.mp4", b"no film at all" * 100)
        self.put("new.mp4", b"no film either" * 100)
        self.index(self.films, status=kit.QUARANTINED)
        old, _ = self.capsule("old.mp4")
        new, _ = self.capsule("new.mp4")
        stray = old.parent / ("0" * 16)  # of no letter
        stray.mkdir()
        with (old / "input").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 300 * MIB)
        os.utime(old, (1, 1))
        self.index(ffmpeg("short.mp4", *picture(2), *H264))  # another source: these two are not tried again
        self.assertEqual((old.exists(), new.exists(), stray.exists()), (False, True, False))

    def test_what_is_no_capsule(self):
        empty = self.dir / "empty"
        empty.mkdir()
        self.says_one_line(self.run_kinodex("replay", empty, status=kit.FAILED), "no capsule")
        (empty / "capsule.json").write_text("{}")
        (empty / "request.pb").write_bytes(b"\xff\xff")
        self.says_one_line(self.run_kinodex("replay", empty, status=kit.FAILED), "no capsule")


if __name__ == "__main__":
    unittest.main()
