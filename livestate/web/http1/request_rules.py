"""twisted.web's channel, with stricter rules about where a request ends.

Theory of operation. A proxy or a cache sends the requests of many clients over one connection. If it and livestate
disagreed on where a request ends, the rest of what one client sent would be taken for another client's request
("request smuggling", RFC 9112 section 11.2). So an ambiguous request is answered 400, and nothing behind it is read.
twisted.web itself refuses most ambiguities: lengths that are not plain numbers, several lengths, or a length together
with Transfer-Encoding; bare CR and LF, NUL; space before a colon; malformed chunks. This module also refuses

- a Transfer-Encoding other than `chunked`, including `identity`, which twisted.web ignores and RFC 9112 does not have;
- any Transfer-Encoding in HTTP/1.0, where it indicates faulty framing (section 6.1);
- a Content-Length of more than 18 digits, which not all programs can represent;
- continued lines (obs-fold, section 5.2), which some programs join and others take for separate fields;
- trailers that are not fields (section 7.1.2), since programs disagree on where they end.
"""

import re

from twisted.web.http import HTTPChannel

#: A field line of a trailer section (RFC 9112 section 5, RFC 9110 sections 5.1 and 5.5).
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

#: A number with this many digits is always below 2^63.
_MAX_DIGITS = 18


class ValidatingChannel(HTTPChannel):
    """Refuses requests that other programs may parse differently."""

    def lineReceived(self, line: bytes) -> None:
        """Handle a line of a request's head."""
        if line[:1] in (b" ", b"\t"):
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """Handle a field, and return whether the request may continue."""
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if (name == b"transfer-encoding" and (value.lower() != b"chunked" or self._version != b"HTTP/1.1")) or (
            name == b"content-length" and len(value) > _MAX_DIGITS
        ):
            self._respondToBadRequestAndDisconnect()
            return False
        good: bool = super().headerReceived(line)
        return good

    def _finishRequestBody(self, data: bytes) -> None:
        """Continue after a body.

        :param data: the data behind the body.
        """
        if all(map(_FIELD_LINE.fullmatch, getattr(self._transferDecoder, "_trailerHeaders", ()))):
            super()._finishRequestBody(data)
        else:
            self._respondToBadRequestAndDisconnect()
