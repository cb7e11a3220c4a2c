"""`kinodex serve` as programs meet it: what it answers, and what it refuses, over real connections."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest
import zlib

import kit
from kit import Kept, catalogue, samples, short_clips, soonest, wait_for
from serving import Server, quote, serving

NAMES = ("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi", "SOX5yA1l24A.mp4", "bikes.mp4")
ODD_FILE = "sub folder/ünï + 100%.mp4"
ODD = "sub folder/ünï + 100%25.mp4"  # its id: a percent sign is itself escaped there


def png_size(body):
    """Width and height, after its parts were checked."""
    assert body[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, size = 8, b"", None
    while at < len(body):
        length, name = struct.unpack_from(">I4s", body, at)
        chunk = body[at + 8:at + 8 + length]
        assert zlib.crc32(name + chunk) == struct.unpack_from(">I", body, at + 8 + length)[0]
        size = struct.unpack_from(">II", chunk) if name == b"IHDR" else size
        pixels += chunk if name == b"IDAT" else b""
        at += 12 + length
    assert len(zlib.decompress(pixels)) == (3 * size[0] + 1) * size[1]
    return size


class Serve(Kept):
    @classmethod
    def setUpClass(cls):
        """One store for all: they only read."""
        super().setUpClass()
        films = catalogue(cls.keeper.dir / "films", samples(*NAMES))
        odd = films / ODD_FILE
        odd.parent.mkdir()
        odd.symlink_to(short_clips(1)[0])
        cls.keeper.index(films)
        cls.films, cls.store = films, cls.keeper.data

    def serving(self, *args, **how):
        return serving(self, *args, data=self.store, **how)

    def is_problem(self, reply, status, *words):
        self.assertEqual(reply.status, status, reply.body)
        self.assertEqual(reply.headers["Content-Type"], "application/problem+json")
        problem = reply.json()
        self.assertEqual(problem["status"], status)
        self.assertTrue(problem["type"].startswith("urn:kinodex:problem:"))
        for word in words:
            self.assertIn(word, problem["detail"])

    # --- Answers ---

    def test_similar_as_the_command_says(self):
        said = self.run_kinodex("similar", NAMES[0], "--data", self.store, "-k", "3", "--moments", "--json").json()["hits"]
        with self.serving() as server:
            reply = server.get(f"/v1/similar?id={quote(NAMES[0])}&k=3&moments=true")
            self.assertEqual(reply.status, 200, reply.body)
            self.assertEqual(reply.headers["Content-Type"], "application/json")
            answer = reply.json()
            posted = server.post("/v1/similar", {"id": NAMES[0], "k": 3, "moments": True}).json()
        self.assertEqual(posted, answer)
        self.assertEqual([hit["id"] for hit in answer["hits"]], [hit["id"] for hit in said])
        for ours, theirs in zip(answer["hits"], said):
            self.assertAlmostEqual(ours["score"], theirs["score"], 6)
            self.assertEqual(len(ours["moments"]), len(theirs["moments"]))
        self.assertEqual((answer["partial"], answer["shards"]), (False, {"asked": 1, "answered": 1}))

    def test_ids_with_anything_in_them(self):
        with self.serving() as server:
            video = server.get(f"/v1/videos/{quote(ODD)}")
            self.assertEqual(video.status, 200, video.body)
            self.assertEqual(video.json()["id"], ODD)
            self.assertEqual(server.get(f"/v1/similar?id={quote(ODD)}&k=1").status, 200)
            self.assertEqual(server.get(f"/v1/classify?id={quote(ODD)}").json()["id"], ODD)
            self.is_problem(server.get(f"/v1/videos/{ODD.split()[0]}/x.mp4"), 404, "%2F")

    def test_search_by_a_videos_own_vector_finds_it(self):
        with self.serving() as server:
            part, = [p for p in server.get(f"/v1/videos/{NAMES[3]}?embeddings=true").json()["modalities"]
                     if p["modality"] == "visual"]
            vector = {"modality": "visual", "space": part["space"], "values": part["embedding"]}
            found = server.post("/v1/search/vector", {"vectors": [vector], "k": 1}).json()["hits"]
            self.assertEqual(found[0]["id"], NAMES[3])
            self.assertAlmostEqual(found[0]["score"], 1, 4)
            other = server.post("/v1/search/vector", {"vectors": [{**vector, "space": "visual/other/9/00"}]})
            self.assertIn(other.status, (200, 400))
            if other.status == 200:  # nothing is of that space
                self.assertEqual(other.json()["hits"], [])

    def test_filters(self):
        with self.serving() as server:
            ask = lambda text: server.get(f"/v1/similar?id={NAMES[0]}&filter={quote(text)}&explain=true")
            hits = ask("duration<9 and not has:audio").json()["hits"]
            self.assertEqual([hit["id"] for hit in hits], [NAMES[1]])
            self.assertTrue(all(clause["clause"] for clause in hits[0]["filter"]))
            named = server.get(f"/v1/classify?id={NAMES[1]}&top=1").json()["video"][0]["classes"][0]["label"]
            self.assertIn(NAMES[1], [hit["id"] for hit in ask(f'class:"{named}"').json()["hits"]])
            reply = ask("duration<<5")
            self.is_problem(reply, 400, "filter")
            self.assertEqual(reply.json()["offset"], 9)
            names = {row["name"] for row in server.get("/v1/schema").json()["attributes"]}
            self.assertLessEqual({"duration", "title"}, names)

    def test_classes_as_the_command_says(self):
        said = self.run_kinodex("classify", NAMES[2], "--data", self.store, "--top", "3", "--json").json()
        with self.serving() as server:
            answer = server.get(f"/v1/classify?id={NAMES[2]}&top=3&moments=true").json()
            whole = server.get(f"/v1/classify?id={NAMES[2]}").json()
        self.assertNotIn("moments", whole)
        labels = [[row["label"] for row in part["classes"]] for part in answer["video"]]
        self.assertEqual(labels, [[row["label"] for row in part["classes"]] for part in said["video"]])
        self.assertEqual(len(answer["moments"]), len(said["moments"]))

    def test_status_and_health(self):
        with self.serving() as server:
            status = server.get("/v1/status").json()
            self.assertEqual(status["videos"], len(NAMES) + 1)
            self.assertGreater(status["disk_bytes"], 0)
            self.assertIn("vectors", status["index"])
            self.assertEqual(server.get("/healthz").body, b"ok\n")
            self.assertEqual(server.ask("HEAD", "/healthz").body, b"")
            self.assertEqual(server.get("/openapi.yaml").body, (kit.SOURCE / "gateway/openapi.yaml").read_bytes())

    def test_metrics(self):
        with self.serving() as server:
            for _ in range(3):
                server.get("/v1/status")
            server.get("/v1/videos/none")
            text = server.get("/metrics").body.decode()
            self.assertIn('kinodex_http_requests_total{route="/v1/status",code="200"} 3\n', text)
            self.assertIn('kinodex_http_requests_total{route="/v1/videos/{id}",code="404"} 1\n', text)
            self.assertIn('kinodex_http_request_seconds_count{route="/v1/status"} 3\n', text)
            for line in text.splitlines():
                self.assertRegex(line, r'^(# (HELP|TYPE) \w+ .+|\w+(\{[^{}]*(\{id\}[^{}]*)?\})? [-+0-9.eE]+)$')

    # --- Media ---

    def test_a_file_and_its_ranges(self):
        whole = (self.films / NAMES[3]).read_bytes()
        path = f"/v1/videos/{NAMES[3]}/media"
        with self.serving() as server:
            reply = server.get(path)
            self.assertEqual((reply.status, reply.body), (200, whole))
            self.assertEqual(reply.headers["Content-Type"], "video/mp4")
            self.assertEqual(reply.headers["Accept-Ranges"], "bytes")
            tag = reply.headers["ETag"]
            head = server.ask("HEAD", path)
            self.assertEqual((head.status, head.body, head.headers["Content-Length"]), (200, b"", str(len(whole))))
            for asked, part in (("0-9", whole[:10]), ("100-", whole[100:]), ("-7", whole[-7:]), ("5-5", whole[5:6])):
                reply = server.get(path, headers={"Range": f"bytes={asked}"})
                self.assertEqual((reply.status, reply.body), (206, part))
                self.assertRegex(reply.headers["Content-Range"], rf"^bytes \d+-\d+/{len(whole)}$")
            reply = server.get(path, headers={"Range": f"bytes={len(whole)}-"})
            self.is_problem(reply, 416)
            self.assertEqual(reply.headers["Content-Range"], f"bytes */{len(whole)}")
            same = server.get(path, headers={"Range": "bytes=0-9", "If-Range": tag})
            self.assertEqual((same.status, same.body), (206, whole[:10]))
            other = server.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
            self.assertEqual((other.status, other.body), (200, whole))
            self.assertEqual(server.get(path, headers={"Range": "bytes=0-1,4-5"}).status, 200)
            self.assertEqual(server.get(path, headers={"If-None-Match": f'"x", {tag}'}).status, 304)

    def test_only_what_the_store_names(self):
        with self.serving() as server:
            for name in ("/etc/passwd", "../../../etc/passwd", "films/../../etc/passwd"):
                self.is_problem(server.get(f"/v1/videos/{quote(name)}/media"), 404)
        with self.serving("--media", "off") as server:
            self.is_problem(server.get(f"/v1/videos/{NAMES[3]}/media"), 501)
        with self.serving("--media-root", self.keeper.dir) as server:  # the links lead out of it
            self.is_problem(server.get(f"/v1/videos/{NAMES[3]}/media"), 404, "media-root")
        with self.serving("--media-root", kit.SAMPLES.resolve()) as server:
            self.assertEqual(server.get(f"/v1/videos/{NAMES[3]}/media").status, 200)

    def test_a_file_that_changed_or_went(self):
        films = self.dir / "own"
        films.mkdir()
        film = films / "a.mp4"
        film.write_bytes(short_clips(1)[0].read_bytes())
        self.index(films)
        with serving(self) as server:
            self.assertEqual(server.get("/v1/videos/a.mp4/media").status, 200)
            with open(film, "ab") as more:
                more.write(b"x")
            self.is_problem(server.get("/v1/videos/a.mp4/media"), 409)
            film.unlink()
            self.is_problem(server.get("/v1/videos/a.mp4/media"), 404, "no longer")
            os.mkfifo(film)  # must not hang
            self.is_problem(server.get("/v1/videos/a.mp4/media"), 404, "regular")
            self.is_problem(server.get("/v1/videos/a.mp4/thumbnail"), 404, "regular")

    def test_thumbnails(self):
        with self.serving() as server:
            path = f"/v1/videos/{NAMES[3]}/thumbnail"
            reply = server.get(f"{path}?t=3.25&w=200")
            self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "image/png"))
            self.assertEqual(png_size(reply.body), (200, 85))
            self.assertEqual(server.get(f"{path}?t=3.25&w=200").body, reply.body)
            self.assertEqual((server.metric("kinodex_thumbnails_made_total"), server.metric("kinodex_thumbnails_kept_total")),
                             (1, 1))
            self.assertNotEqual(server.get(f"{path}?t=7&w=200").body, reply.body)
            self.assertEqual(png_size(server.get(path).body)[0], 320)
            self.assertEqual(png_size(server.get(f"{path}?w=1920").body), (640, 272))  # no larger than it is
            self.is_problem(server.get(f"{path}?t=1000"), 400, "long")
            self.is_problem(server.get(f"{path}?t=-1"), 400)
            self.is_problem(server.get(f"{path}?w=0"), 400)

    def test_a_thumbnail_is_the_frame_of_that_time(self):
        """The same pixels as `kinodex frames` writes for that instant."""
        out = self.dir / "frames"
        self.run_kinodex("frames", self.films / NAMES[3], "--out", out, "--fps", "0.5", "--size", "320x136")
        rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
        row, = [row for row in rows if row["grid_s"] == 4]
        with self.serving() as server:
            self.assertEqual(server.get(f"/v1/videos/{NAMES[3]}/thumbnail?t=4").body, (out / row["file"]).read_bytes())

    # --- Refusals ---

    def test_what_is_no_request(self):
        with self.serving() as server:
            self.is_problem(server.get("/v1/videos/none"), 404, "none")
            self.is_problem(server.get("/nothing"), 404)
            self.is_problem(server.get("/v1/similar"), 400, "id")
            self.is_problem(server.get("/v1/similar?id=x&K=1"), 400, "K")
            self.is_problem(server.get("/v1/similar?id=x&id=y"), 400, "twice")
            self.is_problem(server.get("/v1/similar?id=%00"), 400)
            self.is_problem(server.get("/v1/similar?id=%ff"), 400)
            self.is_problem(server.get("/v1/similar?id=bikes.mp4&k=1001"), 400, "k")
            self.is_problem(server.ask("DELETE", "/v1/videos/x"), 405)
            reply = server.post("/v1/status", {})
            self.is_problem(reply, 405)
            self.assertEqual(reply.headers["Allow"], "GET, HEAD, OPTIONS")
            self.assertEqual(server.ask("OPTIONS", "/v1/status").status, 204)
            self.is_problem(server.get("/v1/status", headers={"Host": "evil.example"}), 421)

    def test_bodies_that_are_refused(self):
        with self.serving() as server:
            post = lambda body, **headers: server.ask("POST", "/v1/search/vector", body,
                                                      {"Content-Type": "application/json", **headers})
            self.is_problem(post(b""), 400, "JSON")
            self.is_problem(post(b"{"), 400, "line 1")
            self.is_problem(post(b'{"a": "\xff"}'), 400)
            self.is_problem(post(b"[" * 100000), 400, "deeper")
            self.is_problem(post(b'{"vectors":' + b'{"a":' * 1000), 400, "deeper")
            self.is_problem(post(b'{"vectors": 3}'), 400, "vectors")
            self.is_problem(post(b"{}", **{"Content-Type": "text/plain"}), 415)
            self.is_problem(server.ask("POST", "/v1/similar", b"{}", {}), 415)
            too_many = {"queries": [{"id": "x"}] * 1001}
            self.is_problem(server.post("/v1/search/vector", too_many), 413, "queries")
            self.assertEqual(server.get("/healthz").status, 200)  # over the same connection

    def test_bodies_that_are_too_long(self):
        with self.serving("--body-limit", "1") as server:
            body = b"[" + b"0," * (1 << 20) + b"0]"
            headers = {"Content-Type": "application/json"}
            self.is_problem(server.ask("POST", "/v1/similar", body, headers), 413)
            self.is_problem(server.ask("POST", "/v1/similar", iter([body]), headers), 413)  # chunked
            self.assertEqual(server.get("/healthz").status, 200)

    def test_pages_of_other_origins(self):
        origin = {"Origin": "https://example.org"}
        with self.serving() as server:
            self.assertNotIn("Access-Control-Allow-Origin", server.get("/v1/status", headers=origin).headers)
        with self.serving("--allow-origin", "https://example.org") as server:
            reply = server.get("/v1/status", headers=origin)
            self.assertEqual(reply.headers["Access-Control-Allow-Origin"], "https://example.org")
            self.assertEqual(reply.headers["Vary"], "Origin")
            other = server.get("/v1/status", headers={"Origin": "https://example.com"})
            self.assertNotIn("Access-Control-Allow-Origin", other.headers)
            ask = server.ask("OPTIONS", "/v1/similar", headers={**origin, "Access-Control-Request-Method": "POST"})
            self.assertIn("POST", ask.headers["Access-Control-Allow-Methods"])

    # --- Many at a time ---

    def test_one_connection_takes_many_requests(self):
        with self.serving() as server:
            for _ in range(300):
                self.assertEqual(server.get(f"/v1/similar?id={NAMES[0]}&k=1").status, 200)
            self.assertEqual(server.metric("kinodex_http_connections"), 1)

    def test_many_connections(self):
        with self.serving("--queue", "64") as server:
            wanted = server.get(f"/v1/similar?id={NAMES[0]}").body

            def ask_often(_):
                connection = server.connect()
                bodies = {server.get(f"/v1/similar?id={NAMES[0]}", connection=connection).body for _ in range(50)}
                connection.close()
                return bodies

            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                self.assertEqual(set().union(*pool.map(ask_often, range(16))), {wanted})

    def test_a_slow_client_holds_up_nobody(self):
        with self.serving("--threads", "1") as server:
            slow = [socket.create_connection((server.host, server.port)) for _ in range(50)]
            for one in slow:
                one.sendall(b"POST /v1/similar HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
            begun = time.monotonic()
            self.assertEqual(server.get("/v1/status").status, 200)
            self.assertLess(time.monotonic() - begun, 20)  # half a minute is what the slow ones have
            for one in slow:
                one.close()

    def test_no_more_connections_than_allowed(self):
        with self.serving("--connections", "3") as server:
            self.assertEqual(server.get("/healthz").status, 200)
            others = [socket.create_connection((server.host, server.port)) for _ in range(8)]
            self.assertEqual(server.get("/healthz").status, 200)
            self.assertLessEqual(server.metric("kinodex_http_connections"), 3)
            for one in others:
                one.close()

    # --- Beginning and ending ---

    def test_stops_in_time(self):
        def stop():
            server = Server(self, data=self.store)
            self.assertEqual(server.get("/healthz").status, 200)
            with socket.create_connection((server.host, server.port)):  # that says nothing
                begun = time.monotonic()
                result = server.stop(number)
                took = time.monotonic() - begun
            self.assertEqual((result.status, result.err), (kit.DONE, ""), str(result))
            return took

        for number in (signal.SIGTERM, signal.SIGINT):
            soonest(2, stop)

    def test_where_it_can_not_listen(self):
        self.says_one_line(self.run_kinodex("serve", "--data", self.store, "--listen", "0.0.0.0:0", status=kit.FAILED),
                           "--listen-anywhere")
        self.says_one_line(self.run_kinodex("serve", "--data", self.store, "--listen", "nowhere", status=kit.FAILED),
                           "nowhere", "127.0.0.1:8080")
        self.says_one_line(self.run_kinodex("serve", "--data", self.dir / "none", status=kit.FAILED), "no data directory")
        self.says_one_line(self.run_kinodex("serve", "--shards", ",", status=kit.FAILED), "--shards")
        with self.serving() as server:
            taken = f"127.0.0.1:{server.port}"
            self.says_one_line(self.run_kinodex("serve", "--data", self.store, "--listen", taken, status=kit.FAILED),
                               taken, "another program")

    def test_beside_a_process_that_writes(self):
        """Asks it while it runs, and reads what it wrote when it has ended."""
        films = catalogue(self.dir / "films", short_clips(2))
        self.index(films)
        with serving(self) as server:
            self.assertEqual(server.get("/v1/status").json()["videos"], 2)
            catalogue(films / "more", short_clips(4)[2:])
            writer = self.start("index", films, "--data", self.data, "--quiet", "--workers", "1")
            statuses = set()
            while writer.poll() is None:
                statuses.add(server.get("/v1/status").status)
            self.assertEqual(self.finish(writer).status, kit.DONE)
            self.assertLessEqual(statuses, {200, 503, 504})
            self.assertIn(200, statuses)
            wait_for("the new videos", lambda: server.get("/v1/status").json().get("videos") == 4)
            self.assertEqual(server.get("/v1/videos/more%2Fshort3.mp4".replace("short3", self.name_of(films))).status, 200)

    @staticmethod
    def name_of(films):
        return sorted(path.name for path in (films / "more").iterdir())[0].removesuffix(".mp4")

    # --- What docs/client.md shows ---

    def test_the_client_of_the_documentation(self):
        text = (kit.SOURCE / "docs/client.md").read_text()
        program, = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertLessEqual(len(program.splitlines()), 30)
        with self.serving() as server:
            done = subprocess.run([sys.executable, "-c", program, f"http://127.0.0.1:{server.port}", NAMES[0]],
                                  capture_output=True, text=True, timeout=kit.TIMEOUT_S, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertIn(NAMES[1], done.stdout)


if __name__ == "__main__":
    unittest.main()
