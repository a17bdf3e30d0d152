"""Closing all connections without losing a request.

Theory of operation. From the start of a drain, every response says `Connection: close` (`LiveChannel.drain`), so a
polling client leaves with its next response. Long polls are answered and streams are closed at a pace that the servers
which these clients connect to next can bear. Idle connections are closed at the same pace, but only after a grace
period, since a client that polls every second is better drained by a response. A connection is not closed while it has
unread data.

The clients that are left at the end read too slowly, and their connections are aborted.
"""

import math
import random
import select
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from livestate.system.periodic import PeriodicTask
from livestate.web.http1.connections import Connections, OpenConnection

#: Seconds between two steps.
STEP = 0.1

#: Seconds after which idle connections are closed too. Polling pages send a request every second.
GRACE = 2.0

#: Minimum number of connections closed per second. One process can do twice as many full TLS handshakes (1 ms each).
PACE = 500

#: Seconds within which all connections are closed in an orderly way, and after which the remaining ones are aborted.
#: Kubernetes kills a process after 30 s, systemd after 90 s.
SPREAD = 8.0
LIMIT = 10.0


class ConnectionDrain:
    """The drain of one site."""

    log = Logger()

    def __init__(
        self, clock: Any, connections: Connections, closers: Callable[[], Sequence[Callable[[], None]]]
    ) -> None:
        """:param closers: returns one function for each open long poll and stream, which closes it."""
        self._clock = clock
        self._connections = connections
        self._closers = closers
        self._started = 0.0
        self._done: Deferred[None] = Deferred()
        self._task = PeriodicTask(clock, self._step, "draining connections")

    def start(self) -> Deferred[None]:
        """Start draining; the Deferred fires when no connection is left."""
        self._started = self._clock.seconds()
        self._connections.drain()
        self._task.start(STEP)
        return self._done

    def abort_remaining(self) -> None:
        """Abort all connections that are left."""
        for connection in list(self._connections.open):
            self._close(connection.abortConnection)
        if self._task.running:
            self._task.stop()
            # Their `connectionLost` is called in the reactor's next turn.
            self._clock.callLater(0, self._done.callback, None)

    def _step(self) -> None:
        elapsed = self._clock.seconds() - self._started
        if not self._connections.open:
            self._task.stop()
            self._done.callback(None)
            return
        if elapsed >= LIMIT:
            self.abort_remaining()
            return
        closers = list(self._closers())
        if elapsed >= GRACE:
            closers += [
                connection.close_idle
                for connection in self._connections.open
                if connection.idle() and not _readable(connection)
            ]
        steps = max(1.0, (SPREAD - elapsed) / STEP)
        count = max(PACE * STEP, math.ceil(len(closers) / steps))
        for close in random.sample(closers, min(len(closers), int(count))):
            self._close(close)

    def _close(self, close: Callable[[], None]) -> None:
        """Close one connection. Whatever goes wrong with it does not keep the others, or this process."""
        try:
            close()
        except Exception:
            self.log.failure("could not close a connection; draining the others")


def _readable(connection: OpenConnection) -> bool:
    """Return whether a connection has unread data."""
    poll = select.poll()
    try:
        poll.register(connection.transport.fileno(), select.POLLIN)
    except (AttributeError, TypeError, ValueError):  # no socket of its own: stock Twisted's TLS, or a test
        return False
    return bool(poll.poll(0))
