"""Closing idle connections: one check of all connections every few seconds."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from livestate.web.http1.connections import OpenConnection

#: Seconds between two checks. A check of 30,000 connections takes about 3 ms.
CHECK_INTERVAL = 5.0

#: The number of checks after which
#: - a connection without a request is closed (60 to 65 s: a page that polls every minute keeps its connection);
#: - a connection with an unfinished request is closed (20 to 25 s: all but the slowest clients send one in one piece);
#: - a closed connection whose client does not read the unsent data is aborted.
QUIET = 13
UNFINISHED = 5
LINGERING = 2


class IdleTimeouts(Service):
    """Checks the connections of one or more sites."""

    def __init__(self, clock: Any, connections: Callable[[], Iterable[OpenConnection]]) -> None:
        """:param connections: returns the open connections."""
        self._connections = connections
        self._loop = LoopingCall(self.check)
        self._loop.clock = clock
        self._closing: dict[OpenConnection, int] = {}

    def startService(self) -> None:
        """Start checking."""
        super().startService()
        self._loop.start(CHECK_INTERVAL, now=False)

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def check(self) -> None:
        """Count this check for each connection, and close the connections that are overdue."""
        closing: dict[OpenConnection, int] = {}
        for connection in list(self._connections()):
            if connection in self._closing:
                closing[connection] = self._closing[connection] + 1
                if closing[connection] >= LINGERING:
                    connection.abortConnection()
                continue
            if connection.unfinished is not None:
                connection.unfinished += 1
            connection.quiet += 1
            if connection.overdue(QUIET, UNFINISHED):
                closing[connection] = 0
                connection.loseConnection()
        self._closing = closing
