"""Lines of the access log, in the combined format that every log analyser reads."""

import re
from typing import Any, NamedTuple

from twisted.web.http import Request

#: What would end a quoted part early, or make a line look like two: written as \xHH, as Apache does.
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')


def line(host: str, when: str, request_line: bytes, status: int, length: int, referer: bytes, agent: bytes) -> str:
    """Give one line.

    :param host: the client's address.
    :param when: the time as `[day/month/year:hour:minute:second zone]`.
    :param length: bytes of the body that was sent.
    """
    first = _quotable(request_line)
    return f'{host} - - {when} "{first}" {status} {length or "-"} "{_quotable(referer)}" "{_quotable(agent)}"\n'


def host_of(peer: Any) -> str:
    """Give a client's address as it is logged; over a Unix socket there is none."""
    return getattr(peer, "host", None) or "-"


class Entry(NamedTuple):
    """What a line says of a request, for one that is answered over hours and not kept for so long."""

    host: str
    first_line: bytes
    referer: bytes
    agent: bytes

    def line(self, when: str, status: int, length: int) -> str:
        """Give the line, as `line` does."""
        return line(self.host, when, self.first_line, status, length, self.referer, self.agent)


def entry_of(request: Request) -> Entry:
    """Give what a line says of a request of twisted.web's."""
    fields = request.requestHeaders
    return Entry(
        host_of(request.getClientAddress()),
        b"%b %b %b" % (request.method, request.uri, request.clientproto),
        fields.getRawHeaders(b"Referer", [b"-"])[0],
        fields.getRawHeaders(b"User-Agent", [b"-"])[0],
    )


def line_of_plain(host: str, when: str, data: bytes, status: int, length: int) -> str:
    """Give the line for a plain request, of its bytes; all in all a line costs 3.5 µs (bench/NOTES.md)."""
    folded = data.lower()
    referer, agent = _field(data, folded, b"\r\nreferer:"), _field(data, folded, b"\r\nuser-agent:")
    return line(host, when, data[: data.index(b"\r\n")], status, length, referer, agent)


def line_of_request(request: Request, when: str) -> str:
    """Give the line for a request that twisted.web has answered."""
    return entry_of(request).line(when, request.code, request.sentLength)


def _field(data: bytes, folded: bytes, name: bytes) -> bytes:
    start = folded.find(name)
    if start < 0:
        return b"-"
    start += len(name)
    return data[start : data.index(b"\r\n", start)].strip(b" \t")


def _quotable(text: bytes) -> str:
    # Replacing nothing would cost a microsecond; looking costs a fifth of that.
    if text.isascii():
        plain = text.decode("ascii")
        if plain.isprintable() and '"' not in plain and "\\" not in plain:
            return plain
    return _UNSAFE.sub(lambda match: b"\\x%02x" % match[0][0], text).decode("ascii")
