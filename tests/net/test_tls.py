"""The direct TLS transport follows OpenSSL's rules, and looks to a protocol like stock Twisted's TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet import interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SkipTest
from zope.interface import implementer

from livestate.net import close_notify, records, tls_transport
from livestate.net.port import DirectPort
from livestate.net.tls import DirectTLSPort
from livestate.net.tls_transport import DirectTLSServer
from tests.net.harness import (
    CLIENT_TIMEOUT,
    DirectCase,
    Recorder,
    client_context,
    connect,
    read_all,
    read_exactly,
    server_options,
    wait_for,
)
from tests.net.test_transport import BIG, Puller, Pusher, reset

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def tls_connect(port: int, version: ssl.TLSVersion = TLS13) -> Any:
    return connect(port, client_context(version))


def close_cleanly(sock: Any) -> None:
    """Send close_notify, wait for the peer's, and close."""
    sock.unwrap().close()


class Sink(Recorder):
    """A protocol that only receives."""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class TLSCase(DirectCase):
    def listen(self, protocol: Any = Recorder, tls: bool = True) -> Any:
        return super().listen(protocol, tls)

    @property
    def reason(self) -> Any:
        """The reason why the only server connection was lost."""
        (server,) = self.servers
        return server.reason.value


class HandshakeTests(TLSCase):
    def echo(self, version: ssl.TLSVersion) -> None:
        @implementer(interfaces.IHandshakeListener)
        class Server(Recorder):
            def handshakeCompleted(self) -> None:
                self.calls.append("handshake")

        def client(port: int) -> bytes:
            sock = tls_connect(port, version)
            sock.sendall(b"hello")
            answer = read_exactly(sock, 5)
            close_cleanly(sock)
            return answer

        self.assertEqual(self.run_client(client, self.listen(Server)), b"hello")
        self.assertEqual(self.servers[0].calls, ["made", "handshake", "lost"])
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_tls_1_2(self) -> None:
        self.echo(TLS12)

    def test_tls_1_3(self) -> None:
        self.echo(TLS13)

    def test_public_names_suffice(self) -> None:
        with (
            mock.patch.object(tls_transport, "attach", records._public_attach),
            mock.patch.object(tls_transport, "read_record", records._public_read),
            mock.patch.object(tls_transport, "write_record", records._public_write),
        ):
            self.echo(TLS13)

    def test_private_names_are_used(self) -> None:
        self.assertIsNot(records.read_record, records._public_read)

    def test_session_reused_without_private_names(self) -> None:
        self.assertFalse(records.session_reused(object()))

    def test_interfaces_and_properties(self) -> None:
        seen: dict[str, Any] = {}

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                t = self.transport
                for interface in ("ISSLTransport", "ITCPTransport", "INegotiated", "ISystemHandle", "IConsumer"):
                    seen[interface] = getattr(interfaces, interface).providedBy(t)
                seen["TLS"] = t.TLS
                seen["handle"] = isinstance(t.getHandle(), SSL.Connection)
                seen["certificate"] = t.getPeerCertificate()
                seen["protocol"] = t.negotiatedProtocol
                seen["peer"] = t.getPeer().host
                try:
                    t.startTLS(server_options())
                except RuntimeError as e:
                    seen["startTLS"] = str(e)
                t.loseConnection()

        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            read_all(sock)
            close_cleanly(sock)

        self.run_client(client, self.listen(Server))
        self.assertEqual(
            seen,
            {
                "ISSLTransport": True,
                "ITCPTransport": True,
                "INegotiated": True,
                "ISystemHandle": True,
                "IConsumer": True,
                "TLS": True,
                "handle": True,
                "certificate": None,
                "protocol": None,
                "peer": "127.0.0.1",
                "startTLS": "TLS is already on",
            },
        )
        transport = self.servers[0].transport
        self.assertEqual(
            (transport.getHandle(), transport.negotiatedProtocol, transport.getPeerCertificate()), (None, None, None)
        )

    def test_alpn_from_the_factory(self) -> None:
        chosen = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                chosen.append(self.transport.negotiatedProtocol)
                self.transport.write(data)

        @implementer(interfaces.IProtocolNegotiationFactory)
        class Negotiating(Factory):
            noisy = False

            def buildProtocol(inner, addr: Any) -> Any:
                self.servers.append(Server())
                return self.servers[-1]

            def acceptableProtocols(self) -> list[bytes]:
                return [b"http/1.1"]

        def client(port: int) -> str | None:
            context = client_context()
            context.set_alpn_protocols(["h2", "http/1.1"])
            sock = connect(port, context)
            sock.sendall(b"x")
            read_exactly(sock, 1)
            name: str | None = sock.selected_alpn_protocol()
            close_cleanly(sock)
            return name

        port = self.reactor.listenSSL(0, Negotiating(), server_options(), interface="127.0.0.1")
        self.assertEqual(self.run_client(client, port), "http/1.1")
        self.assertEqual(chosen, [b"http/1.1"])

    def test_connection_creator_keeps_its_connection(self) -> None:
        made = []

        @implementer(interfaces.IOpenSSLServerConnectionCreator)
        class Creator:
            def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
                connection = SSL.Connection(server_options().getContext(), None)
                connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *args: True)
                made.append((connection, protocol))
                return connection

        def client(port: int) -> str:
            try:
                sock = tls_connect(port, TLS12)  # with TLS 1.3, the client would learn of it only later
            except ssl.SSLError as e:
                return str(e.reason)
            sock.close()
            return "connected"

        server = Recorder()
        self.servers.append(server)
        factory = Factory.forProtocol(lambda: server)
        port = self.reactor.listenSSL(0, factory, Creator(), interface="127.0.0.1")
        # The creator's own set_verify is in effect, so a client without a certificate is refused.
        self.assertNotEqual(self.run_client(client, port), "connected")
        ((_, transport),) = made
        self.assertIsInstance(transport, DirectTLSServer)
        self.assertIs(self.servers[0].transport, transport)
        self.assertIsInstance(self.reason, SSL.Error)

    def test_written_before_the_handshake(self) -> None:
        class Greeter(Recorder):
            def connectionMade(self) -> None:
                self.transport.write(b"hello, ")
                self.transport.writeSequence([b"wor", b"ld"])
                self.transport.loseConnection()

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            greeting = read_all(sock)
            close_cleanly(sock)
            return greeting

        self.assertEqual(self.run_client(client, self.listen(Greeter)), b"hello, world")
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_pull_producer_before_the_handshake(self) -> None:
        class Greeter(Recorder):
            def connectionMade(self) -> None:
                self.transport.registerProducer(Puller(self.transport, b"p" * 5000, 50), False)

        def client(port: int) -> int:
            sock = tls_connect(port)
            size = len(read_all(sock))
            close_cleanly(sock)
            return size

        self.assertEqual(self.run_client(client, self.listen(Greeter)), 250_000)

    def test_lost_before_the_handshake(self) -> None:
        class Server(Recorder):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        def client(port: int) -> None:
            self.assertRaises(OSError, tls_connect, port)

        self.run_client(client, self.listen(Server))
        self.assertIsInstance(self.reason, ConnectionAborted)

    def test_garbage_drops_only_its_connection(self) -> None:
        def client(port: int) -> bytes:
            good = tls_connect(port)
            with connect(port) as bad:
                bad.sendall(b"\0" * 100)
                with contextlib.suppress(ConnectionResetError):
                    read_all(bad)
            good.sendall(b"hello")
            answer = read_exactly(good, 5)
            close_cleanly(good)
            return answer

        # Nothing is logged, or trial would fail the test.
        self.assertEqual(self.run_client(client, self.listen()), b"hello")
        reasons = {type(server.reason.value) for server in self.servers}
        self.assertEqual(reasons, {SSL.Error, ConnectionDone})

    def test_http_is_answered(self) -> None:
        """A client that speaks HTTP without TLS gets an answer that says so, and is not reset before it has read it."""

        def client(port: int) -> list[bytes]:
            answers = []
            for method in (b"GET", b"HEAD", b"POST"):
                with connect(port) as sock:
                    sock.sendall(method + b" / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Y: z\r\n" * 300 + b"\r\n")
                    answers.append(read_all(sock))
            return answers

        for answer in self.run_client(client, self.listen()):
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer)
            head, _, body = answer.partition(b"\r\n\r\n")
            self.assertIn(f"Content-Length: {len(body)}".encode(), head)
        self.assertEqual({type(server.reason.value) for server in self.servers}, {SSL.Error})

    def test_stalled_handshake_is_reset(self) -> None:
        port = self.listen()
        port.handshake_timeout = 0.1

        def client(number: int) -> str:
            with connect(number) as sock:
                sock.sendall(b"\x16\x03\x01")  # the beginning of a ClientHello
                try:
                    return f"got {sock.recv(100)!r}"
                except ConnectionResetError:
                    return "reset"

        self.assertEqual(self.run_client(client, port, timeout=5), "reset")
        self.assertIsInstance(self.reason, ConnectionAborted)
        self.assertEqual(len(port.deadlines), 0)

    def test_wrapped_factories_are_direct(self) -> None:
        wrapped = TLSMemoryBIOFactory(server_options(), False, Factory.forProtocol(Recorder), clock=self.reactor)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            adopted = self.reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, wrapped)
        port = self.reactor.listenTCP(0, wrapped, interface="127.0.0.1")

        def client(number: int) -> list[bytes]:
            answers = []
            for each in (number, adopted.getHost().port):
                sock = tls_connect(each)
                sock.sendall(b"x")
                answers.append(read_exactly(sock, 1))
                close_cleanly(sock)
            return answers

        self.assertEqual(self.run_client(client, port), [b"x", b"x"])
        self.assertIsInstance(port, DirectTLSPort)
        self.assertIsInstance(adopted, DirectTLSPort)

    def test_wrapped_clients_stay_stock(self) -> None:
        wrapped = TLSMemoryBIOFactory(server_options(), True, Factory.forProtocol(Recorder), clock=self.reactor)
        port = self.reactor.listenTCP(0, wrapped, interface="127.0.0.1")
        self.assertIs(type(port), DirectPort)


