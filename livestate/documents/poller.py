"""Polling a store for as long as it takes, on behalf of all documents that come from it.

There is one StorePoller per store and interval, whatever the number of documents, with one timer. A tick polls the
store: it reads the keys that may have changed, in batches that are each bounded in time. If the store fails, the same
tick retries after growing, jittered delays until it answers, so two polls never overlap and polling then continues on
its old schedule. A failure is the store's. It is logged once when it starts and whenever its reason changes (see
`LogThrottle`), whatever the number of documents; the recovery is logged once. What is wrong with one key, while the
store answers for the others, is the error of that document alone.

Which keys a tick reads depends on the store:

- A store that can only be read (`IStore`): all keys.
- A store that notifies of changes (`IWatchingStore`): it is polled at once when it does, in addition to the ticks. If
  it names the keys that have changed and can confirm that no others have, those keys are all that is read. As a safety
  net, every key is read again once in SWEEP_TICKS ticks.

A notification is a hint, and only a read decides what a document is. A notification does not cut a back-off short, so
that a store in trouble is not asked more often because it sends notifications.

States and transitions:

    polling --all keys answered--> idle --interval, notification--> polling
    polling --error, timeout--> waiting --back-off--> polling
    polling --notification meanwhile, and answered--> polling (this poll may have been too early to see the change)

If the store notifies of changes, two polls start at least `MIN_POLL_SPACING` apart; the next one is postponed if it is
due sooner.

The age of a document counts from the last poll that found it unchanged. That is one value for all documents of a store
(`Confirmation`): a poll that confirms ten thousand documents sets one number.

The poller retries whatever a store raises, except what is meant for the process (SystemExit, KeyboardInterrupt).
Twisted would log that and carry on with documents that are never polled again, so the poller stops the reactor.
"""

import random
from asyncio import CancelledError as AsyncioCancelledError
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from livestate.documents.batches import batches
from livestate.documents.confirmation import Confirmation
from livestate.documents.polled_document import PolledDocument
from livestate.documents.poller_log import PollerLog
from livestate.errors import LivestateError
from livestate.sources.api import IStore, IWatchingStore
from livestate.system.backoff import Backoff
from livestate.system.log_throttle import one_line
from livestate.system.timeouts import with_timeout

#: Seconds: the longest pause before a lost store is polled again. With an interval of a second, this pause and a read
#: that started just before the store came back (0.8 s) keep the promise that its return is noticed within 2 s.
MAX_PAUSE = 1.1

#: Seconds: the longest time for one read, however long the interval.
MAX_READ_TIME = 10.0

#: Seconds: the minimum from the start of one poll to the start of the next, if the store notifies of changes. A store
#: that changes 1,000 times a second is polled 20 times, which is also the most that --interval allows. And 50 ms are
#: less than half of what people notice as a delay (0.1 s: Miller 1968, Nielsen 1993).
MIN_POLL_SPACING = 0.05

#: Seconds for which documents are updated before the reactor serves others: a client's response takes 10 µs.
SLICE = 0.002

#: Ticks within which each key is read at least once, even if the store confirms that it has not changed.
SWEEP_TICKS = 60


