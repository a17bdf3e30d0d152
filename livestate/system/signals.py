"""The signals that livestate understands."""

import signal
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service


class Signals(Service):
    """Calls functions, in the reactor, when signals come."""

    def __init__(self, reactor: Any, actions: Mapping[int, Callable[[], object]]) -> None:
        """:param actions: by the number of the signal."""
        self._reactor = reactor
        self._actions = actions

    def startService(self) -> None:
        """Take the signals."""
        super().startService()
        self._take()
        # Twisted takes some of them itself when it begins to run.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._take)

    def _take(self) -> None:
        for number in self._actions:
            signal.signal(number, self._came)

    def _came(self, number: int, frame: object) -> None:
        # Twisted's waker: the reactor may be asleep, and a function may be interrupted anywhere.
        self._reactor.callFromThread(self._actions[number])
