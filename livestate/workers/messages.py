"""The messages between supervisor and worker, and their framing on a byte stream.

A frame is the length of the message (eight bytes in network order), followed by the message in MessagePack.
"""

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from livestate.web.counts import Counts

M = TypeVar("M")

_LENGTH = struct.Struct(">Q")


class _Message(msgspec.Struct, array_like=True, tag=True):
    """A message, encoded as an array of its class name and its fields."""


class Confirmed(_Message):
    """To a worker: the store has confirmed a document, at this time (seconds since 1970)."""

    path: str
    when: float
    #: The number of the confirmation that it shares with other documents of its store; 0: it shares none.
    shared: int = 0


class AllConfirmed(_Message):
    """To a worker: a store has confirmed all documents that share one confirmation, at this time."""

    shared: int
    when: float


class Changed(_Message):
    """To a worker: the newest version of a document. The worker makes the content codings that it is asked for."""

    path: str
    version: int
    modified: float
    #: When the fetch that brought this version began, in seconds since 1970; 0 when unknown.
    fetch_started: float
    #: The entity tag of the body: hashing a large one takes milliseconds.
    etag: bytes
    body: bytes


class Serve(_Message):
    """To a worker: start accepting connections. All documents that exist have been sent before."""


class Drain(_Message):
    """To a worker: stop accepting, close all connections in an orderly way, and exit."""

    #: Whether all of livestate is stopping, and no other worker replaces this one.
    shutdown: bool = False


class Reopen(_Message):
    """To a worker: reopen the access log."""


class Hello(_Message):
    """From a worker: it has started, with this process id."""

    pid: int


class Ready(_Message):
    """From a worker: it accepts connections."""


class Alive(_Message):
    """From a worker, every second: the heartbeat, with its counters.

    Among those of documents are only the counters that have changed since the last heartbeat.
    """

    counts: Counts


class LogEntry(_Message):
    """From a worker: one line, or several, for the log."""

    level: str
    text: str


ToWorker = Confirmed | AllConfirmed | Changed | Serve | Drain | Reopen
FromWorker = Hello | Ready | Alive | LogEntry

_encode = msgspec.msgpack.Encoder().encode


def frame(message: ToWorker | FromWorker) -> bytes:
    """Return a message as a frame."""
    data = _encode(message)
    return b"%b%b" % (_LENGTH.pack(len(data)), data)


class FrameDecoder(Generic[M]):
    """Decodes the messages of a byte stream, however the stream is split into pieces."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]") -> None:
        self._decode = decoder.decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Accept more bytes, and yield the messages that are complete.

        :raises msgspec.DecodeError: when something else than a message arrives; the stream is unusable from then on.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                begin = start + _LENGTH.size
                end = begin + _LENGTH.unpack_from(buffer, start)[0]
                if len(buffer) < end:
                    break
                start = end
                # A view, not a copy: with a copy, a large document would be in memory three times.
                with memoryview(buffer) as view, view[begin:end] as part:
                    message = self._decode(part)
                yield message
        finally:
            del buffer[:start]


def worker_decoder() -> FrameDecoder[ToWorker]:
    """Return a decoder of the messages that a worker receives."""
    return FrameDecoder(msgspec.msgpack.Decoder(ToWorker))


def supervisor_decoder() -> FrameDecoder[FromWorker]:
    """Return a decoder of the messages that the supervisor receives from one worker."""
    return FrameDecoder(msgspec.msgpack.Decoder(FromWorker))
