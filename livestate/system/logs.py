"""Log files that can be renamed and reopened, for SIGHUP and logrotate.

Several processes may append to one file. With O_APPEND, the text of one write stays in one piece, and each write
consists of whole lines.
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

#: The mode of a new log file, before the umask: not readable by others, as it holds addresses of clients. An existing
#: file keeps its mode.
MODE = 0o640

#: Characters that a buffered file holds back at most.
MAX_BUFFERED = 64 * 1024


class LogFile:
    """A file to which lines are appended, and which can be reopened by its name."""

    def __init__(self, path: Path, buffered: bool = False) -> None:
        """Open `path`.

        :param buffered: collect lines until `flush`; otherwise each is written at once.
        :raises OSError: when it cannot be opened.
        """
        self._path = path
        self._buffered = buffered
        self._lines: list[str] = []
        self._size = 0
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append a line. If the disk is full, the line is lost and no error is raised."""
        if not self._buffered:
            self._append(line)
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= MAX_BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Write all buffered lines to the file."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._size = 0
            self._append(text)

    def reopen(self) -> None:
        """Open the file by its name again, after logrotate renamed it. If that fails, keep the old one."""
        try:
            file = self._open()
        except OSError:
            return
        self.flush()
        self._file.close()
        self._file = file

    def close(self) -> None:
        """Write all buffered lines and close the file."""
        self.flush()
        self._file.close()

    def _append(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text.encode("utf-8", "backslashreplace"))

    def _open(self) -> FileIO:
        return open(self._path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, MODE))


class LogFiles(Service):
    """All log files of the process, which are reopened together."""

    def __init__(self) -> None:
        self._files: list[LogFile] = []

    def open(self, path: Path, buffered: bool = False) -> LogFile:
        """Open a file; a buffered one needs `flush`.

        :raises OSError: when it cannot be opened.
        """
        file = LogFile(path, buffered)
        self._files.append(file)
        return file

    def close(self, file: LogFile) -> None:
        """Close one of the files."""
        self._files.remove(file)
        file.close()

    def observer(self, path: Path, log_format: str = "text") -> ILogObserver:
        """Return a log observer that writes to `path`.

        :param log_format: as for `file_observer`.
        :raises OSError: when it cannot be opened.
        """
        return file_observer(cast(IO[Any], self.open(path)), log_format)

    def stopService(self) -> None:
        """Write all buffered lines."""
        super().stopService()
        self.flush()

    def flush(self) -> None:
        """Write all buffered lines to their files."""
        for file in self._files:
            file.flush()

    def reopen(self) -> None:
        """Reopen all files."""
        for file in self._files:
            file.reopen()


def file_observer(file: IO[Any], log_format: str) -> ILogObserver:
    """Return a log observer that writes to `file`.

    :param log_format: `text` for Twisted's classic lines, `json` for one JSON object per line.
    """
    return FileLogObserver(file, _as_json if log_format == "json" else _as_text)


def _as_text(event: LogEvent) -> str | None:
    return formatEventAsClassicLogText(event, _iso_time)


def _as_json(event: LogEvent) -> str:
    """Format an event as Twisted's JSON, with its formatted text, tracebacks included, added as `log_text`."""
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return eventAsJSON({**event, "log_text": text}) + "\n"


_chosen: list[ILogObserver] = []


def choose_observer(observer: ILogObserver) -> None:
    """Set the observer that `chosen_observer` returns."""
    _chosen[:] = [observer]


def chosen_observer() -> ILogObserver:
    """Return the observer set by `choose_observer`; twistd calls this by name."""
    return _chosen[-1]


def _iso_time(when: float | None) -> str:
    return datetime.fromtimestamp(when or 0).astimezone().isoformat(timespec="milliseconds")
