"""Loading certificates, the handshake, and what is refused."""

import datetime
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError
from livestate.tls.contexts import server_options
from tests.support import Authority, certificate_in, log_lines, pem, unsupported, written

reactor: Any = _reactor


def client_context(minimum=None, maximum=None):
    """Return a context for a client that verifies nothing, because these tests are about the server."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if minimum is not None:
        context.set_min_proto_version(minimum)
    if maximum is not None:
        context.set_max_proto_version(maximum)
    return context


def handshake(server_context, context, session=None):
    """Do a handshake in memory, send data from the server (tickets come with it), and return the client's side."""
    server, client = SSL.Connection(server_context, None), SSL.Connection(context, None)
    server.set_accept_state()
    client.set_connect_state()
    if session is not None:
        client.set_session(session)
    done: set[SSL.Connection] = set()
    while len(done) < 2:
        transferred = False
        for side, other in ((client, server), (server, client)):
            try:
                side.do_handshake()
                done.add(side)
            except SSL.WantReadError:
                pass
            transferred |= pump(side, other)
        if not transferred and len(done) < 2:
            raise AssertionError("the handshake is stuck")
    server.send(b"hello")
    pump(server, client)
    assert client.recv(100) == b"hello"
    return client


def resumed(connection: Any) -> bool:
    """Return whether a connection avoided the full handshake. pyOpenSSL has no public name for this."""
    return bool(SSL._lib.SSL_session_reused(connection._ssl))  # type: ignore[attr-defined]


def pump(one, other):
    """Transfer the pending output of one side to the other, and return whether there was any."""
    try:
        other.bio_write(one.bio_read(100_000))
    except SSL.WantReadError:
        return False
    return True


