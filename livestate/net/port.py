"""
The listening port that makes direct transports.

Theory of operation
===================

Each wake-up accepts as many connections as the previous one did, and doubles that
number while more are waiting.  So a burst is accepted in a few turns of the loop,
and a trickle costs few failing ``accept`` calls.

An ``accept`` that fails is left to Twisted's own loop.  When the process is out of
descriptors (EMFILE), that loop closes waiting clients with a reserved descriptor,
which keeps the reactor from spinning.  It logs a line for each of them; this port
logs one a minute.  Twisted has no remedy when the reserve is gone, or when the
whole machine is short of files or memory.  Then the port accepts no connections
for `ACCEPT_PAUSE` seconds, and clients wait in the kernel's queue.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any, ClassVar

from twisted.internet import interfaces, tcp
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.python import log
from zope.interface import implementer

from livestate.net.transport import DirectServer

__all__ = ["DirectPort"]

# Seconds: how long no connections are accepted after a shortage, and the least time
# between two log lines about it.
ACCEPT_PAUSE = 1.0
LOG_INTERVAL = 60.0

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@implementer(ILogObserver)
class _RateLimitedObserver:
    """An observer that passes on at most one event every `LOG_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: LogEvent) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_INTERVAL
            globalLogPublisher(event)


class DirectPort(tcp.Port):
    """
    A `tcp.Port` that makes direct transports and accepts many connections per
    wake-up.

    TCP_NODELAY is set on the listening socket.  On Linux, accepted sockets inherit
    it, which saves a system call for each.

    @cvar max_accepts: the most connections that one wake-up accepts, so that a
        burst of new clients does not starve the connected ones.
    """

    transport = DirectServer
    max_accepts: ClassVar[int] = 256
    _logger = Logger(namespace="twisted.internet.tcp.Port", observer=_RateLimitedObserver())

    def startListening(self) -> None:
        """
        See `twisted.internet.interfaces.IListeningPort.startListening`.

        @raise twisted.internet.error.CannotListenError: when the address is in
            use or does not belong to this machine.
        """
        tcp.Port.startListening(self)
        self.numberAccepts = 1
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def doRead(self) -> None:
        """Accept the waiting connections, up to `max_accepts`."""
        listening = self.socket
        # socket.accept() looks up the listening socket's family, type and default
        # timeout through enumerations, which takes 1 of its 3.4 us.  The C method
        # below it returns the descriptor; a subclass or a test's fake may lack it.
        accept = getattr(listening, "_accept", None)
        if accept is None:
            tcp.Port.doRead(self)
            return
        family, socket_type, proto = int(listening.family), int(listening.type), listening.proto
        accepted = 0
        try:
            for accepted in range(1, self.numberAccepts + 1):  # noqa: B007
                try:
                    fd, address = accept()
                except BlockingIOError:
                    break
                except OSError as e:
                    # The process is out of descriptors, a connection died in the
                    # queue, or a firewall refused it.  Twisted's own loop handles
                    # each case, if the error happens again.
                    reserve = e.errno == errno.EMFILE and tcp._reservedFD.available()
                    if e.errno in _SHORTAGES and not reserve:
                        self._pause_accepting(e)
                    else:
                        tcp.Port.doRead(self)
                    return
                self._make_connection(socket.socket(family, socket_type, proto, fd), address)
            else:
                # The limit was reached, so more may be waiting.
                self.numberAccepts = min(self.numberAccepts * 2, self.max_accepts)
                return
            # A failing accept costs half as much as accepting a connection, so try
            # no more than succeeded last time (as stock Twisted does).
            self.numberAccepts = max(1, accepted - 1)
        except BaseException:
            log.deferr()

    def _pause_accepting(self, error: OSError) -> None:
        self._logger.warn(
            "cannot accept connections: {reason}; trying again every {seconds:g} s",
            reason=error.strerror,
            seconds=ACCEPT_PAUSE,
        )
        self.stopReading()
        reactor: Any = self.reactor  # Twisted annotates it with an interface that has no callLater
        reactor.callLater(ACCEPT_PAUSE, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if self.connected and not self.disconnecting:
            tcp._reservedFD.reserve()
            self.startReading()

    def _make_connection(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        if len(address) == 4:
            # IPv6: getnameinfo appends the scope to a link-local address.
            flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            address = (socket.getnameinfo(address, flags)[0], *address[1:])
        try:
            protocol = self._build_protocol(self._buildAddr(address))
            if protocol is None:
                sock.close()
                return
            number = self.sessionno
            self.sessionno = number + 1
            transport = self.transport(sock, protocol, address, self, number, self.reactor)
        except BaseException:
            sock.close()
            raise
        protocol.makeConnection(transport)

    def _build_protocol(self, address: interfaces.IAddress) -> interfaces.IProtocol | None:
        factory: interfaces.IProtocolFactory = self.factory  # type: ignore[assignment]  # "None" before __init__
        return factory.buildProtocol(address)
