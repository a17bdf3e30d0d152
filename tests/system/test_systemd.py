"""Tests of the notify protocol, with a real Unix datagram socket and a simulated clock."""

import os
import re
import socket
import tempfile
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.systemd import SLOW_START, ServiceManager, SystemdNotifier
from tests.support import few, log_lines


class ManagerTests(SynchronousTestCase):
    """Reading the environment."""

    def test_path(self):
        """A path is used as it is, the watchdog time is in microseconds, and nothing is left for children."""
        environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "12", "HOME": "/"}
        self.assertEqual(ServiceManager.from_environment(environ, 12), ServiceManager("/run/n", 30.0))
        self.assertEqual(environ, {"HOME": "/"})

    def test_abstract(self):
        """A leading @ stands for the NUL of the abstract namespace."""
        self.assertEqual(ServiceManager.from_environment({"NOTIFY_SOCKET": "@a"}, 1), ServiceManager("\0a", 0.0))

    def test_watchdog_of_another(self):
        """A watchdog meant for another process is ignored; without WATCHDOG_PID it applies."""
        environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000"}
        self.assertEqual(ServiceManager.from_environment({**environ, "WATCHDOG_PID": "2"}, 1).watchdog, 0)
        self.assertEqual(ServiceManager.from_environment(environ, 1).watchdog, 5)

    @few
    @given(st.dictionaries(st.sampled_from(["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]), st.text(max_size=9)))
    def test_anything(self, environ):
        """Any values are parsed or ignored, and removed."""
        manager = ServiceManager.from_environment(environ, 1)
        self.assertEqual(environ, {})
        self.assertGreaterEqual(manager.watchdog, 0)
        self.assertIn(manager.address[:1], ("", "/", "\0"))


class NotifierTests(SynchronousTestCase):
    """What is sent, and when."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.address = str(Path(directory.name) / "notify")
        self.clock = Clock()
        self.ready = False
        self.line = "fine"

    def listen(self, address=""):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.setblocking(False)
        self.socket.bind(address or self.address)

    def start(self, address="", watchdog=0.0):
        notifier = SystemdNotifier(
            self.clock, ServiceManager(address or self.address, watchdog), lambda: self.ready, lambda: self.line
        )
        notifier.startService()
        assert notifier._socket is not None
        self.addCleanup(notifier._socket.close)
        return notifier

    def run_for(self, seconds):
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def received(self):
        """Return all datagrams that have arrived."""
        datagrams = []
        while True:
            try:
                datagrams.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams

    def test_ready(self):
        """READY=1 is sent once, when everything is ready and not before, followed by the status."""
        self.listen()
        self.start()
        self.run_for(SLOW_START - 0.2)
        self.assertEqual(self.received(), [])
        self.ready = True
        self.run_for(0.2)
        self.assertEqual(self.received(), ["READY=1", "STATUS=fine"])
        self.run_for(60)
        self.assertEqual(self.received(), [])

    def test_slow_start(self):
        """During a slow start READY=1 is not sent, and the status says what the start waits for."""
        self.listen()
        self.start()
        self.line = "no workers yet"
        self.run_for(SLOW_START + 0.2)
        self.assertEqual(self.received(), ["STATUS=no workers yet"])
        self.run_for(80)
        self.assertEqual(self.received(), [])
        self.ready, self.line = True, "fine"
        self.run_for(0.2)
        self.assertEqual(self.received(), ["READY=1", "STATUS=fine"])
        self.line = "worse"
        self.run_for(10)
        self.assertEqual(self.received(), ["STATUS=worse"])

    def test_abstract(self):
        """Messages also go to a socket in the abstract namespace."""
        address = f"\0livestate-test-{os.getpid()}"
        self.listen(address)
        self.start(address)
        self.ready = True
        self.run_for(0.2)
        self.assertIn("READY=1", self.received())

    def test_status(self):
        """The status is sent only when it has changed, at most every 10 s."""
        self.listen()
        self.start()
        self.ready = True
        self.run_for(1)
        self.received()
        self.line = "worse"
        self.run_for(5)
        self.line = "bad"
        self.run_for(6)
        self.assertEqual(self.received(), ["STATUS=bad"])

    def test_watchdog(self):
        """WATCHDOG=1 is sent twice within the time that the manager sets."""
        self.listen()
        self.start(watchdog=10)
        sent = []
        self.run_for(0.2)
        for _ in range(60):
            self.run_for(1)
            sent += self.received()
        self.assertEqual(sent.count("WATCHDOG=1"), 12)

    def test_stopping(self):
        """STOPPING=1 is sent at the shutdown, and the watchdog continues while connections drain."""
        self.listen()
        notifier = self.start(watchdog=10)
        self.ready = True
        self.run_for(1)
        self.received()
        notifier.stopService()
        self.assertEqual(self.received(), ["STOPPING=1\nSTATUS=Stopping"])
        self.run_for(10.1)
        self.assertEqual(self.received(), ["WATCHDOG=1"] * 2)

    def test_stopped_before_ready(self):
        """A service stopped before it was ready never sends READY=1."""
        self.listen()
        notifier = self.start()
        notifier.stopService()
        self.ready = True
        self.run_for(20)
        self.assertEqual([line.partition("\n")[0] for line in self.received()], ["STOPPING=1"])

    def test_reload(self):
        """RELOADING=1 carries the monotonic time, and READY=1 follows when the work is done, even if it failed."""
        notifier = self.start_ready()
        work: Deferred[None] = Deferred()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        reloaded = notifier.reload(lambda: work)
        (sent,) = self.received()
        found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", sent)
        assert found is not None
        self.assertTrue(before <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        self.run_for(60)
        self.assertEqual(self.received(), [])
        self.line = "refused"
        work.errback(ValueError("refused"))
        self.failureResultOf(reloaded, ValueError)
        self.assertEqual(self.received(), ["STATUS=refused", "READY=1"])

    def test_reloads_at_once(self):
        """Of several reloads that overlap, only the end of the last one is reported."""
        notifier = self.start_ready()
        works: list[Deferred[None]] = [Deferred(), Deferred()]
        for work in works:
            notifier.reload(lambda: work)  # noqa: B023  # called within the turn
        self.assertEqual([sent.partition("\n")[0] for sent in self.received()], ["RELOADING=1"] * 2)
        works[1].callback(None)
        self.assertEqual(self.received(), [])
        works[0].callback(None)
        self.assertEqual(self.received(), ["READY=1"])

    def test_reload_during_start(self):
        """A reload during the start does not end the start."""
        self.listen()
        notifier = self.start()
        self.assertEqual(self.successResultOf(notifier.reload(lambda: 7)), 7)
        self.assertEqual(self.received(), [])

    def start_ready(self) -> SystemdNotifier:
        """Start a notifier, and discard the messages of its start."""
        self.listen()
        notifier: SystemdNotifier = self.start()
        self.ready = True
        self.run_for(0.2)
        self.received()
        return notifier

    def test_full_socket(self):
        """A full socket does not block the reactor; all messages but WATCHDOG=1 arrive later, in order."""
        self.listen()
        notifier = self.start(watchdog=1)
        self.ready = True
        self.run_for(0.2)
        for _ in range(1000):
            notifier.reload(lambda: None)
        self.run_for(5)
        sent = self.received()
        self.assertTrue(0 < len(sent) < 2002)
        for _ in range(200):
            self.run_for(0.1)
            sent += self.received()
        kinds = [line.partition("\n")[0] for line in sent if line != "WATCHDOG=1"]
        self.assertEqual(kinds, ["READY=1", "STATUS=fine"] + ["RELOADING=1", "READY=1"] * 1000)
        self.assertIn("WATCHDOG=1", sent[-30:])

    def test_manager_gone(self):
        """A missing socket is one line of log, and nothing else."""
        with log_lines() as lines:
            self.start(watchdog=1)
            self.ready = True
            self.run_for(30)
        self.assertEqual(lines, ["cannot notify the service manager: No such file or directory"])

    def test_no_manager(self):
        """Without a service manager there is no socket and nothing is scheduled, but a reload still does its work."""
        notifier = SystemdNotifier(self.clock, ServiceManager(), lambda: True, lambda: "")
        notifier.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(notifier.reload(lambda: 7)), 7)
        notifier.stopService()
        self.assertIsNone(notifier._socket)
