"""`livestate watch` and its client, with a real livestate and Redis."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.merge_patch import apply
from tests.cli.test_screen import Emulator
from tests.integration.certificates import Authority
from tests.integration.processes import LIMIT, Child, folder_for, free_port, program, run, until
from tests.integration.servers import Livestate, RedisServer
from tests.integration.venvs import ROOT


def document(number: int) -> str:
    """Return a document whose members are added, changed and removed as the number grows."""
    members = {f"m{number % 3}": number, "places": [{"name": "Meadow", "votes": number}], "n": number}
    return json.dumps(members)


class Watcher(Child):
    """A running `livestate watch`, with its standard output and errors in one file."""

    def __init__(self, case: SynchronousTestCase, *arguments: str) -> None:
        super().__init__(case, [program("livestate"), "watch", *arguments], folder_for(case))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines that it printed with --jsonl."""
        complete = self.output.rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]

    def until_state(self, number: int) -> None:
        """Wait until the printed states and patches add up to this document."""
        until(lambda: self.state() == json.loads(document(number)), f"document {number}")

    def state(self) -> Any:
        """Return the sum of the printed states and patches."""
        state: Any = None
        for record in self.records:
            state = record["state"] if "state" in record else apply(state, record["patch"])
        return state


class WatchCase(SynchronousTestCase):
    """A key in Redis, served by livestate."""

    def setUp(self):
        self.store = RedisServer(self)
        self.store.set(document(0))
        self.source = f"--source={self.store.url}?key=livestate&notify=livestate"

    def serve(self, *options: str, **more: Any) -> Livestate:
        service = Livestate(self, self.source, "--interval=0.2", *options, **more)
        service.until_served()
        return service

    def change(self, number: int) -> None:
        self.store.set(document(number))

    def until_lines(self, watcher: Watcher, number: int) -> None:
        """Wait until this many lines are printed."""
        until(lambda: watcher.output.count("\n") == number, f"line {number}")

    def assert_monotonic(self, watcher: Watcher) -> None:
        """Check that neither the versions nor the documents ever went back."""
        versions = [record["version"] for record in watcher.records]
        self.assertEqual(versions, sorted(set(versions)))
        numbers = [(record["state"] if "state" in record else record["patch"])["n"] for record in watcher.records]
        self.assertEqual(numbers, sorted(set(numbers)))


