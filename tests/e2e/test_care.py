"""`kinodex shard compact|checkpoint|verify`: a store that is cared for says what it said before, and so does its copy."""
import fcntl
import resource
import shutil
import unittest

import kit
from kit import Kept, catalogue, samples, wait_for

SOFT_FILES = 20  # fewer than the files of a store of four videos
NAMES = ("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi", "bikes.mp4", "basketball.mp4")


class Care(Kept):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.films = catalogue(cls.keeper.dir / "films", samples(*NAMES))
        cls.keeper.index(cls.films)

    def setUp(self):
        super().setUp()
        shutil.copytree(self.keeper.data, self.data, ignore=shutil.ignore_patterns("run"))
        self.copy = self.dir / "copy"

    def answers(self, data=None):
        """What a person can see of a store."""
        similar = self.ask("similar", NAMES[0], "--moments", "-k", len(NAMES), data=data).json()
        return similar, self.verify(data), self.inputs(data=data)

    def checkpoint(self, *args, **how):
        return self.run_kinodex("shard checkpoint", *self.with_data((self.copy, *args), None), **how)

    def leaves(self, *names):
        self.assertEqual(sorted(entry.name for entry in self.dir.iterdir()), sorted(names))

    def test_a_checkpoint_answers_alike(self):
        self.ask("duplicates")
        wanted = self.answers()
        made = self.checkpoint("--json").json()
        self.assertEqual((made["checkpoint"], made["ledger"]), (str(self.copy), True))
        self.assertGreater(made["bytes"], 0)
        self.assertEqual(self.answers(self.copy), wanted)
        self.assertTrue((self.copy / "duplicates.tsv").exists())
        shutil.rmtree(self.data)  # it needs nothing of the other
        self.assertEqual(self.index(self.films, data=self.copy)["unchanged"], len(NAMES))
        self.assertEqual(self.answers(self.copy)[:2], wanted[:2])
        self.leaves("copy")

    def test_what_a_checkpoint_refuses(self):
        self.copy.mkdir()
        self.says_one_line(self.checkpoint(status=kit.FAILED), str(self.copy), "there already")
        self.copy.rmdir()
        self.copy /= "below"
        self.says_one_line(self.checkpoint(status=kit.FAILED), str(self.copy), "No such file")
        missing = self.dir / "none"
        self.says_one_line(self.run_kinodex("shard checkpoint", self.copy, "--data", missing, status=kit.FAILED), str(missing))
        self.says_one_line(self.run_kinodex("shard compact", "--data", missing, status=kit.FAILED), str(missing))
        self.says_one_line(self.run_kinodex("shard checkpoint", status=kit.USAGE), "checkpoint DIR")
        self.says_one_line(self.run_kinodex("shard compcat", status=kit.USAGE), "compcat", "compact")
        self.leaves("data")

    def test_a_checkpoint_that_fails_leaves_nothing(self):
        wanted = self.answers()
        for fault in ("kv.write:1", "fs.write:1", "fs.fsync:1", "fs.fsync:3", "fs.rename:2"):
            with self.subTest(fault):
                result = self.checkpoint(status=kit.FAILED, env={"KINODEX_FAULT": fault})
                self.says_one_line(result)
                self.leaves("data")
        self.assertEqual(self.answers(), wanted)

    def spread(self, out, parts, *args, **how):
        return self.run_kinodex("shard spread", out, *args, "--shards", parts, "--partitions", 12, **how)

    def parts_of(self, out, parts):
        return [out / f"part-{i}-of-{parts}" for i in range(parts)]

    def test_spreading(self):
        """One store as three, these as two, and these as one again: each video is in one of them, and nothing is lost."""
        self.index(self.films, "--fps", 2)  # another generation
        videos = self.stored()
        wanted, before = self.ask("shard verify").json(), self.answers()
        three, two, one = (self.dir / name for name in ("three", "two", "one"))
        made = self.spread(three, 3, "--data", self.data, "--json").json()
        self.assertEqual((made["videos"], made["moments"], made["pending"]), (len(videos), wanted["moments"], 0))
        self.assertEqual([part["data"] for part in made["parts"]], [str(part) for part in self.parts_of(three, 3)])
        self.assertEqual(self.answers(), before)  # it is as it was
        held = [self.stored(part) for part in self.parts_of(three, 3)]
        self.assertEqual(sorted(name for part in held for name in part), sorted(videos))
        self.assertEqual([part["videos"] for part in made["parts"]], [len(part) for part in held])
        for part in self.parts_of(three, 3):
            self.assertTrue(self.ask("shard verify", data=part).json()["good"])
        self.assertIn("part-1-of-2", self.spread(two, 2, *self.parts_of(three, 3)[::-1]).out)
        self.spread(one, 1, *self.parts_of(two, 2))
        whole, = self.parts_of(one, 1)
        proof = self.ask("shard verify", data=whole).json()
        self.assertEqual((proof["digest"], proof["rows"]), (wanted["digest"], wanted["rows"]))
        # The index is made by whoever opens the store to write, and then it answers as the first.
        self.run_kinodex("shard compact", "--data", whole)
        self.assertEqual(self.ask("similar", NAMES[0], "--moments", data=whole).json()["hits"],
                         self.ask("similar", NAMES[0], "--moments").json()["hits"])
        self.has_no_parts()

    def has_no_parts(self):
        self.assertEqual([entry.name for entry in self.dir.iterdir() if ".part-" in entry.name], [])

    def test_what_spreading_refuses(self):
        out = self.dir / "out"
        self.spread(self.dir / "three", 3, "--data", self.data)
        parts = self.parts_of(self.dir / "three", 3)
        for wanted, args in ((["part 1 of 3", "missing"], (parts[0], parts[2])),
                             (["named twice", "part-0-of-3"], (parts[0], parts[1], parts[2], parts[0])),
                             (["part 0 of 1", "part 0 of 3"], (parts[0], self.data)),
                             (["none", "no data directory"], (self.dir / "none",)),
                             (["12 partitions", "13 shards"], parts)):
            shards = 13 if "13 shards" in wanted else 2
            self.says_one_line(self.spread(out, shards, *args, status=kit.FAILED), *wanted)
        self.says_one_line(self.spread(self.dir / "three", 2, *parts, status=kit.FAILED), "there already")
        self.says_one_line(self.run_kinodex("shard spread", status=kit.USAGE), "shard spread OUT")
        self.assertFalse(out.exists())
        self.has_no_parts()
        with (self.data / "LOCK").open("r+") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            self.says_one_line(self.spread(out, 2, "--data", self.data, status=kit.FAILED), "in use")
        for fault in ("kv.write:3", "kv.write:9", "fs.write:1", "fs.write:2", "fs.rename:1"):
            with self.subTest(fault):
                self.says_one_line(self.spread(out, 2, "--data", self.data, status=kit.FAILED, env={"KINODEX_FAULT": fault}))
                self.assertFalse(out.exists())
                self.has_no_parts()

    def test_killed_while_spreading(self):
        """What is left is in a folder that says what it is, and its stores are refused."""
        wanted = self.answers()
        out = self.dir / "out"
        process = self.start("shard spread", out, "--data", self.data, "--shards", 3)

        def begun():
            return [store for store in self.dir.glob("out.part-*/part-2-of-3/shard-0/CURRENT")] or process.poll() is not None

        wait_for("its last store", begun, every_s=0)
        process.kill()
        self.finish(process)
        self.assertEqual(self.answers(), wanted)
        if not out.exists():  # it was quick
            self.assertTrue(list(self.dir.glob("out.part-*")))
            for part in self.dir.glob("out.part-*/*"):
                self.run_kinodex("shard verify", "--data", part, status=kit.FAILED)
        self.spread(self.dir / "again", 3, "--data", self.data)

    def test_compacting(self):
        for fps in (2, 1):  # every video anew, twice: half of what is stored is of no use
            self.index(self.films, "--fps", fps)
        wanted = self.answers()
        done = self.ask("shard compact").json()
        self.assertLess(done["bytes_after"], done["bytes_before"])
        self.assertEqual(self.answers(), wanted)

    def test_verifying(self):
        self.assertEqual(self.ask("shard verify").json(), self.verify())
        shutil.rmtree(self.data / "ledger")  # as a shard's own store has none
        self.assertEqual(self.ask("shard verify").json()["videos"], len(NAMES))
        self.assertIn("no ledger", self.run_kinodex("shard verify", "--data", self.data).out)

    def test_more_files_than_the_soft_limit(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.run_kinodex("shard verify", "--data", self.data,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_FILES, hard)))


if __name__ == "__main__":
    unittest.main()
