"""The login at a Redis."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SourceError
from livestate.sources.redis.connection import Login, RedisProtocol, RedisServer


class Endpoint:
    """Gives one connection, and keeps its other end."""

    def __init__(self):
        self.transport = StringTransport()

    async def connect(self, factory):
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return self.protocol


class LoginTests(SynchronousTestCase):
    """What is said of a login that is refused."""

    def refusal(self, password, answer):
        """Log in, be refused, and give what is said of it."""
        endpoint: Any = Endpoint()
        server = RedisServer(endpoint, Login("me", password))
        connecting = Deferred.fromCoroutine(server.connect(lambda: RedisProtocol(100)))
        self.assertIn(password.encode(), endpoint.transport.value())
        endpoint.protocol.dataReceived(answer)
        return str(self.failureResultOf(connecting, SourceError).value)

    def test_reason(self):
        """The server's reason is told."""
        self.assertIn("WRONGPASS", self.refusal("hush", b"-WRONGPASS invalid username-password pair\r\n"))

    def test_server_that_repeats_it(self):
        """A server that repeats the password in its answer, whole or cut short, does not bring it into the log."""
        long = "hush" * 50
        for answer in (
            b"-ERR unknown command 'AUTH', with args beginning with: 'me' 'hush' \r\n",
            b"-ERR no user me with password hush here\r\n",
        ):
            self.assertNotIn("hush", self.refusal("hush", answer))
        cut = f"-ERR unknown command 'AUTH', with args beginning with: 'me' '{long[:120]}\r\n".encode()
        self.assertNotIn("hush", self.refusal(long, cut))
