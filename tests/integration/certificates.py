"""Certificates in files, as livestate and other servers read them."""

from pathlib import Path
from typing import Any

from tests import support
from tests.support import pem, written


class Authority:
    """A certificate authority that writes its certificate, and those that it signs, into `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._authority = support.Authority(name)
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(pem(self._authority.certificate))

    def issue(self, name: str = "server", *, days: int = 30, key: Any = None) -> tuple[Path, Path]:
        """Sign a certificate for localhost, 127.0.0.1 and ::1. Return the files of its key and of the certificate.

        :param name: the certificate's common name, with which the names of its files begin.
        :param key: the private key; without one a new one, ECDSA.
        """
        names = "localhost", "127.0.0.1", "::1"
        key, certificate = self._authority.issue(*names, key=key, days=days, subject=name)
        key_file, certificate_file = self._folder / f"{name}-key.pem", self._folder / f"{name}-certificate.pem"
        written(key_file, pem(key))
        written(certificate_file, pem(certificate), 0o644)
        return key_file, certificate_file
