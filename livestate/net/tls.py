"""
The listening port that makes direct TLS transports.

Theory of operation
===================

`listenSSL` wraps the application's factory in a `TLSMemoryBIOFactory`, as stock
Twisted does, and gives it to a `DirectTLSPort`.  The port takes two things from the
wrapper: the application's factory and the function that makes a TLS connection
from whatever kind of context factory the user gave.  So connection creators
that look at ``transport.factory.wrappedFactory`` (ALPN does) find what they expect,
and a wrapper that somebody made himself, for ``listenTCP`` or ``adoptStreamPort``,
serves as well.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import interfaces
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory

from livestate.net.deadlines import Deadlines
from livestate.net.port import DirectPort
from livestate.net.tls_transport import DirectTLSServer

__all__ = ["DirectTLSPort", "is_plain_tls_factory", "server_factory"]


def server_factory(context_factory: Any, factory: Any, reactor: Any) -> TLSMemoryBIOFactory:
    """
    Wrap `factory` as `listenSSL` does.  The wrapper tells a `DirectTLSPort`
    how to make TLS connections; its own protocols are not used.

    @param context_factory: an `IOpenSSLServerConnectionCreator`, or anything
        with ``getContext``.
    @raise TypeError: it is neither.
    """
    # The clock is given because the default would be the default reactor.
    return TLSMemoryBIOFactory(context_factory, False, factory, clock=reactor)


def is_plain_tls_factory(factory: object) -> bool:
    """
    Is this a `TLSMemoryBIOFactory` for the server's side of TLS that nobody
    changed, so that a `DirectTLSPort` can stand in for it?  In doubt it is not.
    """
    if type(factory) is not TLSMemoryBIOFactory or factory.protocol is not BufferingTLSTransport:
        return False
    # Which side it is for is known only to the function it made of its argument.
    make = factory._creatorCallable
    names = getattr(getattr(make, "__code__", None), "co_freevars", ())
    cells = getattr(make, "__closure__", None) or ()
    return any(name == "isClient" and cell.cell_contents is False for name, cell in zip(names, cells, strict=False))


class DirectTLSPort(DirectPort):
    """
    A port whose transports speak TLS on the socket itself.  Its factory is
    the `TLSMemoryBIOFactory` that `server_factory` makes.

    @cvar handshake_timeout: seconds until an unfinished handshake is reset.
    @cvar close_notify_timeout: seconds that a peer's answer to our close_notify is
        awaited where what was sent last may still be under way; Apache's
        lingering close takes as long.
    """

    transport = DirectTLSServer
    _type = "TLS"
    handshake_timeout: float = 30.0
    close_notify_timeout: float = 2.0

    def __init__(
        self,
        port: Any,
        factory: TLSMemoryBIOFactory,
        backlog: int = 50,
        interface: str = "",
        reactor: Any = None,
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        self.deadlines = Deadlines(self.reactor, DirectTLSServer.deadline_passed)

    def _build_protocol(self, address: interfaces.IAddress) -> interfaces.IProtocol | None:
        wrapped: interfaces.IProtocolFactory = self.factory.wrappedFactory  # type: ignore[union-attr]
        return wrapped.buildProtocol(address)
