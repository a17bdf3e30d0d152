"""livestate, which reads its document from Redis."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from bench.peers.peer import PATH, ROOT, Environment, Launch, Peer, Server, first_line, ports
from bench.process import BenchError, free_port, run

VERSIONS = (
    "import importlib.metadata as m, platform, OpenSSL.SSL as s\n"
    "names = ('livestate', 'twisted', 'pyOpenSSL', 'cryptography')\n"
    "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
    "print(', '.join(f'{n} {found.get(n.lower(), \"(checkout)\")}' for n in names), end=', ')\n"
    "print('Python', platform.python_version() + ',', s.SSLeay_version(0).decode())"
)


def _twistd(environment: Environment) -> str:
    return str(Path(environment.python).with_name("twistd"))


def _variables() -> dict[str, str]:
    """Return environment variables with which twistd finds the plugin of this checkout, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def missing(environment: Environment) -> str | None:
    """Return why livestate is missing, or None if twistd knows its command."""
    if not Path(_twistd(environment)).exists():
        return f"no twistd next to {Path(environment.python).name} (--python)"
    try:
        run([_twistd(environment), "livestate", "--help"], timeout=60, env=_variables())
    except BenchError as error:
        return f"twistd livestate --help failed: {str(error).splitlines()[-1][-200:]}"
    return None


def version(environment: Environment) -> str:
    """Return the versions of livestate and its dependencies."""
    return first_line(run([environment.python, "-c", VERSIONS], timeout=30, env=_variables()))


def start(name: str, options: tuple[str, ...], environment: Environment) -> Server:
    """Start `twistd -n livestate` with both listeners and the store of the bench."""
    launch = Launch(environment, name)
    http, https = ports()
    tls = f"ssl:{https}:interface=127.0.0.1:privateKey={environment.key}:certKey={environment.certificate}"
    launch.start(
        *(_twistd(environment), "-n", *options, "livestate"),
        *(f"--http=tcp:{http}:interface=127.0.0.1", f"--https={tls}"),
        *(f"--admin=tcp:{free_port()}:interface=127.0.0.1", f"--source={PATH}={environment.store_url}"),
        env=_variables(),
    )
    return launch.done(http, https, events=f"{PATH}/events")


LIVESTATE = Peer(
    name="livestate",
    title="livestate",
    setup="twistd -n livestate, all options at their defaults except ports and certificate; polls Redis every second.",
    start=partial(start, "livestate", ()),
    version=version,
    missing=missing,
)
LIVESTATE_EPOLL = Peer(
    name="livestate-epoll",
    title="livestate, stock reactor",
    setup="The same with twistd --reactor=epoll: Twisted's own reactor and transports.",
    start=partial(start, "livestate-epoll", ("--reactor=epoll",)),
    version=version,
    missing=missing,
)
