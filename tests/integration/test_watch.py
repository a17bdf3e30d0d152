"""`livestate watch` and the client below it, with a real livestate and Redis."""

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
    """Give a document with members that come, change and go."""
    members = {f"m{number % 3}": number, "places": [{"name": "Meadow", "votes": number}], "n": number}
    return json.dumps(members)


class Watcher(Child):
    """A `livestate watch` that runs, its standard output and errors in one file."""

    def __init__(self, case: SynchronousTestCase, *arguments: str) -> None:
        super().__init__(case, [program("livestate"), "watch", *arguments], folder_for(case))

    @property
    def records(self) -> list[dict[str, Any]]:
        """What it has printed, of --jsonl."""
        whole = self.output.rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def until_state(self, number: int) -> None:
        """Wait until what it printed, all put together, is a document."""
        until(lambda: self.state() == json.loads(document(number)), f"document {number}")

    def state(self) -> Any:
        """Put together what it has printed."""
        state: Any = None
        for record in self.records:
            state = record["state"] if "state" in record else apply(state, record["patch"])
        return state


class WatchCase(SynchronousTestCase):
    """A key in Redis, served."""

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
        """Wait until so many lines were printed."""
        until(lambda: watcher.output.count("\n") == number, f"line {number}")

    def assert_never_back(self, watcher: Watcher) -> None:
        """See that neither versions nor what is in the documents ever went back."""
        versions = [record["version"] for record in watcher.records]
        self.assertEqual(versions, sorted(set(versions)))
        numbers = [(record["state"] if "state" in record else record["patch"])["n"] for record in watcher.records]
        self.assertEqual(numbers, sorted(set(numbers)))


class PrintTests(WatchCase):
    """Into a pipe."""

    def test_every_change(self):
        """Over HTTP and HTTPS, states or patches put together are the document after each of fifty changes."""
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
            self.assert_never_back(watcher)
            self.assertEqual(any("patch" in record for record in watcher.records), number % 2 == 1)
            watcher.signal(signal.SIGINT)
            self.assertEqual(watcher.process.wait(LIMIT), 0)
            self.assertNotIn("livestate:", watcher.output)

    def test_patches_as_they_are(self):
        """Without --jsonl the first line is the state, and the patches after it, applied in order, give the document."""
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
        """A restart of livestate, with a change while it is away, is survived: said once, and versions never go back."""
        folder = folder_for(self)
        ports = [f"--http=tcp:{free_port()}:interface=127.0.0.1"]
        service = Livestate(self, self.source, "--interval=0.2", *ports, http=False, folder=folder)
        url = f"http://127.0.0.1:{ports[0].split(':')[1]}/"
        watcher = Watcher(self, url, "--jsonl", "--patch")
        watcher.until_state(0)
        for number in range(1, 4):
            service.stop()
            if number == 2:
                until(lambda: "asking on" in watcher.output, "that it is away")
            self.change(number)
            service = Livestate(self, self.source, "--interval=0.2", *ports, http=False, folder=folder)
            watcher.until_state(number)
        self.assert_never_back(watcher)
        self.assertLessEqual(watcher.output.count("asking on"), 3)
        self.assertNotIn("Traceback", watcher.output)

    def test_started_first(self):
        """Started before there is a server, it waits for one; and before there is a document, for that."""
        port = free_port()
        watcher = Watcher(self, f"http://127.0.0.1:{port}/", "--jsonl")
        self.store.command("DEL", "livestate")
        Livestate(self, self.source, "--interval=0.2", f"--http=tcp:{port}:interface=127.0.0.1", http=False)
        time.sleep(0.5)
        self.assertEqual(watcher.records, [])
        self.change(1)
        watcher.until_state(1)

    def test_polling(self):
        """A server that has only the document, such as one before livestate had events, is polled."""
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
        time.sleep(1.1)  # its entity tags and times have a second's grain
        file.write_text(document(2))
        watcher.until_state(2)
        self.assertEqual({record["version"] for record in watcher.records}, {None})

    def test_pointer(self):
        """--pointer prints one part, only when that changes, and says when it is not there."""
        service = self.serve()
        part = Watcher(self, service.http, "--pointer", "/m1/x~1y", "--jsonl")
        whole = Watcher(self, service.http, "--jsonl")
        until(lambda: "there is no /m1/x~1y" in part.output and whole.records, "that it is not there")
        for number, value in enumerate(({"m1": {"x/y": 1}}, {"m1": {"x/y": 1}, "z": 2}, {"m1": {"x/y": {"a": 2}}}), 2):
            self.store.set(json.dumps(value))
            self.until_lines(whole, number)
        until(lambda: len(part.records) == 2, "two changes")
        self.assertEqual([record["state"] for record in part.records], [1, {"a": 2}])

    def test_count(self):
        """--count ends it, with exit code 0; without --jsonl a state is indented JSON."""
        service = self.serve()
        ran = run(program("livestate"), "watch", service.http, "--count", "1")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(ran.stdout, json.dumps(json.loads(document(0)), indent=2) + "\n")

    def test_broken_pipe(self):
        """`| head -n 1` ends it at once, though nothing more is printed, without a word."""
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
        """It prints a state with its version, and then what changes."""
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


