"""nginx with a static file: one worker, set up as its documentation recommends, with TLS session resumption."""

from __future__ import annotations

from bench.peers.peer import PATH, Environment, Launch, Peer, Server, needs, ports, program, version_of

CONFIG = """\
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{
    worker_connections 16000;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=60s;
    open_file_cache_valid 1s;   # it may change every second
    etag on;
    gzip_static on;             # serves state.json.gz, so that no request is compressed
    gzip_vary on;
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
        location = {path} {{
            add_header Cache-Control "public, max-age=1";
        }}
    }}
}}
"""


def start(environment: Environment) -> Server:
    """Write the configuration, and start the master process."""
    launch = Launch(environment, "nginx")
    home = environment.home("nginx")
    http, https = ports()
    (home / "nginx.conf").write_text(
        CONFIG.format(
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
    return launch.done(http, https)


NGINX = Peer(
    name="nginx",
    title="nginx",
    setup="Static file and its .gz, 1 worker, sendfile, open_file_cache, no access log, TLS session cache and tickets.",
    start=start,
    version=version_of("nginx", "-v"),
    missing=needs("nginx"),
)
