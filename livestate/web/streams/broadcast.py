"""Telling each reader of a document's changes what is new.

Theory of operation. Readers who are told the same in the same way are one Audience: whole states or patches, in one
Framing. What they are sent is encoded once, and the same bytes object is written to each of their connections: a change
costs a reader one `send` and little more (`bench`'s row "events").

A broadcast is spread (`livestate.web.streams.streams`): it goes on for a slice of time, then the reactor serves those who poll,
then it goes on, until all have the newest version. A version that comes meanwhile is sent to those who were not reached
yet, in place of the one before, and then to the others.

A reader is conflated, never queued. Its transport pauses it as soon as anything is left unsent (see
`livestate.net.stream`). While it is paused it is sent nothing; when it is resumed it is sent what makes it current,
whatever was in between. So what is held for a reader is a reference to one version's bytes, and what the kernel takes.

One look at all readers a second finds those who were sent nothing for a while, and are sent a sign of life, and those
who take nothing, and are cut off. There is no timer for each.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from twisted.logger import Logger

from livestate.documents.document import Document
from livestate.documents.history import History, Message
from livestate.documents.snapshot import Snapshot
from livestate.system.histogram import Histogram
from livestate.web.streams.subscriber import Subscriber

if TYPE_CHECKING:
    from livestate.web.streams.streams import Streams

#: Readers that are written to between two looks at the clock.
BATCH = 16

#: Seconds for which patches are made after the last reader of patches is gone: it may come back.
LINGER = 60.0


class Framing(NamedTuple):
    """How messages are written on one kind of stream."""

    encode: Callable[[Sequence[Message]], bytes]
    #: What shows that the connection lives, and what ends the stream in an orderly way.
    heartbeat: bytes
    end: bytes
    #: What its readers are called in `/status`.
    counted_as: str


class SubscriberGroup:
    """Readers of one document who are told the same in the same way."""

    log = Logger()

    def __init__(self, broadcast: "Broadcast", framing: Framing, deltas: bool) -> None:
        self.framing = framing
        self.deltas = deltas
        self.readers: set[Subscriber] = set()
        self._broadcast = broadcast
        self._rest: Iterator[Subscriber] = iter(())
        self.delivering = False
        # What readers of each version are to be sent.
        self._wires: dict[int, bytes] = {}

    def add(self, reader: Subscriber) -> None:
        """Tell one more."""
        self.readers.add(reader)
        reader.lead = random.uniform(0, self._broadcast.heartbeat / 3)  # noqa: S311  # no secret

    def remove(self, reader: Subscriber) -> None:
        """Tell one no more."""
        self.readers.discard(reader)
        if self.deltas:
            self._broadcast.deltas_wanted = self._broadcast.seconds()

    def catch_up(self, reader: Subscriber) -> None:
        """Send one reader what makes it current, if anything does."""
        broadcast = self._broadcast
        reader.last = broadcast.seconds()
        messages = broadcast.messages_since(reader.version, self.deltas)
        if messages:
            reader.version = messages[-1].version
            wire = broadcast.encoded(self.framing, messages)
            broadcast.sent += 1
            broadcast.sent_bytes += len(wire)
            reader.write(wire)

    def publish(self) -> None:
        """Send all readers what makes them current."""
        self._wires = {}
        rest = list(self._rest)
        self._rest = iter(dict.fromkeys(chain(rest, self.readers)) if rest else list(self.readers))
        if not self.delivering:
            self.delivering = True
            self._broadcast.spread(self._deliver())

    def _deliver(self) -> Iterator[None]:
        broadcast = self._broadcast
        written = False
        try:
            while batch := list(islice(self._rest, BATCH)):
                version, now = broadcast.history.version, broadcast.seconds()
                sent = sent_bytes = 0
                for reader in batch:
                    if reader.version == version:
                        continue
                    if not reader.writable:
                        broadcast.skipped += 1
                        continue
                    wire = self._wires.get(reader.version) or self._wire(reader.version)
                    if not wire:
                        continue
                    reader.version = version
                    reader.last = now
                    sent += 1
                    sent_bytes += len(wire)
                    try:
                        reader.write(wire)
                    except Exception:
                        self.log.failure("an event could not be written")
                        reader.abort()
                broadcast.sent += sent
                broadcast.sent_bytes += sent_bytes
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

    def look(self, now: float) -> Iterator[None]:
        """Send signs of life to those who were sent nothing for long, and cut those off who take nothing."""
        broadcast, heartbeat = self._broadcast, self.framing.heartbeat
        readers, limit = iter(list(self.readers)), now - broadcast.heartbeat
        while batch := list(islice(readers, BATCH)):
            for reader in batch:
                if not reader.writable:
                    if reader in self.readers and reader.stuck(now):
                        reader.abort()
                elif reader.version != broadcast.history.version and not self.delivering:
                    # There was a document that was too old to be given out.
                    self.catch_up(reader)
                elif reader.last <= limit + reader.lead:
                    reader.last = now
                    reader.write(heartbeat)
            yield


class Broadcast:
    """Tells all readers of one document of its changes."""

    def __init__(self, streams: "Streams", document: Document, servable: Callable[[], object]) -> None:
        """:param servable: tells whether the document may be given out just now."""
        self.history = History(document)
        self.seconds = streams.seconds
        self.spread = streams.spread
        self.heartbeat = streams.heartbeat
        #: How many events were sent, and how many were not, to readers who were behind.
        self.sent = 0
        self.skipped = 0
        self.sent_bytes = 0
        #: From the beginning of the fetch that brought a change until all who could be written to were. Of changes that
        #: overtook one another, the last is counted.
        self.delivery = Histogram()
        self._document = document
        self._written = False
        self._servable = servable
        self._audiences: dict[tuple[Framing, bool], SubscriberGroup] = {}
        self._encoded: dict[tuple[Framing, Sequence[Message]], bytes] = {}
        #: When a reader of patches was last gone.
        self.deltas_wanted = -LINGER
        document.subscribe(self._publish)

    def audience(self, framing: Framing, deltas: bool) -> SubscriberGroup:
        """Give those who are told in this way."""
        key = framing, deltas
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = SubscriberGroup(self, framing, deltas)
        return audience

    def closers(self) -> list[Callable[[], None]]:
        """Give what ends each reader's stream in an orderly way."""
        return [
            partial(reader.end, audience.framing.end) for audience in self.audiences() for reader in audience.readers
        ]

    def readers(self) -> Counter[str]:
        """Give how many readers there are, by what their Framing is counted as."""
        counted: Counter[str] = Counter()
        for audience in self.audiences():
            counted[audience.framing.counted_as] += len(audience.readers)
        return counted

    def audiences(self) -> Iterable[SubscriberGroup]:
        """Give all that there are."""
        return list(self._audiences.values())

    def delivered(self, written: bool) -> None:
        """Take note that an audience was told; the last one to be told of a change ends its delivery.

        :param written: whether any reader was written to.
        """
        self._written = self._written or written
        if not any(audience.delivering for audience in self.audiences()):
            if self._written and self._document.fetch_started:
                self.delivery.observe(self.seconds() - self._document.fetch_started)
            self._written = False

    def messages_since(self, version: int, deltas: bool) -> Sequence[Message]:
        """Give what a reader of `version` is to be told; nothing while the document is too old to be given out."""
        return self.history.since(version, deltas) if self._servable() else ()

    def encoded(self, framing: Framing, messages: Sequence[Message]) -> bytes:
        """Give the bytes of some messages, made only once for each version."""
        key = framing, messages
        wire = self._encoded.get(key)
        if wire is None:
            wire = self._encoded[key] = framing.encode(messages)
        return wire

    def _publish(self, snapshot: Snapshot) -> None:
        deltas = any(audience.deltas and audience.readers for audience in self.audiences())
        if self.history.add(snapshot, deltas or self.seconds() - self.deltas_wanted < LINGER):
            self._encoded.clear()
            for audience in self.audiences():
                audience.publish()

    def end(self) -> None:
        """End all streams."""
        for audience in self.audiences():
            for reader in list(audience.readers):
                reader.end(audience.framing.end)