class RefusalTests(WatchCase):
    """What ends it with exit code 1 and one line."""

    def refusal(self, *arguments: str) -> str:
        ran = run(program("livestate"), "watch", *arguments)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1), ran)
        self.assertTrue(ran.stderr.startswith("livestate: "))
        return ran.stderr

    def test_refusals(self):
        """No such document, a certificate that nobody vouches for or another authority's, and a URL that is none."""
        service = self.serve(https="")
        stranger = Authority(folder_for(self))
        self.assertIn("answered 404", self.refusal(f"{service.http}/missing"))
        self.assertIn("--cafile", self.refusal(service.https))
        self.assertIn("certificate", self.refusal(service.https, "--cafile", str(stranger.certificate)))
        self.assertIn("missing.pem", self.refusal(service.https, "--cafile", "missing.pem"))
        self.assertIn("nonsense", self.refusal("nonsense"))

    def test_output(self):
        """Standard output that takes nothing."""
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
        """Wrong usage is exit code 2."""
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
        """Give all that was written to the terminal so far."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # Linux has this for the end
                break
            self.data += data
            if not data:
                break
        return self.data

    def screen(self) -> Emulator:
        """Give what is on the screen."""
        whole = self.read().rpartition(b"\x1b[?2026l")[0]
        emulator = Emulator(*self.size)
        emulator.write(whole[max(0, whole.rfind(b"\x1b[2J")) :])
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
    """On a terminal."""

    def watch(self, service: Livestate) -> Terminal:
        terminal = Terminal(self, program("livestate"), "watch", service.http)
        terminal.until_text("live  version")
        return terminal

    def test_live(self):
        """The document is on one screen, what changes is lit up, and it is drawn anew in another size."""
        terminal = self.watch(self.serve())
        screen = terminal.until_text('"n": 0')
        self.assertIn("events", screen.line)
        self.change(1)
        self.store.command("PUBLISH", "livestate", "")
        screen = terminal.until_text('"n": 1')
        self.assertIn('{"name": "Meadow", "votes": 1}', screen.text())
        self.assertIn("1", screen.lit[screen.rows.index('  "n": 1')])
        drawn = terminal.read().count(b"\x1b[2J")
        terminal.resize(30, 5)
        until(lambda: terminal.read().rpartition(b"\x1b[?2026l")[0].count(b"\x1b[2J") > drawn, "a new screen")
        self.assertEqual(len(terminal.screen().line), 30)
        self.assertIn("more", terminal.until_text("…").text())

    def test_restart(self):
        """A server that goes away is shown as gone, with the document, and as there again."""
        port = free_port()
        options = self.source, "--interval=0.2", f"--http=tcp:{port}:interface=127.0.0.1"
        service = Livestate(self, *options, http=False)
        terminal = Terminal(self, program("livestate"), "watch", f"http://127.0.0.1:{port}/")
        terminal.until_text('"n": 0')
        service.stop()
        self.assertIn('"n": 0', terminal.until_text("no connection: connection refused").text())
        self.change(1)
        Livestate(self, *options, http=False)
        self.assertIn("live", terminal.until_text('"n": 1').line)

    def test_ends(self):
        """Ctrl-C and SIGTERM give the terminal back as it was, with exit code 0."""
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
        """An error gives the terminal back first, so that the line that says why can be read."""
        terminal = Terminal(self, program("livestate"), "watch", f"{self.serve().http}/missing")
        self.assertEqual(terminal.process.wait(LIMIT), 1)
        self.assertRegex(terminal.read().decode(), r"1049l.*livestate: http://\S+/missing: answered 404\r\n\Z")
        self.assertEqual(terminal.settings(), terminal.before)

    def test_suspended(self):
        """Ctrl-Z gives the terminal back, and `fg` draws the document anew."""
        service = self.serve()
        shell = Terminal(self, "bash", "--norc", "--noediting", "-i")
        shell.type(f"{program('livestate')} watch {service.http}\n".encode())
        until(lambda: b'"n": 0' in shell.read(), "the document")
        shell.type(b"\x1a")
        until(lambda: b"Stopped" in shell.read().rpartition(b"\x1b[?1049l")[2], "the shell")
        self.change(1)
        shell.type(b"fg\n")
        until(lambda: b'"n": 1' in shell.read().rpartition(b"\x1b[?1049h")[2], "the document, anew")
        shell.type(b"\x03")
        until(lambda: b"$ " in shell.read().rpartition(b"\x1b[?1049l")[2], "the shell")
        shell.type(b"echo status=$?\n")
        until(lambda: b"status=0" in shell.read(), "exit code 0")

    def test_lines_on_a_terminal(self):
        """With --jsonl or --patch there is no screen: a line each."""
        terminal = Terminal(self, program("livestate"), "watch", self.serve().http, "--jsonl", "--count", "1")
        self.assertEqual(terminal.process.wait(LIMIT), 0)
        self.assertTrue(terminal.read().startswith(b'{"version":'))
        self.assertNotIn(b"\x1b", terminal.data)
