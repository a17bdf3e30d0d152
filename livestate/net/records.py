"""
Reading and writing TLS records directly on a socket, with pyOpenSSL.

Theory of operation
===================

Twisted's connection creators make `OpenSSL.SSL.Connection` objects on memory
BIOs.  `attach` moves such an object to the real socket (``SSL_set_fd`` frees the
BIOs), so it keeps everything that the creator set on it: callbacks, verification,
options, application data.

`read_record` and `write_record` are ``Connection.recv`` and ``Connection.send``
without their overhead: ``recv`` allocates a buffer for each call, ``send`` makes
a buffer object from the bytes, and both query the error state after a success.

All reads share one buffer.  It has the size of the largest record (2^14 bytes, RFC
8446 section 5.1), so one read empties a record, and no decrypted data waits inside
OpenSSL for an event that never comes.  (OpenSSL reads ahead only if told to, and
pyOpenSSL offers no way to tell it.)  One buffer is enough because a process runs
one reactor in one thread, and the bytes are copied out before anything else runs.

This uses private names of pyOpenSSL.  If they are missing, its public methods do the
same, more slowly.  `attach` then makes a new connection on the socket from the
creator's context and application data, and loses what the creator set on the
connection itself.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

__all__ = ["RECORD_SIZE", "attach", "read_record", "session_reused", "write_record"]

RECORD_SIZE = 2**14
"""The largest number of plaintext bytes in one record (RFC 8446 section 5.1)."""

# From ssl.h; pyOpenSSL exports the function that takes them, but not the names.
# PARTIAL_WRITE: a write that fills the socket reports how many records were sent.
# MOVING_BUFFER: a repeated write may come from a different address.
# RELEASE_BUFFERS: an idle connection keeps no record buffers (Twisted's
# CertificateOptions sets it too; other context factories do not).
MODES = 0x1 | 0x2 | 0x10

Bytes = bytes | memoryview


def _public_attach(connection: SSL.Connection, sock: socket.socket) -> SSL.Connection:
    context = connection.get_context()
    # pyOpenSSL refuses to change a context that is in use.  It sets the first two
    # modes itself; without the third, an idle connection merely takes more memory.
    with contextlib.suppress(ValueError):
        context.set_mode(MODES)
    attached = SSL.Connection(context, sock)
    attached.set_app_data(connection.get_app_data())
    attached.set_accept_state()
    return attached


def _public_read(connection: SSL.Connection) -> bytes:
    return connection.recv(RECORD_SIZE)


def _public_write(connection: SSL.Connection, data: Bytes) -> int:
    return connection.send(data)


def session_reused(connection: Any) -> bool:
    """
    Return whether a connection's handshake resumed an earlier session.

    pyOpenSSL has no public name for this.  If the private name is missing, the
    answer is always False.
    """
    try:
        from OpenSSL._util import lib  # noqa: PLC0415  # may be missing one day

        return bool(lib.SSL_session_reused(connection._ssl))
    except (ImportError, AttributeError):
        return False


def _make_private() -> tuple[Callable[..., Any], ...]:
    """
    Return `attach`, `read_record` and `write_record`, made from pyOpenSSL's private
    names.

    @raise AttributeError: when one of the names is missing.
    @raise ImportError: when their module is missing.
    """
    from OpenSSL._util import ffi, lib  # noqa: PLC0415  # may be missing one day

    ssl_read, ssl_write, set_fd, set_mode = (
        lib.SSL_read,
        lib.SSL_write,
        lib.SSL_set_fd,
        lib.SSL_set_mode,
    )
    from_buffer = ffi.from_buffer
    memory = ffi.new("char[]", RECORD_SIZE)
    view = ffi.buffer(memory)
    # Only to raise AttributeError now: the functions below find it on instances.
    _ = SSL.Connection._raise_ssl_error

    def attach(connection: Any, sock: socket.socket) -> Any:
        ssl = connection._ssl
        set_mode(ssl, MODES)
        if set_fd(ssl, sock.fileno()) != 1:
            connection._raise_ssl_error(ssl, 0)
        connection._socket = sock
        connection._into_ssl = connection._from_ssl = None
        return connection

    def read(connection: Any) -> bytes:
        ssl = connection._ssl
        size = ssl_read(ssl, memory, RECORD_SIZE)
        if size <= 0:
            connection._raise_ssl_error(ssl, size)
        return view[:size]  # type: ignore[no-any-return]

    def write(connection: Any, data: Bytes) -> int:
        ssl = connection._ssl
        pointer = data if type(data) is bytes else from_buffer(data)
        sent: int = ssl_write(ssl, pointer, len(data))
        if sent <= 0:
            connection._raise_ssl_error(ssl, sent)
        return sent

    return attach, read, write


attach: Callable[[SSL.Connection, socket.socket], SSL.Connection]
read_record: Callable[[SSL.Connection], bytes]
write_record: Callable[[SSL.Connection, Bytes], int]

try:
    attach, read_record, write_record = _make_private()
except (ImportError, AttributeError):
    attach, read_record, write_record = _public_attach, _public_read, _public_write
