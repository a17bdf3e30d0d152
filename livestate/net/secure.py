"""
What a TLS transport reports about itself.

Theory of operation
===================

Protocols ask for the certificate and the negotiated protocol.  Connection creators
and their callbacks were written for `TLSMemoryBIOProtocol`: they read ``factory``
and ``wrappedProtocol`` and call ``failVerification``.  The answers come from the
`OpenSSL.SSL.Connection`, whose application data is the transport.
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
    The state of a direct TLS transport, and the interfaces that expose it.

    @ivar _connection: the `OpenSSL.SSL.Connection`; None once the connection is lost.
    @ivar _established: whether the handshake is done.
    @ivar _verification_failure: why the peer's certificate was rejected.
    """

    TLS = True
    # A read returns one record, and only another read shows whether there are more.
    edge_triggered = False
    server: Any

    _connection: Any = None
    _established = False
    _verification_failure: Failure | None = None

    @property
    def factory(self) -> TLSMemoryBIOFactory:
        """The port's factory, whose ``wrappedFactory`` made the protocol."""
        factory: TLSMemoryBIOFactory = self.server.factory
        return factory

    @property
    def wrappedProtocol(self) -> interfaces.IProtocol:
        """The protocol on top of TLS, under the name it has in `TLSMemoryBIOProtocol`."""
        return self.protocol

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN chose (RFC 7301), or None."""
        if self._connection is None:
            return None
        chosen: bytes = self._connection.get_alpn_proto_negotiated()
        return chosen or None

    def getHandle(self) -> Any:
        """Return the `OpenSSL.SSL.Connection`, or None once the connection is lost."""
        return self._connection

    def getPeerCertificate(self) -> Any:
        """Return the client's certificate as `OpenSSL.crypto.X509`, or None."""
        return None if self._connection is None else self._connection.get_peer_certificate()

    def failVerification(self, reason: Failure) -> None:
        """Abort the connection: the peer's certificate was rejected for `reason`."""
        self._verification_failure = reason
        self.abortConnection()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """
        Refuse, because this connection is encrypted from its first byte.

        @raise RuntimeError: always.
        """
        raise RuntimeError("TLS is already on")
