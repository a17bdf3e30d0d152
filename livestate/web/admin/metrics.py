"""What is counted, as Prometheus reads it: `/metrics`.

Theory of operation. Nothing is counted here. At each scrape the pollers, and the Counts of all that serves, are put
into metric families, under names and units by Prometheus' conventions. `docs/metrics.md` is the list of them.
"""

import platform
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.web.http import Request

import twisted
from livestate import __version__
from livestate.documents.poller import Poller
from livestate.system.histogram import Histogram
from livestate.web.admin.process_metrics import ProcessMetrics, of_workers
from livestate.web.counts import Counts
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, unstored

#: Of the text format; the client library's own constant names another version of it, by its release.
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class LiveCollector(Collector):
    """Gives the metric families."""

    def __init__(
        self,
        pollers: Callable[[], Iterable[Poller]],
        counts: Callable[[], Counts],
        workers: Callable[[], Sequence[Mapping[str, Any]] | None],
    ) -> None:
        self._pollers = pollers
        self._counts = counts
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Give them as they are now."""
        build = GaugeMetricFamily("livestate_build_info", "What runs here; always 1.", labels=list(_BUILD))
        build.add_metric(list(_BUILD.values()), 1)
        yield build
        pollers, counts = list(self._pollers()), self._counts()
        yield from _of_sources(pollers)
        # What was counted of a document that is served no more is kept, for its return, and not shown.
        yield from _of_documents(counts, {poller.document.path for poller in pollers})
        yield from _of_processes(counts)
        yield from of_workers(self._workers() or ())

    def describe(self) -> list[Metric]:
        """Name none beforehand: the registry would collect all for that."""
        return []


_BUILD = {
    "version": __version__,
    "python": platform.python_version(),
    "twisted": twisted.__version__,
    "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii").split()[1],
    "platform": sys.platform,
}


def _of_sources(pollers: Iterable[Poller]) -> Iterator[Metric]:
    """Give what the process that asks the sources knows."""
    path = ["path"]
    fetches = CounterMetricFamily("livestate_fetches", "Questions to the source.", labels=path)
    failures = CounterMetricFamily(
        "livestate_fetch_failures", "Questions to the source that gave no good document.", labels=path
    )
    notifications = CounterMetricFamily(
        "livestate_source_notifications", "Times that the source told of a change.", labels=path
    )
    refusals = CounterMetricFamily(
        "livestate_document_refusals", "Documents that were not taken: no JSON, or too large.", labels=path
    )
    changes = CounterMetricFamily("livestate_document_changes", "Times that the document changed.", labels=path)
    up = GaugeMetricFamily("livestate_source_up", "Whether the source gives good documents just now.", labels=path)
    fresh = GaugeMetricFamily(
        "livestate_document_fresh", "Whether the document was confirmed within the last three intervals.", labels=path
    )
    age = GaugeMetricFamily(
        "livestate_document_age_seconds", "Time since the source last confirmed the document.", labels=path
    )
    modified = GaugeMetricFamily(
        "livestate_document_modified_timestamp_seconds", "When the document last changed, since 1970.", labels=path
    )
    size = GaugeMetricFamily(
        "livestate_document_size_bytes", "Size of the document, by content coding.", labels=["path", "coding"]
    )
    publication = HistogramMetricFamily(
        "livestate_publication_delay_seconds",
        "From the beginning of the fetch that brought a change until it was published.",
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


def _of_documents(counts: Counts, paths: Container[str]) -> Iterator[Metric]:
    """Give what those who serve have counted for each document of `paths`."""
    path = ["path"]
    responses = CounterMetricFamily(
        "livestate_responses",
        "Answers with a document or about it, by status and, of a 200, content coding.",
        labels=["path", "code", "coding"],
    )
    requests = CounterMetricFamily(
        "livestate_requests",
        "The requests that were answered so, by how they were understood, the fastest way first: "
        "repeated, remembered, parsed, general.",
        labels=["path", "way"],
    )
    sent = CounterMetricFamily("livestate_response_bytes", "Bytes of these answers, heads included.", labels=path)
    readers = GaugeMetricFamily("livestate_event_readers", "Readers of the event stream.", labels=path)
    websockets = GaugeMetricFamily("livestate_websocket_readers", "Readers over WebSocket.", labels=path)
    polls = GaugeMetricFamily("livestate_long_polls", "Requests that are held until the document changes.", labels=path)
    events = CounterMetricFamily("livestate_events_sent", "Events that were sent to readers.", labels=path)
    skipped = CounterMetricFamily(
        "livestate_events_skipped", "Events that were not sent to readers who were behind.", labels=path
    )
    event_bytes = CounterMetricFamily("livestate_event_bytes", "Bytes of the events that were sent.", labels=path)
    delivery = HistogramMetricFamily(
        "livestate_delivery_delay_seconds",
        "From the beginning of the fetch that brought a change until the last reader of events was written to.",
        labels=path,
    )
    for name, document in counts.documents.items():
        if name not in paths:
            continue
        for kind, number in document.answers.items():
            status, coding = (kind, "") if kind.isdigit() else ("200", kind)
            responses.add_metric([name, status, coding], number)
        for way, number in document.ways.items():
            requests.add_metric([name, way], number)
        sent.add_metric([name], document.bytes_sent)
        readers.add_metric([name], document.event_readers)
        websockets.add_metric([name], document.websocket_readers)
        polls.add_metric([name], document.long_polls)
        events.add_metric([name], document.events_sent)
        skipped.add_metric([name], document.events_skipped)
        event_bytes.add_metric([name], document.event_bytes_sent)
        _add(delivery, [name], document.delivery)
    yield from (responses, requests, sent, readers, websockets, polls, events, skipped, event_bytes, delivery)


def _of_processes(counts: Counts) -> Iterator[Metric]:
    """Give what those who serve have counted of themselves."""
    yield GaugeMetricFamily("livestate_connections", "Open connections of readers.", counts.connections)
    yield CounterMetricFamily(
        "livestate_connections_accepted", "Connections of readers that were accepted.", counts.connections_accepted
    )
    refused = CounterMetricFamily(
        "livestate_connections_refused",
        "Connections that were closed as they came: there were too many in all (total) or of one address (address).",
        labels=["reason"],
    )
    for reason, number in counts.connections_refused.items():
        refused.add_metric([reason], number)
    yield refused
    yield CounterMetricFamily("livestate_tls_handshakes", "TLS handshakes that succeeded.", counts.tls_handshakes)
    yield CounterMetricFamily(
        "livestate_tls_resumptions", "TLS handshakes that took up an earlier session.", counts.tls_resumptions
    )
    yield GaugeMetricFamily("livestate_memo_entries", "Requests that are remembered.", counts.remembered_requests)
    yield GaugeMetricFamily(
        "livestate_memo_bytes", "Bytes of the requests that are remembered.", counts.remembered_bytes
    )
    lag = HistogramMetricFamily(
        "livestate_event_loop_lag_seconds", "How late the reactor called what was due, looked at four times a second."
    )
    _add(lag, [], counts.lag)
    yield lag


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.sum)


class MetricsResource(ResponseResource):
    """Answers with all metrics, in Prometheus' text format, which every scraper takes."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessMetrics(registry=self._registry)

    def respond(self, request: Request) -> Response:
        """Write what there is now."""
        return unstored(200, generate_latest(self._registry), CONTENT_TYPE)
