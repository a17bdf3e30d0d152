"""HAProxy answering from a file in memory (`http-request return`).

In practice one would use its cache in front of an origin. But while a cache entry is being renewed, HAProxy forwards
every request: hundreds of them would wait for the origin every second, and the origin would be measured.
"""

from __future__ import annotations

from bench.peers.peer import PATH, Environment, Launch, Peer, Server, needs, ports, program, version_of

ETAG = '\\"0123456789abcdef\\"'
CONFIG = """\
global
    nbthread 1
    maxconn 9000
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
frontend public
    bind 127.0.0.1:{http} backlog 4096
    bind 127.0.0.1:{https} ssl crt {pem} alpn http/1.1 backlog 4096
    acl known req.hdr(if-none-match) -m str {etag}
    http-request return status 304 hdr ETag {etag} if {{ path {path} }} known
    http-request return status 200 content-type application/json file {document} hdr ETag {etag} \
hdr Cache-Control "public, max-age=1" if {{ path {path} }}
    http-request return status 404
"""


def start(environment: Environment) -> Server:
    """Write the configuration, and start HAProxy in the foreground."""
    launch = Launch(environment, "haproxy")
    home = environment.home("haproxy")
    http, https = ports()
    config = CONFIG.format(
        http=http, https=https, pem=environment.pem, path=PATH, etag=ETAG, document=environment.document
    )
    (home / "haproxy.cfg").write_text(config)
    launch.start(program("haproxy") or "haproxy", "-db", "-f", str(home / "haproxy.cfg"))
    return launch.done(http, https)


HAPROXY = Peer(
    name="haproxy",
    title="HAProxy",
    setup="1 thread, http-request return of a file in memory with an ETag and a 304 rule, no log, no compression.",
    start=start,
    version=version_of("haproxy", "-v"),
    missing=needs("haproxy"),
)
