"""What supervisor and worker tell each other, and how messages are cut out of a stream of bytes.

A frame is eight bytes with the length of what follows, in network order, and a message in MessagePack.
"""

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from livestate.web.counts import Counts

M = TypeVar("M")

_LENGTH = struct.Struct(">Q")


class _Message(msgspec.Struct, array_like=True, tag=True):
    """Whose tag is its name."""


class Confirmed(_Message):
    """To a worker: the store has confirmed a document, at this time (seconds since 1970)."""

    path: str
    when: float


class Changed(_Message):
    """To a worker: a document's newest version, or more content codings of the one it has."""

    path: str
    version: int
    modified: float
    complete: bool
    #: When the fetch that brought it began: seconds since 1970; 0: nobody knows.
    begun: float
    #: Content coding, entity tag and bytes of each representation that the worker does not have.
    representations: list[tuple[str, bytes, bytes]]


class Serve(_Message):
    """To a worker: begin to accept connections; all documents that there are were sent."""


class Drain(_Message):
    """To a worker: accept no more, come to an end with all readers, and exit."""

    #: Whether all of livestate ends, and no other worker takes this one's place.
    ending: bool = False


class Reopen(_Message):
    """To a worker: open the access log anew."""


class Hello(_Message):
    """From a worker: it exists, as this process."""

    pid: int


class Ready(_Message):
    """From a worker: it accepts connections."""


class Alive(_Message):
    """From a worker, each second: it lives, and has counted this."""

    counts: Counts


class LogEntry(_Message):
    """From a worker: a line, or several, for the log."""

    level: str
    text: str


ToWorker = Confirmed | Changed | Serve | Drain | Reopen
FromWorker = Hello | Ready | Alive | LogEntry

_encode = msgspec.msgpack.Encoder().encode


def frame(message: ToWorker | FromWorker) -> bytes:
    """Give a message as a frame."""
    data = _encode(message)
    return b"%b%b" % (_LENGTH.pack(len(data)), data)


class Frames(Generic[M]):
    """Cuts frames out of what arrives, however that is cut itself."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]") -> None:
        self._decode = decoder.decode
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Take some more bytes and give the messages that are whole now.

        :raises msgspec.DecodeError: something else than a message arrived; the stream is of no use any more.
        """
        held = self._held
        held += data
        start = 0
        try:
            while len(held) - start >= _LENGTH.size:
                begin = start + _LENGTH.size
                end = begin + _LENGTH.unpack_from(held, start)[0]
                if len(held) < end:
                    break
                start = end
                # Not a copy: a large document would be held three times.
                with memoryview(held) as view, view[begin:end] as part:
                    message = self._decode(part)
                yield message
        finally:
            del held[:start]


def for_worker() -> Frames[ToWorker]:
    """Give what a worker reads its pipe with."""
    return Frames(msgspec.msgpack.Decoder(ToWorker))


def for_supervisor() -> Frames[FromWorker]:
    """Give what the supervisor reads a worker's pipe with."""
    return Frames(msgspec.msgpack.Decoder(FromWorker))
