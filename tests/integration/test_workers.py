"""Several workers and their supervisor, as real processes."""

import os
import signal
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client, get, resumptions
from tests.integration.load import Load
from tests.integration.processes import children, ended, folder_for, free_port, run, twistd_arguments, until
from tests.integration.servers import Livestate
from tests.support import replace

#: The constant of socket(7), which Python's module does not have.
SO_TIMESTAMPNS = 35


def worker_of(service: Livestate, connection: socket.socket | None) -> int:
    """Return the id of the worker process that `connection` leads to."""
    assert connection is not None
    # A local port alone is not enough: the kernel uses it for connections to several servers.
    ports = [f"{name[1]:04X}" for name in (connection.getpeername(), connection.getsockname())]
    for worker in service.workers():
        table = Path(f"/proc/{worker['pid']}/net/tcp").read_text()
        inode = next(
            line.split()[9]
            for line in table.splitlines()[1:]
            if [address[-4:] for address in line.split()[1:3]] == ports and line.split()[3] == "01"
        )
        for descriptor in Path(f"/proc/{worker['pid']}/fd").iterdir():
            try:
                if os.readlink(descriptor) == f"socket:[{inode}]":
                    return int(worker["pid"])
            except OSError:
                continue
    raise AssertionError("no worker has this connection")


class WorkersCase(SynchronousTestCase):
    """A livestate with two workers that serves a file."""

    options: tuple[str, ...] = ()

    def setUp(self):
        self.folder = folder_for(self)
        self.write(b"[0]")
        self.start("--workers=2", *self.options)

    def start(self, *options: str, **more: Any) -> None:
        """Start livestate, and wait until its workers are serving."""
        self.service = Livestate(
            self, "--source=file:live.json", "--interval=0.2", *options, folder=self.folder, **more
        )
        self.service.until_served()
        until(lambda: all(worker["pid"] for worker in self.service.workers()), "all workers are serving")

    def write(self, data: bytes) -> None:
        """Replace the document."""
        replace(self.folder / "live.json", data)

    def one_each(self) -> dict[int, Client]:
        """Return a connection to each worker."""
        found: dict[int, Client] = {}

        def connect() -> bool:
            client = self.service.client()
            client.get()
            if found.setdefault(worker_of(self.service, client._connection.sock), client) is not client:
                client.close()
            else:
                self.addCleanup(client.close)
            return len(found) == 2

        until(connect, "connections to both workers")
        return found


