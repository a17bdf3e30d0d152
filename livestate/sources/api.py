"""The interfaces that stores and sources implement.

A *store* is what all documents of one authority have in common: it has the connection, and reads many documents at
once. A *source* is one document of a kind of store that can only read one thing at a time, such as an HTTP server;
`livestate.sources.single_store` makes a store of one document from it.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from zope.interface import Interface

from livestate.errors import LivestateError


class ISource(Interface):
    """The store that one document is fetched from.

    A source is made before the reactor runs, and connects at the first fetch. Only one fetch runs at a time. The caller
    limits how long a fetch may take and may cancel it at any moment; the next one must work all the same, on a new
    connection if need be.
    """

    def fetch() -> Coroutine[Any, Any, bytes]:
        """Return the document's bytes as they are in the store now.

        :raises SourceError: when the store cannot be reached or refuses; `DocumentMissing` when it does not have the
            document. Any other exception is taken for a bug in the source and logged with its traceback.
        """

    def close() -> None:
        """Close all connections. Called once; `fetch` is not called after it."""

    def __str__() -> str:
        """Return a name for logs and status, without passwords."""


class IWatching(ISource):
    """A source whose store notifies it when the document may have changed.

    A notification only makes the next fetch come sooner. Nothing relies on it: the source is still polled at every
    interval. So a source may notify too often, and one that cannot listen logs the reason once and keeps trying.
    """

    def watch(changed: Callable[[], None]) -> None:
        """Call `changed` in the reactor's thread whenever the document may have changed, until `close`.

        Called once, after the reactor has started. Raises nothing.
        """


class IWritableSource(ISource):
    """A source that can be written to."""

    def publish(data: bytes) -> Coroutine[Any, Any, None]:
        """Store `data` as the document.

        :raises SourceError: as for `fetch`.
        """


class IStore(Interface):
    """Where the documents of one authority come from.

    A store is made before the reactor runs, and connects at the first read. Only one read runs at a time. The caller
    limits how long a read may take and may cancel it at any moment; the next one must work all the same, on a new
    connection if need be.
    """

    def read(keys: Sequence[str]) -> Coroutine[Any, Any, Mapping[str, bytes | LivestateError]]:
        """Return what the store has now for each of some keys.

        The value of a key is its bytes, or an error that concerns this key alone: `DocumentMissing` when there is no
        such key, another one when its value cannot be used.

        :param keys: a few hundred at most; the values of several are known to be small.
        :raises SourceError: when the store cannot be reached or refuses. Any other exception is taken for a bug in the
            store and logged with its traceback.
        """

    def close() -> None:
        """Close all connections. Called once; nothing is read after it."""

    def __str__() -> str:
        """Return a name for logs, without passwords."""


class IWatchingStore(IStore):
    """A store that notifies livestate when documents may have changed.

    It may notify too often. One that cannot listen at the moment logs the reason once and keeps trying.
    """

    def watch(changed: Callable[[str | None], None]) -> None:
        """Call `changed` in the reactor's thread whenever a key may have changed, until `close`.

        It is called with the key, or with None when any of them may have changed. Called once, after the reactor has
        started. Raises nothing.
        """

    def confirm() -> Coroutine[Any, Any, bool]:
        """Return whether every key that was read, and that was not reported as changed since, is unchanged.

        False means that this cannot be told, so that all keys have to be read to know. Never runs during a read.

        :raises SourceError: as for `read`.
        """
