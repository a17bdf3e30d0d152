"""The last good document on disk, so that a restart while the store is down still has it to serve.

One file a document: a first line of JSON that says what follows, and then the document's bytes. It is replaced
atomically, in a thread, when the document changes. When the store merely confirms the document, the file's
modification time is set: it is the time of the last good fetch.
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
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot, check, new_snapshot, with_all_codings
from livestate.errors import DocumentRefused

#: Seconds between two looks at whether there is something to save.
BEAT = 1.0

#: How the names of files begin that are being written, and the seconds after which nobody writes to them any more.
_TEMPORARY = ".saving-"
_LEFT = 60.0


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a saved document; what is out of these bounds was not written by livestate."""

    version: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    #: Until the year 5138: no date is written with more than four digits.
    modified: Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
    length: Annotated[int, msgspec.Meta(ge=1, le=2**30)]
    etag: str


class SnapshotStore(Service):
    """Keeps one document's file, and gives it back at the next start."""

    log = Logger()

    def __init__(self, reactor: Any, document: Document, folder: Path) -> None:
        """Save `document` in `folder`, once started; at once load what is there.

        What is there and cannot be used is logged and left alone until a good document replaces it.
        """
        self._reactor = reactor
        self._document = document
        self._path = folder / (quote(document.path, safe="") + ".saved")
        self._written: tuple[int, float] = (0, 0.0)
        self._trouble: str | None = None
        self._writing: Deferred[None] | None = None
        self._loop = LoopingCall(self._save)
        self._loop.clock = reactor
        self._tidy()
        self._load()

    def startService(self) -> None:
        """Begin to save."""
        super().startService()
        self._loop.start(BEAT, now=False)

    def stopService(self) -> Deferred[None]:
        """Save a last time; done when that is on disk."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._writing is not None:
            return self._writing.addCallback(lambda _: self._save())
        return self._save()

    def _tidy(self) -> None:
        """Remove what a process that was killed while it wrote has left; several of these would fill the disk."""
        for left in self._path.parent.glob(f"{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if self._reactor.seconds() - left.stat().st_mtime > _LEFT:
                    left.unlink()

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                head = msgspec.json.decode(file.readline(4096), type=_Head)
                status = os.fstat(file.fileno())
                data = file.read(min(head.length + 1, status.st_size))
                confirmed = status.st_mtime
            check(data, self._document.max_size)
            snapshot = new_snapshot(data, head.modified, head.version - 1)
            if len(data) != head.length or snapshot.representations["identity"].etag.decode("ascii") != head.etag:
                raise DocumentRefused("it is not whole")
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, DocumentRefused) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            self.log.warn("the saved document {path} cannot be used: {error}", path=str(self._path), error=why)
            return
        # It is coded here and now, before anyone is served, however large it is.
        self._document.restore(with_all_codings(snapshot), confirmed)
        self._written = (snapshot.version, confirmed)
        self.log.info(
            "{path}: serving the document saved {age:.0f} s ago until the source gives a newer one",
            path=self._document.path, age=self._document.age(),
        )  # fmt: skip

    def _save(self) -> Deferred[None]:
        snapshot, confirmed = self._document.snapshot, self._document.confirmed
        if snapshot is None or (snapshot.version, confirmed) == self._written:
            return succeed(None)
        self._writing = Deferred.fromCoroutine(self._write(snapshot, confirmed))
        return self._writing

    async def _write(self, snapshot: Snapshot, confirmed: float) -> None:
        action = self._touch if snapshot.version == self._written[0] else self._replace
        try:
            await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), action, snapshot, confirmed)
        except OSError as error:
            # Readers are served all the same. Said once (its text names a temporary file, another each time); tried
            # again each second.
            if error.strerror != self._trouble:
                self._trouble = error.strerror
                self.log.error("cannot save the document to {path}: {error}", path=str(self._path), error=self._trouble)
        else:
            self._written = (snapshot.version, confirmed)
            if self._trouble is not None:
                self._trouble = None
                self.log.info("the document is saved to {path} again", path=str(self._path))
        finally:
            self._writing = None

    def _touch(self, snapshot: Snapshot, confirmed: float) -> None:
        try:
            os.utime(self._path, (confirmed, confirmed))
        except FileNotFoundError:  # somebody tidied up
            self._replace(snapshot, confirmed)

    def _replace(self, snapshot: Snapshot, confirmed: float) -> None:
        etag = snapshot.representations["identity"].etag.decode("ascii")
        head = msgspec.json.encode(_Head(snapshot.version, snapshot.modified, len(snapshot.body), etag))
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=_TEMPORARY)
        try:
            with open(descriptor, "wb") as file:
                file.write(head + b"\n" + snapshot.body)
                file.flush()
                # Without it a power cut can leave the new name with none of the new bytes.
                os.fsync(file.fileno())
            os.utime(temporary, (confirmed, confirmed))
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
