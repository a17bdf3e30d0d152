"""Running a soak test as a command."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.servers import Livestate


def run(case: SynchronousTestCase) -> None:
    """Run `case`, print its errors, and exit, with status 1 if there were any."""
    result = case.defaultTestResult()
    case.run(result)
    for _, trouble in [*result.errors, *result.failures]:
        print(trouble, file=sys.stderr)
    sys.exit(not result.wasSuccessful())


def start_process(
    case: SynchronousTestCase, service: Livestate, module: str, *arguments: str
) -> "subprocess.Popen[bytes]":
    """Start another process of a script at a lower priority; it is killed when `case` ends.

    :param arguments: the arguments for `module`; the ports of HTTP and HTTPS are appended.
    """
    ports = [url.rpartition(":")[2] for url in (service.http, service.https)]
    process = subprocess.Popen(["nice", "-n", "10", sys.executable, "-m", module, *arguments, *ports])
    case.addCleanup(process.kill)
    return process