class DataTests(TLSCase):
    def test_large_write_to_a_slow_reader(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"<")
                self.transport.write(BIG)
                self.transport.write(b">")
                self.transport.loseConnection()

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            sock.sendall(b"x")
            time.sleep(0.2)
            got = read_all(sock)
            close_cleanly(sock)
            return got

        self.assertTrue(self.run_client(client, self.listen(Server)) == b"<" + BIG + b">")
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_queue_of_a_fifty_megabyte_producer_is_bounded(self) -> None:
        pushers = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                pushers.append(Pusher(self.transport, b"p" * 50_000, 1000))
                self.transport.registerProducer(pushers[0], True)
                pushers[0].resumeProducing()

        def client(port: int) -> int:
            sock = tls_connect(port)
            sock.sendall(b"x")
            time.sleep(0.2)
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
            close_cleanly(sock)
            return size

        self.assertEqual(self.run_client(client, self.listen(Server)), 50_000_000)
        self.assertGreater(pushers[0].pauses, 0)
        self.assertLess(pushers[0].max_queued, 2**16 + 50_000)

    def test_a_burst_of_full_records_needs_no_more_events(self) -> None:
        size = 40 * 2**14 + 7

        def client(port: int) -> bool:
            sock = tls_connect(port)
            sock.sendall(b"r" * size)
            wait_for(lambda: len(self.servers[0].received) == size)
            close_cleanly(sock)
            return True

        self.assertTrue(self.run_client(client, self.listen(Sink)))

    def test_data_sent_with_the_end_of_the_handshake(self) -> None:
        # With pyOpenSSL's memory BIOs, the client can send both in one segment.
        def client(port: int) -> bool:
            connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
            connection.set_connect_state()
            with connect(port) as sock:
                while True:
                    try:
                        connection.do_handshake()
                        break
                    except SSL.WantReadError:
                        sock.sendall(connection.bio_read(65536))
                        connection.bio_write(sock.recv(65536))
                connection.send(b"early bird")
                sock.sendall(connection.bio_read(65536))
                wait_for(lambda: self.servers[0].received == b"early bird")
            return True

        self.assertTrue(self.run_client(client, self.listen(Sink)))

    def test_pause_and_resume(self) -> None:
        class Server(Sink):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()
                self.transport.reactor.callLater(0.05, self.check, len(self.received))

            def check(self, count: int) -> None:
                self.calls.append("quiet" if len(self.received) == count else "noise")
                self.transport.resumeProducing()

        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x" * 2 * 2**14)
            wait_for(lambda: self.servers[0].calls.count("quiet") == 2)
            close_cleanly(sock)

        self.run_client(client, self.listen(Server))
        self.assertEqual(self.servers[0].calls, ["made", "quiet", "quiet", "lost"])

    def test_only_bytes(self) -> None:
        refused = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                for wrong in ("text", bytearray(b"x"), None):
                    try:
                        self.transport.write(wrong)
                    except TypeError:
                        refused.append(wrong)
                self.transport.write(b"")
                self.transport.write(b"ok")

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            sock.sendall(b"x")
            answer = read_exactly(sock, 2)
            close_cleanly(sock)
            return answer

        self.assertEqual(self.run_client(client, self.listen(Server)), b"ok")
        self.assertEqual(len(refused), 3)

    def test_read_that_wants_to_write(self) -> None:
        """The read is repeated once the socket is writable, and not before."""
        attempts = []
        real = records.read_record

        def reluctant(connection: Any) -> bytes:
            attempts.append(1)
            if len(attempts) == 3:
                raise SSL.WantWriteError
            return real(connection)

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            time.sleep(0.1)
            sock.sendall(b"hello")
            answer = read_exactly(sock, 5)
            sock.sendall(b"again")
            answer += read_exactly(sock, 5)
            close_cleanly(sock)
            return answer

        with mock.patch.object(tls_transport, "read_record", reluctant):
            self.assertEqual(self.run_client(client, self.listen()), b"helloagain")
        self.assertLess(len(attempts), 10)
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_write_that_wants_to_read(self) -> None:
        """The write is repeated after the next read event, and the reactor does not spin meanwhile."""
        attempts = []
        real = records.write_record

        def reluctant(connection: Any, data: bytes) -> int:
            attempts.append(1)
            if len(attempts) <= 2:
                raise SSL.WantReadError
            return real(connection, data)

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            sock.sendall(b"hello ")
            time.sleep(0.2)
            before = len(attempts)
            sock.sendall(b"again")
            answer = read_exactly(sock, 11)
            close_cleanly(sock)
            self.assertLess(before, 4)
            return answer

        with mock.patch.object(tls_transport, "write_record", reluctant):
            self.assertEqual(self.run_client(client, self.listen()), b"hello again")


