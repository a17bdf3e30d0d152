"""The admin site: health, readiness, status and metrics, for operators.

It is meant for programs and people on this machine or in a trusted network, and asks for no password. The browsers of
these people also run pages of other sites, which must be kept out: no response may be read across origins, and requests
for a host name that does not belong to this machine are refused (see `livestate.web.admin.host_allowlist`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from twisted.web.http import Request
from twisted.web.resource import IResource

from livestate import __version__
from livestate.documents.polled_document import PolledDocument
from livestate.formats.negotiation import media_weight
from livestate.web.admin.host_allowlist import HostAllowlist
from livestate.web.admin.metrics import LiveCollector, MetricsResource
from livestate.web.admin.status_page import POLICY, status_page
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.http1.request import field
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, problem, unstored
from livestate.web.site import FixedResource, LiveSite

_MISDIRECTED = problem(
    421, "The admin site answers to IP addresses, localhost and this machine's name; --admin-host=NAME adds another."
)


class JSONResource(ResponseResource):
    """Responds with what a function returns: a status code, and an object that is sent as JSON."""

    def __init__(self, content: Callable[[], tuple[int, Any]]) -> None:
        super().__init__()
        self._content = content

    def respond(self, request: Request) -> Response:
        """Return the current content."""
        status, content = self._content()
        body = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        return unstored(status, body, b"application/json")


class StatusResource(JSONResource):
    """A JSONResource that responds with an HTML page to clients that prefer HTML, such as browsers."""

    def respond(self, request: Request) -> Response:
        """Return the current content."""
        accept, vary = field(request, b"Accept"), (b"Vary", b"Accept")
        if media_weight(b"text/html", accept) > media_weight(b"application/json", accept):
            status, content = self._content()
            page, policy = status_page(content), (b"Content-Security-Policy", POLICY)
            return unstored(status, page, b"text/html; charset=utf-8", policy, vary)
        response = super().respond(request)
        return replace(response, fields=(*response.fields, vary))


class AdminSite(LiveSite):
    """Serves the admin resources, under the host names that are admitted."""

    name = "admin"

    def __init__(self, resources: Mapping[bytes, IResource], reactor: Any, names: Iterable[str] = ()) -> None:
        """Serve `resources`.

        :param names: host names to admit, in addition to those that `HostAllowlist` always admits.
        """
        super().__init__(resources, reactor)
        self.hosts = HostAllowlist(names)

    def getResourceFor(self, request: Request) -> IResource:
        """Return the resource that responds to `request`."""
        host = field(request, b"Host")
        if host is not None and not self.hosts.admits(host.decode("latin-1")):
            return FixedResource(_MISDIRECTED)
        return super().getResourceFor(request)


def admin_resources(
    pollers: Callable[[], Iterable[PolledDocument]],
    counts: Callable[[], Counts],
    now: Callable[[], float],
    workers: Callable[[], Sequence[Mapping[str, Any]] | None] = lambda: None,
) -> dict[bytes, IResource]:
    """Return the resources of the admin site by path.

    - `/health`: 200 as long as the process responds at all.
    - `/ready`: 200 while every document is fresh, otherwise 503 with the stale documents.
    - `/status`: the state of each document and its source, as JSON, or as a page for browsers.
    - `/metrics`: the metrics, for Prometheus.

    :param pollers: returns the pollers of all documents.
    :param counts: returns the counters of all that serves.
    :param now: returns the time in seconds.
    :param workers: returns the status of each worker; None in a single process.
    """
    started = now()

    def health() -> tuple[int, Any]:
        return 200, {"status": "ok"}

    def ready() -> tuple[int, Any]:
        stale = [poller.document.path for poller in pollers() if not poller.is_fresh()]
        return (503, {"status": "stale", "stale": stale}) if stale else (200, {"status": "ok"})

    def status() -> tuple[int, Any]:
        counters = counts()
        shown: dict[str, Any] = {
            "version": __version__,
            "uptime_seconds": round(now() - started, 3),
            "connections": counters.connections,
            "remembered_requests": counters.remembered_requests,
        }
        worker_statuses = workers()
        if worker_statuses is not None:
            shown["workers"] = worker_statuses
        none_yet = DocumentCounts()
        shown["documents"] = [
            _status_of(poller, counters.documents.get(poller.document.path, none_yet)) for poller in pollers()
        ]
        return 200, shown

    return {
        b"/health": JSONResource(health),
        b"/ready": JSONResource(ready),
        b"/status": StatusResource(status),
        b"/metrics": MetricsResource(LiveCollector(pollers, counts, workers)),
    }


#: The fields of DocumentCounts that /status shows.
_SHOWN = (
    *("answers", "bytes_sent", "event_readers", "websocket_readers", "events_sent", "events_skipped", "long_polls"),
)


def _status_of(poller: PolledDocument, counts: DocumentCounts) -> dict[str, Any]:
    document, stats, snapshot = poller.document, poller.stats, poller.document.snapshot
    shown: dict[str, Any] = {
        "path": document.path,
        "source": str(poller.source),
        "fresh": poller.is_fresh(),
        "interval_seconds": poller.interval,
        "fetches": stats.fetches,
        "failures": stats.failures,
        "notifications": stats.notifications,
        "refusals": document.refusals,
        "changes": document.changes,
        "trouble": stats.error,
        **{name: getattr(counts, name) for name in _SHOWN},
    }
    if snapshot is not None:
        shown["version"] = snapshot.version
        shown["modified"] = snapshot.modified
        shown["age_seconds"] = round(document.age(), 3)
        shown["representations"] = {
            coding: {"bytes": len(representation.body), "etag": representation.etag.decode("ascii")}
            for coding, representation in snapshot.representations.items()
        }
    return shown
