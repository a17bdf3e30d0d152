"""The counters of a serving process, in a form that can be summed over several processes.

Some are totals that only grow (responses, events sent), others are current values (connections). When a process is
gone, its totals stay in the sum.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import msgspec
from msgspec.structs import replace

from livestate.system.histogram import Histogram


class DocumentCounts(msgspec.Struct):
    """The counters of one document."""

    #: Responses, by kind: see `livestate.web.responses.responder.ResponseCounts`.
    answers: dict[str, int] = {}  # msgspec copies the default
    events_sent: int = 0
    #: Events that were not sent, because the subscriber was too slow.
    events_skipped: int = 0
    #: Current values: subscribers of each protocol, and waiting requests.
    event_readers: int = 0
    websocket_readers: int = 0
    long_polls: int = 0
    #: Responses by how the request was parsed: see `livestate.web.responses.responder.ResponseCounts`.
    ways: dict[str, int] = {}
    #: Bytes of responses, including heads, and of events.
    bytes_sent: int = 0
    event_bytes_sent: int = 0
    #: Seconds from the start of the fetch that returned a change until it was written to the last subscriber.
    delivery: Histogram = msgspec.field(default_factory=Histogram)


class Counts(msgspec.Struct):
    """The counters of one process, or the sum of several."""

    #: By the document's path.
    documents: dict[str, DocumentCounts] = {}
    #: Current values: open connections, and the requests in the memo.
    connections: int = 0
    remembered_requests: int = 0
    remembered_bytes: int = 0
    connections_accepted: int = 0
    tls_handshakes: int = 0
    #: How many of the handshakes resumed a session.
    tls_resumptions: int = 0
    #: Connections that were closed at once, by reason: see `livestate.web.admission`.
    connections_refused: dict[str, int] = {}
    #: Seconds by which the event loop was late.
    lag: Histogram = msgspec.field(default_factory=Histogram)

    def past(self) -> "Counts":
        """Return the counters that remain when the process is gone: the totals, with every current value at 0."""
        documents = {
            path: replace(counts, event_readers=0, websocket_readers=0, long_polls=0)
            for path, counts in self.documents.items()
        }
        return replace(self, documents=documents, connections=0, remembered_requests=0, remembered_bytes=0)


def total(parts: Iterable[Counts]) -> Counts:
    """Return the sum of `parts`."""
    whole: Counts = reduce(_sum, parts, Counts())
    return whole


def _sum(one: Any, other: Any) -> Any:
    """Return the sum of numbers, of lists item by item, of dictionaries key by key, or of structs field by field."""
    if isinstance(one, dict):
        both = {name: _sum(one[name], other[name]) for name in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list):
        return [_sum(first, second) for first, second in zip(one, other, strict=True)]
    if isinstance(one, msgspec.Struct):
        return type(one)(*(_sum(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__))
    return one + other
