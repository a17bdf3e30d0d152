"""The tests that need no server and no browser: `python -m twisted.trial tests.unit`, in under a minute.

They are all modules below `tests`, except for those of the integration tests and the soak runs, and except for the
test cases with an attribute `not_a_unit_test`, which says why. Hypothesis tries fewer examples than in the full run,
unless `LIVESTATE_TEST_EFFORT` says otherwise.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.runner import TestLoader, TestSuite

#: The effort of this run; tests/support.py applies it.
EFFORT = "0.1"

_TESTS = Path(__file__).parent
_NOT_UNITS = {"integration", "soak"}


def modules() -> list[str]:
    """Return the names of all test modules outside of the integration tests and the soak runs."""
    paths = (path.relative_to(_TESTS.parent) for path in _TESTS.rglob("test_*.py"))
    return sorted(".".join(path.with_suffix("").parts) for path in paths if path.parts[1] not in _NOT_UNITS)


def cases(suite: Any) -> Iterator[Any]:
    """Yield the test cases in nested suites."""
    for one in suite:
        if isinstance(one, TestSuite):
            yield from cases(one)
        else:
            yield one


def select(*, units: bool) -> TestSuite:
    """Return the unit tests, or what is left of their modules."""
    loaded = cases(TestLoader().loadByName(name) for name in modules())
    return TestSuite(case for case in loaded if hasattr(case, "not_a_unit_test") != units)


def testSuite() -> TestSuite:
    """Return what trial runs when it is given this module."""
    os.environ.setdefault("LIVESTATE_TEST_EFFORT", EFFORT)
    return select(units=True)
