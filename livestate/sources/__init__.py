"""Where documents come from: one module a kind of store, found by the scheme of its URL.

The modules are named here as strings and imported when the first URL of their scheme is met: a driver that
is not installed is missed only by those who ask for it, and none (some import the reactor) is imported
before the reactor is chosen.
"""

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.python.reflect import namedAny

from livestate.errors import SettingsError
from livestate.interfaces import ISource

#: Scheme of a source URL -> dotted name of what makes the source from it.
SCHEMES = {
    "demo": "livestate.sources.demo.DemoSource",
    "file": "livestate.sources.file.FileSource",
    "http": "livestate.sources.http.HTTPSource",
    "https": "livestate.sources.http.HTTPSource",
    "mongodb": "livestate.sources.mongodb.MongoSource",
    "redis": "livestate.sources.redis.RedisSource",
    "redis+unix": "livestate.sources.redis.RedisSource",
    "rediss": "livestate.sources.redis.RedisSource",
}


def make_source(reactor: Any, url: str, max_size: int) -> ISource:
    """Make the source that `url` names.

    :param max_size: the most bytes a document may have; a source need not read further.
    :raises SettingsError: no such kind of source, a URL that its kind does not understand, or a driver
        that is not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise SettingsError(f"--source {redacted(url)}: no source of that kind; there are {known}")
    try:
        factory: Any = namedAny(SCHEMES[scheme])
    except ImportError as error:
        raise SettingsError(
            f"--source {scheme}: needs the package {error.name!r}: pip install 'livestate[{scheme}]'"
        ) from None
    try:
        source: ISource = factory(reactor, url, max_size)
    except SettingsError as error:
        raise SettingsError(f"--source {redacted(url)}: {error}") from None
    return source


def redacted(url: str) -> str:
    """Give `url` as it may be shown: the password, and in a query anything named like one, replaced by stars."""
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()
    except ValueError:
        return url.partition(":")[0] + ":…"


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
