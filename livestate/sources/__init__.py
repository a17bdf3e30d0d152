"""Where documents come from: one module a kind of store, found by the scheme of its URL.

The modules are named here as strings and imported when the first URL of their scheme is met: a driver that
is not installed is missed only by those who ask for it, and none (some import the reactor) is imported
before the reactor is chosen.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny

from livestate.config.redaction import redacted
from livestate.errors import SettingsError
from livestate.sources.api import ISource

T = TypeVar("T")

#: Seconds until a host's next address is tried beside the first. Twisted notices only then that the first one refused:
#: its 0.3 s is more than a fetch may take at short intervals, and stores are near.
ATTEMPT_DELAY = 0.02

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


def within(seconds: float, asking: Coroutine[Any, Any, T], clock: Any) -> Deferred[T]:
    """Run something for at most `seconds`, then call it off.

    Not `Deferred.addTimeout`: what is called off may say so in an exception of its own (a connection attempt:
    ConnectingCancelledError; an HTTP request: ResponseNeverReceived), and that is a timeout here too.

    :raises twisted.internet.defer.TimeoutError: the time was over.
    """
    deferred = Deferred.fromCoroutine(asking)
    over = False

    def end() -> None:
        nonlocal over
        over = True
        deferred.cancel()

    timer = clock.callLater(seconds, end)

    def ended(result: T | Failure) -> T | Failure:
        if timer.active():
            timer.cancel()
        if over and isinstance(result, Failure):
            raise DeferTimeout
        return result

    return deferred.addBoth(ended)


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
