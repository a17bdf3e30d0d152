"""All that serves readers in one process: the public site, and what keeps its answers right.

It is the same in the one process that does everything and in each of several workers; only what brings the documents
differs.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import IResource

from livestate.config.settings import Settings
from livestate.errors import SettingsError
from livestate.system.event_loop_lag import EventLoopLag
from livestate.system.logs import LogFiles
from livestate.system.open_files import max_clients
from livestate.system.ticker import Ticker
from livestate.web.admission import Admission, share
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.drain import ConnectionDrain
from livestate.web.idle_timeout import IdleTimeouts
from livestate.web.resources.document import DocumentResource
from livestate.web.resources.events import EventsResource
from livestate.web.resources.long_poll import LongPolls
from livestate.web.resources.readiness import ReadyResource, ServedDocument
from livestate.web.resources.viewer import viewer_resources
from livestate.web.responses.responder import Responder
from livestate.web.responses.response import Response
from livestate.web.site import LiveSite
from livestate.web.streams.broadcast import Broadcast
from livestate.web.streams.streams import Streams


class SiteService(MultiService):
    """The public site, `site`, whose listeners are somebody else's affair."""

    def __init__(
        self, reactor: Any, settings: Settings, supplies: Sequence[ServedDocument], log_files: LogFiles
    ) -> None:
        """Serve the documents of `settings`.

        :param supplies: what brings each of them, in the same order.
        :raises SettingsError: the access log cannot be written to.
        """
        super().__init__()
        streams = Streams(reactor, settings.heartbeat)
        begin_websocket = _websocket(reactor, settings.cors_origins)
        self._ready = ReadyResource(supplies)
        resources: dict[bytes, IResource] = {b"/_live/ready": self._ready}
        responders: dict[bytes, Responder] = {}
        self._parts: dict[str, tuple[Responder, Broadcast, LongPolls]] = {}
        for wanted, supply in zip(settings.documents, supplies, strict=True):
            document, path = supply.document, wanted.path.encode("ascii")
            responder = Responder(document, settings.cors_origins, wanted.max_stale, reactor.seconds)
            polls = LongPolls(reactor, document, streams)
            broadcast = streams.broadcast(document, responder.servable)
            responders[path], resources[path] = responder, DocumentResource(responder, polls)
            resources[wanted.events_path.encode("ascii")] = EventsResource(responder, broadcast, begin_websocket)
            self._parts[wanted.path] = responder, broadcast, polls
        resources.update(viewer_resources(wanted.path for wanted in settings.documents))
        self.site = LiveSite(resources, reactor, responders)
        self._admission = _admission(reactor, settings)
        if self._admission is not None:
            self.site.limit(self._admission)
        if settings.access_log is not None:
            try:
                self.site.access_log = log_files.open(settings.access_log, buffered=True)
            except OSError as error:
                raise SettingsError(f"--access-log {settings.access_log}: {error.strerror}") from None
        each_second = [log_files.flush, *(responder.renew for responder in responders.values())]
        self._reactor = reactor
        self._log_files = log_files
        self._drain: ConnectionDrain | None = None
        self._lag = EventLoopLag(reactor)
        for part in (
            streams,
            Ticker(reactor, each_second),
            IdleTimeouts(reactor, lambda: self.site.channels),
            self._lag,
        ):
            part.setServiceParent(self)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.site.doStart()

    def stopService(self) -> Any:
        """End, with all readers who are left."""
        stopped = super().stopService()
        self.site.doStop()
        if self.site.access_log is not None:
            log, self.site.access_log = self.site.access_log, None
            self._log_files.close(log)
        return stopped

    def drain(self, ending: bool) -> Deferred[None]:
        """Let all readers go; done when the last is gone.

        :param ending: whether the server ends, and readers had better go to another.
        """
        self._ready.ending = ending
        self._drain = ConnectionDrain(self._reactor, self.site, self._leavers)
        return self._drain.start()

    def abort_remaining(self) -> None:
        """Cut off who is left of those that `drain` lets go."""
        if self._drain is not None:
            self._drain.abort_remaining()

    def _leavers(self) -> list[Callable[[], None]]:
        return [
            leave
            for _, broadcast, polls in self._parts.values()
            for leave in chain(broadcast.closers(), polls.closers())
        ]

    def counts(self) -> Counts:
        """Give what was counted until now."""
        return Counts(
            {path: _counts_of(*parts) for path, parts in self._parts.items()},
            connections_accepted=self.site.accepted,
            tls_handshakes=self.site.handshakes,
            tls_resumptions=self.site.resumptions,
            connections_refused=dict(self._admission.refused) if self._admission is not None else {},
            lag=self._lag.histogram,
            connections=len(self.site.channels),
            remembered_requests=len(self.site.memo),
            remembered_bytes=self.site.memo.size,
        )


def _counts_of(responder: Responder, broadcast: Broadcast, polls: LongPolls) -> DocumentCounts:
    readers = broadcast.readers()
    return DocumentCounts(
        answers=dict(responder.tally),
        ways=dict(responder.ways),
        bytes_sent=responder.bytes_sent,
        events_sent=broadcast.sent,
        events_skipped=broadcast.skipped,
        event_bytes_sent=broadcast.sent_bytes,
        delivery=broadcast.delivery,
        event_readers=readers["event_readers"],
        websocket_readers=readers["websocket_readers"],
        long_polls=len(polls),
    )


def _admission(reactor: Any, settings: Settings) -> Admission | None:
    """Give what limits the connections of this process, one of `settings.workers`; None where nothing does."""
    limits = share(settings.max_connections, settings.workers), max_clients()
    most = min((limit for limit in limits if limit is not None), default=None)
    most_of_address = share(settings.max_connections_per_address, settings.workers)
    if most_of_address is not None and settings.workers > 1:
        # Of a few connections chance may give one worker most: none is to be refused of an address with half as many
        # as it may have.
        most_of_address *= 2
    if most is None and most_of_address is None:
        return None
    return Admission(reactor, most, most_of_address, settings.ipv6_prefix_length)


def _websocket(reactor: Any, origins: Sequence[str]) -> Callable[[Request, Broadcast], Response | None] | None:
    """Give what begins WebSockets, or None where Autobahn is not installed."""
    if find_spec("autobahn") is None:
        return None
    from livestate.web.resources.websocket import WebSockets  # noqa: PLC0415  # Autobahn may import the reactor

    return WebSockets(reactor, origins).begin
