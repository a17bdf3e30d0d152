"""nchan, event streams for nginx (Debian's libnginx-mod-nchan): one worker, a channel that keeps one message."""

from __future__ import annotations

from pathlib import Path

from bench.peers.peer import (
    PATH,
    Environment,
    Launch,
    Peer,
    Server,
    first_line,
    needs,
    ports,
    post,
    program,
    version_of,
)
from bench.process import run

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIG = """\
load_module {module};
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{
    worker_connections 19000;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    default_type application/json;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
    ssl_session_timeout 1h;
    server {{
        listen 127.0.0.1:{http} backlog=4096;
        listen 127.0.0.1:{https} ssl backlog=4096;
        root {www};
        location = {path}/events {{
            nchan_subscriber eventsource;
            nchan_channel_id state;
        }}
        location = {path}/publish {{
            nchan_publisher;
            nchan_channel_id state;
            nchan_message_buffer_length 1;  # the current state, for new subscribers
        }}
    }}
}}
"""


def start(environment: Environment) -> Server:
    """Write the configuration, and start the master process."""
    launch = Launch(environment, "nchan")
    home = environment.home("nchan")
    http, https = ports()
    (home / "nginx.conf").write_text(
        CONFIG.format(
            module=MODULE,
            home=home,
            # If started as root, a worker would run as nobody, which may not read a temporary folder.
            user="user root;" if environment.root else "",
            certificate=environment.certificate,
            key=environment.key,
            http=http,
            https=https,
            www=environment.document.parent,
            path=PATH,
        )
    )
    launch.start(program("nginx") or "nginx", "-c", str(home / "nginx.conf"), "-p", str(home))
    return launch.done(http, https, events=f"{PATH}/events", push=post(http, f"{PATH}/publish"))


def missing(environment: Environment) -> str | None:
    """Return why nchan is missing: it needs nginx and the module."""
    return needs("nginx")(environment) or (None if MODULE.exists() else "not installed: libnginx-mod-nchan")


def version(environment: Environment) -> str:
    """Return nginx's own version, and the version of the module's Debian package."""
    package = program("dpkg-query")
    module = run([package, "-W", "-f", "${Version}", "libnginx-mod-nchan"], timeout=30) if package else "?"
    return f"{version_of('nginx', '-v')(environment)}, nchan {first_line(module)}"


NCHAN = Peer(
    name="nchan",
    title="nginx + nchan",
    setup="nchan_subscriber eventsource, a channel that keeps one message in memory, 1 worker; pushed to by POST.",
    start=start,
    version=version,
    missing=missing,
    hub=True,
)
