"""Runs the Autobahn test suite to check that WebSocket conforms to RFC 6455.

The suite's fuzzing client runs all its cases against an echo server (`tests.soak.websocket_echo`), over TCP and over
TLS, on the direct and on Twisted's stock transports. The suite needs Python 2.7 (PyPI has no version for Python 3). It
is installed into a folder that is kept.

    python -m tests.soak.websocket_conformance [--python2 PROGRAM] [--folder FOLDER] [--cases PATTERN …]

The exit status is 1 if a case failed for which `EXPECTED` has no reason.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import Child, folder_for, free_port
from tests.integration.venvs import ROOT

SUITE = "autobahntestsuite==25.10.1"

#: The server. It runs in its own folder, and must import this checkout.
SERVER = "tests.soak.websocket_echo"
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

#: Runs the suite from the folder where it is installed.
_RUN = (
    "import site, sys; site.addsitedir(sys.argv.pop(1)); sys.argv[0] = 'wstest'; "
    "from autobahntestsuite.wstest import run; run()"
)

#: The expected results other than "OK" by case, with the reason.
EXPECTED = {
    r"12\..*|13\..*": ("UNIMPLEMENTED", "no compression: a frame is made once, and is the same for all clients"),
    r"7\.1\.6|7\.13\..*": ("INFORMATIONAL", "RFC 6455 leaves it open; the suite only notes what happens"),
}


def installed(python2: str, folder: Path) -> Path:
    """Install the suite, if it is not installed yet, and return its folder."""
    target = folder / "suite"
    if not (target / "autobahntestsuite").is_dir():
        subprocess.run([python2, "-m", "pip", "install", "-q", "--target", target, SUITE], check=True, timeout=600)
    return target


def is_listening(port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def reason_for(case: str, behavior: str) -> str | None:
    """Return the reason for a case's result: "" for OK, None for a failure."""
    if behavior == "OK":
        return ""
    return next(
        (
            reason
            for cases, (expected, reason) in EXPECTED.items()
            if re.fullmatch(cases, case) and expected == behavior
        ),
        None,
    )


class Conformance(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    options: argparse.Namespace

    def runTest(self) -> None:
        """Run all cases over each transport, and print the results that are not OK."""
        suite = installed(self.options.python2, self.options.folder)
        folder = folder_for(self)
        key, certificate = Authority(folder).issue()
        failed = []
        for kind in ("direct", "epoll"):
            for tls in (False, True):
                name = f"{kind} {'TLS' if tls else 'TCP'}"
                port = free_port()
                files = f":privateKey={key}:certKey={certificate}" if tls else ""
                description = f"{'ssl' if tls else 'tcp'}:{port}:interface=127.0.0.1{files}"
                child = Child(self, [sys.executable, "-m", SERVER, kind, description], folder, ENV)
                child.wait_for(partial(is_listening, port), name)
                start = time.monotonic()
                url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/events"
                results = self.run_suite(suite, folder / name.replace(" ", "-"), url)
                failed += [f"{name}: {line}" for line in self.show(name, results, time.monotonic() - start)]
                child.kill()
                self.assertNotIn("Traceback", child.output)
        self.assertEqual(failed, [])

    def run_suite(self, suite: Path, folder: Path, url: str) -> dict[str, Any]:
        """Run the fuzzing client, and return its results by case."""
        folder.mkdir()
        spec = {
            "outdir": str(folder),
            "servers": [{"agent": "livestate", "url": url, "options": {"version": 18}}],
            "cases": self.options.cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        with open(folder / "output", "wb") as output:
            subprocess.run(
                [self.options.python2, "-c", _RUN, suite, "-m", "fuzzingclient", "-s", folder / "spec.json"],
                check=True, timeout=3600, stdout=output, stderr=output, cwd=folder,
            )  # fmt: skip
        results: dict[str, Any] = json.loads((folder / "index.json").read_text())["livestate"]
        return results

    def show(self, name: str, results: dict[str, Any], seconds: float) -> list[str]:
        """Print a summary, and return the failed cases."""
        failed, counts = [], dict[str, int]()
        for case, result in results.items():
            for kind in ("behavior", "behaviorClose"):
                behavior = result[kind]
                what = behavior if kind == "behavior" else f"close {behavior}"
                counts[what] = counts.get(what, 0) + 1
                if reason_for(case, behavior) is None:
                    failed.append(f"{case} {what}")
        print(f"{name}: {len(results)} cases in {seconds:.0f} s: {counts}", *failed, sep="\n  ", flush=True)
        return failed


def main() -> int:
    """Run the suite, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python2", default="python2.7", help="a Python 2.7 interpreter with pip")
    parser.add_argument("--folder", type=Path, default=Path("_autobahn"), help="where the suite is installed")
    parser.add_argument("--cases", nargs="+", default=["*"], help="patterns of the suite's cases, such as 1.* or 7.3.1")
    Conformance.options = parser.parse_args()
    case = Conformance()
    result = case.defaultTestResult()
    case.run(result)
    for _, traceback in [*result.errors, *result.failures]:
        print(traceback, file=sys.stderr)
    for cases, (behavior, reason) in EXPECTED.items():
        print(f"expected {behavior} of {cases}: {reason}")
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
