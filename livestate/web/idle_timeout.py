"""Closing idle connections: one check of all connections every few seconds."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from livestate.system.periodic import PeriodicTask
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

    log = Logger()

    def __init__(self, clock: Any, connections: Callable[[], Iterable[OpenConnection]]) -> None:
        """:param connections: returns the open connections."""
        self._connections = connections
        self._task = PeriodicTask(clock, self.check, "closing idle connections")
        self._closing: dict[OpenConnection, int] = {}

    def startService(self) -> None:
        """Start checking."""
        super().startService()
        self._task.start(CHECK_INTERVAL, now=False)

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        self._task.stop()

    def check(self) -> None:
        """Count this check for each connection, and close the connections that are overdue."""
        closing: dict[OpenConnection, int] = {}
        for connection in list(self._connections()):
            try:
                self._check(connection, closing)
            except Exception:
                # One that cannot be checked must not keep the others open.
                self.log.failure("could not check whether a connection is idle; closing it")
                connection.abortConnection()
        self._closing = closing

    def _check(self, connection: OpenConnection, closing: dict[OpenConnection, int]) -> None:
        """:param closing: gets the connection if it is being closed, with the number of checks since then."""
        if connection in self._closing:
            closing[connection] = self._closing[connection] + 1
            if closing[connection] >= LINGERING:
                connection.abortConnection()
            return
        if connection.unfinished is not None:
            connection.unfinished += 1
        connection.quiet += 1
        if connection.overdue(QUIET, UNFINISHED):
            closing[connection] = 0
            connection.loseConnection()
