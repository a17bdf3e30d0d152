"""Malicious or broken clients cost a running livestate little, and do not affect other clients."""

import contextlib
import os
import resource
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import get
from tests.integration.processes import files, memory, until
from tests.integration.servers import Livestate
from tests.integration.test_metrics import exported

PLAIN = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    """Connect to the server of `url`, without TLS."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), 20, (source, 0))


def secure(sock: socket.socket) -> ssl.SSLSocket:
    """Start TLS without verifying the server."""
    return context().wrap_socket(sock)


def context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a client's TLS context for this version."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.minimum_version = client_context.maximum_version = version
    return client_context


def is_closed(sock: socket.socket) -> bool:
    """Return whether the server has closed a connection on which it sends nothing."""
    sock.setblocking(False)
    try:
        return sock.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def read_to_end(sock: socket.socket, limit: float = 20) -> bytes:
    """Read until the server closes or resets the connection."""
    sock.settimeout(limit)
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except TimeoutError:
        raise AssertionError(f"still open, with {data[:100]!r}") from None
    except OSError:
        pass
    return data


def reset(sock: socket.socket) -> None:
    """Close a connection with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class LimitTests(SynchronousTestCase):
    """Connections above a limit are closed at once; all others are served."""

    def answered(self, sock: socket.socket) -> bool:
        """Return whether a request gets a response."""
        try:
            sock.settimeout(20)
            sock.sendall(PLAIN)
            return sock.recv(65536).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def secured(self, sock: socket.socket) -> socket.socket:
        """Start TLS if the server lets us."""
        try:
            return secure(sock)
        except OSError:
            return sock

    def refused(self, service: Livestate, reason: str) -> float:
        """Return how many connections were refused for this reason."""
        return float(exported(service)["livestate_connections_refused_total", ("reason", reason)])

    def close(self, socks: list[socket.socket]) -> None:
        """Close all of them."""
        for sock in socks:
            sock.close()

    def test_limits(self):
        """The total and per-address limits count HTTP and HTTPS together, and appear in one log line and the metrics."""
        service = Livestate(
            self, "--source=demo:", "--max-connections=60", "--max-connections-per-address=20", https=""
        )
        get(service.admin, "/health")
        until(lambda: self.answered(connect(service.http, "127.0.0.9")), "a document")
        until(lambda: exported(service)["livestate_connections",] == 0, "all are closed")
        same_address = [connect(url, "127.0.0.1") for url in (service.http, service.https) * 15]
        until(lambda: self.refused(service, "address") == 10, "the last ten are refused")
        same_address[1::2] = [self.secured(sock) for sock in same_address[1::2]]
        self.assertEqual([self.answered(sock) for sock in same_address].count(True), 20)
        others = [connect(service.http, f"127.0.0.{2 + number % 3}") for number in range(50)]
        until(lambda: self.refused(service, "total") == 10, "the last ten are refused")
        self.assertEqual([self.answered(sock) for sock in others].count(True), 40)
        self.assertEqual(service.log.count("refused connections above the limit"), 1)
        self.assertNotIn("Traceback", service.log)
        self.close(same_address + others)
        until(lambda: self.answered(connect(service.http)), "their connections are closed")

    def test_no_files_left(self):
        """At the limit of open files, new connections are closed, existing ones are served, and the CPU is idle."""
        service = Livestate(self, "--source=demo:", https="")
        service.until_served()
        existing = connect(service.http)
        until(lambda: exported(service)["livestate_connections",] == 1, "the others are closed")
        limit = files(service.pid) + 60
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, limit))
        crowd = [connect(url) for url in (service.http, service.https) * 60]
        until(lambda: sum(map(is_closed, crowd)) >= 30, "those that cannot be served are closed")
        before, started = cpu_seconds(service.pid), time.monotonic()
        for _ in range(4):
            time.sleep(0.25)
            self.assertTrue(self.answered(existing))
        used = (cpu_seconds(service.pid) - before) / (time.monotonic() - started)
        self.assertLess(used, 0.5, "a busy loop")
        self.assertNotIn("Traceback", service.log)
        if "twisted.internet.epollreactor" not in service.log and not os.environ.get("LIVESTATE_TEST_REACTOR"):
            self.assertEqual(service.log.count("EMFILE"), 1)
        self.close(crowd)
        until(lambda: self.answered(connect(service.http)), "it serves again")
        self.assertTrue(self.answered(secure(connect(service.https))))


