"""The documents that workers are to be told of."""

from collections.abc import Callable, Iterable
from functools import partial

from livestate.web.resources.readiness import Supply
from livestate.workers.feed import Shipment


class Shipments:
    """One Shipment for each document; they change with the settings."""

    def __init__(self, tell: Callable[[Shipment], None]) -> None:
        """:param tell: called at each document's news."""
        self._tell = tell
        #: Each with what ends its subscription.
        self._ends: dict[Shipment, Callable[[], None]] = {}

    def all(self) -> list[Shipment]:
        """Give them, in the order of the settings."""
        return list(self._ends)

    def change(self, supplies: Iterable[Supply]) -> None:
        """Tell of these documents from now on."""
        there = {shipment.document: shipment for shipment in self._ends}
        wanted = [supply.document for supply in supplies]
        for shipment, end in list(self._ends.items()):
            if shipment.document not in wanted:
                end()
                del self._ends[shipment]
        ordered = {}
        for document in wanted:
            shipment = there.get(document) or Shipment(document)
            tell = partial(self._tell, shipment)
            end = self._ends.get(shipment) or document.subscribe(lambda _, tell=tell: tell())  # type: ignore[misc]
            document.on_confirmed = tell
            ordered[shipment] = end
        self._ends = ordered
