"""What all deployments of Redis have in common, and the simplest one: a single server.

The others are in `sentinel_deployment` and `cluster`.
"""

from collections.abc import Callable
from typing import Protocol

from livestate.sources.redis.connection import P, RedisServer
from livestate.sources.redis.persistent_connection import PersistentConnection


class Deployment(Protocol):
    """The servers that may have one key."""

    #: The number of the database that the key is in.
    database: int
    #: Called when the key is now read from another server than the one that `connect` last connected to.
    moved: Callable[[], None]

    async def connect(self, make_protocol: Callable[[], P]) -> P:
        """Connect a new protocol to the server that the key is read from, and log in.

        :param make_protocol: makes the protocol.
        :raises SourceError: when there is no such server, or connecting to it fails.
        """

    async def read(self, *command: object) -> object:
        """Send a command to the server that the key is read from, and return the answer.

        :raises SourceError: when no server answers it.
        """

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Send commands in this order, on one connection, to the server that accepts writes.

        :raises SourceError: when there is no such server, or it answers one of them with an error.
        """

    def disconnect(self) -> None:
        """Close all connections; `read` and `write` make new ones."""


class Standalone:
    """One server."""

    def __init__(self, server: RedisServer, make_connection: Callable[[RedisServer], PersistentConnection]) -> None:
        """Use `server`.

        :param make_connection: makes the connection to it.
        """
        self.database = server.login.database
        self.moved: Callable[[], None] = _ignore
        self._server = server
        self._connection = make_connection(server)

    async def connect(self, make_protocol: Callable[[], P]) -> P:
        """Connect a new protocol to the server."""
        return await self._server.connect(make_protocol)

    async def read(self, *command: object) -> object:
        """Send a command to the server, and return the answer."""
        return await self._connection.ask(command)

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Send commands to the server."""
        await self._connection.ask(*commands)

    def disconnect(self) -> None:
        """Close the connection."""
        self._connection.drop()


def _ignore() -> None:
    """Do nothing: the default for `moved`."""
