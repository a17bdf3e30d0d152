"""
The listening port that makes direct TLS transports.

Theory of operation
===================

`listenSSL` wraps the application's factory in a `TLSMemoryBIOFactory`, as stock
Twisted does, and passes it to a `DirectTLSPort`.  The port uses two things from the
wrapper: the application's factory, and the function that makes a TLS connection from
any kind of context factory.  So connection creators that read
``transport.factory.wrappedFactory`` (as ALPN does) find what they expect, and a
wrapper that an application passes to ``listenTCP`` or ``adoptStreamPort`` itself
works too.
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
    Wrap `factory` as `listenSSL` does.  A `DirectTLSPort` uses the wrapper to make
    TLS connections, but does not use its protocols.

    @param context_factory: an `IOpenSSLServerConnectionCreator`, or anything
        with ``getContext``.
    @raise TypeError: when it is neither.
    """
    # Without a clock, it would import the default reactor.
    return TLSMemoryBIOFactory(context_factory, False, factory, clock=reactor)


def is_plain_tls_factory(factory: object) -> bool:
    """
    Return whether a `DirectTLSPort` can replace this factory: whether it is an
    unmodified `TLSMemoryBIOFactory` for the server's side of TLS.  In doubt, False.
    """
    if type(factory) is not TLSMemoryBIOFactory or factory.protocol is not BufferingTLSTransport:
        return False
    # The factory stores its isClient argument only in the closure of this function.
    make = factory._creatorCallable
    names = getattr(getattr(make, "__code__", None), "co_freevars", ())
    cells = getattr(make, "__closure__", None) or ()
    return any(name == "isClient" and cell.cell_contents is False for name, cell in zip(names, cells, strict=False))


class DirectTLSPort(DirectPort):
    """
    A port whose transports speak TLS directly on the socket.  Its factory is a
    `TLSMemoryBIOFactory`, as `server_factory` makes it.

    @cvar handshake_timeout: seconds until a connection with an unfinished handshake
        is reset.
    @cvar close_notify_timeout: seconds to wait for a peer's answer to our
        close_notify while the last bytes may still be in transit.  Apache's
        lingering close waits as long.
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
