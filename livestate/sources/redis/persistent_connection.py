"""A connection to one Redis that stays open between requests."""

from functools import partial

from livestate.sources.redis.connection import RedisProtocol, RedisServer, UnusableValue


class PersistentConnection:
    """Sends commands to one server, on the previous connection as long as it is good."""

    def __init__(self, server: RedisServer, max_size: int) -> None:
        """Prepare to connect to `server`.

        :param max_size: the maximum size of a value in bytes.
        """
        self._server = server
        self._make_protocol = partial(RedisProtocol, max_size)
        self._protocol: RedisProtocol | None = None

    async def ask(self, *commands: tuple[object, ...]) -> object:
        """Send commands, on the open connection or a new one, and return the answer to the last one.

        After any failure that is not about a value, cancellation included, the connection is dropped. This also ends a
        transaction that was begun on it.

        :raises SourceError: when connecting fails, the connection is lost, or Redis answers with an error.
        """
        try:
            if self._protocol is None or not self._protocol.connected:
                self._protocol = await self._open()
            protocol = self._protocol
            answer: object = None
            for command in commands:
                answer = await protocol.ask(*command)
            return answer
        except BaseException as error:
            if not (isinstance(error, UnusableValue) and error.connected and len(commands) == 1):
                self.drop()
            raise

    async def _open(self) -> RedisProtocol:
        """Return a new connection."""
        return await self._server.connect(self._make_protocol)

    def drop(self) -> None:
        """Close the connection; the next `ask` makes a new one."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.abort()
