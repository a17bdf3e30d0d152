"""
Closing a direct TLS connection.

Theory of operation
===================

Each side sends the alert close_notify once.  It closes the sender's direction, and
the sender need not wait for the peer's (RFC 8446 section 6.1).
`_send_close_notify` and `_handle_close_notify` are the two events.  A connection
has ended cleanly after both of them, or after ours alone:

* `loseConnection` sends the queue, then close_notify.  If the peer received
  everything long ago, the connection is over.  Otherwise the last bytes may still
  be in transit, and they are lost if the peer sends something to a socket that is
  already closed, because the kernel resets such a connection (RFC 9112 section
  9.6).  So the transport goes on reading until the peer's close_notify arrives,
  for at most the port's ``close_notify_timeout``.
* If the peer's close_notify arrives first, the transport sends its queue and its
  own close_notify, and the connection is over.
* `loseWriteConnection` sends close_notify and closes the socket's write side.
* If the socket ends without a close_notify, the reason is `ConnectionLost`.
"""

from __future__ import annotations

import socket
import struct
from select import EPOLLOUT

from OpenSSL import SSL
from twisted.internet import main
from twisted.python.failure import Failure

from livestate.net.secure import SecureTransport
from livestate.net.stream import unsent

__all__ = ["CloseNotify"]

# After this long without traffic, a peer is taken to have read all that its kernel
# has acknowledged.
IDLE_MILLISECONDS = 1000

# Two fields of Linux' struct tcp_info (tcp(7), linux/tcp.h): the milliseconds since
# data was last sent and last received.
_TCP_INFO = struct.Struct("44xI4xI")


class CloseNotify(SecureTransport):
    """
    The part of `livestate.net.tls_transport.DirectTLSServer` that closes connections.

    @ivar _close_notify_sent: whether our close_notify was sent.
    @ivar _close_notify_received: whether the peer's close_notify was received.
    @ivar _loss_reason: set when the connection has failed: the reason that the
        next event reports to the reactor.
    """

    _close_notify_sent = False
    _close_notify_received = False
    _loss_reason: BaseException | None = None

    def _has_queued_data(self) -> bool:
        return bool(self.dataBuffer or self._tempDataBuffer)

    def _fail(self, error: SSL.Error) -> BaseException:
        # A socket that fails or ends without close_notify is reported as it would
        # be without TLS.  Any other error is one of TLS itself.
        self._loss_reason = main.CONNECTION_LOST if isinstance(error, SSL.SysCallError) else error
        self._update_direct()
        return self._loss_reason

    def loseConnection(self) -> None:
        """
        Send the queue and close_notify, and close when the peer has answered.
        During a handshake, abort the connection if nothing is queued.
        """
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = 1
        self._direct = False
        if self._has_queued_data():
            return  # doWrite continues when the queue is sent
        if not self._established:
            self.abortConnection()
        elif self.producer is None:
            why = self._send_close_notify()
            if why is not None:
                self._loss_reason = why
                self.reactor.run_after_poll(self, EPOLLOUT)

    def _postLoseConnection(self) -> BaseException | None:
        # FileDescriptor.doWrite calls this when the queue is sent.  A producer may
        # have more; unregistering it leads here again.
        return self._send_close_notify() if self.producer is None else None

    def _closeWriteConnection(self) -> BaseException | None:  # type: ignore[override]  # doWrite takes a reason
        # Called in the same way for loseWriteConnection.
        why = self._send_close_notify()
        if self._close_notify_sent:
            SecureTransport._closeWriteConnection(self)
        else:
            self._writeDisconnected = False  # not sent yet: doWrite calls this again
        return why

    def _send_close_notify(self) -> BaseException | None:
        """
        Send close_notify, once.

        @return: the reason if the connection is over, else None.
        """
        peer_is_done = self._close_notify_received or (self.disconnecting and self._peer_is_idle())
        if not self._close_notify_sent:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                self.startWriting()
                return None
            except SSL.Error as e:
                # A peer that has sent close_notify need not wait for ours.
                return main.CONNECTION_DONE if self._close_notify_received else self._fail(e)
            self._close_notify_sent = True
        if peer_is_done:
            return main.CONNECTION_DONE
        if self.disconnecting:
            self.server.deadlines.add(self, self.server.close_notify_timeout)
            self.startReading()
        return None

    def _peer_is_idle(self) -> bool:
        """Return whether the peer has acknowledged everything and neither side has sent anything for a while."""
        if unsent(self):
            return False
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # not TCP
            return False
        return len(info) == _TCP_INFO.size and min(_TCP_INFO.unpack(info)) >= IDLE_MILLISECONDS

    def _handle_close_notify(self) -> BaseException | None:
        self._close_notify_received = True
        if self._close_notify_sent:
            return main.CONNECTION_DONE
        self.disconnecting = 1
        self.stopReading()
        self._update_direct()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()  # connectionLost would stop it a moment later
        return None if self._has_queued_data() else self._send_close_notify()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        Handle the end of the socket, which the reactor saw.  It is clean only
        after the peer's close_notify (RFC 8446 section 6.1).  Half-closing is done
        by TLS, not by the socket.
        """
        self.connectionLost(reason if self._close_notify_received else Failure(main.CONNECTION_LOST))

    def connectionLost(self, reason: Failure) -> None:
        """See `tcp.Connection.connectionLost`."""
        self.server.deadlines.discard(self)
        try:
            super().connectionLost(self._verification_failure or reason)
        finally:
            if self._connection is not None:
                # Break the reference cycle, so that OpenSSL's memory is freed now.
                self._connection.set_app_data(None)
                self._connection = None