class PrintTests(WatchCase):
    """Printing into a pipe."""

    def test_every_change(self):
        """Over HTTP and HTTPS, the states or patches add up to the document after each of fifty changes."""
        service = self.serve(https="")
        watchers = [
            Watcher(self, *arguments, "--jsonl", *patch)
            for arguments in ((service.http,), (service.https, "--cafile", str(service.cafile)))
            for patch in ((), ("--patch",))
        ]
        for watcher in watchers:
            watcher.until_state(0)
        for number in range(1, 51):
            self.change(number)
            self.store.command("PUBLISH", "livestate", "")
            for watcher in watchers:
                watcher.until_state(number)
        for number, watcher in enumerate(watchers):
            self.assert_monotonic(watcher)
            self.assertEqual(any("patch" in record for record in watcher.records), number % 2 == 1)
            watcher.signal(signal.SIGINT)
            self.assertEqual(watcher.process.wait(LIMIT), 0)
            self.assertNotIn("livestate:", watcher.output)

    def test_plain_patches(self):
        """Without --jsonl, the first line is the state, and the patches after it, applied in order, give the document."""
        service = self.serve()
        watcher = Watcher(self, service.http, "--patch", "--count", "10")
        for number in range(1, 10):
            self.until_lines(watcher, number)
            self.change(number)
        self.assertEqual(watcher.process.wait(LIMIT), 0)
        state: Any = None
        for line in watcher.output.splitlines():
            state = apply(state, json.loads(line))
        self.assertEqual(state, json.loads(document(9)))

    def test_restart(self):
        """A restart of livestate, with a change while it is down, is reported once, and versions never go back."""
        folder = folder_for(self)
        ports = [f"--http=tcp:{free_port()}:interface=127.0.0.1"]
        service = Livestate(self, self.source, "--interval=0.2", *ports, http=False, folder=folder)
        url = f"http://127.0.0.1:{ports[0].split(':')[1]}/"
        watcher = Watcher(self, url, "--jsonl", "--patch")
        watcher.until_state(0)
        for number in range(1, 4):
            service.stop()
            if number == 2:
                until(lambda: "retrying" in watcher.output, "a line that it is down")
            self.change(number)
            service = Livestate(self, self.source, "--interval=0.2", *ports, http=False, folder=folder)
            watcher.until_state(number)
        self.assert_monotonic(watcher)
        self.assertLessEqual(watcher.output.count("retrying"), 3)
        self.assertNotIn("Traceback", watcher.output)

    def test_started_first(self):
        """Started before the server, or before the document exists, it waits for them."""
        port = free_port()
        watcher = Watcher(self, f"http://127.0.0.1:{port}/", "--jsonl")
        self.store.command("DEL", "livestate")
        Livestate(self, self.source, "--interval=0.2", f"--http=tcp:{port}:interface=127.0.0.1", http=False)
        time.sleep(0.5)
        self.assertEqual(watcher.records, [])
        self.change(1)
        watcher.until_state(1)

    def test_polling(self):
        """A server without events is polled."""
        folder = folder_for(self)
        file = folder / "r.json"
        file.write_text(document(1))
        port = free_port()
        server = Child(
            self, [program("twistd"), "-n", "--pidfile=", "web", f"--path={folder}", f"--listen=tcp:{port}"], folder
        )
        url = f"http://127.0.0.1:{port}/r.json"
        server.wait_for(lambda: "Starting factory" in server.output, "a file server")
        watcher = Watcher(self, url, "--jsonl")
        watcher.until_state(1)
        time.sleep(1.1)  # its entity tags and times have a resolution of one second
        file.write_text(document(2))
        watcher.until_state(2)
        self.assertEqual({record["version"] for record in watcher.records}, {None})

    def test_pointer(self):
        """--pointer prints one part only when that part changes, and reports when it is missing."""
        service = self.serve()
        part = Watcher(self, service.http, "--pointer", "/m1/x~1y", "--jsonl")
        whole = Watcher(self, service.http, "--jsonl")
        until(lambda: "there is no /m1/x~1y" in part.output and whole.records, "a line that it is missing")
        for number, value in enumerate(({"m1": {"x/y": 1}}, {"m1": {"x/y": 1}, "z": 2}, {"m1": {"x/y": {"a": 2}}}), 2):
            self.store.set(json.dumps(value))
            self.until_lines(whole, number)
        until(lambda: len(part.records) == 2, "two changes")
        self.assertEqual([record["state"] for record in part.records], [1, {"a": 2}])

    def test_count(self):
        """After --count states it exits with status 0; without --jsonl a state is indented JSON."""
        service = self.serve()
        ran = run(program("livestate"), "watch", service.http, "--count", "1")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(ran.stdout, json.dumps(json.loads(document(0)), indent=2) + "\n")

    def test_broken_pipe(self):
        """`| head -n 1` ends it silently and at once, even if nothing more is printed."""
        service = self.serve()
        ran = subprocess.run(
            ["bash", "-c", f"{program('livestate')} watch {service.http} --jsonl | head -n 1; echo ${{PIPESTATUS[0]}}"],
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        self.assertEqual(ran.stdout.decode().splitlines()[1:], ["0"])
        self.assertEqual(ran.stderr, b"")


class ReadmeTests(WatchCase):
    """The example in README.md."""

    def test_python(self):
        """The example prints a state with its version, and then the changes."""
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```python\n(.*?livestate\.client.*?)^```", readme, re.DOTALL | re.MULTILINE)
        url = "http://localhost:8080/demo"
        self.assertIn(url, example)
        service = self.serve()
        child = Child(self, [program("python"), "-u", "-c", example.replace(url, service.http)], folder_for(self))
        until(lambda: child.output.endswith("None\n"), "the first state")
        self.change(1)
        until(lambda: child.output.count("\n") == 2, "a change")
        self.assertRegex(child.output.splitlines()[1], r"^\d+ \{.*'n': 1.*\} (None|\{.*\})$")


class ErrorTests(WatchCase):
    """Errors that end it with exit status 1 and one line."""

    def error(self, *arguments: str) -> str:
        ran = run(program("livestate"), "watch", *arguments)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1), ran)
        self.assertTrue(ran.stderr.startswith("livestate: "))
        return ran.stderr

    def test_errors(self):
        """A missing document, a certificate of an unknown or different authority, and an invalid URL are errors."""
        service = self.serve(https="")
        other = Authority(folder_for(self))
        self.assertIn("answered 404", self.error(f"{service.http}/missing"))
        self.assertIn("--cafile", self.error(service.https))
        self.assertIn("certificate", self.error(service.https, "--cafile", str(other.certificate)))
        self.assertIn("missing.pem", self.error(service.https, "--cafile", "missing.pem"))
        self.assertIn("nonsense", self.error("nonsense"))

    def test_output(self):
        """Standard output that cannot be written to is an error."""
        service = self.serve()
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(
                [program("livestate"), "watch", service.http], stdout=full, stderr=subprocess.PIPE,
                timeout=LIMIT, check=False,
            )  # fmt: skip
        self.assertEqual(
            (ran.returncode, ran.stderr), (1, b"livestate: cannot write to standard output: No space left on device\n")
        )

    def test_usage(self):
        """Wrong usage exits with status 2."""
        for arguments in (
            (),
            ("http://h/", "--count", "0"),
            ("http://h/", "--count", "x"),
            ("http://h/", "--pointer", "a"),
        ):
            ran = run(program("livestate"), "watch", *arguments)
            self.assertEqual(ran.returncode, 2, arguments)
            self.assertIn("usage: livestate", ran.stderr)


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, case: SynchronousTestCase, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        case.addCleanup(os.close, self.master)
        self.size = 0, 0
        self.resize(60, 15)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "PS1": "$ ", "TERM": "xterm"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no threads here
        )  # fmt: skip
        os.close(slave)
        case.addCleanup(self.end)
        self.data = b""

    def end(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)

    def resize(self, columns: int, rows: int) -> None:
        self.size = columns, rows
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self) -> bytes:
        """Return everything written to the terminal so far."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # how Linux reports the end
                break
            self.data += data
            if not data:
                break
        return self.data

    def screen(self) -> Emulator:
        """Return the content of the screen."""
        complete = self.read().rpartition(b"\x1b[?2026l")[0]
        emulator = Emulator(*self.size)
        emulator.write(complete[max(0, complete.rfind(b"\x1b[2J")) :])
        return emulator

    def until_text(self, text: str) -> Emulator:
        try:
            until(lambda: text in "\n".join(self.screen().rows), f"{text!r} on the screen")
        except AssertionError:
            raise AssertionError(f"{text!r} is not on the screen: {self.screen().rows}") from None
        return self.screen()

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.master)


class ScreenTests(WatchCase):
    """The screen on a terminal."""

    def watch(self, service: Livestate) -> Terminal:
        terminal = Terminal(self, program("livestate"), "watch", service.http)
        terminal.until_text("live  version")
        return terminal

    def test_live(self):
        """The document is shown on one screen, changes are highlighted, and a resize redraws it."""
        terminal = self.watch(self.serve())
        screen = terminal.until_text('"n": 0')
        self.assertIn("events", screen.status_line)
        self.change(1)
        self.store.command("PUBLISH", "livestate", "")
        screen = terminal.until_text('"n": 1')
        self.assertIn('{"name": "Meadow", "votes": 1}', screen.text())
        self.assertIn("1", screen.highlighted[screen.rows.index('  "n": 1')])
        drawn = terminal.read().count(b"\x1b[2J")
        terminal.resize(30, 5)
        until(lambda: terminal.read().rpartition(b"\x1b[?2026l")[0].count(b"\x1b[2J") > drawn, "a new screen")
        self.assertEqual(len(terminal.screen().status_line), 30)
        self.assertIn("more", terminal.until_text("…").text())

    def test_restart(self):
        """While the server is down, the lost connection and the document are shown; after its return, the new state."""
        port = free_port()
        options = self.source, "--interval=0.2", f"--http=tcp:{port}:interface=127.0.0.1"
        service = Livestate(self, *options, http=False)
        terminal = Terminal(self, program("livestate"), "watch", f"http://127.0.0.1:{port}/")
        terminal.until_text('"n": 0')
        service.stop()
        self.assertIn('"n": 0', terminal.until_text("no connection: connection refused").text())
        self.change(1)
        Livestate(self, *options, http=False)
        self.assertIn("live", terminal.until_text('"n": 1').status_line)

    def test_ends(self):
        """Ctrl-C and SIGTERM restore the terminal and exit with status 0."""
        service = self.serve()
        for end in (b"\x03", None):
            terminal = self.watch(service)
            self.assertNotEqual(terminal.settings(), terminal.before)
            if end is not None:
                terminal.type(b"typed" + end)
            else:
                terminal.process.terminate()
            self.assertEqual(terminal.process.wait(LIMIT), 0)
            self.assertTrue(terminal.read().endswith(b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"), terminal.data[-60:])
            self.assertEqual(terminal.settings(), terminal.before)
            self.assertNotIn(b"typed", terminal.data)
            self.assertNotIn(b"Traceback", terminal.data)

    def test_error(self):
        """An error restores the terminal first, so that its message can be read."""
        terminal = Terminal(self, program("livestate"), "watch", f"{self.serve().http}/missing")
        self.assertEqual(terminal.process.wait(LIMIT), 1)
        self.assertRegex(terminal.read().decode(), r"1049l.*livestate: http://\S+/missing: answered 404\r\n\Z")
        self.assertEqual(terminal.settings(), terminal.before)

    def test_suspended(self):
        """Ctrl-Z restores the terminal, and `fg` redraws the document."""
        service = self.serve()
        shell = Terminal(self, "bash", "--norc", "--noediting", "-i")
        shell.type(f"{program('livestate')} watch {service.http}\n".encode())
        until(lambda: b'"n": 0' in shell.read(), "the document")
        shell.type(b"\x1a")
        until(lambda: b"Stopped" in shell.read().rpartition(b"\x1b[?1049l")[2], "the shell")
        self.change(1)
        shell.type(b"fg\n")
        until(lambda: b'"n": 1' in shell.read().rpartition(b"\x1b[?1049h")[2], "the redrawn document")
        shell.type(b"\x03")
        until(lambda: b"$ " in shell.read().rpartition(b"\x1b[?1049l")[2], "the shell")
        shell.type(b"echo status=$?\n")
        until(lambda: b"status=0" in shell.read(), "exit status 0")

    def test_lines_on_a_terminal(self):
        """With --jsonl, lines are printed on a terminal too."""
        terminal = Terminal(self, program("livestate"), "watch", self.serve().http, "--jsonl", "--count", "1")
        self.assertEqual(terminal.process.wait(LIMIT), 0)
        self.assertTrue(terminal.read().startswith(b'{"version":'))
        self.assertNotIn(b"\x1b", terminal.data)
