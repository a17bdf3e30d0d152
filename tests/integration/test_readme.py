"""The commands of README.md and of the pages in docs/, run as a reader would, in a copy of the checkout.

Ports are exchanged for free ones, and the commands that take minutes are not run twice: `EXCEPTIONS`. Those that serve
until they are stopped (`twistd -n …`) are left running, until the next of their kind, once they answer.
"""

import os
import re
import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.processes import Child, ended, folder_for, free_port, program, run, until
from tests.integration.servers import RedisServer
from tests.integration.venvs import ROOT, copy_checkout

#: Patterns of commands that are not run here as they stand, and why.
EXCEPTIONS = {
    r"^python3 -m venv .* -m twisted\.trial tests$": "continuous integration runs all tests, module by module; this is one of them",
    r"^python3 -m venv ": "installation is what test_package.py is about; what follows the installation is run",
    r"^export PATH=": "the path is set for all commands below",
    r"bench": "measurements take an hour, and want a machine to themselves",
    r"redis\+(sentinel|cluster)": "it takes several servers; what it does is tested in test_redis_groups.py",
    r"mongodb": "MongoDB is tested against a real server in test_source_mongodb.py",
    r"^sudo |^systemctl |^apt": "it changes the machine",
    r"^kubectl ": "there is no cluster; test_kubernetes.py runs what the manifests do",
    r"example\.(org|com)": "example.org has no such document",
    r"^livestate watch (?!.*(--count|head))|^curl -N": "it runs until it is stopped",
    r"^livestate publish .* --watch ": "it runs until it is stopped",
}

_SEPARATE = re.compile(r"\\\n\s*")


def commands(text: str) -> list[str]:
    """Give the commands in the blocks that are marked `sh`, continued lines joined, comments left out."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = _SEPARATE.sub(" ", block).splitlines()
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


class ReadmeTests(SynchronousTestCase):
    """README.md."""

    def setUp(self):
        self.checkout = copy_checkout(folder_for(self) / "checkout")
        self.redis = RedisServer(self)
        #: The ports that the README names, and those that stand for them here.
        self.ports = {port: str(free_port()) for port in ("8080", "8443", "9180")} | {"6379": str(self.redis.port)}
        self.running: Child | None = None
        self.env = {**os.environ, "PATH": f"{Path(program('python')).parent}:{os.environ['PATH']}"}

    def test_commands(self):
        """Every command in a fenced `sh` block ends well, or serves, or is excepted with a reason."""
        found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
        self.assertTrue(found)
        # What the README has started last runs on.
        for page in sorted((ROOT / "docs").glob("*.md")):
            found += commands(page.read_text(encoding="utf-8"))
        for command in found:
            reason = next((why for pattern, why in EXCEPTIONS.items() if re.search(pattern, command)), None)
            # What is served right after the installation is shown by the very first command.
            served = re.search(r"&& \S*?(twistd -n livestate .*)", command) if reason else None
            if reason is None or served:
                self.run_command(self.with_test_ports(served[1] if served else command))

    def with_test_ports(self, command: str) -> str:
        """Exchange the ports; name those that are only implied."""
        for port, other in self.ports.items():
            command = re.sub(rf"(?<![\d.]){port}(?!\d)", other, command)
        if re.match(r"(\S*/)?twistd .*livestate", command) and "--help" not in command and "--config" not in command:
            if "--http=" not in command:
                command += f" --http=tcp:{self.ports['8080']}"
            if "--source=" not in command:
                command += f" --source='{self.redis.url}?key=livestate'"
        if re.match(r"(\S*/)?twistd .*livestate", command) and "--help" not in command and "--admin=" not in command:
            command += f" --admin=tcp:{self.ports['9180']}:interface=127.0.0.1"
        return command

    def run_command(self, command: str) -> None:
        """Run one command, in the foreground or not."""
        if re.match(r"twistd\b(?!.*--help)", command):
            self.stop_running()
        if command.startswith("twistd -n "):
            self.running = Child(self, ["bash", "-c", f"exec {command}"], self.checkout, self.env)
            self.running.wait_for(self.answers, command)
            return
        pidfile = self.checkout / "twistd.pid"
        pid = int(pidfile.read_text()) if pidfile.exists() else 0
        # Longer than elsewhere: mypy reads everything, and may find nothing in its cache.
        ran = run("bash", "-c", command, cwd=self.checkout, env=self.env, timeout=120)
        self.assertEqual(ran.returncode, 0, f"{command}\n{ran.stdout}\n{ran.stderr}")
        if command.startswith("twistd livestate ") and "--help" not in command:
            until(self.answers, command)
            self.addCleanup(self.kill_daemon, int(pidfile.read_text()))
        elif command.startswith("kill ") and "HUP" not in command and pid:
            until(lambda: ended(pid), command)

    def answers(self) -> bool:
        """Tell whether there is a document at one of the addresses that the README names."""
        for port in ("8080", "9180"):
            client = Client(f"http://127.0.0.1:{self.ports[port]}")
            try:
                if client.get("/" if port == "8080" else "/ready").status == 200:
                    return True
            except OSError:
                pass
            finally:
                client.close()
        return False

    def stop_running(self) -> None:
        """Stop what the last `twistd -n` started: its ports are needed."""
        if self.running is not None:
            self.running.stop()
            self.running = None

    def kill_daemon(self, pid: int) -> None:
        """End what a `twistd livestate` started, where the README did not."""
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)
