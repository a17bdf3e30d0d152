"""Documents on their way to the workers.

A worker is conflated, never queued: while much waits in its pipe it is only noted what it has to be told, and when it
has read, it is told how things stand by then. What is sent is made once for all workers.
"""

from collections.abc import Sequence
from typing import Any

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.workers.messages import Changed, Confirmed, frame
from livestate.workers.pipe import Pipe


class DocumentFeed:
    """One document as frames."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._made: tuple[Snapshot, list[str], bytes] | None = None

    def since(self, known: Snapshot | None) -> bytes:
        """Give the frames that tell a worker who has `known` how the document stands now; nothing if there is none."""
        snapshot = self.document.snapshot
        if snapshot is None:
            return b""
        confirmed = frame(Confirmed(self.document.path, self.document.confirmed))
        if snapshot is known:
            return confirmed
        there = known.representations if known is not None and known.version == snapshot.version else {}
        lacking = [coding for coding in snapshot.representations if coding not in there]
        if self._made is None or self._made[0] is not snapshot or self._made[1] != lacking:
            self._made = snapshot, lacking, frame(_changed(self.document, snapshot, lacking))
        return confirmed + self._made[2]


def _changed(document: Document, snapshot: Snapshot, lacking: list[str]) -> Changed:
    wanted = [snapshot.representations[coding] for coding in lacking]
    parts = [(representation.coding, representation.etag, representation.body) for representation in wanted]
    return Changed(document.path, snapshot.version, snapshot.modified, snapshot.complete, document.fetch_started, parts)


class WorkerFeed:
    """What one worker is told of all documents."""

    def __init__(self, pipe: Pipe[Any], shipments: Sequence[DocumentFeed]) -> None:
        """Tell `pipe` of all documents as they are now."""
        self._pipe = pipe
        self._known: dict[DocumentFeed, Snapshot | None] = dict.fromkeys(shipments)
        self._news: dict[DocumentFeed, None] = dict.fromkeys(shipments)
        pipe.on_writable = self._send
        # Nothing waits before these: all of them go, however long they are, so that they come before what follows.
        for shipment in shipments:
            self._send_one(shipment)

    def tell(self, shipment: DocumentFeed) -> None:
        """Tell of news, now or when the worker has read what it was sent."""
        self._news[shipment] = None
        self._send()

    def _send(self) -> None:
        for shipment in list(self._news):
            if not self._pipe.writable:
                return
            self._send_one(shipment)

    def _send_one(self, shipment: DocumentFeed) -> None:
        self._news.pop(shipment, None)
        data = shipment.since(self._known[shipment])
        if data:
            self._known[shipment] = shipment.document.snapshot
            self._pipe.transport.write(data)
