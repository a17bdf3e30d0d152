"""All documents together."""

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.documents.registry import Registry

reactor: Any = _reactor


class SuppliesTests(SynchronousTestCase):
    """What many documents need."""

    def test_threads(self):
        """Where the disks and stores of all documents hang, there are still threads for the others."""
        pool = reactor.getThreadPool()
        self.addCleanup(reactor.suggestThreadPoolSize, pool.max)
        supplies = Registry(reactor, load_settings({"source": [f"/{number}=demo:" for number in range(30)]}, None))
        self.assertGreaterEqual(pool.max, 2 * 30 + 10)
        supplies.change(supplies.prepare(load_settings({"source": ["demo:"]}, None)))
        self.assertLess(pool.max, 30)
