"""Polling a source for as long as it takes.

Each document has one LoopingCall. A tick is one fetch, bounded in time. If the fetch fails, the same tick retries after
growing, jittered delays until the store answers, so two fetches never overlap and polling then continues on its old
schedule. A failure is logged once when it starts and whenever its reason changes (see `LogThrottle`); the recovery is
logged once.

A source that can notify of changes (`IWatching`) makes the Poller fetch at once. The ticks stay as a safety net: a
notification is a hint, and only the fetch decides what the document is. A notification does not cut a back-off short,
so that a store in trouble is not asked more often because it sends notifications.

States and transitions:

    fetching --good bytes--> idle --interval, notification--> fetching
    fetching --refused, missing--> idle (the store answered, so the next tick asks it again)
    fetching --error, timeout--> waiting --back-off--> fetching
    fetching --notification meanwhile, and answered--> fetching (this fetch may have been too early to see the change)

If the source notifies of changes, two fetches start at least `MIN_FETCH_SPACING` apart; the next one is postponed if it
is due sooner.

The Poller retries whatever a source raises, except what is meant for the process (SystemExit, KeyboardInterrupt).
Twisted would log that and carry on with a document that is never fetched again, so the Poller stops the reactor.
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

#: Seconds: the longest pause before a lost store is asked again. With an interval of a second, this pause and a fetch
#: that started just before the store came back (0.8 s) keep the promise that its return is noticed within 2 s.
MAX_PAUSE = 1.1

#: Seconds: the longest time for a fetch, however long the interval.
MAX_FETCH_TIME = 10.0

#: Seconds: the minimum from the start of one fetch to the start of the next, if the source notifies of changes. A store
#: that changes 1,000 times a second is asked 20 times, which is also the most that --interval allows. And 50 ms are
#: less than half of what people notice as a delay (0.1 s: Miller 1968, Nielsen 1993).
MIN_FETCH_SPACING = 0.05


@dataclass
class PollerStats:
    """Counters and state of a Poller."""

    fetches: int = 0
    failures: int = 0
    #: How often the source notified of a change.
    notifications: int = 0
    #: Why the source currently provides no good document, in one line; None while it does.
    error: str | None = None
    #: Seconds since 1970 when the source stopped providing one.
    error_since: float = 0.0


class Poller(Service):
    """Keeps one Document up to date from one source."""

    log = Logger()

    def __init__(self, document: Document, source: ISource, interval: float, reactor: Any) -> None:
        """Poll `source` every `interval` seconds by the clock of `reactor`, once started."""
        self.document = document
        self.source = source
        self.interval = interval
        self.stats = PollerStats()
        #: Seconds allowed for a fetch: less than the interval, so that a silent store does not delay the next tick.
        self.timeout = min(MAX_FETCH_TIME, 0.8 * interval)
        self._reactor = reactor
        self._backoff = Backoff(first=min(interval, 0.25), limit=MAX_PAUSE)
        self._throttle = LogThrottle()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._current: Deferred[None] | None = None
        self._watching: IWatching | None = IWatching(source, None)
        self._busy = False
        self._notified = False
        #: When the last fetch started.
        self._fetch_started = -MIN_FETCH_SPACING

    def startService(self) -> None:
        """Fetch now, then every interval and whenever the source notifies of a change."""
        super().startService()
        self._loop.start(self.interval).addErrback(self._shut_down)
        if self._watching is not None:
            self._watching.watch(self._changed)

    def stopService(self) -> None:
        """Stop polling; cancel a fetch in progress."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._current is not None:
            self._current.cancel()
        self.source.close()

    def is_fresh(self) -> bool:
        """Return whether the document was confirmed within the last three intervals, or two seconds if longer."""
        return self.document.is_fresh(self.interval)

    def _shut_down(self, failure: Failure) -> None:
        """Stop the reactor, and with it the process."""
        self.log.critical(
            "the source of {path} raised {error!r}; shutting down", path=self.document.path, error=failure.value
        )
        # Not at once: the first fetch is made before the reactor runs.
        self._reactor.callLater(0, self._reactor.stop)

    def _tick(self) -> Deferred[None]:
        """Start fetching, unless a fetch is in progress; return its end, which the loop waits for."""
        if not self._busy:
            self._busy = True
            self._current = Deferred.fromCoroutine(self._fetch_until_answered())
        assert self._current is not None  # noqa: S101  # for the type checker
        return self._current

    def _changed(self) -> None:
        """Handle a notification from the source."""
        self.stats.notifications += 1
        if self._busy:
            self._notified = True
        else:
            self._tick().addErrback(self._shut_down)

    async def _fetch_until_answered(self) -> None:
        answered = True
        try:
            while self.running:
                delay = max(self._until_allowed(), 0 if answered else self._backoff.next_delay())
                if delay > 0:
                    await deferLater(self._reactor, delay)
                self._fetch_started = self._reactor.seconds()
                self._notified = False
                answered = await self._fetch()
                if answered and not self._notified:
                    return
        except CancelledError:
            pass
        finally:
            self._busy = False

    def _until_allowed(self) -> float:
        """Return the seconds until the next fetch may start."""
        elapsed: float = self._reactor.seconds() - self._fetch_started
        return MIN_FETCH_SPACING - elapsed if self._watching is not None and 0 <= elapsed < MIN_FETCH_SPACING else 0.0

    async def _fetch(self) -> bool:
        """Fetch once; return whether the store answered, be it with a bad document or none."""
        self.stats.fetches += 1
        try:
            data = await with_timeout(self.timeout, self.source.fetch(), self._reactor)
            await self.document.update(data, self._fetch_started)
        except (Exception, AsyncioCancelledError) as error:  # asyncio's CancelledError is no Exception
            # Drivers report being cancelled by stopService as exceptions of their own.
            if self.running:
                self._failed(error)
            if not isinstance(error, (DocumentMissing, DocumentRefused)):
                return not self.running
        else:
            self._succeeded()
        self._backoff.reset()
        return True

    def _failed(self, error: BaseException) -> None:
        """Record a failure, and log it if its reason is new."""
        self.stats.failures += 1
        foreseen = True
        if isinstance(error, DeferTimeout):
            reason = f"no answer within {self.timeout:g} s"
        elif isinstance(error, LivestateError):
            reason = one_line(str(error))
        else:
            # A bug in livestate or in a driver: it must neither end the polling nor be hidden.
            foreseen = False
            reason = one_line(f"{type(error).__name__}: {error}")
        if reason == self.stats.error:
            return
        if self.stats.error is None:
            self.stats.error_since = self._reactor.seconds()
        self.stats.error = reason
        logged = self._throttle.filter(reason)
        if logged is None:
            return
        if self.document.snapshot is None:
            effect = "nothing to serve yet, answering 503"
        else:
            effect = "serving the last good document"
        self.log.warn(
            "{path}: {source}: {error}; {effect}, retrying",
            path=self.document.path, source=str(self.source), error=logged, effect=effect,
        )  # fmt: skip
        if not foreseen:
            self.log.failure("the source of {path} failed with an unexpected error; retrying", path=self.document.path)

    def _succeeded(self) -> None:
        if self.stats.error is None:
            return
        self.stats.error = None
        self._throttle.reset()
        self.log.info(
            "{path}: {source}: recovered after {seconds:.1f} s",
            path=self.document.path, source=str(self.source), seconds=self._reactor.seconds() - self.stats.error_since,
        )  # fmt: skip