class ServingTests(WorkersCase):
    """The responses, counters and logs of workers."""

    options = ("--access-log=access.log",)

    def test_change(self):
        """A change of the document arrives at both workers, with the same entity tag."""
        clients = self.one_each()
        self.write(b"[1]")
        for client in clients.values():
            until(lambda: client.get().body == b"[1]", "the change")  # noqa: B023  # called within the iteration
        tags = {client.get()["ETag"] for client in clients.values()}
        self.assertEqual(len(tags), 1)

    def test_together(self):
        """All workers send a new version within 50 ms of each other (median of nine changes)."""
        subscribers: dict[int, socket.socket] = {}
        url = urlsplit(self.service.http)

        def connect() -> bool:
            subscriber = socket.create_connection((url.hostname, url.port or 0), timeout=20)
            self.addCleanup(subscriber.close)
            subscriber.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            subscriber.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            self.time_of(subscriber, b"data:")
            subscribers.setdefault(worker_of(self.service, subscriber), subscriber)
            return len(subscribers) == 2

        until(connect, "a subscriber of each worker")
        # A busy machine may give one of the workers no CPU time for a while, which is no fault of livestate's: retry.
        for attempt in range(4):
            spreads = sorted(self.spread(list(subscribers.values()), 10 * attempt + number) for number in range(1, 10))
            print(f"\nbetween the workers: {1000 * spreads[4]:.2f} ms (median of 9), at most {1000 * spreads[-1]:.2f}")
            if spreads[4] < 0.05:
                break
        self.assertLess(spreads[4], 0.05, spreads)

    def spread(self, subscribers: list[socket.socket], number: int) -> float:
        """Change the document to `number`; return the seconds between the first and the last subscriber to get it."""
        self.write(b"[%d]" % number)
        times = [self.time_of(subscriber, b"data: [%d]" % number) for subscriber in subscribers]
        return max(times) - min(times)

    def time_of(self, subscriber: socket.socket, expected: bytes) -> float:
        """Read until `expected` has arrived; return the time when the kernel received it."""
        data = b""
        while expected not in data:
            some, ((_, _, stamp),), _, _ = subscriber.recvmsg(65536, socket.CMSG_SPACE(16))
            assert some, data
            data += some
        seconds, nanoseconds = struct.unpack("@ll", stamp)
        return float(seconds + nanoseconds / 1e9)

    def test_codings_and_age(self):
        """Each worker serves every content coding, responds with 304, and keeps the age small."""
        self.write(b'{"text": "%b"}' % (b"word " * 100))
        for client in self.one_each().values():
            for coding in ("br", "gzip", "zstd"):
                until(lambda: client.get(Accept_Encoding=coding)["Content-Encoding"] == coding, coding)  # noqa: B023
                answer = client.get(Accept_Encoding=coding)
                self.assertEqual(answer.document, (self.folder / "live.json").read_bytes())
                self.assertEqual(client.get(Accept_Encoding=coding, If_None_Match=answer["ETag"]).status, 304)
            time.sleep(1.5)
            self.assertLessEqual(int(client.get()["Livestate-Age"]), 1)
            self.assertEqual(client.get("/_live/ready").body, b"ok\n")

    def test_stale(self):
        """Both workers notice when the document is no longer confirmed."""
        clients = self.one_each()
        (self.folder / "live.json").unlink()
        for client in clients.values():
            until(lambda: client.get("/_live/ready").body == b"stale\n", "stale")  # noqa: B023
            self.assertEqual(client.get().status, 200)

    def test_large(self):
        """A document that is larger than the pipe's buffers arrives complete, with its codings."""
        document = b"[%b]" % b", ".join(b'"%d %s"' % (n, os.urandom(8).hex().encode()) for n in range(100_000))
        self.write(document)
        for client in self.one_each().values():
            until(lambda: client.get(Accept_Encoding="br")["Content-Encoding"] == "br", "coded")  # noqa: B023
            self.assertEqual(client.get(Accept_Encoding="br").document, document)

    def test_sums(self):
        """/status sums the counters of all workers, including a killed one, and shows each worker."""
        clients = self.one_each()
        # No one else sends conditional requests.
        for client in clients.values():
            tag = client.get()["ETag"]
            for _ in range(10):
                self.assertEqual(client.get(If_None_Match=tag).status, 304)
        until(lambda: self.not_modified() == 20, "the sum")
        connections = until(lambda: [w["connections"] for w in self.service.workers() if w["connections"]], "shown")
        self.assertEqual(connections, [1, 1])
        os.kill(next(iter(clients)), signal.SIGKILL)
        until(lambda: sum(worker["restarts"] for worker in self.service.workers()) == 1, "replaced")
        self.assertEqual(self.not_modified(), 20)
        metrics = self.metrics()
        for reason, number in (("died", 1), ("unresponsive", 0)):
            self.assertEqual(metrics[f'livestate_worker_restarts_total{{reason="{reason}"}}'], number)

    def not_modified(self) -> int:
        """Return the number of 304 responses that the workers have reported."""
        return int(self.service.status()["answers"].get("304", 0))

    def test_metrics(self):
        """/metrics has the sums over all workers, including the delivery delay, and /status has a page for browsers."""
        clients = self.one_each()
        url = urlsplit(self.service.http)
        subscribers = [socket.create_connection((url.hostname, url.port or 0), timeout=10) for _ in range(6)]
        for subscriber in subscribers:
            self.addCleanup(subscriber.close)
            subscriber.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients.values():
            for _ in range(3):
                client.get("/", If_None_Match="*")

        metrics = self.metrics
        until(
            lambda: metrics()['livestate_event_readers{path="/"}'] == 6, "the subscribers of both workers are counted"
        )
        answers = 'livestate_responses_total{code="304",coding="",path="/"}'
        until(lambda: metrics().get(answers) == 6, "the responses of both workers are counted")
        self.write(b"[1]")
        until(lambda: metrics()['livestate_events_sent_total{path="/"}'] == 12, "the change is sent to all")
        now = metrics()
        self.assertGreaterEqual(now['livestate_delivery_delay_seconds_count{path="/"}'], 1)
        self.assertGreater(now["livestate_connections_accepted_total"], 7)
        self.assertGreater(now["livestate_event_loop_lag_seconds_count"], 0)
        self.assertEqual(now['livestate_document_changes_total{path="/"}'], 2)
        for number in (1, 2):
            for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds"):
                self.assertGreater(now[f'livestate_worker_{name}{{worker="{number}"}}'], 0)
        ran = run("promtool", "check", "metrics", stdin=get(self.service.admin, "/metrics").body)
        self.assertEqual((ran.returncode, ran.stdout + ran.stderr), (0, ""))
        page = get(self.service.admin, "/status", accept="text/html").body
        self.assertIn(b"<caption>Workers</caption>", page)

    def metrics(self) -> dict[str, float]:
        """Return the values in /metrics, by name and labels."""
        lines = get(self.service.admin, "/metrics").body.decode().splitlines()
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def test_access_log(self):
        """Both workers write whole lines to one access log, and SIGHUP makes both reopen it."""
        clients = self.one_each()
        log = self.folder / "access.log"
        until(lambda: log.read_text().count("\n") >= 2, "lines before the rotation")
        log.rename(self.folder / "access.log.1")
        os.kill(self.service.pid, signal.SIGHUP)
        until(log.exists, "a new file")
        for client in clients.values():
            for _ in range(500):
                client.get()
        until(lambda: log.read_text().count("\n") >= 1000, "both wrote to it")
        for line in log.read_text().splitlines():
            self.assertRegex(line, r'^127\.0\.0\.1 - - \[.{26}\] "GET / HTTP/1\.1" 200 \d+ "-" "-"$')


