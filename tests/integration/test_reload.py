"""Shutdown, reload and renewal under load: clients lose nothing."""

import http.client
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import livestate
from tests.integration.certificates import Authority
from tests.integration.events import Subscriber
from tests.integration.fronts import Front
from tests.integration.http import get
from tests.integration.load import Load, Wrk
from tests.integration.processes import Child, folder_for, free_port, twistd_arguments, until
from tests.integration.servers import Livestate


class InProcessCase(SynchronousTestCase):
    """A livestate with a configuration file."""

    workers = 1

    def setUp(self):
        self.folder = folder_for(self)
        for name in ("a", "b"):
            (self.folder / f"{name}.json").write_text(f'["{name}"]')
        self.configure()

    def configure(self, *lines: str, options: str = "") -> None:
        """Write the configuration file."""
        documents = [options, '[[document]]\nsource = "file:a.json"', *lines]
        (self.folder / "live.toml").write_text("\n".join(documents))

    def start(self, *options: str, **more: Any) -> None:
        """Start livestate, and wait until it is serving, with all workers."""
        self.service = Livestate(
            self, "--config=live.toml", f"--workers={self.workers}", *options, folder=self.folder, **more
        )
        self.service.until_served()
        if self.workers > 1:
            until(lambda: all(worker["pid"] for worker in self.service.workers()), "workers")

    def hang_up(self, expected: str) -> None:
        """Send SIGHUP, and wait for the log line that reports its result."""
        count = self.service.log.count(expected)
        os.kill(self.service.pid, signal.SIGHUP)
        until(lambda: self.service.log.count(expected) > count, expected)

    def until_replaced(self) -> None:
        """With workers, wait until new ones are serving."""
        if self.workers > 1:
            until(lambda: "new workers are serving" in self.service.log, "new workers")

    def assert_nothing_lost(self, *loads: Load) -> None:
        """Stop the loads, and assert that all their requests were answered."""
        for load in loads:
            load.stop()
            self.assertEqual((load.lost, load.unaccepted, load.refused, load.wrong), ([], [], [], []))
            self.assertGreater(load.answers, 100)
        self.assertNotIn("Traceback", self.service.log)


