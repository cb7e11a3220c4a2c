"""Every command on a small store: what it prints for people, and that its JSON is JSON with what it should say."""
import array
import ast
import fcntl
import json
import math
import signal
import struct
import unittest
import zlib

import kit
from kit import H264, Case, catalogue, ffmpeg, picture, samples, sound, wait_for

NAMES = ("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi", "R6llTwEh07w.mp4", "SOX5yA1l24A.mp4", "bikes.mp4")
MATHS = {"abs_tol": 1e-4}


def read_npy(path):
    """Rows of a little-endian float32 array, its header read by hand."""
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    length, = struct.unpack_from("<H", data, 8)
    assert (10 + length) % 64 == 0 and data[9 + length:10 + length] == b"\n"
    header = ast.literal_eval(data[10:10 + length].decode())
    assert (header["descr"], header["fortran_order"]) == ("<f4", False), header
    rows, columns = header["shape"]
    values = array.array("f", data[10 + length:])
    assert len(values) == rows * columns
    return [values[i * columns:(i + 1) * columns].tolist() for i in range(rows)]


class Commands(Case):
    def setUp(self):
        super().setUp()
        self.films = catalogue(self.dir / "films", samples(*NAMES))
        (self.films / "notes.txt").write_text("no film\n" * 40)
        self.report = self.index(self.films, status=kit.QUARANTINED)

    def say(self, verb, *args, **how):
        return self.run_kinodex(verb, *args, "--data", self.data, **how).out

    def test_similar(self):
        reply = self.ask("similar", NAMES[0], "-k", "3", "--moments").json()
        self.assertEqual(reply["query"], NAMES[0])
        hits = reply["hits"]
        self.assertEqual(len(hits), 3)
        self.assertEqual(hits[0]["id"], NAMES[1])  # the same kind of scene
        self.assertEqual([hit["score"] for hit in hits], sorted((hit["score"] for hit in hits), reverse=True))
        self.assertNotIn(NAMES[0], [hit["id"] for hit in hits])
        for hit in hits:
            self.assertTrue(hit["moments"])
            for moment in hit["moments"]:
                self.assertLess(moment["theirs_s"], hit["duration_s"])
        self.assertIn(NAMES[1], self.say("similar", NAMES[0]))

    def hold(self):
        """As a process that writes and answers nothing. Closing the file lets go."""
        held = (self.data / "LOCK").open("r+")
        fcntl.lockf(held, fcntl.LOCK_EX)
        self.addCleanup(held.close)
        return held

    def asks(self, verb, *args):
        """A command that waits for an answer: it has looked who holds the store."""
        known = set((self.data / "run").iterdir())
        process = self.start(verb, *self.with_data(args, None))
        wait_for("it to open the data", lambda: set((self.data / "run").iterdir()) - known)
        return process

    def test_a_writer_that_does_not_answer(self):
        held = self.hold()
        for verb, *args in (("similar", NAMES[0]), ("classify", NAMES[0]), ("status",)):
            result = self.run_kinodex(verb, *self.with_data((*args, "--timeout", "200"), None), status=kit.FAILED)
            self.says_one_line(result, str(self.data), "0.2 s", "ipc://", "--timeout")
        process = self.asks("similar", NAMES[0])
        process.send_signal(signal.SIGINT)
        stopped = self.finish(process)
        self.assertEqual(stopped.status, kit.STOPPED)
        self.says_one_line(stopped, "stopped")
        process = self.asks("similar", NAMES[0])
        held.close()  # it ended: the store as it stands answers
        self.assertIn(NAMES[1], self.finish(process).out)

    def test_similar_by_weights(self):
        sound_only = self.ask("similar", NAMES[2], "--weights", "audio=1").json()["hits"]
        self.assertEqual([hit["id"] for hit in sound_only], [NAMES[3]])  # the only other one that sounds
        both = {hit["id"]: hit for hit in self.ask("similar", NAMES[2], "--weights", "visual=3,audio=1").json()["hits"]}
        hit = both[NAMES[3]]
        seen = {h["id"]: h for h in self.ask("similar", NAMES[2], "--weights", "visual=1").json()["hits"]}
        self.assertTrue(math.isclose(hit["visual"], 0.75 * seen[NAMES[3]]["score"], **MATHS))
        self.assertTrue(math.isclose(hit["audio"], 0.25 * sound_only[0]["score"], **MATHS))
        self.assertTrue(math.isclose(hit["score"], hit["visual"] + hit["audio"], **MATHS))
        self.assertEqual(both["bikes.mp4"]["has_audio"], False)  # what it has not does not count against it
        self.assertTrue(math.isclose(both["bikes.mp4"]["score"], seen["bikes.mp4"]["score"], **MATHS))

    def test_similar_to_a_file(self):
        """One that is indexed goes by its content; one that is not is embedded, and nothing is stored of it."""
        by_id = self.ask("similar", NAMES[0]).json()["hits"]
        by_path = self.ask("similar", kit.SAMPLES / NAMES[0]).json()["hits"]
        self.assertEqual(by_path, by_id)
        before = self.verify()
        again = ffmpeg("again.mp4", "-i", kit.SAMPLES / NAMES[2], *H264, "-crf", "30", "-vf", "scale=220:-2", "-c:a", "aac",
                       "-b:a", "48k")
        hits = self.ask("similar", again, "--moments").json()["hits"]
        self.assertEqual(hits[0]["id"], NAMES[2])
        self.assertGreater(hits[0]["score"], 0.9)
        self.assertEqual(hits[0]["moments"][0]["ours_s"], hits[0]["moments"][0]["theirs_s"])
        self.assertEqual(self.verify(), before)
        self.has_no_work_dirs()

    def test_an_embedded_file_scores_as_if_it_were_indexed(self):
        as_file = self.ask("similar", kit.SAMPLES / "basketball.mp4").json()["hits"]
        catalogue(self.films, samples("basketball.mp4"))
        self.index(self.films, status=kit.QUARANTINED)
        as_id = self.ask("similar", "basketball.mp4").json()["hits"]
        self.assertEqual([hit["id"] for hit in as_file], [hit["id"] for hit in as_id])
        for a, b in zip(as_file, as_id):
            self.assertTrue(math.isclose(a["score"], b["score"], **MATHS), (a, b))

    def test_what_is_not_there(self):
        for verb in ("similar", "classify"):
            self.says_one_line(self.ask(verb, "no-such-film", status=kit.FAILED), "no-such-film", "status --state all")
            self.says_one_line(self.ask(verb, "notes.txt", status=kit.FAILED), "notes.txt", "quarantined")
        self.says_one_line(self.ask("dead show", "no-such-film", status=kit.FAILED), "no-such-film", "dead list")
        self.says_one_line(self.ask("dead replay", "no-such-film", status=kit.FAILED), "no-such-film", "dead list")
        self.says_one_line(self.ask("similar", self.films / "notes.txt", status=kit.FAILED), "notes.txt", "not-media")

    def test_classify(self):
        answer = self.ask("classify", NAMES[0], "--top", "3").json()
        visual = next(row for row in answer["video"] if row["bundle"] == "lite0")
        self.assertEqual(len(visual["classes"]), 3)
        self.assertIn("soccer ball", [entry["label"] for entry in visual["classes"]])
        for row in answer["moments"]:
            scores = [entry["score"] for entry in row["classes"]]
            self.assertEqual(scores, sorted(scores, reverse=True))
            self.assertTrue(all(0 <= score <= 1.0001 for score in scores))
        self.assertIn("soccer ball", self.say("classify", NAMES[0]))
        speech = self.ask("classify", NAMES[2]).json()
        self.assertEqual({row["bundle"] for row in speech["video"]}, {"lite0", "yamnet"})
        as_file = self.ask("classify", kit.SAMPLES / "basketball.mp4").json()
        self.assertEqual({row["bundle"] for row in as_file["video"]}, {"lite0"})

    def test_status(self):
        summary = self.ask("status").json()
        self.assertEqual((summary["videos"], summary["done"], summary["quarantined"]), (5, 5, 1))
        self.assertTrue(math.isclose(summary["media_s"], self.report["hours"] * 3600, rel_tol=0.02))
        self.assertIn("5 videos", self.say("status"))
        self.assertIn("notes.txt", self.say("status", "--state", "quarantined"))
        self.assertNotIn("bikes.mp4", self.say("status", "--state", "quarantined"))
        self.assertEqual(set(self.inputs()), {*NAMES, "notes.txt"})

    def test_verify(self):
        proof = self.verify()
        self.assertEqual((proof["good"], proof["videos"], proof["pending"], len(proof["digest"])), (True, 5, 0, 64))
        self.assertIn(proof["digest"], self.say("verify"))

    def test_dead(self):
        letter = self.ask("dead show", "notes.txt").json()
        self.assertEqual((letter["id"], letter["reason"], letter["attempts"]), ("notes.txt", "not-media", 1))
        self.assertIn(letter["message"], self.say("dead show", "notes.txt"))
        self.assertIn("not-media", self.say("dead list"))
        self.ask("dead replay", "--all", status=kit.QUARANTINED)
        self.assertEqual(list(self.dead()), ["notes.txt"])
        self.assertEqual(self.run_kinodex("dead", "--data", self.data, status=kit.USAGE).out, "")

    def test_export_jsonl(self):
        rows = {row["id"]: row for row in map(json.loads, self.say("export").splitlines())}
        self.assertEqual(set(rows), set(NAMES))
        row = rows["R6llTwEh07w.mp4"]
        self.assertEqual(row["source"], str(self.films.resolve() / "R6llTwEh07w.mp4"))
        for modality in ("visual", "audio"):
            vector = row[modality]["embedding"]
            self.assertTrue(math.isclose(math.hypot(*vector), 1, rel_tol=1e-3), modality)
        self.assertNotIn("audio", rows["bikes.mp4"])

    def test_decode_modes(self):
        """Each is another recipe; rows say when they are presented and how far that is from the grid."""
        exact = {row["id"]: row for row in map(json.loads, self.say("export").splitlines())}
        self.assertEqual({row["decode"] for row in exact.values()}, {"exact"})
        for mode, name in (("tol=0.5", "tol"), ("keyframe", "keyframe")):
            data = self.dir / name
            self.index(self.films / "bikes.mp4", "--decode", mode, data=data)
            self.run_kinodex("verify", "--data", data)
            lines = [json.loads(line) for line in self.run_kinodex("export", "--moments", "--data", data).out.splitlines()]
            video, moment = lines
            self.assertEqual(video["decode"], name)
            self.assertEqual(video.get("tolerance_s"), 0.5 if name == "tol" else None)
            self.assertEqual(len(moment["pts_s"]), 10)
            for k, (at, off) in enumerate(zip(moment["pts_s"], moment["time_error_s"], strict=True)):
                self.assertAlmostEqual(abs(at - k), off, places=6)
            self.assertEqual(max(moment["time_error_s"]), video["max_time_error_s"])
            if name == "tol":
                self.assertLessEqual(video["max_time_error_s"], 0.5)
            self.assertGreater(video["max_time_error_s"], exact["bikes.mp4"]["max_time_error_s"])
            answer = self.run_kinodex("classify", "bikes.mp4", "--json", "--data", data).json()
            self.assertEqual(answer["decode"]["mode"], name)
        fresh = samples("bikes.mp4")[0]
        spot = self.run_kinodex("classify", fresh, "--decode", "keyframe", "--json", "--data", self.dir / "tol").json()
        self.assertEqual(spot["decode"]["mode"], "tol")  # the same content is stored: that is what is answered

    def test_export_npy(self):
        out = self.dir / "npy"
        self.say("export", "--format", "npy", "--out", out)
        arrays = {name: read_npy(out / f"{name}.npy") for name in ("visual", "audio")}
        rows = {row["id"]: row for row in map(json.loads, self.say("export").splitlines())}
        index = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
        self.assertEqual({row["id"] for row in index}, set(NAMES))
        self.assertEqual([len(arrays["visual"]), len(arrays["audio"])], [5, 2])
        for row in index:
            for name in ("visual", "audio"):
                if row[name] is None:
                    self.assertNotIn(name, rows[row["id"]])
                    continue
                for a, b in zip(arrays[name][row[name]], rows[row["id"]][name]["embedding"], strict=True):
                    self.assertTrue(math.isclose(a, b, abs_tol=1e-6))
        self.run_kinodex("export", "--format", "npy", "--data", self.data, status=kit.USAGE)

    def test_export_npy_without_sound(self):
        self.index(catalogue(self.dir / "silent", samples("bikes.mp4")), data=self.dir / "one")
        self.run_kinodex("export", "--format", "npy", "--out", self.dir / "npy", "--data", self.dir / "one")
        self.assertEqual(read_npy(self.dir / "npy/audio.npy"), [])

    def test_questions_while_an_index_is_running(self):
        """They are answered by the process that has the store open."""
        more = catalogue(self.dir / "more", [ffmpeg("long-for-two.mp4", *picture(600, "320x240"), *H264, "-g", "25")])
        quiet = self.ask("similar", NAMES[0]).json()
        index = self.start("index", more, "--data", self.data, "--quiet", "--fps", "10")
        wait_for("a decoder", self.processes.decoders)
        self.assertEqual(self.ask("similar", NAMES[0]).json(), quiet)
        self.assertEqual(self.similar(kit.SAMPLES / "carphone_pristine.mp4", "-k", "1")[0] in NAMES, True)
        self.assertEqual(self.ask("status").json()["videos"], 5)
        self.assertTrue(self.ask("classify", NAMES[0]).json()["video"])
        self.assertEqual(list(self.dead()), ["notes.txt"])
        self.assertEqual(self.verify()["videos"], 5)
        self.assertEqual(len(self.stored()), 5)
        self.assertIsNone(index.poll(), "the index ended before all questions were asked")
        index.terminate()
        self.assertEqual(self.finish(index).status, kit.STOPPED)

    def test_questions_while_the_first_index_begins(self):
        data = self.dir / "new"
        index = self.start("index", self.films, "--data", data, "--quiet")
        while index.poll() is None:
            for verb in ("status", "dead list", "verify"):
                result = self.run_kinodex(verb, "--data", data, status=None)
                self.assertIn(result.status, (kit.DONE, kit.FAILED), str(result))
                if result.status == kit.FAILED:
                    self.says_one_line(result, str(data))
        self.assertEqual(self.finish(index).status, kit.QUARANTINED)
        self.verify(data)

    def test_a_path_too_long_for_a_socket(self):
        data = self.dir / ("x" * 60) / ("y" * 60)
        index = self.start("index", self.films, "--data", data, "--quiet", "--fps", "10")
        wait_for("a decoder", lambda: self.processes.decoders() or index.poll() is not None)
        self.ask("status", data=data)
        self.assertEqual(self.finish(index).status, kit.QUARANTINED)
        self.verify(data)

    def test_strange_names(self):
        films = self.dir / "strange"
        for name in (b"line\nbreak.avi", "Straße & größe.avi".encode(), b"latin-\xe4.avi", b"100%.avi", b"-k.avi", b" .avi"):
            path = films.joinpath(name.decode(errors="surrogateescape"))
            catalogue(films, [])
            path.symlink_to(kit.SAMPLES / NAMES[0])
        data = self.dir / "strange-data"
        report = self.index(films, data=data)
        self.is_accounted(report, data)
        ids = {"line%0Abreak.avi", "Straße & größe.avi", "latin-%E4.avi", "100%25.avi", "-k.avi", " .avi"}
        self.assertEqual(set(self.inputs(data=data)), ids)
        hits = self.run_kinodex("similar", "--data", data, "--json", "--", "-k.avi").json()["hits"]
        self.assertEqual({hit["id"] for hit in hits}, ids - {"-k.avi"})


