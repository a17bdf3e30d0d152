"""Counting the responses of a document."""

from typing import NamedTuple


class ResponseCounts(NamedTuple):
    """How many responses were sent, and how many bytes."""

    #: By content coding for a 200, and else by status ("304").
    tally: dict[str, int]
    #: By how the request was recognised: the same bytes as before ("repeated"), the same apart from the validator
    #: ("remembered"), parsed by the grammar of fast requests ("parsed") or by twisted.web ("general").
    ways: dict[str, int]
    bytes_sent: int


class WayCounts:
    """The numbers of `ResponseCounts.ways`."""

    __slots__ = ("general", "parsed", "remembered", "repeated")

    def __init__(self) -> None:
        self.general = self.parsed = self.remembered = self.repeated = 0
