"""Limiting what connections buffer, on real sockets."""

import socket
import sys
import time
from typing import Any

from twisted.internet import protocol, reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from livestate.net.stream import NOTSENT_LOWAT, STOCK_BUFFER, limit_buffering, unsent
from tests.net.harness import DirectCase, Recorder, client_context, connect, read_all


class Producer:
    """A producer that records the transport's calls."""

    def __init__(self):
        self.calls = []

    def pauseProducing(self):
        self.calls.append("pause")

    def resumeProducing(self):
        self.calls.append("resume")

    def stopProducing(self):
        self.calls.append("stop")


class StreamTests(TestCase):
    timeout = 30

    def connect(self, family=socket.AF_INET):
        """Return a stock transport and the socket at its other end."""
        theirs, ours = socket.socketpair() if family == socket.AF_UNIX else self._tcp()
        ours.setblocking(False)
        no_port: Any = None
        transport = tcp.Server(ours, protocol.Protocol(), ("127.0.0.1", 1), no_port, 1, reactor)
        transport.protocol.makeConnection(transport)
        self.addCleanup(theirs.close)

        def end():
            if transport.connected:
                transport.connectionLost(Failure(ConnectionDone()))
                transport.stopReading()
                transport.stopWriting()

        self.addCleanup(end)
        return transport, theirs

    def _tcp(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            return theirs, listener.accept()[0]

    async def test_pauses(self):
        """The producer is paused when more is queued than the limit, and resumed when everything is sent."""
        transport, theirs = self.connect()
        limit_buffering(transport)
        producer = Producer()
        transport.registerProducer(producer, True)
        transport.write(b"x")
        self.assertEqual(producer.calls, [])
        transport.write(b"y" * STOCK_BUFFER)
        self.assertEqual(producer.calls, ["pause"])
        while "resume" not in producer.calls:
            await turn()
        self.assertEqual(theirs.recv(3), b"xyy")
        transport.unregisterProducer()

    async def test_kernel_buffers_little(self):
        """If a peer does not read, the kernel buffers little more than the limit, instead of megabytes."""
        if sys.platform != "linux":
            return
        transport, theirs = self.connect()
        limit_buffering(transport)
        taken = 0
        for _ in range(200):
            try:
                taken += transport.socket.send(b"x" * 4096)
            except BlockingIOError:
                await turn()
        before = unsent(transport)
        self.assertTrue(0 < before <= NOTSENT_LOWAT + 65536, before)
        theirs.setblocking(False)
        read = 0
        while read < taken:
            try:
                read += len(theirs.recv(65536))
            except BlockingIOError:
                await turn()
        while unsent(transport):
            await turn()

    async def test_queue_counts(self):
        """Data that waits in the transport counts as unsent until it is sent."""
        transport, theirs = self.connect()
        transport.write(b"x" * 10_000_000)
        while not transport.dataBuffer:
            await turn()
        before = unsent(transport)
        self.assertTrue(5_000_000 < before <= 10_000_000)
        for _ in range(100):
            theirs.recv(65536)
            await turn()
        self.assertLess(unsent(transport), before)

    async def test_other_transports(self):
        """For a Unix socket, only the transport gets a limit; a transport without a socket is left unchanged."""
        transport, _ = self.connect(socket.AF_UNIX)
        limit_buffering(transport)
        self.assertEqual(transport.bufferSize, STOCK_BUFFER)
        self.assertEqual(unsent(transport), 0)
        limit_buffering(StringTransport())
        self.assertEqual(unsent(StringTransport()), 0)

    async def test_wrapped(self):
        """If a transport wraps another one, the limit applies to the inner one."""
        transport, _ = self.connect()
        wrapper = protocol.Protocol()
        wrapper.transport = transport
        limit_buffering(wrapper)
        self.assertEqual(transport.bufferSize, STOCK_BUFFER)


class DirectTests(DirectCase):
    def test_conflates(self):
        """On direct transports, TCP and TLS, a producer that obeys pauses never queues more than one piece."""
        for tls in (False, True):
            queued: list[int] = []

            class Server(Recorder):
                writable, written = True, 0

                def connectionMade(self):
                    limit_buffering(self.transport)
                    self.transport.registerProducer(self, True)

                def dataReceived(self, data, queued=queued):
                    while self.writable and self.written < 4000:
                        self.transport.write(b"x" * 1000)
                        self.written += 1
                    queued.append(len(self.transport.dataBuffer) + self.transport._tempDataLen)
                    if self.written == 4000:
                        self.transport.unregisterProducer()
                        self.transport.loseConnection()

                def pauseProducing(self):
                    self.writable = False

                def resumeProducing(self):
                    self.writable = True
                    self.dataReceived(b"")

                def stopProducing(self):
                    """The connection is lost."""

            def client(port, tls=tls):
                with connect(port, client_context() if tls else None) as sock:
                    sock.sendall(b"go")
                    time.sleep(0.2)
                    return len(read_all(sock))

            self.servers.clear()
            self.assertEqual(self.run_client(client, self.listen(Server, tls)), 4_000_000)
            self.assertTrue(any(queued), "the producer was never paused")
            self.assertLessEqual(max(queued), 1000)
            self.reactor = self.buildReactor()


def turn():
    """Return a Deferred that fires after a turn of the reactor."""
    turned: Deferred[None] = Deferred()
    reactor.callLater(0.001, turned.callback, None)
    return turned
