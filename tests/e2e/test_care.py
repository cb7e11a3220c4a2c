"""`kinodex shard compact|checkpoint|verify`: a store that is cared for says what it said before, and so does its copy."""
import shutil
import unittest

import kit
from kit import Kept, catalogue, samples

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


if __name__ == "__main__":
    unittest.main()
