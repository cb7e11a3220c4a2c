"""Files that are made to do harm: each ends quarantined, with a reason that says why, in bounded time and memory.

What is small is made byte by byte here; the limits that the run is given would end a job that goes over them."""
import struct
import subprocess
import unittest
import zlib

import kit
from kit import H264, Case, ffmpeg, picture

MIB = 1 << 20
HOLE = 4 << 30  # bytes of a sparse file


def box(kind, *content):
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def full(kind, *content):
    """A box with version and flags of 0."""
    return box(kind, bytes(4), *content)


def stills(picture, count, stored=None, size=(64, 64), tracks=1, refer=None, kind=b"jpeg", sizes=None):
    """A QuickTime film of one picture that its index lists `count` times, a second each. stored: entries that the index
    really has. refer: the path of another file that is said to hold the pictures. sizes: of several pictures that stand
    one behind the other in `picture`, each listed once."""
    head = box(b"ftyp", b"qt  ", bytes(4), b"qt  ")
    stored = count if stored is None else stored

    def movie(at):
        entry = box(kind, bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HH", *size), bytes(4),
                    bytes(8), struct.pack(">H", 1), bytes(32), struct.pack(">Hh", 24, -1))
        where = full(b"url ", refer) if refer else box(b"url ", struct.pack(">I", 1))
        table = box(b"stbl", full(b"stsd", struct.pack(">I", 1), entry),
                    full(b"stts", struct.pack(">III", 1, count, 1)),
                    full(b"stsc", struct.pack(">IIII", 1, 1, len(sizes) if sizes else 1, 1)),
                    full(b"stsz", struct.pack(">II", 0 if sizes else len(picture), count),
                         *(struct.pack(">I", each) for each in sizes or ())),
                    full(b"stco", struct.pack(">I", 1 if sizes else count),
                         struct.pack(">I", at) * (1 if sizes else stored)))
        media = box(b"minf", full(b"vmhd", bytes(8)), box(b"dinf", full(b"dref", struct.pack(">I", 1), where)), table)
        track = box(b"trak", full(b"tkhd", bytes(12), struct.pack(">II", 0, count), bytes(52),
                                  struct.pack(">II", size[0] << 16, size[1] << 16)),
                    box(b"mdia", full(b"mdhd", struct.pack(">IIII", 0, 0, 1, count), bytes(4)),
                        full(b"hdlr", b"mhlrvide", bytes(13)), media))
        return box(b"moov", full(b"mvhd", struct.pack(">IIII", 0, 0, 1, count), bytes(80)), track * tracks)

    at = len(head) + len(movie(0)) + 8
    return head + movie(at) + box(b"mdat", picture)


