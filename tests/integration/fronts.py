"""Caches and proxies in front of livestate: Debian's packages with the configurations in etc/, and load on them."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.http import Client
from tests.integration.load import Wrk
from tests.integration.processes import Child, folder_for, free_port, program_of
from tests.integration.venvs import ROOT

#: Values of Accept-Encoding that clients send, and the content coding of the response.
ACCEPTED = {
    "gzip, deflate, br, zstd": "br",
    "gzip, deflate, br": "br",
    "BR;q=0.8, *;q=0.1": "br",
    "br;q=0, zstd;q=0.001, gzip;q=0.000": "zstd",
    "zstd": "zstd",
    "gzip": "gzip",
    "x-gzip ; q=1.0": "gzip",
    "br;q=0.0, gzip;q=0.5": "gzip",
    "brotli, deflate": "identity",
    "identity": "identity",
    "": "identity",
}

#: Changes to HAProxy's configuration: a test may open fewer files, and may not be able to change the user.
_FOR_TESTS = {
    "maxconn 50000": "maxconn 4000",
    **({} if os.geteuid() == 0 else {"    user haproxy\n    group haproxy\n": ""}),
}

_LOAD = """
local codings = { %s }
local requests, n = {}, 0
init = function()
    for i = 1, 500 do
        local coding = codings[i %% #codings + 1]
        -- A cache that compares the values as they are stores a response for each client.
        local weights = { coding, "gzip;q=0." .. i, "br;q=0." .. i .. ", gzip", "zstd, gzip;q=0." .. i }
        requests[i] = wrk.format("GET", "/?_=" .. i, {
            ["Host"] = "host" .. i, ["Accept-Encoding"] = weights[i %% 4 + 1], ["Cookie"] = "reader=" .. i,
            ["Cache-Control"] = "no-cache",
        })
    end
end
request = function()
    n = n %% 500 + 1
    return requests[n]
end
"""


@dataclass(frozen=True)
class Front:
    """The addresses of a front, named as in `Livestate`. One that it does not have is empty."""

    name: str
    http: str = ""
    https: str = ""
    cafile: Path = Path()

    def client(self, https: bool = False) -> Client:
        """Return a client with a persistent connection."""
        return Client(self.https, self.cafile) if https else Client(self.http)


class Fronts:
    """Starts fronts, each in front of a server on a given port."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        self.folder = folder_for(case)
        # nginx's workers run as another user than root.
        self.folder.chmod(0o755)
        authority = Authority(self.folder)
        self.cafile = authority.certificate
        self._key, self._certificate = authority.issue("front")
        self._combined = self.folder / "combined.pem"
        self._combined.write_bytes(self._key.read_bytes() + self._certificate.read_bytes())

    def varnish(self, livestate: int) -> Front:
        """Start Varnish."""
        port = free_port()
        config = self._adapt("varnish.vcl", {'.port = "8080"': f'.port = "{livestate}"'})
        arguments: list[str | Path] = ["-F", "-n", self.folder / "varnish", "-f", config, "-a", f"127.0.0.1:{port}"]
        self._start(port, "varnishd", *arguments, "-T", "none", "-j", "none", "-s", "malloc,64m")
        return Front("varnish", http=f"http://127.0.0.1:{port}")

    def nginx(self, livestate: int) -> Front:
        """Start nginx."""
        http, https = free_port(), free_port()
        kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
        folders = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        config = self._adapt(
            "nginx.conf",
            {
                "server 127.0.0.1:8080;": f"server 127.0.0.1:{livestate};",
                "listen 80;": f"listen 127.0.0.1:{http};",
                "listen 443 ": f"listen 127.0.0.1:{https} ",
                "http {\n": "http {\n" + folders,
                "/etc/livestate/fullchain.pem": str(self._certificate),
                "/etc/livestate/key.pem": str(self._key),
                "/run/nginx.pid": f"{self.folder}/nginx.pid",
                "/var/log/nginx/": f"{self.folder}/nginx-",
                "/var/lib/nginx/livestate": f"{self.folder}/nginx-cache",
                # A test may open fewer files, also in CI.
                "worker_rlimit_nofile 65536;": "",
                "worker_connections 32768;": "worker_connections 4096;",
            },
        )
        self._start(http, "nginx", "-e", self.folder / "nginx-error.log", "-c", config, "-g", "daemon off;")
        return Front("nginx", f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}", self.cafile)

    def haproxy(self, livestate: int, varnish: Front) -> Front:
        """Start HAProxy in front of Varnish, for documents, and of livestate, for streams."""
        http, https = free_port(), free_port()
        config = self._adapt(
            "haproxy.cfg",
            {
                "127.0.0.1:8080": f"127.0.0.1:{livestate}",
                "127.0.0.1:6081": varnish.http.removeprefix("http://"),
                "bind :80\n": f"bind 127.0.0.1:{http}\n",
                "bind :443 ": f"bind 127.0.0.1:{https} ",
                "/etc/livestate/combined.pem": str(self._combined),
                **_FOR_TESTS,
            },
        )
        self._start(http, "haproxy", "-db", "-f", config)
        return Front("haproxy", f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}", self.cafile)

    def haproxy_of_nodes(self, nodes: Sequence[int]) -> Front:
        """Start HAProxy in front of three nodes, which it checks more often than in production."""
        http, https = free_port(), free_port()
        addresses = {f"192.0.2.{number}:8080": f"127.0.0.1:{port}" for number, port in enumerate(nodes, 1)}
        config = self._adapt(
            "haproxy-nodes.cfg",
            {
                **addresses,
                "inter 1s": "inter 200ms",
                # A busy machine must not fail a check.
                "timeout check 2s": "timeout check 20s",
                "bind :80\n": f"bind 127.0.0.1:{http}\n",
                "bind :443 ": f"bind 127.0.0.1:{https} ",
                "/etc/livestate/combined.pem": str(self._combined),
                **_FOR_TESTS,
            },
        )
        self._start(http, "haproxy", "-db", "-f", config)
        return Front("haproxy", f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}", self.cafile)

    def hitch(self, varnish: Front) -> Front:
        """Start hitch in front of Varnish."""
        port = free_port()
        config = self._adapt(
            "hitch.conf",
            {
                '"[*]:443"': f'"[127.0.0.1]:{port}"',
                '"[127.0.0.1]:6081"': '"[127.0.0.1]:{}"'.format(varnish.http.rpartition(":")[2]),
                "/etc/livestate/combined.pem": str(self._combined),
            },
        )
        # As in Debian's systemd unit.
        user = ["--user", "_hitch", "--group", "_hitch"] if os.geteuid() == 0 else []
        self._start(port, "hitch", *user, "--config", config)
        return Front("hitch", https=f"https://127.0.0.1:{port}", cafile=self.cafile)

    def load(self, url: str, seconds: float, connections: int = 40) -> Wrk:
        """Send requests as fast as possible, with the header fields of clients of all kinds."""
        script = self.folder / "load.lua"
        script.write_text(_LOAD % ", ".join(f'"{accepted}"' for accepted in ACCEPTED))
        return Wrk(self._case, url, seconds, connections, script)

    def _adapt(self, name: str, exchanges: dict[str, str]) -> Path:
        """Write a copy of a configuration in etc/ with other ports and folders.

        :raises AssertionError: when a text to be replaced is missing.
        """
        text = (ROOT / "etc" / name).read_text(encoding="utf-8")
        for old, new in exchanges.items():
            assert old in text, f"{name} has no {old!r}"
            text = text.replace(old, new)
        config = self.folder / name
        config.write_text(text, encoding="utf-8")
        return config

    def _start(self, port: int, name: str, *arguments: str | Path) -> None:
        child = Child(self._case, [program_of(name), *arguments], self.folder)
        # Cleaned up before the child is killed, because it must stop its own children.
        self._case.addCleanup(child.stop)
        child.wait_for(lambda: _listens(port), name)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
