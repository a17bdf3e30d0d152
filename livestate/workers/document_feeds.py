"""The documents that workers are to be told of."""

from collections.abc import Callable, Iterable
from functools import partial

from livestate.web.resources.readiness import ServedDocument
from livestate.workers.feed import DocumentFeed


class DocumentFeeds:
    """One Shipment for each document; they change with the settings."""

    def __init__(self, tell: Callable[[DocumentFeed], None]) -> None:
        """:param tell: called at each document's news."""
        self._tell = tell
        #: Each with what ends its subscription.
        self._ends: dict[DocumentFeed, Callable[[], None]] = {}

    def all(self) -> list[DocumentFeed]:
        """Give them, in the order of the settings."""
        return list(self._ends)

    def change(self, supplies: Iterable[ServedDocument]) -> None:
        """Tell of these documents from now on."""
        there = {shipment.document: shipment for shipment in self._ends}
        wanted = [supply.document for supply in supplies]
        for shipment, end in list(self._ends.items()):
            if shipment.document not in wanted:
                end()
                del self._ends[shipment]
        ordered = {}
        for document in wanted:
            shipment = there.get(document) or DocumentFeed(document)
            tell = partial(self._tell, shipment)
            end = self._ends.get(shipment) or document.subscribe(lambda _, tell=tell: tell())  # type: ignore[misc]
            document.on_confirmed = tell
            ordered[shipment] = end
        self._ends = ordered
