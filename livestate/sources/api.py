"""The interfaces that a source implements."""

from collections.abc import Callable, Coroutine
from typing import Any

from zope.interface import Interface


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


class IStore(ISource):
    """A source that can be written to."""

    def publish(data: bytes) -> Coroutine[Any, Any, None]:
        """Store `data` as the document.

        :raises SourceError: as for `fetch`.
        """
