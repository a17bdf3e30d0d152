"""How long things took, counted by how long: a histogram in plain numbers, so that several can be added up."""

from bisect import bisect_left

import msgspec

#: Seconds: the upper bounds, inclusive, as Prometheus has them. Below its clients' usual ones (5 ms to 10 s) there are
#: two more: a turn of the reactor is to take no more than some milliseconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram(msgspec.Struct):
    """Observed times by size."""

    #: One for each of BOUNDS: what was above the bound before it, up to this one. The last: what was above them all.
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    #: Seconds, of all together.
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one. A clock that was set back makes none shorter than nothing."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Give how many there were up to each bound, by the bound as Prometheus writes it."""
        pairs, reached = [], 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self.counts, strict=True):
            reached += count
            pairs.append((bound, float(reached)))
        return pairs
