"""Whatever lies in a folder: what can be indexed is, the rest is quarantined with its reason, and nothing hangs."""
import os
import random
import shutil
import struct
import subprocess
import unittest

import kit
from kit import H264, Case, ffmpeg, picture, sound

NOBODY = 65534


def boxes(data):
    """(type, first byte, end) of the boxes of an MP4."""
    at, found = 0, []
    while at + 8 <= len(data):
        size, = struct.unpack_from(">I", data, at)
        found.append((data[at + 4:at + 8], at, at + size))
        at += size
    return found


def cut(clip, where, part):
    """The file's first bytes, up to a part of the given box."""
    data = clip.read_bytes()
    first, end = next((first, end) for kind, first, end in boxes(data) if kind == where)
    return data[:first + int((end - first) * part)]


class BadInput(Case):
    def setUp(self):
        super().setUp()
        self.films = self.dir / "films"
        self.films.mkdir()

    def put(self, name, data):
        path = self.films / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def put_zoo(self):
        """Everything of this file in one folder: name to expected state and reason."""
        tail_moov = ffmpeg("moov-last.mp4", *picture(8), *sound(8), *H264, "-g", "25")
        head_moov = ffmpeg("moov-first.mp4", *picture(20), *sound(20), *H264, "-g", "25", "-movflags", "+faststart")
        noise = random.Random(7)
        self.put("whole.mp4", tail_moov.read_bytes())
        self.put("sound-only.m4a", ffmpeg("sound.m4a", *sound(12)).read_bytes())
        self.put("silent.mp4", ffmpeg("silent.mp4", *picture(6), *H264).read_bytes())
        self.put("cut-half.mp4", cut(head_moov, b"mdat", 0.5))
        self.put("notes.txt", b"Shopping list: bread, butter, a longer walk.\n" * 20)
        self.put("empty.mp4", b"")
        self.put("no-moov.mp4", cut(tail_moov, b"mdat", 0.7))
        self.put("noise.mp4", noise.randbytes(300_000))
        self.put("one-byte.mkv", b"\x1a")
        self.put("playlist.mp4", f"#EXTM3U\n#EXTINF:8,\nfile://{tail_moov}\n#EXT-X-ENDLIST\n".encode())
        (self.films / "dangling.mp4").symlink_to(self.dir / "nowhere.mp4")
        os.mkfifo(self.films / "pipe.mp4")
        return {
            "whole.mp4": ("done", "none"),
            "sound-only.m4a": ("done", "none"),
            "silent.mp4": ("done", "none"),
            "cut-half.mp4": ("partial", "none"),
            "notes.txt": ("quarantined", "not-media"),
            "empty.mp4": ("quarantined", "empty-file"),
            "no-moov.mp4": ("quarantined", "truncated"),
            "noise.mp4": ("quarantined", "not-media"),
            "one-byte.mkv": ("quarantined", "not-media"),
            "playlist.mp4": ("quarantined", "not-media"),
            "dangling.mp4": ("quarantined", "not-found"),
            "pipe.mp4": ("quarantined", "unsupported"),
        }

    def test_each_is_told_by_its_reason(self):
        expected = self.put_zoo()
        report = self.index(self.films, status=kit.QUARANTINED)
        inputs = self.is_accounted(report)
        self.assertEqual({name: (row["state"], row["reason"]) for name, row in inputs.items()}, expected)
        for name, letter in self.dead().items():
            self.assertTrue(letter["message"] and letter["cure"], name)
            self.assertEqual(letter["source"], str(self.films.resolve() / name))
        self.has_no_work_dirs()

    def test_what_is_cut_says_how_much_of_it_there_is(self):
        self.put_zoo()
        self.index(self.films, status=kit.QUARANTINED)
        row = self.inputs()["cut-half.mp4"]
        self.assertGreater(row["covered_s"], 5)
        self.assertLess(row["covered_s"], 15)

    def test_sound_alone_is_found_by_sound(self):
        self.put_zoo()
        self.index(self.films, status=kit.QUARANTINED)
        hits = {hit["id"]: hit for hit in self.ask("similar", "sound-only.m4a").json()["hits"]}
        self.assertIn("whole.mp4", hits)  # the same tone
        self.assertEqual([hits["whole.mp4"]["has_visual"], hits["whole.mp4"]["has_audio"]], [False, True])
        self.assertNotIn("silent.mp4", hits)

    def test_replacing_what_is_bad_heals_it(self):
        self.put_zoo()
        self.index(self.films, status=kit.QUARANTINED)
        good = (self.films / "whole.mp4").read_bytes()
        for name in ("empty.mp4", "noise.mp4"):
            self.put(name, good + name.encode() * 40)  # not copies of each other: junk behind the last box
        report = self.index(self.films, status=kit.QUARANTINED)
        self.assertEqual((report["done"], report["unchanged"]), (2, 4))
        inputs = self.is_accounted(report)
        self.assertEqual(inputs["noise.mp4"]["state"], "done")
        self.assertNotIn("noise.mp4", self.dead())

    def test_bad_ones_that_go_are_deleted_with_their_letters(self):
        expected = self.put_zoo()
        self.index(self.films, status=kit.QUARANTINED)
        for name, (state, _) in expected.items():
            if state == "quarantined":
                (self.films / name).unlink()
        report = self.index(self.films)
        self.assertEqual((report["deleted"], report["unchanged"], report["quarantined"]), (8, 4, 0))
        self.is_accounted(report)
        self.assertEqual(self.dead(), {})

    def test_only_bad_ones(self):
        self.put("noise.mp4", random.Random(3).randbytes(5000))
        report = self.index(self.films, status=kit.QUARANTINED)
        self.is_accounted(report)
        self.assertIn("not-media", self.run_kinodex("dead list", "--data", self.data).out)

    def test_an_empty_folder_is_no_failure(self):
        report = self.index(self.films)
        self.is_accounted(report)

    def test_the_same_name_under_two_folders(self):
        clip = ffmpeg("silent.mp4", *picture(6), *H264).read_bytes()
        self.put("a/film.mp4", clip)
        self.put("b/film.mp4", clip + b"x" * 64)
        report = self.index(self.films / "a", self.films / "b", status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"duplicate-id": 1})
        self.assertEqual(report["deleted"], 0)
        self.is_accounted(report)
        letter, = self.dead().values()
        self.assertEqual((letter["reason"], letter["source"]), ("duplicate-id", str(self.films.resolve() / "b/film.mp4")))

    def test_too_little_memory_is_told(self):
        self.put("big.mp4", ffmpeg("big.mp4", *picture(1, "3840x2160"), *H264).read_bytes())
        report = self.index(self.films, "--job-memory-limit", "8", status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"memory-limit": 1})
        self.is_accounted(report)

    def test_a_file_that_grows_while_it_is_read(self):
        """A writer that is not done yet: the input ends somehow, the store stays good, and the next run has it whole."""
        whole = ffmpeg("grown.ts", *picture(60), *sound(60), *H264, "-f", "mpegts").read_bytes()
        path = self.put("growing.ts", whole[:len(whole) // 2])
        index = self.start("index", self.films, "--data", self.data, "--json")
        with path.open("ab") as file:
            for at in range(len(whole) // 2, len(whole), 20_000):
                file.write(whole[at:at + 20_000])
                file.flush()
                if index.poll() is not None:
                    break
            file.truncate(0)
            file.seek(0)
            file.write(whole)
        result = self.finish(index)
        self.assertIn(result.status, (kit.DONE, kit.QUARANTINED), str(result))
        self.verify()
        self.index(self.films)
        row = self.inputs()["growing.ts"]
        self.assertEqual(row["state"], "done")
        self.assertAlmostEqual(row["covered_s"], 60, delta=1)


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "needs root, to become somebody without rights")
class NoPermission(Case):
    """Root may read all, so kinodex runs as nobody."""

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)
        self.films = self.dir / "films"
        (self.films / "closed").mkdir(parents=True)
        self.data.mkdir()
        os.chown(self.data, NOBODY, NOBODY)
        for name in ("good.mp4", "unreadable.mp4", "closed/hidden.mp4"):
            shutil.copy(ffmpeg("silent.mp4", *picture(6), *H264), self.films / name)
        # The tree may lie where nobody gets to.
        shutil.copytree(kit.BUNDLES / "lite0", self.dir / "bundles/lite0")
        shutil.copytree(kit.BUNDLES / "yamnet", self.dir / "bundles/yamnet")
        shutil.copy(kit.PROGRAM, self.dir / "kinodex")

    def command(self, verb, args):
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [*become, str(self.dir / "kinodex"), *verb.split(), *map(str, args)]

    def environment(self, extra=None):
        return super().environment({"KINODEX_BUNDLES": str(self.dir / "bundles"), **(extra or {})})

    def start(self, *args, **popen):
        try:
            subprocess.run(self.command("--version", ()), check=True, capture_output=True, cwd="/")
        except subprocess.CalledProcessError as error:
            self.skipTest(f"nobody can't run kinodex here: {error.stderr.decode()}")
        return super().start(*args, **popen)

    def test_file_and_folder_without_rights(self):
        (self.films / "unreadable.mp4").chmod(0)
        (self.films / "closed").chmod(0)
        report = self.index(self.films, status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"no-permission": 2})
        inputs = self.is_accounted(report)
        self.assertEqual({name: row["state"] for name, row in inputs.items()},
                         {"good.mp4": "done", "unreadable.mp4": "quarantined", "closed": "quarantined"})

    def test_a_folder_that_closes_does_not_delete_what_is_in_it(self):
        shutil.copy(ffmpeg("sound.m4a", *sound(12)), self.films / "closed/hidden.mp4")
        self.index(self.films)
        (self.films / "closed").chmod(0)
        report = self.index(self.films, status=kit.QUARANTINED)
        self.assertEqual((report["deleted"], report["unchanged"]), (0, 2))
        self.assertIn("closed/hidden.mp4", self.stored())
        self.verify()


if __name__ == "__main__":
    unittest.main()
