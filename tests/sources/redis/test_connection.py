"""Logging in to Redis."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SourceError
from livestate.sources.redis.connection import Login, RedisProtocol, RedisServer


class Endpoint:
    """A fake endpoint with one connection."""

    def __init__(self):
        self.transport = StringTransport()

    async def connect(self, factory):
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return self.protocol


class LoginTests(SynchronousTestCase):
    """The error message for a rejected login."""

    def refusal(self, password, answer):
        """Log in, answer with an error, and return the error message."""
        endpoint: Any = Endpoint()
        server = RedisServer(endpoint, Login("me", password))
        connecting = Deferred.fromCoroutine(server.connect(lambda: RedisProtocol(100)))
        self.assertIn(password.encode(), endpoint.transport.value())
        endpoint.protocol.dataReceived(answer)
        return str(self.failureResultOf(connecting, SourceError).value)

    def test_reason(self):
        """The message has the server's reason."""
        self.assertIn("WRONGPASS", self.refusal("hush", b"-WRONGPASS invalid username-password pair\r\n"))

    def test_repeated_password(self):
        """If the server repeats the password in its answer, whole or truncated, the message does not contain it."""
        long = "hush" * 50
        for answer in (
            b"-ERR unknown command 'AUTH', with args beginning with: 'me' 'hush' \r\n",
            b"-ERR no user me with password hush here\r\n",
        ):
            self.assertNotIn("hush", self.refusal("hush", answer))
        truncated = f"-ERR unknown command 'AUTH', with args beginning with: 'me' '{long[:120]}\r\n".encode()
        self.assertNotIn("hush", self.refusal(long, truncated))
