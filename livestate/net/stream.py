"""
Connections on which something is sent now and then for hours.

What is written to a connection can wait in three places: the transport's
queue, the kernel's send buffer, and the network.  For a stream of which only
the newest counts, all that waits is stale.  `hold_little` has

* the transport pause its producer as soon as anything at all is queued (stock
  Twisted: above 64 KB), and resume it when all is sent;
* the kernel take no more than `NOTSENT_LOWAT` bytes beyond what TCP has sent.
  Without it Linux lets the buffer grow to 4 MB (tcp_wmem): a thousand versions
  of a document of 4 KB.  A small SO_SNDBUF would bound that too, but also
  what is under way in the network, and with it the rate of a large document
  on a long line; TCP_NOTSENT_LOWAT leaves that alone;
* the kernel give up a connection whose peer has acknowledged nothing for
  `USER_TIMEOUT` milliseconds.  Else a peer that vanished is held for a quarter
  of an hour (tcp_retries2).

`unsent` tells how much waits in the first two places.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Any

from twisted.internet.abstract import FileDescriptor

__all__ = ["hold_little", "unsent"]

# Bytes.  The kernel rounds up to the segment it is filling, at most 64 KB.
NOTSENT_LOWAT = 16384

# Milliseconds.
USER_TIMEOUT = 30_000


def hold_little(transport: Any) -> None:
    """
    Have `transport`, and the kernel, hold as little as they can of what is
    written.

    @param transport: any; one that is wrapped around others (TLS) counts as
        the innermost.  What is not a socket is left as it is.
    """
    descriptor = _descriptor(transport)
    if descriptor is None:
        return
    descriptor.bufferSize = 0
    if sys.platform != "linux":
        return
    sock = descriptor.getHandle()
    # Unix sockets have no such options.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)


def unsent(transport: Any) -> int:
    """
    How many bytes written to `transport` wait to be sent, or to be
    acknowledged.

    It tells a peer that takes what it is sent, however slowly, from one that
    takes nothing.
    """
    descriptor: Any = _descriptor(transport)
    if descriptor is None:
        return 0
    waiting: int = len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen
    if sys.platform == "linux" and descriptor.connected:
        # SIOCOUTQ, see tcp(7) and unix(7); it has the number of TIOCOUTQ.
        with contextlib.suppress(OSError):
            waiting += struct.unpack("i", fcntl.ioctl(descriptor.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return waiting


def _descriptor(transport: Any) -> Any:
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport
