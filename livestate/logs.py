"""Log files that can be taken away and are made anew: what SIGHUP is for."""

import contextlib
import signal
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TextIO, cast

from twisted.application.service import Service
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    eventAsJSON,
    eventAsText,
    formatEventAsClassicLogText,
)


class LogFile:
    """A file that is appended to by lines, and can be opened anew under its name."""

    def __init__(self, path: Path, buffered: bool = False) -> None:
        """Open `path`.

        :param buffered: lines are in the file at the next `flush`; else each is, whatever happens next.
        :raises OSError: it cannot be opened.
        """
        self._path = path
        self._buffered = buffered
        self._file: TextIO = self._open()

    def write(self, line: str) -> None:
        """Append. On a full disk a line is lost, and the writer goes on."""
        with contextlib.suppress(OSError):
            self._file.write(line)

    def flush(self) -> None:
        """Have all lines in the file."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def reopen(self) -> None:
        """Open the file anew: the old one was renamed by logrotate or the like. If it cannot be, keep the old one."""
        try:
            file = self._open()
        except OSError:
            return
        old, self._file = self._file, file
        # What a full disk did not take is written once more here, and given up.
        with contextlib.suppress(OSError):
            old.close()

    def _open(self) -> TextIO:
        buffering = 64 * 1024 if self._buffered else 1
        return open(self._path, "a", buffering=buffering, encoding="utf-8", errors="backslashreplace")


class LogFiles(Service):
    """All log files of the process, opened anew together at SIGHUP."""

    def __init__(self, reactor: Any) -> None:
        """:param reactor: runs the reopening, outside the signal handler."""
        self._reactor = reactor
        self._files: list[LogFile] = []

    def open(self, path: Path, buffered: bool = False) -> LogFile:
        """Open one more; a buffered one is in need of `flush`.

        :raises OSError: it cannot be opened.
        """
        file = LogFile(path, buffered)
        self._files.append(file)
        return file

    def observer(self, path: Path, log_format: str = "text") -> ILogObserver:
        """Give a log observer that writes to `path`.

        :param log_format: as in `observer_for`.
        :raises OSError: it cannot be opened.
        """
        return observer_for(cast(IO[Any], self.open(path)), log_format)

    def startService(self) -> None:
        """Take SIGHUP, which would else end the process."""
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reopen))

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
