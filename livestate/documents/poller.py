"""Asking a source again and again, and never giving up.

One LoopingCall a document. A tick is one fetch, bounded in time; where it fails, the tick goes on with retries
after growing, jittered delays until the store answers again, so that two fetches never overlap and the beat is
taken up where it was. A failure is logged once, when it begins or changes (see `reasons`), and its end once.

A source that tells of changes (`IWatching`) has the store asked at once, between the ticks, which stay as the safety
net: what it tells is a hint, and the fetch alone decides what there is. Being told is no reason to leave the backoff: a
store that is in trouble is not to be asked oftener because it talks.

States and what moves between them:

    asking --good bytes--> resting --interval, told--> asking
    asking --refused, missing--> resting (the store is there: it is asked at the usual beat)
    asking --error, time over--> waiting --backoff--> asking
    asking --told meanwhile, and answered--> asking (what was under way may have been too early to see the change)

Of a source that tells, two fetches begin at least `CLOSEST` apart: where the next one is due sooner, it is put off.

Whatever a source raises, it is asked again. Only what is meant for the process (SystemExit, KeyboardInterrupt) is not
the source's: Twisted would log it and go on, with a document that is never asked for again, so the Poller stops the
reactor.
"""

from asyncio import CancelledError as AsyncioCancelledError
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.documents.document import Document
from livestate.errors import DocumentMissing, DocumentRefused, LivestateError
from livestate.sources.api import ISource, IWatching
from livestate.system.backoff import Backoff
from livestate.system.log_throttle import LogThrottle, one_line
from livestate.system.timeouts import with_timeout

#: Seconds: the longest pause before a lost store is asked again. At an interval of a second, it and a fetch that was
#: begun just before the store came back (0.8 s) keep the promise that a store that is back is noticed within 2 s.
LONGEST_PAUSE = 1.1

#: Seconds: the longest a fetch may take, however rarely the source is asked.
LONGEST_FETCH = 10.0

#: Seconds: the least from the beginning of one fetch to that of the next, of a source that tells of changes. A store
#: that changes 1,000 times a second is asked 20 times, the most that --interval can be set to as well; and 50 ms are
#: less than half of what is felt as a delay (0.1 s: Miller 1968, Nielsen 1993).
CLOSEST = 0.05


@dataclass
class Tally:
    """What a Poller has done so far."""

    fetches: int = 0
    failures: int = 0
    #: How often the source told of a change.
    notifications: int = 0
    #: Why the source gives nothing good just now, as a line for a person; None while it does.
    trouble: str | None = None
    #: Seconds since 1970 when the trouble began.
    since: float = 0.0


class Poller(Service):
    """Keeps one Document up with one source."""

    log = Logger()

    def __init__(self, document: Document, source: ISource, interval: float, reactor: Any) -> None:
        """Ask `source` every `interval` seconds by the clock of `reactor`, once started."""
        self.document = document
        self.source = source
        self.interval = interval
        self.tally = Tally()
        #: Seconds a fetch may take: less than the interval, so that a silent store costs no beat.
        self.timeout = min(LONGEST_FETCH, 0.8 * interval)
        self._reactor = reactor
        self._backoff = Backoff(first=min(interval, 0.25), limit=LONGEST_PAUSE)
        self._reasons = LogThrottle()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._current: Deferred[None] | None = None
        self._watching: IWatching | None = IWatching(source, None)
        self._busy = False
        self._told = False
        #: When the last fetch began.
        self._begun = -CLOSEST

    def startService(self) -> None:
        """Ask for the first time, now, and then each interval, and whenever the source tells of a change."""
        super().startService()
        self._loop.start(self.interval).addErrback(self._end)
        if self._watching is not None:
            self._watching.watch(self._changed)

    def stopService(self) -> None:
        """Stop asking; a fetch under way is cancelled."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._current is not None:
            self._current.cancel()
        self.source.close()

    def fresh(self) -> bool:
        """Tell whether the document was confirmed within the last three intervals, or two seconds if longer."""
        return self.document.fresh(self.interval)

    def _end(self, failure: Failure) -> None:
        """End the process in an orderly way."""
        self.log.critical(
            "the source of {path} raised {error!r}: livestate ends", path=self.document.path, error=failure.value
        )
        # Not at once: the first fetch is made before the reactor runs.
        self._reactor.callLater(0, self._reactor.stop)

    def _tick(self) -> Deferred[None]:
        """Ask, or give the end of the asking that is going on: the loop waits for it."""
        if not self._busy:
            self._busy = True
            self._current = Deferred.fromCoroutine(self._ask_until_answered())
        assert self._current is not None  # noqa: S101  # for the type checker
        return self._current

    def _changed(self) -> None:
        """The source tells of a change."""
        self.tally.notifications += 1
        if self._busy:
            self._told = True
        else:
            self._tick().addErrback(self._end)

    async def _ask_until_answered(self) -> None:
        answered = True
        try:
            while self.running:
                delay = max(self._until_allowed(), 0 if answered else self._backoff.next_delay())
                if delay > 0:
                    await deferLater(self._reactor, delay)
                self._begun = self._reactor.seconds()
                self._told = False
                answered = await self._ask()
                if answered and not self._told:
                    return
        except CancelledError:
            pass
        finally:
            self._busy = False

    def _until_allowed(self) -> float:
        """Give the seconds until the next fetch may begin."""
        elapsed: float = self._reactor.seconds() - self._begun
        return CLOSEST - elapsed if self._watching is not None and 0 <= elapsed < CLOSEST else 0.0

    async def _ask(self) -> bool:
        """Fetch once, and tell whether the store answered, with whatever it was."""
        self.tally.fetches += 1
        try:
            data = await with_timeout(self.timeout, self.source.fetch(), self._reactor)
            await self.document.offer(data, self._begun)
        except (Exception, AsyncioCancelledError) as error:  # asyncio's CancelledError is no Exception
            # Called off at the end, drivers say so in exceptions of their own.
            if self.running:
                self._failed(error)
            if not isinstance(error, (DocumentMissing, DocumentRefused)):
                return not self.running
        else:
            self._succeeded()
        self._backoff.reset()
        return True

    def _failed(self, error: BaseException) -> None:
        """Note a failure, and log it where it is new."""
        self.tally.failures += 1
        foreseen = True
        if isinstance(error, DeferTimeout):
            trouble = f"no answer within {self.timeout:g} s"
        elif isinstance(error, LivestateError):
            trouble = one_line(str(error))
        else:
            # A fault of ours or of a driver: it must not end the polling, and it must not be hidden.
            foreseen = False
            trouble = one_line(f"{type(error).__name__}: {error}")
        if trouble == self.tally.trouble:
            return
        if self.tally.trouble is None:
            self.tally.since = self._reactor.seconds()
        self.tally.trouble = trouble
        told = self._reasons.to_log(trouble)
        if told is None:
            return
        if self.document.snapshot is None:
            effect = "nothing to serve yet, answering 503"
        else:
            effect = "still serving the last good document"
        self.log.warn(
            "{path}: {source}: {trouble}; {effect}, and asking on",
            path=self.document.path, source=str(self.source), trouble=told, effect=effect,
        )  # fmt: skip
        if not foreseen:
            self.log.failure("the source of {path} failed in a way that it should not", path=self.document.path)

    def _succeeded(self) -> None:
        if self.tally.trouble is None:
            return
        self.tally.trouble = None
        self._reasons.over()
        self.log.info(
            "{path}: {source}: good again after {seconds:.1f} s",
            path=self.document.path, source=str(self.source), seconds=self._reactor.seconds() - self.tally.since,
        )  # fmt: skip
