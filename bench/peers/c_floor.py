"""The floor: a little C that answers every request with one fixed response. See programs/floor.c."""

from __future__ import annotations

from bench.peers.peer import PROGRAMS, Ground, Launch, Peer, Server, needs, ports, program, version_of
from bench.process import run


def begin(ground: Ground) -> Server:
    """Build both programs and start them."""
    launch = Launch(ground, "floor")
    home = ground.home("floor")
    source = str(PROGRAMS / "floor.c")
    compiler = program("cc") or "cc"
    run([compiler, "-O2", "-o", str(home / "plain"), source])
    run([compiler, "-O2", "-DTLS", "-o", str(home / "secure"), source, "-lssl", "-lcrypto"])
    http, https = ports()
    launch.start(str(home / "plain"), str(http), str(ground.document))
    launch.start(str(home / "secure"), str(https), str(ground.document), str(ground.pem))
    return launch.done(http, https)


FLOOR = Peer(
    name="floor",
    title="C floor",
    setup="One read and one write a request, no HTTP parser, no 304: no server can do less. System OpenSSL.",
    begin=begin,
    version=version_of("cc", "--version"),
    missing=needs("cc"),
)
