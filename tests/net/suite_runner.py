"""
Runs Twisted's own suites on the direct reactor; started by `test_twisted_suites` in a process of its own.

``builder``: suites that build a reactor for each test.  ``installed``: suites that
use the process's reactor.  ``channel``: the same, and where they make an
`HTTPChannel` they get a `LiveChannel`.  Prints one line of JSON: how many tests passed and
which did not, by id.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.trial.reporter import TestResult

REACTOR = "livestate.net.reactor.DirectReactor"

NOT_RUN = {
    "test_lostFileDescriptor": "epoll cannot see a closed descriptor; Twisted skips it by the stock class's name",
}


def run(mode: str, names: list[str]) -> dict[str, Any]:
    """Run the named modules' tests; the modules are imported only here."""
    if mode in ("installed", "channel"):
        from livestate.net.reactor import install  # noqa: PLC0415

        install()
        if mode == "channel":
            stand_in()
    else:
        from twisted.internet.test import reactormixins  # noqa: PLC0415

        # Read when a test module is imported.
        reactormixins.ReactorBuilder._reactors = [REACTOR]
    from twisted.trial.runner import TestLoader, TrialSuite  # noqa: PLC0415
    from twisted.trial.unittest import TestCase  # noqa: F401, PLC0415  # registers the adapters

    loader = TestLoader()
    result = TestResult()
    suite = TrialSuite([drop(loader.loadByName(name, recurse=True)) for name in names])
    suite.run(result)
    return {
        "passed": result.successes,
        "failed": sorted({test.id() for test, _ in [*result.failures, *result.errors]}),
        "why": "\n".join(f"{test.id()}: {why}" for test, why in [*result.failures, *result.errors]),
    }


def stand_in() -> None:
    """Put livestate's channel, with a site that has no document, in the place of twisted.web's."""
    from twisted.internet.task import Clock  # noqa: PLC0415
    from twisted.web import http  # noqa: PLC0415

    from livestate.web.http1.channel import LiveChannel  # noqa: PLC0415
    from livestate.web.http1.fair_scheduler import FairScheduler  # noqa: PLC0415
    from livestate.web.site import LiveSite  # noqa: PLC0415

    class AtOnce(Clock):
        running = False

        def callLater(self, *args: Any, **kwargs: Any) -> Any:
            super().callLater(*args, **kwargs)
            if not self.running:
                self.running = True
                while self.getDelayedCalls():
                    self.advance(0)
                self.running = False

    class StandIn(LiveChannel):
        # The suites bring requests of their own, and count on what twisted.web makes of them by default.
        requestFactory: Any = http.Request

        def __init__(self) -> None:
            site = LiveSite({}, Clock())
            # The suites know of no turns: a reader's comes at once.
            site.connections.scheduler = FairScheduler(AtOnce())
            super().__init__(site, site.connections)
            self.factory = None

    http.HTTPChannel = StandIn  # type: ignore[misc]


def drop(suite: Any) -> Any:
    """Take the tests that cannot run out of a suite."""
    kept = [drop(test) if hasattr(test, "_tests") else test for test in suite]
    suite._tests = [test for test in kept if hasattr(test, "_tests") or test._testMethodName not in NOT_RUN]
    return suite


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(run(sys.argv[1], sys.argv[2:])) + "\n")
