"""gateway/openapi.yaml is OpenAPI 3.1, and what the server takes and answers is what it says. run-api brings the packages."""
import json
import re
import unittest

import jsonschema
import kit
import openapi_spec_validator
import referencing
import referencing.jsonschema
import yaml
from kit import Kept, catalogue, samples, short_clips
from serving import quote, serving

NAMES = ("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi", "SOX5yA1l24A.mp4", "bikes.mp4")
SPEC = yaml.safe_load((kit.SOURCE / "gateway/openapi.yaml").read_text())
ROOT = "urn:kinodex:openapi"
REGISTRY = referencing.Registry().with_resource(
    ROOT, referencing.Resource(contents=SPEC, specification=referencing.jsonschema.DRAFT202012))


def resolve(node):
    while "$ref" in node:
        found = SPEC
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def rebased(node):
    """A schema whose references lead into the document."""
    if isinstance(node, dict):
        return {key: ROOT + value if key == "$ref" else rebased(value) for key, value in node.items()}
    return [rebased(item) for item in node] if isinstance(node, list) else node


def validator(schema):
    return jsonschema.Draft202012Validator(rebased(schema), registry=REGISTRY)


def operation(method, path):
    """Of the description, and its path there."""
    path = path.partition("?")[0]
    for template, item in SPEC["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template).replace(".", r"\."), path):
            return template, item["get" if method == "HEAD" else method.lower()]
    raise AssertionError(f"{method} {path} is in no description")


class Api(Kept):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        films = catalogue(cls.keeper.dir / "films", [*samples(*NAMES), *short_clips(2)])
        cls.keeper.index(films)
        cls.asked = set()

    def check_request(self, what, path, body, headers, good):
        """What we send is what the description allows, unless the server is to refuse it."""
        if body is None:
            return
        schema = what["requestBody"]["content"]["application/json"]["schema"]
        valid = not list(validator(schema).iter_errors(body))
        if good:
            validator(schema).validate(body)
        elif valid:
            self.lax.append((path, body))

    def check_response(self, what, reply):
        response = resolve(what["responses"].get(str(reply.status)) or what["responses"]["default"])
        if reply.status >= 400:
            self.assertNotIn(str(reply.status), what["responses"])
        for name, header in response.get("headers", {}).items():
            validator(header["schema"]).validate(reply.headers[name])
        if "content" not in response:
            self.assertEqual(reply.body, b"")
            return
        sent = reply.headers["Content-Type"].partition(";")[0]
        content = response["content"].get(sent) or response["content"].get("*/*")
        self.assertIsNotNone(content, f"{sent} is not described")
        if sent.endswith("json"):
            validator(content["schema"]).validate(reply.json())
        elif sent == "text/plain":
            validator(content["schema"]).validate(reply.body.decode())

    def ask(self, server, method, path, body=None, headers=None, good=True):
        template, what = operation(method, path)
        self.check_request(what, path, body, headers, good)
        reply = server.ask(method, path, body, headers)
        self.assertEqual(reply.status < 400, good, reply.body)
        self.check_response(what, reply)
        if good:
            self.asked.add((method, template))
        return reply

    def test_the_description_is_openapi(self):
        openapi_spec_validator.validate(SPEC)
        for item in SPEC["paths"].values():
            for what in item.values():
                for content in what.get("requestBody", {}).get("content", {}).values():
                    jsonschema.Draft202012Validator.check_schema(content["schema"])
        for schema in SPEC["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_every_answer_is_as_described(self):
        self.lax = []
        with serving(self, data=self.keeper.data) as server:
            name = NAMES[0]
            self.ask(server, "GET", "/v1/status")
            self.ask(server, "GET", "/healthz")
            self.ask(server, "GET", "/openapi.yaml")
            self.ask(server, "GET", f"/v1/similar?id={name}&k=3&moments=true&visual=1&audio=0.5")
            self.ask(server, "GET", f"/v1/similar?id={name}&k=2&explain=true&min_score=-1&group=none&level=videos")
            self.ask(server, "POST", "/v1/similar", {"id": name, "k": 3, "weights": {"visual": 1}, "not_ids": [NAMES[1]],
                                                     "filter": None})
            video = self.ask(server, "GET", f"/v1/videos/{name}?embeddings=true&top=64").json()
            vectors = [{"modality": part["modality"], "space": part["space"], "values": part["embedding"]}
                       for part in video["modalities"]]
            self.ask(server, "POST", "/v1/search/vector", {"vectors": vectors, "k": 2, "moments": False})
            self.ask(server, "POST", "/v1/search/vector", {"queries": [{"vectors": vectors}, {"id": NAMES[2]}, {"id": "none"}]})
            self.ask(server, "POST", "/v1/videos:batch", {"ids": [NAMES[0], "none", NAMES[3]]})
            self.ask(server, "GET", "/v1/schema")
            self.ask(server, "GET", f"/v1/classify?id={NAMES[2]}&moments=true&top=3")
            self.ask(server, "GET", f"/v1/videos/{NAMES[3]}/media")
            self.ask(server, "GET", f"/v1/videos/{NAMES[3]}/media", headers={"Range": "bytes=1-2"})
            self.ask(server, "GET", f"/v1/videos/{NAMES[3]}/thumbnail?t=1&w=64")
            self.ask(server, "GET", "/metrics")
        described = {(method.upper(), path) for path, item in SPEC["paths"].items() for method in item}
        self.assertEqual(self.asked & described, described, "not all of the description was asked for")

    def test_every_refusal_is_as_described(self):
        """And what the server refuses, the description does not allow, as far as a schema can say it."""
        self.lax = []
        vector = {"modality": "visual", "space": "s", "values": [1.0]}
        with serving(self, data=self.keeper.data) as server:
            for path in ("/v1/similar", "/v1/similar?id=x&k=0", "/v1/videos/none", "/v1/classify", "/v1/status?x=1",
                         f"/v1/videos/{NAMES[3]}/thumbnail?w=99999", "/v1/videos/none/media", "/v1/classify?id=none"):
                self.ask(server, "GET", path, good=False)
            self.ask(server, "GET", f"/v1/videos/{NAMES[3]}/media", headers={"Range": "bytes=99999999-"}, good=False)
            for body in ({}, {"id": 3}, {"id": ""}, {"id": "x", "k": 0}, {"id": "x", "K": 1}, {"id": "x", "k": "3"},
                         {"id": "x", "weights": {"sound": 1}}, {"id": "x", "group": "all"}, {"id": "x", "recall": 0},
                         {"id": "x", "diversity": 2}, {"id": "x", "not_ids": [""]}, {"id": "x", "moments": 1},
                         {"id": "x", "vectors": [vector]}):
                self.ask(server, "POST", "/v1/similar", body, good=False)
            for body in ({}, {"vectors": []}, {"vectors": [vector] * 3}, {"vectors": [{**vector, "modality": "smell"}]},
                         {"vectors": [{**vector, "f32": "AACAPw=="}]}, {"vectors": [{"modality": "audio", "space": "s"}]},
                         {"vectors": [{**vector, "values": []}]}, {"vectors": [{**vector, "values": ["1"]}]},
                         {"vectors": [vector], "queries": [{"id": "x"}]}, {"queries": []}, {"queries": [{}]},
                         {"queries": [{"id": "x", "vectors": [vector]}]}, {"queries": [{"id": "x"}] * 1001}):
                self.ask(server, "POST", "/v1/search/vector", body, good=False)
            for body in ({}, {"ids": []}, {"ids": [3]}, {"ids": ["x"] * 1001}, {"ids": ["x"], "top": 3}):
                self.ask(server, "POST", "/v1/videos:batch", body, good=False)
        self.assertEqual(self.lax, [])


if __name__ == "__main__":
    unittest.main()
