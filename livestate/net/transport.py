"""
The direct TCP server transport.

Theory of operation
===================

Stock Twisted's ``write`` queues the bytes and asks epoll for a "writable" event, so
the bytes leave one turn of the loop later, after three more system calls.  Sockets
are nearly always writable, so a *direct* transport sends at once.  Only what the
kernel did not accept goes to Twisted's queue, with all of Twisted's rules for it
(producers, SEND_LIMIT, half-close).

One flag, `_direct`, tells whether a write may go straight to the socket.
`_update_direct` recomputes it whenever the state changes.  It is true only while

* the connection is up and its write side is open,
* nothing is queued (or the order would change),
* TLS was not started on top (otherwise, bytes belong to the TLS layer), and
* no pull producer is registered (only "writable" events resume it).

A failing send never calls the protocol from inside ``write``.  The bytes are queued,
and the reactor's own ``doWrite`` or ``doRead`` meets the failure again and reports
it as stock Twisted does.

Reads are of 4 KB, which is larger than nearly every request.  CPython allocates the
whole buffer for each ``recv`` and shrinks it afterwards, so with stock Twisted's
64 KB a request costs 6% more (5.56 instead of 5.26 us).  After a full read there may
be more data, which an edge-triggered epoll does not report again, so the transport
asks the reactor to call it again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from errno import ENOBUFS
from select import EPOLLIN, EPOLLOUT
from typing import Any, ClassVar

from twisted.internet import abstract, address, interfaces, main, tcp
from twisted.python import failure

__all__ = ["DirectServer"]


class DirectServer(tcp.Server):
    """
    A `tcp.Server` that sends at once.  It needs a `DirectReactor`.

    @cvar lean: tells the reactor to call ``doRead`` and ``doWrite`` without a
        logging context.
    @cvar edge_triggered: tells the reactor that ``doRead`` asks to be called again
        after a full read.
    @cvar read_size: how many bytes one ``recv`` asks for.
    """

    # Any, because Twisted's reactor interfaces lack `run_after_poll`.
    reactor: Any

    lean: ClassVar[bool] = True
    edge_triggered: ClassVar[bool] = True
    read_size: ClassVar[int] = 4096

    # The port sets it on the listening socket for all its connections.
    _no_delay = True

    # close() alone ends the connection, because no other process has the descriptor
    # (accept4 sets FD_CLOEXEC).  Stock Twisted calls shutdown() before it, which would
    # be 4 of a short connection's 29 us.
    _shouldShutdown = False

    # Whether a send failed: then the end that a read finds is not a clean one.
    _send_failed = False

    def __init__(
        self,
        sock: socket.socket,
        protocol: interfaces.IProtocol,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        # tcp.Server.__init__ without the two log strings that it stores for each
        # connection (140 bytes): logstr and __repr__ make them on demand.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = address.IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.connected = 1
        self._direct = True
        self.startReading()

    @property
    def hostname(self) -> str:  # type: ignore[override]
        """The client's address, as text."""
        return str(self.client[0])

    @property
    def logstr(self) -> str:  # type: ignore[override]
        """
        The prefix of log lines: "Protocol,session number,client".  Once the
        connection is lost, the protocol is no longer known.
        """
        protocol = getattr(self, "protocol", None)
        prefix = type(self).__name__ if protocol is None else self._getLogPrefix(protocol)
        return f"{prefix},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        name = getattr(self, "protocol", None).__class__.__name__
        port = getattr(self.server, "_realPortNumber", None)
        return f"<{name} #{self.sessionno} on {port}>"

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        See `twisted.internet.interfaces.ITCPTransport.setTcpNoDelay`.  It is on
        initially, and setting it to the same value makes no system call.
        """
        if bool(enabled) != self._no_delay:
            super().setTcpNoDelay(enabled)
            self._no_delay = bool(enabled)

    # Reading

    def doRead(self) -> BaseException | None:  # type: ignore[override]  # stock returns two types, TLS more
        """
        Pass the received data, at most `read_size` bytes, to the protocol.

        @return: the reason if the connection is over, else None.
        """
        try:
            data = self.socket.recv(self.read_size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if data:
            if len(data) == self.read_size:
                self.reactor.run_after_poll(self, EPOLLIN)
            self.protocol.dataReceived(data)
            return None
        return main.CONNECTION_LOST if self._send_failed else main.CONNECTION_DONE

    # Writing

    def _update_direct(self) -> None:
        self._direct = bool(
            self.connected
            and not self.TLS
            and not self._tempDataBuffer
            and not self.dataBuffer
            and not self._writeDisconnected
            and not self._aborting
            and (self.producer is None or self.streamingProducer)
        )

    def write(self, data: bytes) -> None:
        """
        Send `data` at once if nothing is queued; queue what is not sent.

        Never calls the protocol, whatever happens to the connection.

        @raise TypeError: when `data` is not bytes.
        """
        if self._direct and type(data) is bytes:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as e:
                self._send_failed = e.errno != ENOBUFS  # ENOBUFS is temporary
                sent = 0
            if sent != len(data):
                self._queue_rest(data, sent)
        else:
            tcp.Server.write(self, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Send the pieces at once, in one system call, if nothing is queued.

        @raise TypeError: when a piece is not bytes.
        """
        if not self._direct:
            tcp.Server.writeSequence(self, iovec)
            return
        pieces = list(iovec)
        for piece in pieces:
            if not isinstance(piece, bytes):
                raise TypeError("Data must be bytes")
        if pieces:
            self.write(b"".join(pieces))

    def _queue_rest(self, data: bytes, sent: int) -> None:
        # Twisted's queue is `dataBuffer` from `offset` on, so this copies nothing.
        self.dataBuffer = data
        self.offset = sent
        self._direct = False
        self._maybePauseProducer()
        self.startWriting()

    def doWrite(self) -> BaseException | int | None:  # type: ignore[override]  # the mixin says None
        """
        Send from the queue; see `abstract.FileDescriptor.doWrite`.

        @return: the reason if the connection is over, else None.
        """
        if self.disconnecting and not self.dataBuffer and not self._tempDataBuffer and self.producer is None:
            # Stock Twisted would send an empty piece first, to no effect.
            reason: BaseException | None = self._postLoseConnection()
            return reason
        why: BaseException | int | None = abstract.FileDescriptor.doWrite(self)
        self._update_direct()
        return why

    def registerProducer(self, producer: interfaces.IProducer, streaming: bool) -> None:
        """
        See `twisted.internet.interfaces.IConsumer.registerProducer`.

        @raise RuntimeError: when there is already a producer.
        """
        # Set before the call, because a pull producer writes from inside it.
        self._direct = self._direct and streaming
        try:
            tcp.Server.registerProducer(self, producer, streaming)
        finally:
            self._update_direct()

    def unregisterProducer(self) -> None:
        """See `twisted.internet.interfaces.IConsumer.unregisterProducer`."""
        tcp.Server.unregisterProducer(self)
        self._update_direct()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """
        Speak TLS from now on, through Twisted's own layer on top of this
        transport; see `twisted.internet.interfaces.ITLSTransport.startTLS`.
        """
        self._direct = False
        tcp.Server.startTLS(self, ctx, normal)

    # Closing

    def loseConnection(self) -> None:
        """
        Close the connection when all written data has been sent.

        The protocol is notified from the reactor's loop, never from inside this
        call.  With nothing queued, that costs no event and no system call.
        """
        if self._direct and self.producer is None and not self.disconnecting:
            self.stopReading()
            self.disconnecting = 1
            self.reactor.run_after_poll(self, EPOLLOUT)
        else:
            tcp.Server.loseConnection(self)

    def _closeWriteConnection(self) -> None:
        self._direct = False  # the protocol may write from inside this
        tcp.Server._closeWriteConnection(self)

    def abortConnection(self) -> None:
        """Reset the connection at once, dropping what is queued."""
        self._direct = False
        tcp.Server.abortConnection(self)

    def connectionLost(self, reason: failure.Failure) -> None:
        """See `tcp.Connection.connectionLost`."""
        self._direct = False
        try:
            tcp.Server.connectionLost(self, reason)
        finally:
            if hasattr(self, "socket"):
                # The producer raised in stopProducing, and the socket is still open.
                self.producer = None
                tcp.Server.connectionLost(self, reason)
