"""Everything that serves clients in one process: the public site, its limits, timeouts, streams and drain.

It is the same in a single process and in each of several workers. Only the origin of the documents differs.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from livestate.config.settings import Settings
from livestate.documents.registry import MAX_THREADS
from livestate.errors import SettingsError
from livestate.sources.factory import store_address
from livestate.system.event_loop_lag import EventLoopLag
from livestate.system.logs import LogFiles
from livestate.system.open_files import max_clients
from livestate.system.ticker import Ticker
from livestate.web.admission import Admission, share_per_worker
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.drain import ConnectionDrain
from livestate.web.endpoints import Endpoints, ResourceTable, ResponderTable
from livestate.web.idle_timeout import IdleTimeouts
from livestate.web.resources.readiness import ReadyResource, ServedDocument
from livestate.web.resources.viewer import viewer_resources
from livestate.web.responses.renewals import Renewals
from livestate.web.responses.response import Response
from livestate.web.site import LiveSite
from livestate.web.streams.broadcast import Broadcast
from livestate.web.streams.streams import Streams

#: The connections, or files, that one store may have open, and those that replace them.
_FILES_PER_STORE = 4


class SiteService(MultiService):
    """The public site, without its listeners."""

    def __init__(
        self, reactor: Any, settings: Settings, documents: Sequence[ServedDocument], log_files: LogFiles
    ) -> None:
        """Serve the documents of `settings`.

        :param documents: the documents, in the order of the settings.
        :raises SettingsError: the access log cannot be written to.
        """
        super().__init__()
        streams, renewals = Streams(reactor, settings.heartbeat), Renewals(reactor)
        self._ready = ReadyResource(documents)
        self._endpoints = Endpoints(
            reactor, streams, renewals, settings.cors_origins, _websocket(reactor, settings.cors_origins),
            ((served.document, each.max_stale) for each, served in zip(settings.documents, documents, strict=True)),
        )  # fmt: skip
        existing = {
            b"/_live/ready": self._ready,
            **viewer_resources(lambda: (document.path for document in settings.documents)),
        }
        resources, responders = ResourceTable(existing, self._endpoints), ResponderTable(self._endpoints)
        self.site = LiveSite(resources, reactor, responders)
        self._connections = self.site.connections
        self._admission = _admission(reactor, settings)
        if self._admission is not None:
            self.site.limit(self._admission)
        if settings.access_log is not None:
            try:
                self.site.log_to(log_files.open(settings.access_log, buffered=True))
            except OSError as error:
                raise SettingsError(f"--access-log {settings.access_log}: {error.strerror}") from None
        self._reactor = reactor
        self._log_files = log_files
        self._drain: ConnectionDrain | None = None
        self._lag = EventLoopLag(reactor)
        for part in (
            streams,
            Ticker(reactor, [log_files.flush, renewals.renew]),
            IdleTimeouts(reactor, lambda: self._connections.open),
            self._lag,
        ):
            part.setServiceParent(self)

    def startService(self) -> None:
        """Start serving."""
        super().startService()
        self.site.doStart()

    def stopService(self) -> Any:
        """Stop serving, and close the streams that are still open."""
        stopped = super().stopService()
        self._endpoints.close()
        self.site.doStop()
        log = self._connections.access_log
        if log is not None and log.file is not None:
            file, log.file = log.file, None
            self._log_files.close(file)
        return stopped

    def drain(self, stopping: bool) -> Deferred[None]:
        """Drain all connections; the Deferred fires when none is left.

        :param stopping: whether livestate is shutting down, so that `/_live/ready` sends clients to another server.
        """
        self._ready.stopping = stopping
        self._drain = ConnectionDrain(self._reactor, self._connections, self._endpoints.closers)
        return self._drain.start()

    def abort_remaining(self) -> None:
        """Abort the connections that `drain` has not closed yet."""
        if self._drain is not None:
            self._drain.abort_remaining()

    def counts(self) -> Counts:
        """Return the current counts, with those of the documents that were asked for."""
        return self._counts(self._endpoints.counts())

    def recent_counts(self) -> Counts:
        """Return the current counts, with those of the documents whose counts have changed since the last call."""
        return self._counts(self._endpoints.recent_counts())

    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self._connections.open)

    def _counts(self, documents: dict[str, DocumentCounts]) -> Counts:
        connections = self._connections
        return Counts(
            documents,
            connections_accepted=connections.accepted,
            tls_handshakes=connections.handshakes,
            tls_resumptions=connections.resumptions,
            connections_refused=dict(self._admission.refused) if self._admission is not None else {},
            lag=self._lag.histogram,
            connections=len(connections.open),
            remembered_requests=len(connections.request_memo),
            remembered_bytes=connections.request_memo.size,
        )


def files_for_documents(settings: Settings) -> int:
    """Return the open files that this process may need to fetch and save the documents.

    A store has one connection for fetches and some for notifications, whatever the number of its documents. Documents
    are saved by threads, each of which has one file open. Workers do neither: their settings have no sources.
    """
    fetched = [document.source for document in settings.documents if document.source]
    stores = {store_address(source).identity for source in fetched}
    saving = 0 if settings.state_dir is None else min(len(fetched), MAX_THREADS)
    return _FILES_PER_STORE * len(stores) + saving


def _admission(reactor: Any, settings: Settings) -> Admission | None:
    """Return the limits of this process, which is one of `settings.workers`; None if there are none."""
    limits = share_per_worker(settings.max_connections, settings.workers), max_clients(files_for_documents(settings))
    limit = min((number for number in limits if number is not None), default=None)
    limit_per_address = share_per_worker(settings.max_connections_per_address, settings.workers)
    if limit_per_address is not None and settings.workers > 1:
        # By chance, most of a few connections may go to one worker. An address with half of its allowed connections
        # should have none refused.
        limit_per_address *= 2
    if limit is None and limit_per_address is None:
        return None
    return Admission(reactor, limit, limit_per_address, settings.ipv6_prefix_length)


def _websocket(reactor: Any, origins: Sequence[str]) -> Callable[[Request, Broadcast], Response | None] | None:
    """Return the function that upgrades requests to WebSocket, or None if Autobahn is not installed."""
    if find_spec("autobahn") is None:
        return None
    from livestate.web.resources.websocket import WebSockets  # noqa: PLC0415  # Autobahn may import the reactor

    return WebSockets(reactor, origins).upgrade
