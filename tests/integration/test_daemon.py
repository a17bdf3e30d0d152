"""livestate in the background, as an init script or a person starts it."""

import contextlib
import json
import os
import signal
import threading
import time
from http.client import HTTPException
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client, get
from tests.integration.processes import children, ended, folder_for, free_port, run, twistd_arguments, until
from tests.integration.servers import Livestate


class DaemonTests(SynchronousTestCase):
    """`twistd livestate` without -n."""

    def setUp(self):
        self.folder = folder_for(self)
        self.pidfile, self.logfile = self.folder / "livestate.pid", self.folder / "livestate.log"
        self.http, self.admin = free_port(), free_port()

    def start(self, *before: str, options: tuple[str, ...] = (), **names: Path) -> None:
        """Start, and wait until it answers."""
        ran = run(*self.command(*before, **names), *options, cwd=self.folder)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, "", ""))
        until(self.answers, "livestate in the background")
        self.addCleanup(self.kill, names.get("pidfile", self.pidfile))

    def command(self, *before: str, **names: Path) -> list[str]:
        """Give the command."""
        options = before or (f"--pidfile={self.pidfile}", f"--logfile={self.logfile}")
        return [
            *twistd_arguments(), *options, "livestate", "--source=demo:", "--access-log=access.log",
            f"--http=tcp:{self.http}:interface=127.0.0.1", f"--admin=tcp:{self.admin}:interface=127.0.0.1",
        ]  # fmt: skip

    def kill(self, pidfile: Path) -> None:
        """End it where the test did not."""
        if pidfile.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pidfile.read_text()), signal.SIGKILL)

    def answers(self) -> bool:
        """Ask for its health."""
        try:
            return get(f"http://127.0.0.1:{self.admin}", "/health").status == 200
        except OSError:
            return False

    def ask(self) -> None:
        """Fetch the document, which adds a line to the access log."""
        self.assertEqual(get(f"http://127.0.0.1:{self.http}").status, 200)

    def end(self, pidfile: Path) -> None:
        """Send SIGTERM, and see that it ends and takes the pidfile with it."""
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: ended(pid), "ended after SIGTERM")
        self.assertFalse(pidfile.exists())

    def test_life(self):
        """It leaves a pidfile and a log, serves, and SIGTERM ends it with the pidfile gone."""
        self.start()
        pid = int(self.pidfile.read_text())
        self.assertFalse(ended(pid))
        self.ask()
        self.end(self.pidfile)
        log = self.logfile.read_text()
        self.assertIn("starting up", log)
        self.assertIn("Server Shut Down", log)
        self.assertNotIn("Traceback", log)
        self.assertEqual((self.folder / "access.log").read_text().count('"GET / HTTP/1.1" 200'), 1)

    def test_workers(self):
        """With workers it goes into the background as well, and SIGTERM ends all processes."""
        self.start(f"--pidfile={self.pidfile}", f"--logfile={self.logfile}", options=("--workers=2",))
        supervisor = int(self.pidfile.read_text())
        below = until(lambda: len(children(supervisor)) == 3 and children(supervisor), "both workers") or []
        self.ask()
        self.end(self.pidfile)
        self.assertTrue(all(ended(pid) for pid in below))
        self.assertNotIn("Traceback", self.logfile.read_text())

    def test_default_names(self):
        """Named nothing, it writes twistd.pid and twistd.log in the folder it was started in."""
        pidfile = self.folder / "twistd.pid"
        self.start("--no_save", pidfile=pidfile)
        self.ask()
        self.end(pidfile)
        self.assertIn("Server Shut Down", (self.folder / "twistd.log").read_text())

    def test_hangup(self):
        """SIGHUP, after logrotate has renamed them, opens both logs anew; nothing more goes to the old ones."""
        self.start()
        pid = int(self.pidfile.read_text())
        access = self.folder / "access.log"
        self.ask()
        until(lambda: "GET /" in access.read_text(), "the first request is logged")
        for path in (self.logfile, access):
            path.rename(f"{path}.1")
        self.ask()
        until(lambda: Path(f"{access}.1").read_text().count("\n") == 2, "until SIGHUP the old file is written to")
        os.kill(pid, signal.SIGHUP)
        until(lambda: access.exists() and self.logfile.exists(), "both files are made anew")
        self.ask()
        until(lambda: access.read_text().count("\n") == 1, "the next request is in the new file")
        self.assertEqual(Path(f"{access}.1").read_text().count("\n"), 2)
        self.end(self.pidfile)
        self.assertIn("Server Shut Down", self.logfile.read_text())
        self.assertNotIn("Server Shut Down", Path(f"{self.logfile}.1").read_text())

    def test_restart_under_load(self):
        """Ended while readers ask, it can be started again at once on the same ports, each time."""
        stop = threading.Event()
        served: list[int] = []

        def read() -> None:
            while not stop.is_set():
                client = Client(f"http://127.0.0.1:{self.http}")
                try:
                    for _ in range(20):
                        served.append(client.get().status)
                except (OSError, HTTPException):
                    time.sleep(0.001)  # it is away
                finally:
                    client.close()

        readers = [threading.Thread(target=read, daemon=True) for _ in range(8)]
        self.addCleanup(stop.set)
        self.start()
        for reader in readers:
            reader.start()
        for _ in range(4):
            count = len(served) + 200
            until(lambda: len(served) > count, "readers are served")  # noqa: B023  # called within the turn
            self.end(self.pidfile)
            self.start()
        stop.set()
        for reader in readers:
            reader.join(15)
        self.assertEqual(set(served), {200})
        self.end(self.pidfile)

    def test_second(self):
        """A second one on the same port is one line and exit code 1, and the first serves on."""
        self.start()
        other = [f"--pidfile={self.folder}/second.pid", f"--logfile={self.folder}/second.log"]
        ran = run(*self.command(*other), cwd=self.folder)
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertIn("in use", ran.stderr)
        self.assertFalse((self.folder / "second.pid").exists())
        self.ask()
        self.end(self.pidfile)


class LogFormatTests(SynchronousTestCase):
    """`--log-format=json`."""

    def test_json(self):
        """In the terminal, each line from the first to the last is an object."""
        service = Livestate(self, "--source=demo:", "--log-format=json")
        service.stop()
        texts = [json.loads(line)["log_text"] for line in service.log.splitlines()]
        self.assertIn("/: demo:, polled every 1 s", texts)
        self.assertEqual(texts[-1], "Server Shut Down.")

    def test_other_loggers(self):
        """It is refused where twistd was told of another kind of log."""
        refused = run(*twistd_arguments(), "-n", "--syslog", "livestate", "--log-format=json", cwd=folder_for(self))
        self.assertEqual(refused.returncode, 1)
        self.assertIn("livestate: --log-format cannot be used with twistd's --syslog", refused.stderr)
