"""Reaping inherited processes."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.system import orphans
from livestate.system.orphans import OrphanReaper

#: A process that inherits orphans, as process 1 does (prctl(2), PR_SET_CHILD_SUBREAPER is 36).
PROGRAM = """
import ctypes, os, subprocess, time
from livestate.system.orphans import reap_orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
reap_orphans({})
subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; sleep 0.05 & sleep 0.05 &"], check=True)
time.sleep(0.5)
reap_orphans({})
own = subprocess.Popen(["true"])
time.sleep(0.5)
reap_orphans({own.pid})
print(own.wait())
states = []
for name in filter(str.isdecimal, os.listdir("/proc")):
    try:
        state, parent = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[:2]
    except OSError:
        continue
    if parent == str(os.getpid()):
        states.append(state)
print(states)
"""


class OrphanTests(SynchronousTestCase):
    """What is reaped."""

    def test_orphans(self):
        """Orphans that have exited are reaped; running ones, and the process's own children, are left alone."""
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        running, own, states = ran.stdout.splitlines()
        self.addCleanup(os.kill, int(running), 9)
        self.assertEqual((own, states), ("0", "['S']"))

    def test_only_process_1(self):
        """Only process 1 checks, because others inherit no orphans."""
        for pid, expected in ((1, [1, 1]), (2, [])):
            clock = Clock()
            calls: list[int] = []
            self.patch(orphans, "reap_orphans", lambda known, calls=calls: calls.append(1))
            reaper = OrphanReaper(clock)
            with mock.patch.object(os, "getpid", return_value=pid):
                reaper.startService()
            clock.pump([1, 1])
            reaper.stopService()
            self.assertEqual((calls, clock.getDelayedCalls()), (expected, []))
