"""The direct TCP transport behaves like `tcp.Server`, and sends at once."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from twisted.internet import unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory
from zope.interface import implementer

from livestate.net.port import DirectPort
from livestate.net.transport import DirectServer
from tests.net.harness import DirectCase, Recorder, connect, read_all, read_exactly, wait_for

BIG = bytes(range(256)) * 4 * 8192  # 8 MiB: more than a socket buffers


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@implementer(IPushProducer)
class Pusher:
    """A producer that writes pieces until it is paused."""

    def __init__(self, transport: Any, piece: bytes, count: int) -> None:
        self.transport, self.piece, self.left = transport, piece, count
        self.paused = self.pauses = self.max_queued = 0

    def resumeProducing(self) -> None:
        self.paused = 0
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(self.piece)
            queued = len(self.transport.dataBuffer) - self.transport.offset + self.transport._tempDataLen
            self.max_queued = max(self.max_queued, queued)
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.paused = 1
        self.pauses += 1

    def stopProducing(self) -> None:
        self.left = 0


@implementer(IPullProducer)
class Puller:
    """A producer that writes one piece each time it is resumed, and fails if that happens inside write."""

    def __init__(self, transport: Any, piece: bytes, count: int) -> None:
        self.transport, self.piece, self.left = transport, piece, count
        self.inside = False

    def resumeProducing(self) -> None:
        if self.inside:
            raise AssertionError("resumed from inside its own write")
        self.inside = True
        self.transport.write(self.piece)
        self.inside = False
        self.left -= 1
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self.left = 0


class WriteTests(DirectCase):
    tls = False

    def test_sent_at_once(self) -> None:
        states: list[Any] = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"one")
                self.transport.writeSequence([b"two", b"three"])
                states.append((self.transport.dataBuffer, self.transport._tempDataBuffer))
                states.append(self.transport in self.transport.reactor.getWriters())

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"x")
                return read_exactly(sock, 11)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"onetwothree")
        self.assertEqual(states, [(b"", []), False])
        self.assertIsInstance(self.servers[0].reason.value, ConnectionDone)

    def test_partial_writes_keep_the_order(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"<")
                self.transport.write(BIG)
                self.transport.writeSequence([b"between", BIG])
                self.transport.write(b">")
                self.transport.loseConnection()

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"x")
                time.sleep(0.1)
                return read_all(sock)

        got = self.run_client(client, self.listen(Server))
        self.assertTrue(got == b"<" + BIG + b"between" + BIG + b">")
        self.assertIsInstance(self.servers[0].reason.value, ConnectionDone)

    def test_only_bytes(self) -> None:
        refused = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                for wrong in ("text", bytearray(b"x"), None):
                    for call in (self.transport.write, lambda w: self.transport.writeSequence([w])):
                        try:
                            call(wrong)
                        except TypeError:
                            refused.append(wrong)
                self.transport.write(b"")
                self.transport.writeSequence([])
                self.transport.write(b"ok")

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"x")
                return read_exactly(sock, 2)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"ok")
        self.assertEqual(len(refused), 6)

    def test_failed_write_is_reported_later(self) -> None:
        inside: list[list[str]] = []

        class Server(Recorder):
            def connectionMade(self) -> None:
                self.transport.stopReading()  # so that only the write can fail

            def dataReceived(self, data: bytes) -> None:
                raise AssertionError("not reading")

        def write_to_servers() -> None:
            for _ in range(3):
                for server in self.servers:
                    server.transport.write(b"x" * 100)
                    inside.append(list(server.calls))

        def client(port: int) -> None:
            reset(connect(port))
            time.sleep(0.2)
            self.reactor.callFromThread(write_to_servers)

        self.run_client(client, self.listen(Server))
        self.assertEqual(inside, [[], [], []])
        self.assertIsInstance(self.servers[0].reason.value, ConnectionLost)

    def test_failed_write_while_reading_is_not_a_clean_end(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                # The client is gone when the second write happens.
                self.transport.write(b"1")
                time.sleep(0.2)
                self.transport.write(b"2")

        def client(port: int) -> None:
            sock = connect(port)
            sock.sendall(b"x")
            time.sleep(0.05)
            reset(sock)

        self.run_client(client, self.listen(Server))
        self.assertIsInstance(self.servers[0].reason.value, ConnectionLost)

    def test_push_producer_is_bounded(self) -> None:
        pushers = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                pushers.append(Pusher(self.transport, b"p" * 10_000, 2000))
                self.transport.registerProducer(pushers[0], True)
                pushers[0].resumeProducing()

        def client(port: int) -> int:
            with connect(port) as sock:
                sock.sendall(b"x")
                time.sleep(0.2)
                return len(read_all(sock))

        self.assertEqual(self.run_client(client, self.listen(Server)), 20_000_000)
        self.assertGreater(pushers[0].pauses, 0)
        self.assertLess(pushers[0].max_queued, 2**16 + 10_000)

    def test_pull_producer(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.registerProducer(Puller(self.transport, b"p" * 1000, 500), False)

        def client(port: int) -> int:
            with connect(port) as sock:
                sock.sendall(b"x")
                return len(read_all(sock))

        self.assertEqual(self.run_client(client, self.listen(Server)), 500_000)

    def test_producer_is_stopped_with_the_connection(self) -> None:
        pushers = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                pushers.append(Pusher(self.transport, b"p" * 100_000, 10**6))
                self.transport.registerProducer(pushers[0], True)
                pushers[0].resumeProducing()

        def client(port: int) -> None:
            sock = connect(port)
            sock.sendall(b"x")
            read_exactly(sock, 1000)
            reset(sock)

        self.run_client(client, self.listen(Server))
        self.assertEqual(pushers[0].left, 0)


class EdgeTests(DirectCase):
    """The kernel reports each arrival once, and no data is left unread."""

    def collect(self, pieces: list[bytes]) -> None:
        """Let a client send pieces and close at once; check that a server that only reads gets everything."""

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.received += data

        def client(port: int) -> None:
            with connect(port) as sock:
                wait_for(lambda: self.servers)
                for piece in pieces:
                    sock.sendall(piece)

        self.run_client(client, self.listen(Server))
        self.assertEqual(self.servers[0].received, b"".join(pieces))
        self.assertIsInstance(self.servers[0].reason.value, ConnectionDone)

    def test_the_end_behind_a_short_read(self) -> None:
        """If data and the end of the connection arrive in one event, the server sees both."""
        self.collect([b"x"])

    def test_a_full_read_is_followed_by_another(self) -> None:
        """Data that fills one read exactly, or needs many reads, is read completely, and so is the end."""
        for size in (DirectServer.read_size, DirectServer.read_size * 5, DirectServer.read_size * 3 + 1):
            with self.subTest(size=size):
                self.servers.clear()
                self.reactor = self.buildReactor()
                self.collect([b"x" * size])

    def test_no_second_read_while_paused(self) -> None:
        """A protocol that pauses in the middle of received data gets the rest only after it resumes."""
        size = DirectServer.read_size * 3

        class Server(Recorder):
            while_paused = -1

            def dataReceived(inner, data: bytes) -> None:
                inner.received += data
                if len(inner.received) == DirectServer.read_size:
                    inner.transport.pauseProducing()
                    self.reactor.callLater(0.1, inner.resume)

            def resume(inner) -> None:
                inner.while_paused = len(inner.received)
                inner.transport.resumeProducing()

        def client(port: int) -> None:
            with connect(port) as sock:
                wait_for(lambda: self.servers)  # otherwise, the test would end while there is no server yet
                sock.sendall(b"x" * size)

        self.run_client(client, self.listen(Server))
        self.assertEqual(self.servers[0].while_paused, DirectServer.read_size)
        self.assertEqual(len(self.servers[0].received), size)

    def test_reads_go_on_after_a_queue_was_sent(self) -> None:
        """Data is read while an answer waits to be sent, and afterwards."""

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.received += data
                self.transport.write(BIG if data == b"big" else data)

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"big")
                wait_for(lambda: self.servers and self.servers[0].transport and self.servers[0].transport.dataBuffer)
                sock.sendall(b" more")
                wait_for(lambda: self.servers[0].received == b"big more")
                self.assertEqual(read_exactly(sock, len(BIG) + 5)[-5:], b" more")
                sock.sendall(b" again")
                return read_exactly(sock, 6)

        self.assertEqual(self.run_client(client, self.listen(Server)), b" again")


class CloseTests(DirectCase):
    def test_lose_connection_notifies_later(self) -> None:
        calls = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"bye")
                self.transport.loseConnection()
                self.transport.loseConnection()
                calls.append((list(self.calls), self.transport.disconnecting, self.transport.connected))

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"x")
                return read_all(sock)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"bye")
        self.assertEqual(calls, [(["made"], 1, 1)])
        server = self.servers[0]
        self.assertEqual(server.calls, ["made", "lost"])
        self.assertIsInstance(server.reason.value, ConnectionDone)
        self.assertEqual((server.transport.connected, server.transport.disconnected), (0, 1))
        server.transport.write(b"ignored")
        server.transport.loseConnection()
        self.assertEqual(server.transport.fileno(), -1)

    def test_no_data_after_lose_connection(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.received += data
                self.transport.loseConnection()

        def client(port: int) -> None:
            with connect(port) as sock:
                sock.sendall(b"x" * 100_000)
                try:
                    read_all(sock)
                except ConnectionResetError:
                    return

        self.run_client(client, self.listen(Server))
        self.assertEqual(len(self.servers[0].received), DirectServer.read_size)

    def test_write_after_lose_connection_still_goes_out(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()
                self.transport.write(BIG)

        def client(port: int) -> int:
            with connect(port) as sock:
                sock.sendall(b"x")
                time.sleep(0.05)
                return len(read_all(sock))

        self.assertEqual(self.run_client(client, self.listen(Server)), len(BIG))

    def test_loss_at_shutdown_is_reported(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()
                self.transport.reactor.disconnectAll()

        def client(port: int) -> None:
            with connect(port) as sock:
                sock.sendall(b"x")
                read_all(sock)

        port = self.listen(Server)
        result = self.run_client(client, port, until=lambda: True)
        self.assertIsNone(result)
        self.assertEqual(self.servers[0].calls, ["made", "lost"])

    def test_abort_connection(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(BIG)
                self.transport.abortConnection()
                self.transport.write(b"ignored")
                self.transport.loseConnection()

        def client(port: int) -> str:
            with connect(port) as sock:
                sock.sendall(b"x")
                time.sleep(0.1)
                try:
                    read_all(sock)
                except ConnectionResetError:
                    return "reset"
                return "end"

        self.assertEqual(self.run_client(client, self.listen(Server)), "reset")
        self.assertIsInstance(self.servers[0].reason.value, ConnectionAborted)

    def test_half_close_by_the_client(self) -> None:
        @implementer(IHalfCloseableProtocol)
        class Server(Recorder):
            def readConnectionLost(self) -> None:
                self.calls.append("read lost")
                self.transport.write(b"got " + self.received)
                self.transport.loseConnection()

            def writeConnectionLost(self) -> None:
                self.calls.append("write lost")

            def dataReceived(self, data: bytes) -> None:
                self.received += data

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"all")
                sock.shutdown(socket.SHUT_WR)
                return read_all(sock)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"got all")
        self.assertEqual(self.servers[0].calls, ["made", "read lost", "lost"])

    def test_half_close_by_the_server(self) -> None:
        @implementer(IHalfCloseableProtocol)
        class Server(Recorder):
            def readConnectionLost(self) -> None:
                self.transport.loseConnection()

            def writeConnectionLost(self) -> None:
                self.calls.append("write lost")
                self.transport.write(b"ignored")

            def dataReceived(self, data: bytes) -> None:
                self.received += data
                if data == b"go":
                    self.transport.write(b"all")
                    self.transport.loseWriteConnection()

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"go")
                got = read_all(sock)
                sock.sendall(b" on")
                return got

        self.assertEqual(self.run_client(client, self.listen(Server)), b"all")
        self.assertEqual(self.servers[0].received, b"go on")
        self.assertEqual(self.servers[0].calls, ["made", "write lost", "lost"])

    def test_exception_is_logged_and_loses_the_connection(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError("a bug")

        def client(port: int) -> bytes:
            with connect(port) as sock:
                sock.sendall(b"x")
                return read_all(sock)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"")
        self.assertIsInstance(self.servers[0].reason.value, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OtherTests(DirectCase):
    def test_names_and_addresses(self) -> None:
        seen = []

        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                t = self.transport
                seen.extend([t.getPeer().port, t.getHost().port, t.hostname, t.logPrefix(), repr(t), t.getTcpNoDelay()])
                t.setTcpKeepAlive(True)
                seen.append(t.getTcpKeepAlive())
                t.loseConnection()

        def client(port: int) -> int:
            with connect(port) as sock:
                sock.sendall(b"x")
                read_all(sock)
                return int(sock.getsockname()[1]) if sock.fileno() >= 0 else 0

        port = self.listen(Server)
        number = port.getHost().port
        own = self.run_client(client, port)
        self.assertEqual(
            seen,
            [own, number, "127.0.0.1", "Server,0,127.0.0.1", f"<Server #0 on {number}>", True, True],
        )

    def test_pause_and_resume(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.received += data
                self.transport.pauseProducing()
                count = len(self.received)
                self.transport.reactor.callLater(0.05, self.check, count)

            def check(self, count: int) -> None:
                self.calls.append("quiet" if len(self.received) == count else "noise")
                self.transport.resumeProducing()

        def client(port: int) -> None:
            with connect(port) as sock:
                sock.sendall(b"x" * 3 * DirectServer.read_size)
                time.sleep(0.3)

        self.run_client(client, self.listen(Server))
        self.assertEqual(self.servers[0].calls, ["made", "quiet", "quiet", "quiet", "lost"])

    def test_many_clients_at_once(self) -> None:
        def client(port: int) -> set[bytes]:
            socks = [connect(port) for _ in range(300)]
            for sock in socks:
                sock.sendall(b"hello")
            answers = {read_exactly(sock, 5) for sock in socks}
            for sock in socks:
                sock.close()
            return answers

        port = self.listen(Recorder)
        self.assertEqual(self.run_client(client, port), {b"hello"})
        self.assertEqual(len(self.servers), 300)

    def test_refused_and_broken_factories(self) -> None:
        class Fussy(Factory):
            noisy = False
            answers = iter([None, ZeroDivisionError("a bug"), Recorder()])

            def buildProtocol(self, addr: Any) -> Any:
                answer = next(self.answers)
                if isinstance(answer, Exception):
                    raise answer
                return answer

        def client(port: int) -> list[bytes]:
            answers = []
            for _ in range(3):
                with connect(port) as sock:
                    sock.sendall(b"x")
                    try:
                        answers.append(sock.recv(1))
                    except ConnectionResetError:
                        answers.append(b"")
            return answers

        port = self.reactor.listenTCP(0, Fussy(), interface="127.0.0.1")
        self.assertEqual(self.run_client(client, port), [b"", b"", b"x"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_listening_keeps_connections(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                if data == b"stop":
                    port.stopListening().addCallback(lambda _: self.transport.write(b"stopped"))
                else:
                    self.transport.write(data)

        def client(number: int) -> tuple[bytes, bool]:
            with connect(number) as sock:
                sock.sendall(b"stop")
                first = read_exactly(sock, 7)
                sock.sendall(b"still")
                first += read_exactly(sock, 5)
                try:
                    connect(number).close()
                except ConnectionRefusedError:
                    return first, True
                return first, False

        port = self.listen(Server)
        self.assertEqual(self.run_client(client, port), (b"stoppedstill", True))

    def test_adopted_port_is_direct(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            port = self.reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, Factory.forProtocol(Recorder))
        self.assertIsInstance(port, DirectPort)

        def client(number: int) -> bytes:
            with connect(number) as sock:
                sock.sendall(b"x")
                return read_exactly(sock, 1)

        self.assertEqual(self.run_client(client, port), b"x")

    def test_unix_port_is_stock(self) -> None:
        port = self.reactor.listenUNIX(self.mktemp(), Factory.forProtocol(Recorder))
        self.assertIs(type(port), unix.Port)
