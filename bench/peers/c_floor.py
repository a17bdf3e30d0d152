"""The floor: a small C program that answers every request with a fixed response. See programs/floor.c."""

from __future__ import annotations

from bench.peers.peer import PROGRAMS, Environment, Launch, Peer, Server, needs, ports, program, version_of
from bench.process import run


def start(environment: Environment) -> Server:
    """Build and start the programs for HTTP and HTTPS."""
    launch = Launch(environment, "floor")
    home = environment.home("floor")
    source = str(PROGRAMS / "floor.c")
    compiler = program("cc") or "cc"
    run([compiler, "-O2", "-o", str(home / "plain"), source])
    run([compiler, "-O2", "-DTLS", "-o", str(home / "secure"), source, "-lssl", "-lcrypto"])
    http, https = ports()
    launch.start(str(home / "plain"), str(http), str(environment.document))
    launch.start(str(home / "secure"), str(https), str(environment.document), str(environment.pem))
    return launch.done(http, https)


FLOOR = Peer(
    name="floor",
    title="C floor",
    setup="One read and one write per request, no HTTP parser, no 304: no server can do less. System OpenSSL.",
    start=start,
    version=version_of("cc", "--version"),
    missing=needs("cc"),
)
