"""Closing all connections without losing a request.

Theory of operation. From the start of a drain, each response says `Connection: close` (`LiveChannel.drain`), so that a
client that polls leaves with its next response. Long polls are answered and streams are closed at a pace that the
servers that these clients go to next can bear. So are connections that stay quiet, but not at once: a client that polls
every second is better drained by a response. A connection is not closed while there is something to read on it.

What is left when the time is over reads too slowly, and is aborted.
"""

import math
import random
import select
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from livestate.web.http1.connections import Connections, OpenConnection

#: Seconds between two steps.
STEP = 0.1

#: Seconds after which quiet connections are closed too: pages that poll do so every second.
GRACE = 2.0

#: Connections closed per second, where that is enough: one process takes twice as many full TLS handshakes (1 ms each).
PACE = 500

#: Seconds within which all are closed in an orderly way, and after which what is left is aborted. Kubernetes kills
#: after 30 s, systemd after 90 s.
SPREAD = 8.0
LIMIT = 10.0


class ConnectionDrain:
    """The drain of one site."""

    def __init__(
        self, clock: Any, connections: Connections, closers: Callable[[], Sequence[Callable[[], None]]]
    ) -> None:
        """:param closers: returns a function for each long poll and stream that is open, which closes it."""
        self._clock = clock
        self._connections = connections
        self._closers = closers
        self._started = 0.0
        self._done: Deferred[None] = Deferred()
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock

    def start(self) -> Deferred[None]:
        """Start draining; the Deferred fires when no connection is left."""
        self._started = self._clock.seconds()
        self._connections.drain()
        self._loop.start(STEP)
        return self._done

    def abort_remaining(self) -> None:
        """Abort all connections that are left."""
        for connection in list(self._connections.open):
            connection.abortConnection()
        if self._loop.running:
            self._loop.stop()
            # Their `connectionLost` is called in the next turn.
            self._clock.callLater(0, self._done.callback, None)

    def _step(self) -> None:
        elapsed = self._clock.seconds() - self._started
        if not self._connections.open:
            self._loop.stop()
            self._done.callback(None)
            return
        if elapsed >= LIMIT:
            self.abort_remaining()
            return
        closers = list(self._closers())
        if elapsed >= GRACE:
            closers += [
                connection.leave
                for connection in self._connections.open
                if connection.idle() and not _readable(connection)
            ]
        steps = max(1.0, (SPREAD - elapsed) / STEP)
        count = max(PACE * STEP, math.ceil(len(closers) / steps))
        for close in random.sample(closers, min(len(closers), int(count))):
            close()


def _readable(connection: OpenConnection) -> bool:
    """Return whether there is something to read on a connection."""
    poll = select.poll()
    try:
        poll.register(connection.transport.fileno(), select.POLLIN)
    except (AttributeError, TypeError, ValueError):  # no socket of its own: stock Twisted's TLS, or a test's
        return False
    return bool(poll.poll(0))
