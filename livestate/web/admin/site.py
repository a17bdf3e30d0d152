"""The admin site: health, readiness, status and metrics, for those who run livestate.

It is for programs and people on this machine or in a trusted network: nothing there asks for a password. Browsers there
also run the pages of others, and these are kept out: no answer may be read across origins, and none is given to a name
that is not this machine's (see `livestate.web.admin.host_allowlist`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from twisted.web.http import Request
from twisted.web.resource import IResource

from livestate import __version__
from livestate.documents.poller import Poller
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
    421, "This is asked by an IP address, by localhost or by this machine's name; --admin-host=NAME allows another."
)


class JSONResource(ResponseResource):
    """Answers with what a function gives: a status and something to write as JSON."""

    def __init__(self, content: Callable[[], tuple[int, Any]]) -> None:
        super().__init__()
        self._content = content

    def respond(self, request: Request) -> Response:
        """Write what there is now."""
        status, content = self._content()
        body = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        return unstored(status, body, b"application/json")


class StatusResource(JSONResource):
    """The same as a page for who would rather have HTML: a browser."""

    def respond(self, request: Request) -> Response:
        """Write what there is now."""
        accept, vary = field(request, b"Accept"), (b"Vary", b"Accept")
        if media_weight(b"text/html", accept) > media_weight(b"application/json", accept):
            status, content = self._content()
            page, policy = status_page(content), (b"Content-Security-Policy", POLICY)
            return unstored(status, page, b"text/html; charset=utf-8", policy, vary)
        answer = super().respond(request)
        return replace(answer, fields=(*answer.fields, vary))


class AdminSite(LiveSite):
    """Serves the admin resources to those who ask by a name that is known."""

    name = "admin"

    def __init__(self, resources: Mapping[bytes, IResource], reactor: Any, names: Iterable[str] = ()) -> None:
        """Serve `resources`.

        :param names: that it may be asked by, beside those that `HostAllowlist` admits anyway.
        """
        super().__init__(resources, reactor)
        self.hosts = HostAllowlist(names)

    def getResourceFor(self, request: Request) -> IResource:
        """Find what answers `request`."""
        host = field(request, b"Host")
        if host is not None and not self.hosts.admits(host.decode("latin-1")):
            return FixedResource(_MISDIRECTED)
        return super().getResourceFor(request)


def admin_resources(
    pollers: Callable[[], Iterable[Poller]],
    counts: Callable[[], Counts],
    now: Callable[[], float],
    workers: Callable[[], Sequence[Mapping[str, Any]] | None] = lambda: None,
) -> dict[bytes, IResource]:
    """Give the admin site's resources by path.

    :param pollers: gives what keeps the documents up to date.
    :param counts: gives what was counted of all that is served.
    :param workers: tells of each serving process, where they are several.

    - `/health`: 200 as long as the process answers at all.
    - `/ready`: 200 while every document is fresh, else 503; the documents that are not are named.
    - `/status`: what each document and source is doing, as JSON or, to browsers, as a page.
    - `/metrics`: what is counted, for Prometheus.
    """
    started = now()

    def health() -> tuple[int, Any]:
        return 200, {"status": "ok"}

    def ready() -> tuple[int, Any]:
        stale = [poller.document.path for poller in pollers() if not poller.is_fresh()]
        return (503, {"status": "stale", "stale": stale}) if stale else (200, {"status": "ok"})

    def status() -> tuple[int, Any]:
        counted = counts()
        shown: dict[str, Any] = {
            "version": __version__,
            "uptime_seconds": round(now() - started, 3),
            "connections": counted.connections,
            "remembered_requests": counted.remembered_requests,
        }
        told = workers()
        if told is not None:
            shown["workers"] = told
        nothing = DocumentCounts()
        shown["documents"] = [
            _status_of(poller, counted.documents.get(poller.document.path, nothing)) for poller in pollers()
        ]
        return 200, shown

    return {
        b"/health": JSONResource(health),
        b"/ready": JSONResource(ready),
        b"/status": StatusResource(status),
        b"/metrics": MetricsResource(LiveCollector(pollers, counts, workers)),
    }


#: Of what is counted for each document.
_SHOWN = (
    *("answers", "bytes_sent", "event_readers", "websocket_readers", "events_sent", "events_skipped", "long_polls"),
)


def _status_of(poller: Poller, counts: DocumentCounts) -> dict[str, Any]:
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
