"""Tests of signal handlers."""

import os
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.system.signals import Signals
from tests.support import FakeReactor


class SignalsTests(SynchronousTestCase):
    """What is called when a signal arrives."""

    def setUp(self):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def test_in_the_reactor(self):
        """An action runs in the reactor, not in the signal handler, even if another handler was installed meanwhile."""
        reactor = FakeReactor()
        waiting: list[Any] = []
        done: list[int] = []
        self.patch(reactor, "callFromThread", waiting.append)
        self.patch(reactor, "callWhenRunning", lambda call, *args: call(*args))
        Signals(
            reactor, {signal.SIGUSR1: lambda: done.append(1), signal.SIGUSR2: lambda: done.append(2)}
        ).startService()
        os.kill(os.getpid(), signal.SIGUSR1)
        # As Twisted does when the reactor starts to run.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        reactor.advance(0)
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual(done, [])
        for call in waiting:
            call()
        self.assertEqual(done, [1, 2])

    def test_stopped(self):
        """Once it is stopped, SIGTERM ends the process at once, even if the reactor hangs; other signals do nothing."""
        signals = Signals(FakeReactor(), {signal.SIGTERM: self.fail, signal.SIGUSR1: self.fail})
        signals.startService()
        signals.stopService()
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
