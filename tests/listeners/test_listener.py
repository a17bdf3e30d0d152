"""Listening on the endpoints that strports strings describe."""

import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase, TestCase

from livestate.config.strports import parse_strports
from livestate.errors import SettingsError
from livestate.listeners.endpoint import BACKLOG
from livestate.listeners.listener import Listener
from tests.support import Authority, FakeReactor, log_lines, many, pem, until, written

reactor: Any = _reactor

# The kernel's numbers for the states (include/net/tcp_states.h).
TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSE_WAIT = 1, 4, 5, 6, 8


class FolderCase(SynchronousTestCase):
    """A test with a working directory of its own."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.reactor = FakeReactor()

    def listen(self, option, description):
        """Start a listener in a reactor that only records it."""
        listener = Listener(self.reactor, option, description, Factory())
        listener.privilegedStartService()
        return listener

    def refusal(self, option, description):
        """Return the one-line message for a description that is refused."""
        text = str(self.assertRaises(SettingsError, Listener, self.reactor, option, description, Factory()))
        self.assertEqual(len(text.splitlines()), 1)
        self.assertTrue(text.startswith(f"{option}="), text)
        return text


class DescriptionTests(FolderCase):
    """Which descriptions are accepted, and which are refused."""

    def test_tcp(self):
        """A TCP port gets the large backlog, unless the description sets one, and its interface."""
        for description, interface, backlog in (
            ("tcp:0", "", BACKLOG),
            ("tcp:port=0", "", BACKLOG),
            ("tcp:0:interface=127.0.0.1", "127.0.0.1", BACKLOG),
            ("tcp:0:backlog=7", "", 7),
            (r"tcp:0:interface=\:\:1", "::1", BACKLOG),
            (r"tcp:interface=\:\:1:port=0:backlog=9", "::1", 9),
        ):
            self.listen("--http", description)
            self.assertEqual(self.reactor.tcpServers[-1][2:], (backlog, interface), description)

    def test_ssl(self):
        """A TLS port gets the large backlog too, and its interface."""
        self.listen("--https", "ssl:0")
        self.assertEqual(self.reactor.sslServers[-1][3:], (BACKLOG, ""))
        self.listen("--https", r"ssl:port=0:interface=\:\:1:backlog=8")
        self.assertEqual(self.reactor.sslServers[-1][3:], (8, "::1"))

    def test_unix(self):
        """Twisted handles other types of strports strings."""
        self.listen("--http", "unix:live.sock")
        self.assertEqual(self.reactor.unixServers[-1][0], f"{self.folder}/live.sock")

    def test_another_directory(self):
        """File names are relative to the directory that livestate was started in, in all of their forms."""
        start = self.folder / "a:b=c"
        start.mkdir()
        key, certificate = Authority().issue()
        written(start / "key.pem", pem(key))
        written(start / "certificate.pem", pem(certificate))

        def listen(option: str, description: str) -> None:
            Listener(self.reactor, option, description, Factory(), start).privilegedStartService()

        for description in (
            "unix:live.sock", "unix:live.sock:600", "unix:address=live.sock", "unix:mode=600:live.sock",
            "unix:mode=600:address=live.sock:backlog=5", "haproxy:unix:live.sock", f"unix:{start}/live.sock".replace(":b=", r"\:b\="),
        ):  # fmt: skip
            listen("--http", description)
            address, _, _, mode, *_ = self.reactor.unixServers[-1]
            self.assertEqual(address, f"{start}/live.sock", description)
            self.assertEqual(mode, 0o600 if "600" in description else 0o666)
        listen("--https", "ssl:0:privateKey=key.pem:certKey=certificate.pem")
        listen("--https", "ssl:0")
        self.assertTrue((start / "server.pem").is_file())
        self.assertFalse((self.folder / "server.pem").exists())

    @many
    @given(st.text(min_size=1, max_size=12), st.text(max_size=12))
    def test_escapes(self, interface, other):
        """Escaped colons and backslashes become part of the value, whatever surrounds them."""
        description = f"tcp:8080:interface={quoteStringArgument(interface)}:x={quoteStringArgument(other)}:backlog=5"
        expected = {"port": "8080", "interface": interface, "x": other, "backlog": "5"}
        self.assertEqual(parse_strports(description), ("tcp", expected))

    @many
    @given(st.text(st.sampled_from("tcpsl:=\\08/."), max_size=16))
    def test_parses_as_twisted_does(self, rest):
        """A description that Twisted can parse is parsed in the same way."""
        try:
            (kind, *bare), named = endpoints._parse(f"tcp:{rest}")
        except (RuntimeError, StopIteration):
            return
        if len(bare) == 1 and "port" not in named:
            self.assertEqual(parse_strports(f"tcp:{rest}"), (kind, {**named, "port": bare[0]}))

    def test_wrong(self):
        """An invalid description is refused with one line that says what was expected."""
        for option, description, expected in (
            ("--http", "", ""),
            ("--http", "8080", "such as tcp:8080"),
            ("--https", "8443", "such as ssl:8443"),
            ("--http", "tpc:8080", ""),
            ("--http", "tcp:", "port must be a number from 0 to 65535, not ''"),
            ("--http", "tcp", "expected a port, such as tcp:8080"),
            ("--http", "tcp:http", "port must be a number"),
            ("--http", "tcp:65536", "port must be a number"),
            ("--http", "tcp:-1", "port must be a number"),
            ("--http", "tcp:0:backlog=many", ""),
            ("--http", "tcp:0:colour=red", "colour"),
            ("--http", "tcp:0:1:2:3", ""),
            ("--http", "tcp:0:interface=no such host", ""),
            ("--http", "tcp:0:interface=192.0.2.1", "no such address"),
            ("--http", "unix:no/such/folder/live.sock", "no directory"),
            ("--http", "tcp:0\\", ""),
            ("--http", "unix:\\", ""),
            ("--https", "ssl", "expected a port, such as ssl:8080"),
            ("--https", "ssl:0:backlog=0", "backlog must be a number from 1"),
            ("--https", "ssl:0:colour=red", "no argument 'colour'"),
            ("--https", "ssl:0:privateKey=missing.pem", "/missing.pem: No such file"),
            ("--admin", "ssl:0:certKey=missing.pem", "/missing.pem: No such file"),
        ):
            self.assertIn(expected, self.refusal(option, description), description)

    def test_folder_of_certificates(self):
        """A directory that Twisted's `tls:` cannot walk is refused like any other error."""
        (self.folder / "certificates").mkdir()
        (self.folder / "certificates/itself").symlink_to(".")
        self.assertIn("Cycle", self.refusal("--https", "tls:certificates:0"))

    def test_plain_and_tls(self):
        """--https never serves plain HTTP, and --http never TLS; --admin may serve either."""
        for description in ("tcp:0", "tcp6:0", "unix:live.sock"):
            self.assertIn("not TLS", self.refusal("--https", description))
        self.assertIn("belongs in --https", self.refusal("--http", "ssl:0"))
        self.listen("--admin", "tcp:0")
        self.listen("--admin", "ssl:0")

    @many
    @given(
        st.sampled_from(["--http", "--https", "--admin"]),
        st.sampled_from(["tcp:", "tcp6:", "ssl:", "unix:", "systemd:", "fd:", "haproxy:tcp:", "tls:", ""]),
        st.text(st.sampled_from("0189:=\\/.-aintefcbklogprdKy é\x00"), max_size=14),
    )
    def test_any_description(self, option, kind, rest):
        """Any description either makes a listener or is refused with a SettingsError."""
        # The result must not depend on which ports can be bound, or on the files, on this machine.
        with mock.patch.object(socket.socket, "bind"), mock.patch.object(FilePath, "walk", return_value=[]):
            try:
                Listener(self.reactor, option, kind + rest, Factory())
            except SettingsError:
                pass


