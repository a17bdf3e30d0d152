"""Sending a document's changes to its subscribers.

Theory of operation. Subscribers that are sent the same bytes form a SubscriberGroup: either whole states or patches, in
one Framing. Each message is encoded once per group, and the same bytes object is written to every connection, so a
change costs one `send` per subscriber and little more (`bench`'s row "events").

A broadcast is spread over turns of the reactor (`livestate.web.streams.broadcast_scheduler`): it runs for a slice of
time, the reactor serves polling clients, and it continues, until every subscriber has the newest version. If a new
version arrives in between, the remaining subscribers are sent it instead of the previous one, and then the others
are sent it too.

Messages for a slow subscriber are conflated, never queued. The transport pauses the subscriber as soon as any data is
unsent (see `livestate.net.stream`). While it is paused it is sent nothing; when it resumes, it is sent only what makes
it current. So a subscriber costs a reference to one version's bytes and what the kernel buffers.

One check of all subscribers every second sends heartbeats to the idle ones, and disconnects those that read nothing.
There is no timer per subscriber.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from twisted.logger import Logger

from livestate.documents.document import Document
from livestate.documents.history import History, Message
from livestate.documents.snapshot import Snapshot
from livestate.system.histogram import Histogram
from livestate.web.streams.broadcast_scheduler import BroadcastScheduler
from livestate.web.streams.subscriber import Subscriber

#: Subscribers that are written to between two readings of the clock.
BATCH = 16

#: Seconds for which patches are still made after the last subscriber to patches has left: it may reconnect.
LINGER = 60.0


class Framing(NamedTuple):
    """How messages are written on one kind of stream."""

    encode: Callable[[Sequence[Message]], bytes]
    #: The bytes that show that the connection is alive, and those that end the stream in an orderly way.
    heartbeat: bytes
    end: bytes
    #: The name under which its subscribers are counted.
    counted_as: str


class SubscriberGroup:
    """The subscribers of one document that are sent the same bytes."""

    __slots__ = ("_broadcast", "_remaining", "_wires", "delivering", "deltas", "framing", "subscribers")

    log = Logger()

    def __init__(self, broadcast: "Broadcast", framing: Framing, deltas: bool) -> None:
        """:param deltas: whether these subscribers accept patches."""
        self.framing = framing
        self.deltas = deltas
        self.subscribers: set[Subscriber] = set()
        self.delivering = False
        self._broadcast = broadcast
        self._remaining: Iterator[Subscriber] = iter(())
        # The bytes to send to subscribers of each version.
        self._wires: dict[int, bytes] = {}

    def add(self, subscriber: Subscriber) -> None:
        """Send every change to `subscriber` from now on."""
        self.subscribers.add(subscriber)
        self._broadcast.active[self] = None
        self._broadcast.touched()
        subscriber.lead = random.uniform(0, self._broadcast.heartbeat / 3)  # noqa: S311  # no secret

    def remove(self, subscriber: Subscriber) -> None:
        """Send nothing to `subscriber` from now on."""
        self.subscribers.discard(subscriber)
        if not self.subscribers:
            self._broadcast.active.pop(self, None)
        self._broadcast.touched()
        if self.deltas:
            self._broadcast.deltas_wanted = self._broadcast.seconds()

    def catch_up(self, subscriber: Subscriber) -> None:
        """Send one subscriber the messages that it lacks, if any."""
        broadcast = self._broadcast
        subscriber.last = broadcast.seconds()
        messages = broadcast.messages_since(subscriber.version, self.deltas)
        if messages:
            subscriber.version = messages[-1].version
            wire = broadcast.encoded(self.framing, messages)
            broadcast.sent += 1
            broadcast.sent_bytes += len(wire)
            broadcast.touched()
            subscriber.write(wire)

    def publish(self) -> None:
        """Send all subscribers the messages that they lack."""
        self._wires = {}
        if not self.subscribers:
            return
        rest = list(self._remaining)
        self._remaining = iter(dict.fromkeys(chain(rest, self.subscribers)) if rest else list(self.subscribers))
        if not self.delivering:
            self.delivering = True
            self._broadcast.scheduler.spread(self._deliver())

    def end(self) -> None:
        """Close all streams."""
        for subscriber in list(self.subscribers):
            subscriber.end(self.framing.end)

    def _deliver(self) -> Iterator[None]:
        broadcast = self._broadcast
        written = False
        try:
            while batch := list(islice(self._remaining, BATCH)):
                version, now = broadcast.history.version, broadcast.seconds()
                sent = sent_bytes = 0
                for subscriber in batch:
                    if subscriber.version == version:
                        continue
                    if not subscriber.writable:
                        broadcast.skipped += 1
                        continue
                    wire = self._wires.get(subscriber.version) or self._wire(subscriber.version)
                    if not wire:
                        continue
                    subscriber.version = version
                    subscriber.last = now
                    sent += 1
                    sent_bytes += len(wire)
                    try:
                        subscriber.write(wire)
                    except Exception:
                        self.log.failure("could not write an event; closing the connection")
                        subscriber.abort()
                broadcast.sent += sent
                broadcast.sent_bytes += sent_bytes
                broadcast.touched()
                written = written or sent > 0
                yield
        finally:
            self.delivering = False
        broadcast.delivered(written)

    def _wire(self, version: int) -> bytes:
        messages = self._broadcast.messages_since(version, self.deltas)
        if not messages:
            return b""
        wire = self._wires[version] = self._broadcast.encoded(self.framing, messages)
        return wire

    def check(self, now: float) -> Iterator[None]:
        """Send the heartbeats that are due, and disconnect the subscribers that read nothing."""
        broadcast, heartbeat = self._broadcast, self.framing.heartbeat
        subscribers, limit = iter(list(self.subscribers)), now - broadcast.heartbeat
        while batch := list(islice(subscribers, BATCH)):
            for subscriber in batch:
                if not subscriber.writable:
                    if subscriber in self.subscribers and subscriber.stuck(now):
                        subscriber.abort()
                elif subscriber.version != broadcast.history.version and not self.delivering:
                    # The document was too old to be served when it changed.
                    self.catch_up(subscriber)
                elif subscriber.last <= limit + subscriber.lead:
                    subscriber.last = now
                    subscriber.write(heartbeat)
            yield


class Broadcast:
    """Sends the changes of one document to all its subscribers."""

    __slots__ = ("_document", "_encoded", "_groups", "_servable", "_written", "active", "close", "delivery",
                 "deltas_wanted", "heartbeat", "history", "scheduler", "seconds", "sent", "sent_bytes", "skipped",
                 "touched")  # fmt: skip

    def __init__(
        self,
        scheduler: BroadcastScheduler,
        heartbeat: float,
        document: Document,
        servable: Callable[[], object],
        active: dict[SubscriberGroup, None],
        touched: Callable[[], object],
    ) -> None:
        """Subscribe to `document`.

        :param heartbeat: the maximum seconds without an event until a subscriber is sent a heartbeat.
        :param servable: returns whether the document may be served now.
        :param active: where each group is that has subscribers.
        :param touched: called when one of the counts has changed.
        """
        self.history = History(document)
        self.scheduler = scheduler
        self.seconds = scheduler.seconds
        self.heartbeat = heartbeat
        self.active = active
        self.touched = touched
        #: How many events were sent, and how many were skipped because the subscriber was too slow.
        self.sent = 0
        self.skipped = 0
        self.sent_bytes = 0
        #: Seconds from the start of the fetch that returned a change until every writable subscriber was written to. If
        #: another change arrives during a delivery, only the last one is counted.
        self.delivery = Histogram()
        self._document = document
        self._written = False
        self._servable = servable
        self._groups: dict[tuple[Framing, bool], SubscriberGroup] = {}
        self._encoded: dict[tuple[Framing, Sequence[Message]], bytes] = {}
        #: When the last subscriber to patches left.
        self.deltas_wanted = -LINGER
        #: Ends the subscription to the document, which is no longer served here.
        self.close = document.subscribe(self._publish)

    def group(self, framing: Framing, deltas: bool) -> SubscriberGroup:
        """Return the group of the subscribers with this framing that do, or do not, accept patches."""
        key = framing, deltas
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = SubscriberGroup(self, framing, deltas)
        return group

    def closers(self) -> list[Callable[[], None]]:
        """Return one function for each subscriber, which closes its stream in an orderly way."""
        return [
            partial(subscriber.end, group.framing.end) for group in self.groups() for subscriber in group.subscribers
        ]

    def subscriber_counts(self) -> Counter[str]:
        """Return the number of subscribers, by the name that their Framing is counted as."""
        counted: Counter[str] = Counter()
        for group in self.groups():
            counted[group.framing.counted_as] += len(group.subscribers)
        return counted

    def groups(self) -> Iterable[SubscriberGroup]:
        """Return all groups."""
        return list(self._groups.values())

    def delivered(self, written: bool) -> None:
        """Note that a group has been sent a change. With the last group, the delivery is complete.

        :param written: whether any subscriber was written to.
        """
        self._written = self._written or written
        if not any(group.delivering for group in self.groups()):
            if self._written and self._document.fetch_started:
                self.delivery.observe(self.seconds() - self._document.fetch_started)
                self.touched()
            self._written = False

    def messages_since(self, version: int, deltas: bool) -> Sequence[Message]:
        """Return the messages that a client with `version` lacks; none while the document is too old to be served."""
        return self.history.since(version, deltas) if self._servable() else ()

    def encoded(self, framing: Framing, messages: Sequence[Message]) -> bytes:
        """Return the bytes of some messages, encoded only once per version."""
        key = framing, messages
        wire = self._encoded.get(key)
        if wire is None:
            wire = self._encoded[key] = framing.encode(messages)
        return wire

    def _publish(self, snapshot: Snapshot) -> None:
        deltas = any(group.deltas and group.subscribers for group in self.groups())
        if self.history.add(snapshot, deltas or self.seconds() - self.deltas_wanted < LINGER):
            self._encoded.clear()
            for group in self.groups():
                group.publish()
