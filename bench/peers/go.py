"""Go's net/http. See programs/gopeer/main.go."""

from __future__ import annotations

from bench.peers.peer import PATH, PROGRAMS, Environment, Launch, Peer, Server, needs, ports, post, program, version_of
from bench.process import run


def start(environment: Environment) -> Server:
    """Build and start the program."""
    launch = Launch(environment, "go")
    binary = environment.home("go") / "gopeer"
    run([program("go") or "go", "build", "-C", str(PROGRAMS / "gopeer"), "-o", str(binary), "."], timeout=300)
    http, https = ports()
    launch.start(
        str(binary),
        *("-http", f"127.0.0.1:{http}", "-https", f"127.0.0.1:{https}", "-path", PATH),
        *("-cert", str(environment.certificate), "-key", str(environment.key), str(environment.document)),
        env={"GOMAXPROCS": "1"},
    )
    return launch.done(http, https, events=f"{PATH}/events", push=post(http, f"{PATH}/publish"))


GO = Peer(
    name="go",
    title="Go net/http",
    setup="From memory with ETag and 304; gzip and event frame made once. GOMAXPROCS=1, which Go chooses on one core.",
    start=start,
    version=version_of("go", "version"),
    missing=needs("go"),
)
