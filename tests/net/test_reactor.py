"""The reactor: installing it, calls after the poll, deadlines, and running out of descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.net import port as module
from livestate.net.deadlines import Deadlines
from tests.net.harness import DirectCase, Recorder, client_context, connect, read_exactly, wait_for

ROOT = str(Path(__file__).parents[2])


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class InstallTests(SynchronousTestCase):
    def test_install(self) -> None:
        child = start(
            "import sys, livestate.net.reactor as r\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
            "r.install()\n"
            "from twisted.internet import reactor\n"
            "assert type(reactor) is r.DirectReactor\n"
            "from twisted.internet.error import ReactorAlreadyInstalledError\n"
            "try: r.install()\n"
            "except ReactorAlreadyInstalledError: print('refused')\n"
        )
        self.assertEqual(child.communicate(timeout=30), ("refused\n", ""))

    def test_imports_nothing_else_of_livestate(self) -> None:
        child = start(
            "import sys, livestate.net.reactor\n"
            "print(sorted(m for m in sys.modules if m.startswith('livestate.') and 'livestate.net' not in m))\n"
        )
        self.assertEqual(child.communicate(timeout=30), ("[]\n", ""))


class NoDescriptorsTests(SynchronousTestCase):
    def test_clients_are_closed_and_the_loop_does_not_spin(self) -> None:
        child = start(
            "import resource\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
            "from livestate.net.reactor import install; install()\n"
            "from twisted.internet import reactor\n"
            "from twisted.internet.protocol import Factory\n"
            "from twisted.protocols.wire import Echo\n"
            "from twisted.logger import globalLogBeginner, textFileLogObserver\n"
            "import sys\n"
            "port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface='127.0.0.1')\n"
            "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], discardBuffer=True, redirectStandardIO=False)\n"
            "print(port.getHost().port, flush=True)\n"
            "reactor.callLater(30, reactor.stop)\n"
            "reactor.run()\n"
        )
        socks: list[socket.socket] = []
        try:
            assert child.stdout is not None and child.stderr is not None
            port = int(child.stdout.readline())
            socks = [connect(port) for _ in range(150)]
            time.sleep(0.3)
            before = self.cpu_seconds(child.pid)
            time.sleep(0.5)
            self.assertLess(self.cpu_seconds(child.pid) - before, 0.1)
            closed = [sock for sock in socks if select.select([sock], [], [], 0)[0]]
            self.assertGreater(len(closed), 80)
            self.assertGreater(len(socks) - len(closed), 20)
            for sock in socks:
                sock.close()
            time.sleep(0.1)
            with connect(port) as sock:
                sock.sendall(b"again")
                self.assertEqual(read_exactly(sock, 5), b"again")
            child.kill()
            log = child.stderr.read()
            self.assertEqual((log.count("\n"), log.count("EMFILE")), (1, 1), log)
        finally:
            for sock in socks:
                sock.close()
            child.kill()
            child.communicate(timeout=10)

    def cpu_seconds(self, pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ShortageTests(DirectCase):
    def test_does_not_spin_when_the_machine_is_out_of_files(self) -> None:
        attempts: list[float] = []
        port = self.listen(Recorder)
        real = port.socket

        class Short:
            """A listening socket whose accept always fails."""

            def __getattr__(inner, name: str) -> Any:
                return getattr(real, name)

            def _accept(inner) -> Any:
                attempts.append(time.monotonic())
                raise OSError(errno.ENFILE, "too many")

        port.socket = Short()
        self.patch(module, "ACCEPT_PAUSE", 0.3)

        def client(number: int) -> bytes:
            with connect(number) as sock:
                sock.sendall(b"x")
                wait_for(lambda: len(attempts) > 2)
                port.socket = real
                return read_exactly(sock, 1)

        self.assertEqual(self.run_client(client, port), b"x")
        self.assertLess(len(attempts), 6)


class LoopTests(DirectCase):
    def test_run_after_poll_runs_later_and_once(self) -> None:
        calls: list[str] = []

        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)

        class Selectable:
            disconnected = 0

            def fileno(inner) -> int:
                return ours.fileno()

            def doRead(inner) -> None:
                calls.append("read")

            def doWrite(inner) -> None:
                calls.append("write")

        selectable = Selectable()
        self.reactor.addReader(selectable)
        self.reactor.run_after_poll(selectable, select.EPOLLIN)
        self.reactor.run_after_poll(selectable, select.EPOLLOUT)
        self.assertEqual(calls, [])
        self.reactor.doIteration(10)  # does not wait
        self.reactor.doIteration(0)
        self.assertEqual(calls, ["read", "write"])
        self.reactor.removeReader(selectable)
        self.reactor.run_after_poll(selectable, select.EPOLLIN)
        self.reactor.doIteration(0)
        self.assertEqual(len(calls), 2)
        self.reactor.addReader(selectable)
        selectable.disconnected = 1
        self.reactor.run_after_poll(selectable, select.EPOLLIN)
        self.reactor.doIteration(0)
        self.assertEqual(len(calls), 2)
        self.reactor.removeReader(selectable)

    def test_an_exception_affects_only_its_connection(self) -> None:
        class Server(Recorder):
            def dataReceived(self, data: bytes) -> None:
                if data == b"bug":
                    raise ZeroDivisionError("a bug")
                self.transport.write(data)

        def client(port: int) -> bytes:
            with connect(port) as good, connect(port) as bad:
                bad.sendall(b"bug")
                wait_for(lambda: any(server.reason for server in self.servers))
                good.sendall(b"hello")
                return read_exactly(good, 5)

        self.assertEqual(self.run_client(client, self.listen(Server)), b"hello")
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(failure.getErrorMessage(), "a bug")

    def check_batches(self, endings: Sequence[bytes], tls: bool = False, producer: bool = False) -> None:
        """
        Check that an exception in `connectionLost`, or in a producer's `stopProducing`,
        loses no event of the same turn.

        @param endings: what the client of that connection sends before it is closed;
            empty: the client closes it.
        """
        context = client_context() if tls else None
        blocked, release = threading.Event(), threading.Event()

        class Producer:
            def stopProducing(self) -> None:
                raise ZeroDivisionError

        class Server(Recorder):
            bad = False

            def dataReceived(self, data: bytes) -> None:
                if data == b"be bad" and producer:
                    self.transport.registerProducer(Producer(), True)
                elif data == b"be bad":
                    self.bad = True
                elif data == b"block":
                    blocked.set()
                    release.wait(10)
                elif data == b"lose":
                    self.transport.loseConnection()
                elif data == b"abort":
                    self.transport.abortConnection()
                elif data == b"raise":
                    raise KeyError
                self.transport.write(data)

            def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
                super().connectionLost(reason)
                if self.bad:
                    raise ZeroDivisionError

        def end(port: int, last_words: bytes) -> list[bytes]:
            blocked.clear()
            release.clear()
            with contextlib.ExitStack() as stack:
                blocker, bad, *others = (stack.enter_context(connect(port, context)) for _ in range(7))
                for sock in others:
                    sock.sendall(b"hello")
                    read_exactly(sock, 5)
                bad.sendall(b"be bad")
                read_exactly(bad, 6)
                blocker.sendall(b"block")
                self.assertTrue(blocked.wait(10))
                # All of this is one turn of the server's loop.
                if last_words:
                    bad.sendall(last_words)
                else:
                    bad.close()
                for sock in others:
                    sock.sendall(last_words if last_words == b"lose" else b"again")
                release.set()
                return [sock.recv(5) for sock in others]

        def client(port: int) -> dict[bytes, list[bytes]]:
            return {last_words: end(port, last_words) for last_words in endings}

        answers = {words: [b"lose" if words == b"lose" else b"again"] * 5 for words in endings}
        self.assertEqual(self.run_client(client, self.listen(Server, tls)), answers)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), len(endings))
        self.flushLoggedErrors(KeyError)
        self.assertEqual([server for server in self.servers if server.transport.fileno() != -1], [])

    def test_an_exception_in_connectionLost_loses_no_other_event(self) -> None:
        self.check_batches([b"", b"lose", b"abort", b"raise"])

    def test_an_exception_in_connectionLost_loses_no_other_event_with_tls(self) -> None:
        self.check_batches([b"", b"abort", b"raise"], tls=True)

    def test_a_connection_is_closed_if_its_producer_raises(self) -> None:
        self.check_batches([b"", b"abort", b"raise"], producer=True)


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[Any] = []
        self.deadlines: Deadlines[str] = Deadlines(self.clock, self.expired.append)

    def test_expires_at_most_a_second_late(self) -> None:
        self.deadlines.add("a", 2.5)
        self.deadlines.add("b", 30)
        self.clock.pump([1, 1])
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, ["a"])
        self.assertEqual(len(self.deadlines), 1)

    def test_no_timer_without_deadlines(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deadlines.add("a", 1)
        self.deadlines.add("b", 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.discard("a")
        self.deadlines.discard("b")
        self.deadlines.discard("b")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deadlines.add("c", 0.5)
        self.clock.advance(1)
        self.assertEqual(self.expired, ["c"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expiring_one_item_may_discard_another(self) -> None:
        deadlines: Deadlines[str] = Deadlines(self.clock, lambda item: deadlines.discard("b"))
        deadlines.add("a", 1)
        deadlines.add("b", 1)
        self.clock.advance(1)
        self.assertEqual((len(deadlines), self.clock.getDelayedCalls()), (0, []))

    def test_an_exception_does_not_end_the_sweep(self) -> None:
        def expire(item: str) -> None:
            self.expired.append(item)
            if item == "a":
                raise ZeroDivisionError

        deadlines: Deadlines[str] = Deadlines(self.clock, expire)
        for item in "abc":
            deadlines.add(item, 1)
        self.assertRaises(ZeroDivisionError, self.clock.advance, 1)
        self.clock.advance(1)
        self.assertEqual(self.expired, ["a", "b", "c"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
