"""Parsing replies of Redis (RESP2): incrementally, within bounds, and fast.

https://redis.io/docs/latest/develop/reference/protocol-spec/. txredisapi's parser takes a turn of the reactor for each
value: a batch of 200 values takes as many turns, and a thousand reports of changes per second (three values each) fall
behind. This one parses what has arrived in one go.
"""

import re
from collections.abc import Iterator

from txredisapi import ResponseError

#: A status, an error, an integer, or a number of bytes or elements.
_LINE = re.compile(rb"[+-]|:-?[0-9]{1,19}$|[$*](-1|[0-9]{1,10})$")

#: Bytes of the longest line.
MAX_LINE = 16384

#: The maximum number of lines in one reply. The reply to GET has one; a Sentinel uses some 40 lines for each replica,
#: and a cluster some 20 for each range of slots. An endless array would block the reactor.
MAX_LINES = 16384

#: Bytes: a value up to this size is always accepted. Names and addresses may be longer than a very small --max-size,
#: and the size of a document is checked again later.
ALWAYS_ACCEPTED = 1024

#: Bytes that one reply may have in addition to its values: its lines, and anything received together with its end.
MARGIN = 256 * 1024


class NotAReply(Exception):
    """What arrived is not from Redis, or larger than it may be."""


class TooLarge(NotAReply):
    """A value is larger than it may be. It was not read."""


class ReplyParser:
    """Parses the replies of one connection."""

    def __init__(self, max_size: int) -> None:
        """:param max_size: the maximum size of one value in bytes."""
        self._max_size = max_size
        #: The maximum number of values of that size in one reply.
        self.max_values = 1
        self._buffer = bytearray()
        #: The bytes and lines received so far of the current reply.
        self._bytes = self._lines = 0
        #: The length of the value that is being received; None between two.
        self._length: int | None = None
        #: The arrays that are being received, the innermost last, each with the number of its elements.
        self.arrays: list[tuple[list[object], int]] = []

    def feed(self, data: bytes) -> Iterator[object]:
        """Parse some more bytes, and yield each reply that is complete.

        A reply is a str (a status), an int, bytes, None, a list, or a ResponseError, which is yielded and not raised.

        :raises NotAReply: the bytes are of no use; nothing can be parsed after them.
        """
        buffer = self._buffer
        buffer += data
        self._bytes += len(data)
        if self._bytes > self._max_size * self.max_values + MARGIN:
            raise NotAReply(f"the reply is too long: more than {self._max_size:,} bytes (--max-size)")
        position = 0
        try:
            while True:
                if self._length is None:
                    end = buffer.find(b"\r\n", position)
                    if (end if end >= 0 else len(buffer)) - position > MAX_LINE:
                        raise NotAReply("not a Redis reply")
                    if end < 0:
                        return
                    complete, value = self._line(bytes(buffer[position:end]))
                    position = end + 2
                    if not complete:
                        continue
                else:
                    end = position + self._length
                    if len(buffer) < end + 2:
                        return
                    value = bytes(memoryview(buffer)[position:end])
                    position = end + 2
                    self._length = None
                if self._put(value):
                    self._bytes, self._lines = len(buffer) - position, 0
                    yield self._reply
        finally:
            del buffer[:position]

    def _line(self, line: bytes) -> tuple[bool, object]:
        """Return whether a line is a whole value, and that value."""
        self._lines += 1
        kind, rest = line[:1], line[1:]
        if self._lines > MAX_LINES or not _LINE.match(line):
            raise NotAReply("not a Redis reply")
        if kind in b"+-":
            try:
                text = rest.decode()
            except UnicodeDecodeError:
                raise NotAReply("not a Redis reply") from None
            return True, text if kind == b"+" else ResponseError(text[4:] if text.startswith("ERR ") else text)
        number = int(rest)
        if kind == b":":
            return True, number
        if number < 0:
            return True, None
        if kind == b"*":
            if number:
                self.arrays.append(([], number))
            return not number, []
        if number > max(self._max_size, ALWAYS_ACCEPTED):
            # Refused before it is read: otherwise a value of 1 GB would be held in memory first.
            raise TooLarge(f"the value has {number:,} bytes, and --max-size is {self._max_size:,}")
        self._length = number
        return False, None

    def _put(self, value: object) -> bool:
        """Add a value to the arrays that are being received; return whether the reply is complete, in `_reply`."""
        while self.arrays:
            items, count = self.arrays[-1]
            items.append(value)
            if len(items) < count:
                return False
            self.arrays.pop()
            value = items
        self._reply = value
        return True
