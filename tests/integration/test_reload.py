"""Ending, reloading and renewing while readers read: nothing of theirs is lost."""

import os
import shutil
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import livestate
from tests.integration.certificates import Authority
from tests.integration.load import Load
from tests.integration.processes import folder_for, until
from tests.integration.servers import Livestate


class EventReader:
    """A reader of events, on a socket of its own; `ended` says whether the stream came to an orderly end."""

    def __init__(self, service: Livestate, path: str = "/events") -> None:
        self.data = b""
        self.ended = False
        self._socket = socket.create_connection(("127.0.0.1", int(service.http.rpartition(":")[2])), 20)
        self._socket.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._socket:
            try:
                while some := self._socket.recv(65536):
                    self.data += some
            except OSError:
                return
        self.ended = self.data.endswith(b"\r\n0\r\n\r\n")

    def until_begun(self) -> None:
        """Wait for the first event."""
        until(lambda: b"\ndata:" in self.data, "an event")

    def wait(self) -> None:
        """Wait for the end."""
        self._thread.join(20)
        assert not self._thread.is_alive()


class AloneCase(SynchronousTestCase):
    """One livestate whose options stand in a file."""

    workers = 1

    def setUp(self):
        self.folder = folder_for(self)
        for name in ("a", "b"):
            (self.folder / f"{name}.json").write_text(f'["{name}"]')
        self.configure()

    def configure(self, *lines: str) -> None:
        """Write the file."""
        documents = ['[[document]]\nsource = "file:a.json"', *lines]
        (self.folder / "live.toml").write_text("\n".join(documents))

    def start(self, *options: str, **more: Any) -> None:
        """Start, and wait until all serve."""
        self.service = Livestate(
            self, "--config=live.toml", f"--workers={self.workers}", *options, folder=self.folder, **more
        )
        self.service.until_served()
        if self.workers > 1:
            until(lambda: all(worker["pid"] for worker in self.service.workers()), "workers")

    def hang_up(self, wanted: str) -> None:
        """Send SIGHUP, and wait until the log says what came of it."""
        count = self.service.log.count(wanted)
        os.kill(self.service.pid, signal.SIGHUP)
        until(lambda: self.service.log.count(wanted) > count, wanted)

    def until_replaced(self) -> None:
        """Wait until new workers have taken the places, where there are any."""
        if self.workers > 1:
            until(lambda: "have taken the places" in self.service.log, "new workers")

    def assert_nothing_lost(self, *loads: Load) -> None:
        """End the loads, and see that all their requests were answered."""
        for load in loads:
            load.stop()
            self.assertEqual((load.lost, load.unaccepted, load.refused, load.wrong), ([], [], [], []))
            self.assertGreater(load.answers, 100)
        self.assertNotIn("Traceback", self.service.log)


