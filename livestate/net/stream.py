"""
Long-lived connections that send something now and then.

Data written to a connection can wait in three places: the transport's queue, the
kernel's send buffer, and the network.  In a stream where only the newest state
matters, all data that waits is stale.  `limit_buffering` makes

* a direct transport pause its producer as soon as anything is queued, and resume it
  when everything is sent.  A stock Twisted transport, which pauses its producer
  above 64 KB by default, then pauses it above 4 KB.  The same bound limits how much
  it reads at a time;
* the kernel accept little more than `NOTSENT_LOWAT` bytes beyond what TCP has sent.
  By default, Linux lets its buffer grow to 4 MB (tcp_wmem): a peer that read
  nothing was 934 versions of a 4.3 KB document behind, and 39 with this limit (27 of
  them in its own receive buffer).  A small SO_SNDBUF does the same for small
  documents, but it also bounds the data in transit in the network, and with it the
  throughput of a large document on a high-latency path;
* the kernel drop a connection whose peer has acknowledged nothing for
  `USER_TIMEOUT` milliseconds.  By default, a peer that vanished is kept for a
  quarter of an hour (tcp_retries2).

`unsent` returns how much data waits in the first two places.
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

__all__ = ["limit_buffering", "unsent"]

# Bytes.  The kernel still fills the segment it has begun, of at most 64 KB.
NOTSENT_LOWAT = 16384

# Bytes that a stock Twisted transport queues before it pauses its producer, and the
# most it reads at a time.
STOCK_BUFFER = 4096

# Milliseconds.
USER_TIMEOUT = 30_000


def limit_buffering(transport: Any) -> None:
    """
    Make `transport` and the kernel buffer as little written data as they can.

    @param transport: any transport.  If it wraps another one (TLS), this applies to
        the innermost.  A transport without a socket is left unchanged.
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
    Return how many bytes written to `transport` have not been sent, or not been
    acknowledged yet.

    The number tells a peer that receives data, however slowly, from one that
    receives nothing.
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
