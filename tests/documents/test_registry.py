"""Tests of the registry of all documents."""

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.documents.registry import Registry

reactor: Any = _reactor


class RegistryTests(SynchronousTestCase):
    """Many documents together."""

    def test_threads(self):
        """If the disks and stores of all documents hang, there are still threads for other work."""
        pool = reactor.getThreadPool()
        self.addCleanup(reactor.suggestThreadPoolSize, pool.max)
        registry = Registry(reactor, load_settings({"source": [f"/{number}=demo:" for number in range(30)]}, None))
        self.assertGreaterEqual(pool.max, 2 * 30 + 10)
        registry.commit(registry.prepare(load_settings({"source": ["demo:"]}, None)))
        self.assertLess(pool.max, 30)
