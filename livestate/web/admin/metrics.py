"""The metrics for Prometheus: `/metrics`.

Theory of operation. Nothing is counted here. Each scrape builds the metric families from the pollers and from the
Counts of all that serves. Names and units follow the conventions of Prometheus. `docs/metrics.md` lists all metrics.
"""

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.web.http import Request

import twisted
from livestate import __version__
from livestate.documents.polled_document import PolledDocument
from livestate.system.histogram import Histogram
from livestate.web.admin.process_metrics import ProcessMetrics, worker_metrics
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, unstored

#: Of the text format. The constant of the client library names a version that depends on the library's release.
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class LiveCollector(Collector):
    """Collects the metric families."""

    def __init__(
        self,
        pollers: Callable[[], Iterable[PolledDocument]],
        counts: Callable[[], Counts],
        workers: Callable[[], Sequence[Mapping[str, Any]] | None],
    ) -> None:
        self._pollers = pollers
        self._counts = counts
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield all families with their current values."""
        build = GaugeMetricFamily(
            "livestate_build_info", "Versions of livestate and of what it runs on; always 1.", labels=list(_BUILD)
        )
        build.add_metric(list(_BUILD.values()), 1)
        yield build
        pollers, counts = list(self._pollers()), self._counts()
        yield from _source_metrics(pollers)
        # The counters of a removed document are kept, in case it is added again, but not exported. Those of a document
        # that was not asked for yet are exported as 0, so that the first increase is seen.
        yield from _document_metrics(counts, [poller.document.path for poller in pollers])
        yield from _process_metrics(counts)
        yield from worker_metrics(self._workers() or ())

    def describe(self) -> list[Metric]:
        """Describe nothing: otherwise the registry would collect everything at registration."""
        return []


_BUILD = {
    "version": __version__,
    "python": platform.python_version(),
    "twisted": twisted.__version__,
    "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii").split()[1],
    "platform": sys.platform,
}


def _source_metrics(pollers: Iterable[PolledDocument]) -> Iterator[Metric]:
    """Yield the metrics of the sources and documents, from the process that polls."""
    path = ["path"]
    fetches = CounterMetricFamily("livestate_fetches", "Fetches from the source.", labels=path)
    failures = CounterMetricFamily("livestate_fetch_failures", "Fetches that returned no valid document.", labels=path)
    notifications = CounterMetricFamily(
        "livestate_source_notifications", "Change notifications from the source.", labels=path
    )
    refusals = CounterMetricFamily(
        "livestate_document_refusals", "Documents that were refused: not JSON, or too large.", labels=path
    )
    changes = CounterMetricFamily("livestate_document_changes", "Changes of the document.", labels=path)
    up = GaugeMetricFamily("livestate_source_up", "Whether the source returns valid documents.", labels=path)
    fresh = GaugeMetricFamily(
        "livestate_document_fresh",
        "Whether the source confirmed the document within the last three intervals.",
        labels=path,
    )
    age = GaugeMetricFamily(
        "livestate_document_age_seconds", "Time since the source last confirmed the document.", labels=path
    )
    modified = GaugeMetricFamily(
        "livestate_document_modified_timestamp_seconds",
        "When the document last changed, in seconds since 1970.",
        labels=path,
    )
    size = GaugeMetricFamily(
        "livestate_document_size_bytes", "Size of the document, by content coding.", labels=["path", "coding"]
    )
    publication = HistogramMetricFamily(
        "livestate_publication_delay_seconds",
        "Time from the start of the fetch that returned a change until the change was published.",
        labels=path,
    )
    for poller in pollers:
        document, stats, labels = poller.document, poller.stats, [poller.document.path]
        fetches.add_metric(labels, stats.fetches)
        failures.add_metric(labels, stats.failures)
        notifications.add_metric(labels, stats.notifications)
        refusals.add_metric(labels, document.refusals)
        changes.add_metric(labels, document.changes)
        up.add_metric(labels, stats.error is None)
        fresh.add_metric(labels, poller.is_fresh())
        _add(publication, labels, document.publication_delay)
        if document.snapshot is not None:
            age.add_metric(labels, document.age())
            modified.add_metric(labels, document.snapshot.modified)
            for coding, representation in document.snapshot.representations.items():
                size.add_metric([*labels, coding], len(representation.body))
    yield from (fetches, failures, notifications, refusals, changes, up, fresh, age, modified, size, publication)


def _document_metrics(counts: Counts, paths: Iterable[str]) -> Iterator[Metric]:
    """Yield the metrics of the responses and events of each document in `paths`."""
    path = ["path"]
    responses = CounterMetricFamily(
        "livestate_responses",
        "Responses for the document, by status code and, for 200, content coding.",
        labels=["path", "code", "coding"],
    )
    requests = CounterMetricFamily(
        "livestate_requests",
        "Requests for the document, by how they were parsed, fastest first: repeated, remembered, parsed, general.",
        labels=["path", "way"],
    )
    sent = CounterMetricFamily("livestate_response_bytes", "Bytes of the responses, including heads.", labels=path)
    subscribers = GaugeMetricFamily("livestate_event_readers", "Subscribers of the event stream.", labels=path)
    websockets = GaugeMetricFamily("livestate_websocket_readers", "Subscribers over WebSocket.", labels=path)
    polls = GaugeMetricFamily("livestate_long_polls", "Requests waiting for the document to change.", labels=path)
    events = CounterMetricFamily("livestate_events_sent", "Events sent to subscribers.", labels=path)
    skipped = CounterMetricFamily(
        "livestate_events_skipped", "Events not sent, because the subscriber was too slow.", labels=path
    )
    event_bytes = CounterMetricFamily("livestate_event_bytes", "Bytes of the events sent.", labels=path)
    delivery = HistogramMetricFamily(
        "livestate_delivery_delay_seconds",
        "Time from the start of the fetch that returned a change until it was written to the last subscriber.",
        labels=path,
    )
    none_yet = DocumentCounts()
    for name in paths:
        document = counts.documents.get(name, none_yet)
        for kind, number in document.answers.items():
            status, coding = (kind, "") if kind.isdigit() else ("200", kind)
            responses.add_metric([name, status, coding], number)
        for way, number in document.ways.items():
            requests.add_metric([name, way], number)
        sent.add_metric([name], document.bytes_sent)
        subscribers.add_metric([name], document.event_readers)
        websockets.add_metric([name], document.websocket_readers)
        polls.add_metric([name], document.long_polls)
        events.add_metric([name], document.events_sent)
        skipped.add_metric([name], document.events_skipped)
        event_bytes.add_metric([name], document.event_bytes_sent)
        _add(delivery, [name], document.delivery)
    yield from (responses, requests, sent, subscribers, websockets, polls, events, skipped, event_bytes, delivery)


def _process_metrics(counts: Counts) -> Iterator[Metric]:
    """Yield the metrics of connections, TLS, the request memo and the event loop."""
    yield GaugeMetricFamily("livestate_connections", "Open connections of clients.", counts.connections)
    yield CounterMetricFamily(
        "livestate_connections_accepted", "Accepted connections of clients.", counts.connections_accepted
    )
    refused = CounterMetricFamily(
        "livestate_connections_refused",
        "Connections closed at once: there were too many in total (total) or from one address (address).",
        labels=["reason"],
    )
    for reason, number in counts.connections_refused.items():
        refused.add_metric([reason], number)
    yield refused
    yield CounterMetricFamily("livestate_tls_handshakes", "Completed TLS handshakes.", counts.tls_handshakes)
    yield CounterMetricFamily(
        "livestate_tls_resumptions", "TLS handshakes that resumed a session.", counts.tls_resumptions
    )
    yield GaugeMetricFamily(
        "livestate_memo_entries", "Requests in the memo of recent requests.", counts.remembered_requests
    )
    yield GaugeMetricFamily("livestate_memo_bytes", "Bytes of the requests in the memo.", counts.remembered_bytes)
    lag = HistogramMetricFamily(
        "livestate_event_loop_lag_seconds", "How late the event loop ran a due call, sampled four times a second."
    )
    _add(lag, [], counts.lag)
    yield lag


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.sum)


class MetricsResource(ResponseResource):
    """Responds with all metrics in the text format of Prometheus, which every scraper accepts."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessMetrics(registry=self._registry)

    def respond(self, request: Request) -> Response:
        """Return the current values."""
        return unstored(200, generate_latest(self._registry), CONTENT_TYPE)
