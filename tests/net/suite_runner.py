"""
Runs Twisted's own suites on the direct reactor; `test_twisted_suites` starts this in a process of its own.

The first argument is the mode.  ``builder`` runs suites that build a reactor for each
test.  ``installed`` runs suites that use the process's reactor.  ``channel`` does the
same with `LiveChannel` instead of `HTTPChannel`.  The output is one line of JSON: how
many tests passed, and the ids of those that failed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.trial.reporter import TestResult

REACTOR = "livestate.net.reactor.DirectReactor"

EXCLUDED = {
    "test_lostFileDescriptor": "epoll does not report a closed descriptor; Twisted skips it by the stock class's name",
}


def run(mode: str, names: list[str]) -> dict[str, Any]:
    """Run the tests of the named modules, which are imported only here."""
    if mode in ("installed", "channel"):
        from livestate.net.reactor import install  # noqa: PLC0415

        install()
        if mode == "channel":
            install_live_channel()
    else:
        from twisted.internet.test import reactormixins  # noqa: PLC0415

        # A test module reads this when it is imported.
        reactormixins.ReactorBuilder._reactors = [REACTOR]
    from twisted.trial.runner import TestLoader, TrialSuite  # noqa: PLC0415
    from twisted.trial.unittest import TestCase  # noqa: F401, PLC0415  # registers the adapters

    loader = TestLoader()
    result = TestResult()
    suite = TrialSuite([without_excluded(loader.loadByName(name, recurse=True)) for name in names])
    suite.run(result)
    return {
        "passed": result.successes,
        "failed": sorted({test.id() for test, _ in [*result.failures, *result.errors]}),
        "why": "\n".join(f"{test.id()}: {why}" for test, why in [*result.failures, *result.errors]),
    }


def install_live_channel() -> None:
    """Replace twisted.web's channel with livestate's, for a site without documents."""
    from twisted.internet.task import Clock  # noqa: PLC0415
    from twisted.web import http  # noqa: PLC0415

    from livestate.web.http1.channel import LiveChannel  # noqa: PLC0415
    from livestate.web.http1.fair_scheduler import FairScheduler  # noqa: PLC0415
    from livestate.web.site import LiveSite  # noqa: PLC0415

    class ImmediateClock(Clock):
        running = False

        def callLater(self, *args: Any, **kwargs: Any) -> Any:
            super().callLater(*args, **kwargs)
            if not self.running:
                self.running = True
                while self.getDelayedCalls():
                    self.advance(0)
                self.running = False

    class TestedChannel(LiveChannel):
        # The suites set their own request classes, and expect twisted.web's default otherwise.
        requestFactory: Any = http.Request

        def __init__(self) -> None:
            site = LiveSite({}, Clock())
            # The suites do not expect scheduling, so each client's turn comes at once.
            site.connections.scheduler = FairScheduler(ImmediateClock())
            super().__init__(site, site.connections)
            self.factory = None

    http.HTTPChannel = TestedChannel  # type: ignore[misc]


def without_excluded(suite: Any) -> Any:
    """Return the suite without the tests that cannot run."""
    tests = [without_excluded(test) if hasattr(test, "_tests") else test for test in suite]
    suite._tests = [test for test in tests if hasattr(test, "_tests") or test._testMethodName not in EXCLUDED]
    return suite


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(run(sys.argv[1], sys.argv[2:])) + "\n")
