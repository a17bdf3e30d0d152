"""A document that is polled alone: what tests of one source need."""

from typing import Any

from livestate.documents.document import Document
from livestate.documents.polled_document import PolledDocument
from livestate.documents.poller import StorePoller
from livestate.sources.api import ISource
from livestate.sources.single_store import SingleStore


class SinglePoller(PolledDocument):
    """The only document of its store, and the poller of that store."""

    def __init__(self, document: Document, source: ISource, interval: float, reactor: Any) -> None:
        self.poller = StorePoller(SingleStore(source), interval, reactor)
        super().__init__(document, "", str(source), self.poller)
        self.poller.add(self)

    @property
    def running(self) -> Any:
        return self.poller.running

    @property
    def timeout(self) -> float:
        return self.poller.timeout

    def startService(self) -> None:
        self.poller.startService()

    def stopService(self) -> None:
        self.poller.stopService()
