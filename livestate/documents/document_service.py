"""One served document, with the Poller that keeps it up to date and the SnapshotStore that saves it."""

import os
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from livestate.config.settings import DocumentSettings
from livestate.documents.document import Document
from livestate.documents.poller import Poller
from livestate.documents.snapshot_store import SnapshotStore
from livestate.errors import SettingsError
from livestate.sources.factory import make_source

#: All settings that a document depends on: its own, the size limit, and the state directory.
DocumentKey = tuple[DocumentSettings, int, Path | None]


class DocumentService(MultiService):
    """Runs everything that belongs to one document."""

    log = Logger()

    def __init__(self, reactor: Any, key: DocumentKey, previous: Document | None) -> None:
        """Create the document, its Poller and its SnapshotStore.

        :param previous: the document served at the same path so far; its snapshot is taken over.
        :raises LivestateError: when the source or the state directory cannot be used.
        """
        super().__init__()
        settings, max_size, directory = key
        document = Document(reactor, settings.path, max_size)
        if directory is not None:
            SnapshotStore(reactor, document, _writable_directory(directory)).setServiceParent(self)
        if previous is not None:
            document.take_over(previous)
        source = make_source(reactor, settings.source, max_size)
        self.poller = Poller(document, source, settings.interval, reactor)
        self.poller.setServiceParent(self)
        self.log.info(
            "{path}: {source}, polled every {interval:g} s",
            path=settings.path, source=str(source), interval=settings.interval,
        )  # fmt: skip


def _writable_directory(path: Path) -> Path:
    """Create the state directory if it does not exist, and ensure that it is writable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--state-dir {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(f"--state-dir {path}: not writable")
    return path