class FilesCase(SynchronousTestCase):
    """A test with a directory for certificates."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def file(self, name, *things, data=None, mode=0o600):
        return written(self.folder / name, pem(*things) if data is None else data, mode)


class ServerOptionsTests(FilesCase):
    """The settings of a server."""

    def setUp(self):
        super().setUp()
        self.root = Authority("root")
        self.middle = Authority("middle", self.root)
        self.key, self.certificate = self.middle.issue("localhost")
        self.key_file = self.file("key.pem", self.key)

    def sent(self, options):
        """Return the certificates that a client receives."""
        client = handshake(options.getContext(), client_context())
        return [certificate.to_cryptography() for certificate in client.get_peer_cert_chain() or []]

    def test_chain_in_certificate_file(self):
        """All certificates in a fullchain file are sent, the server's own first."""
        full = self.file("full.pem", self.certificate, self.middle.certificate)
        self.assertEqual(self.sent(server_options(self.key_file, full)), [self.certificate, self.middle.certificate])

    def test_chain_in_a_separate_file(self):
        """The certificates in the chain file are sent after those in the certificate file."""
        own = self.file("own.pem", self.certificate)
        extra = self.file("extra.pem", self.middle.certificate, self.root.certificate)
        self.assertEqual(
            self.sent(server_options(self.key_file, own, extra)),
            [self.certificate, self.middle.certificate, self.root.certificate],
        )
        self.assertEqual(self.sent(server_options(self.key_file, own)), [self.certificate])

    def test_one_file_for_all(self):
        """One file may hold the key and the chain, in any order."""
        for name, things in (
            ("a.pem", (self.key, self.certificate, self.middle.certificate)),
            ("b.pem", (self.certificate, self.middle.certificate, self.key)),
        ):
            both = self.file(name, *things)
            self.assertEqual(self.sent(server_options(both, both)), [self.certificate, self.middle.certificate])

    def test_kinds_of_keys(self):
        """ECDSA, RSA and Ed25519 keys work."""
        for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048), ed25519_key()):
            both = self.file("kind.pem", key, self_signed(key))
            self.assertEqual(self.sent(server_options(both, both)), [certificate_in(both)])

    def test_old_versions_refused(self):
        """TLS 1.2 and 1.3 connect; older versions do not, even if OpenSSL would allow them."""
        own = self.file("own.pem", self.certificate)
        context = server_options(self.key_file, own).getContext()
        # At its default security level, OpenSSL 3 itself refuses them, whatever livestate sets.
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        lax = SSL.Context(SSL.TLS_METHOD)
        lax.set_cipher_list(b"ALL:@SECLEVEL=0")
        lax.set_min_proto_version(SSL.TLS1_VERSION)
        lax.use_privatekey_file(self.key_file)
        lax.use_certificate_file(own)
        old = handshake(lax, client_context(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION))
        self.assertEqual(old.get_protocol_version_name(), "TLSv1.1")
        for maximum in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            self.assertRaises(SSL.Error, handshake, context, client_context(SSL.TLS1_VERSION, maximum))
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            client = handshake(context, client_context(version, version))
            self.assertEqual(client.get_protocol_version_name(), name)

    def test_resumption(self):
        """A client that comes back with a ticket avoids the full handshake, in TLS 1.2 and 1.3."""
        own = self.file("own.pem", self.certificate)
        context = server_options(self.key_file, own).getContext()
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = client_context(version, version)
            first = handshake(context, client)
            self.assertFalse(resumed(first))
            second = handshake(context, client, first.get_session())
            self.assertTrue(resumed(second), version)

    def refusal(self, *files):
        text = str(self.assertRaises(SettingsError, server_options, *files))
        self.assertEqual(len(text.splitlines()), 1)
        return text

    def test_mismatch(self):
        """A key that does not match the certificate is refused, and the message names both files."""
        own, other = self.file("own.pem", self.certificate), self.file("other.pem", self.root.key)
        text = self.refusal(other, own)
        self.assertIn("does not match", text)
        self.assertIn(own, text)
        self.assertIn(other, text)

    def test_files_that_cannot_be_used(self):
        """A file that is missing, a directory, encrypted, empty or garbage is named, with what is wrong with it."""
        own = self.file("own.pem", self.certificate)
        garbage = self.file("garbage.pem", data=bytes(range(256)))
        broken = self.file("broken.pem", data=pem(self.key)[:-60])
        half = self.file("half.pem", data=pem(self.certificate)[:-60])
        encrypted = self.file("encrypted.pem", data=pem(self.key, password=b"hush"))
        empty, missing, folder = self.file("empty.pem", data=b""), str(self.folder / "missing"), str(self.folder)
        for files, named, expected in (
            ((missing, own), missing, "No such file"),
            ((self.key_file, missing), missing, "No such file"),
            ((self.key_file, own, missing), missing, "No such file"),
            ((folder, own), folder, "directory"),
            ((encrypted, own), encrypted, "encrypted; use one without a passphrase"),
            ((garbage, own), garbage, "no PEM private key"),
            ((broken, own), broken, "no PEM private key"),
            ((own, own), own, "no PEM private key"),
            ((empty, own), empty, "no PEM private key"),
            ((self.key_file, garbage), garbage, "no PEM certificate"),
            ((self.key_file, half), half, "no PEM certificate"),
            ((self.key_file, self.key_file), self.key_file, "no PEM certificate"),
            ((self.key_file, empty), empty, "no PEM certificate"),
            ((self.key_file, own, garbage), garbage, "no PEM certificate"),
        ):
            text = self.refusal(*files)
            self.assertIn(expected, text)
            self.assertIn(named, text)

    def test_unreadable(self):
        """For a key that may not be read, the message says so."""
        own = self.file("own.pem", self.certificate)

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        self.patch(Path, "read_bytes", refuse)
        self.assertIn("Permission denied", self.refusal(self.key_file, own))

    def test_keys_that_cannot_be_used(self):
        """A key of a type that no server can use is refused with one line."""
        for key, signer in (
            (dsa.generate_private_key(1024), self.root.key),
            (x25519.X25519PrivateKey.generate(), self.root.key),
        ):
            both = self.file("odd.pem", key, self_signed(key, signer))
            self.refusal(both, both)
        own = self.file("own.pem", self.certificate)
        key_file = self.file("odd.pem", data=unsupported(pem(self.key)))
        self.assertIn("unsupported kind", self.refusal(key_file, own))

    def test_warnings(self):
        """A certificate outside its validity period is used, with one warning."""
        for days, expected in (((-9, -2), "expired on"), ((2, 9), "not valid before")):
            key = ec.generate_private_key(ec.SECP256R1())
            both = self.file("dated.pem", key, self_signed(key, days=days))
            with log_lines(LogLevel.warn) as lines:
                server_options(both, both)
            self.assertEqual(len(lines), 1)
            self.assertIn(expected, lines[0])

    def test_modes(self):
        """There is a warning for a key that others can access; a group may read a key that root owns."""
        own = self.file("own.pem", self.certificate, mode=0o644)
        for owner, mode, hint in (
            (0, 0o600, None), (1000, 0o600, None), (1000, 0o400, None), (0, 0o640, None), (0, 0o440, None),
            (1000, 0o640, "make root its owner"), (1000, 0o660, "make root its owner"),
            (0, 0o660, "make root its owner"),
            (0, 0o644, "chmod 600"), (1000, 0o604, "chmod 600"), (0, 0o642, "chmod 600"), (0, 0o777, "chmod 600"),
        ):  # fmt: skip
            status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
            with log_lines(LogLevel.warn) as lines, patch.object(os, "stat", return_value=status):
                server_options(self.key_file, own)
            self.assertEqual(len(lines), 0 if hint is None else 1, (owner, oct(mode)))
            self.assertIn(hint or "", "".join(lines))

    def test_key_is_never_logged(self):
        """No part of a private key appears in log lines or errors, whether it is loaded, refused or warned about."""
        own = self.file("own.pem", self.certificate)
        other = self.file("other.pem", self.root.key)
        half = self.file("half.pem", data=pem(self.key)[:-60], mode=0o666)
        secrets = [line for file in (self.key_file, other) for line in Path(file).read_text().splitlines()[1:-1]]
        os.chmod(self.key_file, 0o666)
        with log_lines(LogLevel.debug) as lines:
            server_options(self.key_file, own)
            lines += [self.refusal(other, own), self.refusal(half, own), self.refusal(self.key_file, self.key_file)]
        self.assertIn(self.key_file, "".join(lines))
        for secret in secrets:
            self.assertNotIn(secret, "\n".join(lines))


def ed25519_key():
    return ed25519.Ed25519PrivateKey.generate()


def self_signed(key, signer=None, days=(-1, 1)):
    """Return a certificate for a key, signed by that key or by `signer`."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=day) for day in days)
    signer = signer or key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateBuilder(name, name, key.public_key(), 1, first, last).sign(signer, algorithm)
