"""How long to wait before asking again: exponential backoff with jitter."""

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Growing, jittered delays between tries of one thing.

    Each delay is drawn evenly from half to the whole of a ceiling that doubles with each failure, so that many
    servers that lost the same store do not come back to it in step ("equal jitter", Brooker, AWS Architecture
    Blog, 2015: half is kept so that a store is never hammered by a run of small draws).
    """

    #: Seconds: the ceiling of the first delay after a success, and of all delays.
    first: float
    limit: float
    failures: int = field(default=0, init=False)

    def next_delay(self) -> float:
        """Count one more failure and give the seconds to wait after it."""
        # The exponent is held down: 2 ** failures of a week's outage does not fit into a float.
        ceiling = min(self.limit, self.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreading load is no secret

    def reset(self) -> None:
        """Start again from the first delay: the thing succeeded."""
        self.failures = 0
