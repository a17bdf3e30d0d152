"""All documents, with what keeps each up to date and what saves it, as the settings want them."""

import os
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from livestate.config.settings import DocumentSettings, Settings
from livestate.documents.document import Document
from livestate.documents.poller import Poller
from livestate.documents.snapshot_store import SnapshotStore
from livestate.errors import SettingsError
from livestate.sources.factory import make_source

#: What makes two documents the same: their own settings, and those of all that matter to them.
Key = tuple[DocumentSettings, int, Path | None]


class DocumentService(MultiService):
    """One document's part of livestate."""

    log = Logger()

    def __init__(self, reactor: Any, key: Key, before: Document | None) -> None:
        """Make the document and all around it.

        :param before: what was served at the same path until now.
        :raises LivestateError: its source or the folder for saved documents cannot be used.
        """
        super().__init__()
        wanted, max_size, folder = key
        document = Document(reactor, wanted.path, max_size)
        if folder is not None:
            SnapshotStore(reactor, document, _folder(folder)).setServiceParent(self)
        if before is not None and before.snapshot is not None:
            document.restore(before.snapshot, before.confirmed)
        source = make_source(reactor, wanted.source, max_size)
        self.poller = Poller(document, source, wanted.interval, reactor)
        self.poller.setServiceParent(self)
        self.log.info(
            "{path}: {source}, asked every {interval:g} s",
            path=wanted.path, source=str(source), interval=wanted.interval,
        )  # fmt: skip


class Registry(MultiService):
    """All of them."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        """:raises LivestateError: see Supply."""
        super().__init__()
        self._reactor = reactor
        self._supplies: dict[Key, DocumentService] = {}
        self.change(self.prepare(settings))

    def pollers(self) -> list[Poller]:
        """Give what keeps them up to date, in the order of the settings."""
        return [supply.poller for supply in self._supplies.values()]

    def prepare(self, settings: Settings) -> dict[Key, DocumentService]:
        """Give what the settings want, made where it is not there already; nothing of it is started.

        :raises LivestateError: see Supply.
        """
        before = {poller.document.path: poller.document for poller in self.pollers()}
        keys: list[Key] = [(wanted, settings.max_size, settings.state_dir) for wanted in settings.documents]
        return {
            key: self._supplies.get(key) or DocumentService(self._reactor, key, before.get(key[0].path)) for key in keys
        }

    def change(self, prepared: dict[Key, DocumentService]) -> None:
        """Start what is new of what `prepare` gave, and stop what is not wanted any more."""
        before, self._supplies = self._supplies, prepared
        # A disk or a store that does not answer can keep two threads of each document, one that reads and one that
        # saves: there are to be Twisted's ten beside them, in which the others are read and coded.
        self._reactor.suggestThreadPoolSize(10 + 2 * len(prepared))
        for key, supply in before.items():
            if key not in prepared:
                supply.disownServiceParent()
        for key, supply in prepared.items():
            if key not in before:
                supply.setServiceParent(self)


def _folder(path: Path) -> Path:
    """Make the folder for saved documents, if need be, and see that it can be written to."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--state-dir {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(f"--state-dir {path}: it cannot be written to")
    return path
