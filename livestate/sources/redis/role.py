"""The roles of Redis servers that copy from one another, as they say them: https://redis.io/docs/latest/commands/role/"""

from typing import NamedTuple

from livestate.errors import SourceError


class Role(NamedTuple):
    """What a server says of itself."""

    primary: bool
    #: A replica is connected to its primary and up with it.
    linked: bool
    #: How many bytes of the stream of replication it has.
    offset: int


def role_of(reply: object) -> Role:
    """Read a reply to ROLE.

    :raises SourceError: it is none of a primary or a replica.
    """
    match reply:
        case [b"master", int(offset), *_]:
            return Role(True, True, offset)
        case [b"slave", _, _, state, int(offset)]:
            return Role(False, state == b"connected", offset)
    raise SourceError("not a reply to ROLE")


def check_role(role: Role, primary: bool) -> None:
    """See that a server has the role that it is to have.

    :raises SourceError: it has not.
    """
    if role.primary and not primary:
        raise SourceError("no replica any more")
    if primary and not role.primary:
        raise SourceError("the primary by what the Sentinels say, a replica by its own word")
    if not role.linked:
        raise SourceError("a replica that has lost its primary")
