"""What a process that serves has counted, in a form in which several can be added up.

Some of it only grows (answers, events sent), some is how things stand (connections). Of a process that is gone the
former stays part of the sum.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec


class DocumentCounts(msgspec.Struct):
    """Of one document."""

    #: Answers given, by kind: see `livestate.web.responder.Responder.tally`.
    answers: dict[str, int] = {}  # msgspec copies it
    events_sent: int = 0
    #: Events that were not sent, to readers who were behind.
    events_skipped: int = 0
    #: Now: readers of events, over either protocol, and requests that are held.
    event_readers: int = 0
    websocket_readers: int = 0
    long_polls: int = 0


class Counts(msgspec.Struct):
    """Of one process, or of several."""

    #: By the document's path.
    documents: dict[str, DocumentCounts] = {}
    #: Now.
    connections: int = 0
    remembered_requests: int = 0

    def past(self) -> "Counts":
        """Give what stays of these when the process is gone."""
        return Counts(
            {
                path: DocumentCounts(counts.answers, counts.events_sent, counts.events_skipped)
                for path, counts in self.documents.items()
            }
        )


def total(parts: Iterable[Counts]) -> Counts:
    """Add up."""
    whole = Counts()
    for part in parts:
        whole.connections += part.connections
        whole.remembered_requests += part.remembered_requests
        for path, counts in part.documents.items():
            whole.documents[path] = _sum(whole.documents.get(path, DocumentCounts()), counts)
    return whole


def _sum(one: DocumentCounts, other: DocumentCounts) -> DocumentCounts:
    return DocumentCounts(
        dict(Counter(one.answers) + Counter(other.answers)),
        one.events_sent + other.events_sent,
        one.events_skipped + other.events_skipped,
        one.event_readers + other.event_readers,
        one.websocket_readers + other.websocket_readers,
        one.long_polls + other.long_polls,
    )
