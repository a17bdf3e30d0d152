"""The Mercure hub, a Go program based on Caddy: one process, no history, anonymous subscribers, a token to publish."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Callable

from bench.peers.peer import Environment, Launch, Peer, Server, needs, ports, post, program, version_of

HUB = "/.well-known/mercure"
TOPIC = "https://example.com/state"
KEY = "the-bench-publishes-and-no-one-else-may"
CONFIG = """\
{{
    admin off
    auto_https off
    persist_config off
    log {{
        output discard
    }}
}}
(hub) {{
    mercure {{
        transport local
        anonymous
        publisher_jwt {key}
        write_timeout 0s
    }}
    root * {www}
    file_server
}}
http://127.0.0.1:{http}, https://127.0.0.1:{https} {{
    tls {certificate} {certificate_key}
    import hub
}}
"""


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token() -> str:
    """Return the publisher's JSON Web Token (RFC 7519), signed with HS256."""
    head = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = _encoded(json.dumps({"mercure": {"publish": ["*"]}}).encode())
    signature = hmac.new(KEY.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{head}.{claims}.{_encoded(signature)}"


def pushed(port: int) -> Callable[[bytes], None]:
    """Return a function that publishes an update of the topic."""
    form = {"Authorization": f"Bearer {token()}", "Content-Type": "application/x-www-form-urlencoded"}
    send = post(port, HUB, **form)
    return lambda body: send(urllib.parse.urlencode({"topic": TOPIC, "data": body}).encode())


def start(environment: Environment) -> Server:
    """Write the Caddyfile, and start the hub."""
    launch = Launch(environment, "mercure")
    home = environment.home("mercure")
    http, https = ports()
    (home / "Caddyfile").write_text(
        CONFIG.format(
            key=KEY,
            www=environment.document.parent,
            http=http,
            https=https,
            certificate=environment.certificate,
            certificate_key=environment.key,
        )
    )
    launch.start(
        *(program("mercure") or "mercure", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"),
        env={"HOME": str(home), "GOMAXPROCS": "1"},
    )
    events = f"{HUB}?{urllib.parse.urlencode({'topic': TOPIC})}"
    return launch.done(http, https, events=events, push=pushed(http))


MERCURE = Peer(
    name="mercure",
    title="Mercure",
    setup="Its hub, local transport (no history), anonymous subscribers, no log, GOMAXPROCS=1; pushed to by POST.",
    start=start,
    version=version_of("mercure", "version"),
    missing=needs("mercure"),
    hub=True,
)
