"""A connection to one Redis that is kept for the next time."""

from functools import partial

from livestate.sources.redis.connection import RedisProtocol, RedisServer


class PersistentConnection:
    """Asks one server, on the connection of the last time where that is still good."""

    def __init__(self, server: RedisServer, max_size: int) -> None:
        """Prepare to connect to `server`.

        :param max_size: the most bytes a value may have.
        """
        self._server = server
        self._make = partial(RedisProtocol, max_size)
        self._protocol: RedisProtocol | None = None

    async def ask(self, *commands: tuple[object, ...]) -> object:
        """Give these commands, on the kept connection or a new one, and give the last one's answer.

        After any failure, a cancelled wait included, the connection is kept no longer, which also ends a transaction
        that was begun on it.

        :raises SourceError: no connection, it was lost, or Redis refuses.
        """
        try:
            if self._protocol is None or not self._protocol.connected:
                self._protocol = await self._server.connect(self._make)
            protocol = self._protocol
            answer: object = None
            for command in commands:
                answer = await protocol.ask(*command)
            return answer
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Keep no connection; the next question makes a new one."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.abort()
