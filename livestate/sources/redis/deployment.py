"""The ways in which Redis is deployed, for one key: one server, or several of which one is to be asked.

The other modules: `redis_sentinel`, `redis_cluster`.
"""

from collections.abc import Callable
from typing import Protocol

from livestate.sources.redis.connection import P, RedisServer
from livestate.sources.redis.persistent_connection import PersistentConnection


class Deployment(Protocol):
    """Where one key is."""

    #: The number of the database.
    database: int
    #: Called when the key is read from another server than that which `connect` gave last.
    moved: Callable[[], None]

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes to the server that the key is read from, and log in.

        :raises SourceError: there is none.
        """

    async def read(self, *command: object) -> object:
        """Ask for the key.

        :raises SourceError: no server has an answer.
        """

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Give these commands, in their order, on one connection to the server that takes writes.

        :raises SourceError: there is none, or it refuses one of them.
        """

    def disconnect(self) -> None:
        """Drop all connections; `read` and `write` make new ones."""


class Standalone:
    """One server."""

    def __init__(self, server: RedisServer, max_size: int) -> None:
        """Ask `server`.

        :param max_size: the most bytes a value may have.
        """
        self.database = server.login.database
        self.moved: Callable[[], None] = _nothing
        self._server = server
        self._kept = PersistentConnection(server, max_size)

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes."""
        return await self._server.connect(make)

    async def read(self, *command: object) -> object:
        """Ask the server."""
        return await self._kept.ask(command)

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Give these commands to the server."""
        await self._kept.ask(*commands)

    def disconnect(self) -> None:
        """Drop the connection."""
        self._kept.drop()


def _nothing() -> None:
    """Stand where nobody listens."""
