"""Parsing URLs with several servers: `redis+sentinel://A:26379,B:26379/service`, `redis+cluster://A,B:6379/`.

The form is that of Redis-Sentinel-Url, RedisVL, Prefect and limits (PyPI). These URLs are parsed here because urllib
refuses a list that contains an IPv6 address (`a,[::1]:7000`).
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult

from livestate.errors import SettingsError

_URL = re.compile(r"([^:/?#]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
#: A host, in brackets if it is an IPv6 address, and a port.
_HOST = re.compile(r"(?:\[([\w:.%-]+)\]|([^\[\]:@\s]+))(?::([0-9]{1,5}))?", re.ASCII)


class NodeAddress(NamedTuple):
    """The host and port that a server listens on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def split(url: str) -> SplitResult:
    """Split a URL whose authority may be a list of servers.

    :raises SettingsError: when it is not a URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise SettingsError("not a URL: expected two slashes after the scheme and the colon")
    scheme, *rest = match.groups(default="")
    return SplitResult(scheme.lower(), *rest)


def addresses_of(parts: SplitResult, default_port: int) -> tuple[NodeAddress, ...]:
    """Return the servers in a URL's authority, without duplicates.

    :raises SettingsError: when one is not a host with a valid port. The message does not repeat it, as it may be part
        of a password.
    """
    addresses = []
    truncated = "@" in parts.path and "@" not in parts.netloc
    for text in parts.netloc.rpartition("@")[2].split(","):
        match = _HOST.fullmatch(text)
        port = int(match[3] or default_port) if match else 0
        if truncated or match is None or not 0 < port < 65536:
            raise SettingsError(
                "expected servers as HOST:PORT,HOST:PORT,… with ports from 1 to 65535; "
                "percent-encode / ? # @ : in a password"
            )
        addresses.append(NodeAddress(match[1] or match[2], port))
    return tuple(dict.fromkeys(addresses))
