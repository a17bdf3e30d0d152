"""Other Python servers: an ASGI application on uvicorn and Granian, Flask on gunicorn, and stock twisted.web."""

from __future__ import annotations

from bench.peers.peer import (
    PROGRAMS,
    Environment,
    Launch,
    Peer,
    Server,
    modules_version,
    needs_modules,
    ports,
)


def _variables(environment: Environment) -> dict[str, str]:
    return {"BENCH_DOCUMENT": str(environment.document), "PYTHONPATH": str(PROGRAMS), "PYTHONDONTWRITEBYTECODE": "1"}


def _pair(environment: Environment, name: str, bind: str, command: tuple[str, ...], secure: tuple[str, ...]) -> Server:
    """Start `command` for HTTP and, with the arguments `secure`, for HTTPS.

    :param bind: arguments for the address, with {} for the port.
    """
    launch = Launch(environment, name)
    http, https = ports()
    for port, more in ((http, ()), (https, secure)):
        launch.start(*command, *bind.format(port).split(), *more, env=_variables(environment))
    return launch.done(http, https)


def uvicorn(environment: Environment) -> Server:
    """Start one process for HTTP and one for HTTPS."""
    common = (
        *(environment.peer_python, "-m", "uvicorn", "asgi_app:app", "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning", "--lifespan", "off", "--ws", "none"),
        *("--timeout-keep-alive", "75", "--backlog", "4096", "--host", "127.0.0.1"),
    )
    secure = ("--ssl-certfile", str(environment.certificate), "--ssl-keyfile", str(environment.key))
    return _pair(environment, "uvicorn", "--port {}", common, secure)


def granian(environment: Environment) -> Server:
    """Start one process for HTTP and one for HTTPS."""
    common = (
        *(environment.peer_python, "-m", "granian", "asgi_app:app", "--interface", "asgi", "--loop", "uvloop"),
        *("--http", "1", "--no-ws", "--workers", "1", "--backlog", "4096", "--log-level", "warning"),
        *("--host", "127.0.0.1"),
    )
    secure = ("--ssl-certificate", str(environment.certificate), "--ssl-keyfile", str(environment.key))
    return _pair(environment, "granian", "--port {}", common, secure)


def flask(environment: Environment) -> Server:
    """Start one gunicorn for HTTP and one for HTTPS, each with a gthread worker, which supports keep-alive."""
    common = (
        *(environment.peer_python, "-m", "gunicorn", "flask_app:app", "--worker-class", "gthread", "--workers", "1"),
        *("--threads", "8", "--worker-connections", "12000", "--keep-alive", "75", "--backlog", "4096"),
        *("--log-level", "warning"),
    )
    secure = ("--certfile", str(environment.certificate), "--keyfile", str(environment.key))
    return _pair(environment, "flask", "--bind 127.0.0.1:{}", common, secure)


def twisted(environment: Environment) -> Server:
    """Start one process with both listeners."""
    launch = Launch(environment, "twisted")
    http, https = ports()
    tls = f"ssl:{https}:interface=127.0.0.1:privateKey={environment.key}:certKey={environment.certificate}:backlog=4096"
    launch.start(
        *(environment.peer_python, str(PROGRAMS / "twisted_site.py")),
        *(f"tcp:{http}:interface=127.0.0.1:backlog=4096", tls, str(environment.document)),
        env=_variables(environment),
    )
    return launch.done(http, https)


UVICORN = Peer(
    name="uvicorn",
    title="uvicorn",
    setup="Bare ASGI application on uvloop and httptools (its fastest parts), 1 process, no access log.",
    start=uvicorn,
    version=modules_version("uvicorn", "uvloop", "httptools"),
    missing=needs_modules("uvicorn", "uvloop", "httptools"),
)
GRANIAN = Peer(
    name="granian",
    title="Granian",
    setup="The same ASGI application, uvloop, 1 worker, 1 runtime thread (its default), no access log.",
    start=granian,
    version=modules_version("granian", "uvloop"),
    missing=needs_modules("granian", "uvloop"),
)
FLASK = Peer(
    name="flask",
    title="Flask + gunicorn",
    setup="1 gthread worker with 8 threads (the worker with keep-alive), Flask's own ETag and 304.",
    start=flask,
    version=modules_version("flask", "gunicorn"),
    missing=needs_modules("flask", "gunicorn"),
)
TWISTED = Peer(
    name="twisted",
    title="twisted.web, stock",
    setup="Site and Resource with setETag, Twisted's own reactor and TLS, no access log.",
    start=twisted,
    version=modules_version("twisted", "pyOpenSSL", "cryptography"),
    missing=needs_modules("twisted.web.server", "OpenSSL", "service_identity"),
)
