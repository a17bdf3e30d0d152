"""Lines of the access log, in the combined format that every log analyser reads."""

import re
from typing import Any, NamedTuple

from twisted.web.http import Request

#: What would end a quoted part early, or make a line look like two: written as \xHH, as Apache does.
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')


def line(peer: Any, when: str, request_line: bytes, status: int, length: int, referer: bytes, agent: bytes) -> str:
    """Give one line.

    :param peer: the client's address, as transports give it.
    :param when: the time as `[day/month/year:hour:minute:second zone]`.
    :param length: bytes of the body that was sent.
    """
    host = getattr(peer, "host", "-")
    quoted = (_UNSAFE.sub(_escaped, text).decode("ascii") for text in (request_line, referer, agent))
    return '{} - - {} "{}" {} {} "{}" "{}"\n'.format(host, when, next(quoted), status, length or "-", *quoted)


class Entry(NamedTuple):
    """What a line says of a request, for one that is answered over hours and not kept for so long."""

    peer: Any
    first_line: bytes
    referer: bytes
    agent: bytes

    def line(self, when: str, status: int, length: int) -> str:
        """Give the line, as `line` does."""
        return line(self.peer, when, self.first_line, status, length, self.referer, self.agent)


def entry_of(request: Request) -> Entry:
    """Give what a line says of a request of twisted.web's."""
    fields = request.requestHeaders
    return Entry(
        request.getClientAddress(),
        b"%b %b %b" % (request.method, request.uri, request.clientproto),
        fields.getRawHeaders(b"Referer", [b"-"])[0],
        fields.getRawHeaders(b"User-Agent", [b"-"])[0],
    )


def line_of_request(request: Request, when: str) -> str:
    """Give the line for a request that twisted.web has answered."""
    return entry_of(request).line(when, request.code, request.sentLength)


_FIELDS = re.compile(rb"\r\n(referer|user-agent):[ \t]*([^\r]*)", re.IGNORECASE)


def line_of_plain(peer: Any, when: str, data: bytes, status: int, length: int) -> str:
    """Give the line for a plain request, of its bytes."""
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELDS.findall(data):
        fields.setdefault(name.lower(), value.rstrip(b" \t"))
    first = data[: data.index(b"\r\n")]
    return line(peer, when, first, status, length, fields.get(b"referer", b"-"), fields.get(b"user-agent", b"-"))


def _escaped(match: "re.Match[bytes]") -> bytes:
    return b"\\x%02x" % match[0][0]
