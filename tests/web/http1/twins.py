"""One service, served twice: by its own site, and by one without the short cut, where twisted.web parses every request.

Chance is taken out of it: what is jittered for each reader is the same for both.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.logger import LogEvent, globalLogPublisher

from livestate.config.settings import load_settings
from livestate.documents.document import Document
from livestate.system.logs import LogFiles
from livestate.web.http1.channel import LiveChannel
from livestate.web.idle_timeout import IdleTimeouts
from livestate.web.resources.viewer import viewer_resources
from livestate.web.site import LiveSite
from livestate.web.site_service import SiteService
from tests.support import FakeReactor, result_of
from tests.web.resources.test_events import SlowTransport

#: What a document that is compressed, and of which patches are made, looks like.
BODY = b'{"title": "an election night", "votes": {' + b", ".join(b'"%d": %d' % (n, 7919 * n) for n in range(40)) + b"}}"

_DATE = re.compile(rb"\r\nDate: [^\r]*")


# Compressing them takes as long as all the rest of a service's beginning, ten times over.
_viewer = lru_cache(viewer_resources)


def viewer_of(paths: Iterable[str]) -> Any:
    """Give the viewer's resources, as they were made once."""
    return _viewer(tuple(paths))


class Certain:
    """In place of the module `random`."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return low

    @staticmethod
    def randint(low: int, high: int) -> int:
        return low


class ServedDocument:
    """A document that a test changes."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def is_fresh(self) -> bool:
        return self.document.is_fresh(1.0)


class Transport(SlowTransport):
    """Like a real one, it may be told twice that there is no producer any more, and to pause after its end."""

    def unregisterProducer(self) -> None:
        self.producer = None

    def _checkState(self) -> None:
        pass


class Twins:
    """The service, running, with a document at / and, not there yet, one at /results.json."""

    def __init__(self, **options: str) -> None:
        """:param options: as on the command line."""
        self.reactor = FakeReactor()
        given = {name.replace("_", "-"): [value] for name, value in options.items()}
        settings = load_settings({"source": ["demo:", "/results.json=demo:"], **given})
        self.documents = {w.path: Document(self.reactor, w.path, settings.max_size) for w in settings.documents}
        supplies = [ServedDocument(document) for document in self.documents.values()]
        with mock.patch("livestate.web.site_service.viewer_resources", viewer_of):
            self.serving = SiteService(self.reactor, settings, supplies, LogFiles())
        self.fast_site = self.serving.site
        self.slow_site = LiveSite(self.fast_site._resources, self.reactor)
        self._sweep = IdleTimeouts(self.reactor, lambda: self.slow_site.connections.open)
        #: What went wrong and was only logged.
        self.failures: list[str] = []
        globalLogPublisher.addObserver(self._observe)  # type: ignore[arg-type]  # a function is an observer
        self._patches = [
            mock.patch(f"livestate.web.{name}.random", Certain)
            for name in ("streams.broadcast", "resources.events", "resources.long_poll")
        ]
        for patch in self._patches:
            patch.start()
        self.serving.startService()
        self._sweep.startService()
        self.publish("/", BODY)

    def publish(self, path: str, data: bytes) -> None:
        """Change a document, and let those be told who can be."""
        result_of(self.documents[path].update(data))
        self.reactor.advance(0.001)

    def confirm(self) -> None:
        """Have the store confirm what it gave."""
        for document in self.documents.values():
            if document.snapshot is not None:
                document.confirmed = self.reactor.seconds()

    def tags(self) -> Mapping[str, list[bytes]]:
        """Give the entity tags that are current, by path."""
        return {
            path: [] if document.snapshot is None else [r.etag for r in document.snapshot.representations.values()]
            for path, document in self.documents.items()
        }

    def drain(self) -> None:
        """Have each connection's next answer be its last."""
        self.fast_site.connections.drain()
        self.slow_site.connections.drain()

    def forget(self) -> None:
        """Forget the requests that were remembered, so that what comes next does not depend on what came before."""
        self.fast_site.connections.request_memo._entries.clear()
        self.fast_site.connections.request_memo._bytes = 0
        self.fast_site.connections.response_memo.renew()

    def close(self) -> None:
        """End."""
        self._sweep.stopService()
        self.serving.stopService()
        for patch in self._patches:
            patch.stop()
        globalLogPublisher.removeObserver(self._observe)  # type: ignore[arg-type]

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.failures.append(event["log_failure"].getTraceback())


class Connections:
    """A connection to each of the two sites; both are sent the same."""

    def __init__(self, twins: Twins) -> None:
        self._sites = twins.fast_site, twins.slow_site
        self._reactor = twins.reactor
        peer = IPv4Address("TCP", "192.0.2.1", 54321)
        self.channels: list[LiveChannel] = []
        self.transports: list[Transport] = []
        for site in self._sites:
            transport = Transport()
            transport.peerAddr = peer
            channel = site.buildProtocol(peer)
            channel.makeConnection(transport)
            self.channels.append(channel)
            self.transports.append(transport)

    @property
    def closed(self) -> bool:
        return any(transport.disconnecting for transport in self.transports)

    def send(self, data: bytes) -> None:
        """Have both take a piece, if they are still there."""
        for channel, transport in zip(self.channels, self.transports, strict=True):
            if not transport.disconnecting:
                channel.dataReceived(data)
        self._take_turns()

    def stop_reading(self) -> None:
        """Take no byte more."""
        for transport in self.transports:
            transport.room = 0

    def read(self) -> None:
        """Take all that waits, and whatever comes."""
        for transport in self.transports:
            while transport.waiting:
                transport.give_room(1 << 20)
            transport.room = 1 << 30
        self._take_turns()

    def _take_turns(self) -> None:
        """Let those go on who sent so much at once that others came first."""
        while any(channel._queued for channel in self.channels):
            self._reactor.advance(0)

    def outcomes(self) -> tuple[tuple[bytes, bool, bool], tuple[bytes, bool, bool]]:
        """Give what each wrote, but for the Date's value, and whether it closed, and aborted."""
        fast, slow = (
            (_DATE.sub(b"\r\nDate: (now)", t.value() + t.waiting), t.disconnecting, t.aborted) for t in self.transports
        )
        return fast, slow

    def lose(self) -> None:
        """Go away."""
        for channel in self.channels:
            channel.connectionLost(connectionDone)
