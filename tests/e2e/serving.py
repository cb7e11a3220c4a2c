"""`kinodex serve` for tests: starting it, asking it over connections that stay open, and fakes of what goes wrong."""
import contextlib
import http.client
import json
import signal
import urllib.parse

import kit


def quote(text):
    return urllib.parse.quote(text, safe="")


class Reply:
    def __init__(self, response, body):
        self.status, self.body = response.status, body
        self.headers = response.headers

    def json(self):
        return json.loads(self.body)


class Server:
    """A running `serve`, and one connection to it that stays open."""

    def __init__(self, case, *args, data=None, **popen):
        self.case = case
        source = ("--shards", popen.pop("shards")) if "shards" in popen else ("--data", data or case.data)
        self.process = case.start("serve", *source, "--listen", "127.0.0.1:0", *args, **popen)
        line = self.process.stdout.readline()
        if not line.startswith("http://"):
            case.fail(f"serve did not start: {line}{case.finish(self.process).err}")
        self.host, _, port = line.split()[0].removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.connection = self.connect()

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=kit.TIMEOUT_S)

    def ask(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connection
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Reply(response, response.read())

    def get(self, path, **how):
        return self.ask("GET", path, **how)

    def post(self, path, body, **how):
        return self.ask("POST", path, body, **how)

    def metric(self, name):
        """Sum over all labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))

    def stop(self, number=signal.SIGTERM):
        """How it ended."""
        self.connection.close()
        kit.kill(self.process.pid, number)
        return self.case.finish(self.process)


@contextlib.contextmanager
def serving(case, *args, **how):
    server = Server(case, *args, **how)
    try:
        yield server
    finally:
        result = server.stop()
    case.assertEqual(result.status, kit.DONE, str(result))
