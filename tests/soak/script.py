"""A long run as a command."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.servers import Livestate


def run(case: SynchronousTestCase) -> None:
    """Run `case`, print what went wrong, and end the process: with 1 where something did."""
    result = case.defaultTestResult()
    case.run(result)
    for _, trouble in [*result.errors, *result.failures]:
        print(trouble, file=sys.stderr)
    sys.exit(not result.wasSuccessful())


def beside(case: SynchronousTestCase, service: Livestate, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a process of a script's own, at a lower priority, until `case` ends.

    :param arguments: of `module`; the ports of HTTP and of HTTPS come behind them.
    """
    ports = [url.rpartition(":")[2] for url in (service.http, service.https)]
    process = subprocess.Popen(["nice", "-n", "10", sys.executable, "-m", module, *arguments, *ports])
    case.addCleanup(process.kill)
    return process