class DeathTests(WorkersCase):
    """What happens when one of the processes exits."""

    def test_killed(self):
        """A worker that is killed under load is replaced within a second, and no connection is refused meanwhile."""
        load = Load(self, self.service.http).start()
        for slot in (0, 1):
            count = load.answers + 200
            until(lambda: load.answers > count, "load")  # noqa: B023  # called within the iteration
            victim = self.service.workers()[slot]["pid"]
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            until(lambda: self.service.workers()[slot]["pid"] not in (victim, None), "another")  # noqa: B023
            self.assertLess(time.monotonic() - began, 1.0)
        load.stop()
        self.assertEqual((load.refused, load.wrong), ([], []))
        self.assertIn("was killed by signal 9", self.service.log)
        self.assertNotIn("Traceback", self.service.log)

    def test_stopped(self):
        """A worker that hangs is killed and replaced; connections that wait at its socket are served."""
        victim = self.service.workers()[1]["pid"]
        load = Load(self, self.service.http, connections=8, most=1, pause=0.02).start()
        os.kill(victim, signal.SIGSTOP)
        until(lambda: self.service.workers()[1]["pid"] not in (victim, None), "another")
        load.stop()
        self.assertTrue(ended(victim))
        self.assertEqual((load.refused, load.wrong), ([], []))
        # Only connections that it had accepted may be lost, 8 at most.
        self.assertLessEqual(len(load.lost + load.unaccepted), 8)
        self.assertIn("not responding", self.service.log)
        self.assertEqual([worker["unresponsive_restarts"] for worker in self.service.workers()], [0, 1])

    def test_supervisor_killed(self):
        """When the supervisor is killed, all its processes exit, so that none serves old documents."""
        clients = self.one_each()
        descendants = children(self.service.pid)
        self.assertEqual(len(descendants), 3)
        os.kill(descendants[-1], signal.SIGSTOP)
        os.kill(self.service.pid, signal.SIGKILL)
        until(lambda: all(ended(pid) for pid in descendants), "all are gone", 2.0)
        for client in clients.values():
            self.assertRaises(OSError, client.get)
        self.assertRaises(OSError, self.service.get)

    def test_zygote_killed(self):
        """When the zygote is killed, another is started; the workers keep serving and can be replaced."""
        zygote, *workers = children(self.service.pid)
        load = Load(self, self.service.http).start()
        os.kill(zygote, signal.SIGKILL)
        until(lambda: "starting another" in self.service.log, "noticed")
        until(lambda: children(self.service.pid) and children(self.service.pid)[0] != zygote, "another")
        load.stop()
        self.assertEqual((load.refused, load.unaccepted, load.wrong, load.lost), ([], [], [], []))
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: self.service.workers()[0]["pid"] not in (*workers, None), "replaced")

    def test_end(self):
        """SIGTERM stops all processes."""
        descendants = children(self.service.pid)
        self.service.stop()
        self.assertTrue(all(ended(pid) for pid in descendants))
        self.assertNotIn("Traceback", self.service.log)

    def test_terminal(self):
        """Ctrl-C, which the terminal sends to all processes, stops them without a traceback."""
        descendants = children(self.service.pid)
        for pid in (*descendants, self.service.pid):
            os.kill(pid, signal.SIGINT)
        until(lambda: all(ended(pid) for pid in (*descendants, self.service.pid)), "ended")
        self.assertNotIn("Traceback", self.service.log)


