"""Where a document and its event stream are."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from livestate.config.redaction import redacted
from livestate.errors import SettingsError

#: ASCII without spaces and controls.
_PLAIN = re.compile("[!-~]+")


@dataclass(frozen=True, slots=True)
class DocumentAddress:
    """A document's URL, understood."""

    #: The document, without user and password.
    document: str
    #: Its event stream, asked for merge patches.
    events: str
    host: str
    secure: bool
    #: User and password for Basic authentication (RFC 7617).
    login: tuple[str, str] | None


def parse_address(url: str) -> DocumentAddress:
    """Understand the URL of a document.

    :raises SettingsError: it is not http://HOST[:PORT]/… or https://…
    """
    try:
        parts = urlsplit(url)
        understood = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and _PLAIN.fullmatch(url)
    except ValueError:  # of the port, or of brackets
        understood = False
    if not understood:
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
