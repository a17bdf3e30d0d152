"""
What the tests of the direct sockets share.

Each test builds a `DirectReactor`, as Twisted's own reactor tests do, so trial may
run on any reactor.  Clients are blocking sockets in a thread, and share no code with
what they test.
"""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from livestate.net.reactor import DirectReactor
from tests.support import Authority, pem

CLIENT_TIMEOUT = 10


@functools.cache
def make_pem() -> bytes:
    """Return a certificate for localhost and its key."""
    return pem(*Authority().issue())


def server_options() -> Any:
    """Return a context factory with the certificate of `make_pem`."""
    return PrivateCertificate.loadPEM(make_pem()).options()


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a client context that speaks only `version` and trusts every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def connect(port: int, tls: ssl.SSLContext | None = None, **options: Any) -> Any:
    """Return a connected blocking socket, with TLS if a context is given."""
    sock = socket.create_connection(("127.0.0.1", port), CLIENT_TIMEOUT)
    if tls is None:
        return sock
    return tls.wrap_socket(sock, suppress_ragged_eofs=False, **options)


def read_all(sock: Any) -> bytes:
    """Read until the end of the connection."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(sock: Any, size: int) -> bytes:
    """Read exactly `size` bytes."""
    pieces = bytearray()
    while len(pieces) < size:
        piece = sock.recv(min(65536, size - len(pieces)))
        if not piece:
            raise AssertionError(f"the connection ended after {len(pieces)} of {size} bytes")
        pieces += piece
    return bytes(pieces)


class Recorder(Protocol):
    """A protocol that records what happens to it, and echoes what it receives."""

    transport: Any
    reason: Failure | None

    def __init__(self) -> None:
        self.received = b""
        self.reason = None
        self.calls: list[str] = []

    def connectionMade(self) -> None:
        self.calls.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.calls.append("lost")
        self.reason = reason


class DirectCase(ReactorBuilder, SynchronousTestCase):
    """A test with a reactor, a server, and a client in a thread."""

    reactorFactory = DirectReactor

    def setUp(self) -> None:
        ReactorBuilder.setUp(self)
        self.reactor: Any = self.buildReactor()
        self.servers: list[Any] = []

    def listen(self, protocol: Callable[[], Any], tls: bool = False) -> Any:
        """Return a listening port whose protocols are collected in `servers`."""
        case = self

        class Collecting(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                built = protocol()
                built.factory = self
                case.servers.append(built)
                return built

        if tls:
            return self.reactor.listenSSL(0, Collecting(), server_options(), interface="127.0.0.1")
        return self.reactor.listenTCP(0, Collecting(), interface="127.0.0.1")

    def run_client(
        self,
        client: Callable[[int], Any],
        port: Any,
        until: Callable[[], bool] | None = None,
        timeout: float = 30,
    ) -> Any:
        """
        Run the reactor until the client is done and all its connections are lost
        (or `until` is true), and return what the client returned.
        """
        results: list[Any] = []
        number = port.getHost().port

        def run() -> None:
            try:
                results.append(client(number))
            except BaseException as e:
                results.append(e)

        def all_lost() -> bool:
            return all(server.reason is not None for server in self.servers)

        finished = until or all_lost
        thread = threading.Thread(target=run, daemon=True)

        def check() -> None:
            if results and (isinstance(results[0], BaseException) or finished()):
                self.reactor.stop()
            else:
                self.reactor.callLater(0.005, check)

        self.reactor.callWhenRunning(thread.start)
        self.reactor.callWhenRunning(check)
        self.runReactor(self.reactor, timeout)
        thread.join(timeout)
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]


def wait_for(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait until the condition is true, or fail. Call this in a client's thread."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.002)
