"""What the end-to-end tests share: running kinodex as a person would, clips to run it on, and finding what it left behind.

From the environment (set by ctest): KINODEX, the executable; KINODEX_SOURCE, the tree; KINODEX_E2E, a folder for clips
that are made once. By hand: KINODEX=build/release/cli/kinodex python3 -m unittest -v (in this folder).
"""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import uuid
from pathlib import Path

SOURCE = Path(os.environ.get("KINODEX_SOURCE", Path(__file__).resolve().parents[2]))
PROGRAM = Path(os.environ.get("KINODEX", SOURCE / "build/release/cli/kinodex")).resolve()
CLIPS = Path(os.environ.get("KINODEX_E2E", Path(tempfile.gettempdir()) / f"kinodex-e2e-{os.getuid()}"))
SAMPLES = SOURCE / "samples"
BUNDLES = SOURCE / "bundles"

DONE, FAILED, USAGE, QUARANTINED, STOPPED = 0, 1, 2, 3, 130
TIMEOUT_S = 300  # of one command; a loaded machine is slow, a hang is longer
TMPDIR_MAX = 60  # characters, so that sockets beside a test's files can have a name: 108 is what they have
TOKEN = "KINODEX_E2E_TOKEN"  # in the environment of all that a test starts, and so in that of their children

SMALL = (
    "basketball.mp4", "bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4", "R6llTwEh07w.mp4", "SOX5yA1l24A.mp4",
    "WUzgd7C1pWA.mp4", "v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi",
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi", "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi",
    "TrumanShow_wave_f_nm_np1_fr_med_26.avi", "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
)  # what scripts/samples small fetches


class Result:
    """How a command ended and what it said."""

    def __init__(self, args, status, out, err):
        self.args, self.status, self.out, self.err = args, status, out, err

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def __str__(self):
        return f"{' '.join(map(str, self.args))}\nstatus {self.status}\n{self.out[-4000:]}\n{self.err[-4000:]}"


def wait_for(what, condition, timeout_s=TIMEOUT_S, every_s=0.01):
    """Polls until condition() gives something true, which it returns."""
    deadline = time.monotonic() + timeout_s
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        time.sleep(every_s)


def soonest(within_s, attempt, times=5):
    """attempt() does something that is to take no longer, and returns how long it took. A crowded machine does not let each
    be that quick, so one of several has to be. What they took."""
    took = []
    while not took or (min(took) >= within_s and len(took) < times):
        took.append(attempt())
    if min(took) >= within_s:
        raise AssertionError(f"none of {took} is within {within_s} s")
    return took


def ffmpeg(name, *args):
    """Path of a clip that ffmpeg makes, once, from args (which name inputs and coding, not the output)."""
    key = hashlib.sha256(repr(args).encode()).hexdigest()[:12]
    path = CLIPS / f"{key}-{name}"
    if not path.exists():
        CLIPS.mkdir(parents=True, exist_ok=True)
        part = CLIPS / f".{os.getpid()}-{key}-{name}"
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, args), str(part)]
        subprocess.run(command, check=True, timeout=TIMEOUT_S)
        part.rename(path)
    return path


def picture(seconds, size="160x120", rate=25, pattern="testsrc2"):
    return "-f", "lavfi", "-t", str(seconds), "-i", f"{pattern}=size={size}:rate={rate}"


def sound(seconds, pitch=440):
    return "-f", "lavfi", "-i", f"sine=frequency={pitch}:beep_factor=3:duration={seconds}"


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1")


def short_clips(count, seconds=12):
    """Small clips that differ in picture and pitch, some without sound: quick to index, so that many fit into a test."""
    out = []
    for i in range(count):
        shown = picture(seconds, pattern=("testsrc", "testsrc2", "mandelbrot")[i % 3])
        heard = sound(seconds, 200 + 90 * i) if i % 4 else ()
        out.append(ffmpeg(f"short{i}.mp4", *shown, *heard, *H264, "-vf", f"hue=h={25 * i}", "-g", "25"))
    return out


def catalogue(folder, files):
    """A folder with links to the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / Path(file).name).symlink_to(file)
    return folder


def samples(*names):
    return [SAMPLES / name for name in names]


class Processes:
    """All processes that carry a token in their environment."""

    def __init__(self, token):
        self.mark = f"{TOKEN}={token}".encode()

    def find(self, verb=None):
        """Their numbers, of those whose first argument is verb where one is given. Zombies count as ended."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if self.mark not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if verb is None or (len(words) > 1 and words[1] == verb.encode()):
                found.append(int(entry.name))
        return sorted(found)

    @staticmethod
    def parent(pid):
        """0 when it has ended."""
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return 0

    def hosts(self):
        """Decoder hosts: the decoder-host processes whose parent is none."""
        all_of_them = self.find("decoder-host")
        return [pid for pid in all_of_them if self.parent(pid) not in all_of_them]

    def decoders(self):
        """Children that decode or probe."""
        all_of_them = self.find("decoder-host")
        return [pid for pid in all_of_them if self.parent(pid) in all_of_them]


