"""One document, as the frames that workers receive."""

from typing import ClassVar

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.workers.messages import Changed, Confirmed, frame


class DocumentFeed:
    """Builds the frames that bring a worker up to date with one document."""

    __slots__ = ("document",)

    #: The last frame of a change, whichever the document, and its snapshot: the frame is sent to all workers in turn.
    _last: ClassVar[tuple[Snapshot | None, bytes]] = None, b""

    def __init__(self, document: Document) -> None:
        self.document = document

    def frames_since(self, known: int) -> bytes:
        """Return the frames that bring a worker up to date; b"" while there is no document.

        :param known: the version that the worker has; 0: none.
        """
        snapshot = self.document.snapshot
        if snapshot is None:
            return b""
        shared = self.document.confirmation
        number = 0 if shared is None else shared.number
        confirmed = frame(Confirmed(self.document.path, self.document.confirmed, number))
        if snapshot.version == known:
            return confirmed
        of, data = DocumentFeed._last
        if of is not snapshot:
            data = self._changed(snapshot)
            DocumentFeed._last = snapshot, data
        return confirmed + data

    def _changed(self, snapshot: Snapshot) -> bytes:
        document, plain = self.document, snapshot.plain
        return frame(
            Changed(document.path, snapshot.version, snapshot.modified, document.fetch_started, plain.etag, plain.body)
        )
