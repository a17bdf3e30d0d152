"""Ending a process that hangs."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.system import exit_guard
from livestate.system.exit_guard import guard_exit
from tests.support import log_lines


class ExitGuardTests(SynchronousTestCase):
    """When it ends the process."""

    def test_hangs(self):
        """A process that still runs after the limit ends with status 1, and says why."""
        ended: list[int] = []
        done = threading.Event()

        def end(status: int) -> None:
            ended.append(status)
            done.set()

        with log_lines() as lines:
            guard_exit(0.05, end)
            self.assertTrue(done.wait(10))
        self.assertEqual(ended, [1])
        self.assertIn("has not finished within 0.05 s", lines[0])

    def test_log_hangs(self):
        """It ends even if the log hangs as well."""
        done = threading.Event()
        self.patch(exit_guard, "_log_hang", lambda limit: done.wait(10))
        self.patch(exit_guard, "_LOG_TIMEOUT", 0.05)
        statuses: list[Any] = []

        def end(status: int) -> None:
            statuses.append(status)
            done.set()

        guard_exit(0, end)
        self.assertTrue(done.wait(5))
        self.assertEqual(statuses, [1])

    def test_process(self):
        """A process that ends in time is not delayed; one that waits for a thread is ended."""
        for code, status in (("", 0), ("threading.Thread(target=time.sleep, args=[60]).start()", 1)):
            started = time.monotonic()
            ran = subprocess.run(
                [sys.executable, "-c", f"""if True:
                    import threading, time
                    from livestate.system.exit_guard import guard_exit
                    guard_exit({60 if status == 0 else 0.1})
                    {code}
                """],
                timeout=50, check=False, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            self.assertEqual(ran.returncode, status)
            self.assertLess(time.monotonic() - started, 40)