class CertificateTests(FolderCase):
    """Which certificate a TLS listener serves."""

    def context_of(self, description):
        self.listen("--https", description)
        return self.reactor.sslServers[-1][2].options.getContext()

    def test_development(self):
        """Without named files or a server.pem, one is created and its fingerprint logged, once for all listeners."""
        with log_lines(LogLevel.warn) as lines:
            self.context_of("ssl:0")
            made = (self.folder / "server.pem").read_bytes()
            self.context_of("ssl:0:interface=127.0.0.1")
        self.assertEqual((self.folder / "server.pem").read_bytes(), made)
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"development certificate .*server\.pem; .*([0-9A-F]{2}:){31}[0-9A-F]{2}\. ")

    def test_files(self):
        """Keys and certificates are loaded from the named files; one file may hold both."""
        key, certificate = Authority().issue("localhost")
        written(self.folder / "key.pem", pem(key))
        written(self.folder / "cert.pem", pem(certificate))
        written(self.folder / "a:b.pem", pem(key, certificate))
        for description in (
            "ssl:0:privateKey=key.pem:certKey=cert.pem",
            "ssl:0:privateKey=key.pem:certKey=cert.pem:extraCertChain=cert.pem",
            r"ssl:0:privateKey=a\:b.pem",
            r"ssl:0:certKey=a\:b.pem",
        ):
            self.context_of(description)
        self.assertFalse((self.folder / "server.pem").exists())

    def test_named_and_broken(self):
        """If a named file cannot be used, server.pem is neither created nor used instead."""
        key, certificate = Authority().issue("localhost")
        written(self.folder / "key.pem", pem(key))
        written(self.folder / "cert.pem", pem(certificate))
        written(self.folder / "broken.pem", pem(certificate)[:-60])
        broken = (
            "ssl:0:privateKey=key.pem:certKey=broken.pem", "ssl:0:privateKey=broken.pem:certKey=cert.pem",
            "ssl:0:privateKey=key.pem:certKey=cert.pem:extraCertChain=broken.pem", "ssl:0:extraCertChain=cert.pem",
            "ssl:0:privateKey=key.pem", "ssl:0:certKey=cert.pem", "ssl:0:privateKey=missing.pem", "ssl:0:privateKey=",
            "ssl:0:certKey=", "ssl:0:privateKey=:certKey=", "ssl:0:privatekey=key.pem",
        )  # fmt: skip
        for exists in (False, True):
            for description in broken:
                self.refusal("--https", description)
            self.assertEqual((self.folder / "server.pem").exists(), exists)
            self.context_of("ssl:0")

    def test_server_pem(self):
        """An existing server.pem that cannot be used is refused, and not replaced."""
        written(self.folder / "server.pem", b"garbage")
        self.assertIn("server.pem", self.refusal("--https", "ssl:0"))
        self.assertEqual((self.folder / "server.pem").read_bytes(), b"garbage")


