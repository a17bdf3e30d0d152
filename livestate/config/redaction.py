"""Hide passwords in URLs that are shown: in the log, in `/status`, and in messages about wrong options.

A mistyped URL is shown as well, so that the user can find it, and may contain a password in an unexpected place. If in
doubt, too much is hidden rather than too little.
"""

import re

#: A possible URL up to its last @; no password follows after that (RFC 3986 section 3.2.1). One slash, or none, is a
#: typing error.
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*:/*)(.*)@", re.DOTALL)

#: A parameter whose name says that its value is secret. `key=` is one in HTTP URLs only; in others it names the
#: document.
_SECRET = re.compile(
    r"([?&#][^=&#]*(?:pass|pwd|secret|token|api[-_]?key|signature|credential)[^=&#]*=)[^&#]*", re.IGNORECASE
)
_HTTP_SECRET = re.compile(r"([?&#][^=&#]*(?:key|sig|auth|code|jwt|session)[^=&#]*=)[^&#]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return a URL, possibly a malformed one, with `***` for its password and for secrets in its query.

    The user name is shown if a password follows; without one it may be a token, and is hidden. If a password contains a
    `/`, `?` or `#` that should have been escaped, everything up to the last @ is hidden.
    """
    shown = _SECRET.sub(r"\1***", _USERINFO.sub(_without_password, text))
    return _HTTP_SECRET.sub(r"\1***", shown) if re.search("https?:/", text, re.IGNORECASE) else shown


def holds_secret(url: str) -> bool:
    """Return whether `url` contains a secret."""
    return redacted(url) != url


def _without_password(match: re.Match[str]) -> str:
    begin, userinfo = match.groups()
    user, colon, password = userinfo.partition(":")
    if begin.lower().startswith("file:") or (not colon and re.search("[/?#]", userinfo)):
        return match[0]  # an @ in a path or a query
    return f"{begin}{user}:***@" if password else f"{begin}***@"
