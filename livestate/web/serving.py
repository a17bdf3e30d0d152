"""All that serves readers in one process: the public site, and what keeps its answers right.

It is the same in the one process that does everything and in each of several workers; only what brings the documents
differs.
"""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.web.resource import IResource

from livestate.errors import SettingsError
from livestate.lag import Lag
from livestate.logs import LogFiles
from livestate.settings import Settings
from livestate.ticker import Ticker
from livestate.web.broadcast import Broadcast
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.document import DocumentResource
from livestate.web.events import EventsResource
from livestate.web.live import ReadyResource, Supply
from livestate.web.longpoll import LongPolls
from livestate.web.responder import Responder
from livestate.web.site import LiveSite
from livestate.web.static import viewer_resources
from livestate.web.streams import Streams
from livestate.web.sweep import Sweep


class Serving(MultiService):
    """The public site, `site`, whose listeners are somebody else's affair."""

    def __init__(self, reactor: Any, settings: Settings, supplies: Sequence[Supply], log_files: LogFiles) -> None:
        """Serve the documents of `settings`.

        :param supplies: what brings each of them, in the same order.
        :raises SettingsError: the access log cannot be written to.
        """
        super().__init__()
        streams = Streams(reactor, settings.heartbeat)
        resources: dict[bytes, IResource] = {b"/_live/ready": ReadyResource(supplies)}
        responders: dict[bytes, Responder] = {}
        self._parts: dict[str, tuple[Responder, Broadcast, LongPolls]] = {}
        for wanted, supply in zip(settings.documents, supplies, strict=True):
            document, path = supply.document, wanted.path.encode("ascii")
            responder = Responder(document, settings.cors_origins, wanted.max_stale, reactor.seconds)
            polls = LongPolls(reactor, document, streams)
            broadcast = streams.broadcast(document, responder.servable)
            responders[path], resources[path] = responder, DocumentResource(responder, polls)
            resources[wanted.events_path.encode("ascii")] = EventsResource(responder, broadcast)
            self._parts[wanted.path] = responder, broadcast, polls
        resources.update(viewer_resources(wanted.path for wanted in settings.documents))
        self.site = LiveSite(resources, reactor, responders)
        if settings.access_log is not None:
            try:
                self.site.access_log = log_files.open(settings.access_log, buffered=True)
            except OSError as error:
                raise SettingsError(f"--access-log {settings.access_log}: {error.strerror}") from None
        each_second = [log_files.flush, *(responder.renew for responder in responders.values())]
        self._lag = Lag(reactor)
        for part in (streams, Ticker(reactor, each_second), Sweep(reactor, lambda: self.site.channels), self._lag):
            part.setServiceParent(self)

    def counts(self) -> Counts:
        """Give what was counted until now."""
        return Counts(
            {
                path: DocumentCounts(
                    answers=dict(responder.tally),
                    ways=dict(responder.ways),
                    bytes_sent=responder.bytes_sent,
                    events_sent=broadcast.sent,
                    events_skipped=broadcast.skipped,
                    event_bytes_sent=broadcast.sent_bytes,
                    delivery=broadcast.delivery,
                    event_readers=broadcast.readers(),
                    long_polls=len(polls),
                )
                for path, (responder, broadcast, polls) in self._parts.items()
            },
            connections_accepted=self.site.accepted,
            tls_handshakes=self.site.handshakes,
            tls_resumptions=self.site.resumptions,
            lag=self._lag.histogram,
            connections=len(self.site.channels),
            remembered_requests=len(self.site.memo),
            remembered_bytes=self.site.memo.size,
        )
