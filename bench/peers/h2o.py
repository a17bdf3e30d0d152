"""h2o with a static file."""

from __future__ import annotations

from bench.peers.peer import Environment, Launch, Peer, Server, needs, ports, program, version_of

CONFIG = """\
num-threads: 1
max-connections: 16000
{user}
tcp-fastopen: 0
http1-request-timeout: 75
file.send-compressed: ON
file.etag: ON
file.mime.settypes:
  application/json: [".json"]
pid-file: {home}/h2o.pid
error-log: {home}/error.log
listen:
  port: {http}
  host: 127.0.0.1
listen:
  port: {https}
  host: 127.0.0.1
  ssl:
    certificate-file: {certificate}
    key-file: {key}
    minimum-version: TLSv1.2
ssl-session-resumption:
  mode: all
  cache-store: internal
  ticket-store: internal
hosts:
  default:
    paths:
      "/":
        file.dir: {www}
        header.set: "Cache-Control: public, max-age=1"
"""


def start(environment: Environment) -> Server:
    """Write the configuration, and start h2o."""
    launch = Launch(environment, "h2o")
    home = environment.home("h2o")
    http, https = ports()
    (home / "h2o.conf").write_text(
        CONFIG.format(
            home=home,
            user="user: root" if environment.root else "",
            certificate=environment.certificate,
            key=environment.key,
            http=http,
            https=https,
            www=environment.document.parent,
        )
    )
    launch.start(program("h2o") or "h2o", "-c", str(home / "h2o.conf"))
    return launch.done(http, https)


H2O = Peer(
    name="h2o",
    title="h2o",
    setup="Static file and its .gz, 1 thread, ETag, session cache and tickets, no access log.",
    start=start,
    version=version_of("h2o", "--version"),
    missing=needs("h2o"),
)
