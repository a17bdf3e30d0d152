"""A listener's certificate, which may be replaced while livestate runs.

Existing connections keep the certificate they began with; new ones get the one that was loaded last. A replacement that
cannot be used is rejected, and the current certificate stays.
"""

import os
from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from livestate.errors import SettingsError
from livestate.tls.contexts import ServerOptions, server_options

#: Modification time, size and inode of each file; None for one that is missing.
_Stamps = tuple[tuple[int, int, int] | None, ...]


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """The TLS settings of one listener (`options`) and the files they were loaded from."""

    log = Logger()

    def __init__(self, key_file: str, certificate_file: str, chain_file: str | None = None) -> None:
        """Load the files; see `livestate.tls.contexts.server_options`.

        :raises SettingsError: when they cannot be used.
        """
        # twistd changes its working directory; names are relative to where the user typed them.
        self._files = tuple(os.path.abspath(name) for name in (key_file, certificate_file, chain_file) if name)
        self._loaded = self._seen = self._stamps()
        self.options: ServerOptions = server_options(key_file, certificate_file, chain_file)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the TLS state for a new connection."""
        return self.options.serverConnectionForTLS(tlsProtocol)

    def settled(self) -> bool:
        """Return whether the files differ from those that were loaded, and have not changed since the previous call.

        A key and its certificate are replaced one after the other, and do not match in between.
        """
        previous, self._seen = self._seen, self._stamps()
        return previous == self._seen != self._loaded

    def reload(self) -> bool:
        """Load the files again if they have changed, and return whether there is a new certificate to serve.

        Files that cannot be used are logged, once.
        """
        stamps = self._stamps()
        if stamps == self._loaded:
            return False
        # Even if the files are rejected: then they are logged again only when they change again.
        self._loaded = stamps
        try:
            self.options = server_options(*self._files)
        except SettingsError as error:
            self.log.error("rejected the new certificate, keeping the current one: {error}", error=str(error))
            return False
        self.log.info("loaded the new certificate from {file}, serving it to new connections", file=self._files[1])
        return True

    def _stamps(self) -> _Stamps:
        return tuple(_stamp_of(name) for name in self._files)


def reload_all(certificates: Sequence[Certificate]) -> bool:
    """Reload each certificate that has changed, and return whether there is a new one to serve."""
    return sum(certificate.reload() for certificate in certificates) > 0


def _stamp_of(name: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
