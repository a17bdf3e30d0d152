"""
How a direct TLS connection begins.

Theory of operation
===================

The handshake is driven by events: each read or write event is one step, until it
is done.  What the protocol wrote meanwhile was queued, and is sent then.  One that
takes longer than the port's ``handshake_timeout`` is reset.

A client that speaks HTTP without TLS, because somebody wrote ``http://`` where
``https://`` was meant, is told so in HTTP, as nginx and Go's net/http do it.
OpenSSL knows such a client by its first bytes, of which it has read five.
"""

from __future__ import annotations

import contextlib
from select import EPOLLOUT

from OpenSSL import SSL
from twisted.internet import interfaces, main

from livestate.net.goodbye import Goodbye

__all__ = ["Handshake"]

# What a client is told that speaks HTTP without TLS.
_NO_TLS = b"This port speaks HTTPS: write https:// in place of http://.\n"
_NO_TLS_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
) % (len(_NO_TLS), _NO_TLS)

# OpenSSL's words for that (SSL_R_HTTP_REQUEST).
_HTTP_REQUEST = "http request"


class Handshake(Goodbye):
    """The opening half of `livestate.net.tls_transport.DirectTLSServer`."""

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
            self._broken(e)
        else:
            self._established = True
            self.server.deadlines.discard(self)
            self._update_direct()
            if self._queued():
                self.startWriting()
            if interfaces.IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()

    def _refuse_http(self) -> None:
        # The rest of the request is read first: the kernel resets a connection
        # that is closed with something unread, and the answer could be lost.
        with contextlib.suppress(OSError):
            self.socket.recv(self.read_size)
            self.socket.send(_NO_TLS_ANSWER)

    def overdue(self) -> None:
        """
        Called by the port's `Deadlines`: the handshake, or the peer's
        goodbye, took too long.
        """
        if self._established:
            self._fate = main.CONNECTION_DONE
            self.reactor.run_after_poll(self, EPOLLOUT)
        else:
            self.abortConnection()
