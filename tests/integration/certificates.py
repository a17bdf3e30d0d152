"""A certification authority for tests, and the certificates that it signs."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_DAY = datetime.timedelta(days=1)
_PLAIN = serialization.NoEncryption()


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    """Give `key` as PEM, encrypted where there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else _PLAIN
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


class Authority:
    """Signs certificates; its files are in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.pem"
        signed = self._builder(self._name, self._key, ca=True)
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str = "server", *, days: int = 30, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None
    ) -> tuple[Path, Path]:
        """Sign a certificate for localhost, 127.0.0.1 and ::1; give the files of its key and of itself.

        :param key: None: a new ECDSA key.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        signed = self._builder(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key, ca=False, days=days
        )
        key_file, certificate_file = self._folder / f"{name}-key.pem", self._folder / f"{name}-certificate.pem"
        key_file.write_bytes(private_pem(key))
        key_file.chmod(0o600)
        certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return key_file, certificate_file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, ca: bool, days: int = 30
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        return (
            x509.CertificateBuilder(
                self._name, subject, key.public_key(), x509.random_serial_number(), now - _DAY, now + days * _DAY
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
