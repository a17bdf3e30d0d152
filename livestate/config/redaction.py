"""URLs as they may be shown: in the log, in `/status`, and in messages about what was typed.

What is typed wrong is shown too, so that it is found; a password may then stand where none belongs. In doubt more is
hidden than need be.
"""

import re

#: What may be a URL up to the last @, after which no password comes (RFC 3986 section 3.2.1). One slash, or none, is a
#: slip of who typed it.
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*:/*)(.*)@", re.DOTALL)

#: A parameter whose name says that its value is secret. Elsewhere than in HTTP, `key=` names what is fetched.
_SECRET = re.compile(
    r"([?&#][^=&#]*(?:pass|pwd|secret|token|api[-_]?key|signature|credential)[^=&#]*=)[^&#]*", re.IGNORECASE
)
_SECRET_OF_HTTP = re.compile(r"([?&#][^=&#]*(?:key|sig|auth|code|jwt|session)[^=&#]*=)[^&#]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Give a URL, or what was meant to be one, with stars for the password and for what looks like one in its query.

    The user is shown where a password follows: alone it may be a token. A password with a `/`, `?` or `#` in it that
    should have been escaped is hidden too: everything up to the last @.
    """
    shown = _SECRET.sub(r"\1***", _USERINFO.sub(_without_password, text))
    return _SECRET_OF_HTTP.sub(r"\1***", shown) if re.search("https?:/", text, re.IGNORECASE) else shown


def holds_secret(url: str) -> bool:
    """Tell whether there is something in `url` that is not to be shown."""
    return redacted(url) != url


def _without_password(match: re.Match[str]) -> str:
    begin, userinfo = match.groups()
    user, colon, password = userinfo.partition(":")
    if begin.lower().startswith("file:") or (not colon and re.search("[/?#]", userinfo)):
        return match[0]  # an @ in a path or a query
    return f"{begin}{user}:***@" if password else f"{begin}***@"