def kill(pid, number=signal.SIGKILL):
    """True when it was still there."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Case(unittest.TestCase):
    """A test with a folder of its own. However it ends, no process that it started is left, and that is checked."""

    maxDiff = None

    def setUp(self):
        self.assertTrue(PROGRAM.exists(), f"{PROGRAM} is not there: build it, or set KINODEX")
        self.dir = Path(tempfile.mkdtemp(prefix="kx-e2e-", dir="/tmp" if len(tempfile.gettempdir()) > TMPDIR_MAX else None))
        self.data = self.dir / "data"
        self.processes = Processes(uuid.uuid4().hex)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(self.leaves_nothing)

    # --- Running ---

    def environment(self, extra=None):
        key, _, value = self.processes.mark.decode().partition("=")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KINODEX_")}
        return {**kept, key: value, "KINODEX_BUNDLES": str(BUNDLES), **(extra or {})}

    def command(self, verb, args):
        return [str(PROGRAM), *verb.split(), *map(str, args)]

    def start(self, verb, *args, env=None, **popen):
        popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True, **popen}
        return subprocess.Popen(self.command(verb, args), env=self.environment(env), cwd=self.dir, **popen)

    def finish(self, process, timeout_s=TIMEOUT_S):
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.fail(f"still running after {timeout_s} s: {' '.join(process.args)}\n{out}\n{err}")
        return Result(process.args, process.returncode, out or "", err or "")  # None: it went elsewhere

    def run_kinodex(self, verb, *args, status=DONE, **how):
        result = self.finish(self.start(verb, *args, **how))
        if status is not None:
            self.assertEqual(result.status, status, str(result))
        return result

    def with_data(self, args, data):
        return *args, "--data", data or self.data

    def index(self, *args, data=None, status=DONE, **how):
        """The report, as JSON."""
        return self.run_kinodex("index", *self.with_data(args, data), "--json", status=status, **how).json()

    def verify(self, data=None):
        return self.run_kinodex("verify", *self.with_data((), data), "--json").json()

    def digest(self, data=None):
        return self.verify(data)["digest"]

    def ask(self, verb, *args, data=None, **how):
        return self.run_kinodex(verb, *self.with_data(args, data), "--json", **how)

    def inputs(self, state="all", data=None):
        """What the ledger says: id to row."""
        return {row["id"]: row for row in self.ask("status", "--state", state, data=data).lines()}

    def dead(self, data=None):
        return {row["id"]: row for row in self.ask("dead list", data=data).lines()}

    def stored(self, data=None):
        """Ids that the store holds."""
        return {json.loads(line)["id"] for line in self.run_kinodex("export", *self.with_data((), data)).out.splitlines()}

    def similar(self, name, *args, data=None):
        return [hit["id"] for hit in self.ask("similar", name, *args, data=data).json()["hits"]]

    # --- Promises that hold at all times ---

    def says_one_line(self, result, *words):
        """It failed with one line that has each of the words, and no more."""
        self.assertEqual(result.out, "", str(result))
        self.assertEqual(len(result.err.strip().splitlines()), 1, str(result))
        self.assertTrue(result.err.startswith("kinodex: "), str(result))
        for word in words:
            self.assertIn(word, result.err)

    def is_accounted(self, report, data=None):
        """Ledger, store and dead letters agree with each other and with the report of a run over everything."""
        inputs = self.inputs(data=data)
        count = {state: sum(row["state"] == state for row in inputs.values())
                 for state in ("planned", "done", "partial", "quarantined", "deleted")}
        self.assertEqual(count["planned"], 0)
        self.assertEqual(count["done"] + count["partial"],
                         sum(report[end] for end in ("done", "partial", "copied", "unchanged")))
        self.assertEqual(count["quarantined"], report["quarantined"])
        self.assertEqual(sum(report["reasons"].values()), report["quarantined"])
        quarantined = {name: row["reason"] for name, row in inputs.items() if row["state"] == "quarantined"}
        self.assertEqual({name: row["reason"] for name, row in self.dead(data).items()}, quarantined)
        indexed = {name for name, row in inputs.items() if row["state"] in ("done", "partial")}
        self.assertEqual(self.stored(data), indexed)
        proof = self.verify(data)
        self.assertEqual((proof["good"], proof["videos"], proof["pending"]), (True, len(indexed), 0))
        return inputs

    def leaves_nothing(self):
        """No process is left a little after the last command ended, nor a folder for sockets."""
        deadline = time.monotonic() + 60
        while (left := self.processes.find()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in left:
            kill(pid)
        self.assertEqual(left, [], "processes were left behind")

    def has_no_work_dirs(self, data=None):
        """After a run that ended by itself, or the one after a run that was killed."""
        run = (data or self.data) / "run"
        self.assertEqual([entry.name for entry in run.iterdir() if entry.is_dir()], [])


class Kept(Case):
    """Tests that share what is made once, before the first: `keeper` is a case of its own for that, whose folder and data
    last as long as the class. Who makes something overrides setUpClass."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keeper = Case("run")
        cls.keeper.setUp()
        cls.addClassCleanup(cls.keeper.doCleanups)
