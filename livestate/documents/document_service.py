"""One served document, with the SnapshotStore that saves it; the StorePoller of its store keeps it up to date."""

import os
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService

from livestate.config.settings import DocumentSettings
from livestate.documents.document import Document
from livestate.documents.polled_document import PolledDocument
from livestate.documents.poller import StorePoller
from livestate.documents.snapshot_store import SnapshotStore
from livestate.errors import SettingsError
from livestate.sources.store_address import StoreAddress

#: All settings that a document depends on: its own, the size limit, and the state directory.
DocumentKey = tuple[DocumentSettings, int, Path | None]


class DocumentService(MultiService):
    """Runs everything that belongs to one document."""

    def __init__(
        self, reactor: Any, key: DocumentKey, address: StoreAddress, poller: StorePoller, previous: Document | None
    ) -> None:
        """Create the document and its SnapshotStore.

        :param address: where the document comes from; `poller` polls that store.
        :param previous: the document served at the same path so far; its snapshot is taken over.
        :raises LivestateError: when the state directory cannot be used.
        """
        super().__init__()
        settings, max_size, directory = key
        document = Document(reactor, settings.path, max_size)
        if directory is not None:
            SnapshotStore(reactor, document, _writable_directory(directory)).setServiceParent(self)
        if previous is not None:
            document.take_over(previous)
        self.polled = PolledDocument(document, address.key, address.source, poller)
        self._poller = poller

    def startService(self) -> None:
        """Keep the document up to date from now on."""
        super().startService()
        self._poller.add(self.polled)

    def stopService(self) -> Any:
        """Leave the document as it is."""
        self._poller.remove(self.polled)
        return super().stopService()


def _writable_directory(path: Path) -> Path:
    """Create the state directory if it does not exist, and ensure that it is writable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--state-dir {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(f"--state-dir {path}: not writable")
    return path
