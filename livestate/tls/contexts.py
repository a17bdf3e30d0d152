"""TLS: the server's certificate and settings, the development certificate, and trust as a client.

The protocol versions, ciphers and curves are Twisted's defaults, raised to TLS 1.2 and later; session tickets are
switched on (Twisted leaves them off), so that a reader who comes back is spared the full handshake.
"""

import datetime
import ipaddress
import os
import socket
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from zope.interface import implementer

from livestate.errors import SettingsError

log = Logger()

#: The name of the file that Twisted's `ssl:` looks for where none is named, in the folder of invocation.
DEVELOPMENT_FILE = "server.pem"

#: TLS 1.3 suites in the server's order. OpenSSL's own puts AES-256 first, whose key schedule hashes with SHA-384: 7 %
#: of the CPU of a full handshake, where SHA-256 has instructions of its own. RFC 8446 section 9.1 makes the first one
#: mandatory.
CIPHERSUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

_DAY = datetime.timedelta(days=1)


@implementer(IOpenSSLServerConnectionCreator)
class ServerOptions(CertificateOptions):
    """Twisted's server-side settings with session tickets on.

    It makes the connections itself: Twisted would negotiate the protocol (ALPN) anew on each, 4 % of a handshake's CPU.
    """

    def __init__(self, key: crypto.PKey, chain: list[crypto.X509]) -> None:
        super().__init__(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableProtocols=[b"http/1.1"],
            enableSessions=True,
            enableSessionTickets=True,
        )
        self.getContext().set_tls13_ciphersuites(CIPHERSUITES)
        self._key, self._chain = key, chain

    @classmethod
    def of_pem(cls, pem: bytes) -> "ServerOptions":
        """Make the same settings anew, in another process, of what `pem` gave there.

        The session tickets' keys are made with the context, and are copied when a process forks: only processes that
        were forked after this take each other's tickets.
        """
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem)
        chain = x509.load_pem_x509_certificates(pem)
        return cls(key, [crypto.X509.from_cryptography(certificate) for certificate in chain])

    def pem(self) -> bytes:
        """Give the private key and the certificates as PEM."""
        certificates = [crypto.dump_certificate(crypto.FILETYPE_PEM, certificate) for certificate in self._chain]
        return b"".join([crypto.dump_privatekey(crypto.FILETYPE_PEM, self._key), *certificates])

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Give a new connection's TLS state."""
        return SSL.Connection(self.getContext(), None)


def server_options(key_file: str, certificate_file: str, chain_file: str | None = None) -> ServerOptions:
    """Load a private key and a certificate with its chain, all PEM.

    :param certificate_file: the server's certificate first; others in it are sent along (a "fullchain" file).
    :param chain_file: more intermediate certificates to send.
    :raises SettingsError: a file is missing, unreadable or not what it should be, or key and certificate do not
        belong together.
    """
    chain = _load_certificates(certificate_file)
    if chain_file is not None:
        chain += _load_certificates(chain_file)
    key = _load_key(key_file)
    if _public_bytes(key) != _public_bytes(chain[0]):
        raise SettingsError(f"the private key {key_file} does not belong to the certificate {certificate_file}")
    _warn_of_dates(chain[0], certificate_file)
    _warn_of_mode(key_file)
    try:
        options = ServerOptions(
            crypto.PKey.from_cryptography_key(cast(ec.EllipticCurvePrivateKey, key)),
            [crypto.X509.from_cryptography(certificate) for certificate in chain],
        )
    except (SSL.Error, TypeError) as error:
        raise SettingsError(f"OpenSSL cannot use {certificate_file} with {key_file}: {error}") from None
    return options


def make_development_certificate(path: Path) -> str:
    """Write a self-signed ECDSA P-256 certificate for this machine's names and its key, readable by the owner alone.

    :returns: the certificate's SHA-256 fingerprint, as browsers show it.
    :raises SettingsError: the file cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "livestate development")])
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in sorted({"localhost", *_host_names()})]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - _DAY, now + 365 * _DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Not a CA: one who imports it as trusted trusts this one certificate, and cannot be fooled with others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    try:
        # O_EXCL: never over a file that is there.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise SettingsError(f"cannot write a development certificate to {path}: {error.strerror}") from None
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def client_options(host: str, cafile: str | None) -> IOpenSSLClientConnectionCreator:
    """Give what verifies a server's certificate against its name and a trust root.

    :param cafile: a PEM file of the authorities to trust; None: the system's.
    :raises SettingsError: the file cannot be used.
    """
    if cafile is None:
        return optionsForClientTLS(host)
    roots = [Certificate(crypto.X509.from_cryptography(root)) for root in _load_certificates(cafile)]
    return optionsForClientTLS(host, trustRootFromCertificates(roots))


def tls_trouble(error: BaseException) -> str:
    """Say in one line why a connection failed, of TLS or not."""
    if isinstance(error, VerificationError):
        return "TLS failed: the certificate is for another name"
    if isinstance(error, SSL.Error):
        entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return "TLS failed: " + ("; ".join(str(entry[-1]) for entry in entries) or "no reason given")
    if isinstance(error, ConnectError) and isinstance(error.osError, int) and error.osError > 0:
        # Twisted says "Connection was refused by other side: 111: Connection refused."
        return os.strerror(error.osError).lower()
    return str(error).rstrip(".").removeprefix("An error occurred while connecting: ") or type(error).__name__


def _host_names() -> set[str]:
    """Give this machine's own name, where a certificate can hold it."""
    name = socket.gethostname()
    return {name} if name.isascii() and 0 < len(name) < 64 else set()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None


def _load_certificates(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise SettingsError(f"there is no PEM certificate in {path}") from None


def _load_key(path: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise SettingsError(f"the private key in {path} is encrypted; give one without a passphrase") from None
    except ValueError:
        raise SettingsError(f"there is no PEM private key in {path}") from None


def _public_bytes(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _warn_of_dates(certificate: x509.Certificate, path: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    if now > certificate.not_valid_after_utc:
        log.warn("the certificate in {path} expired on {date}", path=path, date=certificate.not_valid_after_utc.date())
    elif now < certificate.not_valid_before_utc:
        log.warn("the certificate in {path} is not valid before {date}",
                 path=path, date=certificate.not_valid_before_utc.date())  # fmt: skip


def _warn_of_mode(path: str) -> None:
    """Warn where others than the key's owner may use it.

    The rule is PostgreSQL's (its manual, "Secure TCP/IP Connections with SSL"): a file of root's may be read by a
    group, as Debian has it with `ssl-cert`, and any other by its owner alone.
    """
    try:
        status = os.stat(path)
    except OSError:  # replaced just now; it is read again when the new one has settled
        return
    if status.st_mode & 0o007:
        who, hint = "everyone on this machine", "chmod 600 it"
    elif status.st_mode & (0o030 if status.st_uid == 0 else 0o070):
        who, hint = "a group", "chmod 600 it, or have root own it and chmod 640"
    else:
        return
    log.warn("the private key {path} is open to {who}: {hint}", path=path, who=who, hint=hint)
