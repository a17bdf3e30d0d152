"""What serves each document: made when the document is first asked for.

Theory of operation. A site may have tens of thousands of documents, and most of them are asked for rarely or never. A
document that was not asked for costs an entry in a dictionary here. Its `Responder` is made for the first request, and
its event stream for the first subscriber. Counts are read from the endpoints that were made: all of them for the admin
site, and those that were used since the last time for a worker's heartbeat.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import IResource

from livestate.config.settings import events_path
from livestate.documents.document import Document
from livestate.web.counts import DocumentCounts
from livestate.web.resources.document import DocumentResource
from livestate.web.resources.events import EventsResource
from livestate.web.resources.long_poll import LongPolls
from livestate.web.responses.renewals import Renewals
from livestate.web.responses.responder import Responder
from livestate.web.responses.response import Response
from livestate.web.streams.broadcast import Broadcast
from livestate.web.streams.streams import Streams

_EVENTS = events_path("").encode("ascii")


class DocumentEndpoints:
    """The resources of one document."""

    __slots__ = ("_broadcast", "_events", "_polls", "_resource", "_site", "responder")

    def __init__(self, site: "Endpoints", document: Document, max_stale: float | None) -> None:
        """:param max_stale: see Responder."""
        self._site = site
        self.responder = Responder(
            document, site.cors_origins, max_stale, site.clock.seconds, site.renewals.add, self._touched
        )
        self._polls: LongPolls | None = None
        self._resource: DocumentResource | None = None
        self._broadcast: Broadcast | None = None
        self._events: EventsResource | None = None

    @property
    def resource(self) -> DocumentResource:
        """The document."""
        if self._resource is None:
            site = self._site
            self._polls = LongPolls(site.clock, self.responder.document, site.streams, self._touched)
            self._resource = DocumentResource(self.responder, self._polls)
        return self._resource

    @property
    def events(self) -> EventsResource:
        """Its event stream."""
        if self._events is None:
            responder, site = self.responder, self._site
            self._broadcast = site.streams.broadcast(responder.document, responder.servable, self._touched)
            self._events = EventsResource(responder, self._broadcast, site.upgrade_to_websocket)
        return self._events

    def counts(self) -> DocumentCounts:
        """Return the current counts."""
        responses, broadcast, polls = self.responder.counts(), self._broadcast, self._polls
        counts = DocumentCounts(
            responses.tally, ways=responses.ways, bytes_sent=responses.bytes_sent,
            long_polls=len(polls) if polls is not None else 0,
        )  # fmt: skip
        if broadcast is not None:
            subscribers = broadcast.subscriber_counts()
            counts.events_sent = broadcast.sent
            counts.events_skipped = broadcast.skipped
            counts.event_bytes_sent = broadcast.sent_bytes
            counts.delivery = broadcast.delivery
            counts.event_readers = subscribers["event_readers"]
            counts.websocket_readers = subscribers["websocket_readers"]
        return counts

    def closers(self) -> Iterator[Callable[[], None]]:
        """Return one function for each stream and held request, which closes it in an orderly way."""
        return chain(
            self._broadcast.closers() if self._broadcast is not None else (),
            self._polls.closers() if self._polls is not None else (),
        )

    def close(self) -> None:
        """End all subscriptions to the document."""
        for part in (self.responder, self._broadcast, self._polls):
            if part is not None:
                part.close()

    def _touched(self) -> None:
        self._site.touched.add(self)


class Endpoints:
    """The endpoints of all documents of one site, by path."""

    def __init__(
        self,
        clock: Any,
        streams: Streams,
        renewals: Renewals,
        cors_origins: tuple[str, ...],
        upgrade_to_websocket: Callable[[Request, Broadcast], Response | None] | None,
        documents: Iterable[tuple[Document, float | None]],
    ) -> None:
        """:param cors_origins: see Responder.
        :param upgrade_to_websocket: see EventsResource.
        :param documents: the documents, with the age in seconds at which each is no longer served (None: at none).
        """
        self.clock = clock
        self.streams = streams
        self.renewals = renewals
        self.cors_origins = cors_origins
        self.upgrade_to_websocket = upgrade_to_websocket
        #: Those whose counts have changed since `recent_counts` was last called.
        self.touched: set[DocumentEndpoints] = set()
        self._documents = {document.path.encode("ascii"): (document, max_stale) for document, max_stale in documents}
        self._made: dict[bytes, DocumentEndpoints] = {}

    def __len__(self) -> int:
        return len(self._made)

    def of(self, path: bytes) -> DocumentEndpoints | None:
        """Return the endpoints of the document at `path`, or None if there is no document."""
        endpoints = self._made.get(path)
        if endpoints is None:
            known = self._documents.get(path)
            if known is not None:
                endpoints = self._made[path] = DocumentEndpoints(self, *known)
        return endpoints

    def responder(self, path: bytes) -> Responder | None:
        """Return the responder of the document at `path`, or None if there is no document."""
        endpoints = self.of(path)
        return endpoints.responder if endpoints is not None else None

    def resource(self, path: bytes) -> IResource | None:
        """Return the resource of the document, or of the event stream, at `path`; None if there is neither."""
        endpoints = self.of(path)
        if endpoints is not None:
            return endpoints.resource
        stem = path.removesuffix(_EVENTS)
        if stem == path or stem.endswith(b"/"):
            return None
        # The documents at /a and at /a/ have their events at the same path, so there is only one of them.
        endpoints = self.of(stem) or self.of(stem + b"/")
        return endpoints.events if endpoints is not None else None

    def counts(self) -> dict[str, DocumentCounts]:
        """Return the current counts, by the document's path."""
        return _counts_of(self._made.values())

    def recent_counts(self) -> dict[str, DocumentCounts]:
        """Return the current counts of the documents whose counts have changed since the last call, by path."""
        self.renewals.settle()
        touched = list(self.touched)
        self.touched.clear()
        return _counts_of(touched)

    def closers(self) -> list[Callable[[], None]]:
        """Return one function for each stream and held request, which closes it in an orderly way."""
        return [close for endpoints in self._made.values() for close in endpoints.closers()]

    def close(self) -> None:
        """End all subscriptions to the documents."""
        for endpoints in self._made.values():
            endpoints.close()


class ResponderTable:
    """The responders of `Endpoints`, for the fast path."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.get: Callable[[bytes], Responder | None] = endpoints.responder


class ResourceTable:
    """The resources of a site: some that exist, and those of `Endpoints`."""

    def __init__(self, existing: Mapping[bytes, IResource], endpoints: Endpoints) -> None:
        self._existing = existing
        self._endpoints = endpoints

    def get(self, path: bytes, /) -> IResource | None:
        """Return the resource at `path`, or None if there is none."""
        return self._existing.get(path) or self._endpoints.resource(path)


def _counts_of(endpoints: Iterable[DocumentEndpoints]) -> dict[str, DocumentCounts]:
    return {each.responder.document.path: each.counts() for each in endpoints}
