"""A long run as a command."""

import sys

from twisted.trial.unittest import SynchronousTestCase


def run(case: SynchronousTestCase) -> None:
    """Run `case`, print what went wrong, and end the process: with 1 where something did."""
    result = case.defaultTestResult()
    case.run(result)
    for _, trouble in [*result.errors, *result.failures]:
        print(trouble, file=sys.stderr)
    sys.exit(not result.wasSuccessful())
