"""
How a direct TLS connection ends.

Theory of operation
===================

Each side says goodbye once, with the alert close_notify, which closes its own
direction; nobody has to wait for the other's (RFC 8446 section 6.1).
`_say_goodbye` and `_goodbye_heard` are the two events, and the connection is
over, cleanly, after both, or after ours alone:

* `loseConnection` waits for the queue and says it.  Where the peer has long had
  all that it was sent, that is the end.  Else what was sent last may still be
  under way, and would be lost if the peer sent something now to a socket that
  is closed: the kernel resets such a connection (RFC 9112 section 9.6).  So
  reading goes on until the peer's goodbye, for at most the port's
  ``goodbye_timeout``;
* if it is heard first, the queue is sent, it is said, and that is the end;
* `loseWriteConnection` says it and closes the socket's write side;
* the end of the socket without it is `ConnectionLost`.
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

__all__ = ["Goodbye"]

# Milliseconds in which a peer reads what its kernel has acknowledged.
QUIET = 1000

# In Linux' struct tcp_info (tcp(7), linux/tcp.h): the milliseconds since data
# were last sent, and last received.
_TCP_INFO = struct.Struct("44xI4xI")


class Goodbye(SecureTransport):
    """
    The closing half of `livestate.net.tls_transport.DirectTLSServer`.

    @ivar _said_goodbye: our close_notify is sent.
    @ivar _heard_goodbye: the peer's close_notify was received.
    @ivar _fate: why the connection is to be lost at the next chance.
    """

    _said_goodbye = False
    _heard_goodbye = False
    _fate: BaseException | None = None

    def _queued(self) -> bool:
        return bool(self.dataBuffer or self._tempDataBuffer)

    def _broken(self, error: SSL.Error) -> BaseException:
        # The end of the socket without close_notify, or its failure, is what
        # it would be without TLS; all else is TLS's own.
        self._fate = main.CONNECTION_LOST if isinstance(error, SSL.SysCallError) else error
        self._update_direct()
        return self._fate

    def loseConnection(self) -> None:
        """
        Send what is queued and close_notify, and close when the peer has
        answered it.  During a handshake with nothing written: abort.
        """
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = 1
        self._direct = False
        if self._queued():
            return  # doWrite goes on when it is sent
        if not self._established:
            self.abortConnection()
        elif self.producer is None:
            why = self._say_goodbye()
            if why is not None:
                self._fate = why
                self.reactor.run_after_poll(self, EPOLLOUT)

    def _postLoseConnection(self) -> BaseException | None:
        # Called by FileDescriptor.doWrite: the queue is sent.  A producer may
        # have more; unregistering it leads here again.
        return self._say_goodbye() if self.producer is None else None

    def _closeWriteConnection(self) -> BaseException | None:  # type: ignore[override]  # doWrite takes a reason
        # The same for loseWriteConnection: close_notify closes one direction.
        why = self._say_goodbye()
        if self._said_goodbye:
            SecureTransport._closeWriteConnection(self)
        else:
            self._writeDisconnected = False  # not yet: doWrite comes again
        return why

    def _say_goodbye(self) -> BaseException | None:
        """
        Send close_notify, once.

        @return: the reason if the connection is over, else None.
        """
        quiet = self._heard_goodbye or (self.disconnecting and self._quiet())
        if not self._said_goodbye:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                self.startWriting()
                return None
            except SSL.Error as e:
                # A peer that said goodbye need not stay to hear ours.
                return main.CONNECTION_DONE if self._heard_goodbye else self._broken(e)
            self._said_goodbye = True
        if quiet:
            return main.CONNECTION_DONE
        if self.disconnecting:
            self.server.deadlines.add(self, self.server.goodbye_timeout)
            self.startReading()
        return None

    def _quiet(self) -> bool:
        """Has the peer had all that it was sent, and sent nothing, for a while?"""
        if unsent(self):
            return False
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # not TCP
            return False
        return len(info) == _TCP_INFO.size and min(_TCP_INFO.unpack(info)) >= QUIET

    def _goodbye_heard(self) -> BaseException | None:
        self._heard_goodbye = True
        if self._said_goodbye:
            return main.CONNECTION_DONE
        self.disconnecting = 1
        self.stopReading()
        self._update_direct()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()  # as it would be told a moment later
        return None if self._queued() else self._say_goodbye()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The reactor saw the end of the socket.  Without the peer's goodbye it
        is no clean end (RFC 8446 section 6.1); half-closing is TLS's affair.
        """
        self.connectionLost(reason if self._heard_goodbye else Failure(main.CONNECTION_LOST))

    def connectionLost(self, reason: Failure) -> None:
        """See `tcp.Connection.connectionLost`."""
        self.server.deadlines.discard(self)
        super().connectionLost(self._verification or reason)
        if self._connection is not None:
            # Break the cycle, so that OpenSSL's memory is freed now.
            self._connection.set_app_data(None)
            self._connection = None
