"""
The direct TLS server transport, which speaks TLS directly on the socket.

Theory of operation
===================

Stock Twisted runs TLS as a protocol between two memory BIOs, so Python copies each
record in and out.  That is most of a request's cost: 38.8 us with it, and 9.8 us
without (1,000 keep-alive clients, 4.3 KB answers).  Here OpenSSL reads and writes
the socket, and the transport is a `DirectServer` whose bytes pass through
`livestate.net.records`.  Twisted's own queue, producers and flags stay.

OpenSSL adds the following states and events to a socket.  (`livestate.net.handshake`
handles the start of a connection, `livestate.net.close_notify` the end.)

=====================  =======================================================
handshake              Events drive `_handshake` until it is done; then the data
                       written meanwhile is sent.  `DirectTLSPort` resets a
                       connection that takes longer than `handshake_timeout`.
read wants to write    (A key update, RFC 8446 section 4.6.3, while the socket is
                       full.)  No reading until the socket is writable:
                       `_read_blocked`.
write wants to read    (Renegotiation.)  No writing until a read event:
                       `_write_blocked`.
partial write          A record is sent completely or not at all.  An interrupted
                       write is repeated from the front of the queue, which only
                       grows at its end (OpenSSL demands the same bytes, and at
                       least as many).
close_notify received  The queue and our close_notify are sent, and the protocol
                       sees ConnectionDone.
end without it         ConnectionLost: the data may be truncated (RFC 8446
                       section 6.1).
loseConnection         The queue and close_notify are sent.  If the peer may not
                       have read our last bytes yet, we wait for its close_notify,
                       for at most `close_notify_timeout`: a reset would lose them.
any other error        Its `SSL.Error` is the reason for the loss.
=====================  =======================================================

`_ready` is true while none of these is in progress.  Then a read event is one
``SSL_read``, and a write is one ``SSL_write``.  The protocol sees what it sees above
the stock `TLSMemoryBIOProtocol`, with two differences: writes are sent at once
instead of being gathered for a turn of the loop, and the wait for a peer that never
answers close_notify is bounded.
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
    TLS directly on an accepted socket.

    @ivar _ready: whether the connection is established, and neither blocked nor
        failed.
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
        Pass the data of one record to the protocol, or continue whatever TLS is in
        the middle of.

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
        Continue the handshake or a blocked write, which come before reading.

        @return: whether to read now.  If not, `_loss_reason` may have been set.
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
            # The read event would be reported over and over: wait for the write event.
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
        sent.  After `loseConnection`, only a producer's data is accepted.

        Never calls the protocol, whatever happens to the connection.

        @raise TypeError: when `data` is not bytes.
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
        # As FileDescriptor.write.  But during a handshake, or while TLS waits for the
        # peer, a writable socket does not help; writing starts when that is over.
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

        @raise TypeError: when a piece is not bytes.
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
            # TLS has to read, even if the application has paused reading.
            self.startReading()
            return
        # The protocol is not called from inside a write: the reactor finds
        # _loss_reason in doWrite and reports it.
        self._fail(error)
        self.reactor.run_after_poll(self, EPOLLOUT)

    def writeSomeData(  # type: ignore[override]  # stock has only one type of failure
        self, data: bytes | memoryview
    ) -> int | BaseException:
        """
        Send from the queue; see `abstract.FileDescriptor.writeSomeData`.

        @return: how many bytes were sent, or the reason for the loss.
        """
        sent = self._send(data)
        return sent if self._loss_reason is None else self._loss_reason

    def doWrite(self) -> BaseException | int | None:  # type: ignore[override]  # as in DirectServer
        """
        Continue what waited for the socket to become writable.

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
        self._write_blocked = False  # the attempt sets it again if necessary
        result: BaseException | int | None = abstract.FileDescriptor.doWrite(self)
        if self._write_blocked:
            self.stopWriting()
        self._update_direct()
        return result

    def registerProducer(self, producer: interfaces.IProducer, streaming: bool) -> None:
        """
        See `twisted.internet.interfaces.IConsumer.registerProducer`.

        @raise RuntimeError: when there is already a producer.
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
