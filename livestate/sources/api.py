"""The seams between the parts, as zope interfaces."""

from collections.abc import Callable, Coroutine
from typing import Any

from zope.interface import Interface


class ISource(Interface):
    """Where one document comes from.

    A source is made before the reactor runs, and connects only when it is first asked. It is asked for one
    fetch at a time. Each fetch may be cancelled at any moment (its time is bounded by the caller); the next
    one must work all the same, on a new connection if need be.
    """

    def fetch() -> Coroutine[Any, Any, bytes]:
        """Give the document's bytes as they are in the store now.

        :raises SourceError: the store is away or refuses; `DocumentMissing` where it has no such document.
            Any other exception is a fault of the source itself and is logged with its traceback.
        """

    def close() -> None:
        """Let go of connections. Called once, after which `fetch` is not called any more."""

    def __str__() -> str:
        """Name the source for logs and status, without passwords."""


class IWatching(ISource):
    """A source that is told by its store when the document may have changed.

    What it is told makes the next fetch come sooner, and is never relied on: the source is asked each interval all the
    same. So it may tell too often, and where it cannot tell, it logs why, once, and goes on trying.
    """

    def watch(changed: Callable[[], None]) -> None:
        """Call `changed`, in the reactor's thread, whenever the store says that the document may have changed.

        Called once, when the reactor runs, and raises nothing; it ends with `close`.
        """


class IStore(ISource):
    """A source that can be written to."""

    def publish(data: bytes) -> Coroutine[Any, Any, None]:
        """Make `data` the document.

        :raises SourceError: as for `fetch`.
        """
