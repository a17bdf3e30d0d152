"""Making the source that a URL names.

The classes are named here as strings and imported when the first URL of their scheme is met: a driver that is not
installed matters only to those who use it, and none (some import the reactor) is imported before the reactor is chosen.
"""

from typing import Any

from twisted.python.reflect import namedAny

from livestate.config.redaction import redacted
from livestate.errors import SettingsError
from livestate.sources.api import ISource

#: Scheme of a source URL -> dotted name of what makes the source from it.
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
    """Make the source that `url` names.

    :param max_size: the most bytes a document may have; a source need not read further.
    :param option: where the URL was given, for messages.
    :raises SettingsError: no such kind of source, a URL that its kind does not understand, or a driver
        that is not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise SettingsError(f"{option} {redacted(url)}: no source of that kind; there are {known}")
    try:
        factory: Any = namedAny(SCHEMES[scheme])
    except ImportError:
        raise SettingsError(
            f"{option} {scheme}: needs a driver that is not installed: pip install 'livestate[{scheme}]'"
        ) from None
    try:
        source: ISource = factory(reactor, url, max_size)
    except (SettingsError, ValueError) as error:  # urlsplit's, of brackets that do not match
        # What was percent-encoded may be the end of a line.
        text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in f"{redacted(url)}: {error}")
        raise SettingsError(f"{option} {text}") from None
    return source
