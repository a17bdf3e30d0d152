"""A document that is a file: `file:/srv/results.json`, `file:results.json`.

Every fetch reads the whole file. Opening it and reading 4 KB costs less than any check for a change that is also right
when the file changes twice within one tick of the file system's clock. A file that is written in place may be read when
it is half-written; that is not valid JSON, and so it is not served. Reading is done in a thread, since a network file
system may hang.

Where the system has inotify, a change is noticed at once (see `folder_watch`); otherwise the next poll finds it.
"""

import os
import stat
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.sources.api import IWatching
from livestate.sources.file.folder_watch import Folder, FolderWatch, folder_of


@implementer(IWatching)
class FileSource:
    """Reads one file."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url`. A relative path is relative to the folder that livestate was started in.

        :raises SettingsError: when it has no path, more than a path, or another host.
        """
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise SettingsError("a file URL cannot name another host; expected file:/path/to/file.json")
        if not parts.path or parts.query or parts.fragment:
            raise SettingsError("expected a path and nothing else: file:/path/to/file.json")
        path = unquote(parts.path)
        if "\0" in path:
            raise SettingsError("a path cannot contain NUL")
        self._path = os.path.abspath(path)
        self._max_size = max_size
        self._reactor = reactor
        self._reading = False
        self._watch: FolderWatch | None = None
        self._folder: Folder | None = None

    def __str__(self) -> str:
        return f"file:{self._path}"

    async def fetch(self) -> bytes:
        """Read the file."""
        if self._reading:
            # The previous read hangs in its thread and cannot be cancelled; another one would only hang too.
            raise SourceError("the file system does not respond")
        self._reading = True
        # Cancelling the fetch does not stop the thread.
        reading: Deferred[bytes] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read)
        try:
            return await reading
        finally:
            if self._watch is not None:
                self._watch.follow(self._folder)

    def watch(self, changed: Callable[[], None]) -> None:
        """Watch the file with inotify, from the next fetch on."""
        self._watch = FolderWatch(self._reactor, self._path, changed)

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _read(self) -> bytes:
        try:
            self._folder = folder_of(self._path, self._folder)
            # Without O_NONBLOCK, opening a FIFO that has no writer would block indefinitely.
            with open(self._path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceError("not a regular file")
                # One byte above the limit is enough for the document to be refused as too large.
                return file.read(self._max_size + 1)
        except FileNotFoundError:
            raise DocumentMissing("no such file") from None
        except OSError as error:
            raise SourceError(error.strerror or str(error)) from None
        finally:
            self._reading = False
