"""Signal handlers that run in the reactor."""

import signal
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service

#: The signals that end a process that no longer handles them.
_FINAL = (signal.SIGTERM, signal.SIGINT)


class Signals(Service):
    """Calls a function in the reactor when a signal arrives."""

    def __init__(self, reactor: Any, actions: Mapping[int, Callable[[], object]]) -> None:
        """:param actions: the function for each signal number."""
        self._reactor = reactor
        self._actions = actions

    def startService(self) -> None:
        """Install the signal handlers."""
        super().startService()
        self._install()
        # Twisted installs handlers of its own when the reactor starts to run; replace them.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._install)

    def stopService(self) -> None:
        """Leave the signals to the system, because the reactor is about to stop.

        SIGTERM and SIGINT end the process from now on; the others are ignored.
        """
        super().stopService()
        for number in self._actions:
            signal.signal(number, signal.SIG_DFL if number in _FINAL else signal.SIG_IGN)

    def _install(self) -> None:
        if not self.running:
            return
        for number in self._actions:
            signal.signal(number, self._received)

    def _received(self, number: int, frame: object) -> None:
        # A signal can interrupt any code, and the reactor may be sleeping: callFromThread queues the call and wakes it.
        self._reactor.callFromThread(self._actions[number])
