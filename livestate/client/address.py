"""The URLs of a document and of its event stream."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from livestate.config.redaction import redacted
from livestate.errors import SettingsError

#: ASCII without spaces and control characters.
_PRINTABLE_ASCII = re.compile("[!-~]+")


@dataclass(frozen=True, slots=True)
class DocumentAddress:
    """The parsed URL of a document."""

    #: URL of the document, without user and password.
    document: str
    #: URL of its event stream, with the query that requests merge patches.
    events: str
    host: str
    secure: bool
    #: User and password for Basic authentication (RFC 7617).
    login: tuple[str, str] | None


def parse_address(url: str) -> DocumentAddress:
    """Parse the URL of a document.

    :raises SettingsError: when it is not of the form http://HOST[:PORT]/… or https://…
    """
    try:
        parts = urlsplit(url)
        valid = (
            parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and _PRINTABLE_ASCII.fullmatch(url)
        )
    except ValueError:  # from the port, or from unbalanced brackets
        valid = False
    if not valid:
        raise SettingsError(f"{redacted(url)}: expected http://HOST[:PORT]/… or https://…, in ASCII")
    netloc = parts.netloc.rpartition("@")[2]
    events_query = f"{parts.query}&delta=merge" if parts.query else "delta=merge"
    return DocumentAddress(
        document=urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")),
        events=urlunsplit((parts.scheme, netloc, parts.path.rstrip("/") + "/events", events_query, "")),
        host=str(parts.hostname),
        secure=parts.scheme == "https",
        login=None if parts.username is None else (unquote(parts.username), unquote(parts.password or "")),
    )
