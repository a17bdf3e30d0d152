"""Which node of a Redis Cluster has a key, as the cluster's specification has it.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/: 16,384 slots, the CRC16 of a key's hash tag,
and the errors MOVED and ASK, with which a node sends a client to another one.
"""

from binascii import crc_hqx
from typing import Any, NamedTuple

from livestate.errors import SourceError
from livestate.sources.redis.url import NodeAddress

SLOTS = 16384


class Redirection(NamedTuple):
    """Where a node sends a client."""

    address: NodeAddress
    #: Just this once, and with ASKING before the command: the slot is being moved.
    asking: bool


class Owners(NamedTuple):
    """Who serves a slot, and which other nodes there are."""

    owner: NodeAddress
    others: tuple[NodeAddress, ...]


def slot_of(key: bytes) -> int:
    """Give a key's slot: of what is between its first { and the next }, if there is something; else of all of it."""
    _, opened, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    # CRC16 in its XMODEM variant, which is binascii's crc_hqx from 0.
    return crc_hqx(tag if opened and closed and tag else key, 0) % SLOTS


def redirection(text: str, asked: NodeAddress) -> Redirection | None:
    """Read a node's error as a redirection, None where it is another error.

    :param asked: the node that says it; a redirection without a host is to another port there.
    """
    words = text.split(" ")
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    if not port.isdecimal():
        return None
    return Redirection(NodeAddress(host.strip("[]") or asked.host, int(port)), words[0] == "ASK")


def owners_of(slot: int, reply: object, asked: NodeAddress) -> Owners:
    """Find a slot in a node's reply to CLUSTER SLOTS.

    :param asked: the node that replied; where it does not know its own host, it is this one.
    :raises SourceError: no node serves the slot, or it is no such reply.
    """
    owner: NodeAddress | None = None
    others: list[NodeAddress] = []
    try:
        ranges: Any = reply
        for first, last, *nodes in ranges:
            addresses = [_address(host, port, asked) for host, port, *_ in nodes]
            if first <= slot <= last:
                owner, *addresses = addresses
            others += addresses
    except (AttributeError, TypeError, ValueError):
        raise SourceError("not a reply to CLUSTER SLOTS") from None
    if owner is None:
        raise SourceError(f"no node serves the slot of the key ({slot})")
    return Owners(owner, tuple(dict.fromkeys(others)))


def _address(host: bytes | None, port: int, asked: NodeAddress) -> NodeAddress:
    name = (host or b"").decode()
    # "?" stands for a host name that the node does not know of another one.
    return NodeAddress(asked.host if name in ("", "?") else name, int(port))
