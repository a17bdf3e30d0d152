"""One service with two sites: its own, and one without the fast path, where twisted.web parses every request.

Random numbers are replaced by fixed ones, so that jitter is the same on both sites.
"""

import re
from collections.abc import Mapping
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.logger import LogEvent, globalLogPublisher

from livestate.config.settings import load_settings
from livestate.documents.document import Document
from livestate.documents.snapshot import ENCODERS
from livestate.system.logs import LogFiles
from livestate.web.http1.channel import LiveChannel
from livestate.web.idle_timeout import IdleTimeouts
from livestate.web.site import LiveSite
from livestate.web.site_service import SiteService
from tests.support import FakeReactor, result_of
from tests.web.resources.test_events import SlowTransport

#: A document that is large enough to be compressed and patched.
BODY = b'{"title": "an election night", "votes": {' + b", ".join(b'"%d": %d' % (n, 7919 * n) for n in range(40)) + b"}}"

_DATE = re.compile(rb"\r\nDate: [^\r]*")


class FixedRandom:
    """A replacement for the module `random`."""

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
    """Like a real transport, it accepts `unregisterProducer` twice, and calls after it was closed."""

    def unregisterProducer(self) -> None:
        self.producer = None

    def _checkState(self) -> None:
        pass


class Twins:
    """A running service with a document at /, and one at /results.json that does not exist yet."""

    def __init__(self, **options: str) -> None:
        """:param options: as on the command line."""
        self.reactor = FakeReactor()
        lists = {name.replace("_", "-"): [value] for name, value in options.items()}
        settings = load_settings({"source": ["demo:", "/results.json=demo:"], **lists})
        self.documents = {w.path: Document(self.reactor, w.path, settings.max_size) for w in settings.documents}
        served = [ServedDocument(document) for document in self.documents.values()]
        self.site_service = SiteService(self.reactor, settings, served, LogFiles())
        self.fast_site = self.site_service.site
        self.slow_site = LiveSite(self.fast_site._resources, self.reactor)
        self._idle_timeouts = IdleTimeouts(self.reactor, lambda: self.slow_site.connections.open)
        #: The tracebacks of errors that were only logged.
        self.failures: list[str] = []
        globalLogPublisher.addObserver(self._observe)  # type: ignore[arg-type]  # a function is an observer
        self._patches = [
            mock.patch(f"livestate.web.{name}.random", FixedRandom)
            for name in ("streams.broadcast", "resources.events", "resources.long_poll")
        ]
        for patch in self._patches:
            patch.start()
        self.site_service.startService()
        self._idle_timeouts.startService()
        self.publish("/", BODY)

    def publish(self, path: str, data: bytes) -> None:
        """Change a document, and let the service notify its clients."""
        result_of(self.documents[path].update(data))
        self.reactor.advance(0.001)

    def confirm(self) -> None:
        """Confirm all documents, as the store would."""
        for document in self.documents.values():
            if document.snapshot is not None:
                document.confirmed = self.reactor.seconds()

    def etags(self) -> Mapping[str, list[bytes]]:
        """Return the current entity tags, by path."""
        for document in self.documents.values():
            for coding in ENCODERS:
                document.ask((coding,))
        return {
            path: [] if document.snapshot is None else [r.etag for r in document.snapshot.representations.values()]
            for path, document in self.documents.items()
        }

    def drain(self) -> None:
        """Make the next response of each connection its last."""
        self.fast_site.connections.drain()
        self.slow_site.connections.drain()

    def forget(self) -> None:
        """Empty the memos, so that what follows does not depend on earlier requests."""
        self.fast_site.connections.request_memo._entries.clear()
        self.fast_site.connections.request_memo._bytes = 0
        self.site_service._endpoints.renewals.renew()

    def close(self) -> None:
        """Stop the service, and undo all patches."""
        self._idle_timeouts.stopService()
        self.site_service.stopService()
        for patch in self._patches:
            patch.stop()
        globalLogPublisher.removeObserver(self._observe)  # type: ignore[arg-type]

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.failures.append(event["log_failure"].getTraceback())


class Connections:
    """A pair of connections, one to each site, which are sent the same data."""

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
        """Send a piece of data to both sites, unless they have closed the connection."""
        for channel, transport in zip(self.channels, self.transports, strict=True):
            if not transport.disconnecting:
                channel.dataReceived(data)
        self._take_turns()

    def stop_reading(self) -> None:
        """Stop reading responses."""
        for transport in self.transports:
            transport.room = 0

    def read(self) -> None:
        """Read everything that is unsent, and all later responses."""
        for transport in self.transports:
            while transport.waiting:
                transport.make_room(1 << 20)
            transport.room = 1 << 30
        self._take_turns()

    def _take_turns(self) -> None:
        """Run the reactor until no channel waits for its turn."""
        while any(channel._queued for channel in self.channels):
            self._reactor.advance(0)

    def outcomes(self) -> tuple[tuple[bytes, bool, bool], tuple[bytes, bool, bool]]:
        """Return what each site wrote, without Date's value, and whether it closed or aborted the connection."""
        fast, slow = (
            (_DATE.sub(b"\r\nDate: (now)", t.value() + t.waiting), t.disconnecting, t.aborted) for t in self.transports
        )
        return fast, slow

    def lose(self) -> None:
        """Disconnect."""
        for channel in self.channels:
            channel.connectionLost(connectionDone)
