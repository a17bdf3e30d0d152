"""One document, as the frames that workers receive. A frame is built once and sent to all workers."""

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.workers.messages import Changed, Confirmed, frame


class DocumentFeed:
    """Builds the frames that bring a worker up to date with one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        #: The frame built last, with the snapshot and the content codings in it.
        self._cached: tuple[Snapshot, list[str], bytes] | None = None

    def frames_since(self, known: Snapshot | None) -> bytes:
        """Return the frames that bring a worker from `known` to the current state; b"" while there is no document."""
        snapshot = self.document.snapshot
        if snapshot is None:
            return b""
        shared = self.document.confirmation
        number = 0 if shared is None else shared.number
        confirmed = frame(Confirmed(self.document.path, self.document.confirmed, number))
        if snapshot is known:
            return confirmed
        sent = known.representations if known is not None and known.version == snapshot.version else {}
        missing = [coding for coding in snapshot.representations if coding not in sent]
        if self._cached is None or self._cached[0] is not snapshot or self._cached[1] != missing:
            self._cached = snapshot, missing, frame(_changed(self.document, snapshot, missing))
        return confirmed + self._cached[2]


def _changed(document: Document, snapshot: Snapshot, codings: list[str]) -> Changed:
    representations = [snapshot.representations[coding] for coding in codings]
    parts = [(representation.coding, representation.etag, representation.body) for representation in representations]
    return Changed(document.path, snapshot.version, snapshot.modified, snapshot.complete, document.fetch_started, parts)
