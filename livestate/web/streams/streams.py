"""All that is told to many in one process, and the reactor's time that it takes.

Work for thousands of connections is done bit by bit: a SLICE of time in each turn of the reactor, each piece of work in
turn, so that those who poll are served meanwhile. Twisted's Cooperator does that.
"""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import Cooperator, LoopingCall
from twisted.logger import Logger

from livestate.documents.document import Document
from livestate.web.streams.broadcast import Broadcast

#: Seconds that such work goes on before others are served: a poller's answer takes 10 µs, and is to wait for no more
#: than a few hundred others' would make it.
SLICE = 0.002

#: Seconds between two looks at all readers, at most. 15,000 take a look about 2 ms.
LOOK = 1.0


class Streams(Service):
    """All broadcasts of this process, which share one turn of the reactor's time."""

    log = Logger()

    def __init__(self, clock: Any, heartbeat: float) -> None:
        """:param heartbeat: seconds of silence after which a reader is sent a sign of life, at the latest."""
        self.seconds: Callable[[], float] = clock.seconds
        self.heartbeat = heartbeat
        self._broadcasts: list[Broadcast] = []
        self._at_end: list[Callable[[], None]] = []
        self._cooperator = Cooperator(self._slice, lambda go_on: clock.callLater(0, go_on))
        self._looking = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def broadcast(self, document: Document, servable: Callable[[], object]) -> Broadcast:
        """Give `document` its Broadcast."""
        broadcast = Broadcast(self, document, servable)
        self._broadcasts.append(broadcast)
        self.on_stop(broadcast.end)
        return broadcast

    def on_stop(self, end: Callable[[], None]) -> None:
        """Have `end` called when the service stops."""
        self._at_end.append(end)

    def spread(self, work: Iterator[None]) -> None:
        """Do some work bit by bit, in turn with all other such work, a slice of time in each turn of the reactor."""
        self._cooperator.coiterate(work).addErrback(lambda failure: self.log.failure("a broadcast failed", failure))

    def startService(self) -> None:
        """Begin to look after the readers."""
        super().startService()
        self._loop.start(min(LOOK, self.heartbeat / 4), now=False)

    def stopService(self) -> None:
        """End all streams."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        for end in self._at_end:
            end()

    def _slice(self) -> Callable[[], bool]:
        end = self.seconds() + SLICE
        return lambda: self.seconds() >= end

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            self.spread(self._look_at_all(self.seconds()))

    def _look_at_all(self, now: float) -> Iterator[None]:
        try:
            for broadcast in self._broadcasts:
                for audience in broadcast.audiences():
                    yield from audience.look(now)
        finally:
            self._looking = False
