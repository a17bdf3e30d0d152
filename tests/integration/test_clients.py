"""Clients that mean harm, or are broken: a running livestate gives them little and everyone else all."""

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
    """Give a connection to where `url` is served, without TLS."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), 20, (source, 0))


def secure(sock: socket.socket) -> ssl.SSLSocket:
    """Begin TLS, whoever the server is."""
    return context().wrap_socket(sock)


def context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Give a client's TLS."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.minimum_version = made.maximum_version = version
    return made


def ended(sock: socket.socket) -> bool:
    """Tell whether the other side has ended a connection, of which nothing is to be read."""
    sock.setblocking(False)
    try:
        return sock.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def read_to_end(sock: socket.socket, limit: float = 20) -> bytes:
    """Read until the server ends the connection, however."""
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
    """End a connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def cpu(pid: int) -> float:
    """Give the seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class LimitTests(SynchronousTestCase):
    """Who is above a limit is closed at once; all others are served."""

    def answered(self, sock: socket.socket) -> bool:
        """Tell whether a request gets an answer."""
        try:
            sock.settimeout(20)
            sock.sendall(PLAIN)
            return sock.recv(65536).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def secured(self, sock: socket.socket) -> socket.socket:
        """Begin TLS if that can be."""
        try:
            return secure(sock)
        except OSError:
            return sock

    def refused(self, service: Livestate, reason: str) -> float:
        """Give how many connections were refused for a reason."""
        return float(exported(service)["livestate_connections_refused_total", ("reason", reason)])

    def close(self, socks: list[socket.socket]) -> None:
        """Close all."""
        for sock in socks:
            sock.close()

    def test_limits(self):
        """In all and of one address, over HTTP and HTTPS together; with one line in the log and a number in the metrics."""
        service = Livestate(
            self, "--source=demo:", "--max-connections=60", "--max-connections-per-address=20", https=""
        )
        get(service.admin, "/health")
        until(lambda: self.answered(connect(service.http, "127.0.0.9")), "a document")
        until(lambda: exported(service)["livestate_connections",] == 0, "all are gone")
        one = [connect(url, "127.0.0.1") for url in (service.http, service.https) * 15]
        until(lambda: self.refused(service, "address") == 10, "the last ten are refused")
        one[1::2] = [self.secured(sock) for sock in one[1::2]]
        self.assertEqual([self.answered(sock) for sock in one].count(True), 20)
        others = [connect(service.http, f"127.0.0.{2 + number % 3}") for number in range(50)]
        until(lambda: self.refused(service, "total") == 10, "the last ten are refused")
        self.assertEqual([self.answered(sock) for sock in others].count(True), 40)
        self.assertEqual(service.log.count("refused connections above the limit"), 1)
        self.assertNotIn("Traceback", service.log)
        self.close(one + others)
        until(lambda: self.answered(connect(service.http)), "they have left")

    def test_no_files_left(self):
        """Where no more files can be opened, newcomers are closed, nothing spins, and who is there is served on."""
        service = Livestate(self, "--source=demo:", https="")
        service.until_served()
        reader = connect(service.http)
        until(lambda: exported(service)["livestate_connections",] == 1, "the others are gone")
        limit = files(service.pid) + 60
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, limit))
        crowd = [connect(url) for url in (service.http, service.https) * 60]
        until(lambda: sum(map(ended, crowd)) >= 30, "who cannot be served is closed")
        before, began = cpu(service.pid), time.monotonic()
        for _ in range(4):
            time.sleep(0.25)
            self.assertTrue(self.answered(reader))
        used = (cpu(service.pid) - before) / (time.monotonic() - began)
        self.assertLess(used, 0.5, "it spins")
        self.assertNotIn("Traceback", service.log)
        if "twisted.internet.epollreactor" not in service.log and not os.environ.get("LIVESTATE_TEST_REACTOR"):
            self.assertEqual(service.log.count("EMFILE"), 1)
        self.close(crowd)
        until(lambda: self.answered(connect(service.http)), "it serves again")
        self.assertTrue(self.answered(secure(connect(service.https))))


class AttackTests(SynchronousTestCase):
    """One livestate that goes through all of it."""

    def setUp(self):
        self.service = Livestate(self, "--source=demo:", https="")
        self.service.until_served()
        self.honest = self.service.client()
        self.honest.get()

    def over(self, what: str, extra: int = 20 << 20) -> None:
        """See that all is as it was before the attack: served, no file kept, nothing logged, memory within bounds."""
        self.assertEqual(self.honest.get().status, 200, what)
        until(lambda: exported(self.service)["livestate_connections",] <= 1, f"{what}: all connections are gone")
        until(lambda: files(self.service.pid) <= self.files + 2, f"{what}: all files are closed")
        self.assertLess(memory(self.service.pid) - self.memory, extra, what)
        self.assertEqual(self.service.log[self.logged :], "", what)

    def begin(self) -> None:
        """Note how things are."""
        until(lambda: exported(self.service)["livestate_connections",] <= 1, "it is quiet")
        self.logged = len(self.service.log)
        self.files, self.memory = files(self.service.pid), memory(self.service.pid)

    def test_attacks(self):
        """Floods, bombs, resets and the like leave nothing behind, are not logged, and honest readers are served."""
        self.begin()
        for attack in (self.resets, self.bombs, self.floods, self.deaf_floods, self.handshakes, self.confusion):
            attack()
            self.over(attack.__name__)

    def resets(self) -> None:
        """A storm of RST, at each stage of a connection."""
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
        """Heads without end are cut off: many fields, long ones, a long request line, a folded one."""
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
        """10,000 requests at once are 10,000 answers."""
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
        """Of those who ask and ask and never read, little is kept, on each way that a request can go."""
        # Until the next change, within a second.
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
        """TLS that never comes to an end, or is none, costs little while it lasts."""
        socks = [connect(self.service.https) for _ in range(200)]
        for sock in socks[::2]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        self.assertEqual(self.service.client(https=True).get().status, 200)
        self.assertLess(memory(self.service.pid) - self.memory, 30 << 20)
        for sock in socks:
            sock.close()

    def confusion(self) -> None:
        """HTTP on the TLS port, TLS on the HTTP port, and ends that come too early are closed at once, or answered."""
        plain = connect(self.service.https)
        plain.sendall(PLAIN)
        told = read_to_end(plain)
        if os.environ.get("LIVESTATE_TEST_REACTOR"):
            self.assertEqual(told, b"", "Twisted's own TLS says nothing")
        else:
            self.assertTrue(told.startswith(b"HTTP/1.1 400 "), told)
            self.assertIn(b"https://", told)
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
        """A client of TLS 1.2 cannot have the handshake again and again: that would cost the server 1 ms each time."""
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
