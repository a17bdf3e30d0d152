"""A document in a worker: a replica of the supervisor's."""

from types import MappingProxyType
from typing import Any

from livestate.documents.document import Document
from livestate.documents.snapshot import Representation, Snapshot
from livestate.workers.messages import Changed


class DocumentReplica:
    """A document that the supervisor keeps up to date."""

    def __init__(self, reactor: Any, path: str, max_size: int, interval: float) -> None:
        self.document = Document(reactor, path, max_size)
        self._interval = interval

    def is_fresh(self) -> bool:
        """Return whether the store has confirmed the document recently."""
        return self.document.is_fresh(self._interval)

    def apply(self, change: Changed) -> None:
        """Store a new version, or more content codings of the current one."""
        known = self.document.snapshot
        existing = known.representations if known is not None and known.version == change.version else {}
        new = {coding: Representation(coding, body, etag) for coding, etag, body in change.representations}
        representations = MappingProxyType({**existing, **new})
        snapshot = Snapshot(change.version, change.modified, representations, change.complete)
        self.document.restore(snapshot, self.document.confirmed, change.fetch_started)
