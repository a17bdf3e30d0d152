"""
An epoll reactor with a lean event loop and direct listening ports.

Theory of operation
===================

It is Twisted's `EPollReactor` with three differences, each of which was paid
for by a measurement (one core, 1,000 keep-alive connections, 4.3 KB answers):

* **Lean dispatch.** Stock Twisted enters a logging context and asks for
  ``fileno()`` around each event, 1 us a request.  A selectable that declares
  ``lean = True`` is called straight from the loop for the two events that make
  up nearly all traffic, "readable" and "writable".  An exception still is
  logged, with the selectable's prefix, and still loses the connection.  All
  other selectables and all other events take Twisted's own path.

* **Direct ports.** `listenTCP`, `listenSSL` and `adoptStreamPort` make the
  ports of `livestate.net.port` and `livestate.net.tls`, whose transports
  write to the socket at once.  A server-side `TLSMemoryBIOFactory` given to
  `listenTCP` or `adoptStreamPort` (the ``tls:`` endpoint and anyone who adopts
  a TLS port does so) gets the direct TLS port too.  Unix sockets, UDP and
  everything on the client side stay stock.

* **Second helpings.** `run_after_poll` calls a selectable once more after the
  events of this turn, with no system call and without waiting for an event:
  closing a connection with nothing queued needs that, and so do edges.  The
  queue is drained once a turn, and only as long as it was when the turn began,
  so nobody starves.

* **Edges.** The kernel looks at a level-triggered descriptor once more after
  each event, 0.2 us a request.  A selectable that declares ``edge_triggered = True`` is
  told of what arrives only once, while it only reads.  It has to read again
  until it is given less than it asked for; when the peer has ended its side
  too (EPOLLRDHUP), the reactor reads once more, for the end behind the data.
  While it also waits to write it is level-triggered, as is a queue that is
  sent in pieces.

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

# Events taken from the kernel at a time.  Stock Twisted asks for as many as
# there are descriptors: with 50,000 idle connections 600 KB is allocated and
# freed for every turn of the loop.
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

        It is called from the loop, never from inside this method, and not at
        all if the selectable is disconnected or, for ``doRead``, not reading
        by then.
        """
        self._after_poll.append((selectable, event))

    def doPoll(self, timeout: float | None) -> None:
        """
        Wait at most `timeout` seconds (None: until something happens) and
        call every selectable that has an event.
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
                # Spelt out here, not in a method: it is once a request.
                try:
                    why = selectable.doRead()
                except BaseException:
                    why = self._log_exception(selectable)
                if why:
                    self._disconnectSelectable(selectable, why, True)
            elif event == _WRITABLE and getattr(selectable, "lean", False):
                self._do_write(selectable)
            else:
                self._dispatch_as_stock(selectable, fd, event)
        if self._after_poll:
            self._run_after_poll()

    doIteration = doPoll

    def _dispatch_as_stock(self, selectable: Any, fd: int, event: int) -> None:
        if event & select.EPOLLRDHUP:
            # Twisted reads once for this event: the end may be behind the data.
            self._after_poll.append((selectable, _READABLE))
        log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    def _do_write(self, selectable: Any) -> None:
        try:
            why = selectable.doWrite()
        except BaseException:
            why = self._log_exception(selectable)
        if why:
            self._disconnectSelectable(selectable, why, False)

    def _do_read(self, selectable: Any) -> None:
        try:
            why = selectable.doRead()
        except BaseException:
            why = self._log_exception(selectable)
        if why:
            self._disconnectSelectable(selectable, why, True)

    def _run_after_poll(self) -> None:
        # What is added meanwhile waits for the next turn.
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
        Log the exception being handled as stock Twisted does (with the
        selectable's log prefix) and return it: the reason of the loss.
        """
        why = sys.exc_info()[1]
        log.callWithLogger(selectable, log.err)
        return why

    def removeAll(self) -> list[Any]:
        """
        Forget all selectables and return them, those that wait for
        `run_after_poll` included: at shutdown each has to be told.
        """
        removed: list[Any] = super().removeAll()
        waiting, self._after_poll = self._after_poll, []
        known = set(map(id, removed))
        for selectable, _ in waiting:
            if id(selectable) not in known and not selectable.disconnected:
                known.add(id(selectable))
                removed.append(selectable)
        return removed

    # Edges

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
            # Being told anew how to watch it, the kernel reports what is there.
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
        `DirectPort`, or a `DirectTLSPort` where the factory says TLS.
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

        @raise NotImplementedError: pyOpenSSL is not installed.
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
        the Internet families the port is direct as in `listenTCP`.
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
    Make a `DirectReactor` the process's reactor.

    @raise twisted.internet.error.ReactorAlreadyInstalledError: there is one.
    """
    main.installReactor(DirectReactor())
