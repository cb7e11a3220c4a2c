"""What similar can be asked, and near-duplicates: real clips, re-encoded and cut, and a manifest that says more of them."""
import json
import unittest

import kit

PARTS = ("bikes.mp4", "R6llTwEh07w.mp4", "WUzgd7C1pWA.mp4")


def long_film():
    """Three clips one after the other, in one size: 30 seconds and more."""
    inputs = [word for name in PARTS for word in ("-i", kit.SAMPLES / name)]
    scaled = ";".join(f"[{i}:v]trim=0:10,setpts=PTS-STARTPTS,scale=320:240,setsar=1,fps=25[v{i}]" for i in range(3))
    graph = f"{scaled};[v0][v1][v2]concat=n=3:v=1:a=0"
    return kit.ffmpeg("long.mp4", *inputs, "-filter_complex", graph, *kit.H264, "-g", "50")


def inner_clip():
    """From the twelfth second of the film on: smaller, and coded worse."""
    return kit.ffmpeg("inner.mp4", "-ss", "12", "-i", long_film(), "-t", "14", "-vf", "scale=240:180", *kit.H264, "-crf", "33")


def small_copy():
    return kit.ffmpeg("small.mp4", "-i", kit.SAMPLES / "basketball.mp4", "-vf", "scale=240:-2", *kit.H264, "-crf", "32")


def rows():
    soccer = {"labels": ["sport", "ball"], "language": "en", "visibility": "public"}
    samples = kit.SAMPLES
    return [
        {"id": "film", "path": str(long_film()), "title": "A long film", "language": "de", "attributes": {"season": 1}},
        {"id": "inner", "path": str(inner_clip()), "visibility": "private"},
        {"id": "basketball", "path": str(samples / "basketball.mp4"), **soccer, "attributes": {"season": 3, "live": True}},
        {"id": "small", "path": str(small_copy()), **soccer, "attributes": {"season": 4, "live": False}},
        {"id": "soccer-23", "path": str(samples / "v_SoccerJuggling_g23_c01.avi"), **soccer, "attributes": {"season": 3}},
        {"id": "soccer-24", "path": str(samples / "v_SoccerJuggling_g24_c01.avi"), "labels": ["sport"]},
    ]


