"""scripts/bench fetch: the same clips from files, over http and as s3 objects, in turns, from nginx on this machine."""
import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from . import clips, measure, report
from .kinodex import Kinodex

TARGET = 0.9
WAYS = ("file", "http", "s3")
# nginx takes no notice of signatures: what signing costs us is in the figures, checking them is not.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "local"}
CONFIG = """daemon off; worker_processes 1; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t;
  scgi_temp_path {folder}/t;
  server {{ listen 127.0.0.1:{port}; location /films/ {{ alias {films}/; }} }} }}
"""


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=5, help="turns; the median counts (5)")
    parser.add_argument("--clips", type=pathlib.Path, default=report.ROOT / "samples", help="folder (samples/)")
    parser.add_argument("--long", action="store_true", help="also clips over 20 MB (ten minutes of film)")
    parser.add_argument("--repeat", type=int, default=4, help="each clip this many times, by which starting counts less (4)")


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _is_open(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def nginx(films, folder):
    """Its address while it serves the folder as /films/."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not program:
        sys.exit("error: nginx is not installed. Run scripts/deps bench.")
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, films=films, port=port))
    os.chmod(folder, 0o755)  # its worker is nobody where it is started by root
    server = subprocess.Popen([program, "-e", "stderr", "-c", str(config)])
    try:
        deadline = time.monotonic() + 10
        while not _is_open(port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("error: nginx does not start (see above)")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _manifest(path, key, addresses):
    path.write_text("".join(json.dumps({"id": name, key: to}) + "\n" for name, to in addresses.items()))
    return path


def _manifests(paths, url, folder):
    """One way each to say where the same videos are."""
    return {"file": _manifest(folder / "file.jsonl", "path", {path.name: str(path) for path in paths}),
            "http": _manifest(folder / "http.jsonl", "url", {path.name: f"{url}/films/{path.name}" for path in paths}),
            "s3": _manifest(folder / "s3.jsonl", "url", {path.name: f"s3://films/{path.name}" for path in paths})}


def _digest(kinodex, data):
    return json.loads(measure.run([kinodex.path, "verify", "--data", data, "--json"]).out)["digest"]


def _run(kinodex, paths, runs, folder):
    films = folder / "clips"
    with nginx(films, folder) as url:
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=url, NO_PROXY="*", no_proxy="*")
        manifests = _manifests(paths, url, folder)
        found = {way: [] for way in WAYS}
        digests = {}
        for turn in range(-1, runs):  # the first fills the page cache and counts for nothing
            for way in WAYS[turn % 3:] + WAYS[:turn % 3]:
                done, counts = kinodex.index([manifests[way]], folder / way)
                if counts["done"] != len(paths):
                    sys.exit(f"error: of {len(paths)} clips {counts['done']} were indexed by {way}: {counts['reasons']}")
                if turn >= 0:
                    found[way].append(done)
                    print(f"  turn {turn + 1}: {way:<5} {done.wall_s:7.2f} s wall {done.cpu_s:7.2f} s CPU", flush=True)
                else:
                    digests[way] = _digest(kinodex, folder / way)
    return found, digests


def main(args):
    paths = clips.find(args.clips, args.long)
    kinodex = Kinodex(args.kinodex, args.bundles)
    out = report.Report("fetch")
    report.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kx-bench-", dir=report.CACHE) as folder:
        folder = pathlib.Path(folder)
        copies = clips.repeat(paths, args.repeat, folder / "clips")
        megabytes = sum(map(os.path.getsize, copies)) / 1e6
        print(f"  {len(copies)} files, {megabytes:.0f} MB; {args.runs} turns", flush=True)
        found, digests = _run(kinodex, copies, args.runs, folder)
    middle = {way: {"wall_s": statistics.median(run.wall_s for run in runs),
                    "cpu_s": statistics.median(run.cpu_s for run in runs)} for way, runs in found.items()}
    local = middle["file"]
    report.table(["median", "wall s", "CPU s", "speed", "CPU"],
                 [[way, one["wall_s"], one["cpu_s"], local["wall_s"] / one["wall_s"], one["cpu_s"] / local["cpu_s"]]
                  for way, one in middle.items()])
    same = len(set(digests.values())) == 1
    good = report.verdict("stored bytes the same", "yes" if same else "no", "yes", same)
    for way in WAYS[1:]:
        speed = local["wall_s"] / middle[way]["wall_s"]
        good = report.verdict(f"speed over {way} / from files", f"{speed:.3f}", f">= {TARGET}", speed >= TARGET) and good
    out.write(files=len(copies), megabytes=megabytes, medians=middle, same=same,
              walls={way: [round(run.wall_s, 3) for run in runs] for way, runs in found.items()})
    return 0 if good else 1
