"""Roles as processes of their own over Kafka, for tests."""
import os
import signal
import unittest
import uuid
from pathlib import Path

import kit
from kit import Case, kill

BOOTSTRAP = os.environ.get("KINODEX_BOOTSTRAP", "")


@unittest.skipUnless(BOOTSTRAP, "no broker: scripts/kafka start DIR, then KINODEX_BOOTSTRAP=DIR/bootstrap")
class Roles(Case):
    """A test with topics of its own: tests share the broker. However it ends, its roles end with it."""

    def setUp(self):
        super().setUp()
        self.films = self.dir / "films"
        self.bus = ["--brokers", Path(BOOTSTRAP).read_text().strip(), "--namespace", f"e2e-{uuid.uuid4().hex[:12]}",
                    "--partitions", 4]
        self.roles = []
        self.addCleanup(self.stop_roles)

    def role(self, verb, *args):
        """A process that runs until it is stopped. What it says goes to a file, so that no pipe fills up."""
        with (self.dir / f"{verb}-{len(self.roles)}.log").open("w") as log:
            process = self.start(verb, *self.bus, *args, stdout=log, stderr=log)
        process.log = Path(log.name)
        self.roles.append(process)
        return process

    def stop_roles(self):
        for process in self.roles:
            kill(process.pid)
            process.wait()

    def ends_well(self, *processes):
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            self.assertEqual(process.wait(kit.TIMEOUT_S), kit.DONE, process.log.read_text())

    def coordinator(self, **how):
        return self.start("coordinator", self.films, *self.bus, "--data", self.data, "--json", "--segment", 60, **how)
