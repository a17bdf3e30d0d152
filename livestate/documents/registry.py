"""All documents that the settings name."""

from typing import Any

from twisted.application.service import MultiService

from livestate.config.settings import Settings
from livestate.documents.document_service import DocumentKey, DocumentService
from livestate.documents.poller import Poller


class Registry(MultiService):
    """Runs one DocumentService per document, and replaces them when the settings change."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        """:raises LivestateError: see DocumentService."""
        super().__init__()
        self._reactor = reactor
        self._services: dict[DocumentKey, DocumentService] = {}
        self.commit(self.prepare(settings))

    def pollers(self) -> list[Poller]:
        """Return the pollers of all documents, in the order of the settings."""
        return [service.poller for service in self._services.values()]

    def prepare(self, settings: Settings) -> dict[DocumentKey, DocumentService]:
        """Return the services for `settings`: running ones where nothing changed, else new ones, not yet started.

        :raises LivestateError: see DocumentService.
        """
        previous = {poller.document.path: poller.document for poller in self.pollers()}
        keys: list[DocumentKey] = [(document, settings.max_size, settings.state_dir) for document in settings.documents]
        return {
            key: self._services.get(key) or DocumentService(self._reactor, key, previous.get(key[0].path))
            for key in keys
        }

    def commit(self, prepared: dict[DocumentKey, DocumentService]) -> None:
        """Start the new services among those that `prepare` returned, and stop the ones no longer needed."""
        previous, self._services = self._services, prepared
        # When a disk or a store hangs, a document can occupy two threads, one that reads and one that saves. Twisted's
        # default of ten comes on top, so that the other documents can still be read and compressed.
        self._reactor.suggestThreadPoolSize(10 + 2 * len(prepared))
        for key, service in previous.items():
            if key not in prepared:
                service.disownServiceParent()
        for key, service in prepared.items():
            if key not in previous:
                service.setServiceParent(self)
