"""
TLS on the socket itself: the direct TLS server transport.

Theory of operation
===================

Stock Twisted runs TLS as a protocol between two memory BIOs: each record is
copied in and out by Python.  That is most of a request's cost: 38.8 us, and 9.8
without it (1,000 keep-alive clients, 4.3 KB answers).  Here OpenSSL reads and
writes the socket, and the transport is a `DirectServer` whose bytes pass
through `livestate.net.records`.  Twisted's own queue, producers and flags stay.

What OpenSSL adds to a socket's life, and how it is dealt with (its beginning
in `livestate.net.handshake`, its end in `livestate.net.close_notify`):

=====================  =======================================================
handshake              `_handshake`, driven by events until it is done; then
                       what was written meanwhile is sent.  `DirectTLSPort`
                       resets one that takes longer than `handshake_timeout`.
read wants to write    (key update, RFC 8446 4.6.3, and the socket is full)
                       no reading until the socket is writable: `_read_blocked`
write wants to read    (renegotiation) no writing until a read event:
                       `_write_blocked`
partial write          a record is sent or not; an interrupted write is
                       repeated from the front of the queue, which only grows
                       behind (OpenSSL's rule: same bytes, at least as many)
close_notify received  what is queued is sent, close_notify answered, and the
                       protocol sees ConnectionDone
end without it         ConnectionLost: the data may be truncated (6.1)
loseConnection         queue, close_notify, and where our last bytes may not
                       have been read yet the peer's is awaited for at most
                       `close_notify_timeout`: a reset would take them with it
any other error        its `SSL.Error` is the reason of the loss
=====================  =======================================================

`_ready` is true while none of these is going on: then a read event is one
``SSL_read`` and a write one ``SSL_write``.  What the protocol sees is what it
sees above stock `TLSMemoryBIOProtocol`, with two differences: writes leave at
once and are not gathered for a turn of the loop, and a peer that never answers
close_notify is not waited for for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from select import EPOLLOUT
from typing import Any

from OpenSSL import SSL
from twisted.internet import abstract, interfaces

from livestate.net.handshake import Handshake
from livestate.net.records import RECORD_SIZE, attach, read_record, write_record

__all__ = ["DirectTLSServer"]


class DirectTLSServer(Handshake):
    """
    TLS straight on an accepted socket.

    @ivar _ready: established, and neither blocked nor failed.
    """

    _ready = False
    _read_blocked = False
    _write_blocked = False

    def __init__(
        self,
        sock: socket.socket,
        protocol: interfaces.IProtocol,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        super().__init__(sock, protocol, client, server, sessionno, reactor)
        self._direct = False
        try:
            self._connection = attach(server.factory._creatorCallable(self), sock)
        except BaseException:
            self.stopReading()  # the port closes the socket
            raise
        server.deadlines.add(self, server.handshake_timeout)

    # Reading

    def doRead(self) -> BaseException | None:  # type: ignore[override]  # as in DirectServer
        """
        Hand one record's data to the protocol, or go on with whatever TLS is
        in the middle of.

        @return: the reason if the connection is over, else None.
        """
        if not self._ready and not self._can_read():
            return self._loss_reason
        try:
            data = read_record(self._connection)
        except SSL.Error as e:
            return self._read_failed(e)
        self.protocol.dataReceived(data)
        return None

    def _can_read(self) -> bool:
        """
        Go on with what is in the way of reading.

        @return: whether to read; if not, `_loss_reason` may have become the reason.
        """
        if self._loss_reason is not None:
            return False
        if not self._established:
            self._handshake()
            return self._established and self._loss_reason is None and not self._aborting
        if self._write_blocked:
            self._write_blocked = False
            self._update_direct()
            self.startWriting()
        return True

    def _read_failed(self, error: SSL.Error) -> BaseException | None:
        if isinstance(error, SSL.WantReadError):
            return None
        if isinstance(error, SSL.WantWriteError):
            # The read event would come again and again: wait for the other.
            self._read_blocked = True
            self._update_direct()
            self.stopReading()
            self.startWriting()
            return None
        if isinstance(error, SSL.ZeroReturnError):
            return self._handle_close_notify()
        return self._fail(error)

    # Writing

    def _update_direct(self) -> None:
        self._ready = (
            self._established and not self._read_blocked and not self._write_blocked and self._loss_reason is None
        )
        self._direct = bool(
            self._ready
            and self.connected
            and not self._has_queued_data()
            and not self.disconnecting
            and not self._close_notify_received
            and not self._writeDisconnected
            and not self._aborting
            and (self.producer is None or self.streamingProducer)
        )

    def write(self, data: bytes) -> None:
        """
        Send `data` in records at once if nothing is queued; queue what is not
        sent.  After `loseConnection` only a producer's data are taken.

        Never calls the protocol, whatever happens to the connection.

        @raise TypeError: `data` is not bytes.
        """
        if self._direct and type(data) is bytes and data:
            if len(data) <= RECORD_SIZE:
                try:
                    sent = write_record(self._connection, data)
                except SSL.Error as e:
                    sent = 0
                    self._write_failed(e)
            else:
                sent = self._send(data)
            if sent != len(data):
                self._queue_rest(data, sent)
        elif not (
            (self.disconnecting and self.producer is None) or self._close_notify_sent or self._close_notify_received
        ):
            self._queue(data)

    def _queue(self, data: bytes) -> None:
        # FileDescriptor.write, but a writable socket is no help during a
        # handshake or while TLS waits for the peer: those start the writing.
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not data or not self.connected or self._writeDisconnected:
            return
        self._direct = False
        self._tempDataBuffer.append(data)
        self._tempDataLen += len(data)
        self._maybePauseProducer()
        if self._established and not self._write_blocked:
            self.startWriting()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Write the pieces as one.

        @raise TypeError: a piece is not bytes.
        """
        self.write(b"".join(iovec))

    def _send(self, data: bytes | memoryview) -> int:
        """Send records until the socket is full or SEND_LIMIT is reached."""
        view = memoryview(data)
        sent, limit = 0, min(len(view), self.SEND_LIMIT)
        while sent < limit:
            try:
                sent += write_record(self._connection, view[sent : sent + RECORD_SIZE])
            except SSL.Error as e:
                self._write_failed(e)
                break
        return sent

    def _write_failed(self, error: SSL.Error) -> None:
        if isinstance(error, SSL.WantWriteError):
            return
        if isinstance(error, SSL.WantReadError):
            self._write_blocked = True
            self._update_direct()
            # Even if the application reads nothing now: TLS has to.
            self.startReading()
            return
        # Not from inside a write: the reactor finds the fate and reports it.
        self._fail(error)
        self.reactor.run_after_poll(self, EPOLLOUT)

    def writeSomeData(  # type: ignore[override]  # stock has one kind of failure
        self, data: bytes | memoryview
    ) -> int | BaseException:
        """
        Send from the queue: see `abstract.FileDescriptor.writeSomeData`.

        @return: how many bytes were sent, or the reason of the loss.
        """
        sent = self._send(data)
        return sent if self._loss_reason is None else self._loss_reason

    def doWrite(self) -> BaseException | int | None:  # type: ignore[override]  # as in DirectServer
        """
        The socket is writable: go on with what waited for that.

        @return: the reason if the connection is over, else None.
        """
        if self._loss_reason is not None:
            return self._loss_reason
        if not self._established:
            self.stopWriting()
            self._handshake()
            return self._loss_reason
        if self._read_blocked:
            self._read_blocked = False
            self.startReading()
            self._update_direct()
            why = self.doRead()
            if why is not None or self._read_blocked:
                return why
        self._write_blocked = False  # the attempt tells
        result: BaseException | int | None = abstract.FileDescriptor.doWrite(self)
        if self._write_blocked:
            self.stopWriting()
        self._update_direct()
        return result

    def registerProducer(self, producer: interfaces.IProducer, streaming: bool) -> None:
        """
        See `twisted.internet.interfaces.IConsumer.registerProducer`.

        @raise RuntimeError: there is a producer already.
        """
        self._direct = self._direct and streaming
        try:
            abstract.FileDescriptor.registerProducer(self, producer, streaming)
        finally:
            self._update_direct()

    def unregisterProducer(self) -> None:
        """See `twisted.internet.interfaces.IConsumer.unregisterProducer`."""
        abstract.FileDescriptor.unregisterProducer(self)
        self._update_direct()
