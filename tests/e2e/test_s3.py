"""Videos in S3: against moto, and against a small server that checks every signature with botocore's own signer."""
import contextlib
import logging
import os
import unittest
import urllib.parse
import urllib.request
from pathlib import Path
from xml.sax.saxutils import escape

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import kit
from kit import SAMPLES
from test_fetch import FetchCase
from web import File, Handler

PAGE = 3  # keys of a listing's page
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = str(PAGE)  # read when moto is loaded
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
from moto.server import ThreadedMotoServer  # noqa: E402

CLIP = SAMPLES / "carphone_pristine.mp4"
KEYS = {  # what keys may be made of, and what lies under them
    "plain.mp4": "carphone_pristine.mp4",
    "a b+c/\u00e9t\u00e9 (1)'*~!.mp4": "basketball.mp4",
    "100%25 & more/x?y#z=1.mp4": "R6llTwEh07w.mp4",
    "\u6620\u753b/<b>\"q\".avi": "v_SoccerJuggling_g23_c01.avi",
    "deep/er/and//er.avi": "RATRACE_wave_f_nm_np1_fr_goo_37.avi",
}


class S3Case(FetchCase):
    KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtn/K7MDENG+bPxRfiCY:KEY"

    def environment(self, extra=None):
        clean = {key: value for key, value in super().environment().items() if not key.startswith("AWS_")}
        return {**clean, **self.aws, **(extra or {})}

    def credentials(self, url):
        self.aws = {"AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.SECRET, "AWS_REGION": "eu-x-1",
                    "AWS_ENDPOINT_URL": url}

    def local_copy(self, keys):
        """The same files in folders; what no path can be called is left out."""
        films = self.dir / "films"
        for key, name in keys.items():
            path = films / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(SAMPLES / name)
        return films


class Moto(S3Case):
    def setUp(self):
        super().setUp()
        logging.getLogger("werkzeug").disabled = True
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        self.addCleanup(server.stop)
        host, port = server.get_host_and_port()
        self.credentials(f"http://{host}:{port}")
        self.s3 = boto3.client("s3", endpoint_url=self.aws["AWS_ENDPOINT_URL"], region_name="us-east-1",
                               aws_access_key_id="test", aws_secret_access_key="test")
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        self.s3.create_bucket(Bucket="films")

    def put(self, key, name):
        self.s3.put_object(Bucket="films", Key=key, Body=(SAMPLES / name).read_bytes())

    def test_a_prefix_is_a_folder(self):
        for key, name in KEYS.items():
            self.put("all/" + key, name)
        self.put("all/.hidden.mp4", "bikes.mp4")
        self.put("all/.git/x.mp4", "bikes.mp4")
        self.put("elsewhere/x.mp4", "bikes.mp4")
        self.s3.put_object(Bucket="films", Key="all/marker/", Body=b"")
        report = self.index("s3://films/all/")
        self.assertEqual((report["done"], report["quarantined"]), (len(KEYS), 0))
        inputs = self.is_accounted(report)
        self.assertEqual({row["source"] for row in inputs.values()}, {"s3://films/all/" + key for key in KEYS})

        same = {key: name for key, name in KEYS.items() if "//" not in key}
        self.index(self.local_copy(same), data=self.dir / "local")
        for key in set(KEYS) - set(same):
            self.s3.delete_object(Bucket="films", Key="all/" + key)
        self.put("all/plain.mp4", "bikes.mp4")
        report = self.index("s3://films/all/")
        self.assertEqual((report["unchanged"], report["deleted"], report["done"]), (len(same) - 1, 1, 1))
        self.put("all/plain.mp4", KEYS["plain.mp4"])
        self.index("s3://films/all/")
        self.assertEqual(self.digest(), self.digest(self.dir / "local"))

    def test_a_whole_bucket_an_object_and_a_manifest(self):
        self.put("a.mp4", CLIP.name)
        self.put("b/c d.mp4", "basketball.mp4")
        self.assertEqual(self.index("s3://films", data=self.dir / "bucket")["done"], 2)
        self.assertEqual(set(self.inputs(data=self.dir / "bucket")), {"a.mp4", "b/c d.mp4"})
        self.assertEqual(self.index("s3://films/b/c d.mp4")["done"], 1)
        self.assertEqual(self.index("s3://films/b/c d.mp4")["unchanged"], 1)
        self.assertEqual(set(self.inputs()), {"c d.mp4"})
        listed = self.manifest("films.jsonl", {"a.mp4": "s3://films/a.mp4", "b/c d.mp4": "s3://films/b/c d.mp4"})
        self.index(listed, data=self.dir / "listed")
        self.assertEqual(self.digest(self.dir / "listed"), self.digest(self.dir / "bucket"))

    def test_what_is_not_there(self):
        self.says_one_line(self.run_kinodex("index", "s3://nowhere/all/", "--data", self.data, status=kit.FAILED),
                           "s3://nowhere/all/", "NoSuchBucket")
        report = self.index("s3://films/none.mp4", status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"not-found": 1})
        self.assertIn("ends in '/'", self.inputs()["none.mp4"]["message"])
        self.s3.put_object(Bucket="films", Key="empty.mp4", Body=b"")
        self.assertEqual(self.index("s3://films/empty.mp4", status=kit.QUARANTINED)["reasons"], {"empty-file": 1})
        self.assertEqual(self.index("s3://films/no-such-prefix/")["done"], 0)


