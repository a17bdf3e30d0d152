"""What a process that serves has counted, in a form in which several can be added up.

Some of it only grows (answers, events sent), some is how things stand (connections). Of a process that is gone the
former stays part of the sum.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import msgspec
from msgspec.structs import replace

from livestate.system.histogram import Histogram


class DocumentCounts(msgspec.Struct):
    """Of one document."""

    #: Answers given, by kind: see `livestate.web.responses.responder.Responder.tally`.
    answers: dict[str, int] = {}  # msgspec copies it
    events_sent: int = 0
    #: Events that were not sent, to readers who were behind.
    events_skipped: int = 0
    #: Now: readers of events, over either protocol, and requests that are held.
    event_readers: int = 0
    websocket_readers: int = 0
    long_polls: int = 0
    #: Answers by how the request was understood: see `livestate.web.responses.responder.Responder.ways`.
    ways: dict[str, int] = {}
    #: Bytes of answers, heads included, and of events.
    bytes_sent: int = 0
    event_bytes_sent: int = 0
    #: From the beginning of the fetch that brought a change until the last reader of events was written to.
    delivery: Histogram = msgspec.field(default_factory=Histogram)


class Counts(msgspec.Struct):
    """Of one process, or of several."""

    #: By the document's path.
    documents: dict[str, DocumentCounts] = {}
    #: Now; so what is remembered.
    connections: int = 0
    remembered_requests: int = 0
    remembered_bytes: int = 0
    connections_accepted: int = 0
    tls_handshakes: int = 0
    #: How many of them took up an earlier session.
    tls_resumptions: int = 0
    #: Connections that were closed as they came, by reason: see `livestate.web.admission`.
    connections_refused: dict[str, int] = {}
    #: How late the reactor was.
    lag: Histogram = msgspec.field(default_factory=Histogram)

    def past(self) -> "Counts":
        """Give what stays of these when the process is gone."""
        documents = {
            path: replace(counts, event_readers=0, websocket_readers=0, long_polls=0)
            for path, counts in self.documents.items()
        }
        return replace(self, documents=documents, connections=0, remembered_requests=0, remembered_bytes=0)


def total(parts: Iterable[Counts]) -> Counts:
    """Add up."""
    whole: Counts = reduce(_sum, parts, Counts())
    return whole


def _sum(one: Any, other: Any) -> Any:
    """Add numbers, and what is made of them: lists by items, dictionaries by keys, structures by fields."""
    if isinstance(one, dict):
        both = {name: _sum(one[name], other[name]) for name in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list):
        return [_sum(mine, its) for mine, its in zip(one, other, strict=True)]
    if isinstance(one, msgspec.Struct):
        return type(one)(*(_sum(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__))
    return one + other
