"""livestate under a service manager: what it is told, sockets that it passes, and the units in etc/."""

import os
import re
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate
from tests.integration.certificates import Authority
from tests.integration.http import Client, get, resumptions
from tests.integration.processes import (
    TERMINATED,
    Child,
    folder_for,
    free_port,
    program,
    run,
    twistd_arguments,
    until,
)
from tests.integration.servers import RedisServer
from tests.integration.venvs import ROOT

#: twistd with signals that block the reactor for 3 s (Python runs signal handlers in the main thread), and have a child
#: show its environment.
OBEDIENT = """
import signal, subprocess, sys, time
from twisted.scripts.twistd import run
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3))
signal.signal(signal.SIGALRM, lambda *_: subprocess.Popen(["env"]))
run()
"""


class ServiceManager:
    """The service manager's side of the notify protocol."""

    def __init__(self, case: SynchronousTestCase, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self._socket.bind(address)
        #: What has come, with the time.
        self.messages: list[tuple[float, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def count(self, message: str) -> int:
        """Tell how many have come that begin so."""
        return sum(text.startswith(message) for _, text in self.messages)

    def last(self, message: str) -> float:
        """Give the time of the last that begins so."""
        return max(when for when, text in self.messages if text.startswith(message))

    def wait_for(self, message: str, number: int = 1) -> None:
        """Wait until so many have come."""
        until(lambda: self.count(message) >= number, f"{number} of {message}, not only {self.messages}")

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(4096)
            except OSError:
                return
            self.messages.append((time.monotonic(), data.decode()))


class NotifyTests(SynchronousTestCase):
    """A real twistd, and a real socket."""

    def setUp(self):
        self.folder = folder_for(self)
        self.http = free_port()

    def start(
        self, address: str, *options: str, watchdog: float = 0.0, before: "list[str] | None" = None, **more: str
    ) -> Child:
        """Start with the notify socket at `address`, as it stands in the environment, with `more` there."""
        env = {**os.environ, "NOTIFY_SOCKET": address, **more}
        if watchdog:
            env["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        arguments = [
            *(before or twistd_arguments()), "-n", "--pidfile=", "livestate", "--admin=",
            f"--http=tcp:{self.http}:interface=127.0.0.1", *(options or ("--source=demo:",)),
        ]  # fmt: skip
        return Child(self, arguments, self.folder, env)

    def test_life(self):
        """READY=1 when it serves, a status, RELOADING and READY around SIGHUP, and STOPPING=1 at SIGTERM."""
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        child = self.start(address)
        manager.wait_for("READY=1")
        self.assertEqual(get(f"http://127.0.0.1:{self.http}").status, 200)
        manager.wait_for("STATUS=1 document, ")
        child.signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        manager.wait_for("READY=1", 2)
        self.assertEqual(child.stop(), TERMINATED)
        manager.wait_for("STOPPING=1")
        kinds = [text.split("=")[0] for _, text in manager.messages]
        # The number of connections in the status may be another by now.
        self.assertEqual([kind for kind in kinds if kind != "STATUS"], ["READY", "RELOADING", "READY", "STOPPING"])
        self.assertNotIn("Traceback", child.output)

    def test_abstract(self):
        """The socket may have an abstract name."""
        name = f"livestate-test-{os.getpid()}-{self.http}"
        manager = ServiceManager(self, f"\0{name}")
        child = self.start(f"@{name}")
        manager.wait_for("READY=1")
        child.stop()
        manager.wait_for("STOPPING=1")

    def test_ready_without_document(self):
        """It is ready when the store was asked in vain: where it is down, and where it does not answer in time."""
        redis = RedisServer(self)
        redis.freeze()
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        for number, url in enumerate((redis.url, f"redis://127.0.0.1:{free_port()}/0")):
            child = self.start(address, f"--source={url}?key=livestate")
            manager.wait_for("READY=1", number + 1)
            self.assertEqual(get(f"http://127.0.0.1:{self.http}").status, 503)
            manager.wait_for("STATUS=1 document, 0 connections; / is missing (", number + 1)
            child.stop()

    def test_ready_with_workers(self):
        """READY=1 comes when workers serve, not sooner: at the start, and after SIGHUP and SIGUSR2, which may fail."""
        code = self.folder / "code"
        shutil.copytree(Path(livestate.__file__).parent, code / "livestate")
        zygote = code / "livestate" / "workers" / "zygote.py"
        good = zygote.read_text()
        config = self.folder / "live.toml"
        config.write_text('source = "demo:"')
        zygote.write_text("raise SystemExit(3)")
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        child = self.start(address, "--workers=2", "--config=live.toml", PYTHONPATH=str(code))
        manager.wait_for("STATUS=1 document, 0 connections; 2 of 2 workers not serving")
        self.assertEqual(manager.count("READY=1"), 0)
        zygote.write_text(f"import time\ntime.sleep(1)\n{good}")
        manager.wait_for("READY=1")
        self.assertEqual(get(f"http://127.0.0.1:{self.http}").status, 200)
        for number, (signum, change, taken, refused) in enumerate((
            (signal.SIGHUP, lambda: config.write_text('source = "/new=demo:"'), 2, False),
            (signal.SIGUSR2, lambda: zygote.write_text("import time\ntime.sleep(1)\nraise SystemExit(3)"), 2, True),
            # There is nothing new, but what failed is tried again.
            (signal.SIGHUP, lambda: zygote.write_text(f"import time\ntime.sleep(1)\n{good}"), 3, False),
        ), 2):  # fmt: skip
            change()
            child.signal(signum)
            manager.wait_for("READY=1", number)
            self.assertGreater(manager.last("READY=1") - manager.last("RELOADING=1"), 0.9)
            self.assertEqual(child.output.count("new workers are serving"), taken)
            status = [text for _, text in manager.messages if text.startswith("STATUS=")][-1]
            self.assertEqual("new workers failed to start" in status, refused, status)
        self.assertEqual(get(f"http://127.0.0.1:{self.http}", "/new").status, 200)

    def test_watchdog(self):
        """WATCHDOG=1 comes twice in its time while the reactor turns, not while it is blocked, and again after that."""
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        child = self.start(address, watchdog=1.0, before=self.obedient())
        manager.wait_for("WATCHDOG=1", 4)
        child.signal(signal.SIGUSR1)

        def silence() -> bool:
            times = [when for when, text in manager.messages if text == "WATCHDOG=1"]
            return max(later - earlier for earlier, later in pairwise(times)) > 2.5

        until(silence, "no WATCHDOG=1 for as long as the reactor was blocked, and one after that")
        manager.wait_for("WATCHDOG=1", manager.count("WATCHDOG=1") + 2)

    def test_children(self):
        """What is for livestate alone is not in the environment of its children."""
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        child = self.start(address, watchdog=9, before=self.obedient())
        manager.wait_for("READY=1")
        child.signal(signal.SIGALRM)
        until(lambda: "PATH=" in child.output, "a child shows its environment")
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
            self.assertNotIn(name, child.output)

    def test_few_files(self):
        """The soft limit of open files becomes the hard one, and a low one is warned of once."""
        address = str(self.folder / "notify")
        manager = ServiceManager(self, address)
        child = self.start(address, before=["prlimit", "--nofile=256:2048", *twistd_arguments()])
        manager.wait_for("READY=1")
        limits = Path(f"/proc/{child.process.pid}/limits").read_text()
        self.assertRegex(limits, r"Max open files +2048 +2048 ")
        self.assertEqual(child.output.count("the limit on open files is 2048"), 1, child.output)

    def obedient(self) -> list[str]:
        """Give the beginning of a command that runs OBEDIENT."""
        return [sys.executable, "-c", OBEDIENT, *twistd_arguments()[1:]]


class SocketActivationTests(SynchronousTestCase):
    """Sockets passed by systemd's own program."""

    def activate(self, *options: str, names: str, addresses: "list[str]") -> Child:
        """Have livestate started at the first connection to one of `addresses`."""
        arguments = ["systemd-socket-activate", *(f"--listen={address}" for address in addresses)]
        arguments += [f"--fdname={names}", *twistd_arguments(), "-n", "--pidfile=", "livestate", "--admin="]
        child = Child(self, [*arguments, "--source=demo:", *options], folder_for(self))
        until(lambda: "Listening on" in child.output, "systemd-socket-activate")
        return child

    def test_http_and_https(self):
        """It serves HTTP on one socket and HTTPS on another, by name and by number; the first connection waits."""
        self.see_both_served()

    def test_workers(self):
        """Workers serve both too, and take up each other's TLS sessions."""
        secure, authority = self.see_both_served("--workers=2")
        context = ssl.create_default_context(cafile=str(authority.certificate))
        self.assertEqual(resumptions(secure, context, 12), [False] + [True] * 11)

    def see_both_served(self, *options: str) -> tuple[int, Authority]:
        """Start with two sockets, read from both, and give the port of HTTPS and who has signed its certificate."""
        plain, secure = free_port(), free_port()
        authority = Authority(folder_for(self))
        key, certificate = authority.issue()
        child = self.activate(
            "--http=systemd:domain=INET:name=http",
            f"--https=systemd:domain=INET:index=1:privateKey={key}:certKey={certificate}", *options,
            names="http:https", addresses=[f"127.0.0.1:{plain}", f"127.0.0.1:{secure}"],
        )  # fmt: skip
        for client in Client(f"http://127.0.0.1:{plain}"), Client(f"https://127.0.0.1:{secure}", authority.certificate):
            until(lambda: client.get().status == 200, "served")  # noqa: B023
            self.assertIn("parties", client.get().json())
            client.close()
        self.addCleanup(lambda: self.assertEqual((child.stop(), "Traceback" in child.output), (TERMINATED, False)))
        return secure, authority

    def test_all_addresses(self):
        """A socket for all addresses, as livestate.socket has it, serves IPv4 and IPv6."""
        port = free_port()
        self.activate("--http=systemd:domain=INET6:index=0", names="http", addresses=[f"[::]:{port}"])
        for host in ("127.0.0.1", "[::1]"):
            client = Client(f"http://{host}:{port}")
            until(lambda: client.get().status == 200, f"served at {host}")  # noqa: B023
            client.close()

    def refusal(self, *options: str, address: str = "") -> str:
        """Give the one line with which livestate ends."""
        port = free_port()
        child = self.activate(*options, names="http", addresses=[f"{address or '127.0.0.1'}:{port}"])
        socket.create_connection(("127.0.0.1", port), 10).close()
        self.assertEqual(child.process.wait(20), 1, child.output)
        self.assertNotIn("Traceback", child.output)
        return child.output.splitlines()[-1]

    def test_no_such_socket(self):
        """A socket that was not passed is one line that says how sockets are named."""
        for wrong in ("index=1", "name=web"):
            line = self.refusal(f"--http=systemd:domain=INET:{wrong}")
            self.assertIn("systemd passed no such socket", line)

    def test_other_domain(self):
        """A socket of another address family is one line that names the right one."""
        line = self.refusal("--http=systemd:domain=INET:index=0", address="[::]")
        self.assertIn("domain=INET6", line)

    def test_no_certificate(self):
        """HTTPS without a certificate is one line: none is made here."""
        line = self.refusal("--http=", "--https=systemd:domain=INET:index=0")
        self.assertIn("a certificate is required: systemd:domain=INET:index=0:privateKey=KEY.pem:certKey=", line)
        line = self.refusal("--http=systemd:domain=INET:index=0:privateKey=k.pem:certKey=c.pem")
        self.assertIn("belongs in --https", line)


class UnitTests(SynchronousTestCase):
    """The units in etc/."""

    def setUp(self):
        self.folder = folder_for(self)
        for name in ("livestate.service", "livestate.socket"):
            # systemd looks whether the program is there.
            text = (ROOT / "etc" / name).read_text().replace("/opt/livestate/bin/twistd", program("twistd"))
            (self.folder / name).write_text(text)

    def test_verify(self):
        """systemd understands every line."""
        units = [self.folder / name for name in ("livestate.service", "livestate.socket")]
        ran = run("systemd-analyze", "verify", *units)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, "", ""))

    def test_exposure(self):
        """What an intruder would find is little: below 2.0, where 10 is an unprotected service."""
        ran = run("systemd-analyze", "security", "--offline=true", "--no-pager", self.folder / "livestate.service")
        found = re.search(r"Overall exposure level for livestate\.service: ([\d.]+)", ran.stdout)
        assert found is not None, ran
        self.assertLess(float(found[1]), 2.0, ran.stdout)

    def test_command(self):
        """The command of the unit starts with the example configuration, is ready, and saves where it may."""
        (command,) = re.findall("^ExecStart=(.*)$", (self.folder / "livestate.service").read_text(), re.MULTILINE)
        redis, http, state = RedisServer(self), free_port(), self.folder / "state"
        redis.set('{"a": 1}')
        text = (ROOT / "etc/livestate.toml").read_text()
        for was, now in (("8080", http), ("9180", free_port()), ("6379", redis.port)):
            text = text.replace(was, str(now))
        (self.folder / "livestate.toml").write_text(text)
        command = command.replace("/etc/livestate", str(self.folder)).replace("${STATE_DIRECTORY}", str(state))
        manager = ServiceManager(self, str(self.folder / "notify"))
        env = {"NOTIFY_SOCKET": str(self.folder / "notify")}
        child = Child(self, command.split(), self.folder, env)
        manager.wait_for("READY=1")
        self.assertEqual(get(f"http://127.0.0.1:{http}").body, b'{"a": 1}')
        self.assertEqual(child.stop(), TERMINATED)
        self.assertEqual(len(list(state.iterdir())), 1)
