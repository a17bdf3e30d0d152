"""The PROXY protocol: who the client is, and what becomes of a connection without a proper header."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from livestate.net.proxy_protocol import HEADER_TIMEOUT, ProxyProtocolFactory
from tests.net.harness import DirectCase, Recorder, client_context, connect, read_exactly, server_options
from tests.support import many

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = IPv4Address("TCP", "10.0.0.1", 9999)


def v2(family: int, addresses: bytes, command: int = 1) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


V2_IPV4 = v2(0x11, bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack("!HH", 5000, 80))
V2_IPV6 = v2(0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 5000, 80) + b"\x04\0\0")


class Application(Factory[Any]):
    """Records the addresses it is asked for, and refuses some."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.built: list[Recorder] = []
        self.refused = False
        self.room = 100

    def has_room(self, waiting: int) -> bool:
        return len(self.built) + waiting < self.room

    def buildProtocol(self, addr: Any) -> Recorder | None:
        self.addresses.append(addr)
        if self.refused:
            return None
        self.built.append(Recorder())
        return self.built[-1]


class Transport(StringTransport):
    """Remembers whether the connection was aborted."""

    aborting = False

    def abortConnection(self) -> None:
        self.aborting = True


class HeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.factory = ProxyProtocolFactory(self.clock, self.application)

    def connect(self, *pieces: bytes) -> tuple[Any, Transport]:
        protocol: Any = self.factory.buildProtocol(PROXY)
        transport = Transport(peerAddress=PROXY)
        protocol.makeConnection(transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        return protocol, transport

    def lose(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(ConnectionDone()))

    def test_the_application_sees_the_client(self) -> None:
        for header, expected in (
            (V1, IPv4Address("TCP", "192.0.2.7", 5000)),
            (V2_IPV4, IPv4Address("TCP", "192.0.2.7", 5000)),
            (V2_IPV6, IPv6Address("TCP", "2001:db8::7", 5000)),
            (b"PROXY TCP6 2001:DB8:0::7 ::1 5000 80\r\n", IPv6Address("TCP", "2001:db8::7", 5000)),
            (b"PROXY UNKNOWN\r\n", PROXY),
            (b"PROXY UNKNOWN what ever\r\n", PROXY),
            (v2(0, b"", command=0), PROXY),
            (v2(0, b""), PROXY),
            (v2(0x31, bytes(216)), PROXY),
        ):
            protocol, transport = self.connect(header + b"hello")
            application = self.application.built[-1]
            self.assertEqual(self.application.addresses[-1], expected)
            self.assertEqual((application.transport, application.transport.getPeer()), (transport, expected))
            protocol.dataReceived(b" world")
            self.assertEqual(transport.value(), b"hello world")
            self.lose(protocol)
            self.assertEqual(application.calls, ["made", "lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_header_may_arrive_in_pieces(self) -> None:
        for header in (V1, V2_IPV4, V2_IPV6):
            protocol, transport = self.connect(*(bytes([byte]) for byte in header + b"hello"))
            self.assertEqual(transport.value(), b"hello")
            self.lose(protocol)

    def test_a_wrong_header_is_refused(self) -> None:
        for wrong in (
            b"GET / HTTP/1.1\r\n",
            b"PRO\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 a b\r\n",
            b"PROXY TCP4 ::1 192.0.2.1 1 2\r\n",
            b'PROXY TCP4 " 192.0.2.1 1 2\r\n',
            b"PROXY TCP6 x:y ::1 1 2\r\n",
            b"PROXY \xff" + b"x" * 200,
            SIGNATURE + b"\x11\x11\0\0",
            SIGNATURE + b"\x2f\x11\0\0",
            v2(0x11, b"short"),
            b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
            b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
        ):
            protocol, transport = self.connect(wrong)
            self.assertTrue(transport.aborting, wrong)
            self.lose(protocol)
        self.assertEqual((self.application.addresses, self.clock.getDelayedCalls()), ([], []))

    @many
    @given(st.lists(st.binary(max_size=30), max_size=5), st.sampled_from([b"", b"PROXY ", SIGNATURE, b"PROXY TCP4 "]))
    def test_any_header(self, pieces: list[bytes], start: bytes) -> None:
        """Whatever arrives, no exception leaves the protocol, and it waits, refuses or connects."""
        self.connect(start, *pieces)

    def test_a_header_has_to_arrive_in_time(self) -> None:
        protocol, transport = self.connect(V1[:-1])
        self.clock.pump([1] * int(HEADER_TIMEOUT))
        self.clock.advance(1)
        self.assertTrue(transport.aborting)
        self.lose(protocol)
        protocol, transport = self.connect(V1)
        self.clock.pump([1] * 60)
        self.assertFalse(transport.aborting)
        self.lose(protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_room(self) -> None:
        """Connections that wait for their header count, and one too many is closed at once."""
        self.application.room = 2
        first, _ = self.connect(V1)
        second, _ = self.connect()
        _, refused = self.connect()
        self.assertTrue(refused.aborting)
        self.lose(second)
        _, transport = self.connect()
        self.assertFalse(transport.aborting)
        self.assertEqual(len(self.application.built), 1)

    def test_the_application_refuses(self) -> None:
        self.application.refused = True
        protocol, transport = self.connect(V1 + b"hello")
        self.assertTrue(transport.aborting)
        protocol.dataReceived(b"world")
        self.lose(protocol)
        self.assertEqual(len(self.application.addresses), 1)


class SocketTests(DirectCase):
    """The same on real sockets."""

    def serve(self, tls: bool) -> list[Any]:
        application = Application()
        factory = ProxyProtocolFactory(self.reactor, application)
        factory.acceptableProtocols = lambda: []  # type: ignore[method-assign]
        if tls:
            port = self.reactor.listenSSL(0, factory, server_options(), interface="127.0.0.1")
        else:
            port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        application.room = 1

        def client(number: int) -> bytes:
            context = client_context() if tls else None
            with connect(number, context) as sock:
                sock.sendall(V1 + b"hello")
                answer = read_exactly(sock, 5)
                try:
                    with socket.create_connection(("127.0.0.1", number), 10) as refused:
                        self.assertEqual(refused.recv(1), b"")
                except ConnectionResetError:
                    pass
                return answer

        def closed() -> bool:
            return all(built.reason is not None for built in application.built)

        self.assertEqual(self.run_client(client, port, until=closed), b"hello")
        return application.addresses

    def test_tcp(self) -> None:
        self.assertEqual(self.serve(tls=False), [IPv4Address("TCP", "192.0.2.7", 5000)])

    def test_tls(self) -> None:
        self.assertEqual(self.serve(tls=True), [IPv4Address("TCP", "192.0.2.7", 5000)])
