"""A histogram of durations, in plain numbers so that several can be added up."""

from bisect import bisect_left

import msgspec

#: Seconds: the upper bounds of the buckets, inclusive as in Prometheus. Two more precede the usual ones of Prometheus
#: clients (5 ms to 10 s), because an iteration of the reactor should take only a few milliseconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram(msgspec.Struct):
    """Observed durations, by size."""

    #: One count per bucket: durations above the previous bound, up to this one. The last counts those above all bounds.
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    #: Seconds: the sum of all durations.
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        """Record a duration. A negative one, from a clock that was set back, counts as 0."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the number of durations up to each bound, with the bounds as Prometheus writes them."""
        pairs, reached = [], 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self.counts, strict=True):
            reached += count
            pairs.append((bound, float(reached)))
        return pairs
