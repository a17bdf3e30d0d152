"""Making a source from its URL.

The classes are listed as dotted names and imported when the first URL with their scheme is seen. So a missing driver
matters only to those who use it, and no driver is imported before the reactor is chosen (some import the reactor).
"""

from typing import Any

from twisted.python.reflect import namedAny

from livestate.config.redaction import redacted
from livestate.errors import SettingsError
from livestate.sources.api import ISource

#: Scheme of a source URL -> dotted name of the class for it.
SCHEMES = {
    "demo": "livestate.sources.demo.DemoSource",
    "file": "livestate.sources.file.source.FileSource",
    "http": "livestate.sources.http.source.HTTPSource",
    "https": "livestate.sources.http.source.HTTPSource",
    "mongodb": "livestate.sources.mongodb.source.MongoSource",
    "redis": "livestate.sources.redis.source.RedisSource",
    "redis+cluster": "livestate.sources.redis.source.RedisSource",
    "redis+sentinel": "livestate.sources.redis.source.RedisSource",
    "redis+unix": "livestate.sources.redis.source.RedisSource",
    "rediss": "livestate.sources.redis.source.RedisSource",
    "rediss+cluster": "livestate.sources.redis.source.RedisSource",
    "rediss+sentinel": "livestate.sources.redis.source.RedisSource",
}


def make_source(reactor: Any, url: str, max_size: int, option: str = "--source") -> ISource:
    """Return the source for `url`.

    :param max_size: the maximum size of a document in bytes; a source need not read further.
    :param option: the option that the URL was given with, for error messages.
    :raises SettingsError: when the scheme is unknown, the URL is not valid for its scheme, or the driver is not
        installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise SettingsError(f"{option} {redacted(url)}: unknown kind of source; supported: {known}")
    try:
        factory: Any = namedAny(SCHEMES[scheme])
    except ImportError:
        raise SettingsError(
            f"{option} {scheme}: needs a driver that is not installed: pip install 'livestate[{scheme}]'"
        ) from None
    try:
        source: ISource = factory(reactor, url, max_size)
    except (SettingsError, ValueError) as error:  # urlsplit raises ValueError for unbalanced brackets
        # A percent-encoded character may be a line break.
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in f"{redacted(url)}: {error}")
        raise SettingsError(f"{option} {text}") from None
    return source
