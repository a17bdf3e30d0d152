"""Ending connections that are quiet for too long: one look at all of them every few seconds."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from livestate.web.http1.timed_channel import TimedChannel

#: Seconds between two looks. 30,000 connections take a look about 3 ms.
BEAT = 5.0

#: Looks after which a connection is ended: quiet between requests (60 to 65 s; a page that polls each second is far
#: from it, and one that polls each minute is kept), with a request unfinished (20 to 25 s; it arrives in one piece from
#: all but the slowest), and ended, but with the reader not taking what was still to be sent (then it is cut off).
QUIET = 13
UNFINISHED = 5
LINGERING = 2


class IdleTimeouts(Service):
    """Looks at the channels of some sites."""

    def __init__(self, clock: Any, channels: Callable[[], Iterable[TimedChannel]]) -> None:
        """:param channels: gives the open ones."""
        self._channels = channels
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock
        self._ending: dict[TimedChannel, int] = {}

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(BEAT, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Count each channel up, and end those whose time is over."""
        ending: dict[TimedChannel, int] = {}
        for channel in list(self._channels()):
            if channel in self._ending:
                ending[channel] = self._ending[channel] + 1
                if ending[channel] >= LINGERING:
                    channel.abortConnection()
                continue
            if channel.unfinished is not None:
                channel.unfinished += 1
            channel.quiet += 1
            if channel.overdue(QUIET, UNFINISHED):
                ending[channel] = 0
                channel.loseConnection()
        self._ending = ending
