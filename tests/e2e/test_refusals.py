"""What can't go on says so in one clear line, and the store stays as good as it was."""
import json
import os
import shutil
import subprocess
import unittest

import kit
from kit import Case, catalogue, samples, wait_for

CLIPS = samples("carphone_pristine.mp4", "RATRACE_wave_f_nm_np1_fr_goo_37.avi", "R6llTwEh07w.mp4")


class Refusals(Case):
    def setUp(self):
        super().setUp()
        self.films = catalogue(self.dir / "films", CLIPS)

    def refuses(self, verb, *args, words, status=kit.FAILED, **how):
        self.says_one_line(self.run_kinodex(verb, *args, status=status, **how), *words)

    def index_refuses(self, *args, words, status=kit.FAILED, **how):
        self.refuses("index", *self.with_data(args, None), words=words, status=status, **how)

    # --- Wrong use ---

    def test_unknown_option(self):
        self.index_refuses(self.films, "--fsp", "2", words=["--fsp", "--fps"], status=kit.USAGE)

    def test_unknown_command(self):
        self.refuses("indx", words=["indx", "index"], status=kit.USAGE)

    def test_values_out_of_range(self):
        self.index_refuses(self.films, "--fps", "0", words=["fps"], status=kit.USAGE)
        self.index_refuses(self.films, "--workers", "many", words=["workers", "many"], status=kit.USAGE)
        self.index_refuses(self.films, "--segment", "15", words=["segment", "15", "10"])
        for name in ("", "two words", "x" * 65):
            self.index_refuses(self.films, "--namespace", name, words=["namespace"])
        self.refuses("similar", "x", "--weights", "visual=0,audio=0", words=["weights"], status=kit.USAGE)

    def test_no_source(self):
        self.index_refuses(words=["SOURCE"], status=kit.USAGE)

    def test_missing_source(self):
        self.index_refuses(self.dir / "nothing-here", words=["nothing-here", "No such file"])

    def test_bad_options_in_file_and_environment(self):
        config = self.dir / "kinodex.conf"
        config.write_text("fps = 1\nspeed = 9\n")
        self.index_refuses(self.films, "--config", config, words=["kinodex.conf", "2", "speed"], status=kit.USAGE)
        self.index_refuses(self.films, env={"KINODEX_FPS": "fast"}, words=["KINODEX_FPS", "fast"], status=kit.USAGE)

    # --- Manifests ---

    def test_bad_manifests_name_the_line(self):
        good = json.dumps({"id": "one", "path": "a.mp4"})
        cases = {
            "no-id.jsonl": (f'{good}\n{{"path": "b.mp4"}}\n', ["no-id.jsonl:2", "id"]),
            "no-path.jsonl": (f'{good}\n{good.replace("one", "two")}\n{{"id": "x"}}\n', ["no-path.jsonl:3", "path"]),
            "twice.jsonl": (f"{good}\n\n{good}\n", ["twice.jsonl:3", "one"]),
            "broken.jsonl": (f'{good}\n{{"id": "two", \n', ["broken.jsonl:2"]),
            "time.jsonl": ('{"id": "x", "path": "y", "duration_ms": -4}\n', ["time.jsonl:1", "duration_ms"]),
            "short.csv": ("id,path\none,a.mp4\ntwo\n", ["short.csv:3"]),
            "quote.csv": ('id,path\n"one,a.mp4\n', ["quote.csv:2"]),
            "columns.csv": ("name,file\none,a.mp4\n", ["columns.csv:1", "id"]),
        }
        for name, (text, words) in cases.items():
            with self.subTest(name):
                (self.dir / name).write_text(text)
                self.index_refuses(self.dir / name, words=words)

    # --- Bundles ---

    def bundles(self):
        copy = self.dir / "bundles"
        shutil.copytree(kit.BUNDLES, copy, ignore=shutil.ignore_patterns("i3d"))
        return copy

    def test_missing_bundle(self):
        self.index_refuses(self.films, "--bundles", self.dir / "no-bundles", words=["no-bundles/lite0"])
        self.index_refuses(self.films, "--visual", "lite9", words=["lite9"])
        self.assertFalse((self.data / "shard-0").exists())

    def test_bundle_with_a_wrong_hash(self):
        bundles = self.bundles()
        model = bundles / "yamnet/model.onnx"
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
        self.index_refuses(self.films, "--bundles", bundles, words=["yamnet", "SHA-256"])
        self.refuses("bundle check", bundles / "yamnet", words=["yamnet", "SHA-256"])

    def test_bundle_that_is_none(self):
        bundles = self.bundles()
        (bundles / "lite0/bundle.json").write_text("{")
        self.index_refuses(self.films, "--bundles", bundles, words=["lite0/bundle.json"])

    # --- The data directory ---

    def test_nothing_indexed_yet(self):
        for verb in ("status", "dead list", "verify", "export", "similar x", "classify x"):
            with self.subTest(verb):
                self.refuses(*verb.split(" x")[:1], *(["x"] if verb.endswith(" x") else []), "--data", self.data,
                             words=[str(self.data)])
        self.assertFalse(self.data.exists(), "a question must not make a data directory")

    def test_data_of_another_version(self):
        self.index(self.films)
        before = self.verify()
        text = (self.data / "FORMAT").read_text()
        (self.data / "FORMAT").write_text("kinodex data 7\n")
        for verb in ("index", "status", "verify", "export"):
            args = [self.films] if verb == "index" else []
            self.refuses(verb, *args, "--data", self.data, words=["another version", "kinodex data 7", text.strip()])
        (self.data / "FORMAT").write_text(text)
        self.assertEqual(self.verify(), before)

    def test_data_directory_is_a_file(self):
        self.data.write_text("mine")
        self.index_refuses(self.films, words=[str(self.data)])
        self.assertEqual(self.data.read_text(), "mine")

    def test_damage_is_found_and_named(self):
        self.index(self.films)
        largest = max((self.data / "shard-0").glob("*.*"), key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 0x40
        largest.write_bytes(data)
        result = self.run_kinodex("verify", "--data", self.data, status=kit.FAILED)
        self.assertIn("shard-0", result.err)

    def test_a_second_index_on_the_same_directory(self):
        long = kit.ffmpeg("long-for-two.mp4", *kit.picture(600, "320x240"), *kit.H264, "-g", "25")
        first = self.start("index", long, "--data", self.data, "--json", "--fps", "10")
        wait_for("a decoder", self.processes.decoders)
        self.index_refuses(self.films, words=["in use", str(first.pid), str(self.data)])
        self.assertIsNone(first.poll(), "the first one ended before the second was tried")
        first.terminate()
        self.assertEqual(self.finish(first).status, kit.STOPPED)
        self.index(self.films)
        self.verify()

    def test_asking_does_not_keep_an_index_from_starting(self):
        """Readers look whether somebody writes. That look must never be taken for a writer."""
        self.index(self.films)
        question = "while [ -e go ]; do $0 status --data data >>out 2>&1 || exit 1; done"
        (self.dir / "go").touch()
        askers = [subprocess.Popen(["sh", "-c", question, str(kit.PROGRAM)], cwd=self.dir, env=self.environment())
                  for _ in range(2)]
        try:
            for _ in range(5):
                self.assertEqual(self.index(self.films)["unchanged"], len(CLIPS))
        finally:
            (self.dir / "go").unlink()
            ends = [asker.wait(kit.TIMEOUT_S) for asker in askers]
        self.assertEqual(ends, [0, 0], (self.dir / "out").read_text()[-2000:])

    # --- Writing fails ---

    def test_every_write_that_can_fail(self):
        """The Nth write of either store fails, for each N: one line, a good store, and the next run finishes the work."""
        whole = self.dir / "whole"
        self.index(self.films, data=whole)
        expected = self.digest(whole)
        failed = 0
        for nth in range(1, 13):
            with self.subTest(nth=nth):
                data = self.dir / f"fault-{nth}"
                result = self.run_kinodex("index", self.films, "--data", data, "--quiet", status=None,
                                          env={"KINODEX_FAULT": f"kv.write:{nth}"})
                self.assertIn(result.status, (kit.DONE, kit.FAILED), str(result))
                if result.status == kit.FAILED:
                    failed += 1
                    self.says_one_line(result, str(data))
                if (data / "ledger/CURRENT").exists():
                    self.verify(data)
                self.index(self.films, data=data)
                self.assertEqual(self.digest(data), expected)
        self.assertGreater(failed, 5)

    @unittest.skipUnless(os.getuid() == 0 and shutil.which("mount"), "needs root, for a small file system")
    def test_full_disk(self):
        """Room for neither the vectors' files nor much else, and room for these and then not for all of the store."""
        films = catalogue(self.dir / "many", kit.short_clips(12))
        self.index(films)
        self.assertIn("vectors", self.index_on_a_full_disk(films, 512))
        low, high, kib = 512, 32 << 10, 18 << 10  # where the store fills up depends on what is allocated ahead
        while "shard-0: the disk is full" not in (said := self.index_on_a_full_disk(films, kib)):
            low, high = (kib, high) if said else (low, kib)
            self.assertGreater(high - low, 32, "no size of a disk fills up by the store's writes")
            kib = (low + high) // 2

    def index_on_a_full_disk(self, films, kib):
        """What was said; nothing when there was room. In any case the data are good, and complete once there is."""
        disk = self.dir / f"disk-{kib}"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", disk], capture_output=True).returncode:
            self.skipTest("mounting is not allowed here")
        try:
            data = disk / "data"
            result = self.run_kinodex("index", films, "--data", data, "--quiet", status=None)
            if result.status != kit.DONE:
                self.assertEqual(result.status, kit.FAILED, str(result))
                self.says_one_line(result, str(data), "No space left")
                self.verify(data)
                subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)
                self.index(films, data=data)
            self.assertEqual(self.digest(data), self.digest())
            return result.err
        finally:
            subprocess.run(["umount", disk], check=True)


if __name__ == "__main__":
    unittest.main()
