"""Coming to an end with all readers, and losing no request of theirs.

Theory of operation. From the beginning of a drain on, each answer says `Connection: close` (`LiveChannel.drain`), so
that who asks again and again is let go by the next answer. Who waits for a change, or reads events, is answered or
ended at a pace that the servers they go to next can bear, and so are connections that stay quiet: not at once, since
one that asks every second is better let go by an answer. A connection is not closed while there is something to be read
on it.

What is still there when the time is over reads too slowly, and is cut off.
"""

import math
import random
import select
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from livestate.web.site import LiveSite

#: Seconds between two steps.
STEP = 0.1

#: Seconds for which a quiet connection is waited for: pages that poll do so every second.
GRACE = 2.0

#: Departures a second, where that is enough: one process takes twice as many full TLS handshakes (1 ms each).
PACE = 500

#: Seconds within which all have been told to go; and after which what is left is cut off. Kubernetes kills after 30,
#: systemd after 90.
SPREAD = 8.0
LIMIT = 10.0


class ConnectionDrain:
    """The drain of one site."""

    def __init__(self, clock: Any, site: LiveSite, closers: Callable[[], Sequence[Callable[[], None]]]) -> None:
        """:param leavers: gives, for each who waits or reads events now, what lets it go."""
        self._clock = clock
        self._site = site
        self._leavers = closers
        self._began = 0.0
        self._done: Deferred[None] = Deferred()
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock

    def start(self) -> Deferred[None]:
        """Begin; done when no connection is left."""
        self._began = self._clock.seconds()
        self._site.drain()
        self._loop.start(STEP)
        return self._done

    def abort_remaining(self) -> None:
        """Cut off all who are left."""
        for channel in list(self._site.channels):
            channel.abortConnection()
        if self._loop.running:
            self._loop.stop()
            # They are told in the next turn.
            self._clock.callLater(0, self._done.callback, None)

    def _step(self) -> None:
        elapsed = self._clock.seconds() - self._began
        if not self._site.channels:
            self._loop.stop()
            self._done.callback(None)
            return
        if elapsed >= LIMIT:
            self.abort_remaining()
            return
        there = list(self._leavers())
        if elapsed >= GRACE:
            there += [channel.leave for channel in self._site.channels if channel.idle() and not _asked(channel)]
        steps = max(1.0, (SPREAD - elapsed) / STEP)
        count = max(PACE * STEP, math.ceil(len(there) / steps))
        for leave in random.sample(there, min(len(there), int(count))):
            leave()


def _asked(channel: Any) -> bool:
    """Tell whether there is something to be read on a connection."""
    poll = select.poll()
    try:
        poll.register(channel.transport.fileno(), select.POLLIN)
    except (AttributeError, TypeError, ValueError):  # no socket of its own: TLS of stock Twisted's, or a test's
        return False
    return bool(poll.poll(0))
