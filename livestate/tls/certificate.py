"""A listener's certificate, which may be replaced while livestate runs.

Connections that are there keep what they began with; new ones get what was loaded last. What cannot be used is refused,
and the one before stays.
"""

import os
from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from livestate.errors import SettingsError
from livestate.tls.contexts import ServerOptions, server_options

_Stamp = tuple[tuple[int, int, int] | None, ...]


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """The TLS settings of one listener, `options`, and the files they came from."""

    log = Logger()

    def __init__(self, key_file: str, certificate_file: str, chain_file: str | None = None) -> None:
        """Load them: see `livestate.tls.contexts.server_options`.

        :raises SettingsError: they cannot be used.
        """
        # twistd changes its folder; names are meant as the user typed them.
        self._files = tuple(os.path.abspath(name) for name in (key_file, certificate_file, chain_file) if name)
        self._loaded = self._seen = self._stamp()
        self.options: ServerOptions = server_options(key_file, certificate_file, chain_file)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Give a new connection's TLS state."""
        return self.options.serverConnectionForTLS(tlsProtocol)

    def settled(self) -> bool:
        """Tell whether the files are others than those that were read, and have been since the last look.

        A key and its certificate are replaced one after the other: in between they do not belong together.
        """
        before, self._seen = self._seen, self._stamp()
        return before == self._seen != self._loaded

    def reload(self) -> bool:
        """Load the files anew, if they have changed; tells whether there is something new to serve.

        What cannot be used is logged, once.
        """
        stamp = self._stamp()
        if stamp == self._loaded:
            return False
        # Also if they are refused: until they change again there is nothing new to be said.
        self._loaded = stamp
        try:
            self.options = server_options(*self._files)
        except SettingsError as error:
            self.log.error("the new certificate is refused, and the one before stays: {error}", error=str(error))
            return False
        self.log.info("the new certificate in {file} is served from now on", file=self._files[1])
        return True

    def _stamp(self) -> _Stamp:
        return tuple(_stamp_of(name) for name in self._files)


def reload_all(certificates: Sequence[Certificate]) -> bool:
    """Load anew what has changed; tells whether anything new is to be served."""
    return sum(certificate.reload() for certificate in certificates) > 0


def _stamp_of(name: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
