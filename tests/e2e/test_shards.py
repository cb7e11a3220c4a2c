"""One catalogue over two shards and a broker: each video is on one of them, and together they say what one store says,
also when one was killed."""
import shutil
import threading
import unittest

import kit
from kit import catalogue, kill, samples, wait_for
from roles import Roles
from serving import quote, serving

NAMES = ("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi", "SOX5yA1l24A.mp4", "bikes.mp4", "WUzgd7C1pWA.mp4",
         "basketball.mp4")
NEW = "R6llTwEh07w.mp4"
COPIES = ("copy-a.mp4", "copy-b.mp4", "copy-c.mp4", "copy-d.mp4")  # of the last; not all hash to its shard


class Shards(Roles):
    def setUp(self):
        super().setUp()
        catalogue(self.films, samples(*NAMES))
        for name in COPIES:
            (self.films / name).symlink_to(kit.SAMPLES / NAMES[-1])
        self.folders = [self.dir / f"shard-{i}" for i in range(2)]
        self.endpoints = [f"ipc://{self.dir}/s{i}" for i in range(2)]

    def shard(self, i):
        return self.role("shard", "--shards", len(self.folders), "--shard", i, "--data", self.folders[i],
                         "--listen", self.endpoints[i])

    def asking(self):
        return serving(self, "--timeout", "20000", shards=",".join(self.endpoints))

    def everything(self, server):
        """What a server says of every video, by similarity and of itself."""
        said = {}
        for name in (*NAMES, *COPIES):
            answer = server.get(f"/v1/similar?id={quote(name)}&k=20&recall=1&moments=true").json()
            said[name] = [(hit["id"], round(hit["score"], 5), hit["moments"]) for hit in answer["hits"]]
            self.assertTrue(all(hit["moments"] for hit in answer["hits"]))
            self.assertFalse(answer["partial"])
            video = server.get(f"/v1/videos/{quote(name)}").json()
            said[name].append((video["id"], video["duration_s"]))
        return said

    def index_on_two(self):
        shards = [self.shard(i) for i in range(2)]
        worker = self.role("worker")
        result = self.finish(self.coordinator())
        self.assertEqual(result.status, kit.DONE, str(result) + "".join(role.log.read_text() for role in self.roles))
        report = result.json()
        self.assertEqual(report["done"] + report["copied"], len(NAMES) + len(COPIES))
        self.assertEqual(report["quarantined"], 0)
        self.ends_well(worker)
        return shards

    def test_two_shards_are_one_catalogue(self):
        whole = self.dir / "whole"
        self.index(self.films, data=whole)
        shards = self.index_on_two()
        self.assertEqual({row["state"] for row in self.inputs().values()}, {"done"})
        parts = [self.stored(folder) for folder in self.folders]
        self.assertTrue(all(parts))
        self.assertEqual(sorted([*parts[0], *parts[1]]), sorted((*NAMES, *COPIES)))  # each once
        with serving(self, data=whole) as one, self.asking() as many:
            wanted = self.everything(one)
            self.assertEqual(self.everything(many), wanted)
            shards[1] = self.kill_during_queries(many, shards[1], parts, wanted)
            self.assertEqual(self.everything(many), wanted)
        with serving(self, shards=f"{self.endpoints[0]},{self.endpoints[0]}") as twice:
            status = twice.get("/v1/status").json()
            self.assertEqual((status["partial"], status["videos"]), (True, len(parts[0])))
            again, gap = status["shards"]["failed"]
            self.assertIn("part 0 of 2, as", again["reason"])
            self.assertEqual(gap["shard"], "part 1 of 2")
        self.care_for(self.folders[0])
        self.ends_well(*shards)
        for folder, part in zip(self.folders, parts):
            self.assertEqual(self.ask("shard verify", data=folder).json()["videos"], len(part))
        self.keep_their_parts()

    def test_two_become_three(self):
        """Nothing is decoded again, three answer as the two did, and go on with what comes next."""
        shards = self.index_on_two()
        with self.asking() as two:
            wanted = self.everything(two)
        self.ends_well(*shards)
        out = self.dir / "out"
        made = self.run_kinodex("shard spread", out, *self.folders, "--shards", 3, "--json").json()
        self.assertEqual((made["videos"], made["pending"]), (len(NAMES) + len(COPIES), 0))
        self.assertGreater(made["offsets"], 0)
        self.folders = [out / f"part-{i}-of-3" for i in range(3)]
        self.endpoints = [f"ipc://{self.dir}/t{i}" for i in range(3)]
        shards = [self.shard(i) for i in range(3)]
        with self.asking() as three:
            self.assertEqual(self.everything(three), wanted)
            (self.films / NAMES[0]).unlink()
            (self.films / NEW).symlink_to(kit.SAMPLES / NEW)
            worker = self.role("worker")
            report = self.finish(self.coordinator()).json()
            self.assertEqual((report["done"], report["deleted"], report["unchanged"]), (1, 1, len(NAMES) + len(COPIES) - 1))
            self.assertEqual(three.get(f"/v1/videos/{quote(NEW)}").json()["id"], NEW)
            self.assertEqual(three.get(f"/v1/videos/{quote(NAMES[0])}").status, 404)
            self.ends_well(worker)
        self.ends_well(*shards)
        held = [self.stored(folder) for folder in self.folders]
        self.assertEqual(sorted(name for part in held for name in part), sorted((*NAMES[1:], *COPIES, NEW)))

    def kill_during_queries(self, server, shard, parts, wanted):
        """Answers are whole, or say that they are not and hold what the other has. Returns the shard that came back."""
        name = sorted(parts[0])[0]
        path = f"/v1/similar?id={quote(name)}&k=20&recall=1"
        answers, done = [], threading.Event()

        def keep_asking():
            connection = server.connect()
            while not done.is_set():
                answers.append(server.get(path, connection=connection))
            connection.close()

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            wait_for("whole answers", lambda: len(answers) > 3)
            kill(shard.pid)
            shard.wait()
            wait_for("a partial answer", lambda: answers[-1].status == 200 and answers[-1].json()["partial"])
            shard = self.shard(1)
            wait_for("a whole answer", lambda: answers[-1].status == 200 and not answers[-1].json()["partial"])
        finally:
            done.set()
            asking.join()
        for reply in answers:
            self.assertEqual(reply.status, 200, reply.body)
            hits = [(hit["id"], round(hit["score"], 5)) for hit in reply.json()["hits"]]
            expected = [hit[:2] for hit in wanted[name][:-1]]
            if reply.json()["partial"]:
                expected = [hit for hit in expected if hit[0] in parts[0]]
            self.assertEqual(hits, expected)
        return shard

    def care_for(self, folder):
        """Beside the shard that runs there."""
        copy = self.dir / "copy"
        done = self.ask("shard compact", data=folder).json()
        self.assertGreater(done["bytes_before"], 0)
        made = self.ask("shard checkpoint", copy, data=folder).json()
        self.assertFalse(made["ledger"])
        self.assertEqual(self.ask("shard verify", data=copy).json(), self.ask("shard verify", data=folder).json())
        shutil.rmtree(copy)

    def keep_their_parts(self):
        for args, words in ((("--shards", 2, "--shard", 0), ["part 1 of 2", "part 0 of 2"]), ((), ["part 0 of 1"]),
                            (("--shards", 5, "--shard", 1), ["partitions", "4"])):
            result = self.run_kinodex("shard", *self.bus, "--data", self.folders[1], *args, status=kit.FAILED)
            self.says_one_line(result, *words)
        result = self.run_kinodex("shard", *self.bus, "--data", self.folders[1], "--shard", 1, status=kit.USAGE)
        self.says_one_line(result, "--shards 1")


if __name__ == "__main__":
    unittest.main()
