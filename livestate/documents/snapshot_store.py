"""The last good document on disk, to serve after a restart while the store is down.

Each document has one file: a line of JSON with its metadata, then the document's bytes. The file is replaced
atomically, in a thread, when the document changes. Its modification time is the time of the last good fetch; it is set
when the store confirms the document unchanged.
"""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot, check, new_snapshot
from livestate.errors import DocumentRefused
from livestate.system.periodic import PeriodicTask

#: Seconds between two checks for changes to save.
SAVE_INTERVAL = 1.0

#: The prefix of files being written, and the age in seconds from which they are abandoned.
_TEMPORARY_PREFIX = ".saving-"
_ABANDONED_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The first line of a saved document. A line with values outside these bounds was not written by livestate."""

    version: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    #: Before the year 5138: dates are written with a four-digit year.
    modified: Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
    length: Annotated[int, msgspec.Meta(ge=1, le=2**30)]
    etag: str


class SnapshotStore(Service):
    """Saves one document to a file, and restores it at the next start."""

    log = Logger()

    def __init__(self, reactor: Any, document: Document, directory: Path) -> None:
        """Restore `document` from its file in `directory` now; save it there once started.

        A file that cannot be used is logged and left alone until a good document replaces it.
        """
        self._reactor = reactor
        self._document = document
        self._path = directory / (quote(document.path, safe="") + ".saved")
        self._saved: tuple[int, float] = (0, 0.0)
        self._error: str | None = None
        self._writing: Deferred[None] | None = None
        self._task = PeriodicTask(reactor, self._save, f"saving the document {document.path}")
        self._remove_abandoned()
        self._load()

    def startService(self) -> None:
        """Start saving."""
        super().startService()
        self._task.start(SAVE_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        """Save once more; return when that is on disk."""
        super().stopService()
        self._task.stop()
        if self._writing is not None:
            return self._writing.addCallback(lambda _: self._save())
        return self._save()

    def _remove_abandoned(self) -> None:
        """Remove the temporary files of processes killed while writing, which would fill the disk."""
        for path in self._path.parent.glob(f"{_TEMPORARY_PREFIX}*"):
            with contextlib.suppress(OSError):
                if self._reactor.seconds() - path.stat().st_mtime > _ABANDONED_AFTER:
                    path.unlink()

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                metadata = msgspec.json.decode(file.readline(4096), type=_Metadata)
                status = os.fstat(file.fileno())
                data = file.read(min(metadata.length + 1, status.st_size))
                confirmed = status.st_mtime
            check(data, self._document.max_size)
            snapshot = new_snapshot(data, metadata.modified, metadata.version - 1)
            if len(data) != metadata.length or snapshot.plain.etag.decode("ascii") != metadata.etag:
                raise DocumentRefused("the file is incomplete or damaged")
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, DocumentRefused) as error:
            reason = str(error.strerror if isinstance(error, OSError) else error)
            self.log.warn("ignoring the saved document {path}: {error}", path=str(self._path), error=reason)
            return
        self._document.restore(snapshot, confirmed)
        self._saved = (snapshot.version, confirmed)
        self.log.info(
            "{path}: serving the document saved {age:.0f} s ago until the source returns a newer one",
            path=self._document.path, age=self._document.age(),
        )  # fmt: skip

    def _save(self) -> Deferred[None]:
        snapshot, confirmed = self._document.snapshot, self._document.confirmed
        if snapshot is None or (snapshot.version, confirmed) == self._saved:
            return succeed(None)
        self._writing = Deferred.fromCoroutine(self._write(snapshot, confirmed))
        return self._writing

    async def _write(self, snapshot: Snapshot, confirmed: float) -> None:
        action = self._touch if snapshot.version == self._saved[0] else self._replace
        try:
            await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), action, snapshot, confirmed)
        except OSError as error:
            # Clients are still served, and the next check tries again. Each reason is logged once, by its strerror: the
            # full text names a temporary file, another one each time.
            if error.strerror != self._error:
                self._error = error.strerror
                self.log.error(
                    "cannot save the document to {path}: {error}; retrying", path=str(self._path), error=self._error
                )
        else:
            self._saved = (snapshot.version, confirmed)
            if self._error is not None:
                self._error = None
                self.log.info("saving the document to {path} works again", path=str(self._path))
        finally:
            self._writing = None

    def _touch(self, snapshot: Snapshot, confirmed: float) -> None:
        try:
            os.utime(self._path, (confirmed, confirmed))
        except FileNotFoundError:  # someone removed it
            self._replace(snapshot, confirmed)

    def _replace(self, snapshot: Snapshot, confirmed: float) -> None:
        etag = snapshot.plain.etag.decode("ascii")
        metadata = msgspec.json.encode(_Metadata(snapshot.version, snapshot.modified, len(snapshot.body), etag))
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=_TEMPORARY_PREFIX)
        try:
            with open(descriptor, "wb") as file:
                file.write(metadata + b"\n" + snapshot.body)
                file.flush()
                # Without fsync, a power cut can leave the new name without the new bytes.
                os.fsync(file.fileno())
            os.utime(temporary, (confirmed, confirmed))
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
