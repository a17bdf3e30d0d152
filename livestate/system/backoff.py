"""How long to wait before a retry: exponential back-off with jitter."""

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Growing, jittered delays between attempts.

    Each delay is drawn uniformly between half and all of a ceiling that doubles with each failure, so that many servers
    that lost the same store do not come back to it in step. This is "equal jitter" (Brooker, AWS Architecture Blog,
    2015): the fixed half ensures that a run of small draws never hammers the store.
    """

    #: Seconds: the ceiling of the first delay after a success, and the ceiling of all delays.
    first: float
    limit: float
    failures: int = field(default=0, init=False)

    def next_delay(self) -> float:
        """Count a failure and return the seconds to wait before the next attempt."""
        # The exponent is capped: after a week's outage, 2 ** failures would overflow a float.
        ceiling = min(self.limit, self.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreading load is no secret

    def reset(self) -> None:
        """Return to the first delay, after a success."""
        self.failures = 0
