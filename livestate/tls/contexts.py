"""TLS settings: the server's certificate and options, and whom a client trusts.

Protocol versions, ciphers and curves are Twisted's defaults, limited to TLS 1.2 and later. Session tickets are on
(Twisted leaves them off), so that a client that comes back avoids the full handshake.
"""

import datetime
import os
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
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

#: TLS 1.3 suites in the server's order of preference. OpenSSL's own order puts AES-256 first. Its key schedule hashes
#: with SHA-384, which costs 7 % of the CPU time of a full handshake on processors that have instructions for SHA-256.
#: RFC 8446 section 9.1 makes the first suite mandatory.
CIPHERSUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"


@implementer(IOpenSSLServerConnectionCreator)
class ServerOptions(CertificateOptions):
    """Twisted's server-side settings with session tickets on.

    It makes the connections itself, because Twisted would set up protocol negotiation (ALPN) again on each connection,
    which costs 4 % of the CPU time of a handshake.
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
    def from_pem(cls, pem: bytes) -> "ServerOptions":
        """Create the same settings in another process, from the result of `pem`.

        The keys for session tickets are created with the context and copied when a process forks. So only processes
        that are forked after this call accept each other's tickets.
        """
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem)
        chain = x509.load_pem_x509_certificates(pem)
        return cls(key, [crypto.X509.from_cryptography(certificate) for certificate in chain])

    def pem(self) -> bytes:
        """Return the private key and the certificates as PEM."""
        certificates = [crypto.dump_certificate(crypto.FILETYPE_PEM, certificate) for certificate in self._chain]
        return b"".join([crypto.dump_privatekey(crypto.FILETYPE_PEM, self._key), *certificates])

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the TLS state for a new connection."""
        return SSL.Connection(self.getContext(), None)


def server_options(key_file: str, certificate_file: str, chain_file: str | None = None) -> ServerOptions:
    """Load a private key and a certificate with its chain, all in PEM.

    :param certificate_file: the server's certificate first; any others in it are sent too (a "fullchain" file).
    :param chain_file: more intermediate certificates to send.
    :raises SettingsError: when a file is missing, unreadable or of the wrong kind, or when key and certificate do not
        match.
    """
    chain = _load_certificates(certificate_file)
    if chain_file is not None:
        chain += _load_certificates(chain_file)
    key = _load_key(key_file)
    if _public_bytes(key, key_file) != _public_bytes(chain[0], certificate_file):
        raise SettingsError(f"the private key {key_file} does not match the certificate {certificate_file}")
    try:
        options = ServerOptions(
            crypto.PKey.from_cryptography_key(cast(ec.EllipticCurvePrivateKey, key)),
            [crypto.X509.from_cryptography(certificate) for certificate in chain],
        )
    except (SSL.Error, TypeError) as error:
        raise SettingsError(
            f"OpenSSL cannot use {certificate_file} with {key_file}: {_openssl_reason(error)}"
        ) from None
    # Last, as a certificate that is rejected is tried again every few seconds.
    _warn_about_dates(chain[0], certificate_file)
    _warn_about_mode(key_file)
    return options


def client_options(host: str, cafile: str | None) -> IOpenSSLClientConnectionCreator:
    """Return client settings that verify a server's certificate against its name and trusted authorities.

    :param cafile: a PEM file of the authorities to trust; None for the system's.
    :raises SettingsError: when the file cannot be used.
    """
    if cafile is None:
        return optionsForClientTLS(host)
    roots = [Certificate(crypto.X509.from_cryptography(root)) for root in _load_certificates(cafile)]
    return optionsForClientTLS(host, trustRootFromCertificates(roots))


def describe_connection_error(error: BaseException) -> str:
    """Return one line that says why a connection failed, with or without TLS."""
    if isinstance(error, VerificationError):
        return "TLS failed: the certificate is for a different name"
    if isinstance(error, SSL.Error):
        return "TLS failed: " + _openssl_reason(error)
    if isinstance(error, ConnectError) and isinstance(error.osError, int) and error.osError > 0:
        # Twisted's own text is "Connection was refused by other side: 111: Connection refused."
        return os.strerror(error.osError).lower()
    return str(error).rstrip(".").removeprefix("An error occurred while connecting: ") or type(error).__name__


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None


def _load_certificates(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise SettingsError(f"no PEM certificate in {path}") from None


def _load_key(path: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise SettingsError(f"the private key in {path} is encrypted; use one without a passphrase") from None
    except ValueError:
        raise SettingsError(f"no PEM private key in {path}") from None
    except UnsupportedAlgorithm as error:
        raise SettingsError(f"the private key in {path} is of an unsupported kind: {error}") from None


def _public_bytes(holder: PrivateKeyTypes | x509.Certificate, path: str) -> bytes:
    try:
        key = holder.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise SettingsError(f"the key of the certificate in {path} cannot be used: {error}") from None
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _openssl_reason(error: Exception) -> str:
    """Return the reasons in an error of pyOpenSSL, which has them as a list of tuples."""
    if not isinstance(error, SSL.Error):
        return str(error)
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or "no reason given"


def _warn_about_dates(certificate: x509.Certificate, path: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    if now > certificate.not_valid_after_utc:
        log.warn("the certificate in {path} expired on {date}", path=path, date=certificate.not_valid_after_utc.date())
    elif now < certificate.not_valid_before_utc:
        log.warn("the certificate in {path} is not valid before {date}",
                 path=path, date=certificate.not_valid_before_utc.date())  # fmt: skip


def _warn_about_mode(path: str) -> None:
    """Warn if anyone but the key's owner has access to it.

    The rule is PostgreSQL's (its manual, "Secure TCP/IP Connections with SSL"): a group may read a file that root owns,
    as with Debian's group `ssl-cert`; only the owner may read any other file.
    """
    try:
        status = os.stat(path)
    except OSError:  # it is being replaced, and is checked again once the new one has settled
        return
    if status.st_mode & 0o007:
        who, hint = "every user on this machine", "run chmod 600 on it"
    elif status.st_mode & (0o030 if status.st_uid == 0 else 0o070):
        who, hint = "a group", "run chmod 600 on it, or make root its owner and run chmod 640"
    else:
        return
    log.warn("the private key {path} is accessible to {who}; {hint}", path=path, who=who, hint=hint)
