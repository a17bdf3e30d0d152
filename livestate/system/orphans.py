"""Process 1 of a container inherits processes whose parents have exited, and has to reap them (wait(2), "Notes").

Workers are orphans if the process that forked them is killed, and so are processes that an administrator left behind.
Without an init, as with `docker run --init`, each of them would stay as a zombie.
"""

import os
from collections.abc import Container
from typing import Any

from twisted.application.service import Service

from livestate.system.periodic import PeriodicTask

#: Seconds between two checks.
_INTERVAL = 1.0


class OrphanReaper(Service):
    """Reaps exited children that this process has not started, if it is process 1."""

    def __init__(self, clock: Any) -> None:
        self._task = PeriodicTask(clock, self._reap, "reaping the processes that livestate has inherited")

    def startService(self) -> None:
        """Start checking. twistd has forked before, if it runs in the background."""
        super().startService()
        if os.getpid() == 1:
            self._task.start(_INTERVAL, now=False)

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        self._task.stop()

    def _reap(self) -> None:
        from twisted.internet.process import reapProcessHandlers  # noqa: PLC0415  # needs a reactor

        reap_orphans(reapProcessHandlers)


def reap_orphans(known: Container[int]) -> None:
    """Reap all children that have exited.

    :param known: the processes that someone else reaps. The exit of one of these delays the others until the next call.
    """
    while True:
        try:
            exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # there are no children
            return
        if exited is None or exited.si_pid in known:
            return
        os.waitpid(exited.si_pid, os.WNOHANG)
