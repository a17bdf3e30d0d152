"""Shows one document on a terminal, live.

The screen uses the terminal's alternate screen, so the previous content is back at the end. To avoid flicker, only rows
that changed are written, all in one write, inside a synchronized update (DEC private mode 2026) for terminals that
support it.
"""

from collections.abc import Callable
from typing import Any

from livestate.cli.outline import Changes, Line, changes, fit, outline
from livestate.client import State, Status
from livestate.system.periodic import PeriodicTask

#: Seconds for which a change is highlighted.
HIGHLIGHT = 3.0

# Switch to the alternate screen, hide the cursor and stop wrapping lines; and the reverse.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Screen:
    """Shows states as they arrive."""

    def __init__(
        self, clock: Any, url: str, write: Callable[[bytes], None], size: Callable[[], tuple[int, int]]
    ) -> None:
        """Prepare the screen, without drawing.

        :param url: shown in the status line.
        :param write: called with the output for the terminal.
        :param size: returns the terminal's columns and rows.
        """
        self._clock = clock
        self._url = url
        self._write = write
        self._size = size
        self._state: State | None = None
        self._part: Any = None
        self._changes: Changes = None
        self._changed_at = 0.0
        self._status = Status(connected=False, transport="events")
        self._message = ""
        #: The current content of the screen, row by row; None if it is unknown.
        self._shown: list[str] | None = None
        self._shown_size = (0, 0)
        self._ticker = PeriodicTask(clock, self.draw, "drawing the screen")

    def open(self) -> None:
        """Take over the terminal, and draw at least once per second."""
        self.enter()
        self._ticker.start(1.0)

    def show(self, part: Any, state: State) -> None:
        """Show `part` of a new state, and highlight what changed in it."""
        self._changes = changes(self._part, part) if self._state is not None else None
        self._part, self._state, self._message = part, state, ""
        self._changed_at = self._clock.seconds()
        self.draw()

    def missing(self, text: str) -> None:
        """Show why the part is not in the new state."""
        self._message = text
        self.draw()

    def status(self, status: Status) -> None:
        """Show the state of the connection."""
        self._status = status
        self.draw()

    def enter(self) -> None:
        """Take over the terminal, for the first time or after `leave`."""
        self._shown = None
        self._write(_ENTER.encode())

    def leave(self) -> None:
        """Restore the terminal until the next `enter`."""
        self._write(_LEAVE.encode())

    def close(self) -> None:
        """Restore the terminal and stop drawing."""
        if self._ticker.running:
            self._ticker.stop()
            self.leave()

    def draw(self) -> None:
        """Write the rows that changed."""
        width, height = self._size()
        if (width, height) != self._shown_size:
            self._shown, self._shown_size = None, (width, height)
        rows = [_styled(line) for line in self._lines(width, height - 1)]
        rows += [""] * (height - 1 - len(rows))
        rows.append(f"\x1b[7m{self._status_line(width)}\x1b[0m")
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
        highlighted = self._changes if self._clock.seconds() - self._changed_at < HIGHLIGHT else None
        return outline(self._part, highlighted, width, height)

    def _status_line(self, width: int) -> str:
        words = [self._connection(), self._message]
        if self._state is not None:
            version = self._state.version if self._state.version is not None else self._state.etag
            words += [f"version {version}" if version is not None else "", self._state.transport]
            words.append(f"changed {_ago(self._clock.seconds() - self._changed_at)}")
        words.append(self._url)
        line, _ = fit([(" " + "  ".join(filter(None, words)), False)], width)
        text = "".join(text for text, _ in line)
        return text.ljust(width)

    def _connection(self) -> str:
        if self._status.connected:
            return "live"
        return f"no connection: {self._status.trouble}" if self._status.trouble else "connecting"


def _styled(line: Line) -> str:
    return "".join(f"\x1b[1;7m{text}\x1b[0m" if highlighted else text for text, highlighted in line)


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    return f"{seconds // 60:.0f} min ago" if seconds < 3600 else f"{seconds // 3600:.0f} h ago"