class WithoutData(Case):
    def test_help(self):
        overview = self.run_kinodex("--help").out
        for verb in ("index", "similar", "classify", "status", "dead", "verify", "export", "probe", "frames", "bundle", "coordinator",
                     "worker", "shard"):
            self.assertIn(f"\n  {verb} ", overview)
            text = self.run_kinodex(verb, "--help").out
            self.assertTrue(text.startswith(f"Usage: kinodex {verb} "), text[:80])
            self.assertIn("--config", text)
            self.assertEqual(self.run_kinodex("help", verb).out, text)
            self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertRegex(self.run_kinodex("--version").out, r"^kinodex \d+\.\d+\.\d+\n$")
        self.assertIn("Usage", self.run_kinodex("", status=kit.USAGE).err)

    def test_decode_option_says_the_cure(self):
        for value, cure in (("fast", "exact, tol=SECONDS or keyframe"), ("tol", "tol=0.5"), ("tol=0", "--decode exact"),
                            ("tol=1s", "number of seconds"), ("tol=5000", "--decode keyframe")):
            for verb in ("index", "classify", "similar", "frames"):
                extra = ["--out", self.dir / "out"] if verb == "frames" else ["--data", self.dir / "none"]
                said = self.run_kinodex(verb, "a.mp4", "--decode", value, *extra, status=kit.USAGE).err
                self.assertIn("--decode", said)
                self.assertIn(cure, said)

    def test_probe(self):
        answer = self.run_kinodex("probe", samples("R6llTwEh07w.mp4")[0], "--json").json()
        self.assertEqual((answer["container"], answer["width"], answer["height"]), ("mp4", 340, 256))
        self.assertAlmostEqual(answer["packets_s"], answer["duration_s"], delta=0.1)
        self.assertIn("selective", answer["plan"])
        video, audio = answer["streams"]
        self.assertEqual((video["kind"], video["codec"], video["chosen"], video["pixel_format"]), ("video", "h264", True, "yuv420p"))
        self.assertEqual(video["packets"], 303)
        self.assertEqual((audio["kind"], audio["codec"], audio["channels"], audio["sample_rate"]), ("audio", "aac", 1, 44100))
        text = self.run_kinodex("probe", samples("R6llTwEh07w.mp4")[0]).out
        self.assertIn("340x256", text)
        turned = ffmpeg("turned.mp4", *picture(2), *H264, "-vf", "setsar=2/1", "-metadata:s:v:0", "rotate=90")
        answer = self.run_kinodex("probe", turned, "--json").json()
        self.assertEqual(answer["streams"][0]["sample_aspect"], "2:1")
        words = self.dir / "words.txt"
        words.write_text("no film\n" * 40)
        self.assertIn("words.txt", self.run_kinodex("probe", words, status=kit.FAILED).err)

    def test_frames(self):
        clip = samples("bikes.mp4")[0]
        for mode, most in (("exact", 0.04), ("tol=0.3", 0.3), ("keyframe", 10)):
            out = self.dir / mode
            self.run_kinodex("frames", clip, "--fps", "2", "--decode", mode, "--size", "160x160", "--out", out)
            rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
            self.assertEqual(len(rows), 20)
            self.assertEqual(sorted(path.name for path in out.glob("*.png")), [row["file"] for row in rows])
            for row in rows:
                self.assertLessEqual(row["time_error_s"], most)
                self.assertAlmostEqual(abs(row["pts_s"] - row["index"] / 2), row["time_error_s"], places=5)
                self.assertIn(f"{row['pts_s']:.6f}s", row["file"])
        png = (out / rows[0]["file"]).read_bytes()
        self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", png[16:24]), (160, 68))  # 640x272, its aspect kept
        width, height, rows = 160, 68, zlib.decompress(png[41:41 + struct.unpack(">I", png[33:37])[0]])
        self.assertEqual(len(rows), height * (3 * width + 1))
        self.run_kinodex("frames", clip, status=kit.USAGE)
        self.run_kinodex("frames", clip, "--out", self.dir / "x", "--size", "0x3", status=kit.USAGE)

    def test_bundle_check(self):
        for name in ("lite0", "yamnet"):
            answer = self.run_kinodex("bundle check", kit.BUNDLES / name, "--json").json()
            self.assertEqual(answer["name"], name)
            self.assertGreater(answer["golden_cosine"], 0.99)
            self.assertIn("good", self.run_kinodex("bundle check", kit.BUNDLES / name).out)
        result = self.run_kinodex("bundle check", self.dir, status=kit.FAILED)
        self.says_one_line(result, str(self.dir))

    def test_output_that_can_not_be_written(self):
        for how in ([], ["--json"]):
            with open("/dev/full", "w") as full:
                result = self.run_kinodex("bundle check", kit.BUNDLES / "lite0", *how, status=kit.FAILED, stdout=full)
            self.says_one_line(result, "standard output")

    def test_options_from_file_and_environment(self):
        """The command line comes before the environment, and that before the file."""
        clip = ffmpeg("ten.mp4", *picture(10), *sound(10), *H264)
        (self.dir / "kinodex.conf").write_text("# how we index\nfps = 3\n")
        rows = {}
        for name, args, env in (("default", [], {}), ("file", ["--config", "kinodex.conf"], {}),
                                ("environment", ["--config", "kinodex.conf"], {"KINODEX_FPS": "4"}),
                                ("line", ["--config", "kinodex.conf", "--fps", "5"], {"KINODEX_FPS": "4"})):
            self.index(clip, *args, data=self.dir / name, env=env)
            text = self.run_kinodex("export", "--data", self.dir / name).out
            rows[name] = json.loads(text)["visual"]["rows"]
        self.assertEqual(rows, {"default": 10, "file": 30, "environment": 40, "line": 50})

    def test_roles_need_a_bus(self):
        for verb in ("worker", "shard", "coordinator x"):
            self.says_one_line(self.run_kinodex(verb, status=kit.USAGE), "--brokers")

    def test_decoder_host_is_not_for_people(self):
        self.assertIn("not by hand", self.run_kinodex("decoder-host", status=kit.USAGE).err)


if __name__ == "__main__":
    unittest.main()
