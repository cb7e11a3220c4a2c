"""kill -9 of anything, at any time: what was reported done is neither lost nor done again, and the end is the same.

The moments are random; the seed is printed, and KINODEX_E2E_SEED repeats one.
"""
import os
import random
import subprocess
import time
import unittest

import kit
from kit import Case, catalogue, kill, short_clips, wait_for

KILLS = 15


def ends_within(process, seconds):
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


class Kill(Case):
    undisturbed = None  # digest and duration of a run that nobody disturbed

    def setUp(self):
        super().setUp()
        self.clips = [*short_clips(10), *kit.samples("basketball.mp4", "R6llTwEh07w.mp4")]
        self.films = catalogue(self.dir / "films", self.clips)
        seed = int(os.environ.get("KINODEX_E2E_SEED", random.randrange(1 << 32)))
        print(f"\n{self.id()}: seed {seed}", flush=True)
        self.random = random.Random(seed)
        if Kill.undisturbed is None:
            began = time.monotonic()
            self.index(self.films, data=self.dir / "undisturbed")
            Kill.undisturbed = self.digest(self.dir / "undisturbed"), time.monotonic() - began
        self.expected, self.took_s = Kill.undisturbed

    def start_index(self, *args):
        return self.start("index", self.films, "--data", self.data, "--quiet", "--segment", "10", *args)

    def done(self):
        result = self.ask("status", "--state", "done", status=None)
        return {row["id"] for row in result.lines()} if result.status == kit.DONE else set()

    def is_as_if_nothing_had_happened(self, report):
        self.is_accounted(report)
        self.has_no_work_dirs()
        self.assertEqual(report["quarantined"], 0)
        self.assertEqual(self.digest(), self.expected)

    def nothing_is_left_running(self):
        wait_for("the children to end", lambda: not self.processes.find())

    def test_of_the_main_process(self):
        done, kills, rounds = set(), 0, 0
        while kills < KILLS:
            rounds += 1
            self.assertLess(rounds, 4 * KILLS, "the runs end before they can be killed")
            began, index = time.monotonic(), self.start_index()
            if not ends_within(index, self.random.uniform(0.05, 1.1) * self.took_s):
                kills += kill(index.pid)
            elif not done:  # the machine is not as crowded as it was when this was measured
                self.took_s = min(self.took_s, time.monotonic() - began)
            result = self.finish(index)
            self.assertIn(result.status, (-9, kit.DONE), str(result))
            self.nothing_is_left_running()
            before, done = done, self.done()
            self.assertEqual(before - done, set(), "what was done is not done any more")
            if done:
                self.assertEqual(done - self.stored(), set(), "done, and not in the store")
                self.verify()
            if len(done) == len(self.clips):  # all of it survived: from the start again
                self.is_as_if_nothing_had_happened(self.index(self.films))
                self.data.rename(self.dir / f"finished-{rounds}")
                done = set()
        report = self.index(self.films, "--segment", "10")
        self.assertEqual((report["unchanged"], report["done"]), (len(done), len(self.clips) - len(done)))
        self.is_as_if_nothing_had_happened(report)

    def disturb(self, pick, times, *args):
        """Kills, while a run goes on, what pick() gives, at random moments. The report, and how often it could."""
        index = self.start_index("--json", *args)
        killed = 0
        while killed < times and index.poll() is None:
            # The first one soon: the machine may be less crowded than when it was measured how long a run takes.
            ends_within(index, self.random.uniform(0, self.took_s / times if killed else 0.1))
            victims = pick()
            if victims:
                killed += kill(self.random.choice(victims))
        result = self.finish(index)
        self.assertEqual(result.status, kit.DONE, str(result))
        return result.json(), killed

    def test_of_decoder_hosts(self):
        report, killed = self.disturb(self.processes.hosts, 4, "--attempts", "20")
        self.assertGreater(killed, 0)
        self.is_as_if_nothing_had_happened(report)

    def test_of_decoders(self):
        report, killed = self.disturb(self.processes.decoders, 6, "--attempts", "20")
        self.assertGreater(killed, 0)
        self.is_as_if_nothing_had_happened(report)

    def test_of_a_decoder_each_time(self):
        """A file whose decoder dies every time is quarantined after its attempts, and the others are not touched by it."""
        victim = self.films / "a-victim.mp4"
        victim.symlink_to(kit.ffmpeg("victim.mp4", *kit.picture(60, "640x360"), *kit.H264, "-g", "250"))

        def reads_victim(pid):
            try:
                fds = os.listdir(f"/proc/{pid}/fd")
                return any(os.readlink(f"/proc/{pid}/fd/{fd}") == str(victim.resolve()) for fd in fds)
            except OSError:
                return False

        index = self.start_index("--json", "--attempts", "2", "--segment", "300")
        while index.poll() is None:
            for pid in filter(reads_victim, self.processes.decoders()):
                kill(pid)
        result = self.finish(index)
        self.assertEqual(result.status, kit.QUARANTINED, str(result))
        self.assertEqual(result.json()["reasons"], {"crashed": 1})
        self.is_accounted(result.json())
        self.assertEqual(list(self.dead()), ["a-victim.mp4"])
        victim.unlink()
        self.is_as_if_nothing_had_happened(self.index(self.films))


if __name__ == "__main__":
    unittest.main()
