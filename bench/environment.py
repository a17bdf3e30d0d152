"""The environment of a scenario: folder, certificate, document, store, writer, origin, and the peers started in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import cpu, document, probe, store
from bench.origin import Origin
from bench.peers import PEERS
from bench.peers.peer import Environment, Server
from bench.process import BenchError, Children, children, run
from bench.scenario import Scenario
from bench.settings import Settings


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Create a self-signed ECDSA P-256 certificate, the same for every peer.

    :returns: the files of the certificate, its key, and both in one.
    """
    cert, key, pem = folder / "cert.pem", folder / "key.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    run([*command, *names, "-days", "7", "-keyout", str(key), "-out", str(cert)])
    pem.write_bytes(cert.read_bytes() + key.read_bytes())
    # A server that drops root privileges still has to read them. They are deleted with the folder.
    for path in (cert, key, pem):
        path.chmod(0o644)
    return cert, key, pem


@dataclass
class Session:
    """A scenario's environment with its running servers, and why some peers are absent."""

    environment: Environment
    store: store.Store
    servers: dict[str, Server]
    absent: dict[str, str]


def _start(session: Session, names: tuple[str, ...], scenario: Scenario) -> None:
    for name in names:
        peer = PEERS[name]
        if (scenario.only and name not in scenario.only) or (peer.hub and scenario.kind != "events"):
            continue
        if why := peer.missing(session.environment):
            session.absent[name] = why
            continue
        try:
            server = peer.start(session.environment)
            if server.port(scenario.tls) is None:
                session.absent[name] = "has no such listener"
                continue
            probe.wait_for(server, session.environment.children)
            probe.document(server, scenario.tls)
            cpu.pin(cpu.tree(server.pids), session.environment.core)
        except (BenchError, OSError) as why_not:
            # A peer that does not start is reported, and the run continues without it.
            session.absent[name] = f"did not start: {why_not}"
            continue
        session.servers[name] = server


@contextmanager
def open_session(scenario: Scenario, settings: Settings) -> Iterator[Session]:
    """Set up everything a scenario needs, and clean it up afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livestate-bench-")))
        folder.chmod(0o755)
        processes: Children = stack.enter_context(children(folder))
        cert, key, pem = certificate(folder)
        www = folder / "www"
        www.mkdir()
        body = document.render(0, 10**18)
        (www / "state.json").write_bytes(body)
        (www / "state.json.gz").write_bytes(document.compress(body))
        redis = store.start(processes, settings.load_core)
        origin = stack.enter_context(Origin(redis, scenario.changing))
        made = Environment(
            folder=folder,
            children=processes,
            core=settings.server_core,
            certificate=cert,
            key=key,
            pem=pem,
            document=www / "state.json",
            # The other peers are pushed to, so livestate is notified of changes as well.
            store_url=redis.notify_url if scenario.kind in ("events", "push") else redis.url,
            origin_port=origin.port,
            python=settings.python,
            peer_python=settings.peer_python,
        )
        session = Session(made, redis, {}, {})
        _start(session, settings.peers, scenario)
        if scenario.changing:
            stack.enter_context(store.Writer(redis))
        yield session


def _bare(folder: Path, settings: Settings) -> Environment:
    """Return an environment without servers, to query the versions of peers."""
    none = folder / "none"
    return Environment(
        folder,
        Children(folder),
        settings.server_core,
        none,
        none,
        none,
        none,
        "",
        0,
        settings.python,
        settings.peer_python,
    )


def versions(settings: Settings, names: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each of these peers."""
    with tempfile.TemporaryDirectory(prefix="livestate-bench-") as folder:
        bare = _bare(Path(folder), settings)
        return {name: PEERS[name].version(bare) for name in names if name in PEERS}


def listing(settings: Settings) -> str:
    """Return a list of all peers, each with its version or why it is missing, and how it is set up."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="livestate-bench-") as folder:
        bare = _bare(Path(folder), settings)
        for name, peer in PEERS.items():
            why = peer.missing(bare)
            lines.append(f"{name}: {peer.title}, {'MISSING: ' + why if why else peer.version(bare)}\n    {peer.setup}")
    return "\n".join(lines)
