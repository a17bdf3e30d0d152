"""Parsing Redis URLs, also those with several servers: `redis+sentinel://A:26379,B/service`, `redis+cluster://A,B/`.

The form of the latter is that of Redis-Sentinel-Url, RedisVL, Prefect and limits (PyPI). They are parsed here because
urllib refuses a list that contains an IPv6 address (`a,[::1]:7000`).
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from livestate.errors import SettingsError
from livestate.sources.url import query_of

_PARAMETERS = frozenset({"key", "cafile", "notify"})
#: The parameters that only one kind of URL may have, by the part of its scheme after the +.
_PARAMETERS_OF = {
    "": frozenset[str](),
    "unix": frozenset({"db"}),
    "sentinel": frozenset({"read_from", "sentinel_username", "sentinel_password"}),
    "cluster": frozenset[str](),
}

#: The values of `notify` that are not the name of a channel: Redis's own channel for the key (see `channel`), and none.
KEYSPACE = "keyspace"
POLL = "poll"

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


def parse(url: str) -> tuple[SplitResult, dict[str, str]]:
    """Return the parts of a Redis URL and its parameters.

    :raises SettingsError: when it is not such a URL, or a parameter is not valid.
    """
    kind = url.partition(":")[0].lower().partition("+")[2]
    parts = split(url) if kind in ("sentinel", "cluster") else urlsplit(url)
    query = query_of(parts, _PARAMETERS | _PARAMETERS_OF[kind])
    if query.get("notify") == "":
        raise SettingsError("notify must be the name of a channel, keyspace, or poll: &notify=results")
    return parts, query


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
