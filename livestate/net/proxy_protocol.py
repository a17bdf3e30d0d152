"""
The PROXY protocol, by which a proxy names the client that it connects for.

Theory of operation
===================

A proxy sends one header before anything else, in version 1 (text) or 2 (binary) of
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.  Twisted's own wrapper
builds the application's protocol before the header has arrived, so that the
application sees the proxy's address when it counts, limits or logs the connection.
It also cannot handle a factory that refuses a connection.

Here the application's protocol is built when the header is complete, with the
client's address, and it is connected to the real transport.  Only `getPeer` and
`getHost` of that transport are replaced.  A connection whose header is wrong, or
has not arrived in time, is closed.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, NamedTuple

from twisted.internet import address, interfaces
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from livestate.net.deadlines import Deadlines

__all__ = ["HEADER_TIMEOUT", "ProxyProtocolFactory"]

# Seconds until the header must have arrived.  A proxy sends it as soon as it is connected.
HEADER_TIMEOUT = 10.0

# How the two versions begin, and the longest header of version 1.
_TEXT = b"PROXY "
_BINARY = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_TEXT = 107

# Version 2: signature, version and command, address family and protocol, length.
_HEAD = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}  # TCP over IPv4 and IPv6


class _Header(NamedTuple):
    """
    A header: the addresses of the client and of the proxy's port that it connected
    to, or None; and what follows the header.
    """

    source: interfaces.IAddress | None
    destination: interfaces.IAddress | None
    rest: bytes


@implementer(interfaces.IHandshakeListener)
class _ProxiedConnection(Protocol):
    """One connection: reads the header, and passes everything after it on."""

    factory: ProxyProtocolFactory
    transport: Any

    def __init__(self) -> None:
        self._inner: Any = None
        self._data = b""
        self._refused = False
        self._handshake_completed = False

    def connectionMade(self) -> None:
        """Wait for the header."""
        self.factory.waiting.add(self, HEADER_TIMEOUT)

    def handshakeCompleted(self) -> None:
        """See `IHandshakeListener`. The protocol is told when there is one."""
        self._handshake_completed = True

    def dataReceived(self, data: bytes) -> None:
        """Pass `data` on, or parse the header in it."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._refused:
            return
        self._data += data
        try:
            header = _parse(self._data)
        except ValueError:
            self._refuse()
        else:
            if header is not None:
                self._data = b""
                self._connect(header)

    def _connect(self, header: _Header) -> None:
        self.factory.waiting.discard(self)
        transport = self.transport
        source, destination, rest = header
        # Without addresses, the proxy speaks for itself, as in its health checks.
        if source is not None:
            transport.getPeer = lambda: source
        if destination is not None:
            transport.getHost = lambda: destination
        inner: Any = self.factory.wrappedFactory.buildProtocol(transport.getPeer())
        if inner is None:
            self._refuse()
            return
        self._inner = inner
        inner.makeConnection(transport)
        if self._handshake_completed and interfaces.IHandshakeListener.providedBy(inner):
            inner.handshakeCompleted()
        if rest and not transport.disconnecting:
            inner.dataReceived(rest)

    def _refuse(self) -> None:
        self._refused = True
        self.factory.waiting.discard(self)
        self.transport.abortConnection()

    def deadline_passed(self) -> None:
        """Close the connection: the header has not arrived in time."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # it has no default here
        """See `IProtocol.connectionLost`."""
        self.factory.waiting.discard(self)
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)


class _RefusedConnection(Protocol):
    """A connection that is closed at once."""

    transport: Any

    def connectionMade(self) -> None:
        """Close the connection."""
        self.transport.abortConnection()


class ProxyProtocolFactory(Factory[Any]):
    """
    Builds the protocols of another factory for the clients that a proxy names.

    @ivar waiting: the connections whose header has not arrived yet.
    """

    noisy = False

    def __init__(self, reactor: Any, wrapped: Any) -> None:
        """
        @param wrapped: the application's factory.  If it has a method `has_room`, it
            is called for each new connection, with the number of those that wait for
            their header; if it returns False, the connection is closed.
        """
        self.wrappedFactory = wrapped
        self.waiting: Deadlines[_ProxiedConnection] = Deadlines(reactor, _ProxiedConnection.deadline_passed)

    def logPrefix(self) -> str:
        """Return the name that Twisted logs when a listener starts or stops."""
        if interfaces.ILoggingContext.providedBy(self.wrappedFactory):
            prefix: str = self.wrappedFactory.logPrefix()
            return prefix
        return type(self.wrappedFactory).__name__

    def doStart(self) -> None:
        """See `IProtocolFactory.doStart`."""
        self.wrappedFactory.doStart()

    def doStop(self) -> None:
        """See `IProtocolFactory.doStop`."""
        self.wrappedFactory.doStop()

    def acceptableProtocols(self) -> list[bytes]:
        """See `IProtocolNegotiationFactory.acceptableProtocols`."""
        protocols: list[bytes] = self.wrappedFactory.acceptableProtocols()
        return protocols

    def buildProtocol(self, addr: interfaces.IAddress | None) -> Protocol:
        """See `IProtocolFactory.buildProtocol`; `addr` is the proxy's."""
        has_room = getattr(self.wrappedFactory, "has_room", None)
        if has_room is not None and not has_room(len(self.waiting)):
            return _RefusedConnection()
        connection = _ProxiedConnection()
        connection.factory = self
        return connection


def _parse(data: bytes) -> _Header | None:
    """
    Return the header at the beginning of `data`, or None if it is not complete yet.

    @raise ValueError: when it is wrong.
    """
    if data.startswith(_TEXT):
        return _parse_text(data)
    if data.startswith(_BINARY):
        return _parse_binary(data)
    if _TEXT.startswith(data) or _BINARY.startswith(data):
        return None
    raise ValueError("not a header of the PROXY protocol")


def _parse_text(data: bytes) -> _Header | None:
    line, end, rest = data.partition(b"\r\n")
    if len(line) + 2 > _MAX_TEXT:
        raise ValueError("the line is too long")
    if not end:
        return None
    words = line.decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return _Header(None, None, rest)
    # ValueError for another number of words, too.
    _, kind, source, destination, source_port, destination_port = words
    if kind not in ("TCP4", "TCP6"):
        raise ValueError("the protocol is not TCP")
    parse = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
    return _Header(_address(parse(source), int(source_port)), _address(parse(destination), int(destination_port)), rest)


def _parse_binary(data: bytes) -> _Header | None:
    if len(data) < _HEAD.size:
        return None
    _, version_and_command, kind, length = _HEAD.unpack_from(data)
    if version_and_command not in (_LOCAL, _PROXY):
        raise ValueError("the version or the command is unknown")
    end = _HEAD.size + length
    if len(data) < end:
        return None
    rest = data[end:]
    addresses = _ADDRESSES.get(kind)
    if version_and_command == _LOCAL or addresses is None:  # Unix sockets, UDP, and kinds to come
        return _Header(None, None, rest)
    if length < addresses.size:
        raise ValueError("the addresses are incomplete")
    source, destination, source_port, destination_port = addresses.unpack_from(data, _HEAD.size)
    return _Header(
        _address(ipaddress.ip_address(source), source_port),
        _address(ipaddress.ip_address(destination), destination_port),
        rest,
    )


def _address(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> interfaces.IAddress:
    kind = address.IPv4Address if host.version == 4 else address.IPv6Address
    return kind("TCP", str(host), port)