class AloneTests(AloneCase):
    """The signals, with one process."""

    def test_end(self):
        """SIGTERM loses no request, ends streams in an orderly way and long polls with an answer, and the code is 0."""
        self.start()
        load = Load(self, self.service.http).start()
        readers = [EventReader(self.service) for _ in range(20)]
        for reader in readers:
            reader.until_begun()
        poller, held = self.service.client(), []
        tag = poller.get()["ETag"]
        polling = threading.Thread(target=lambda: held.append(poller.get(If_None_Match=tag, Prefer="wait=50")))
        polling.start()
        until(lambda: self.service.status()["long_polls"] == 1, "a long poll", 5)
        idle = self.service.client()
        idle.get()
        began = time.monotonic()
        self.assertEqual(self.service.stop(), 0)
        self.assertLess(time.monotonic() - began, 12)
        load.stop()
        self.assertEqual((load.lost, load.wrong), ([], []))
        for reader in readers:
            reader.wait()
            self.assertTrue(reader.ended)
        polling.join(10)
        self.assertEqual([(answer.status, answer["Connection"]) for answer in held], [(304, "close")])
        self.assertNotIn("Traceback", self.service.log)

    def test_last_answers(self):
        """While it drains, answers say that they are the last, short cut or not, and a waiting connection is served."""
        self.start()
        clients = [self.service.client() for _ in range(4)]
        for client in clients:
            client.get()
        reader = EventReader(self.service)
        reader.until_begun()
        os.kill(self.service.pid, signal.SIGTERM)
        until(lambda: "let go" in self.service.log, "SIGTERM")
        time.sleep(0.3)
        for client, fields in zip(clients, ({}, {"Accept": "*/*", "Range": "x"}, {"Foo": "bar"}), strict=False):
            self.assertEqual(client.get(**fields)["Connection"], "close")
        self.assertEqual(clients[3].get("/nothing")["Connection"], "close")
        reader.wait()

    def test_twice(self):
        """A second SIGTERM, and Ctrl-C, wait for nobody."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.start()
            idle = self.service.client()
            idle.get()
            began = time.monotonic()
            if number == signal.SIGTERM:
                os.kill(self.service.pid, number)
                until(lambda: "let go" in self.service.log, "the first")
            os.kill(self.service.pid, number)
            self.assertEqual(self.service.wait(), 0)
            self.assertLess(time.monotonic() - began, 1.9)
            self.assertNotIn("Traceback", self.service.log)

    def test_documents(self):
        """SIGHUP adds and removes documents, and loses no request; a document that stays keeps its version."""
        self.start("--access-log=access.log")
        load = Load(self, self.service.http).start()
        reader = EventReader(self.service)
        reader.until_begun()
        version = self.service.status()["version"]
        self.configure('[[document]]\nsource = "file:b.json"\npath = "/b"')
        self.hang_up("is in force")
        # Workers of before accept until they have been told not to.
        until(lambda: all(self.service.get("/b").status == 200 for _ in range(20)), "the new one")
        self.assertEqual(self.service.get("/b").json(), ["b"])
        self.assertEqual(self.service.status()["version"], version)
        self.until_replaced()
        reader.wait()
        self.assertTrue(reader.ended)
        self.configure()
        self.hang_up("is in force")
        until(lambda: all(self.service.get("/b").status == 404 for _ in range(20)), "removed")
        answers = load.answers
        until(lambda: load.answers > answers + 100, "still under load")
        self.assert_nothing_lost(load)
        self.assertEqual(len(self.service.documents()), 1)

    def test_nothing_new(self):
        """SIGHUP with nothing new, as of logrotate, leaves connections alone."""
        self.start("--access-log=access.log")
        client = self.service.client()
        client.get()
        reader = EventReader(self.service)
        reader.until_begun()
        (self.folder / "access.log").rename(self.folder / "access.log.1")
        os.kill(self.service.pid, signal.SIGHUP)
        until((self.folder / "access.log").exists, "the log file is made anew")
        time.sleep(0.5)
        self.assertEqual(client.get()["Connection"], "")
        (self.folder / "a.json").write_text('["c"]')
        until(lambda: b'data: ["c"]' in reader.data, "the stream goes on")

    def test_bad_options(self):
        """Options that make no sense are refused in one line each time, and all goes on as before."""
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
            self.hang_up("the new configuration is refused")
            line = next(line for line in reversed(self.service.log.splitlines()) if "is refused" in line)
            self.assertIn(expected, line)
        self.assertEqual(client.get()["Connection"], "")
        self.assertNotIn("Traceback", self.service.log)

    def test_certificate(self):
        """A changed certificate is served by itself, one that cannot be used is refused, and no request is lost.

        Certbot's files are symbolic links, which it leads to the new files one after the other.
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
        self.hang_up("the new certificate is refused")
        self.assertEqual(self.name_served(), "one")
        for link, file in zip(links, authority.issue("two"), strict=True):
            link.unlink()
            link.symlink_to(file.name)
        until(lambda: self.name_served() == "two", "noticed", 30)
        for link, file in zip(links, authority.issue("three"), strict=True):
            shutil.copy(file, link)
        os.kill(self.service.pid, signal.SIGHUP)
        until(lambda: self.name_served() == "three", "reread", 30)
        self.assert_nothing_lost(load)

    def name_served(self) -> str:
        """Give the name in the certificate that a new connection gets."""
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        with socket.create_connection(("127.0.0.1", int(self.service.https.rpartition(":")[2])), 10) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                subject: Any = connection.getpeercert()
                return str(subject["subject"][0][0][1])


class WorkersTests(AloneTests):
    """The signals, with two workers."""

    workers = 2

    def setUp(self):
        super().setUp()
        self.code = self.folder / "code"

    def start_copy(self) -> None:
        """Start with a copy of the code, which can be changed."""
        shutil.copytree(Path(livestate.__file__).parent, self.code / "livestate")
        self.start(env={**os.environ, "PYTHONPATH": str(self.code)})

    def change_code(self, name: str, before: str, after: str) -> None:
        """Change a module of the copy."""
        path = self.code / "livestate" / name
        text = path.read_text()
        self.assertIn(before, text)
        path.write_text(text.replace(before, after))

    def test_new_code(self):
        """SIGUSR2 has workers with the code on disk take over, and loses no request."""
        self.start_copy()
        load = Load(self, self.service.http).start()
        reader = EventReader(self.service)
        reader.until_begun()
        before = {worker["pid"] for worker in self.service.workers()}
        self.change_code("web/responder.py", 'b"public, max-age=1,', 'b"public, max-age=7,')
        self.assertIn("max-age=1,", self.service.get()["Cache-Control"])
        os.kill(self.service.pid, signal.SIGUSR2)
        # The old ones accept until they have been told not to.
        until(lambda: "max-age=7," in self.service.get()["Cache-Control"], "new code")
        reader.wait()
        self.assertTrue(reader.ended)
        until(lambda: len(self.service.workers()) == 2, "the old ones are gone")
        self.assertFalse(before & {worker["pid"] for worker in self.service.workers()})
        self.assert_nothing_lost(load)

    def test_bad_code(self):
        """Code that does not come to serve is refused, and the workers that are there stay."""
        self.start_copy()
        before = {worker["pid"] for worker in self.service.workers()}
        for number, (module, line) in enumerate((("web/site.py", "class"), ("workers/pipe.py", "class"))):
            self.change_code(module, f"\n{line} ", f"\nnonsense {line} ")
            os.kill(self.service.pid, signal.SIGUSR2)
            until(lambda: self.service.log.count("do not come to serve") == number + 1, "refused")  # noqa: B023
        self.assertEqual({worker["pid"] for worker in self.service.workers()}, before)
        self.assertEqual(self.service.get().status, 200)
        self.assertIn("SyntaxError", self.service.log)


del AloneCase
