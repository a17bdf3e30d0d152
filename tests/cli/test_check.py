"""Passwords in the arguments of `livestate check` and of the command line are not printed."""

import io
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from livestate.cli.check import check_url
from livestate.cli.main import main
from livestate.errors import LivestateError

reactor: Any = _reactor


class Protected(Resource):
    """Requires a password."""

    isLeaf = True

    def render(self, request):
        if (request.getUser(), request.getPassword()) != (b"me", b"hu:sh"):
            request.setResponseCode(401)
            return b""
        request.setHeader("Content-Type", "application/json")
        return b"[1]"


class PasswordTests(TestCase):
    """`livestate check` against a server that requires a login."""

    timeout = 30

    async def test_login(self):
        """The user and the password are sent but not printed, whether the server is up or down."""
        port = reactor.listenTCP(0, Site(Protected(), reactor=reactor), interface="127.0.0.1")
        url = f"http://me:hu%3Ash@127.0.0.1:{port.getHost().port}/r.json?token=hush"
        output = io.StringIO()
        await check_url(reactor, url, None, output)
        self.assertIn("answered 200", output.getvalue())
        await port.stopListening()
        error = await self.assertFailure(Deferred.fromCoroutine(check_url(reactor, url, None, output)), LivestateError)
        for text in (output.getvalue(), str(error)):
            self.assertNotRegex(text, "hu(%3A|:)sh|hush")


class CommandLineTests(SynchronousTestCase):
    """Invalid arguments."""

    def test_extra_argument(self):
        """An extra or invalid argument is reported without the password in it."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        for arguments in (["check", "http://a/", "http://me:hush@b/"], ["watch", "http://me:hush@b/", "--count=x"]):
            self.assertRaises(SystemExit, main, arguments)
        self.assertIn("***", errors.getvalue())
        self.assertNotIn("hush", errors.getvalue())
