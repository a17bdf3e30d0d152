"""
The TLS handshake of a direct connection.

Theory of operation
===================

Events drive the handshake: each read or write event is one step, until it is done.
Whatever the protocol writes in the meantime is queued, and sent afterwards.  A
connection whose handshake takes longer than the port's ``handshake_timeout`` is
reset.

A client that speaks HTTP without TLS, because someone wrote ``http://`` instead of
``https://``, gets an HTTP answer that says so, as from nginx and Go's net/http.
OpenSSL recognises such a client by its first bytes, of which it has read five.
"""

from __future__ import annotations

import contextlib
from select import EPOLLOUT

from OpenSSL import SSL
from twisted.internet import interfaces, main

from livestate.net.close_notify import CloseNotify

__all__ = ["Handshake"]

# The answer to a client that speaks HTTP without TLS.
_NO_TLS = b"This port speaks HTTPS; use https:// instead of http://.\n"
_NO_TLS_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
) % (len(_NO_TLS), _NO_TLS)

# OpenSSL's error text for such a client (SSL_R_HTTP_REQUEST).
_HTTP_REQUEST = "http request"


class Handshake(CloseNotify):
    """The part of `livestate.net.tls_transport.DirectTLSServer` that does the handshake."""

    def _handshake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.WantWriteError:
            self.startWriting()
        except SSL.Error as e:
            if _HTTP_REQUEST in str(e):
                self._refuse_http()
            self._fail(e)
        else:
            self._established = True
            self.server.deadlines.discard(self)
            self._update_direct()
            if self._has_queued_data():
                self.startWriting()
            if interfaces.IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()

    def _refuse_http(self) -> None:
        # Read the rest of the request first: the kernel resets a connection that
        # is closed with unread data, and the answer could be lost.
        with contextlib.suppress(OSError):
            self.socket.recv(self.read_size)
            self.socket.send(_NO_TLS_RESPONSE)

    def deadline_passed(self) -> None:
        """
        End the connection: the handshake, or the peer's close_notify, took too
        long.  The port's `Deadlines` calls this.
        """
        if self._established:
            self._loss_reason = main.CONNECTION_DONE
            self.reactor.run_after_poll(self, EPOLLOUT)
        else:
            self.abortConnection()
