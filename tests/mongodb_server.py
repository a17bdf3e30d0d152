"""A real server of MongoDB's protocol for the tests: FerretDB on SQLite, built from Go's module proxy.

No package registry has mongod. FerretDB is a single Go program with the same protocol, users (SCRAM-SHA-1 and -256) and
TLS. It is built once, which takes a minute or two, and cached in `${XDG_CACHE_HOME:-~/.cache}/livestate-tests/`. Build
it ahead of time with `python -m tests.mongodb_server --build-only`. Without that option the command runs a server until
it is interrupted, for manual tests.

`LIVESTATE_TEST_MONGODB=mongodb://…` names another server to test against, one without TLS that anyone may write to.
Then tests that must stop their server, or need users or TLS on it, are skipped. If neither that variable nor Go is
there, the tests are skipped, except in continuous integration (`CI=true`), where they fail.
"""

import atexit
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.integration.processes import free_port

_MODULE = "github.com/FerretDB/FerretDB"
#: The last release that does not need PostgreSQL, and its checksum in Go's database, https://sum.golang.org.
_VERSION, _SUM = "v1.24.2", "h1:trrUU0LbmusMbyubhPS1IELncvrIwKrsRT2LW1UUWCw="
_START_SECONDS = 30

EXTERNAL = os.environ.get("LIVESTATE_TEST_MONGODB")


class BuildError(Exception):
    """FerretDB could not be built; the text says why."""


def build() -> Path:
    """Return the path of the FerretDB program, building it if it is not in the cache.

    :raises BuildError: when Go is missing, or the build fails.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livestate-tests"
    program = cache / f"ferretdb-{_VERSION}"
    if program.exists():
        return program
    # Go's own installer uses that folder, and does not change PATH.
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BuildError("no Go here to build FerretDB with (1.24 or newer), and LIVESTATE_TEST_MONGODB is not set")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "build.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be building
        if not program.exists():
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as folder:
                _compile(go, Path(folder)).rename(program)
    return program


def _compile(go: str, folder: Path) -> Path:
    """Build in `folder`. `go install module@version` does not work because the module lacks version.txt."""
    environment = {
        **os.environ,
        "GOPATH": str(folder / "path"),
        "GOMODCACHE": str(folder / "path/mod"),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-modcacherw -buildvcs=false -trimpath",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }

    def run(*arguments: str, cwd: Path) -> str:
        ran = subprocess.run([go, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise BuildError(f"go {' '.join(arguments)}: {ran.stderr.strip() or ran.stdout.strip()}")
        return ran.stdout

    module = json.loads(run("mod", "download", "-json", f"{_MODULE}@{_VERSION}", cwd=folder))
    if module["Sum"] != _SUM:
        raise BuildError(f"{_MODULE}@{_VERSION} has the checksum {module['Sum']}, not {_SUM}")
    source = Path(module["Dir"])  # writable: -modcacherw
    (source / "build/version/version.txt").write_text(_VERSION)  # the program refuses to start without it
    run("build", "-tags=ferretdb_no_postgresql", "-o", str(folder / "ferretdb"), "./cmd/ferretdb", cwd=source)
    return folder / "ferretdb"


def program_or_skip() -> Path:
    """Return the program, or skip the tests; fail them if CI=true."""
    if EXTERNAL:
        raise SkipTest("needs a server of its own, and LIVESTATE_TEST_MONGODB names another")
    try:
        return build()
    except BuildError as error:
        if os.environ.get("CI") == "true":
            raise
        raise SkipTest(str(error)) from None


class MongoServer:
    """A FerretDB on a free port of 127.0.0.1, with its state in a temporary folder, until this process exits.

    :param user: the name and password of the only user who may log in; None means that anyone may connect.
    :param tls: the files of a certificate and its key, for the TLS port.
    """

    def __init__(self, *, user: tuple[str, str] | None = None, tls: tuple[str, str] | None = None) -> None:
        self._program = program_or_skip()
        self._folder = tempfile.TemporaryDirectory(prefix="livestate-mongodb-")
        folder = self._folder.name
        self.port, self.tls_port = free_port(), free_port()
        self._arguments = [
            "--handler=sqlite",
            f"--sqlite-url=file:{folder}/",
            f"--state-dir={folder}",
            f"--listen-addr=127.0.0.1:{self.port}",
            "--debug-addr=-",
            "--telemetry=disable",
            "--log-level=WARN",
        ]
        self._credentials: dict[str, Any] = {}
        if user:
            self._arguments += ["--test-enable-new-auth", "--setup-database=admin"]
            self._arguments += [f"--setup-username={user[0]}", f"--setup-password={user[1]}"]
            self._credentials = {"username": user[0], "password": user[1]}
        if tls:
            self._arguments += [f"--listen-tls=127.0.0.1:{self.tls_port}"]
            self._arguments += [f"--listen-tls-cert-file={tls[0]}", f"--listen-tls-key-file={tls[1]}"]
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        self.start()

    @property
    def url(self) -> str:
        """The address of the server, without user and password."""
        return f"mongodb://127.0.0.1:{self.port}"

    def client(self) -> MongoClient[dict[str, Any]]:
        """Return a client for storing documents."""
        return MongoClient(self.url, serverSelectionTimeoutMS=500, **self._credentials)

    def start(self) -> None:
        """Start or restart on the same port with the same documents, and wait until the server answers."""
        log = Path(self._folder.name, "log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "DO_NOT_TRACK": "1"},
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.admin.command("ping")
                return
            except PyMongoError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"FerretDB does not answer: {error}; its log: {log.read_text()}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the process, but keep the documents."""
        if self._process is not None:
            self._process.kill()  # on SIGTERM it would wait for its clients to disconnect
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop, and remove the documents."""
        self.stop()
        self._folder.cleanup()


class ExternalServer:
    """The server that LIVESTATE_TEST_MONGODB names."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def client(self) -> MongoClient[dict[str, Any]]:
        """Return a client for storing documents."""
        return MongoClient(self.url)

    def start(self) -> None:
        """Skip the test, which cannot start or stop this server."""
        raise SkipTest("the server is not this test's own (LIVESTATE_TEST_MONGODB)")

    stop = start


if __name__ == "__main__":
    try:
        program = build()
    except BuildError as failed:
        sys.exit(str(failed))
    if sys.argv[1:] == ["--build-only"]:
        print(program)
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit())  # which stops the server
        print(MongoServer().url, flush=True)
        signal.pause()
