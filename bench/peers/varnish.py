"""Varnish in front of the origin, and hitch for TLS in front of Varnish, as Varnish's documentation recommends."""

from __future__ import annotations

from bench.peers.peer import Environment, Launch, Peer, Server, needs, ports, program, version_of

VCL = """\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{ unset req.http.Cookie; return (hash); }}
sub vcl_backend_response {{
    set beresp.ttl = 1s;
    set beresp.grace = 10s;     # serve a stale copy while one request fetches the next
    set beresp.do_stream = false;   # with Content-Length, even while it is being fetched
}}
"""
HITCH = """\
frontend = "[127.0.0.1]:{https}"
backend = "[127.0.0.1]:{proxy}"
pem-file = "{pem}"
workers = 1
backlog = 4096
write-proxy-v2 = on
alpn-protos = "http/1.1"
tls-protos = TLSv1.2 TLSv1.3
daemon = off
{user}
"""


def start(environment: Environment) -> Server:
    """Start the cache, and the TLS proxy in front of it."""
    launch = Launch(environment, "varnish")
    home = environment.home("varnish")
    http, https = ports()
    proxy, _ = ports()
    (home / "default.vcl").write_text(VCL.format(origin=environment.origin_port))
    user = 'user = "nobody"' if environment.root else ""
    (home / "hitch.conf").write_text(HITCH.format(https=https, proxy=proxy, pem=environment.pem, user=user))
    launch.start(
        *(program("varnishd") or "varnishd", "-F", "-n", str(home / "work"), "-f", str(home / "default.vcl")),
        *("-j", "none", "-a", f"127.0.0.1:{http},HTTP", "-a", f"127.0.0.1:{proxy},PROXY"),
        *("-s", "default,64m", "-T", "none", "-p", "timeout_idle=75", "-p", "listen_depth=4096"),
    )
    launch.start(program("hitch") or "hitch", "--config", str(home / "hitch.conf"))
    return launch.done(http, https)


VARNISH = Peer(
    name="varnish",
    title="Varnish (+ hitch)",
    setup="Default thread pools, TTL 1 s with grace, in front of an origin that is not counted and does not compress.",
    start=start,
    version=version_of("varnishd", "-V"),
    missing=needs("varnishd", "hitch"),
)
