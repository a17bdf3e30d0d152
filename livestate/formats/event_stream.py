"""Server-sent events as bytes (HTML Standard section 9.2), and HTTP/1.1 chunks to send them in.

An event is encoded once, and all subscribers get the same bytes, so the chunk around it is made here too.
"""

MEDIA_TYPE = b"text/event-stream"

#: A line without a field name, which clients ignore. It shows proxies that the connection is alive.
COMMENT = b":\n\n"

#: The end of a chunked body (RFC 9112 section 7.1).
LAST_CHUNK = b"0\r\n\r\n"


def event(event_id: bytes, data: bytes, event_type: bytes = b"") -> bytes:
    """Return one encoded event.

    :param event_id: the `id` field, which the client sends back as Last-Event-ID when it reconnects.
    :param data: UTF-8. Each line becomes one `data:` field. A line ends with LF, CR or CRLF (section 9.2.5), and the
        client gets LF for each of them; in JSON, they occur only between values.
    :param event_type: the event's type; if empty, the client takes it as `message`.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    type_field = b"event: %b\n" % event_type if event_type else b""
    return b"%bid: %b\ndata: %b\n\n" % (type_field, event_id, data)


def retry(milliseconds: int) -> bytes:
    """Return the field that tells a client how long to wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk (RFC 9112 section 7.1). It must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunked_length(data: bytes) -> int:
    """Return how many bytes of the body one chunk holds; `LAST_CHUNK` holds none."""
    return len(data) - data.index(b"\r\n") - 4
