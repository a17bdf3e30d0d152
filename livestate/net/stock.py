"""
Writing at once to a transport of stock Twisted.

Where livestate's own reactor is not in use, a TCP transport queues what is
written and sends it a turn of the loop later, after three more system calls.
`immediate_writer` sends at once what can be sent with nothing queued before
it, and leaves the rest and every error to the transport (`python -m bench`,
peer "livestate-epoll": 14.0 us a request without it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp

__all__ = ["immediate_writer"]


def immediate_writer(transport: Any) -> Callable[[bytes], None]:
    """
    Give a function that writes to `transport`, as soon as that is possible.

    It does what ``transport.write`` does, which is also what is given for all
    transports but Twisted's own `tcp.Server`.  A pull producer must not be
    registered with the transport while it is used.
    """
    if type(transport) is not tcp.Server:
        write: Callable[[bytes], None] = transport.write
        return write

    send = transport.socket.send

    def write_at_once(data: bytes) -> None:
        if (
            transport.dataBuffer
            or transport._tempDataBuffer
            or transport.disconnecting
            or transport.TLS
            or not transport.connected
        ):
            transport.write(data)
            return
        try:
            sent = send(data)
        except OSError:
            # The kernel's buffer is full, or the connection is gone: the
            # transport's own send meets the same, and knows what to do.
            sent = 0
        if sent < len(data):
            transport.write(data[sent:])

    return write_at_once
