"""A document that is a file: `file:/srv/results.json`, `file:results.json`.

It is read whole each time: an open and a read of 4 KB cost less than any way of telling whether it changed that is
also right when it changes twice within one tick of the file system's clock. A file that is written in place may be
read half-written; that is not JSON and so not served. Reading is done in a thread, since a network file system may
hang.

A change is told of by inotify where there is one (see `folder_watch`), and found by the next poll otherwise.
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
        """Understand `url`; a relative name counts from the folder livestate was started in.

        :raises SettingsError: it names no file, or another host.
        """
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise SettingsError("a file is on this machine: file:/path/to/file.json")
        if not parts.path or parts.query or parts.fragment:
            raise SettingsError("it names no file: file:/path/to/file.json")
        path = unquote(parts.path)
        if "\0" in path:
            raise SettingsError("a file's name holds no NUL")
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
            # The last read hangs in its thread and cannot be called off; another would only hang beside it.
            raise SourceError("the file system does not answer")
        self._reading = True
        # A cancelled fetch goes away, and the thread goes on.
        reading: Deferred[bytes] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read)
        try:
            return await reading
        finally:
            if self._watch is not None:
                self._watch.follow(self._folder)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have inotify tell of changes, from the next fetch on."""
        self._watch = FolderWatch(self._reactor, self._path, changed)

    def close(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _read(self) -> bytes:
        try:
            self._folder = folder_of(self._path, self._folder)
            # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
            with open(self._path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceError("not a regular file")
                # One byte more than may be: the document is then refused for its size, and memory is not filled.
                return file.read(self._max_size + 1)
        except FileNotFoundError:
            raise DocumentMissing("there is no such file") from None
        except OSError as error:
            raise SourceError(error.strerror or str(error)) from None
        finally:
            self._reading = False
