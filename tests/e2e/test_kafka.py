"""The same over Kafka: in one process, and with each role a process of its own, some of which are killed."""
import os
import random
import unittest

import kit
from kit import catalogue, ffmpeg, kill, short_clips, wait_for
from roles import Roles


def clips():
    long = ffmpeg("kafka-long.mp4", *kit.picture(300, "320x240"), *kit.sound(300), *kit.H264, "-g", "50")
    return [*short_clips(8), long, *kit.samples("basketball.mp4", "R6llTwEh07w.mp4")]


class Kafka(Roles):
    local = None  # the digest of a run without a broker

    def setUp(self):
        super().setUp()
        self.clips = clips()
        catalogue(self.films, self.clips)
        if Kafka.local is None:
            self.index(self.films, "--segment", 60, data=self.dir / "local")
            Kafka.local = self.digest(self.dir / "local")

    def jobs_are_running(self, worker):
        parent = self.processes.parent
        return [pid for pid in self.processes.decoders() if parent(parent(pid)) == worker.pid]

    def wait_for_something_done(self, process):
        """Or for the process's end."""
        wait_for("something done", lambda: self.ask("status", "--state", "done", status=None).out or process.poll() is not None)

    def test_in_one_process(self):
        report = self.index(self.films, *self.bus, "--segment", 60)
        self.assertEqual(report["done"], len(self.clips))
        self.is_accounted(report)
        self.assertEqual(self.digest(), Kafka.local)
        again = self.index(self.films, *self.bus)
        self.assertEqual((again["done"], again["unchanged"]), (0, len(self.clips)))
        self.assertEqual(self.digest(), Kafka.local)

    def test_in_one_process_that_is_killed(self):
        index = self.start("index", self.films, *self.bus, "--segment", 60, "--data", self.data, "--quiet")
        self.wait_for_something_done(index)
        kill(index.pid)
        self.finish(index)
        done = set(self.inputs("done"))
        report = self.index(self.films, *self.bus, "--segment", 60)
        self.assertEqual((report["done"], report["unchanged"]), (len(self.clips) - len(done), len(done)))
        self.is_accounted(report)
        self.assertEqual(self.digest(), Kafka.local)

    def test_each_role_a_process(self):
        shard = self.role("shard", "--data", self.data)
        workers = [self.role("worker", "--workers", 1, "--streams", 1) for _ in range(2)]
        result = self.finish(self.coordinator())
        self.assertEqual(result.status, kit.DONE, str(result) + shard.log.read_text())
        self.assertEqual(result.json()["done"], len(self.clips))
        self.assertTrue(self.similar("basketball.mp4"))  # the shard answers
        self.ends_well(shard, *workers)
        self.is_accounted(result.json())
        self.assertEqual(self.digest(), Kafka.local)

    def test_roles_that_are_killed(self):
        """A worker in the middle of its jobs, and the shard; both come back, and nothing is missing or double."""
        seed = int(os.environ.get("KINODEX_E2E_SEED", random.randrange(1 << 32)))
        print(f"\n{self.id()}: seed {seed}", flush=True)
        chance = random.Random(seed)
        shard = self.role("shard", "--data", self.data)
        workers = [self.role("worker", "--workers", 1, "--streams", 1) for _ in range(2)]
        coordinator = self.coordinator()
        # One of those that work: a worker may be there so late that the other has done it all.
        working = wait_for("a job", lambda: [worker for worker in workers if self.jobs_are_running(worker)])
        victim = chance.choice(working)
        self.assertTrue(kill(victim.pid))
        replacement = self.role("worker", "--workers", 1, "--streams", 1)
        self.wait_for_something_done(coordinator)
        self.assertIsNone(coordinator.poll(), "the work was done before the shard could be killed")
        self.assertTrue(kill(shard.pid))
        shard.wait()
        shard = self.role("shard", "--data", self.data)
        result = self.finish(coordinator)
        self.assertEqual(result.status, kit.DONE, str(result) + shard.log.read_text() + replacement.log.read_text())
        self.assertEqual(result.json()["done"], len(self.clips))
        self.ends_well(shard, replacement, *(worker for worker in workers if worker is not victim))
        self.is_accounted(result.json())
        self.assertEqual(self.digest(), Kafka.local)

    def test_a_coordinator_that_is_killed(self):
        shard = self.role("shard", "--data", self.data)
        worker = self.role("worker")
        coordinator = self.coordinator()
        self.wait_for_something_done(coordinator)
        kill(coordinator.pid)
        self.finish(coordinator)
        done = set(self.inputs("done"))
        result = self.finish(self.coordinator())
        self.assertEqual(result.status, kit.DONE, str(result))
        self.assertEqual(result.json()["unchanged"], len(done))
        self.ends_well(shard, worker)
        self.is_accounted(result.json())
        self.assertEqual(self.digest(), Kafka.local)

    def test_no_broker(self):
        self.bus[1] = "127.0.0.1:1"
        result = self.run_kinodex("index", self.films, *self.bus, "--data", self.data, status=kit.FAILED)
        said = result.err.splitlines()[-1]  # before it there are warnings, while it waits for one
        self.assertTrue(said.startswith("kinodex: ") and "127.0.0.1:1" in said, str(result))



if __name__ == "__main__":
    unittest.main()
