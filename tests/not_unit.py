"""What `tests.unit` leaves out of the modules that it runs: tests that take long or start a server.

The integration tests and the soak runs are not in it.
"""

from twisted.trial.runner import TestSuite

from tests.unit import select


def testSuite() -> TestSuite:
    """Return what trial runs when it is given this module."""
    return select(units=False)
