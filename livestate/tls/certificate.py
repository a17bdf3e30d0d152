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

#: What of each file's status shows that it has changed; None for one that is missing. The time of modification is not
#: enough: permissions may have been repaired (chmod, chown), or a file overwritten and its time restored.
_Stamps = tuple[tuple[int, ...] | None, ...]


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
        #: Why the files were rejected when they were last loaded; "" if they were not.
        self._rejected = ""
        self.options: ServerOptions = server_options(key_file, certificate_file, chain_file)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the TLS state for a new connection."""
        return self.options.serverConnectionForTLS(tlsProtocol)

    def settled(self) -> bool:
        """Return whether to load the files again: whether they differ from those that were loaded, or were rejected.

        They must not have changed since the previous call. A key and its certificate are replaced one after the other,
        and do not match in between.
        """
        previous, self._seen = self._seen, self._stamps()
        return previous == self._seen and self._is_outdated(self._seen)

    def _is_outdated(self, stamps: _Stamps) -> bool:
        # Rejected files are tried again even if they look unchanged: what made them unreadable may be elsewhere, such
        # as a policy of SELinux or this process's groups.
        return stamps != self._loaded or bool(self._rejected)

    def reload(self) -> bool:
        """Load the files again if they changed or were rejected; return whether there is a new certificate to serve.

        Files that cannot be used are logged once for each reason.
        """
        stamps = self._stamps()
        if not self._is_outdated(stamps):
            return False
        self._loaded = stamps
        try:
            options = server_options(*self._files)
        except Exception as error:  # whatever the libraries raise for a strange file, the current certificate stays
            self._reject(str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}")
            return False
        rejected, self._rejected = self._rejected, ""
        if options.pem() == self.options.pem():
            # Touched, linked or restored. Workers would be replaced for nothing.
            if rejected:
                self.log.info("the certificate in {file} is the one that is served", file=self._files[1])
            return False
        self.options = options
        self.log.info("loaded the new certificate from {file}, serving it to new connections", file=self._files[1])
        return True

    def _reject(self, reason: str) -> None:
        if reason != self._rejected:
            self._rejected = reason
            self.log.error("rejected the new certificate, keeping the current one: {error}", error=reason)

    def _stamps(self) -> _Stamps:
        return tuple(_stamp_of(name) for name in self._files)


def reload_all(certificates: Sequence[Certificate]) -> bool:
    """Reload each certificate that has changed, and return whether there is a new one to serve."""
    return sum(certificate.reload() for certificate in certificates) > 0


def _stamp_of(name: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev
