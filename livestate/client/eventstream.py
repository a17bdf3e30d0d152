"""Taking a stream of server-sent events apart (HTML Standard, section 9.2.6, "Interpreting an event stream").

Bytes come in pieces that end anywhere. A line ends with CR LF, LF or CR, so a piece that ends with CR has ended its
line, and an LF that begins the next piece belongs to it. Lines are found in bytes and decoded one by one: the ends of
lines are ASCII, so the text is that of the whole stream decoded. Pieces of a line are kept in a list until its end,
so a large line in many pieces costs no more than one in few.
"""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event has more bytes than it may."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was dispatched."""

    #: "message" where the stream names no other.
    type: str
    #: The `data` lines, with line feeds between them.
    data: str
    #: The last `id` of the stream so far; empty where there was none.
    id: str


class EventStreamParser:
    """One stream, from its first byte."""

    def __init__(self, max_size: int) -> None:
        """Begin a stream.

        :param max_size: bytes that the data of one event, or one line, may have.
        """
        #: Milliseconds: the last `retry` of the stream so far.
        self.retry: int | None = None
        self._max_size = max_size
        self._start: bytes | None = b""
        self._after_cr = False
        self._pieces: list[bytes] = []
        self._line_size = 0
        self._data = bytearray()
        self._type = ""
        self._id = ""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes, and give the events that they complete.

        :raises EventTooLarge: an event or a line has more bytes than it may; the stream is of no more use.
        """
        if self._start is not None:
            data = self._start + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._start = data
                return []
            self._start = None
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        *lines, rest = _LINE_END.split(data)
        events = []
        for line in lines:
            self._pieces.append(line)
            event = self._line(b"".join(self._pieces))
            self._pieces.clear()
            self._line_size = 0
            if event is not None:
                events.append(event)
        if rest:
            self._pieces.append(rest)
            self._line_size += len(rest)
            if self._line_size > self._max_size + len(b"data: "):
                raise EventTooLarge
        self._after_cr = data.endswith(b"\r") if data else self._after_cr
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")  # a comment has an empty name
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) + len(value) > self._max_size:
                raise EventTooLarge
            self._data += value + b"\n"
        elif name == b"event":
            self._type = _text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry" and value.isdigit():
            # Longer ones are no time to wait; int() refuses those of thousands of digits.
            self.retry = int(value[:12])
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._type
        self._data, self._type = bytearray(), ""
        if not data:
            return None
        return Event(kind or "message", _text(data[:-1]), self._id)


def _text(value: bytes | bytearray) -> str:
    return value.decode("utf-8", "replace")
