"""Which node of a Redis Cluster has a key, by the cluster specification.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/: there are 16,384 slots, the slot is the
CRC16 of a key's hash tag, and with the errors MOVED and ASK a node redirects a client to another one.
"""

from binascii import crc_hqx
from typing import Any, NamedTuple

from livestate.errors import SourceError
from livestate.sources.redis.url import NodeAddress

SLOTS = 16384


class Redirection(NamedTuple):
    """The node that a client is redirected to."""

    address: NodeAddress
    #: Only for this command, and with ASKING before it, since the slot is being moved.
    asking: bool


class Owners(NamedTuple):
    """The node that serves a slot, and the other nodes of the cluster."""

    owner: NodeAddress
    others: tuple[NodeAddress, ...]


def slot_of(key: bytes) -> int:
    """Return the slot of a key.

    The hash is that of the text between the first { and the next }, if there is any, or else of the whole key.
    """
    _, opened, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    # The XMODEM variant of CRC16, which is binascii's crc_hqx with the initial value 0.
    return crc_hqx(tag if opened and closed and tag else key, 0) % SLOTS


def redirection(text: str, asked: NodeAddress) -> Redirection | None:
    """Parse a node's error as a redirection, and return None when it is another error.

    :param asked: the node that answered. A redirection without a host means another port on the same host.
    """
    words = text.split(" ")
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    if not port.isdecimal():
        return None
    return Redirection(NodeAddress(host.strip("[]") or asked.host, int(port)), words[0] == "ASK")


def owners_of(slot: int, reply: object, asked: NodeAddress) -> Owners:
    """Return the nodes in a reply to CLUSTER SLOTS.

    :param asked: the node that answered. Its host stands in for one that the reply leaves out.
    :raises SourceError: when no node serves the slot, or it is not such a reply.
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
        raise SourceError(f"no node serves the key's slot ({slot})")
    return Owners(owner, tuple(dict.fromkeys(others)))


def _address(host: bytes | None, port: int, asked: NodeAddress) -> NodeAddress:
    name = (host or b"").decode()
    # A node sends "?" for another node whose host name it does not know.
    return NodeAddress(asked.host if name in ("", "?") else name, int(port))
