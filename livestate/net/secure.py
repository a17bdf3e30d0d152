"""
What a TLS transport answers about itself.

Theory of operation
===================

Protocols ask for the certificate and the negotiated protocol; connection
creators and their callbacks, which were written for `TLSMemoryBIOProtocol`, ask for
``factory`` and ``wrappedProtocol`` and call ``failVerification``.  All of it is
answered from the `OpenSSL.SSL.Connection`, whose application data is the transport.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import interfaces
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from livestate.net.transport import DirectServer

__all__ = ["SecureTransport"]


@implementer(interfaces.INegotiated, interfaces.ISSLTransport, interfaces.ISystemHandle)
class SecureTransport(DirectServer):
    """
    The state of a direct TLS transport, and the interfaces that show it.

    @ivar _connection: the `OpenSSL.SSL.Connection`, None once lost.
    @ivar _established: the handshake is done.
    @ivar _verification: why the peer's certificate was not acceptable.
    """

    TLS = True
    # A read takes one record; whether there is another only one more would tell.
    edge_triggered = False
    server: Any

    _connection: Any = None
    _established = False
    _verification: Failure | None = None

    @property
    def factory(self) -> TLSMemoryBIOFactory:
        """The port's factory; its ``wrappedFactory`` made the protocol."""
        factory: TLSMemoryBIOFactory = self.server.factory
        return factory

    @property
    def wrappedProtocol(self) -> interfaces.IProtocol:
        """The protocol above TLS, as `TLSMemoryBIOProtocol` names it."""
        return self.protocol

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN chose (RFC 7301), or None."""
        if self._connection is None:
            return None
        chosen: bytes = self._connection.get_alpn_proto_negotiated()
        return chosen or None

    def getHandle(self) -> Any:
        """The `OpenSSL.SSL.Connection`; None once the connection is lost."""
        return self._connection

    def getPeerCertificate(self) -> Any:
        """The client's certificate, an `OpenSSL.crypto.X509`, or None."""
        return None if self._connection is None else self._connection.get_peer_certificate()

    def failVerification(self, reason: Failure) -> None:
        """Abort, because the peer's certificate is not acceptable: `reason`."""
        self._verification = reason
        self.abortConnection()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """
        Refuse: this connection is secure from its first byte.

        @raise RuntimeError: always.
        """
        raise RuntimeError("TLS is already on")