class Signed(Handler):
    """S3's ways with listings and errors; refuses whatever botocore would have signed otherwise."""

    def answer(self):
        wrong = self.server.site.region and self.server.site.region not in self.headers.get("Authorization", "")
        if wrong:
            return self.fail(301, "PermanentRedirect", [("x-amz-bucket-region", self.server.site.region)])
        code = self.refusal()
        if code:
            return self.fail(403, code)
        self.server.site.good += 1
        self.server.site.look()
        path, _, query = self.path.partition("?")
        if "list-type=2" in query:
            return self.list(urllib.parse.parse_qs(query, keep_blank_values=True))
        return super().answer()

    def refusal(self):
        given = self.headers.get("Authorization")
        if not given:
            return "AccessDenied"
        names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
        signed = {"host", "x-amz-date", "x-amz-content-sha256"}
        if not signed <= set(names):
            return "SignatureDoesNotMatch"
        request = AWSRequest(method=self.command, url=f"http://{self.headers['Host']}{self.path}",
                             headers={name: self.headers[name] for name in names if name != "host"})
        request.context["timestamp"] = self.headers["x-amz-date"]
        _, _, region, *_ = given.split("Credential=")[1].split(",")[0].split("/")
        site = self.server.site
        if self.headers.get("x-amz-security-token") != site.token:
            return "InvalidToken"
        signer = S3SigV4Auth(Credentials(site.key, site.secret, site.token), "s3", region)
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return None if given.endswith("Signature=" + signature) else "SignatureDoesNotMatch"

    def fail(self, status, code, headers=()):
        self.xml(f"<Error><Code>{code}</Code><Message>no</Message></Error>", status, headers)

    def xml(self, text, status=200, headers=()):
        body = ('<?xml version="1.0" encoding="UTF-8"?>\n' + text).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def list(self, query):
        site = self.server.site
        prefix = "/films/" + urllib.parse.quote(query["prefix"][0])
        keys = sorted(path for path in site.files if path.startswith(prefix))
        start = int(query.get("continuation-token", ["=/+ 0"])[0].removeprefix("=/+ "))
        site.pages += 1
        if site.broken:
            return self.xml(site.broken)

        def etag_of(path):
            return site.files[path].etag.strip('"') if site.bare else site.files[path].etag

        objects = "".join(
            f"<Contents><Key>{escape(path.removeprefix('/films/'))}</Key><ETag>{escape(etag_of(path))}</ETag>"
            f"<Size>{len(site.files[path].data)}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for path in keys[start:start + PAGE])
        more = start + PAGE < len(keys)
        token = f"<NextContinuationToken>=/+ {start + PAGE}</NextContinuationToken>" if more else ""
        self.xml('<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
                 f"<IsTruncated>{str(more).lower()}</IsTruncated>{objects}{token}</ListBucketResult>")


class Signatures(S3Case):
    def setUp(self):
        super().setUp()
        self.server = self.site({"/films/" + urllib.parse.quote(key, safe="/~"): File((SAMPLES / name).read_bytes(),
                                                                                      etag=f'"{name}"')
                                 for key, name in KEYS.items()}, handler=Signed)
        site = self.server
        site.key, site.secret, site.token, site.region, site.good, site.pages, site.broken = (
            self.KEY, self.SECRET, None, "", 0, 0, "")
        site.look, site.bare = lambda: None, False
        self.credentials(site.root)

    def test_decoders_know_no_secret(self):
        seen = []

        def look():
            for pid in self.processes.find("decoder-host"):
                with contextlib.suppress(OSError):  # it has just ended
                    seen.append(Path(f"/proc/{pid}/environ").read_bytes())

        self.server.look = look
        self.assertEqual(self.index("s3://films/plain.mp4", env={"https_proxy": "http://anna:geheim@nowhere"})["done"], 1)
        self.assertTrue(seen)
        for environment in seen:
            self.assertNotIn(self.SECRET.encode(), environment)
            self.assertNotIn(b"geheim", environment)

    def test_listings_without_quotes(self):
        self.server.bare = True
        self.assertEqual(self.index("s3://films/deep/")["done"], 1)

    def test_every_request_is_signed(self):
        report = self.index("s3://films/")
        self.assertEqual((report["done"], report["reasons"]), (len(KEYS), {}))
        self.assertEqual({row["source"] for row in self.inputs().values()}, {"s3://films/" + key for key in KEYS})
        self.assertEqual(self.server.pages, 2)
        self.assertGreater(self.server.good, 2 * len(KEYS))
        self.server.forget()
        self.assertEqual(self.index("s3://films/")["unchanged"], len(KEYS))
        self.assertEqual(self.server.asked, [])  # the listing has told all

    def test_credentials_of_a_profile(self):
        self.server.token = "token/with+every=thing"
        folder = self.dir / ".aws"
        folder.mkdir()
        (folder / "credentials").write_text(
            f"[work]\naws_access_key_id = {self.KEY}\naws_secret_access_key = {self.SECRET}\n"
            f"aws_session_token = {self.server.token}\n")
        (folder / "config").write_text(f"[profile work]\nregion = ap-2\nendpoint_url = {self.server.root}\n")
        self.aws = {"AWS_PROFILE": "work"}
        self.assertEqual(self.index("s3://films/plain.mp4")["done"], 1)
        self.assertIn("/ap-2/s3/", self.server.asked[0][3]["Authorization"])

    def refused(self, *words, source="s3://films/plain.mp4", **how):
        report = self.index(source, status=kit.QUARANTINED, **how)
        self.assertEqual(report["reasons"], {"no-permission": 1} if "403" in words else {"read-failed": 1})
        message, = (row["message"] for row in self.inputs().values())
        for word in words:
            self.assertIn(word, message)
        self.assertNotIn(self.SECRET, message)

    def test_wrong_credentials(self):
        self.refused("403", "SignatureDoesNotMatch", "credentials", env={"AWS_SECRET_ACCESS_KEY": "wrong"})
        self.says_one_line(self.run_kinodex("index", "s3://films/", "--data", self.data, status=kit.FAILED,
                                            env={"AWS_SECRET_ACCESS_KEY": "wrong"}), "403", "SignatureDoesNotMatch")

    def test_no_credentials(self):
        self.aws = {"AWS_ENDPOINT_URL": self.server.root}
        self.refused("403", "AccessDenied", "AWS_ACCESS_KEY_ID")
        self.says_one_line(self.run_kinodex("index", "s3://films/", "--data", self.data, status=kit.FAILED,
                                            env={"AWS_ACCESS_KEY_ID": "half"}), "AWS_SECRET_ACCESS_KEY")

    def test_another_region(self):
        self.server.region = "mars-1"
        self.refused("AWS_REGION=mars-1")
        self.assertEqual(self.index("s3://films/plain.mp4", env={"AWS_REGION": "mars-1"})["done"], 1)

    def test_listings_that_are_none(self):
        entity = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>'
        for text in ("", "<ListBucketResult>", "not XML", entity, "<a>" * 100 + "</a>" * 100,
                     "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
                     "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
                     "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
                     "<ListBucketResult>" + "<Contents><Key>a</Key></Contents>" * 1001 + "</ListBucketResult>"):
            with self.subTest(text[:60]):
                self.server.broken = text or "<"
                self.says_one_line(self.run_kinodex("index", "s3://films/", "--data", self.data, status=kit.FAILED),
                                   "s3://films/", "listing")


if __name__ == "__main__":
    unittest.main()
