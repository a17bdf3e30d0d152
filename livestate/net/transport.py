"""
The direct TCP server transport.

Theory of operation
===================

Stock Twisted's ``write`` puts the bytes in a queue and asks epoll for a
"writable" event; the bytes leave one turn of the loop later, after three more
system calls.  Sockets nearly always are writable, so a *direct* transport
sends at once, and only what the kernel did not take goes to Twisted's queue,
with all of Twisted's rules for it (producers, SEND_LIMIT, half-close).

One flag, `_direct`, says that a write may go straight to the socket.  It is
recomputed at each change of state by `_update_direct` and true only while

* the connection is up and its write side was not closed,
* nothing is queued (order!),
* no TLS was started on top (then bytes belong to the TLS layer), and
* no pull producer is registered (it is resumed by "writable" events only).

A failing send never calls the protocol from inside ``write``: the bytes are
queued and the failure is found again by the reactor's own ``doWrite`` or
``doRead``, which report it as stock Twisted does.

Reads are of 4 KB: CPython allocates the whole buffer for each ``recv`` and
shrinks it afterwards; with stock Twisted's 64 KB a request costs 6% more (5.56
and 5.26 us), and nearly every request is smaller than this.  After a full read there may be
more, of which an edge-triggered epoll says nothing: the transport asks to be
called again.
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
    @cvar edge: tells it that ``doRead`` sees to what a full read left.
    @cvar read_size: how many bytes one ``recv`` asks for.
    """

    # The interfaces that Twisted names do not have `run_after_poll`.
    reactor: Any

    lean: ClassVar[bool] = True
    edge_triggered: ClassVar[bool] = True
    read_size: ClassVar[int] = 4096

    # What the port has set for all its connections.
    _no_delay = True

    # close() alone ends the connection: no other process has the descriptor
    # (accept4 sets FD_CLOEXEC).  shutdown() before it, as in stock Twisted, is
    # 4 of a short connection's 29 us.
    _shouldShutdown = False

    # A send failed: what the reads may still find is not a clean end.
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
        # tcp.Server.__init__ without the two log strings it makes for each
        # connection (140 bytes): logPrefix and __repr__ make them.
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
        """The prefix of log lines: "Protocol,session number,client"."""
        prefix = self._getLogPrefix(self.protocol)
        return f"{prefix},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        name = getattr(self, "protocol", None).__class__.__name__
        port = getattr(self.server, "_realPortNumber", None)
        return f"<{name} #{self.sessionno} on {port}>"

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        See `twisted.internet.interfaces.ITCPTransport.setTcpNoDelay`; it is
        on to begin with, and setting it again costs no system call.
        """
        if bool(enabled) != self._no_delay:
            super().setTcpNoDelay(enabled)
            self._no_delay = bool(enabled)

    # Reading

    def doRead(self) -> BaseException | None:  # type: ignore[override]  # stock has two kinds, TLS more
        """
        Hand what has arrived, at most `read_size` bytes, to the protocol.

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

        @raise TypeError: `data` is not bytes.
        """
        if self._direct and type(data) is bytes:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as e:
                self._send_failed = e.errno != ENOBUFS  # no failure: try again
                sent = 0
            if sent != len(data):
                self._queue_rest(data, sent)
        else:
            tcp.Server.write(self, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Send the pieces at once, in one system call, if nothing is queued.

        @raise TypeError: a piece is not bytes.
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
        # Twisted's queue is `dataBuffer` from `offset` on: no copy is made.
        self.dataBuffer = data
        self.offset = sent
        self._direct = False
        self._maybePauseProducer()
        self.startWriting()

    def doWrite(self) -> BaseException | int | None:  # type: ignore[override]  # the mixin says None
        """
        Send from the queue: see `abstract.FileDescriptor.doWrite`.

        @return: the reason if the connection is over, else None.
        """
        if self.disconnecting and not self.dataBuffer and not self._tempDataBuffer and self.producer is None:
            # Stock sends an empty piece first, to learn nothing from it.
            over: BaseException | None = self._postLoseConnection()
            return over
        why: BaseException | int | None = abstract.FileDescriptor.doWrite(self)
        self._update_direct()
        return why

    def registerProducer(self, producer: interfaces.IProducer, streaming: bool) -> None:
        """
        See `twisted.internet.interfaces.IConsumer.registerProducer`.

        @raise RuntimeError: there is a producer already.
        """
        # Before, not after: a pull producer writes from inside this call.
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
        Speak TLS from here on, by Twisted's own layer on top of this
        transport: see `twisted.internet.interfaces.ITLSTransport.startTLS`.
        """
        self._direct = False
        tcp.Server.startTLS(self, ctx, normal)

    # Closing

    def loseConnection(self) -> None:
        """
        Close the connection when all that was written has been sent.

        The protocol is told from the reactor's loop, never from inside this
        call; with nothing queued that costs no event and no system call.
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
        tcp.Server.connectionLost(self, reason)
