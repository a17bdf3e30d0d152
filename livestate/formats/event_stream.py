"""Server-sent events as bytes (HTML Standard section 9.2), and chunks of HTTP/1.1 to send them in.

An event is encoded once and the same bytes go to every reader, so the chunk around it is made here too.
"""

MEDIA_TYPE = b"text/event-stream"

#: A line without a field name: readers pass over it, and proxies see that the connection lives.
COMMENT = b":\n\n"

#: What ends a body that is sent in chunks (RFC 9112 section 7.1).
LAST_CHUNK = b"0\r\n\r\n"


def event(name: bytes, data: bytes, kind: bytes = b"") -> bytes:
    """Give one event.

    :param name: its `id`: what the reader names as Last-Event-ID when it comes back.
    :param data: UTF-8; of each line one `data:` field is made. A line ends with LF, CR or CRLF (section 9.2.5), and the
        reader is given LF for each; in JSON, these are only between values.
    :param kind: the event's type, without which it is a `message`.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    named = b"event: %b\n" % kind if kind else b""
    return b"%bid: %b\ndata: %b\n\n" % (named, name, data)


def retry(milliseconds: int) -> bytes:
    """Give the field that says how long a reader waits before it comes back."""
    return b"retry: %d\n\n" % milliseconds


def chunk(data: bytes) -> bytes:
    """Give `data`, which is not empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunked_length(data: bytes) -> int:
    """Give how many bytes of the body there are in one chunk, or in the last one."""
    return len(data) - data.index(b"\r\n") - 4
