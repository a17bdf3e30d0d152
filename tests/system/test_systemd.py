"""The notify protocol, spoken to a real Unix datagram socket; time is told to go on."""

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

from livestate.documents.document import Document
from livestate.documents.poller import Poller
from livestate.documents.summary import summary
from livestate.sources.factory import make_source
from livestate.system.systemd import LONG, ServiceManager, SystemdNotifier
from tests.support import FakeReactor, few, log_lines, result_of


class ManagerTests(SynchronousTestCase):
    """What is read from the environment."""

    def test_path(self):
        """A path is taken as it is, with half a minute's watchdog in microseconds; nothing is left for children."""
        environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "12", "HOME": "/"}
        self.assertEqual(ServiceManager.taken_from(environ, 12), ServiceManager("/run/n", 30.0))
        self.assertEqual(environ, {"HOME": "/"})

    def test_abstract(self):
        """An @ stands for the NUL of the abstract namespace."""
        self.assertEqual(ServiceManager.taken_from({"NOTIFY_SOCKET": "@a"}, 1), ServiceManager("\0a", 0.0))

    def test_watchdog_of_another(self):
        """A watchdog that is meant for another process is none; without WATCHDOG_PID it is ours."""
        environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000"}
        self.assertEqual(ServiceManager.taken_from({**environ, "WATCHDOG_PID": "2"}, 1).watchdog, 0)
        self.assertEqual(ServiceManager.taken_from(environ, 1).watchdog, 5)

    @few
    @given(st.dictionaries(st.sampled_from(["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]), st.text(max_size=9)))
    def test_anything(self, environ):
        """Whatever is there is understood or counts as nothing, and is taken out."""
        manager = ServiceManager.taken_from(environ, 1)
        self.assertEqual(environ, {})
        self.assertGreaterEqual(manager.watchdog, 0)
        self.assertIn(manager.address[:1], ("", "/", "\0"))


class NotifierTests(SynchronousTestCase):
    """What is sent, and when."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = str(Path(folder.name) / "notify")
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
        """Give all datagrams that have come."""
        datagrams = []
        while True:
            try:
                datagrams.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams

    def test_ready(self):
        """READY=1 is sent once, when all is there and not before, with the status behind it."""
        self.listen()
        self.start()
        self.run_for(LONG - 0.2)
        self.assertEqual(self.received(), [])
        self.ready = True
        self.run_for(0.2)
        self.assertEqual(self.received(), ["READY=1", "STATUS=fine"])
        self.run_for(60)
        self.assertEqual(self.received(), [])

    def test_long_start(self):
        """A start that takes long is never over before it is, and the status says what it waits for."""
        self.listen()
        self.start()
        self.line = "nobody serves"
        self.run_for(LONG + 0.2)
        self.assertEqual(self.received(), ["STATUS=nobody serves"])
        self.run_for(80)
        self.assertEqual(self.received(), [])
        self.ready, self.line = True, "fine"
        self.run_for(0.2)
        self.assertEqual(self.received(), ["READY=1", "STATUS=fine"])
        self.line = "worse"
        self.run_for(10)
        self.assertEqual(self.received(), ["STATUS=worse"])

    def test_abstract(self):
        """It works in the abstract namespace too."""
        address = f"\0livestate-test-{os.getpid()}"
        self.listen(address)
        self.start(address)
        self.ready = True
        self.run_for(0.2)
        self.assertIn("READY=1", self.received())

    def test_status(self):
        """A status is sent again only when it has changed, every 10 s at most."""
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
        """WATCHDOG=1 is sent twice within the time that the manager gives."""
        self.listen()
        self.start(watchdog=10)
        sent = []
        self.run_for(0.2)
        for _ in range(60):
            self.run_for(1)
            sent += self.received()
        self.assertEqual(sent.count("WATCHDOG=1"), 12)

    def test_stopping(self):
        """STOPPING=1 is sent at the end, and the watchdog goes on while readers are sent off."""
        self.listen()
        notifier = self.start(watchdog=10)
        self.ready = True
        self.run_for(1)
        self.received()
        notifier.stopService()
        self.assertEqual(self.received(), ["STOPPING=1\nSTATUS=Coming to its end"])
        self.run_for(10.1)
        self.assertEqual(self.received(), ["WATCHDOG=1"] * 2)

    def test_stopped_before_ready(self):
        """A service that is stopped before it was ready never says that it is."""
        self.listen()
        notifier = self.start()
        notifier.stopService()
        self.ready = True
        self.run_for(20)
        self.assertEqual([line.partition("\n")[0] for line in self.received()], ["STOPPING=1"])

    def test_reload(self):
        """RELOADING=1 comes with the monotonic time, and READY=1 when the work is done, however it ends."""
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
        """Of several reloads that overlap the end of the last alone is their end."""
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
        """A reload before the start is over does not end it."""
        self.listen()
        notifier = self.start()
        self.assertEqual(self.successResultOf(notifier.reload(lambda: 7)), 7)
        self.assertEqual(self.received(), [])

    def start_ready(self) -> SystemdNotifier:
        """Start, and have read all that comes of that."""
        self.listen()
        notifier: SystemdNotifier = self.start()
        self.ready = True
        self.run_for(0.2)
        self.received()
        return notifier

    def test_full_socket(self):
        """While the manager reads nothing the reactor is not held up; all but the watchdog comes later, in order."""
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
        """A socket that is not there is one line in the log, and nothing else."""
        with log_lines() as lines:
            self.start(watchdog=1)
            self.ready = True
            self.run_for(30)
        self.assertEqual(lines, ["cannot tell the service manager how it goes: No such file or directory"])

    def test_no_manager(self):
        """Without a service manager no socket is made, nothing is scheduled, and a reload does its work all the same."""
        notifier = SystemdNotifier(self.clock, ServiceManager(), lambda: True, lambda: "")
        notifier.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(notifier.reload(lambda: 7)), 7)
        notifier.stopService()
        self.assertIsNone(notifier._socket)


class SummaryTests(SynchronousTestCase):
    """The line for a person."""

    def test_summary(self):
        """It counts documents and connections, and names each document that is not fresh, with its age and why."""
        reactor = FakeReactor()
        pollers = [
            Poller(Document(reactor, path, 1000), make_source(reactor, "demo:", 1000), 1.0, reactor)
            for path in ("/a", "/b")
        ]
        self.assertEqual(
            summary(pollers, 0),
            "2 documents, 0 connections; /a is missing (no answer yet), /b is missing (no answer yet)",
        )
        for poller in pollers:
            result_of(poller.document.update(b"{}"))
        self.assertEqual(summary(pollers[:1], 7), "1 document, 7 connections; all fresh")
        reactor.advance(12)
        result_of(pollers[0].document.update(b"{}"))
        pollers[1].stats.error = "refused,\nreally"
        self.assertEqual(summary(pollers, 1), "2 documents, 1 connections; /b is 12 s old (refused, really)")
        self.assertEqual(
            summary(pollers, 0, "1 of 2 workers not serving"),
            "2 documents, 0 connections; 1 of 2 workers not serving, /b is 12 s old (refused, really)",
        )
