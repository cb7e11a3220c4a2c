"""Videos behind http addresses, from servers that are good, slow, broken and gone."""
import json
import unittest

import kit
from kit import Case, SAMPLES, catalogue, ffmpeg, samples
from web import File, Site

CLIP = SAMPLES / "carphone_pristine.mp4"  # 589 kB, its index at the end


def read(path):
    return path.read_bytes()


def clips():
    """Every container that reads in a way of its own."""
    x264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1")
    return [
        *samples("basketball.mp4", "R6llTwEh07w.mp4", "cityCC0.mpg", "v_SoccerJuggling_g23_c01.avi"),
        ffmpeg("long.mp4", *kit.picture(65, "320x240"), *kit.sound(65), *x264, "-bf", "3", "-g", "50"),
        ffmpeg("vp9.webm", "-t", "25", *kit.picture(25, "320x180"), *kit.sound(25, 330), "-c:v", "libvpx-vp9", "-deadline",
               "realtime", "-cpu-used", "8", "-threads", "1", "-c:a", "libopus"),
        ffmpeg("stream.ts", *kit.picture(24, "320x240", pattern="testsrc"), *kit.sound(24, 300), *x264, "-bf", "2", "-g", "48",
               "-c:a", "mp2", "-f", "mpegts"),
    ]


class FetchCase(Case):
    def environment(self, extra=None):
        clean = {key: value for key, value in super().environment().items() if not key.lower().endswith("_proxy")}
        return {**clean, "NO_PROXY": "*", "HOME": str(self.dir), **(extra or {})}

    def site(self, files=None, **how):
        site = Site(files, **how)
        self.enterContext(site)
        return site

    def manifest(self, name, addresses):
        """addresses: id to URL, or to a path."""
        path = self.dir / name
        path.write_text("".join(json.dumps({"id": key, "url" if "://" in str(to) else "path": str(to)}) + "\n"
                                for key, to in addresses.items()))
        return path


