"""All documents that come from one Redis, or from one primary behind Sentinels.

Many keys are read with one MGET. A key is read alone if it cannot be read together with others: MGET takes a value that
is not a string for a missing one, and one value that is too large, or that the user may not read, fails all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlencode

from zope.interface import implementer

from livestate.config.redaction import redacted
from livestate.errors import DocumentMissing, LivestateError, SourceError
from livestate.sources.api import IWatchingStore
from livestate.sources.redis.channel import RedisChannel
from livestate.sources.redis.connection import RedisServer, UnusableValue
from livestate.sources.redis.deployments import make_deployment
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.tracking import TrackedConnection, Tracking
from livestate.sources.redis.url import KEYSPACE, POLL, parse
from livestate.sources.store_address import StoreAddress

#: What Redis says to a user who may not use MGET at all.
_NO_MGET = "'mget'"


def address_of(url: str) -> StoreAddress | None:
    """Return the store that a URL names, and the key in it.

    :return: None where the documents of that kind of URL do not share a store: in a cluster each key has its own node,
        and with `notify=keyspace` its own channel.
    :raises SettingsError: when it is not such a URL.
    """
    parts, query = parse(url)
    key = query.pop("key", "livestate")
    if parts.scheme.lower().endswith("+cluster") or query.get("notify") == KEYSPACE:
        return None
    identity = parts._replace(query=urlencode(sorted(query.items())), fragment="").geturl()
    make = partial(RedisStore, parts=parts, query=query, name=redacted(identity))
    return StoreAddress(identity, key, redacted(url), make)


@implementer(IWatchingStore)
class RedisStore:
    """Reads keys, and is notified of their changes."""

    def __init__(self, reactor: Any, max_size: int, parts: SplitResult, query: dict[str, str], name: str) -> None:
        """:param max_size: the maximum size of a value in bytes.
        :param parts: the parts of the URL, and `query` its parameters, without the key.
        :param name: the name for logs, without passwords.
        :raises SettingsError: when the URL cannot be used.
        """
        self._name = name
        self._max_size = max_size
        notify = query.get("notify")
        self._tracking = Tracking(reactor, name) if notify is None else None
        make: Callable[[RedisServer], PersistentConnection] = (
            partial(PersistentConnection, max_size=max_size)
            if self._tracking is None
            else partial(TrackedConnection, max_size=max_size, tracking=self._tracking)
        )
        self._deployment = make_deployment(reactor, parts, query, b"", max_size, name, make)
        self._channel: RedisChannel | None = None
        if notify not in (None, POLL):
            self._channel = RedisChannel(reactor, self._deployment, str(notify).encode(), False, name, max_size)
            self._deployment.moved = self._channel.reconnect
        #: Keys that had no value when they were last read, keys that cannot be read together with others, and whether
        #: MGET is not for this user.
        self._missing: set[str] = set()
        self._alone: set[str] = set()
        self._no_mget = False

    def __str__(self) -> str:
        return self._name

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes | LivestateError]:
        """MGET the keys, or GET those that are to be read alone."""
        together = [] if self._no_mget else [key for key in keys if key not in self._alone]
        values: dict[str, bytes | LivestateError] = {}
        if len(together) > 1:
            try:
                values = await self._read_together(together)
            except UnusableValue as error:
                # Which of them it is about shows when each is read alone.
                self._no_mget = _NO_MGET in str(error)
        for key in keys:
            if key not in values:
                values[key] = await self._read_alone(key)
        return values

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call `changed` for each key that Redis reports, or for whatever is published on the channel of `notify`."""
        if self._tracking is not None:
            self._tracking.changed = changed
        if self._channel is not None:
            self._channel.start(lambda: changed(None))

    async def confirm(self) -> bool:
        """Return whether Redis tracks the keys, and has reported those that have changed."""
        return self._tracking is not None and await self._tracking.confirm()

    def close(self) -> None:
        """Close the connections."""
        self._deployment.disconnect()
        if self._channel is not None:
            self._channel.stop()

    async def _read_together(self, keys: list[str]) -> dict[str, bytes | LivestateError]:
        reply = await self._deployment.read("MGET", *map(_encoded, keys))
        if not isinstance(reply, list) or len(reply) != len(keys):
            self._deployment.disconnect()
            raise SourceError("not a Redis reply to MGET")
        values: dict[str, bytes | LivestateError] = {}
        for key, value in zip(keys, reply, strict=True):
            if isinstance(value, bytes):
                self._missing.discard(key)
                values[key] = value
            elif key in self._missing:
                values[key] = _missing(key)
        return values

    async def _read_alone(self, key: str) -> bytes | LivestateError:
        """GET a key. Check its length first if it was unusable: a value that is too large costs the connection."""
        try:
            if key in self._alone:
                length = await self._deployment.read("STRLEN", _encoded(key))
                if isinstance(length, int) and length > self._max_size:
                    return SourceError(f"the value has {length:,} bytes, and --max-size is {self._max_size:,}")
            value = await self._deployment.read("GET", _encoded(key))
        except UnusableValue as error:
            self._alone.add(key)
            return SourceError(str(error))
        self._alone.discard(key)
        if value is None:
            self._missing.add(key)
            return _missing(key)
        self._missing.discard(key)
        if not isinstance(value, bytes):
            self._deployment.disconnect()
            raise SourceError("not a Redis reply to GET")
        return value


def _encoded(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _missing(key: str) -> DocumentMissing:
    return DocumentMissing(f"no such key: {key!r}")
