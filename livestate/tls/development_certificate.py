"""The self-signed certificate that livestate creates for development."""

import datetime
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from livestate.errors import SettingsError

#: The file in the working directory that Twisted's `ssl:` uses when no file is named.
DEVELOPMENT_FILE = "server.pem"

_DAY = datetime.timedelta(days=1)


def make_development_certificate(path: Path) -> str:
    """Write a self-signed ECDSA P-256 certificate for this machine's names, and its key, readable only by the owner.

    :returns: the certificate's SHA-256 fingerprint, in the form that browsers show.
    :raises SettingsError: when the file cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "livestate development")])
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in sorted({"localhost", *_host_names()})]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - _DAY, now + 365 * _DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Not a CA, so that importing it as trusted means to trust this one certificate and no others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    try:
        # O_EXCL: never overwrite an existing file.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise SettingsError(f"cannot write a development certificate to {path}: {error.strerror}") from None
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _host_names() -> set[str]:
    """Return this machine's own name if a certificate can hold it."""
    name = socket.gethostname()
    return {name} if name.isascii() and 0 < len(name) < 64 else set()