def png(side):
    """A picture of side x side black pixels, one bit each: a few kilobytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row * 500) for _ in range(side // 500)) + packer.flush()
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) +
            chunk(b"IDAT", data) + chunk(b"IEND", b""))


def ebml(number, *content):
    """An element of Matroska, its length in eight bytes."""
    data = b"".join(content)
    return number + struct.pack(">Q", 1 << 56 | len(data)) + data


def attachments(*files):
    """A Matroska file of attachments alone: (name, data)."""
    head = ebml(b"\x1a\x45\xdf\xa3", ebml(b"\x42\x82", b"matroska"))
    info = ebml(b"\x15\x49\xa9\x66", ebml(b"\x2a\xd7\xb1", struct.pack(">I", 1000000)))
    each = [ebml(b"\x61\xa7", ebml(b"\x46\x6e", name), ebml(b"\x46\x60", b"application/x-truetype-font"),
                 ebml(b"\x46\x5c", data), ebml(b"\x46\xae", bytes([n + 1]))) for n, (name, data) in enumerate(files)]
    return head + ebml(b"\x18\x53\x80\x67", info, ebml(b"\x19\x41\xa4\x69", *each))


class Hostile(Case):
    def setUp(self):
        super().setUp()
        self.films = self.dir / "films"
        self.films.mkdir()
        self.jpeg = ffmpeg("still.jpg", *picture(1, "1920x1080"), "-frames:v", "1").read_bytes()

    def put(self, name, data, hole=0):
        path = self.films / name
        with path.open("wb") as file:
            file.write(data)
            if hole:
                file.truncate(len(data) + hole)
        return path

    def reason_of_each(self, *options):
        report = self.index(self.films, *options, "--attempts", "1", status=kit.QUARANTINED)
        return {name: row["reason"] if row["state"] == "quarantined" else row["state"]
                for name, row in self.is_accounted(report).items()}

    def test_what_points_elsewhere(self):
        """Playlists, references and attachments: nothing but the file itself is read."""
        secret = ffmpeg("secret.mp4", *picture(2), *H264)
        self.put("list.mp4", f"#EXTM3U\n#EXTINF:8,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode())
        self.put("hls.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{secret}\n#EXT-X-ENDLIST\n".encode())
        self.put("http.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
        self.put("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n")
        self.put("sdp.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"
                            b"a=rtpmap:96 H264/90000\n")
        self.put("reference.mov", stills(self.jpeg, 3, refer=f"file://{secret}\0".encode()))
        self.put("attached.mkv", attachments((b"http://127.0.0.1:9/font.ttf", b"x"), (b"../../etc/passwd", b"x")))
        font = self.put("font.ttf", bytes(9 * MIB))
        film = self.films / "film.mkv"
        subprocess.run(["ffmpeg", "-v", "error", "-i", secret, "-c", "copy", "-attach", font, "-metadata:s:t",
                        "mimetype=application/x-truetype-font", "-metadata:s:t", "filename=http://127.0.0.1:9/f", film],
                       check=True, timeout=60)
        font.unlink()
        self.assertEqual(self.reason_of_each(), {
            "list.mp4": "not-media",
            "hls.mp4": "unsupported",
            "http.mp4": "unsupported",
            "concat.mp4": "unsupported",
            "sdp.mp4": "unsupported",
            "reference.mov": "done",  # its own three pictures; what it refers to is not looked at
            "attached.mkv": "truncated",  # attachments, and then no film
            "film.mkv": "done",
        })

    def test_what_grows(self):
        """Bombs: pictures, tables, streams and bytes far beyond what the file's length lets one think."""
        bomb = self.dir / "bomb.png"
        bomb.write_bytes(png(16000))
        self.put("bomb.mkv", ffmpeg(f"bomb-{bomb.stat().st_size}.mkv", "-i", bomb, "-c", "copy").read_bytes())
        self.put("bomb-inside.mov", stills(bomb.read_bytes(), 1, kind=b"png "))
        pictures = [png(500)] * 3 + [bomb.read_bytes()] * 12
        self.put("bomb-later.mov", stills(b"".join(pictures), 15, kind=b"png ", sizes=[*map(len, pictures)]))
        self.put("streams.mov", stills(self.jpeg, 1, tracks=500))
        self.put("thousands.mov", stills(self.jpeg, 1, tracks=3000))
        self.put("entries.mov", stills(self.jpeg, 0x7ffffff0, stored=1))
        self.put("attached.mkv", attachments((b"a", b""))[:-19] + b"\x46\x5c" + struct.pack(">Q", 1 << 56 | 700 * MIB),
                 hole=700 * MIB)
        self.assertEqual(self.reason_of_each("--job-memory-limit", "512", "--job-cpu-limit", "20"), {
            "bomb.mkv": "too-large",
            "bomb-inside.mov": "too-large",
            "bomb-later.mov": "partial",  # up to the bomb
            "streams.mov": "unsupported",
            "thousands.mov": "memory-limit",
            "entries.mov": "memory-limit",
            "attached.mkv": "truncated",
        })

    def test_what_takes_for_ever(self):
        """Few bytes that decode for hours: the job ends at its limit on CPU time, and is not tried again."""
        self.put("for-ever.mov", stills(self.jpeg, 200_000))
        report = self.index(self.films, "--job-cpu-limit", "2", status=kit.QUARANTINED)
        self.assertEqual(report["reasons"], {"cpu-limit": 1})
        self.is_accounted(report)

    def test_what_is_long(self):
        """4 GiB of nothing, which take no space on the disk."""
        self.put("hole.mp4", box(b"ftyp", b"isom", bytes(4)) + struct.pack(">I4sQ", 1, b"mdat", HOLE + 16), hole=HOLE)
        self.assertEqual(self.reason_of_each(), {"hole.mp4": "truncated"})


class Sandbox(Case):
    """A decoder that was taken over, from the outside."""

    def test_a_violation_is_quarantined_with_its_reason(self):
        clip = ffmpeg("silent.mp4", *picture(6), *H264)
        report = self.index(clip, status=kit.QUARANTINED, env={"KINODEX_FAULT": "child.socket:1"})
        self.assertEqual(report["reasons"], {"sandbox-violation": 1})
        self.is_accounted(report)
        self.assertEqual(self.index(clip)["done"], 1)
        self.verify()

    def test_a_kernel_without_it_is_refused(self):
        clip = ffmpeg("silent.mp4", *picture(6), *H264)
        fault = {"KINODEX_FAULT": "sandbox.kernel:1"}
        result = self.run_kinodex("index", clip, "--data", self.data, status=kit.FAILED, env=fault)
        self.says_one_line(result, "seccomp", "--sandbox off")
        self.assertEqual(self.index(clip, "--sandbox", "off", env=fault)["done"], 1)


if __name__ == "__main__":
    unittest.main()