class Query(kit.Case):
    def setUp(self):
        super().setUp()
        self.manifest = self.dir / "films.jsonl"
        self.write(rows())

    def write(self, lines):
        self.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def ids(self, *args):
        return [hit["id"] for hit in self.ask("similar", *args).json()["hits"]]

    def refused(self, *args, says):
        result = self.run_kinodex("similar", *self.with_data(args, None), status=kit.FAILED)
        self.assertIn(says, result.err)
        return result.err

    def test_queries(self):
        self.index(self.manifest)
        self.filters()
        self.classes()
        self.pages()
        self.groups_and_moments()
        self.mistakes()
        self.duplicates()
        self.what_is_exported()

    def filters(self):
        everything = self.ids("soccer-23")
        self.assertEqual(len(everything), 5)
        self.assertEqual(set(self.ids("soccer-23", "--filter", "label:ball and season>=3")), {"basketball", "small"})
        self.assertEqual(self.ids("soccer-23", "-f", "live:true"), ["basketball"])
        self.assertEqual(set(self.ids("soccer-23", "-f", "not has:language")), {"inner", "soccer-24"})
        self.assertEqual(self.ids("soccer-23", "-f", "title~LONG or visibility=private"), [i for i in everything if i in ("film", "inner")])
        self.assertEqual(self.ids("soccer-23", "-f", "added>now-1h and duration>=20"), ["film"])
        self.assertEqual(self.ids("soccer-23", "-f", "source:*/basketball.mp4"), ["basketball"])
        self.assertEqual(self.ids("soccer-23", "-f", "added<now-1d"), [])
        self.assertNotIn(everything[0], self.ids("soccer-23", "--not", f"{everything[0]},nowhere"))
        hits = self.ask("similar", "soccer-23").json()["hits"]
        self.assertEqual(self.ids("soccer-23", "--min-score", hits[1]["score"] - 1e-9), everything[:2])
        explained = self.ask("similar", "soccer-23", "-f", "live:true or season=4", "--explain").json()
        self.assertTrue(explained["exact"])
        self.assertEqual(explained["work"]["matching"], 2)
        self.assertEqual({hit["id"]: [(c["passed"], c["value"]) for c in hit["clauses"]] for hit in explained["hits"]},
                         {"basketball": [(True, "true"), (False, "3")], "small": [(False, "false"), (True, "4")]})

    def classes(self):
        best = self.ask("classify", "basketball").json()["video"][0]["classes"][0]
        named = f'class:"{best["label"]}" > {best["score"] / 2}'
        self.assertIn("basketball", self.ids("soccer-23", "-f", named))
        self.assertIn("basketball", self.ids("soccer-23", "-f", f'class:visual#{best["class"]} >= {best["score"] / 2}'))
        self.assertNotIn("basketball", self.ids("soccer-23", "-f", f"not {named}"))

    def pages(self):
        everything, seen, cursor = self.ids("film"), [], ""
        while True:
            page = self.ask("similar", "film", "-k", "2", *(["--cursor", cursor] if cursor else [])).json()
            self.assertFalse(page["changed"])
            seen += [hit["id"] for hit in page["hits"]]
            cursor = page["next"]
            if not cursor:
                break
        self.assertEqual(seen, everything)
        cursor = self.ask("similar", "film", "-k", "2").json()["next"]
        self.refused("basketball", "-k", "2", "--cursor", cursor, says="another query")
        self.refused("film", "--cursor", "abcd", says="none that an answer gave")

    def groups_and_moments(self):
        moments = self.ask("similar", "inner", "--level", "moments", "-k", "3").json()["hits"]
        self.assertEqual(moments[0]["id"], "film")
        self.assertGreater(moments[0]["moment"]["to_s"], moments[0]["moment"]["from_s"])
        grouped = self.ids("inner", "--level", "moments", "--group", "source")
        self.assertEqual(sorted(grouped), sorted(set(grouped)))
        self.assertEqual(len(grouped), 5)
        folders = {str(kit.Path(row["path"]).parent) for row in rows()}
        self.assertEqual(len(self.ids("film", "--group", "source")), len(folders))
        spread = self.ids("basketball", "--diversity", "0.6", "-k", "3")
        self.assertEqual(spread[0], "small")
        self.assertEqual(len(set(spread)), 3)

    def mistakes(self):
        said = self.refused("film", "-f", "label:a and seson=3", says='no attribute "seson"; did you mean "season"?')
        self.assertEqual(said.splitlines()[-1].index("^"), said.splitlines()[-2].index("seson"))
        self.refused("film", "-f", "class:socer_ball", says='did you mean "soccer ball"?')
        self.refused("film", "-f", "(" * 70000, says="70000 bytes, and at most 65536")
        self.refused("film", "-f", "(" * 500, says="more than 64 brackets")
        self.run_kinodex("similar", "film", "-k", "0", "--data", self.data, status=kit.USAGE)
        self.run_kinodex("similar", "film", "-k", "1000000000", "--data", self.data, status=kit.USAGE)

    def duplicates(self):
        clusters = {c["key"]: {m["id"]: m for m in c["members"]} for c in self.ask("duplicates").lines()}
        self.assertEqual(set(clusters), {"film", min(("basketball", "small"), key=lambda i: -self.duration(i))})
        inner = clusters["film"]["inner"]
        self.assertLess(abs(inner["offset_s"] - 12), 1.01)
        self.assertLess(abs(inner["overlap_s"] - 14), 2.01)
        self.assertGreater(inner["score"], 0.8)
        pair = next(members for key, members in clusters.items() if key != "film")
        self.assertEqual(set(pair), {"basketball", "small"})
        self.assertLess(max(abs(m["offset_s"]) for m in pair.values()), 0.6)
        self.assertEqual(len(self.ids("film", "-f", "has:duplicate_of")), 2)
        self.assertEqual(len(self.ids("soccer-23", "--group", "duplicates")), 3)

    def duration(self, name):
        return next(json.loads(line)["duration_s"] for line in self.run_kinodex("export", "--data", self.data).out.splitlines()
                    if json.loads(line)["id"] == name)

    def what_is_exported(self):
        videos = {v["id"]: v for v in map(json.loads, self.run_kinodex("export", "--data", self.data).out.splitlines())}
        self.assertEqual(videos["basketball"]["attributes"], {"live": True, "season": 3})
        self.assertEqual(videos["basketball"]["language"], "en")
        self.assertEqual(videos["inner"]["visibility"], "private")
        self.assertEqual(videos["soccer-24"]["labels"], ["sport"])

    def test_types_are_held_to(self):
        schema = self.dir / "schema.json"
        schema.write_text('{"season": "text"}')
        result = self.run_kinodex("index", self.manifest, "--schema", schema, "--data", self.data, status=kit.FAILED)
        self.assertIn("films.jsonl:1: attributes: season is number, and it is declared as text", result.err)
        self.write([*rows()[:1], {"id": "x", "path": "x.mp4", "attributes": {"season": "two"}}])
        result = self.run_kinodex("index", self.manifest, "--data", self.data, status=kit.FAILED)
        self.assertIn("films.jsonl:2: attributes: season is text, and on line 1 it is number", result.err)


if __name__ == "__main__":
    unittest.main()
