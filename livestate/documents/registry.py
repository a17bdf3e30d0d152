"""All documents that the settings name, and the stores that they come from."""

from typing import Any, NamedTuple

from twisted.application.service import MultiService
from twisted.logger import Logger

from livestate.config.settings import Settings
from livestate.documents.document_service import DocumentKey, DocumentService
from livestate.documents.polled_document import PolledDocument
from livestate.documents.poller import StorePoller
from livestate.sources.factory import store_address

#: What documents share a StorePoller: the identity of their store, their interval, and the size limit.
StoreKey = tuple[str, float, int]

#: Threads at most, whatever the number of documents.
MAX_THREADS = 128


class Prepared(NamedTuple):
    """What settings need: what runs already where nothing changed, else new and not yet started."""

    services: dict[DocumentKey, DocumentService]
    pollers: dict[StoreKey, StorePoller]

    def documents(self) -> list[PolledDocument]:
        """Return all documents, in the order of the settings."""
        return [service.polled for service in self.services.values()]


class Registry(MultiService):
    """Runs one StorePoller per store and one DocumentService per document, and replaces them with the settings."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings) -> None:
        """:raises LivestateError: a source or the state directory cannot be used."""
        super().__init__()
        self._reactor = reactor
        self._current = Prepared({}, {})
        self.commit(self.prepare(settings))

    def documents(self) -> list[PolledDocument]:
        """Return all documents, in the order of the settings."""
        return self._current.documents()

    def prepare(self, settings: Settings) -> Prepared:
        """Return what `settings` need; nothing that runs is changed.

        :raises LivestateError: a source or the state directory cannot be used.
        """
        previous = {polled.document.path: polled.document for polled in self.documents()}
        addresses = {document: store_address(document.source) for document in settings.documents}
        stores = {(address.identity, document.interval) for document, address in addresses.items()}
        prepared = Prepared({}, {})
        for document, address in addresses.items():
            store: StoreKey = address.identity, document.interval, settings.max_size
            poller = prepared.pollers.get(store) or self._current.pollers.get(store)
            if poller is None:
                made = address.make(self._reactor, settings.max_size)
                poller = StorePoller(made, document.interval, self._reactor, spread=len(stores) > 1)
            prepared.pollers[store] = poller
            key: DocumentKey = document, settings.max_size, settings.state_dir
            prepared.services[key] = self._current.services.get(key) or DocumentService(
                self._reactor, key, address, poller, previous.get(document.path)
            )
        return prepared

    def commit(self, prepared: Prepared) -> None:
        """Start what is new of what `prepare` returned, and stop what is no longer needed."""
        previous, self._current = self._current, prepared
        # When a disk or a store hangs, a document can occupy two threads, one that reads and one that saves. Twisted's
        # default of ten comes on top, so that the other documents can still be read and compressed.
        self._reactor.suggestThreadPoolSize(min(MAX_THREADS, 10 + 2 * len(prepared.services)))
        for key, service in previous.services.items():
            if key not in prepared.services:
                service.disownServiceParent()
        for store, poller in previous.pollers.items():
            if store not in prepared.pollers:
                poller.disownServiceParent()
        for key, service in prepared.services.items():
            if key not in previous.services:
                service.setServiceParent(self)
        by_poller: dict[object, list[PolledDocument]] = {}
        for polled in prepared.documents():
            by_poller.setdefault(polled.store, []).append(polled)
        for store, poller in prepared.pollers.items():
            if store not in previous.pollers:
                self._log_start(poller, by_poller[poller])
                poller.setServiceParent(self)

    def _log_start(self, poller: StorePoller, documents: list[PolledDocument]) -> None:
        if len(documents) == 1:
            what, source = documents[0].document.path, documents[0].source
        else:
            what, source = f"{len(documents)} documents", str(poller.store)
        self.log.info("{what}: {source}, polled every {interval:g} s",
                      what=what, source=source, interval=poller.interval)  # fmt: skip