class InProcessTests(InProcessCase):
    """The signals, with one process."""

    def test_end(self):
        """SIGTERM loses no request, ends streams properly, answers long polls, and exits with 0.

        It waits neither for idle connections nor for their response to TLS's close_notify.
        """
        self.start(https="")
        load = Load(self, self.service.http).start()
        subscribers = [Subscriber(self, self.service) for _ in range(20)]
        for subscriber in subscribers:
            subscriber.until_started()
        poller, responses = self.service.client(), []
        tag = poller.get()["ETag"]
        polling = threading.Thread(target=lambda: responses.append(poller.get(If_None_Match=tag, Prefer="wait=50")))
        polling.start()
        until(lambda: self.service.status()["long_polls"] == 1, "a long poll", 5)
        idle = [self.service.client(https) for https in (False, True)]
        for client in idle:
            client.get()
        began = time.monotonic()
        self.assertEqual(self.service.stop(), 0)
        self.assertLess(time.monotonic() - began, 8)
        load.stop()
        self.assertEqual((load.lost, load.wrong), ([], []))
        for subscriber in subscribers:
            subscriber.wait()
            self.assertTrue(subscriber.complete)
        polling.join(10)
        self.assertEqual([(response.status, response["Connection"]) for response in responses], [(304, "close")])
        self.assertNotIn("Traceback", self.service.log)

    def test_last_answers(self):
        """During a drain, every response closes its connection, on the fast path or not, and idle ones are still served."""
        self.start()
        clients = [self.service.client() for _ in range(5)]
        for client in clients:
            client.get()
        subscriber = Subscriber(self, self.service)
        subscriber.until_started()
        os.kill(self.service.pid, signal.SIGTERM)
        until(lambda: "shutting down" in self.service.log, "SIGTERM")
        time.sleep(0.3)
        for client, fields in zip(clients, ({}, {"Accept": "*/*", "Range": "x"}, {"Foo": "bar"}), strict=False):
            self.assertEqual(client.get(**fields)["Connection"], "close")
        self.assertEqual(clients[3].get("/nothing")["Connection"], "close")
        ready = clients[4].get("/_live/ready")
        self.assertEqual((ready.status, ready.body, ready["Connection"]), (503, b"ending\n", "close"))
        subscriber.wait()

    def test_twice(self):
        """A second SIGTERM, and Ctrl-C, stop livestate without waiting for clients."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.start()
            idle = self.service.client()
            idle.get()
            began = time.monotonic()
            if number == signal.SIGTERM:
                os.kill(self.service.pid, number)
                until(lambda: "shutting down" in self.service.log, "the first")
            os.kill(self.service.pid, number)
            self.assertEqual(self.service.wait(), 0)
            self.assertLess(time.monotonic() - began, 1.9)
            self.assertNotIn("Traceback", self.service.log)

    def status_as(self, host: str) -> int:
        """Return the status of a request to the admin listener under this host name."""
        connection = http.client.HTTPConnection(self.service.admin.partition("//")[2], timeout=20)
        self.addCleanup(connection.close)
        connection.request("GET", "/health", headers={"Host": host})
        return connection.getresponse().status

    def test_disk_hangs(self):
        """A disk that does not respond delays the exit by some seconds, and not at all if SIGTERM is sent twice."""
        (self.folder / "site").mkdir()
        (self.folder / "site/sitecustomize.py").write_text(
            "import os, time\ndef hang(descriptor):\n    while True: time.sleep(1)\nos.fsync = hang\n"
        )
        path = os.pathsep.join(filter(None, [str(self.folder / "site"), os.environ.get("PYTHONPATH")]))
        for twice in (False, True):
            self.start("--state-dir=state", env={**os.environ, "PYTHONPATH": path})
            time.sleep(1.5)
            started = time.monotonic()
            os.kill(self.service.pid, signal.SIGTERM)
            if twice:
                time.sleep(1)
                os.kill(self.service.pid, signal.SIGTERM)
            status = self.service.wait()
            self.assertLess(time.monotonic() - started, 5 if twice else 20)
            self.assertEqual(status, -signal.SIGTERM if twice else 1)
            self.assertEqual("has not finished within" in self.service.log, not twice)

    def test_documents(self):
        """SIGHUP adds and removes documents, and loses no request; a document that stays keeps its version."""
        self.start("--access-log=access.log")
        load = Load(self, self.service.http).start()
        subscriber = Subscriber(self, self.service)
        subscriber.until_started()
        persistent = self.service.client()
        persistent.get()
        version = self.service.status()["version"]
        self.assertEqual(self.status_as("new.example"), 421)
        self.configure('[[document]]\nsource = "file:b.json"\npath = "/b"', options='admin-host = "new.example"')
        self.hang_up("is in effect")
        # Readiness is also 200 on a persistent connection to the replaced site or worker: this server stays.
        ready = persistent.get("/_live/ready")
        self.assertEqual((ready.status, ready.body), (200, b"ok\n"))
        self.assertEqual(self.status_as("new.example"), 200)
        # The previous workers accept connections until they are told to drain.
        until(lambda: all(self.service.get("/b").status == 200 for _ in range(20)), "the new document")
        self.assertEqual(self.service.get("/b").json(), ["b"])
        self.assertEqual(self.service.status()["version"], version)
        self.until_replaced()
        subscriber.wait()
        self.assertTrue(subscriber.complete)
        self.configure()
        self.hang_up("is in effect")
        until(lambda: all(self.service.get("/b").status == 404 for _ in range(20)), "removed")
        answers = load.answers
        until(lambda: load.answers > answers + 100, "still under load")
        self.assert_nothing_lost(load)
        self.assertEqual(len(self.service.documents()), 1)
        self.assertNotIn(b'path="/b"', get(self.service.admin, "/metrics").body)

    def test_wrk(self):
        """SIGHUP and SIGUSR2 cause no error of any kind in wrk, over HTTP and HTTPS, and end all streams properly."""
        self.start(https="")
        loads = [Wrk(self, url) for url in (self.service.http, self.service.https)]
        subscribers = self.subscribers(10)
        until(lambda: sum(self.service.status()["answers"].values()) > 500, "load")
        self.configure('[[document]]\nsource = "file:b.json"\npath = "/b"')
        self.hang_up("is in effect")
        for subscriber in subscribers:
            subscriber.wait()
            self.assertTrue(subscriber.complete)
        if self.workers > 1:
            subscribers = self.subscribers(10)
            os.kill(self.service.pid, signal.SIGUSR2)
            until(lambda: self.service.log.count("new workers are serving") == 2, "new workers")
            for subscriber in subscribers:
                subscriber.wait()
                self.assertTrue(subscriber.complete)
        for load in loads:
            answers, errors = load.stop()
            # At least one response on each connection, before and after the reload.
            self.assertGreater(answers, 16)
            self.assertEqual(errors, "")
        self.assertNotIn("Traceback", self.service.log)

    def subscribers(self, number: int) -> list[Subscriber]:
        """Return subscribers that have received their first event."""
        subscribers = [Subscriber(self, self.service) for _ in range(number)]
        for subscriber in subscribers:
            subscriber.until_started()
        return subscribers

    def test_nothing_changed(self):
        """SIGHUP without any change, as from logrotate, leaves connections alone."""
        self.start("--access-log=access.log")
        client = self.service.client()
        client.get()
        subscriber = Subscriber(self, self.service)
        subscriber.until_started()
        (self.folder / "access.log").rename(self.folder / "access.log.1")
        os.kill(self.service.pid, signal.SIGHUP)
        until((self.folder / "access.log").exists, "a new log file")
        time.sleep(0.5)
        self.assertEqual(client.get()["Connection"], "")
        (self.folder / "a.json").write_text('["c"]')
        until(lambda: b'data: ["c"]' in subscriber.received, "the stream goes on")

    def test_another_directory(self):
        """File names mean the same at the start and after a reload, whatever directory twistd has changed to."""
        (self.folder / "run").mkdir()
        (self.folder / "run/b.json").write_text('["wrong"]')
        self.start(twistd=["--rundir=run"])
        self.assertEqual(self.service.get("/").json(), ["a"])
        key, certificate = Authority(self.folder).issue()
        port = free_port()
        self.configure(
            '[[document]]\npath = "/b"\nsource = "file:b.json"',
            options=f'https = "ssl:{port}:privateKey={key.name}:certKey={certificate.name}"',
        )
        self.hang_up("the new configuration is in effect")
        self.until_replaced()
        until(lambda: self.service.get("/b").status == 200, "the new document")
        self.assertEqual(self.service.get("/b").json(), ["b"])
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            context.wrap_socket(raw, server_hostname="localhost").close()

    def test_bad_options(self):
        """Invalid options are rejected in one line each, and nothing changes."""
        self.start()
        client = self.service.client()
        client.get()
        for lines, expected in (
            (["nonsense = 3"], "unknown name"),
            (['[[document]]\nsource = "nonsense://b"\npath = "/b"'], "nonsense"),
            (['[[document]]\nsource = "file:b.json"'], "already"),
            (["=="], "not TOML"),
        ):
            self.configure(*lines)
            self.hang_up("rejected the new configuration")
            line = next(
                line for line in reversed(self.service.log.splitlines()) if "rejected the new configuration" in line
            )
            self.assertIn(expected, line)
        # An option that only a restart can change.
        self.configure(options='log-format = "json"')
        self.hang_up("--log-format cannot change without a restart")
        # No development certificate is created instead of a broken one that the options name.
        self.configure(options=f'https = "ssl:{free_port()}:interface=127.0.0.1:privateKey=a.json:certKey=a.json"')
        self.hang_up("rejected the new configuration")
        self.assertIn("no PEM", self.service.log.splitlines()[-1])
        self.assertFalse((self.folder / "server.pem").exists())
        self.assertEqual(client.get()["Connection"], "")
        self.assertNotIn("Traceback", self.service.log)

    def test_certificate(self):
        """A changed certificate is served without a signal, an unusable one is rejected, and no request is lost.

        Certbot's files are symbolic links, which it points to the new files one after the other.
        """
        authority = Authority(self.folder)
        links = self.folder / "key.pem", self.folder / "certificate.pem"
        for link, file in zip(links, authority.issue("one"), strict=True):
            link.symlink_to(file.name)
        self.start(https=":privateKey=key.pem:certKey=certificate.pem")
        load = Load(self, self.service.https, connections=4).start()
        self.assertEqual(self.name_served(), "one")
        links[1].unlink()
        links[1].write_text("nothing")
        self.hang_up("rejected the new certificate")
        self.assertEqual(self.name_served(), "one")
        for link, file in zip(links, authority.issue("two"), strict=True):
            link.unlink()
            link.symlink_to(file.name)
        until(lambda: self.name_served() == "two", "noticed", 30)
        for link, file in zip(links, authority.issue("three"), strict=True):
            shutil.copy(file, link)
        # It is served even if the options are rejected.
        self.configure('[[document]]\nsource = "nonsense://b"\npath = "/b"')
        self.hang_up("rejected the new configuration")
        until(lambda: self.name_served() == "three", "reread", 30)
        self.assert_nothing_lost(load)

    def name_served(self) -> str:
        """Return the name in the certificate that a new connection gets."""
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        with socket.create_connection(("127.0.0.1", int(self.service.https.rpartition(":")[2])), 10) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                subject: Any = connection.getpeercert()
                return str(subject["subject"][0][0][1])


class WorkersTests(InProcessTests):
    """The signals, with two workers."""

    workers = 2

    def setUp(self):
        super().setUp()
        self.code = self.folder / "code"

    def start_copy(self) -> None:
        """Start livestate from a copy of the code, which the test can change."""
        shutil.copytree(Path(livestate.__file__).parent, self.code / "livestate")
        self.start(env={**os.environ, "PYTHONPATH": str(self.code)})

    def change_code(self, name: str, before: str, after: str) -> None:
        """Replace text in a module of the copy."""
        path = self.code / "livestate" / name
        text = path.read_text()
        self.assertIn(before, text)
        path.write_text(text.replace(before, after))

    def test_new_code(self):
        """SIGUSR2 replaces the workers by new ones with the code on disk, and loses no request."""
        self.start_copy()
        load = Load(self, self.service.http).start()
        subscriber = Subscriber(self, self.service)
        subscriber.until_started()
        before = {worker["pid"] for worker in self.service.workers()}
        self.change_code("web/responses/responder.py", 'b"public, max-age=1,', 'b"public, max-age=7,')
        self.assertIn("max-age=1,", self.service.get()["Cache-Control"])
        os.kill(self.service.pid, signal.SIGUSR2)
        # The previous workers accept connections until they are told to drain.
        until(lambda: "max-age=7," in self.service.get()["Cache-Control"], "new code")
        subscriber.wait()
        self.assertTrue(subscriber.complete)
        until(lambda: len(self.service.workers()) == 2, "the previous workers are gone")
        self.assertFalse(before & {worker["pid"] for worker in self.service.workers()})
        self.assert_nothing_lost(load)

    def test_bad_code(self):
        """Workers with broken code are rejected, and the current ones stay."""
        self.start_copy()
        before = {worker["pid"] for worker in self.service.workers()}
        for number, (module, line) in enumerate((("web/site.py", "class"), ("workers/pipe.py", "class"))):
            self.change_code(module, f"\n{line} ", f"\nnonsense {line} ")
            os.kill(self.service.pid, signal.SIGUSR2)
            until(lambda: self.service.log.count("new workers failed to start") == number + 1, "refused")  # noqa: B023
        self.assertEqual({worker["pid"] for worker in self.service.workers()}, before)
        self.assertEqual(self.service.get().status, 200)
        self.assertIn("SyntaxError", self.service.log)


class InheritedSocketTests(SynchronousTestCase):
    """A restart by a service manager that keeps the listening socket open, as systemd does with livestate.socket."""

    def test_restart(self):
        """A stop and a start cause no error of any kind in wrk; connections that arrive between them wait."""
        port = free_port()
        with socket.create_server(("127.0.0.1", port), backlog=128) as listening:
            child = self.start(listening)
            url = f"http://127.0.0.1:{port}"
            load = Wrk(self, url)
            # From one process to workers, and from these to one process.
            for workers in ("2", "1"):
                subscriber = Subscriber(self, Front("the socket", http=url))
                subscriber.until_started()
                self.assertEqual(child.stop(), 0)
                subscriber.wait()
                self.assertTrue(subscriber.complete)
                between = Subscriber(self, Front("the socket", http=url))
                child = self.start(listening, f"--workers={workers}")
                between.until_started()
            answers, errors = load.stop()
        self.assertGreater(answers, 100)
        self.assertEqual(errors, "")

    def start(self, listening: socket.socket, *options: str) -> Child:
        """Start livestate with this listening socket passed to it."""
        # sd_listen_fds(3): the sockets start at descriptor 3, and are meant for the process LISTEN_PID.
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvpe(sys.argv[2], sys.argv[2:], "
        script += "{**os.environ, 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'http', 'LISTEN_PID': str(os.getpid())})"
        arguments = [*twistd_arguments(), "-n", "--pidfile=", "livestate", "--source=demo:", "--admin="]
        arguments += ["--http=systemd:domain=INET:index=0", *options]
        return Child(
            self,
            [sys.executable, "-c", script, str(listening.fileno()), *arguments],
            folder_for(self),
            pass_fds=[listening.fileno()],
        )


del InProcessCase
