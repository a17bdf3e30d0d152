"""A parser for server-sent events (HTML Standard, section 9.2.6, "Interpreting an event stream").

Data arrives in pieces that may end anywhere. A line ends with CR LF, LF or CR. A piece that ends with CR therefore
completes its line, and an LF at the start of the next piece belongs to that CR. Lines are split as bytes and decoded
one by one. Line endings are ASCII, so the result equals decoding the whole stream first. The pieces of an unfinished
line are kept in a list, so a large line costs the same however many pieces it arrives in.
"""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event or a line exceeds the maximum size."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event."""

    #: "message" unless the stream names another type.
    type: str
    #: The `data` lines, joined with line feeds.
    data: str
    #: The last `id` seen on the stream; empty if there was none.
    id: str


class EventStreamParser:
    """Parses one stream, starting with its first byte."""

    def __init__(self, max_size: int) -> None:
        """Start at the beginning of a stream.

        :param max_size: maximum size of one event's data, and of one line, in bytes.
        """
        #: The last `retry` seen on the stream, in milliseconds.
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
        """Parse the next bytes and return the events that they complete.

        :raises EventTooLarge: when an event or a line exceeds `max_size`. The parser cannot be used after that.
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
            event = self._process_line(b"".join(self._pieces))
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

    def _process_line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")  # a comment has an empty name
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) + len(value) > self._max_size:
                raise EventTooLarge
            self._data += value + b"\n"
        elif name == b"event":
            self._type = _decode(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _decode(value)
        elif name == b"retry" and value.isdigit():
            # More digits make no sensible delay, and int() rejects numbers of thousands of digits.
            self.retry = int(value[:12])
        return None

    def _dispatch(self) -> Event | None:
        data, event_type = self._data, self._type
        self._data, self._type = bytearray(), ""
        if not data:
            return None
        return Event(event_type or "message", _decode(data[:-1]), self._id)


def _decode(value: bytes | bytearray) -> str:
    return value.decode("utf-8", "replace")
