"""Limits on connections: those above a limit are closed on arrival, counted, and logged once a minute at most."""

import dataclasses
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.documents.registry import MAX_THREADS
from livestate.net.proxy_protocol import ProxyProtocolFactory
from livestate.web.admission import LOG_INTERVAL, Admission, RefusedConnection, share_per_worker
from livestate.web.http1.channel import LiveChannel
from livestate.web.site import LiveSite
from livestate.web.site_service import files_for_documents
from tests.support import log_lines
from tests.web.http1.test_channel import PausableTransport


def address(host: str) -> Any:
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, 1)


class DirectClock(Clock):
    """A clock that looks like livestate's own reactor."""

    def run_after_poll(self, selectable: Any, event: int) -> None:
        """Never called."""


class AdmissionTests(SynchronousTestCase):
    def create_site(self, limit: int | None = None, limit_per_address: int | None = None, prefix: int = 64) -> None:
        self.clock: Clock = DirectClock()
        self.admission = Admission(self.clock, limit, limit_per_address, prefix)
        self.site = LiveSite({}, self.clock)
        self.site.limit(self.admission)

    def connect(self, peer: Any) -> LiveChannel | None:
        """Connect a client, and return its channel; None if it was refused."""
        channel: LiveChannel | None = self.site.buildProtocol(peer)
        if channel is not None:
            channel.makeConnection(PausableTransport(peerAddress=peer))
        return channel

    def try_to_connect(self, *hosts: str) -> list[bool]:
        """Return for each host whether it could connect."""
        return [self.connect(address(host)) is not None for host in hosts]

    def test_total(self) -> None:
        """There are never more connections than the limit, and a closed connection makes room for another."""
        self.create_site(limit=3)
        first = self.connect(address("192.0.2.1"))
        assert first is not None
        self.assertEqual(
            self.try_to_connect("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"), [True, True, False, False]
        )
        first.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.try_to_connect("192.0.2.3", "192.0.2.3"), [True, False])
        self.assertEqual(self.admission.refused, {"total": 3, "address": 0})

    def test_address(self) -> None:
        """Each address has its own limit, independent of other addresses."""
        self.create_site(limit_per_address=2)
        first = self.connect(address("192.0.2.1"))
        assert first is not None
        self.assertEqual(self.try_to_connect("192.0.2.1", "192.0.2.1", "192.0.2.2"), [True, False, True])
        for _ in range(2):  # notified twice, counted once
            first.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.try_to_connect("192.0.2.1", "192.0.2.1"), [True, False])
        self.assertEqual(self.admission.refused, {"total": 0, "address": 2})

    def test_prefix(self) -> None:
        """All addresses of one IPv6 prefix count as one."""
        self.create_site(limit_per_address=1)
        hosts = "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "fe80::1%lo"
        self.assertEqual(self.try_to_connect(*hosts), [True, False, True, True])
        self.create_site(limit_per_address=1, prefix=48)
        self.assertEqual(self.try_to_connect(*hosts), [True, False, False, True])
        self.create_site(limit_per_address=1, prefix=128)
        self.assertEqual(self.try_to_connect(*hosts, hosts[0]), [True, True, True, True, False])

    def test_ipv4_mapped(self) -> None:
        """IPv4 addresses on a dual-stack socket are distinguished, and equal those on an IPv4 socket."""
        self.create_site(limit_per_address=1)
        hosts = "::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.1"
        self.assertEqual(self.try_to_connect(*hosts), [True, True, False])

    def test_unix_sockets(self) -> None:
        """Clients on a Unix socket have no address, and so no limit per address."""
        self.create_site(limit_per_address=1)
        self.assertTrue(all(self.connect(UNIXAddress(b"/run/x")) for _ in range(5)))

    def proxied(self, host: str | None) -> PausableTransport:
        """Connect through a proxy that names its client, unless the client is None."""
        transport = PausableTransport(peerAddress=address("10.0.0.1"))
        protocol: Any = ProxyProtocolFactory(self.clock, self.site).buildProtocol(address("10.0.0.1"))
        protocol.makeConnection(transport)
        if host is not None:
            protocol.dataReceived(f"PROXY TCP4 {host} 192.0.2.1 1 80\r\n".encode())
        return transport

    def test_proxied(self) -> None:
        """The clients of a proxy that speaks the PROXY protocol count by their own addresses, not by the proxy's."""
        self.create_site(limit=3, limit_per_address=1)
        hosts = "198.51.100.1", "198.51.100.2", "198.51.100.1"
        self.assertEqual([self.proxied(host).aborted for host in hosts], [False, False, True])
        self.assertEqual(self.try_to_connect("10.0.0.1", "10.0.0.2"), [True, False])
        self.assertTrue(self.proxied(None).aborted)
        self.assertEqual(self.admission.refused, {"total": 2, "address": 1})

    def test_closed_connections_are_forgotten(self) -> None:
        """Nothing is kept about closed connections."""
        self.create_site(limit_per_address=5)
        channels = [self.connect(address(f"192.0.2.{n}")) for n in range(100)]
        for channel in channels:
            assert channel is not None
            channel.connectionLost(Failure(ConnectionError()))
        open_connections: Any = self.admission.open
        self.assertEqual((open_connections, open_connections._networks, open_connections._counts), (set(), {}, {}))

    def test_log(self) -> None:
        """A flood of refusals is logged once a minute, with their number since the last line."""
        self.create_site(limit=0)
        with log_lines() as lines:
            for _ in range(100):
                self.try_to_connect("192.0.2.1")
            self.assertEqual(len(lines), 1)
            self.clock.advance(LOG_INTERVAL - 1)
            self.try_to_connect("192.0.2.1")
            self.assertEqual(len(lines), 1)
            self.clock.advance(1)
            self.try_to_connect("192.0.2.1")
        self.assertEqual(len(lines), 2)
        self.assertIn("101 by --max-connections;", lines[1])

    def test_stock_reactor(self) -> None:
        """With a stock reactor, which creates a transport anyway, the connection is aborted at once."""
        admission = Admission(Clock(), 0, None, 64)
        refusal = admission.refusal()
        self.assertIsInstance(refusal, RefusedConnection)
        assert refusal is not None
        transport = PausableTransport()
        refusal.makeConnection(transport)
        self.assertTrue(transport.aborted)

    def test_share(self) -> None:
        """The workers' shares add up to the limit, or slightly more."""
        self.assertEqual([share_per_worker(limit, 4) for limit in (None, 1, 4, 10, 1000)], [None, 1, 1, 3, 250])

    def test_reserve(self) -> None:
        """Files are reserved for each store, however many documents it has, and for saving; workers need none."""
        redis = [f"/{n}=redis://127.0.0.1/0?key={n}" for n in range(1000)]
        for sources, options, expected in (
            (redis, {}, 4), ([*redis, "/a=file:a.json", "/b=file:b.json"], {}, 12), (["demo:"], {}, 4),
            (redis, {"state-dir": ["state"]}, 4 + MAX_THREADS), (["demo:"], {"state-dir": ["state"]}, 5),
        ):  # fmt: skip
            settings = load_settings({"source": sources, **options})
            self.assertEqual(files_for_documents(settings), expected)
            documents = tuple(dataclasses.replace(document, source="") for document in settings.documents)
            self.assertEqual(files_for_documents(dataclasses.replace(settings, documents=documents)), 0)
