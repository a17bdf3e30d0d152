"""Log files that can be taken away and are made anew: what SIGHUP is for.

Several processes may append to one file: what is written in one piece is not torn apart (O_APPEND), and each piece is
some whole lines.
"""

import contextlib
import os
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast

from twisted.application.service import Service
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    eventAsJSON,
    eventAsText,
    formatEventAsClassicLogText,
)

#: Of a new log file, the umask taken off it: readers' addresses are not everyone's. One that is there keeps its own.
MODE = 0o640

#: Signs of a buffered file's lines that are kept back at most.
MOST_KEPT = 64 * 1024


class LogFile:
    """A file that is appended to by lines, and can be opened anew under its name."""

    def __init__(self, path: Path, buffered: bool = False) -> None:
        """Open `path`.

        :param buffered: lines are in the file at the next `flush`; else each is, whatever happens next.
        :raises OSError: it cannot be opened.
        """
        self._path = path
        self._buffered = buffered
        self._lines: list[str] = []
        self._kept = 0
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append. On a full disk a line is lost, and the writer goes on."""
        if not self._buffered:
            self._put(line)
            return
        self._lines.append(line)
        self._kept += len(line)
        if self._kept >= MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Have all lines in the file."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._kept = 0
            self._put(text)

    def reopen(self) -> None:
        """Open the file anew: the old one was renamed by logrotate or the like. If it cannot be, keep the old one."""
        try:
            file = self._open()
        except OSError:
            return
        self.flush()
        self._file.close()
        self._file = file

    def close(self) -> None:
        """Have all lines in the file, and write no more."""
        self.flush()
        self._file.close()

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text.encode("utf-8", "backslashreplace"))

    def _open(self) -> FileIO:
        return open(self._path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, MODE))


class LogFiles(Service):
    """All log files of the process, which are opened anew together."""

    def __init__(self) -> None:
        self._files: list[LogFile] = []

    def open(self, path: Path, buffered: bool = False) -> LogFile:
        """Open one more; a buffered one is in need of `flush`.

        :raises OSError: it cannot be opened.
        """
        file = LogFile(path, buffered)
        self._files.append(file)
        return file

    def close(self, file: LogFile) -> None:
        """Write no more to one of them."""
        self._files.remove(file)
        file.close()

    def observer(self, path: Path, log_format: str = "text") -> ILogObserver:
        """Give a log observer that writes to `path`.

        :param log_format: as in `observer_for`.
        :raises OSError: it cannot be opened.
        """
        return observer_for(cast(IO[Any], self.open(path)), log_format)

    def stopService(self) -> None:
        """Have all lines in the files."""
        super().stopService()
        self.flush()

    def flush(self) -> None:
        """Have all lines in the files."""
        for file in self._files:
            file.flush()

    def reopen(self) -> None:
        """Open all files anew."""
        for file in self._files:
            file.reopen()


def observer_for(file: IO[Any], log_format: str) -> ILogObserver:
    """Give a log observer that writes to `file`.

    :param log_format: `text` for Twisted's classic lines, `json` for an object on each line.
    """
    return FileLogObserver(file, _as_json if log_format == "json" else _as_text)


def _as_text(event: LogEvent) -> str | None:
    return formatEventAsClassicLogText(event, _iso_time)


def _as_json(event: LogEvent) -> str:
    """Give an event as Twisted's JSON has it, with its text, tracebacks included, as `log_text` beside its parts."""
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return eventAsJSON({**event, "log_text": text}) + "\n"


_chosen: list[ILogObserver] = []


def choose_observer(observer: ILogObserver) -> None:
    """Have `chosen_observer` give `observer`."""
    _chosen[:] = [observer]


def chosen_observer() -> ILogObserver:
    """Give the observer that was chosen last; twistd calls this by name."""
    return _chosen[-1]


def _iso_time(when: float | None) -> str:
    return datetime.fromtimestamp(when or 0).astimezone().isoformat(timespec="milliseconds")
