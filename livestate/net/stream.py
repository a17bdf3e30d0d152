"""
Connections on which something is sent now and then for hours.

What is written to a connection can wait in three places: the transport's
queue, the kernel's send buffer, and the network.  For a stream of which only
the newest counts, all that waits is stale.  `hold_little` has

* a direct transport pause its producer as soon as anything at all is queued,
  and resume it when all is sent.  One of stock Twisted, which would pause it
  above 64 KB, does so above 4 KB: it reads no more at a time than that bound;
* the kernel take little more than `NOTSENT_LOWAT` bytes beyond what TCP has
  sent.  Without it Linux lets its buffer grow to 4 MB (tcp_wmem): a peer that
  read nothing was 934 versions of a document of 4.3 KB behind, and 39 with it
  (27 of them in its own receive buffer).  A small SO_SNDBUF does the same for
  small documents, but it bounds what is under way in the network too, and
  with it the rate of a large document on a long line;
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

from livestate.net.transport import DirectServer

__all__ = ["hold_little", "unsent"]

# Bytes.  The kernel goes on to fill the segment it has begun, of 64 KB at most.
NOTSENT_LOWAT = 16384

# Bytes that a transport of stock Twisted queues without pausing its producer,
# and asks for in one read.
STOCK_BUFFER = 4096

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
    descriptor.bufferSize = 0 if isinstance(descriptor, DirectServer) else STOCK_BUFFER
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
