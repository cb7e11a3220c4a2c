"""Ctrl-C and SIGTERM: an end within two seconds, what is done is kept, and the next run goes on from there."""
import shutil
import signal
import time
import unittest

import kit
from kit import H264, Case, catalogue, ffmpeg, picture, short_clips, soonest, sound, wait_for

WITHIN_S = 2
# Compiling networks is one call that can't be left early; a machine that does other things at the same time is slower.
LOADED_S = 60


class Stop(Case):
    undisturbed = None  # the digest of a run that nobody stopped

    def setUp(self):
        super().setUp()
        # The last of them keeps a decoder busy for long, so that the signal comes in its middle.
        long = ffmpeg("zz-long.mp4", *picture(300, "640x360"), *sound(300), *H264, "-g", "250")
        self.clips = [*short_clips(6), long]
        self.films = catalogue(self.dir / "films", self.clips)

    def stop(self, number, when, *args):
        """How long it took to end, and its report."""
        index = self.start("index", self.films, "--data", self.data, "--json", *args)
        wait_for("the moment to stop", lambda: when() or index.poll() is not None)
        began = time.monotonic()
        index.send_signal(number)
        result = self.finish(index)
        took = time.monotonic() - began
        self.assertEqual(result.status, kit.STOPPED, str(result))
        self.assertIn("run the same command again", result.err)
        self.assertTrue(result.json()["stopped"])
        return took, result.json()

    def done_so_far(self):
        """Ids that a reader beside the run sees as done."""
        result = self.ask("status", "--state", "done", status=None)
        return {row["id"] for row in result.lines()} if result.status == kit.DONE else set()

    def goes_on(self, done):
        """Runs to the end: what was done is not done again, and all is as if nothing had happened."""
        report = self.index(self.films)
        self.assertEqual((report["done"], report["unchanged"]), (len(self.clips) - done, done))
        self.is_accounted(report)
        self.has_no_work_dirs()
        if Stop.undisturbed is None:
            self.index(self.films, data=self.dir / "undisturbed")
            Stop.undisturbed = self.digest(self.dir / "undisturbed")
        self.assertEqual(self.digest(), Stop.undisturbed)

    def stops_in_time(self, number):
        report = None

        def stop():
            nonlocal report
            shutil.rmtree(self.data, ignore_errors=True)
            took, report = self.stop(number, self.done_so_far, "--workers", "1")
            return took

        soonest(WITHIN_S, stop)
        self.assertGreater(report["done"], 0)
        self.assertLess(report["done"], len(self.clips))
        self.verify()
        self.has_no_work_dirs()
        # The shard commits first and the ledger follows: a stop in between leaves the ledger behind, never ahead.
        self.assertLessEqual(set(self.inputs("done")), set(self.stored()))
        self.goes_on(report["done"])

    def test_sigint(self):
        self.stops_in_time(signal.SIGINT)

    def test_sigterm(self):
        self.stops_in_time(signal.SIGTERM)

    def test_in_the_middle_of_a_decoding(self):
        _, report = self.stop(signal.SIGINT, lambda: len(self.done_so_far()) == len(self.clips) - 1)
        self.assertEqual(report["done"], len(self.clips) - 1)
        self.verify()

    def test_while_it_starts(self):
        for i in range(3):
            with self.subTest(i):
                index = self.start("index", self.films, "--data", self.data, "--quiet")
                wait_for("its first step", lambda: (self.data / "LOCK").exists())
                if i:
                    wait_for("a decoder host", self.processes.hosts)
                began = time.monotonic()
                index.send_signal(signal.SIGINT)
                result = self.finish(index)
                self.assertLess(time.monotonic() - began, LOADED_S)
                self.assertEqual(result.status, kit.STOPPED, str(result))
                self.has_no_work_dirs()

    def test_a_second_signal_changes_nothing(self):
        index = self.start("index", self.films, "--data", self.data, "--quiet")
        wait_for("something done", self.done_so_far)
        for _ in range(5):
            index.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(index).status, kit.STOPPED)
        self.verify()

    def test_a_query_stops_too(self):
        self.index(self.clips[0])
        query = self.start("similar", self.clips[-1], "--data", self.data)
        wait_for("a decoder", self.processes.decoders)
        query.send_signal(signal.SIGINT)
        result = self.finish(query)
        self.assertEqual(result.status, kit.STOPPED, str(result))
        self.has_no_work_dirs()


if __name__ == "__main__":
    unittest.main()
