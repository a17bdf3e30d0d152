"""
How a direct TLS connection begins.

Theory of operation
===================

The handshake is driven by events: each read or write event is one step, until it
is done.  What the protocol wrote meanwhile was queued, and is sent then.  One that
takes longer than the port's ``handshake_timeout`` is reset.
"""

from __future__ import annotations

from select import EPOLLOUT

from OpenSSL import SSL
from twisted.internet import interfaces, main

from livestate.net.goodbye import Goodbye

__all__ = ["Handshake"]


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
            self._broken(e)
        else:
            self._established = True
            self.server.deadlines.discard(self)
            self._update_direct()
            if self._queued():
                self.startWriting()
            if interfaces.IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()

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
