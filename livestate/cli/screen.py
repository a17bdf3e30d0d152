"""A terminal that shows one document, live.

The terminal's alternate screen is used, so that what was there before is there again at the end. A row is written only
where it differs from what stands there, all rows of a change in one write, inside of a synchronized update (DEC private
mode 2026) for terminals that know it: nothing flickers.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

from livestate.cli.outline import Changes, Line, changes, fill, outline
from livestate.client import State, Status

#: Seconds for which a change is lit up.
LIT = 3.0

# Alternate screen, cursor off, no wrapping of lines, and back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Screen:
    """Shows states as they come."""

    def __init__(
        self, clock: Any, url: str, write: Callable[[bytes], None], size: Callable[[], tuple[int, int]]
    ) -> None:
        """Be ready to `open`.

        :param url: is named in the last line.
        :param write: takes what is for the terminal.
        :param size: gives its columns and rows.
        """
        self._clock = clock
        self._url = url
        self._write = write
        self._size = size
        self._state: State | None = None
        self._part: Any = None
        self._changes: Changes = None
        self._since = 0.0
        self._status = Status(connected=False, transport="events")
        self._note = ""
        #: What stands on the screen, row by row; None: unknown, for the whole of it.
        self._shown: list[str] | None = None
        self._shown_size = (0, 0)
        self._beat = LoopingCall(self.draw)
        self._beat.clock = clock

    def open(self) -> None:
        """Take over the terminal, and draw at least each second."""
        self.enter()
        self._beat.start(1.0)

    def show(self, part: Any, state: State) -> None:
        """Show `part` of a new state, and light up what changed in it."""
        self._changes = changes(self._part, part) if self._state is not None else None
        self._part, self._state, self._note = part, state, ""
        self._since = self._clock.seconds()
        self.draw()

    def missing(self, text: str) -> None:
        """Say why there is nothing new to show."""
        self._note = text
        self.draw()

    def status(self, status: Status) -> None:
        """Show how it stands with the server."""
        self._status = status
        self.draw()

    def enter(self) -> None:
        """Take over the terminal, also anew."""
        self._shown = None
        self._write(_ENTER.encode())

    def leave(self) -> None:
        """Give the terminal back as it was, until `enter`."""
        self._write(_LEAVE.encode())

    def close(self) -> None:
        """Give the terminal back for good."""
        if self._beat.running:
            self._beat.stop()
            self.leave()

    def draw(self) -> None:
        """Bring the screen up to date."""
        width, height = self._size()
        if (width, height) != self._shown_size:
            self._shown, self._shown_size = None, (width, height)
        rows = [_styled(line) for line in self._lines(width, height - 1)]
        rows += [""] * (height - 1 - len(rows))
        rows.append(f"\x1b[7m{self._last_line(width)}\x1b[0m")
        shown = self._shown or []
        written = [
            f"\x1b[{number};1H{row}\x1b[K"
            for number, row in enumerate(rows, 1)
            if number > len(shown) or shown[number - 1] != row
        ]
        if self._shown is None:
            written.insert(0, "\x1b[2J")
        if written:
            self._write("".join([_BEGIN, *written, _END]).encode())
        self._shown = rows

    def _lines(self, width: int, height: int) -> list[Line]:
        if self._state is None or height < 1:
            return []
        lit = self._changes if self._clock.seconds() - self._since < LIT else None
        return outline(self._part, lit, width, height)

    def _last_line(self, width: int) -> str:
        words = [self._connection(), self._note]
        if self._state is not None:
            version = self._state.version if self._state.version is not None else self._state.etag
            words += [f"version {version}" if version is not None else "", self._state.transport]
            words.append(f"changed {_ago(self._clock.seconds() - self._since)}")
        words.append(self._url)
        line, _ = fill([(" " + "  ".join(filter(None, words)), False)], width)
        text = "".join(text for text, _ in line)
        return text.ljust(width)

    def _connection(self) -> str:
        if self._status.connected:
            return "live"
        return f"no connection: {self._status.trouble}" if self._status.trouble else "connecting"


def _styled(line: Line) -> str:
    return "".join(f"\x1b[1;7m{text}\x1b[0m" if lit else text for text, lit in line)


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    return f"{seconds // 60:.0f} min ago" if seconds < 3600 else f"{seconds // 3600:.0f} h ago"
