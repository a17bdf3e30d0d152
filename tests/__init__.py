"""The tests: rooms as in `livestate`, and beside them `integration` (real servers, a browser) and `soak` (long runs).

`python -m twisted.trial tests` runs all but the soak runs; `tests.unit` is the part that needs no servers.
"""

import atexit
import os
import sys
from pathlib import Path

_HINTS = {
    "tests": "For the tests that need no server and no browser, in under a minute: python -m twisted.trial tests.unit",
    "tests.unit": "These were the unit tests. For all tests, some 20 minutes: python -m twisted.trial tests",
}


def _hint() -> None:
    """At the end of a run by trial of all tests, or of all unit tests, say how to run the other."""
    # Not where another program imports this package, nor for a part of the tests.
    name = sys.argv[-1]
    if name not in _HINTS or "trial" not in Path(sys.argv[0]).parts:
        return
    process = os.getpid()

    def say() -> None:
        # A child that was forked has this function too.
        if os.getpid() == process:
            print(_HINTS[name])

    atexit.register(say)


_hint()
