"""The development certificate, and real handshakes over loopback."""

import datetime
import os
import socket
import stat
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase, TestCase

from livestate.errors import SettingsError
from livestate.tls.contexts import client_options, make_development_certificate, server_options
from tests.support import Authority, certificate_in, pem, until, written

reactor: Any = _reactor


class DevelopmentCertificateTests(SynchronousTestCase):
    """The certificate that is made where there is none."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_file(self):
        """It is readable by its owner alone, whatever the umask is, and its fingerprint is given as browsers show it."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        path = self.folder / "server.pem"
        fingerprint = make_development_certificate(path)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        certificate = certificate_in(path)
        self.assertEqual(fingerprint.replace(":", ""), certificate.fingerprint(hashes.SHA256()).hex().upper())
        self.assertRegex(fingerprint, r"\A([0-9A-F]{2}:){31}[0-9A-F]{2}\Z")

    def test_names(self):
        """It is for this machine's names and loopback addresses, for a year, and can sign no other certificate."""
        path = self.folder / "server.pem"
        make_development_certificate(path)
        certificate = certificate_in(path)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertIn("localhost", names.get_values_for_type(x509.DNSName))
        self.assertIn(socket.gethostname(), names.get_values_for_type(x509.DNSName))
        self.assertEqual([str(a) for a in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1", "::1"])
        self.assertFalse(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
        self.assertIn(left.days, (364, 365))

    def test_odd_host_names(self):
        """A machine's name that no certificate can hold is left out, and one is made all the same."""
        for name in ("", "x" * 64, "büro"):
            self.patch(socket, "gethostname", lambda name=name: name)
            make_development_certificate(self.folder / f"{len(name)}.pem")

    def test_never_overwrites(self):
        """A file that is there, be it a link to one that is not, is left alone."""
        path = self.folder / "server.pem"
        path.write_bytes(b"mine")
        text = str(self.assertRaises(SettingsError, make_development_certificate, path))
        self.assertIn("File exists", text)
        self.assertEqual(path.read_bytes(), b"mine")
        link = self.folder / "link.pem"
        link.symlink_to(self.folder / "elsewhere")
        self.assertRaises(SettingsError, make_development_certificate, link)
        self.assertFalse((self.folder / "elsewhere").exists())

    def test_no_folder(self):
        """Where it cannot be written there is one line that says why."""
        text = str(self.assertRaises(SettingsError, make_development_certificate, self.folder / "no" / "server.pem"))
        self.assertIn("No such file or directory", text)


class LoopbackTests(TestCase):
    """A real handshake over loopback."""

    timeout = 20

    async def connect(self, options, creator):
        """Connect to a server with `options`, and give what it says, or raise why the handshake failed."""
        greeter: Any = Factory.forProtocol(Greeter)
        port = reactor.listenSSL(0, greeter, options, interface="127.0.0.1")
        try:
            endpoint = wrapClientTLS(creator, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port))
            listener: Any = await endpoint.connect(Factory.forProtocol(Listener))
            said = await listener.done
            self.agreed = listener.agreed
        finally:
            await port.stopListening()
            await until(reactor, lambda: not greeter.open)
        if isinstance(said, bytes):
            return said
        raise said

    async def test_development_certificate(self):
        """One who trusts just the development certificate can connect by each of its names, and nobody else can."""
        path = Path(self.mktemp())
        make_development_certificate(path)
        options = server_options(str(path), str(path))
        root = trustRootFromCertificates([Certificate.loadPEM(path.read_bytes())])
        for name in ("localhost", "127.0.0.1", "::1", socket.gethostname()):
            self.assertEqual(await self.connect(options, optionsForClientTLS(name, root)), b"hello")
            self.assertEqual(await self.connect(options, client_options(name, str(path))), b"hello")
        for creator in (client_options("other.example", str(path)), client_options("localhost", None)):
            await self.assertFailure(Deferred.fromCoroutine(self.connect(options, creator)), Exception)

    async def test_protocol(self):
        """HTTP/1.1 is agreed on, also with a client that would rather speak HTTP/2."""
        path = Path(self.mktemp())
        make_development_certificate(path)
        creator: Any = optionsForClientTLS(
            "localhost",
            trustRootFromCertificates([Certificate.loadPEM(path.read_bytes())]),
            acceptableProtocols=[b"h2", b"http/1.1"],
        )
        await self.connect(server_options(str(path), str(path)), creator)
        self.assertEqual(self.agreed, b"http/1.1")

    async def test_chain_is_verified(self):
        """One who trusts only the root can connect to a server that sends the certificate in between."""
        folder = Path(self.mktemp())
        folder.mkdir()
        root = Authority("root")
        middle = Authority("middle", root)
        key, certificate = middle.issue("localhost")
        both = written(folder / "server.pem", pem(key, certificate, middle.certificate))
        alone = written(folder / "alone.pem", pem(key, certificate))
        trusted = written(folder / "root.pem", pem(root.certificate))
        creator = client_options("localhost", trusted)
        self.assertEqual(await self.connect(server_options(both, both), creator), b"hello")
        await self.assertFailure(Deferred.fromCoroutine(self.connect(server_options(alone, alone), creator)), SSL.Error)

    def test_wrong_roots(self):
        """A file of authorities that cannot be used is refused in one line."""
        self.assertIn("No such file", str(self.assertRaises(SettingsError, client_options, "h", "missing.pem")))
        garbage = written(Path(self.mktemp()), b"garbage")
        self.assertIn("no PEM certificate", str(self.assertRaises(SettingsError, client_options, "h", garbage)))


class Greeter(Protocol):
    """Says hello and closes."""

    def connectionMade(self):
        factory, transport = self.factory, self.transport
        assert factory is not None and transport is not None
        factory.__dict__.setdefault("open", set()).add(self)
        transport.write(b"hello")
        transport.loseConnection()

    def connectionLost(self, reason: Any = None):
        assert self.factory is not None
        self.factory.__dict__["open"].discard(self)


class Listener(Protocol):
    """Collects what is said, or why nothing was."""

    def __init__(self):
        self.done: Deferred[Any] = Deferred()
        self.said = b""
        self.agreed = None

    def dataReceived(self, data):
        transport: Any = self.transport
        self.agreed = transport.negotiatedProtocol
        self.said += data

    def connectionLost(self, reason: Any = None):
        self.done.callback(self.said or reason.value)
