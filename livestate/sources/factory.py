"""Making a source from its URL.

The classes are listed as dotted names and imported when the first URL with their scheme is seen. So a missing driver
matters only to those who use it, and no driver is imported before the reactor is chosen (some import the reactor).
"""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.python.reflect import namedAny

from livestate.config.redaction import redacted
from livestate.errors import SettingsError
from livestate.sources.api import ISource
from livestate.sources.single_store import SingleStore
from livestate.sources.store_address import StoreAddress

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


#: Scheme of a source URL -> dotted name of the function that returns the StoreAddress of a URL, or None if its document
#: shares its store with no other.
SHARED_STORES = dict.fromkeys(
    ("redis", "redis+sentinel", "redis+unix", "rediss", "rediss+sentinel"), "livestate.sources.redis.store.address_of"
)


def make_source(reactor: Any, url: str, max_size: int, option: str = "--source") -> ISource:
    """Return the source for `url`.

    :param max_size: the maximum size of a document in bytes; a source need not read further.
    :param option: the option that the URL was given with, for error messages.
    :raises SettingsError: when the scheme is unknown, the URL is not valid for its scheme, or the driver is not
        installed.
    """
    source: ISource = _call(SCHEMES, url, option, lambda factory: factory(reactor, url, max_size))
    return source


def store_address(url: str, option: str = "--source") -> StoreAddress:
    """Return the store that `url` names, and the key of its document there.

    :param option: the option that the URL was given with, for error messages.
    :raises SettingsError: as for `make_source`. The store's `make` raises it, too.
    """
    address: StoreAddress | None = None
    if _scheme_of(url) in SHARED_STORES:
        address = _call(SHARED_STORES, url, option, lambda address_of: address_of(url))
    if address is None:
        return StoreAddress(url, "", redacted(url), lambda reactor, size: SingleStore(make_source(reactor, url, size)))
    make = address.make
    return address._replace(make=lambda reactor, size: _call(SHARED_STORES, url, option, lambda _: make(reactor, size)))


def _scheme_of(url: str) -> str:
    return url.partition(":")[0].lower()


def _call(table: Mapping[str, str], url: str, option: str, call: Callable[[Any], Any]) -> Any:
    """Return what `call` makes of the object that `table` names for the scheme of `url`.

    :raises SettingsError: in one line that names the option.
    """
    scheme = _scheme_of(url)
    if scheme not in table:
        known = ", ".join(f"{name}:" for name in table)
        raise SettingsError(f"{option} {redacted(url)}: unknown kind of source; supported: {known}")
    try:
        factory = namedAny(table[scheme])
    except ImportError:
        raise SettingsError(
            f"{option} {scheme}: needs a driver that is not installed: pip install 'livestate[{scheme}]'"
        ) from None
    try:
        return call(factory)
    except (SettingsError, ValueError) as error:  # urlsplit raises ValueError for unbalanced brackets
        # A percent-encoded character may be a line break.
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in f"{redacted(url)}: {error}")
        raise SettingsError(f"{option} {text}") from None