class StorePoller(Service):
    """Keeps the documents of one store up to date."""

    def __init__(self, store: IStore, interval: float, reactor: Any, spread: bool = False) -> None:
        """Poll `store` every `interval` seconds by the clock of `reactor`, once started.

        :param spread: whether there are other stores, so that their ticks should not all come at the same time.
        """
        self.store = store
        self.interval = interval
        self.polls = 0
        self.failures = 0
        self.error: str | None = None
        self.error_since = 0.0
        self.confirmation = Confirmation()
        #: Seconds allowed for one read: less than the interval, so that a silent store does not delay the next tick.
        self.timeout = min(MAX_READ_TIME, 0.8 * interval)
        self._reactor = reactor
        self._documents: dict[str, list[PolledDocument]] = {}
        #: The keys to read, in order (a set that keeps its order), and whether all of them are due.
        self._due: dict[str, None] = {}
        self._tick_due = False
        self._sweep: Iterator[str] = iter(())
        self._log = PollerLog(str(store), reactor)
        self._backoff = Backoff(first=min(interval, 0.25), limit=MAX_PAUSE)
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._spread = spread
        self._start: Any = None
        self._wake: Any = None
        self._current: Deferred[None] | None = None
        self._watching: IWatchingStore | None = IWatchingStore(store, None)
        self._busy = False
        self._notified = False
        #: When the last poll started.
        self._poll_started = -MIN_POLL_SPACING

    def add(self, polled: PolledDocument) -> None:
        """Keep one more document up to date, starting at once."""
        self._documents.setdefault(polled.key, []).append(polled)
        self._due[polled.key] = None
        if self.running and not self._busy and self._wake is None:
            # Not at once: the documents that are added together are read together.
            self._wake = self._reactor.callLater(0, self._poll_now)

    def remove(self, polled: PolledDocument) -> None:
        """Leave a document as it is."""
        there = self._documents[polled.key]
        there.remove(polled)
        if not there:
            del self._documents[polled.key]
            self._due.pop(polled.key, None)

    def documents(self) -> list[PolledDocument]:
        """Return all documents of the store."""
        return [polled for there in self._documents.values() for polled in there]

    def startService(self) -> None:
        """Poll now, then every interval and whenever the store notifies of a change."""
        super().startService()
        if self._spread:
            self._tick().addErrback(self._shut_down)
            delay = self.interval * random.uniform(0.5, 1.0)  # noqa: S311  # spreading load is no secret
            self._start = self._reactor.callLater(delay, self._start_ticking)
        else:
            self._start_ticking()
        if self._watching is not None:
            self._watching.watch(self._changed)

    def stopService(self) -> None:
        """Stop polling; cancel a poll in progress."""
        super().stopService()
        for call in (self._start, self._wake):
            if call is not None and call.active():
                call.cancel()
        if self._loop.running:
            self._loop.stop()
        if self._current is not None:
            self._current.cancel()
        self.store.close()

    def _start_ticking(self) -> None:
        self._loop.start(self.interval).addErrback(self._shut_down)

    def _shut_down(self, failure: Failure) -> None:
        """Stop the reactor, and with it the process."""
        self._log.shutting_down(failure)
        # Not at once: the first poll is made before the reactor runs.
        self._reactor.callLater(0, self._reactor.stop)

    def _tick(self) -> Deferred[None]:
        """Poll the store, unless it is being polled; return the end of that, which the loop waits for."""
        self._tick_due = True
        return self._poll()

    def _poll(self) -> Deferred[None]:
        if not self._busy:
            self._busy = True
            self._current = Deferred.fromCoroutine(self._poll_until_answered())
        assert self._current is not None  # noqa: S101  # for the type checker
        return self._current

    def _poll_now(self) -> None:
        self._wake = None
        self._poll().addErrback(self._shut_down)

    def _changed(self, key: str | None) -> None:
        """Handle a notification from the store: one key may have changed, or with None any of them."""
        for each in self._documents if key is None else (key,):
            for polled in self._documents.get(each, ()):
                polled.stats.notifications += 1
                self._due[each] = None
        if self._busy:
            self._notified = True
        elif self._due:
            self._poll_now()

    async def _poll_until_answered(self) -> None:
        answered = True
        try:
            while self.running:
                delay = max(self._until_allowed(), 0 if answered else self._backoff.next_delay())
                if delay > 0:
                    await deferLater(self._reactor, delay)
                self._poll_started = self._reactor.seconds()
                self._notified = False
                answered = await self._poll_once()
                if answered and not self._notified and not self._due:
                    return
        except CancelledError:
            pass
        finally:
            self._busy = False

    def _until_allowed(self) -> float:
        """Return the seconds until the next poll may start."""
        elapsed: float = self._reactor.seconds() - self._poll_started
        return MIN_POLL_SPACING - elapsed if self._watching is not None and 0 <= elapsed < MIN_POLL_SPACING else 0.0

    async def _poll_once(self) -> bool:
        """Read what is due; return whether the store answered."""
        started, tick = self._poll_started, self._tick_due
        if tick:
            self.polls += 1
        try:
            if tick:
                confirmed = await self._confirm()
                self._due.update(dict.fromkeys(self._next_of_sweep() if confirmed else self._documents))
            for keys in batches(self._due, self._size_of):
                for key in keys:
                    self._due.pop(key, None)
                await self._read(keys, tick)
        except (Exception, AsyncioCancelledError) as error:  # asyncio's CancelledError is no Exception
            # Drivers report being cancelled by stopService as exceptions of their own.
            if not self.running:
                return True
            self._failed(error)
            return False
        if tick:
            self._tick_due = False
            self.confirmation.confirm(started)
        self._recovered()
        return True

    async def _confirm(self) -> bool:
        """Return whether the store confirms that no key has changed but those it has notified of."""
        if self._watching is None:
            return False
        return await with_timeout(self.timeout, self._watching.confirm(), self._reactor)

    def _next_of_sweep(self) -> list[str]:
        """Return the keys that this tick reads again, changed or not."""
        count = -(-len(self._documents) // SWEEP_TICKS)
        keys = [key for key in islice(self._sweep, count) if key in self._documents]
        if len(keys) < count:
            self._sweep = iter(list(self._documents))
        return keys

    def _size_of(self, key: str) -> int:
        """Return how many bytes a key had when it was last read."""
        snapshots = (polled.document.snapshot for polled in self._documents.get(key, ()))
        return max((len(snapshot.body) for snapshot in snapshots if snapshot is not None), default=0)

    async def _read(self, keys: list[str], tick: bool) -> None:
        """Read some keys, and update their documents.

        :param tick: whether that is part of a poll of all documents.
        :raises Exception: what the store raises; the keys are due again.
        """
        try:
            values = await with_timeout(self.timeout, self.store.read(keys), self._reactor)
        except BaseException:
            self._due = {**dict.fromkeys(key for key in keys if key in self._documents), **self._due}
            raise
        for key in () if tick else keys:
            for polled in self._documents.get(key, ()):
                polled.stats.extra_fetches += 1
        updates: list[Deferred[None]] = []
        end = self._reactor.seconds() + SLICE
        for key, value in values.items():
            for polled in self._changed_among(self._documents.get(key, ()), value):
                updates.append(Deferred.fromCoroutine(self._update(polled, value)))
                if self._reactor.seconds() >= end:
                    await deferLater(self._reactor, 0)
                    end = self._reactor.seconds() + SLICE
        # Small documents are updated by now, large ones are being checked in threads.
        for update in updates:
            await update

    def _changed_among(
        self, documents: Iterable[PolledDocument], value: bytes | LivestateError
    ) -> Iterator[PolledDocument]:
        """Yield those of some documents that `value` changes; confirm the others."""
        for polled in list(documents):
            document = polled.document
            if polled.stats.own_error is None and isinstance(value, bytes) and document.confirm(value):
                document.confirmation = self.confirmation
            else:
                yield polled

    async def _update(self, polled: PolledDocument, value: bytes | LivestateError) -> None:
        """Update one document with what the store has."""
        document = polled.document
        try:
            if not isinstance(value, bytes):
                raise value
            await document.update(value, self._poll_started)
        except LivestateError as error:
            document.confirmation = None
            if polled.stats.failed(one_line(str(error)), self._reactor.seconds()):
                self._log.document_failed(polled)
        else:
            document.confirmation = self.confirmation
            since = polled.stats.recovered()
            if since is not None:
                self._log.document_recovered(polled, since)

    def _failed(self, error: BaseException) -> None:
        """Record that the store failed, and log it if the reason is new."""
        self.failures += 1
        foreseen = True
        if isinstance(error, DeferTimeout):
            reason = f"no answer within {self.timeout:g} s"
        elif isinstance(error, LivestateError):
            reason = one_line(str(error))
        else:
            # A bug in livestate or in a driver: it must neither end the polling nor be hidden.
            foreseen = False
            reason = one_line(f"{type(error).__name__}: {error}")
        if reason == self.error:
            return
        if self.error is None:
            self.error_since = self._reactor.seconds()
        self.error = reason
        self._log.store_failed(reason, foreseen, self.documents())

    def _recovered(self) -> None:
        self._backoff.reset()
        if self.error is not None:
            self.error = None
            self._log.store_recovered(self.error_since, self.documents())