class AttackTests(SynchronousTestCase):
    """Attacks on one running livestate, one after the other."""

    def setUp(self):
        self.service = Livestate(self, "--source=demo:", https="")
        self.service.until_served()
        self.honest = self.service.client()
        self.honest.get()

    def assert_recovered(self, what: str, extra: int = 20 << 20) -> None:
        """Check that after an attack clients are served, no file is left open, nothing is logged and memory is bounded."""
        self.assertEqual(self.honest.get().status, 200, what)
        until(lambda: exported(self.service)["livestate_connections",] <= 1, f"{what}: all connections are closed")
        until(lambda: files(self.service.pid) <= self.files + 2, f"{what}: all files are closed")
        self.assertLess(memory(self.service.pid) - self.memory, extra, what)
        self.assertEqual(self.service.log[self.logged :], "", what)

    def record_baseline(self) -> None:
        """Record log, open files and memory before the attacks."""
        until(lambda: exported(self.service)["livestate_connections",] <= 1, "it is quiet")
        self.logged = len(self.service.log)
        self.files, self.memory = files(self.service.pid), memory(self.service.pid)

    def test_attacks(self):
        """Floods, bombs and resets leave nothing behind, are not logged, and honest clients are served."""
        self.record_baseline()
        for attack in (self.resets, self.bombs, self.floods, self.deaf_floods, self.handshakes, self.confusion):
            attack()
            self.assert_recovered(attack.__name__)

    def resets(self) -> None:
        """Reset many connections at each stage."""
        for url in (self.service.http, self.service.https):
            for sent in (b"", b"GET", PLAIN, b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01"):
                for _ in range(60):
                    sock = connect(url)
                    sock.sendall(sent)
                    reset(sock)
        for _ in range(20):
            with contextlib.suppress(OSError):
                sock = secure(connect(self.service.https))
                sock.sendall(PLAIN)
                reset(sock)

    def bombs(self) -> None:
        """Send endless heads: many fields, long fields, a long request line, a folded line. All are cut off."""
        for bomb in (
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
            b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000,
            b"GET /" + b"y" * 1_000_000,
            b"GET / HTTP/1.1\r\nX: y\r\n" + b" y\r\n" * 100_000,
            b"y" * 1_000_000,
            b"\r\n" * 100_000,
            b"\0" * 100_000,
        ):
            sock = connect(self.service.http)
            with contextlib.suppress(OSError):
                sock.sendall(bomb)
            self.assertNotIn(b" 200 ", read_to_end(sock))
            sock.close()

    def floods(self) -> None:
        """Send 10,000 pipelined requests, which get 10,000 responses."""
        sock = connect(self.service.http)
        sock.settimeout(20)
        last = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        sender = threading.Thread(target=sock.sendall, args=(PLAIN * 10_000 + last,), daemon=True)
        sender.start()
        answers, rest = 0, b""
        while data := sock.recv(1 << 20):
            answers += (rest + data).count(b"HTTP/1.1 200")
            rest = (rest + data)[-11:]
        sender.join(20)
        sock.close()
        self.assertEqual(answers, 10_000)

    def deaf_floods(self) -> None:
        """Send requests of every kind without reading responses, which must not use much memory."""
        # Held until the next change, within a second.
        etag = self.honest.get()["ETag"].encode()
        held = b"GET / HTTP/1.1\r\nHost: h\r\nPrefer: wait=60\r\nIf-None-Match: %b\r\n\r\n" % etag
        missing = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"
        page = b"GET /_live/livestate.js HTTP/1.1\r\nHost: h\r\n\r\n"
        socks = []
        for url in (self.service.http, self.service.https):
            for request in (PLAIN, missing, page, held + page * 2000, held + b"\r\n" * 2000):
                for _ in range(3):
                    sock = connect(url)
                    if url == self.service.https:
                        sock = secure(sock)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.setblocking(False)
                    with contextlib.suppress(OSError):
                        for _ in range(40):
                            sock.send(request * (65536 // len(request) + 1))
                    socks.append(sock)
        self.assertEqual(self.honest.get().status, 200)
        time.sleep(0.5)
        self.assertLess(memory(self.service.pid) - self.memory, 30 << 20)
        for sock in socks:
            reset(sock)

    def handshakes(self) -> None:
        """Leave TLS handshakes unfinished or unstarted, which must not use much memory."""
        socks = [connect(self.service.https) for _ in range(200)]
        for sock in socks[::2]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        self.assertEqual(self.service.client(https=True).get().status, 200)
        self.assertLess(memory(self.service.pid) - self.memory, 30 << 20)
        for sock in socks:
            sock.close()

    def confusion(self) -> None:
        """Send HTTP to the TLS port, TLS to the HTTP port, and an early FIN: each is answered or closed at once."""
        plain = connect(self.service.https)
        plain.sendall(PLAIN)
        response = read_to_end(plain)
        if os.environ.get("LIVESTATE_TEST_REACTOR"):
            self.assertEqual(response, b"", "Twisted's own TLS sends no response")
        else:
            self.assertTrue(response.startswith(b"HTTP/1.1 400 "), response)
            self.assertIn(b"https://", response)
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"\0\r\n",
            b"SSH-2.0-x\r\n",
            b"PRI * HTTP/2.0\r\n",
        ):
            sock = connect(self.service.http)
            sock.sendall(sent)
            self.assertTrue(read_to_end(sock).startswith(b"HTTP/1.1 400 "), sent)
            sock.close()
        half = connect(self.service.http)
        half.sendall(PLAIN)
        half.shutdown(socket.SHUT_WR)
        self.assertIn(b" 200 ", read_to_end(half))
        for sock in (plain, half):
            sock.close()

    def test_renegotiation(self):
        """A TLS 1.2 client cannot renegotiate: each new handshake would cost the server 1 ms."""
        sock = connect(self.service.https)
        sock.settimeout(None)
        tls = SSL.Context(SSL.TLS_CLIENT_METHOD)
        tls.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(tls, sock)
        client.set_connect_state()
        client.do_handshake()
        client.renegotiate()
        self.assertRaises(SSL.Error, client.do_handshake)
        sock.close()
        self.assertEqual(self.honest.get().status, 200)
