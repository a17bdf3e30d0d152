"""A store of one document, made from a source that can only read one thing at a time."""

from collections.abc import Callable, Mapping, Sequence

from zope.interface import implementer

from livestate.errors import DocumentMissing, LivestateError
from livestate.sources.api import ISource, IWatching, IWatchingStore


@implementer(IWatchingStore)
class SingleStore:
    """Reads its one document, whatever the key."""

    def __init__(self, source: ISource) -> None:
        """:param source: where the document comes from."""
        self._source = source

    def __str__(self) -> str:
        return str(self._source)

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes | LivestateError]:
        """Fetch the document, once for all keys."""
        value: bytes | LivestateError
        try:
            value = await self._source.fetch()
        except DocumentMissing as error:
            value = error
        return dict.fromkeys(keys, value)

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Pass on the notifications of a source that has any."""
        watching: IWatching | None = IWatching(self._source, None)
        if watching is not None:
            watching.watch(lambda: changed(None))

    async def confirm(self) -> bool:
        """Return False: only a fetch tells whether the document has changed."""
        return False

    def close(self) -> None:
        """Close the source."""
        self._source.close()
