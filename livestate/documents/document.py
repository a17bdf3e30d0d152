"""A document: its newest Snapshot, the time of its last confirmation, and its subscribers.

The Poller passes the bytes that it fetched to `Document.update`. Bytes equal to the current ones cost one comparison.
New bytes are checked first; if they are refused, nothing changes. A large document is checked in a thread, so that the
reactor keeps serving. Content codings are made when clients ask for them (`livestate.documents.codings`).

There may be tens of thousands of documents, most of which no one asks for at any moment. So what only some of them need
is made when it is first needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from livestate.documents.codings import Codings
from livestate.documents.confirmation import Confirmation
from livestate.documents.snapshot import LARGE, Snapshot, check, new_snapshot
from livestate.errors import DocumentRefused
from livestate.system.histogram import Histogram


def _ignore() -> None:
    pass


class Document:
    """One served document."""

    __slots__ = (
        "_codings",
        "_confirmation",
        "_confirmed",
        "_publication_delay",
        "_reactor",
        "_refused",
        "_subscribers",
        "changes",
        "fetch_started",
        "max_size",
        "on_confirmed",
        "path",
        "refusals",
        "snapshot",
    )

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
        self._reactor = reactor
        self._refused: tuple[bytes, str] | None = None
        self._subscribers: dict[object, Callable[[Snapshot], None]] = {}
        self._codings: Codings | None = None
        self._publication_delay: Histogram | None = None
        #: Called when the store has confirmed this document alone, or its `confirmation` is another one.
        self.on_confirmed: Callable[[], None] = _ignore

    @property
    def publication_delay(self) -> Histogram:
        """From the start of a fetch until the change that it brought was published, in seconds."""
        return self._publication_delay or Histogram()

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

        This includes one of the current version that has gained a content coding.

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

    def ask(self, codings: Sequence[str]) -> Snapshot | None:
        """Return the current snapshot; before that, make the coding that a client prefers, if that is done at once.

        A coding of a large document takes longer. It is published when it is ready.

        :param codings: the content codings that the client accepts, best first.
        """
        if self.snapshot is not None:
            if self._codings is None:
                self._codings = Codings(self._reactor, self)
            self._codings.ask(codings)
        return self.snapshot

    def making(self, codings: Sequence[str]) -> bool:
        """Return whether the coding that a client prefers is still being made.

        :param codings: as for `ask`.
        """
        return self._codings is not None and self._codings.making(codings)

    def restore(self, snapshot: Snapshot, confirmed: float, fetch_started: float = 0.0) -> None:
        """Publish a snapshot from elsewhere: saved by an earlier run, or received from another process.

        :param fetch_started: seconds since 1970; 0: long ago.
        """
        self._confirmed = confirmed
        self.fetch_started = fetch_started
        self._publish(snapshot)

    def take_over(self, previous: "Document") -> None:
        """Publish the snapshot of the document that this one replaces. The codings in use there are in use here."""
        if previous.snapshot is not None:
            if previous._codings is not None:
                self._codings = Codings(self._reactor, self, previous._codings)
            self.restore(previous.snapshot, previous.confirmed)

    async def update(self, data: bytes, fetch_started: float = 0.0) -> None:
        """Check and publish bytes from the store; return when the content codings that are in use are published.

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
            snapshot = new_snapshot(data, fetched, previous)
        else:
            # In a thread too: hashing 5 MB for the entity tag takes 5 ms.
            snapshot = await self._in_thread(new_snapshot, data, fetched, previous)
        self.fetch_started = fetch_started
        self._publish(snapshot)
        if fetch_started:
            if self._publication_delay is None:
                self._publication_delay = Histogram()
            self._publication_delay.observe(self._reactor.seconds() - fetch_started)
        if self._codings is not None:
            # A document that changes faster than it can be compressed is fetched less often, not served uncompressed.
            await self._codings.finished()

    def codings_changed(self, snapshot: Snapshot) -> None:
        """Publish the current version with another coding, or with the knowledge that a coding is useless."""
        self.snapshot = snapshot
        self._notify(snapshot)

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

    def _publish(self, snapshot: Snapshot) -> None:
        if self._codings is not None:
            snapshot = self._codings.prepare(snapshot)
        self.snapshot = snapshot
        self._notify(snapshot)
        if self._codings is not None:
            self._codings.start()

    def _notify(self, snapshot: Snapshot) -> None:
        for callback in list(self._subscribers.values()):
            callback(snapshot)
