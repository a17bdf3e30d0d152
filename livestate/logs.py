"""Log files that can be taken away and are made anew: what SIGHUP is for."""

import contextlib
import signal
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TextIO, cast

from twisted.application.service import Service
from twisted.logger import FileLogObserver, ILogObserver, formatEventAsClassicLogText


class LogFile:
    """A file that is appended to by lines, and can be opened anew under its name."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        :raises OSError: it cannot be opened.
        """
        self._path = path
        self._file: TextIO = self._open()

    def write(self, line: str) -> None:
        """Append; a line is in the file when this returns. On a full disk it is lost, and the writer goes on."""
        with contextlib.suppress(OSError):
            self._file.write(line)

    def flush(self) -> None:
        """Nothing is held back."""

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
        # Line-buffered: a line that was logged is in the file, whatever happens next.
        return open(self._path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")


class LogFiles(Service):
    """All log files of the process, opened anew together at SIGHUP."""

    def __init__(self, reactor: Any) -> None:
        """:param reactor: runs the reopening, outside the signal handler."""
        self._reactor = reactor
        self._files: list[LogFile] = []

    def open(self, path: Path) -> LogFile:
        """Open one more.

        :raises OSError: it cannot be opened.
        """
        file = LogFile(path)
        self._files.append(file)
        return file

    def observer(self, path: Path) -> ILogObserver:
        """Give a log observer that writes Twisted's classic text to `path`."""
        return FileLogObserver(
            cast(IO[Any], self.open(path)), lambda event: formatEventAsClassicLogText(event, _iso_time)
        )

    def startService(self) -> None:
        """Take SIGHUP, which would else end the process."""
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reopen))

    def reopen(self) -> None:
        """Open all files anew."""
        for file in self._files:
            file.reopen()


_chosen: list[ILogObserver] = []


def choose_observer(observer: ILogObserver) -> None:
    """Have `chosen_observer` give `observer`."""
    _chosen[:] = [observer]


def chosen_observer() -> ILogObserver:
    """Give the observer that was chosen last; twistd calls this by name."""
    return _chosen[-1]


def _iso_time(when: float | None) -> str:
    return datetime.fromtimestamp(when or 0).astimezone().isoformat(timespec="milliseconds")
