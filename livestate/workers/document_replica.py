"""A document in a worker: a replica of the supervisor's."""

from typing import Any

from livestate.documents.document import Document
from livestate.documents.snapshot import Representation, plain_snapshot
from livestate.workers.messages import Changed


class DocumentReplica:
    """A document that the supervisor keeps up to date."""

    __slots__ = ("_interval", "document")

    def __init__(self, reactor: Any, path: str, max_size: int, interval: float) -> None:
        self.document = Document(reactor, path, max_size)
        self._interval = interval

    def is_fresh(self) -> bool:
        """Return whether the store has confirmed the document recently."""
        return self.document.is_fresh(self._interval)

    def apply(self, change: Changed) -> None:
        """Store a new version."""
        plain = Representation("identity", change.body, change.etag)
        snapshot = plain_snapshot(change.version, change.modified, plain)
        self.document.restore(snapshot, self.document.confirmed, change.fetch_started)
