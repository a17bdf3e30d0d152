"""The role of a Redis server in replication, as it reports it: https://redis.io/docs/latest/commands/role/"""

from typing import NamedTuple

from livestate.errors import SourceError


class Role(NamedTuple):
    """The role that a server reports."""

    primary: bool
    #: Whether a replica is connected to its primary and in sync with it; True for a primary.
    linked: bool
    #: The server's offset in the replication stream, in bytes.
    offset: int


def role_of(reply: object) -> Role:
    """Parse a reply to ROLE.

    :raises SourceError: when it is not the reply of a primary or a replica.
    """
    match reply:
        case [b"master", int(offset), *_]:
            return Role(True, True, offset)
        case [b"slave", _, _, state, int(offset)]:
            return Role(False, state == b"connected", offset)
    raise SourceError("not a reply to ROLE")


def check_role(role: Role, primary: bool) -> None:
    """Ensure that a server has the expected role.

    :param primary: whether the server is expected to be a primary.
    :raises SourceError: when it has another role, or is a replica that is not connected to its primary.
    """
    if role.primary and not primary:
        raise SourceError("no longer a replica")
    if primary and not role.primary:
        raise SourceError("the Sentinels name it as the primary, but it reports that it is a replica")
    if not role.linked:
        raise SourceError("a replica that has lost its primary")