class ListeningTests(WorkersCase):
    """The kinds of listeners that workers support."""

    def setUp(self):
        self.folder = folder_for(self)
        self.write(b"[0]")

    def test_resumption(self):
        """A TLS session of one worker can be resumed at the others."""
        self.start("--workers=3", https="")
        port = int(self.service.https.rpartition(":")[2])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(self.service.cafile))
            context.minimum_version = context.maximum_version = version
            self.assertEqual(resumptions(port, context, 40), [False] + [True] * 39)
        until(lambda: all(worker["answers"] for worker in self.service.workers()), "each worker served some requests")

    def test_unix_socket(self):
        """Workers share a Unix socket, which is removed at the end."""
        path = self.folder / "web.sock"
        self.start("--workers=2", f"--http=unix:{path}")
        for _ in range(20):
            client = Client(f"unix:{path}")
            self.assertEqual(client.get().status, 200)
            client.close()
        self.service.stop()
        self.assertFalse(path.exists())

    def test_ipv6(self):
        """IPv6 works with workers too."""
        port = free_port()
        self.start("--workers=2", rf"--http=tcp:{port}:interface=\:\:1")
        self.assertEqual(get(f"http://[::1]:{port}").body, b"[0]")

    def test_not_shared(self):
        """A listener that workers cannot serve is refused in one line."""
        ran = run(
            *twistd_arguments(), "-n", "--pidfile=", "livestate", "--source=demo:", "--workers=2", "--admin=",
            f"--http=haproxy:tcp:{free_port()}", cwd=self.folder,
        )  # fmt: skip
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran.stderr)
        self.assertIn("only tcp:, ssl:, unix:", ran.stderr)

    def test_stock_reactor(self):
        """Workers run the same reactor as the supervisor."""
        self.start("--workers=2")
        kind = "EPollReactor" if os.environ.get("LIVESTATE_TEST_REACTOR") == "epoll" else "DirectReactor"
        self.assertIn(kind, self.service.log)
        self.assertEqual(self.service.get().status, 200)
