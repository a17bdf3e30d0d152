"""The seams between the parts, as zope interfaces."""

from collections.abc import Coroutine
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


class IStore(ISource):
    """A source that can be written to."""

    def publish(data: bytes) -> Coroutine[Any, Any, None]:
        """Make `data` the document.

        :raises SourceError: as for `fetch`.
        """
