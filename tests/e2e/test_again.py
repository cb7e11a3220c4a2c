"""Running index again does only what is new, changed or failed before."""
import json
import os
import shutil
import unittest

import kit
from kit import H264, Case, ffmpeg, picture, samples, sound

NAMES = ("carphone_pristine.mp4", "basketball.mp4", "R6llTwEh07w.mp4", "v_SoccerJuggling_g23_c01.avi")


class Again(Case):
    def setUp(self):
        super().setUp()
        self.films = self.dir / "films"
        self.films.mkdir()
        for clip in samples(*NAMES):
            shutil.copy(clip, self.films / clip.name)
        self.assertEqual(self.index(self.films)["done"], len(NAMES))

    def again(self, status=kit.DONE, source=None, **expected):
        """Indexes once more and compares the counts that are given; the others must be 0. No decoding where none is due."""
        report = self.index(source or self.films, status=status)
        counts = {name: report[name] for name in ("done", "partial", "quarantined", "deleted", "unchanged", "copied")}
        self.assertEqual(counts, {**dict.fromkeys(counts, 0), **expected}, report)
        if not expected.get("done") and not expected.get("partial"):
            self.assertEqual(report["decode_cpu_s"], 0)
        return report

    def test_nothing_new(self):
        before = self.verify()
        self.again(unchanged=4)
        self.assertEqual(self.verify(), before)

    def test_a_new_one(self):
        shutil.copy(kit.SAMPLES / "bikes.mp4", self.films)
        self.is_accounted(self.again(done=1, unchanged=4))

    def test_only_the_time_changed(self):
        os.utime(self.films / NAMES[0], (1, 1))
        self.again(unchanged=4)
        self.again(unchanged=4)

    def test_changed_content(self):
        shutil.copy(kit.SAMPLES / "bikes.mp4", self.films / NAMES[0])
        before = self.digest()
        self.is_accounted(self.again(done=1, unchanged=3))
        self.assertNotEqual(self.digest(), before)

    def test_changed_content_of_the_same_size_and_time(self):
        """What rsync --times does to a file that was patched in place is not seen; touched, it is."""
        path = self.films / NAMES[0]
        info = path.stat()
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        self.again(unchanged=4)
        path.touch()
        self.again(done=1, unchanged=3)

    def test_a_copy_is_not_decoded(self):
        (self.films / "more").mkdir()
        shutil.copy(self.films / NAMES[0], self.films / "more/again.mp4")
        self.is_accounted(self.again(copied=1, unchanged=4))
        self.assertEqual(self.inputs()["more/again.mp4"]["copy_of"], NAMES[0])
        self.assertEqual(self.similar("more/again.mp4")[0], NAMES[0])
        self.again(unchanged=5)

    def test_a_rename_is_not_decoded(self):
        before = self.similar(NAMES[0])
        (self.films / NAMES[0]).rename(self.films / "renamed.mp4")
        self.is_accounted(self.again(copied=1, deleted=1, unchanged=3))
        self.assertEqual(self.similar("renamed.mp4"), before)
        self.assertNotIn(NAMES[0], self.stored())
        self.again(unchanged=4)

    def test_a_swap_of_names(self):
        one, two = self.films / NAMES[0], self.films / NAMES[1]
        one.rename(self.films / "x")
        two.rename(one)
        (self.films / "x").rename(two)
        report = self.index(self.films)
        self.assertEqual((report["done"] + report["copied"], report["unchanged"]), (2, 2))
        self.is_accounted(report)
        self.assertEqual(self.run_kinodex("export", "--data", self.data).status, 0)
        sizes = {row["id"]: row["bytes"] for row in self.inputs().values()}
        self.assertEqual(sizes[NAMES[0]], one.stat().st_size)

    def test_what_is_deleted_is_found_no_more(self):
        (self.films / NAMES[3]).unlink()
        self.assertIn(NAMES[3], self.similar(NAMES[1]))
        self.is_accounted(self.again(deleted=1, unchanged=3))
        self.assertNotIn(NAMES[3], self.similar(NAMES[1]))
        result = self.ask("similar", NAMES[3], status=kit.FAILED)
        self.says_one_line(result, NAMES[3], "deleted")
        self.again(unchanged=3)

    def test_what_is_deleted_comes_back(self):
        before = self.digest()
        (self.films / NAMES[3]).rename(self.dir / "away.avi")
        self.again(deleted=1, unchanged=3)
        (self.dir / "away.avi").rename(self.films / NAMES[3])
        self.is_accounted(self.again(done=1, unchanged=3))
        self.assertEqual(self.digest(), before)

    def test_what_turns_bad_is_found_no_more(self):
        for i in range(3):  # the shard must have heard of it before the process ends, each time
            with self.subTest(i):
                good = (self.films / NAMES[1]).read_bytes()
                (self.films / NAMES[1]).write_bytes(b"not a film any more")
                report = self.again(status=kit.QUARANTINED, quarantined=1, unchanged=3)
                self.is_accounted(report)
                self.assertNotIn(NAMES[1], self.similar(NAMES[0]))
                self.again(status=kit.QUARANTINED, quarantined=1, unchanged=3)
                (self.films / NAMES[1]).write_bytes(good)
                self.again(done=1, unchanged=3)

    def test_other_settings_do_all_again(self):
        report = self.index(self.films, "--fps", "2")
        self.assertEqual((report["done"], report["unchanged"]), (4, 0))
        self.is_accounted(report)

    def test_the_split_is_no_setting(self):
        report = self.index(self.films, "--segment", "10", "--workers", "1")
        self.assertEqual((report["done"], report["unchanged"]), (0, 4))

    def test_another_folder_is_added(self):
        other = self.dir / "other"
        other.mkdir()
        shutil.copy(kit.SAMPLES / "bikes.mp4", other)
        self.again(source=other, done=1)
        self.assertEqual(len(self.stored()), 5)
        self.again(unchanged=4)
        self.assertEqual(len(self.stored()), 5)

    def test_a_folder_that_moved(self):
        self.films.rename(self.dir / "moved")
        self.again(source=self.dir / "moved", unchanged=4)
        source = self.inputs()[NAMES[0]]["source"]
        self.assertEqual(source, str((self.dir / "moved" / NAMES[0]).resolve()))
        self.again(source=self.dir / "moved", unchanged=4)

    def test_an_unmounted_folder_deletes_nothing(self):
        self.films.rename(self.dir / "away")
        result = self.run_kinodex("index", self.films, "--data", self.data, status=kit.FAILED)
        self.says_one_line(result, "films")
        self.assertEqual(len(self.stored()), 4)

    def test_manifest(self):
        rows = [{"id": f"film-{i}", "path": f"films/{name}", "title": f"Film {i}", "labels": ["x", "y"]}
                for i, name in enumerate(NAMES)]
        manifest = self.dir / "films.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = self.dir / "by-manifest"
        self.assertEqual(self.index(manifest, data=data)["done"], 4)
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
        report = self.index(manifest, data=data)
        self.assertEqual((report["deleted"], report["unchanged"]), (1, 3))
        hits = self.ask("similar", "film-1", data=data).json()["hits"]
        self.assertEqual({hit["title"] for hit in hits}, {"Film 2", "Film 3"})
        table = self.dir / "films.csv"
        table.write_text("id,path,title\n" + "".join(f'{row["id"]},{row["path"]},"{row["title"]}"\n' for row in rows))
        self.assertEqual(self.index(table, data=self.dir / "by-table")["done"], 4)
        self.assertEqual(self.stored(self.dir / "by-table"), {row["id"] for row in rows})

    def test_replay(self):
        bad = self.films / "bad.mp4"
        bad.write_bytes(b"x" * 999)
        self.again(status=kit.QUARANTINED, quarantined=1, unchanged=4)
        shutil.copy(ffmpeg("again.mp4", *picture(5), *sound(5), *H264), bad)
        report = self.run_kinodex("dead replay", "bad.mp4", "--data", self.data, "--json").json()
        self.assertEqual((report["done"], report["unchanged"]), (1, 0))
        self.assertEqual(self.dead(), {})
        self.again(unchanged=5)


if __name__ == "__main__":
    unittest.main()
