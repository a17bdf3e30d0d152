"""A document: its newest Snapshot, the time of its last confirmation, and its subscribers.

The Poller passes the bytes that it fetched to `Document.update`. Bytes equal to the current ones cost one comparison.
New bytes are checked first; if they are refused, nothing changes. A large document is checked and compressed in a
thread, so that the reactor keeps serving. It is published at once without content codings, and again as each coding
becomes ready.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from livestate.documents.confirmation import Confirmation
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
    """One served document."""

    def __init__(self, reactor: Any, path: str, max_size: int) -> None:
        """Create a Document without a snapshot.

        :param reactor: provides the time and the thread pool.
        :param max_size: bytes; larger documents are refused.
        """
        self.path = path
        self.max_size = max_size
        self.snapshot: Snapshot | None = None
        #: Seconds since 1970 of the last fetch of this document alone that returned it, changed or not.
        self._confirmed = 0.0
        self._confirmation: Confirmation | None = None
        #: How many updates changed the document, and how many were refused.
        self.changes = 0
        self.refusals = 0
        #: Seconds since 1970 at which the fetch of the newest snapshot started; 0: not fetched by this process.
        self.fetch_started = 0.0
        #: From the start of a fetch until the change that it brought was published.
        self.publication_delay = Histogram()
        self._reactor = reactor
        self._refused: tuple[bytes, str] | None = None
        self._subscribers: dict[object, Callable[[Snapshot], None]] = {}
        #: Called when the store has confirmed this document alone, or its `confirmation` is another one.
        self.on_confirmed: Callable[[], None] = lambda: None

    @property
    def confirmed(self) -> float:
        """Seconds since 1970 when the store last confirmed this document, changed or not; 0: never."""
        shared = self._confirmation
        return self._confirmed if shared is None or shared.at < self._confirmed else shared.at

    @confirmed.setter
    def confirmed(self, at: float) -> None:
        self._confirmed = at

    @property
    def confirmation(self) -> Confirmation | None:
        """What confirms this document together with others of its store; None: nothing does at the moment."""
        return self._confirmation

    @confirmation.setter
    def confirmation(self, shared: Confirmation | None) -> None:
        if shared is not self._confirmation:
            self._confirmed = self.confirmed
            self._confirmation = shared
            self.on_confirmed()

    def confirm(self, data: bytes) -> bool:
        """Return whether the store has the current bytes, and if so, record that it has confirmed them."""
        if self.snapshot is None or data != self.snapshot.body:
            return False
        self._confirmed = self._reactor.seconds()
        self._refused = None
        if self._confirmation is None:
            self.on_confirmed()
        return True

    def age(self) -> float:
        """Return the seconds since the store last confirmed this document; meaningless without a snapshot."""
        now: float = self._reactor.seconds()
        return max(0.0, now - self.confirmed)

    def subscribe(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call `callback` with each new Snapshot, in the reactor's thread.

        This includes a Snapshot that only gained a content coding.

        :return: a function that ends the subscription.
        """
        key = object()
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def is_fresh(self, interval: float) -> bool:
        """Return whether it was confirmed within the last three intervals, or two seconds if that is longer.

        :param interval: seconds between two polls of its source.
        """
        return self.snapshot is not None and self.age() <= max(2.0, 3 * interval)

    def restore(self, snapshot: Snapshot, confirmed: float, fetch_started: float = 0.0) -> None:
        """Publish a snapshot from elsewhere: saved by an earlier run, or received from another process.

        :param fetch_started: seconds since 1970; 0: long ago.
        """
        self._confirmed = confirmed
        self.fetch_started = fetch_started
        self._publish(snapshot)

    async def update(self, data: bytes, fetch_started: float = 0.0) -> None:
        """Check and publish bytes from the store; return when every content coding is published.

        :param fetch_started: seconds since 1970; 0: unknown.
        :raises DocumentRefused: when the bytes cannot be served; the current snapshot stays.
        """
        fetched = self._reactor.seconds()
        if self.confirm(data):
            return
        await self._check(data)
        self._confirmed = fetched
        self.changes += 1
        previous = self.snapshot.version if self.snapshot is not None else 0
        if len(data) < LARGE:
            self._publish_change(with_all_codings(new_snapshot(data, fetched, previous)), fetch_started)
            return
        # In a thread too: hashing 5 MB for the entity tag takes 5 ms.
        snapshot: Snapshot = await self._in_thread(new_snapshot, data, fetched, previous)
        self._publish_change(snapshot, fetch_started)
        *_, last = ENCODERS
        for coding in ENCODERS:
            encoded: Snapshot = await self._in_thread(with_coding, snapshot, coding)
            if coding == last:
                encoded = completed(encoded)
            # A coding that does not make the document smaller is left out, and is not worth another publication.
            if encoded is not snapshot:
                snapshot = encoded
                self._publish(snapshot)

    async def _check(self, data: bytes) -> None:
        # A bad document comes back with every poll until someone fixes it, so the verdict is remembered.
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

    def _publish_change(self, snapshot: Snapshot, fetch_started: float) -> None:
        self.fetch_started = fetch_started
        self._publish(snapshot)
        if fetch_started:
            self.publication_delay.observe(self._reactor.seconds() - fetch_started)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for callback in list(self._subscribers.values()):
            callback(snapshot)
