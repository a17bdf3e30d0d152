"""Parsing the parts that URLs of several kinds of source have in common."""

from urllib.parse import SplitResult, unquote

from livestate.errors import SettingsError


def port_of(parts: SplitResult) -> int | None:
    """Return a URL's port, or None when it has none.

    :raises SettingsError: when it is not a valid port. The message does not repeat it, as it may be part of a password.
    """
    try:
        return parts.port
    except ValueError:
        raise SettingsError(
            "the port must be a number from 0 to 65535; percent-encode / ? # @ : in a password"
        ) from None


def query_of(parts: SplitResult, allowed: frozenset[str]) -> dict[str, str]:
    """Parse the query of a source URL.

    :raises SettingsError: when a name is not in `allowed` or is given twice.
    """
    query: dict[str, str] = {}
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name not in allowed:
            raise SettingsError(f"unknown parameter {name!r}; supported: {', '.join(sorted(allowed)) or 'none'}")
        if name in query:
            raise SettingsError(f"parameter {name!r} is given twice")
        query[name] = unquote(value)
    return query
