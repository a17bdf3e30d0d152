"""The development certificate, and handshakes on real loopback connections."""

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
from livestate.tls.contexts import client_options, server_options
from livestate.tls.development_certificate import make_development_certificate
from tests.support import Authority, certificate_in, pem, until, written

reactor: Any = _reactor


class DevelopmentCertificateTests(SynchronousTestCase):
    """Creating the development certificate."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_file(self):
        """Only the owner can read it, whatever the umask, and its fingerprint has the form that browsers show."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        path = self.folder / "server.pem"
        fingerprint = make_development_certificate(path)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        certificate = certificate_in(path)
        self.assertEqual(fingerprint.replace(":", ""), certificate.fingerprint(hashes.SHA256()).hex().upper())
        self.assertRegex(fingerprint, r"\A([0-9A-F]{2}:){31}[0-9A-F]{2}\Z")

    def test_names(self):
        """It is valid for a year, for this machine's names and loopback addresses, and cannot sign others."""
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
        """A host name that no certificate can hold is left out, and the certificate is created anyway."""
        for name in ("", "x" * 64, "büro"):
            self.patch(socket, "gethostname", lambda name=name: name)
            make_development_certificate(self.folder / f"{len(name)}.pem")

    def test_never_overwrites(self):
        """An existing file is never overwritten, nor is a dangling link."""
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
        """If it cannot be written, the message says why."""
        text = str(self.assertRaises(SettingsError, make_development_certificate, self.folder / "no" / "server.pem"))
        self.assertIn("No such file or directory", text)


class LoopbackTests(TestCase):
    """Handshakes on real loopback connections."""

    timeout = 20

    async def connect(self, options, creator):
        """Connect to a server with `options`; return what it sends, or raise why the handshake failed."""
        greeter: Any = Factory.forProtocol(Greeter)
        port = reactor.listenSSL(0, greeter, options, interface="127.0.0.1")
        try:
            endpoint = wrapClientTLS(creator, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port))
            listener: Any = await endpoint.connect(Factory.forProtocol(Listener))
            result = await listener.done
            self.negotiated = listener.negotiated
        finally:
            await port.stopListening()
            await until(reactor, lambda: not greeter.open)
        if isinstance(result, bytes):
            return result
        raise result

    async def test_development_certificate(self):
        """A client that trusts the development certificate can connect by each of its names; no other client can."""
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
        """HTTP/1.1 is negotiated, even with a client that prefers HTTP/2."""
        path = Path(self.mktemp())
        make_development_certificate(path)
        creator: Any = optionsForClientTLS(
            "localhost",
            trustRootFromCertificates([Certificate.loadPEM(path.read_bytes())]),
            acceptableProtocols=[b"h2", b"http/1.1"],
        )
        await self.connect(server_options(str(path), str(path)), creator)
        self.assertEqual(self.negotiated, b"http/1.1")

    async def test_chain_is_verified(self):
        """A client that trusts only the root can connect to a server that sends the intermediate certificate."""
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
        """A file of authorities that cannot be used is refused, and the message says why."""
        self.assertIn("No such file", str(self.assertRaises(SettingsError, client_options, "h", "missing.pem")))
        garbage = written(Path(self.mktemp()), b"garbage")
        self.assertIn("no PEM certificate", str(self.assertRaises(SettingsError, client_options, "h", garbage)))


class Greeter(Protocol):
    """A server protocol that sends hello and closes."""

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
    """A client protocol whose `done` fires with the received bytes, or with the reason why there were none."""

    def __init__(self):
        self.done: Deferred[Any] = Deferred()
        self.received = b""
        self.negotiated = None

    def dataReceived(self, data):
        transport: Any = self.transport
        self.negotiated = transport.negotiatedProtocol
        self.received += data

    def connectionLost(self, reason: Any = None):
        self.done.callback(self.received or reason.value)
