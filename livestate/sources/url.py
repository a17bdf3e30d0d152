"""Parts of source URLs that several kinds of source have in common."""

from urllib.parse import SplitResult, unquote

from livestate.errors import SettingsError


def port_of(parts: SplitResult) -> int | None:
    """Give a URL's port, None where it names none.

    :raises SettingsError: it is no port number. What stands there is not shown: it may be part of a password.
    """
    try:
        return parts.port
    except ValueError:
        raise SettingsError(
            "the port is a number from 0 to 65535; in a password, each of / ? # @ : is percent-encoded"
        ) from None


def query_of(parts: SplitResult, allowed: frozenset[str]) -> dict[str, str]:
    """Take a source URL's query apart, each name at most once.

    :raises SettingsError: a name that is not in `allowed` or comes twice.
    """
    query: dict[str, str] = {}
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name not in allowed:
            raise SettingsError(f"unknown parameter {name!r}; there are {', '.join(sorted(allowed))}")
        if name in query:
            raise SettingsError(f"parameter {name!r} is given twice")
        query[name] = unquote(value)
    return query
