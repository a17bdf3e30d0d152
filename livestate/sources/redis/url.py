"""The URLs that name several servers: `redis+sentinel://A:26379,B:26379/service`, `redis+cluster://A,B:6379/`.

The form is that of Redis-Sentinel-Url, RedisVL, Prefect and limits (PyPI). urllib refuses a list with an IPv6 address
in it (`a,[::1]:7000`), so these URLs are taken apart here.
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult

from livestate.errors import SettingsError

_URL = re.compile(r"([^:/?#]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
#: A host, in brackets where it is an IPv6 address, and a port.
_HOST = re.compile(r"(?:\[([\w:.%-]+)\]|([^\[\]:@\s]+))(?::([0-9]{1,5}))?", re.ASCII)


class NodeAddress(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def split(url: str) -> SplitResult:
    """Take a URL apart whose authority may be a list.

    :raises SettingsError: it is none.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise SettingsError("not a URL: after the scheme and the colon come two slashes")
    scheme, *rest = match.groups(default="")
    return SplitResult(scheme.lower(), *rest)


def addresses_of(parts: SplitResult, default_port: int) -> tuple[NodeAddress, ...]:
    """Give the servers that a URL's authority names, each once.

    :raises SettingsError: one is no host with a port. What stands there is not shown: it may be part of a password.
    """
    addresses = []
    cut_short = "@" in parts.path and "@" not in parts.netloc
    for text in parts.netloc.rpartition("@")[2].split(","):
        match = _HOST.fullmatch(text)
        port = int(match[3] or default_port) if match else 0
        if cut_short or match is None or not 0 < port < 65536:
            raise SettingsError(
                "the servers are HOST:PORT,HOST:PORT,… with a port from 1 to 65535; in a password, each of "
                "/ ? # @ : is percent-encoded"
            )
        addresses.append(NodeAddress(match[1] or match[2], port))
    return tuple(dict.fromkeys(addresses))