class CloseNotifyTests(TLSCase):
    def test_server_closes_first(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"bye")
                self.transport.loseConnection()
                self.transport.write(b"ignored")

        def client(port: int) -> bytes:
            sock = tls_connect(port)
            sock.sendall(b"x")
            got = read_all(sock)  # raises if the connection ends without close_notify
            close_cleanly(sock)
            return got

        self.assertEqual(self.run_client(client, self.listen(Server)), b"bye")
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_client_closes_without_close_notify(self) -> None:
        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            read_exactly(sock, 1)
            sock.close()

        self.run_client(client, self.listen())
        self.assertIsInstance(self.reason, ConnectionLost)

    def test_client_resets(self) -> None:
        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            read_exactly(sock, 1)
            reset(sock)

        self.run_client(client, self.listen())
        self.assertIsInstance(self.reason, ConnectionLost)

    def test_queue_is_sent_after_the_clients_close_notify(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(BIG)

        def client(port: int) -> int:
            # With wrap_bio, the client can send close_notify and continue to read.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing)
            with connect(port) as sock:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        incoming.write(sock.recv(65536))
                tls.write(b"x")
                sock.sendall(outgoing.read())
                # The server must have queued the data before it gets close_notify.
                wait_for(lambda: self.servers and self.servers[0].transport._has_queued_data())
                try:
                    tls.unwrap()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                size = 0
                while data := sock.recv(65536):
                    size += len(data)
                return size

        self.assertGreater(self.run_client(client, self.listen(Server)), len(BIG))
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_clients_close_notify_stops_the_producer(self) -> None:
        class Producer(Pusher):
            def resumeProducing(self) -> None:
                """Produce nothing yet."""

        producers = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                producers.append(Producer(self.transport, b"", 7))
                self.transport.registerProducer(producers[0], True)
                self.transport.write(data)

        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            read_exactly(sock, 1)
            close_cleanly(sock)

        self.run_client(client, self.listen(Server))
        self.assertEqual(producers[0].left, 0)
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_wait_for_the_clients_close_notify_is_bounded(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        port = self.listen(Server)
        port.close_notify_timeout = 0.1

        def client(number: int) -> None:
            sock = tls_connect(number)
            sock.sendall(b"x")
            wait_for(lambda: self.servers[0].reason is not None)
            sock.close()

        self.run_client(client, port)
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_idle_client_is_not_awaited(self) -> None:
        """If the client received everything long ago, the server sends close_notify and closes without waiting."""

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"all")
                self.transport.reactor.callLater(0.3, self.transport.loseConnection)

        port = self.listen(Server)
        port.close_notify_timeout = 10 * CLIENT_TIMEOUT

        def client(number: int) -> bytes:
            sock = tls_connect(number)
            sock.sendall(b"x")
            wait_for(lambda: self.servers and self.servers[0].reason is not None)
            got = read_all(sock)  # raises if the connection ends without close_notify
            sock.close()
            return got

        with mock.patch.object(close_notify, "IDLE_MILLISECONDS", 100):
            self.assertEqual(self.run_client(client, port), b"all")
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_client_that_may_still_receive_is_awaited(self) -> None:
        """After an answer the server waits for close_notify, and data that arrives first does not cause a reset."""

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"all")
                self.transport.loseConnection()

        port = self.listen(Server)
        port.close_notify_timeout = 10 * CLIENT_TIMEOUT

        def client(number: int) -> bytes:
            sock = tls_connect(number)
            for _ in range(3):
                sock.sendall(b"x")
                time.sleep(0.05)
            self.assertIsNone(self.servers[0].reason)
            got = read_all(sock)
            close_cleanly(sock)
            return got

        self.assertEqual(self.run_client(client, port), b"all")
        self.assertIsInstance(self.reason, ConnectionDone)

    def test_half_close_by_the_server(self) -> None:
        class Server(Sink):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if data == b"go":
                    self.transport.write(b"all")
                    self.transport.loseWriteConnection()

        def client(port: int) -> bytes:
            connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), connect(port))
            connection.setblocking(True)
            connection.set_connect_state()
            connection.do_handshake()
            connection.sendall(b"go")
            got = b""
            while True:
                try:
                    got += connection.recv(100)
                except SSL.ZeroReturnError:
                    break
            connection.sendall(b" on")
            connection.shutdown()
            connection.close()
            return got

        self.assertEqual(self.run_client(client, self.listen(Server)), b"all")
        self.assertEqual(self.servers[0].received, b"go on")

    def test_abort(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(BIG)
                self.transport.abortConnection()

        def client(port: int) -> str:
            sock = tls_connect(port)
            sock.sendall(b"x")
            try:
                read_all(sock)
            except (ConnectionResetError, ssl.SSLEOFError):  # the latter in the middle of a record
                return "reset"
            return "end"

        self.assertEqual(self.run_client(client, self.listen(Server)), "reset")
        self.assertIsInstance(self.reason, ConnectionAborted)

    def test_exception_is_logged_and_loses_the_connection(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError("a bug")

        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            self.assertRaises(ssl.SSLEOFError, read_all, sock)

        self.run_client(client, self.listen(Server))
        self.assertIsInstance(self.reason, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failed_write_is_reported_later(self) -> None:
        inside = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                time.sleep(0.2)  # the client resets meanwhile
                for _ in range(3):
                    self.transport.write(b"x")
                    inside.append(list(self.calls))

        def client(port: int) -> None:
            sock = tls_connect(port)
            sock.sendall(b"x")
            time.sleep(0.05)
            reset(sock)

        self.run_client(client, self.listen(Server))
        self.assertEqual(inside, [["made"]] * 3)
        self.assertIsInstance(self.reason, ConnectionLost)


class OpenSSLClientTests(TLSCase):
    """Clients that use ``openssl s_client``, whose commands request a key update or a renegotiation."""

    def talk(self, version: str, command: bytes) -> bytes:
        def client(port: int) -> bytes:
            try:
                process = subprocess.Popen(
                    ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", version],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            except FileNotFoundError:
                raise SkipTest("there is no openssl command") from None
            assert process.stdin is not None
            killer = threading.Timer(8, process.kill)
            killer.start()
            try:
                process.stdin.write(b"before\n")
                process.stdin.flush()
                wait_for(lambda: self.servers and self.servers[0].received == b"before\n")
                for line in (command, b"after\n"):
                    process.stdin.write(line)
                    process.stdin.flush()
                    time.sleep(0.3)
                process.stdin.write(b"Q\n")
                process.stdin.flush()
                return process.communicate()[0]
            except BrokenPipeError:
                return process.communicate()[0]
            finally:
                killer.cancel()
                process.kill()
                process.wait()

        output: bytes = self.run_client(client, self.listen())
        return output

    def test_key_update(self) -> None:
        output = self.talk("-tls1_3", b"K\n")
        self.assertIn(b"KEYUPDATE", output)
        self.assertEqual(self.servers[0].received, b"before\nafter\n")
        self.assertIn(b"after\n", output)

    def test_renegotiation_is_refused(self) -> None:
        output = self.talk("-tls1_2", b"R\n")
        self.assertIn(b"RENEGOTIATING", output)
        self.assertIn(b"no renegotiation", output)
        self.assertEqual(self.servers[0].received, b"before\n")
