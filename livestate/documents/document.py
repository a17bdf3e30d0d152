"""A document as it stands: its newest Snapshot, how sure of it we are, and who wants to hear of the next.

What a store gives is offered to the Document. Bytes equal to those it has cost nothing but a comparison; new
ones are checked, and a bad one is refused and changes nothing. A large one is checked and coded in a thread,
so that the reactor goes on serving; it is published at once as plain bytes, and again with each content coding
as it comes.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from livestate.documents.snapshot import (
    ENCODERS,
    LARGE,
    Snapshot,
    check,
    completed,
    new_snapshot,
    with_all_codings,
    with_coding,
)
from livestate.errors import DocumentRefused
from livestate.system.histogram import Histogram


class Document:
    """One document that is being served."""

    def __init__(self, reactor: Any, path: str, max_size: int) -> None:
        """Make a Document that has nothing to show yet.

        :param reactor: gives the time and the thread pool.
        :param max_size: bytes; larger ones are refused.
        """
        self.path = path
        self.max_size = max_size
        self.snapshot: Snapshot | None = None
        #: Seconds since 1970 of the last fetch that gave a good document, changed or not.
        self.confirmed = 0.0
        #: How many snapshots differed from the one before, and how many offers were refused.
        self.changes = 0
        self.refusals = 0
        #: Seconds since 1970 when the fetch began that brought the newest snapshot; 0: none of this process did.
        self.begun = 0.0
        #: From the beginning of a fetch until the change that it brought was published.
        self.publication = Histogram()
        self._reactor = reactor
        self._refused: tuple[bytes, str] | None = None
        self._subscribers: dict[object, Callable[[Snapshot], None]] = {}
        #: Called when the store has confirmed the document and nothing has changed.
        self.on_confirmed: Callable[[], None] = lambda: None

    def age(self) -> float:
        """Give the seconds since the store last confirmed this document; meaningless while there is none."""
        now: float = self._reactor.seconds()
        return max(0.0, now - self.confirmed)

    def subscribe(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Have `callback` called with each Snapshot from now on, and give what ends that.

        It is called in the reactor's thread, also when a Snapshot only gained a content coding.
        """
        key = object()
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def fresh(self, interval: float) -> bool:
        """Tell whether it was confirmed within the last three intervals, or two seconds if longer.

        :param interval: seconds between two questions to its source.
        """
        return self.snapshot is not None and self.age() <= max(2.0, 3 * interval)

    def restore(self, snapshot: Snapshot, confirmed: float, begun: float = 0.0) -> None:
        """Show what an earlier run saved, or another process has, until there is something newer.

        :param begun: seconds since 1970 when the fetch that brought it began; 0: that is long past.
        """
        self.confirmed = confirmed
        self.begun = begun
        self._publish(snapshot)

    async def offer(self, data: bytes, begun: float = 0.0) -> None:
        """Take what the store has just given; done when every form of it is published.

        :param begun: seconds since 1970 when it began to be fetched; 0: nobody knows.
        :raises DocumentRefused: it is not to be served; the last good one stays.
        """
        fetched = self._reactor.seconds()
        if self.snapshot is not None and data == self.snapshot.body:
            self.confirmed = fetched
            self._refused = None
            self.on_confirmed()
            return
        await self._check(data)
        self.confirmed = fetched
        self.changes += 1
        previous = self.snapshot.version if self.snapshot is not None else 0
        if len(data) < LARGE:
            self._publish_change(with_all_codings(new_snapshot(data, fetched, previous)), begun)
            return
        # In a thread too: the entity tag's hash of 5 MB takes 5 ms.
        snapshot: Snapshot = await self._in_thread(new_snapshot, data, fetched, previous)
        self._publish_change(snapshot, begun)
        *_, last = ENCODERS
        for coding in ENCODERS:
            coded: Snapshot = await self._in_thread(with_coding, snapshot, coding)
            if coding == last:
                coded = completed(coded)
            # Published again only where there is news: a coding that does not make it smaller is none.
            if coded is not snapshot:
                snapshot = coded
                self._publish(snapshot)

    async def _check(self, data: bytes) -> None:
        # A bad document is offered again each second until it is mended: its verdict is kept.
        if self._refused is not None and self._refused[0] == data:
            self.refusals += 1
            raise DocumentRefused(self._refused[1])
        try:
            if LARGE <= len(data) <= self.max_size:
                await self._in_thread(check, data, self.max_size)
            else:
                check(data, self.max_size)
        except DocumentRefused as error:
            self.refusals += 1
            self._refused = (data, str(error))
            raise
        self._refused = None

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)

    def _publish_change(self, snapshot: Snapshot, begun: float) -> None:
        self.begun = begun
        self._publish(snapshot)
        if begun:
            self.publication.observe(self._reactor.seconds() - begun)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for callback in list(self._subscribers.values()):
            callback(snapshot)
