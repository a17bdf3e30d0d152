"""livestate as README.md installs it as a service, on a Debian that systemd has booted, as process 1.

The machine is a container of systemd-nspawn's: this machine's own files below a layer in memory, and a loopback of its
own. It needs root, systemd 252 or later and Debian's `systemd-container`, `redis-server` and `python3-venv`. Each step
prints what it saw, and fails if that is not as it should be: readiness, the sandbox, reloading, a killed process, one
that hangs (the watchdog's 30 s), a restart without the store, and one under load with sockets that systemd holds.

    python -m tests.soak.booted
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import folder_for, until
from tests.integration.venvs import ROOT
from tests.soak.script import run

#: README.md's commands, without sudo, and with the Python that the service's own user can run.
INSTALL = """
set -e
cd /src
/usr/bin/python3 -m venv /opt/livestate
/opt/livestate/bin/pip install --quiet .
/opt/livestate/bin/twistd --help > /dev/null
install -D -m 644 etc/livestate.toml /etc/livestate/livestate.toml
install -m 644 etc/livestate.service etc/livestate.socket /etc/systemd/system/
"""

#: A client that asks on a connection of its own each time; prints how many answers there were, the failures, and the
#: longest wait.
LOAD = """
import http.client, time
end, answers, failures, longest = time.time() + 12, 0, [], 0
while time.time() < end:
    began = time.time()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        answers += 1
    except Exception as error:
        failures.append(repr(error))
    longest = max(longest, time.time() - began)
    time.sleep(0.002)