def states_of(port):
    """Return the states of this machine's IPv4 sockets on a local port (proc(5), /proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(line[3], 16) for line in lines if line[1].endswith(f":{port:04X}")}


class Greeter(Protocol):
    """Send hello and close; the factory's `lost` fires when the connection is lost."""

    def connectionMade(self):
        transport: Any = self.transport
        transport.write(b"hello")
        transport.loseConnection()
        factory: Any = self.factory
        factory.lost = Deferred()

    def connectionLost(self, reason: Any = None):
        factory: Any = self.factory
        factory.lost.callback(None)


class RealTests(TestCase):
    """Listening on real sockets."""

    timeout = 20

    def setUp(self):
        self.busy = socket.socket()
        self.addCleanup(self.busy.close)
        self.busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.busy.bind(("127.0.0.1", 0))
        self.busy.listen()
        self.number = self.busy.getsockname()[1]

    def test_busy(self):
        """A port in use is a SettingsError before anything runs, with one line that says what to do."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        for option, kind in (("--http", "tcp"), ("--https", "ssl"), ("--admin", "tcp")):
            description = f"{kind}:{self.number}:interface=127.0.0.1"
            text = str(self.assertRaises(SettingsError, Listener, reactor, option, description, Factory()))
            expected = (
                f"{option}={description}: the port is in use; stop the process that uses it, or choose another port"
            )
            self.assertEqual(text, expected)

    def test_busy_later(self):
        """If another process has taken the port in the meantime, the process exits with the same line."""
        self.busy.close()
        listener = Listener(reactor, "--http", f"tcp:{self.number}:interface=127.0.0.1", Factory())
        with socket.socket() as taker:
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taker.bind(("127.0.0.1", self.number))
            taker.listen()
            with log_lines() as lines:
                end = self.assertRaises(SystemExit, listener.privilegedStartService)
        self.assertIn("the port is in use", str(end))
        self.assertEqual(lines, [str(end)])

    async def test_just_closed(self):
        """A port is available after a restart, whatever state the previous server's connections linger in."""

        def left_by_server(accepted, client):  # FIN_WAIT_2, and TIME_WAIT once the client has left too
            accepted.close()
            self.assertEqual(client.recv(10), b"")

        def left_by_both(accepted, client):
            left_by_server(accepted, client)
            client.close()

        def left_by_client(accepted, client):  # CLOSE_WAIT
            client.close()
            self.assertEqual(accepted.recv(10), b"")

        def left_with_data(accepted, client):  # FIN_WAIT_1
            accepted.setblocking(False)
            with self.assertRaises(BlockingIOError):
                while True:
                    accepted.send(bytes(65536))
            accepted.close()

        for state, leave in (
            (TCP_FIN_WAIT2, left_by_server),
            (TCP_TIME_WAIT, left_by_both),
            (TCP_CLOSE_WAIT, left_by_client),
            (TCP_FIN_WAIT1, left_with_data),
            (TCP_ESTABLISHED, lambda accepted, client: None),
        ):
            self.busy.close()
            self.setUp()
            client = socket.create_connection(("127.0.0.1", self.number), timeout=10)
            self.addCleanup(client.close)
            accepted, _ = self.busy.accept()
            self.addCleanup(accepted.close)
            accepted.settimeout(10)
            leave(accepted, client)
            self.busy.close()
            await until(reactor, lambda: state in states_of(self.number))  # noqa: B023  # called within the iteration
            listener = Listener(reactor, "--http", f"tcp:{self.number}:interface=127.0.0.1", Factory())
            listener.privilegedStartService()
            self.addCleanup(listener.stopService)

    def test_held_by_a_child(self):
        """A port stays in use while a child of the previous server holds its listening socket."""
        child = subprocess.Popen(["sleep", "60"], pass_fds=[self.busy.fileno()])
        self.busy.close()
        try:
            description = f"tcp:{self.number}:interface=127.0.0.1"
            error = self.assertRaises(SettingsError, Listener, reactor, "--http", description, Factory())
        finally:
            child.kill()
            child.wait(10)
        self.assertIn("the port is in use", str(error))
        Listener(reactor, "--http", description, Factory())

    def test_forbidden(self):
        """For a port that needs privileges, the message says which."""

        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        self.patch(socket.socket, "bind", refuse)
        error = self.assertRaises(SettingsError, Listener, reactor, "--http", "tcp:80", Factory())
        self.assertIn("ports below 1024 need root or CAP_NET_BIND_SERVICE", str(error))

    async def test_serves(self):
        """Once started, a listener serves its factory; once stopped, its port is free again."""
        self.busy.close()
        factory: Any = Factory.forProtocol(Greeter)
        listener = Listener(reactor, "--http", f"tcp:{self.number}:interface=127.0.0.1", factory)
        listener.privilegedStartService()
        listener.startService()

        def read():
            with socket.create_connection(("127.0.0.1", self.number), timeout=10) as client:
                return client.recv(100)

        self.assertEqual(await deferToThread(read), b"hello")
        await factory.lost
        stopped: Any = listener.stopService()
        await stopped
        self.assertIsNone(listener.port)
        Listener(reactor, "--http", f"tcp:{self.number}:interface=127.0.0.1", factory)

    async def test_serves_tls(self):
        """A TLS listener serves with its certificate."""
        self.busy.close()
        key, certificate = Authority().issue("localhost")
        both = written(Path(self.mktemp()), pem(key, certificate))
        factory: Any = Factory.forProtocol(Greeter)
        description = f"ssl:{self.number}:interface=127.0.0.1:certKey={quoteStringArgument(both)}"
        listener = Listener(reactor, "--https", description, factory)
        listener.privilegedStartService()

        def read():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with socket.create_connection(("127.0.0.1", self.number), timeout=10) as plain:
                with context.wrap_socket(plain) as client:
                    return client.recv(100), client.getpeercert(binary_form=True)

        received, served = await deferToThread(read)
        self.assertEqual(received, b"hello")
        self.assertEqual(served, ssl.PEM_cert_to_DER_cert(pem(certificate).decode("ascii")))
        await until(reactor, lambda: factory.lost.called)
        stopped: Any = listener.stopService()
        await stopped

    def test_never_started(self):
        """A listener that was never started can be stopped."""
        self.assertIsNone(Listener(reactor, "--http", "tcp:0", Factory()).stopService())
