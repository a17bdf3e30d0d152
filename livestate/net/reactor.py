"""
An epoll reactor with a lean event loop and direct listening ports.

Theory of operation
===================

This is Twisted's `EPollReactor` with four differences, each justified by a
measurement (one core, 1,000 keep-alive connections, 4.3 KB answers):

* **Lean dispatch.** Around each event, stock Twisted enters a logging context and
  calls ``fileno()``, which costs 1 us a request.  A selectable that declares
  ``lean = True`` is called straight from the loop for the two events that make
  up nearly all traffic, "readable" and "writable".  An exception is still
  logged with the selectable's prefix, still loses the connection, and does not
  concern the other events of the turn.  All other selectables and all other events take Twisted's own path.

* **Direct ports.** `listenTCP`, `listenSSL` and `adoptStreamPort` make the
  ports of `livestate.net.port` and `livestate.net.tls`, whose transports
  write to the socket at once.  `listenTCP` and `adoptStreamPort` also make the
  direct TLS port when they are given a server-side `TLSMemoryBIOFactory`, as the
  ``tls:`` endpoint and code that adopts a TLS port do.  Unix sockets, UDP and
  everything on the client side stay stock.

* **Calls after the poll.** `run_after_poll` calls a selectable once more after the
  events of this turn, without a system call and without waiting for an event.
  It is used to close a connection with nothing queued, and for edge triggering.
  Once a turn, the reactor makes the calls that were queued before it began to make
  them.  Later calls wait for the next turn, so no connection starves.

* **Edge triggering.** The kernel checks a level-triggered descriptor again after
  each event, which costs 0.2 us a request.  A selectable that declares
  ``edge_triggered = True`` gets one event for what arrives, as long as it only
  reads.  It must read again until it gets less than it asked for.  When the peer
  has closed its side too (EPOLLRDHUP), the reactor reads once more, to see the end
  behind the data.  While the selectable also waits to write, it is
  level-triggered, so that a queue can be sent in pieces.

Import this module before anything imports ``twisted.internet.reactor``; it
does not import the default reactor itself.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet import interfaces, main, unix
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.python import log

from livestate.net.port import DirectPort

try:
    from livestate.net import tls as _tls
except ImportError:  # no pyOpenSSL: TLS is not available in stock Twisted either
    _tls = None  # type: ignore[assignment]

__all__ = ["DirectReactor", "install"]

_READABLE = select.EPOLLIN
_WRITABLE = select.EPOLLOUT
_READABLE_EDGE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET

# The most events taken from the kernel at a time.  Stock Twisted asks for as many as
# it has descriptors: with 50,000 idle connections, it allocates and frees 600 KB in
# every turn of the loop.
_MAX_EVENTS = 1024


class DirectReactor(EPollReactor):
    """
    `EPollReactor` with lean dispatch and direct listening ports.

    Use `install()`, or ``--reactor=livestate`` where its plugin is known.
    """

    def __init__(self) -> None:
        self._after_poll: list[tuple[Any, int]] = []
        super().__init__()

    # The loop

    def run_after_poll(self, selectable: Any, event: int) -> None:
        """
        Call ``selectable.doRead`` (`EPOLLIN`) or ``doWrite`` (`EPOLLOUT`)
        after the events of this turn, or of the next one if none is running.

        The loop makes the call, never this method.  It makes no call if by then the
        selectable is disconnected or, for ``doRead``, has stopped reading.
        """
        self._after_poll.append((selectable, event))

    def doPoll(self, timeout: float | None) -> None:
        """
        Wait at most `timeout` seconds (None: until there is an event) and call
        every selectable that has an event.
        """
        selectables = self._selectables
        if self._after_poll:
            timeout = 0
        elif timeout is None:
            timeout = -1
        try:
            events = self._poller.poll(timeout, min(len(selectables), _MAX_EVENTS))
        except OSError as e:
            if e.errno == errno.EINTR:
                return
            raise  # a serious programming error, says epoll_wait(2)
        find = selectables.get
        for fd, event in events:
            selectable = find(fd)
            if selectable is None:
                continue  # lost in an earlier event of this turn
            if event == _READABLE and getattr(selectable, "lean", False):
                # The same as _do_read, inlined because it runs once per request.
                try:
                    why = selectable.doRead()
                except BaseException:
                    why = self._log_exception(selectable)
                if why:
                    self._disconnect(selectable, why, True)
            elif event == _WRITABLE and getattr(selectable, "lean", False):
                self._do_write(selectable)
            else:
                self._dispatch_as_stock(selectable, fd, event)
        if self._after_poll:
            self._run_after_poll()

    doIteration = doPoll

    def _dispatch_as_stock(self, selectable: Any, fd: int, event: int) -> None:
        if event & select.EPOLLRDHUP:
            # Twisted reads once for this event, and the end may be behind the data.
            self._after_poll.append((selectable, _READABLE))
        log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    def _do_write(self, selectable: Any) -> None:
        try:
            why = selectable.doWrite()
        except BaseException:
            why = self._log_exception(selectable)
        if why:
            self._disconnect(selectable, why, False)

    def _do_read(self, selectable: Any) -> None:
        try:
            why = selectable.doRead()
        except BaseException:
            why = self._log_exception(selectable)
        if why:
            self._disconnect(selectable, why, True)

    def _disconnect(self, selectable: Any, why: Any, is_read: bool) -> None:
        # The protocol learns of it here.  If that raises, it is a fault of this
        # connection alone: the other events of this turn are not reported again.
        try:
            self._disconnectSelectable(selectable, why, is_read)
        except BaseException:
            self._log_exception(selectable)

    def _run_after_poll(self) -> None:
        # Calls added while these run wait for the next turn.
        waiting, self._after_poll = self._after_poll, []
        for selectable, event in waiting:
            if selectable.disconnected:
                continue
            if event == _READABLE:
                if selectable.fileno() in self._reads:
                    self._do_read(selectable)
            else:
                self._do_write(selectable)

    def _log_exception(self, selectable: Any) -> BaseException | None:
        """
        Log the exception being handled as stock Twisted does, with the
        selectable's log prefix, and return it as the reason for the loss.
        """
        why = sys.exc_info()[1]
        log.callWithLogger(selectable, log.err)
        return why

    def removeAll(self) -> list[Any]:
        """
        Remove all selectables and return them, including those with a pending
        `run_after_poll`: at shutdown, each must learn that its connection is lost.
        """
        removed: list[Any] = super().removeAll()
        waiting, self._after_poll = self._after_poll, []
        known = set(map(id, removed))
        for selectable, _ in waiting:
            if id(selectable) not in known and not selectable.disconnected:
                known.add(id(selectable))
                removed.append(selectable)
        return removed

    # Edge triggering

    def addReader(self, reader: Any) -> None:
        """
        See `twisted.internet.interfaces.IReactorFDSet.addReader`.
        """
        if getattr(reader, "edge_triggered", False) and reader.fileno() not in self._writes:
            self._add(reader, self._reads, self._writes, self._selectables, _READABLE_EDGE, _WRITABLE)
        else:
            super().addReader(reader)

    def removeWriter(self, writer: Any) -> None:
        """
        See `twisted.internet.interfaces.IReactorFDSet.removeWriter`.
        """
        if getattr(writer, "edge_triggered", False):
            # When the event mask is set again, the kernel reports what has already arrived.
            self._remove(writer, self._writes, self._reads, self._selectables, _WRITABLE, _READABLE_EDGE)
        else:
            super().removeWriter(writer)

    # Listening

    def _port_class(self, factory: Any) -> type[DirectPort]:
        if _tls is not None and _tls.is_plain_tls_factory(factory):
            return _tls.DirectTLSPort
        return DirectPort

    def listenTCP(
        self,
        port: int,
        factory: interfaces.IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> interfaces.IListeningPort:
        """
        See `twisted.internet.interfaces.IReactorTCP.listenTCP`; the port is a
        `DirectPort`, or a `DirectTLSPort` if the factory is one for TLS.
        """
        listening = self._port_class(factory)(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def listenSSL(
        self,
        port: int,
        factory: interfaces.IProtocolFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> interfaces.IListeningPort:
        """
        See `twisted.internet.interfaces.IReactorSSL.listenSSL`; the port is a
        `DirectTLSPort`.

        @raise NotImplementedError: when pyOpenSSL is not installed.
        """
        if _tls is None:
            raise NotImplementedError("TLS needs pyOpenSSL")
        wrapped = _tls.server_factory(contextFactory, factory, self)
        listening = _tls.DirectTLSPort(port, wrapped, backlog, interface, self)
        listening.startListening()
        return listening

    def adoptStreamPort(
        self,
        fileDescriptor: int,
        addressFamily: int,
        factory: interfaces.IProtocolFactory,
    ) -> interfaces.IListeningPort:
        """
        See `twisted.internet.interfaces.IReactorSocket.adoptStreamPort`; for
        the Internet address families the port is direct, as in `listenTCP`.
        """
        families: Sequence[int] = self._supportedAddressFamilies
        if addressFamily not in families:
            raise UnsupportedAddressFamily(addressFamily)
        listening: Any
        if addressFamily == socket.AF_UNIX:
            listening = unix.Port._fromListeningDescriptor(self, fileDescriptor, factory)
        else:
            listening = self._port_class(factory)._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening  # type: ignore[no-any-return]


def install() -> None:
    """
    Install a `DirectReactor` as the process's reactor.

    @raise twisted.internet.error.ReactorAlreadyInstalledError: when the process
        already has a reactor.
    """
    main.installReactor(DirectReactor())