print(answers, len(failures), round(longest, 2), failures[:3])
"""


class Booted(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Boot, and go through all."""
        self.boot()
        self.starts()
        self.reloads()
        self.is_replaced("-KILL", 10)
        self.restarts_without_the_store()
        self.is_replaced("-STOP", 45)
        self.is_activated()
        self.inside("systemctl", "stop", "livestate.socket", "livestate")
        self.assertEqual(self.shown("Result"), "success")
        print(self.inside("journalctl", "-u", "livestate", "--no-pager", "-o", "cat"))

    def boot(self) -> None:
        """Lay this machine's files below a layer of its own, install livestate there, and boot."""
        self.assertEqual(os.geteuid(), 0, "this needs root")
        folder = folder_for(self)
        upper, root = folder / "upper", folder / "root"
        upper.mkdir()
        root.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", upper)
        (upper / "files").mkdir()
        (upper / "work").mkdir()
        layers = f"lowerdir=/,upperdir={upper / 'files'},workdir={upper / 'work'}"
        self.mount("-t", "overlay", "overlay", "-o", layers, root)
        (root / "etc" / "machine-id").write_text("")
        shutil.copytree(ROOT, root / "src", ignore=shutil.ignore_patterns(".git", ".venv*", "node_modules"))
        nspawn = ["systemd-nspawn", "--quiet", "-D", str(root), "--register=no", "--keep-unit"]
        subprocess.run([*nspawn, "--pipe", "bash", "-c", INSTALL], check=True, timeout=300, stdin=subprocess.DEVNULL)
        # Whatever else this machine would start.
        systemctl = ["systemctl", f"--root={root}"]
        enabled = subprocess.run(
            [*systemctl, "list-unit-files", "--state=enabled", "--no-legend", "--plain"],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        others = [line.split()[0] for line in enabled.splitlines() if not line.startswith("redis-server")]
        subprocess.run([*systemctl, "mask", "--quiet", *others], check=True, timeout=30)
        log = (folder / "log").open("wb")
        self.addCleanup(log.close)
        machine = subprocess.Popen(
            [*nspawn, "--boot", "--private-network"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.addCleanup(self.power_off, machine)
        until(lambda: self.is_up(machine.pid), "systemd is up", 60)
        print(f"systemd is process 1, and {self.inside('systemctl', 'is-system-running')}")

    def is_up(self, pid: int) -> bool:
        """Tell whether all is started, and note which process is the machine's first: at first it is another."""
        self.process_1 = _first_child(pid)
        return bool(self.process_1) and "running" in self.inside("systemctl", "is-system-running", check=False)

    def starts(self) -> None:
        """It is ready when it serves, in its sandbox."""
        self.inside("redis-cli", "set", "livestate", '{"n": 1}')
        began = time.monotonic()
        self.inside("systemctl", "enable", "--now", "livestate")
        self.assertEqual(self.document(), '{"n": 1}')
        status = self.inside("cat", f"/proc/{self.shown('MainPID')}/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.assertEqual((facts["NoNewPrivs"], facts["Seccomp"], int(facts["CapEff"], 16)), ("1", "2", 0))
        self.assertNotEqual(facts["Uid"].split()[0], "0")
        exposure = self.inside("systemd-analyze", "security", "--no-pager", "livestate").splitlines()[-1]
        print(
            f"ready and serving after {time.monotonic() - began:.2f} s, as user {facts['Uid'].split()[0]}; "
            f"{exposure.strip('→ ')}; its status: {self.shown('StatusText')}"
        )

    def reloads(self) -> None:
        """`systemctl reload` leaves the process."""
        before = self.shown("MainPID")
        self.inside("systemctl", "reload", "livestate")
        time.sleep(1)
        self.assertEqual((self.shown("MainPID"), self.shown("ActiveState")), (before, "active"))
        print("reloaded")

    def is_replaced(self, signal: str, limit: float) -> None:
        """A process that is dead, or does nothing any more, is replaced within `limit` seconds."""
        before, began = self.shown("MainPID"), time.monotonic()
        self.inside("kill", signal, before)
        until(
            lambda: self.shown("ActiveState") == "active" and self.shown("MainPID") not in (before, "0"),
            "another process",
            limit,
        )
        self.assertEqual(self.document(), '{"n": 1}')
        print(f"kill {signal}: replaced {time.monotonic() - began:.1f} s later")

    def restarts_without_the_store(self) -> None:
        """With the document that it saved."""
        time.sleep(1.5)
        self.inside("systemctl", "stop", "redis-server")
        self.inside("systemctl", "restart", "livestate")
        self.assertEqual(self.document(), '{"n": 1}')
        self.inside("systemctl", "start", "redis-server")
        print("restarted without Redis, with the saved document")

    def is_activated(self) -> None:
        """With systemd's sockets a restart, a reload and new code under load lose nothing, and a connection starts it."""
        settings = self.inside("cat", "/etc/livestate/livestate.toml").splitlines()
        mine = ['http = ["systemd:domain=INET6:index=0"]', "workers = 2"]
        mine += [line for line in settings if not line.startswith(("http =", "workers ="))]
        self.inside("tee", "/etc/livestate/livestate.toml", data="\n".join(mine))
        self.inside("systemctl", "stop", "livestate")
        self.inside("systemctl", "enable", "--now", "livestate.socket")
        self.assertEqual(self.shown("ActiveState"), "inactive")
        self.assertEqual(self.document(), '{"n": 1}')
        load = subprocess.Popen(self.command("python3", "-c", LOAD), stdout=subprocess.PIPE, text=True)
        self.addCleanup(load.kill)
        time.sleep(1)
        self.inside("systemctl", "restart", "livestate")
        time.sleep(3)
        self.inside("systemctl", "reload", "livestate")
        time.sleep(2)
        self.inside("kill", "-USR2", self.shown("MainPID"))
        answers, failures, longest, examples = load.communicate(timeout=60)[0].split(" ", 3)
        print(
            f"started by a connection; restart, reload and SIGUSR2 with 2 workers under load: {answers} answers, "
            f"{failures} failures, the longest wait {longest} s"
        )
        self.assertEqual(failures, "0", examples)

    def document(self) -> str:
        """Give what is served."""
        return self.inside("curl", "-sS", "-m", "20", "http://localhost:8080/")

    def shown(self, name: str) -> str:
        """Give what systemd knows of the service."""
        return self.inside("systemctl", "show", "--property", name, "--value", "livestate").strip()

    def command(self, *command: str) -> list[str]:
        """Give the command that runs one on the machine."""
        return ["nsenter", "--target", self.process_1, "--mount", "--uts", "--ipc", "--pid", "--net", "--", *command]

    def inside(self, *command: str, check: bool = True, data: str = "") -> str:
        """Run a command on the machine, and give what it says."""
        return subprocess.run(
            self.command(*command), input=data, capture_output=True, text=True, check=check, timeout=90
        ).stdout

    def mount(self, *arguments: Any) -> None:
        """Mount until the end."""
        subprocess.run(["mount", *arguments], check=True, timeout=20)
        self.addCleanup(subprocess.run, ["umount", "--lazy", arguments[-1]], check=True, timeout=20)

    def power_off(self, machine: "subprocess.Popen[bytes]") -> None:
        """Have the machine end, and wait for it."""
        first = _first_child(machine.pid)
        self.inside("systemctl", "poweroff", check=False)
        try:
            machine.wait(30)
        except subprocess.TimeoutExpired:
            # All that runs in it ends with its first process, which does not end with systemd-nspawn.
            if first:
                os.kill(int(first), signal.SIGKILL)
            machine.kill()
            machine.wait(10)


def _first_child(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().partition(" ")[0]


if __name__ == "__main__":
    run(Booted())