class Fetch(FetchCase):
    def test_stored_bytes_are_those_of_the_files(self):
        paths = clips()
        site = self.site({f"/{path.name}": File(read(path), etag=f'"{path.name}"') for path in paths})
        films = self.manifest("films.jsonl", {path.name: f"{site.root}/{path.name}" for path in paths})
        self.index(catalogue(self.dir / "films", paths), data=self.dir / "local")
        report = self.index(films, "--segment", "10")
        self.assertEqual((report["done"], report["quarantined"]), (len(paths), 0))
        self.assertEqual(self.digest(), self.digest(self.dir / "local"))
        self.is_accounted(report)

        site.forget()
        report = self.index(films)
        self.assertEqual((report["unchanged"], report["done"]), (len(paths), 0))
        self.assertEqual({method for method, *_ in site.asked}, {"HEAD"})
        self.assertEqual(len(site.asked), len(paths))

        site.files[f"/{paths[-1].name}"] = File(read(paths[0]), etag='"another"')
        report = self.index(films)
        self.assertEqual((report["unchanged"], report["done"]), (len(paths) - 1, 1))
        self.assertNotEqual(self.digest(), self.digest(self.dir / "local"))

    def test_an_index_at_the_end_costs_two_requests(self):
        clip = ffmpeg("end.mp4", *kit.picture(30, "640x480", pattern="mandelbrot"), *kit.H264, "-g", "25", "-b:v", "2M")
        size = clip.stat().st_size
        self.assertGreater(size, 2 << 20)
        site = self.site({"/end.mp4": File(read(clip))})
        self.assertEqual(self.index(f"{site.root}/end.mp4")["done"], 1)
        spans = [tuple(map(int, span.removeprefix("bytes=").split("-"))) for _, _, span, _ in site.asked]
        first = [span[0] for span in spans]
        again = first.index(0, 1)  # where the worker begins, after the prober
        self.assertEqual(again, 2, spans)
        self.assertEqual(spans[1][1], size - 1, spans)
        self.assertLess(sum(last + 1 - start for start, last in spans[:2]), 700_000, spans)
        # Each byte once, in ranges that grow.
        self.assertLessEqual(sum(last + 1 - start for start, last in spans[2:]), size, spans)
        self.assertLess(len(spans), 10, spans)

    def test_servers_that_falter(self):
        """What is tried again, or done in another way, gives the same bytes."""
        data, small = read(CLIP), read(SAMPLES / "RATRACE_wave_f_nm_np1_fr_goo_37.avi")
        files = {
            "/plain": File(data),
            "/fails": File(data, fails=[500, 503]),
            "/busy": File(data, fails=[429], headers=[("Retry-After", "1")]),
            "/cut": File(data, cut=100_000, cuts=4),
            "/no-ranges": File(data, ranges=False),
            "/no-ranges-cut": File(data, ranges=False, cut=300_000, cuts=2),
            "/no-length": File(data, ranges=False, length=False, etag=None),
            "/no-head": File(data, head=False),
            "/weak": File(data, etag='W/"1"'),
            "/no-etag": File(data, etag=None),
            "/hop": File(b"", redirect="/hop2"),
            "/hop2": File(b"", redirect="/plain"),
            "/wrong-length": File(data, wrong=5000),
            "/slow": File(small, slow=len(small)),
        }
        site = self.site(files)
        self.index(self.manifest("local.jsonl", {name: CLIP if files[name].data in (data, b"") else
                                                 SAMPLES / "RATRACE_wave_f_nm_np1_fr_goo_37.avi" for name in files}),
                   data=self.dir / "local")
        report = self.index(self.manifest("films.jsonl", {name: site.root + name for name in files}))
        self.assertEqual((report["done"] + report["copied"], report["reasons"]), (len(files), {}))
        self.assertEqual(self.digest(), self.digest(self.dir / "local"))
        self.assertEqual(files["/cut"].cuts, 0)
        self.assertEqual(len(site.requests("/no-ranges")), 2)  # once to probe, once to decode

        site.forget()
        report = self.index(self.dir / "films.jsonl")
        # Without a length a request for the first byte says nothing: it is read to its end to know it.
        self.assertEqual(report["unchanged"] + report["done"], len(files), report)
        self.assertGreaterEqual(report["unchanged"], len(files) - 1, report)

    def test_servers_that_fail(self):
        data = read(CLIP)
        stream = clips()[-1]  # which is read to its end
        cases = {  # the file, and what its input ends as: reason, words of the message
            "/gone": (None, "not-found", "404"),
            "/refused": (File(data, fails=[403] * 99), "no-permission", "403"),
            "/login": (File(data, fails=[401] * 99), "no-permission", "401"),
            "/down": (File(data, fails=[503] * 99), "read-failed", "503"),
            "/teapot": (File(data, fails=[418] * 99), "read-failed", "418"),
            "/empty": (File(b""), "empty-file", "empty"),
            "/empty-no-ranges": (File(b"", ranges=False), "empty-file", "empty"),
            "/text": (File(b"not a film\n" * 5000), "not-media", ""),
            "/loop": (File(b"", redirect="/loop"), "read-failed", "redirects"),
            "/to-file": (File(b"", redirect="file:///etc/passwd"), "unsupported", "not followed"),
            "/wrong": (File(read(stream), wrong=5000, ranges=False), "read-failed", ""),
            "/dies": (File(data, cut=1000, cuts=999), "read-failed", ""),
            "/changes": (File(data, change_after=4), "changed", "index again"),
            "/changes-at-once": (File(data, change_after=1), "changed", "changed"),
        }
        site = self.site({path: file for path, (file, *_) in cases.items() if file})
        addresses = {path: site.root + path for path in cases}
        addresses["/nobody"] = "http://127.0.0.1:1/a.mp4"  # a port that was free a moment ago may be another test's now
        addresses["/no-host"] = "http:///a.mp4"
        addresses["/secret"] = site.root.replace("//", "//anna:geheim@") + "/gone?token=geheim&v=1"
        films = self.manifest("films.jsonl", addresses)
        report = self.index(films, status=kit.QUARANTINED)
        inputs = self.is_accounted(report)
        for path, (_, reason, words) in cases.items():
            with self.subTest(path):
                self.assertEqual(inputs[path]["reason"], reason, inputs[path])
                self.assertIn(words, inputs[path]["message"])
        self.assertEqual(inputs["/nobody"]["reason"], "read-failed")
        self.assertEqual(inputs["/no-host"]["reason"], "unsupported")
        self.assertEqual(inputs["/secret"]["reason"], "not-found")
        self.assertIn("/gone?v=1", inputs["/secret"]["message"])
        self.assertNotIn("geheim", inputs["/secret"]["message"])
        self.assertNotIn("anna", inputs["/secret"]["message"])
        self.assertLess(len(site.requests("/down")), 6)
        self.assertEqual(len(site.requests("/gone")), 1)

        site.files["/changes"] = File(data, etag='"1-changed"')
        again = self.manifest("again.jsonl", {path: addresses[path] for path in ("/changes", "/changes-at-once")})
        self.assertEqual(self.index(again)["done"], 2)

    def test_a_server_that_stalls(self):
        site = self.site({"/stall": File(read(CLIP), stall=True)})
        report = self.index(self.manifest("films.jsonl", {"/stall": site.root + "/stall"}), "--fetch-timeout", "1",
                            status=kit.QUARANTINED)
        row = self.is_accounted(report)["/stall"]
        self.assertEqual(row["reason"], "read-failed", row)
        self.assertIn("time limit", row["message"])

    def test_credentials_stay_with_their_host(self):
        other = self.site({"/a.mp4": File(read(CLIP))})
        site = self.site({"/a.mp4": File(b"", redirect=other.root.replace("127.0.0.1", "localhost") + "/a.mp4")})
        report = self.index(site.root.replace("//", "//anna:geheim@") + "/a.mp4")
        self.assertEqual(report["done"], 1)
        self.assertTrue(all("Authorization" in headers for *_, headers in site.requests("/a.mp4")))
        self.assertTrue(other.requests("/a.mp4"))
        self.assertFalse(any("Authorization" in headers for *_, headers in other.requests("/a.mp4")))

    def test_proxies_are_used(self):
        proxy = self.site({"http://films.invalid/a.mp4": File(read(CLIP))})
        report = self.index("http://films.invalid/a.mp4", env={"http_proxy": proxy.root, "NO_PROXY": ""})
        self.assertEqual(report["done"], 1)

    def test_an_address_asked_about_on_the_spot(self):
        site = self.site({"/a.mp4": File(read(CLIP))})
        self.index(catalogue(self.dir / "films", samples("carphone_pristine.mp4", "basketball.mp4")))
        hits = self.ask("similar", f"{site.root}/a.mp4").json()["hits"]
        self.assertEqual(hits[0]["id"], "carphone_pristine.mp4")
        self.assertGreater(hits[0]["score"], 0.999)
        self.assertTrue(self.ask("classify", f"{site.root}/a.mp4").json()["video"])
        self.says_one_line(self.run_kinodex("similar", f"{site.root}/b.mp4", "--data", self.data, status=kit.FAILED),
                           "/b.mp4", "404")

    def test_ids_and_roots(self):
        """A single address is called by its file's name; the same id from elsewhere is refused while the first is there."""
        site = self.site({"/films/a%20b.mp4?v=1": File(read(CLIP)), "/other/a%20b.mp4": File(read(CLIP))})
        self.index(f"{site.root}/films/a%20b.mp4?v=1")
        self.assertEqual(set(self.inputs()), {"a b.mp4"})
        report = self.index(f"{site.root}/other/a%20b.mp4", status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"duplicate-id": 1})
        del site.files["/films/a%20b.mp4?v=1"]
        self.assertEqual(self.index(f"{site.root}/other/a%20b.mp4")["done"], 1)

    def test_waiting_is_not_the_job_s_fault(self):
        """What a server takes is no part of the decoder's time, which has a limit here that it would be over."""
        # 15 s for the probe and again for the job: far more than decoding takes, also where it has to wait for a CPU.
        site = self.site({"/a.mp4": File(read(CLIP), slow=40_000)})
        report = self.index(f"{site.root}/a.mp4", "--job-wall-limit", "10", "--attempts", "1")
        self.assertEqual(report["done"], 1)

    def test_replay(self):
        site = self.site({"/a.mp4": File(read(CLIP), fails=[404])})
        self.index(f"{site.root}/a.mp4", status=kit.QUARANTINED)
        self.run_kinodex("dead replay", "a.mp4", "--data", self.data)
        self.assertEqual(self.inputs()["a.mp4"]["state"], "done")

    def test_a_new_signature_is_no_new_video(self):
        files = {f"/a.mp4?v=1&Signature={word}": File(read(CLIP)) for word in ("old", "new")}
        site = self.site(files)
        self.assertEqual(self.index(f"{site.root}/a.mp4?v=1&Signature=old")["done"], 1)
        site.files["/a.mp4?v=1&Signature=old"].fails = [403] * 99
        report = self.index(f"{site.root}/a.mp4?v=1&Signature=new")
        self.assertEqual((report["done"], report["quarantined"], report["unchanged"]), (0, 0, 1))
        self.assertEqual(self.inputs()["a.mp4"]["source"], f"{site.root}/a.mp4?v=1")

    def test_signatures_are_kept_and_not_shown(self):
        secret = "X-Amz-Signature=geheim"
        site = self.site({f"/a.mp4?v=1&{secret}": File(read(CLIP), fails=[404])})
        address = f"{site.root}/a.mp4?v=1&{secret}"
        said = [self.run_kinodex("index", address, "--data", self.data, "--json", status=kit.QUARANTINED)]
        said += [self.ask("dead list"), self.run_kinodex("dead show", "a.mp4", "--data", self.data), self.ask("dead show", "a.mp4")]
        said += [self.run_kinodex("dead replay", "a.mp4", "--data", self.data)]  # needs it
        said += [self.ask("status", "--state", "all"), self.run_kinodex("export", "--data", self.data)]
        self.assertEqual(self.inputs()["a.mp4"]["state"], "done")
        for result in said:
            self.assertNotIn("geheim", result.out + result.err, str(result))


if __name__ == "__main__":
    unittest.main()
