"""The HTTP source, against real servers on loopback."""

import base64
import functools
import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface.verify import verifyObject

from livestate.documents.document import Document
from livestate.errors import DocumentMissing, SourceError
from livestate.sources.api import ISource
from livestate.sources.factory import make_source
from livestate.sources.http.source import HTTPSource
from livestate.system.timeouts import with_timeout
from livestate.tls.contexts import server_options
from tests.polling import SinglePoller
from tests.support import Authority, log_lines, pem, until, written

reactor: Any = _reactor


class Origin(Resource):
    """A resource with a configurable response, which records the requests."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.status: int | None = 200
        self.fields = {}
        self.body = b'{"votes": 1}'
        self.etag = None
        self.requests = []

    def render(self, request):
        self.requests.append(request)
        self.channel = request.channel
        if self.status is None:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.fields.items():
            request.setHeader(name, value)
        if self.etag is not None and request.setETag(self.etag):
            return b""
        return self.body

    def last(self, name):
        return self.requests[-1].getHeader(name)


class Raw(Protocol):
    """Sends the same bytes to every client, and closes the connection."""

    def dataReceived(self, data):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.response)
        transport.loseConnection()


class Open(Protocol):
    """Answers every request with the same bytes, then sends `more` repeatedly, and leaves the connection open."""

    def dataReceived(self, data):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.response)
        if factory.more:
            transport.registerProducer(self, False)

    def resumeProducing(self):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.more)

    def stopProducing(self):
        pass


class HTTPTests(TestCase):
    """Fetching from servers that behave well, and from some that do not."""

    timeout = 20

    def setUp(self):
        self.origin = Origin()
        self.site = Site(self.origin, reactor=reactor)
        self.open = 0
        self.port = self.listen(self.site)

    def listen(self, factory, options=None):
        """Serve on loopback until the end of the test, when no connection may be open."""
        build = factory.buildProtocol

        def counting(address):
            protocol = build(address)
            lost = protocol.connectionLost
            self.open += 1

            def gone(reason):
                self.open -= 1
                return lost(reason)

            protocol.connectionLost = gone
            return protocol

        factory.buildProtocol = counting
        if options is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")

        async def stop():
            await port.stopListening()
            await until(reactor, lambda: self.open == 0)

        self.addCleanup(lambda: ensureDeferred(stop()))
        return port.getHost().port

    def source(self, target="/r.json?x=1", port=None, scheme="http", host="127.0.0.1", user="", max_size=1000):
        source = make_source(reactor, f"{scheme}://{user}{host}:{port or self.port}{target}", max_size)
        assert isinstance(source, HTTPSource)
        self.addCleanup(source.close)
        return source

    def fetch(self, source):
        """Fetch with a timeout."""
        return with_timeout(5.0, source.fetch(), reactor)

    async def refusal(self, source, kind=SourceError):
        """Fetch, and return the error message, which must be one line."""
        error = await self.assertFailure(self.fetch(source), kind)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_interface(self):
        """HTTPSource implements ISource, and its name is its URL."""
        source = self.source()
        verifyObject(ISource, source)
        self.assertEqual(str(source), f"http://127.0.0.1:{self.port}/r.json?x=1")

    async def test_get(self):
        """The request has the URL as it is written and accepts JSON, and the body is returned unchanged."""
        source = self.source("/a%20b/r.json?x=1&y=%2F#part")
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertEqual(self.origin.requests[0].uri, b"/a%20b/r.json?x=1&y=%2F")
        self.assertEqual(self.origin.last("accept"), "application/json")
        self.assertEqual(self.origin.last("host"), f"127.0.0.1:{self.port}")
        self.assertIsNone(self.origin.last("authorization"))

    async def test_one_connection(self):
        """Successive fetches use one connection, also after an error status."""
        source = self.source()
        for status in (200, 200, 404, 503, 200):
            self.origin.status = status
            try:
                await self.fetch(source)
            except SourceError:
                pass
            self.assertEqual(self.open, 1)

    async def test_conditional(self):
        """A request has the last entity tag, if there was one, and a 304 means the stored body."""
        source = self.source()
        self.origin.etag = b'"one"'
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertIsNone(self.origin.last("if-none-match"))
        self.origin.body = b"not sent"
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertEqual(self.origin.last("if-none-match"), '"one"')
        self.assertEqual(self.origin.requests[-1].code, 304)
        self.origin.etag, self.origin.body = b'"two"', b'{"votes": 2}'
        self.assertEqual(await self.fetch(source), b'{"votes": 2}')
        await self.fetch(source)
        self.assertEqual(self.origin.last("if-none-match"), '"two"')

    async def test_tag_withdrawn(self):
        """If the server stops sending tags, requests have none, and a 304 without a condition is refused."""
        source = self.source()
        self.origin.etag = b'"one"'
        await self.fetch(source)
        self.origin.etag, self.origin.body = None, b"2"
        self.assertEqual(await self.fetch(source), b"2")
        await self.fetch(source)
        self.assertIsNone(self.origin.last("if-none-match"))
        self.origin.status = 304
        self.assertIn("answered 304", await self.refusal(source))

    async def test_tag_survives_error(self):
        """An error in between changes neither the stored body nor its tag."""
        source = self.source()
        self.origin.etag = b'"one"'
        await self.fetch(source)
        self.origin.status, self.origin.etag, self.origin.body = 500, b'"error"', b"oops"
        await self.refusal(source)
        self.origin.status, self.origin.etag = 200, b'"one"'
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    async def test_missing(self):
        """404 and 410 raise DocumentMissing, other statuses SourceError."""
        source = self.source()
        for status in (404, 410):
            self.origin.status = status
            self.assertIn(str(status), await self.refusal(source, DocumentMissing))
        for status in (204, 400, 401, 403, 429, 500, 503):
            self.origin.status = status
            error = await self.assertFailure(self.fetch(source), SourceError)
            self.assertNotIsInstance(error, DocumentMissing)
            self.assertIn(f"answered {status}", str(error))

    async def test_redirect(self):
        """A redirect is not followed; the message has the new address without its password."""
        source = self.source()
        self.origin.fields = {b"Location": b"https://me:hush@other.example/new.json?next=%2Fr.json%3Ftoken%3Dhush"}
        for status in (301, 302, 303, 307, 308):
            self.origin.status = status
            text = await self.refusal(source)
            self.assertIn("https://me:***@other.example/new.json", text)
            self.assertNotIn("hush", text)
        self.assertEqual(len(self.origin.requests), 5)

    async def test_no_redirect_leads_elsewhere(self):
        """The other server cannot point livestate at another host, port, scheme or file."""
        elsewhere = Origin()
        port = self.listen(Site(elsewhere, reactor=reactor))
        secret = written(Path(self.mktemp()), b'["secret"]')
        self.origin.status, source = 302, self.source()
        for target in (
            f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", f"//127.0.0.1:{port}/", "/other.json", "",
            f"file://{secret}", f"redis://127.0.0.1:{port}/0", "demo:", "\xff\xfe", "\x1b[2J", "x" * 9000, "http://[", "javascript:0",
        ):  # fmt: skip
            before = len(self.origin.requests)
            self.origin.fields = {b"Location": target.encode("latin-1")}
            self.assertNotIn("secret", (await self.refusal(source)).replace(secret, ""))
            self.assertEqual(len(self.origin.requests), before + 1)
        self.assertEqual(elsewhere.requests, [])
        # Other fields that a browser would follow are ignored too.
        self.origin.status, self.origin.body = 200, b"[1]"
        self.origin.fields = {
            b"Refresh": f"0; url=http://127.0.0.1:{port}/".encode(),
            b"Alt-Svc": f'h2=":{port}"'.encode(),
        }
        self.assertEqual(await self.fetch(source), b"[1]")
        self.assertEqual(await self.fetch(source), b"[1]")
        self.assertEqual(elsewhere.requests, [])

    async def test_too_large(self):
        """A document of the maximum size is accepted, a larger one refused, and the next fetch works."""
        source = self.source(max_size=1000)
        self.origin.body = b"x" * 1000
        self.assertEqual(len(await self.fetch(source)), 1000)
        for size in (1001, 5_000_000):
            self.origin.body = b"x" * size
            self.assertIn("more than 1,000 bytes (--max-size)", await self.refusal(source))
        self.origin.body = b"1"
        self.assertEqual(await self.fetch(source), b"1")

    async def test_connection_refused(self):
        """A refused connection raises SourceError, and a fetch succeeds once the server is up."""
        port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        source = self.source(port=number)
        self.assertIn("refused", (await self.refusal(source)).lower())
        again = reactor.listenTCP(number, self.site, interface="127.0.0.1")
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        await again.stopListening()

    async def test_silent(self):
        """A fetch from a server that never answers can be cancelled, and the next fetch works."""
        source = self.source()
        self.origin.status = None
        for _ in range(2):
            waiting = Deferred.fromCoroutine(source.fetch())
            before = len(self.origin.requests)
            await until(reactor, functools.partial(self.more_requests_than, before))
            self.assertNoResult(waiting)
            waiting.cancel()
            self.failureResultOf(waiting)
        await until(reactor, lambda: self.open == 0)
        self.origin.status = 200
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    def more_requests_than(self, number):
        return len(self.origin.requests) > number

    async def test_restarted(self):
        """A persistent connection that the server closed meanwhile does not make a fetch fail."""
        source = self.source()
        await self.fetch(source)
        self.origin.channel.loseConnection()
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    async def test_nonsense(self):
        """A response that is not HTTP, incomplete or empty raises SourceError with one line."""
        for response in (
            b"",
            b"-ERR unknown command 'GET'\r\n",
            b"\x15\x03\x01\x00\x02\x02\x0a",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
            b"HTTP/9 what\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ):
            factory: Any = Factory.forProtocol(Raw)
            factory.response, factory.noisy = response, False
            source = self.source(port=self.listen(factory))
            self.assertTrue(await self.refusal(source), response)

    def listen_open(self, response, more=b"", options=None):
        """Serve `response` with `Open`, and return the factory and its port."""
        factory: Any = Factory.forProtocol(Open)
        factory.response, factory.more, factory.noisy = response, more, False
        return factory, self.listen(factory, options)

    async def test_cancelled_in_the_body(self):
        """A fetch that is cancelled while the body is being received leaves no connection open."""
        for response in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"\r\n{"):
            factory, port = self.listen_open(b"HTTP/1.1 200 OK\r\n" + response)
            source = self.source(port=port)
            for _ in range(3):
                await self.assertFailure(with_timeout(0.05, source.fetch(), reactor), DeferTimeout)
            await until(reactor, lambda: self.open == 0)

    async def test_cancelled_over_tls(self):
        """The same over TLS, where a silent server does not answer the close either."""
        authority, folder = Authority(), Path(self.mktemp())
        folder.mkdir()
        key, certificate = authority.issue("localhost")
        both = written(folder / "server.pem", pem(key, certificate))
        roots = written(folder / "roots.pem", pem(authority.certificate))
        response = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        factory, port = self.listen_open(response, options=server_options(both, both))
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": roots}):
            source = self.source(scheme="https", host="localhost", port=port)
            for _ in range(3):
                await self.assertFailure(with_timeout(0.2, source.fetch(), reactor), DeferTimeout)
        await until(reactor, lambda: self.open == 0)

    async def test_announced_too_large(self):
        """A Content-Length that is too large is refused before any of the body is received."""
        factory, port = self.listen_open(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        self.assertIn("more than 1,000 bytes", await self.refusal(self.source(port=port)))
        await until(reactor, lambda: self.open == 0)

    async def test_endless_head(self):
        """A response head that does not end is refused, and so are endless interim responses."""
        for response, more in (
            (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
            (b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b" folded\r\n" * 1000),
            (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ):
            factory, port = self.listen_open(response, more)
            self.assertEqual(await self.refusal(self.source(port=port)), "the response head is too long")
            await until(reactor, lambda: self.open == 0)

    async def test_interim(self):
        """A few interim responses (RFC 9110 section 15.2) before the final one are accepted."""
        response = (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        )
        factory, port = self.listen_open(response)
        self.assertEqual(await self.fetch(self.source(port=port)), b"{}")

    async def test_gzip(self):
        """A gzipped body is decompressed; one that is damaged, truncated, too large or in another coding is refused."""
        source = self.source(max_size=1_000_000)
        self.origin.fields = {"Content-Encoding": "gzip"}
        for body in (b"1", os.urandom(1_000_000)):
            self.origin.body = gzip.compress(body)
            self.assertEqual(await self.fetch(source), body)
        whole = gzip.compress(b"[" + b"1," * 10_000 + b"1]")
        for coding, body, reason in (
            ("gzip", whole[:-20], "damaged"),
            ("gzip", b"", "damaged"),
            ("gzip", b"[1]", "damaged"),
            ("gzip", whole[:20] + b"?" + whole[21:], "damaged"),
            ("br", whole, "not requested"),
            ("gzip, gzip", whole, "not requested"),
            ("gzip", gzip.compress(b"0" * 1_000_001), "more than 1,000,000 bytes"),
        ):
            self.origin.fields, self.origin.body = {"Content-Encoding": coding}, body
            self.assertIn(reason, await self.refusal(source))

    async def test_bomb(self):
        """A small body that decompresses to a huge one is not decompressed beyond the maximum size."""
        source = self.source(max_size=1_000_000)
        self.origin.fields, self.origin.body = {"Content-Encoding": "gzip"}, gzip.compress(bytes(200_000_000), 1)
        tracemalloc.start()
        try:
            self.assertIn("more than 1,000,000 bytes", await self.refusal(source))
            self.assertLess(tracemalloc.get_traced_memory()[1], 10_000_000)
        finally:
            tracemalloc.stop()

    async def test_odd_fields(self):
        """Non-ASCII header fields are accepted, and cookies are neither stored nor sent."""
        source = self.source()
        self.origin.fields = {"Set-Cookie": "a=b", "X-A": b"\xff"}
        for _ in range(2):
            await self.fetch(source)
        self.assertIsNone(self.origin.last("cookie"))
        self.origin.fields = {"Set-Cookie": b"\xe9=\xff"}
        await self.fetch(source)
        self.origin.status, self.origin.fields = 302, {"Location": b"http://\xe9/\x1b[31m"}
        self.assertIn("http://\ufffd/\ufffd[31m", await self.refusal(source))

    async def test_password(self):
        """A user and password in the URL are decoded and sent as Basic authentication, and never shown."""
        source = self.source(user="me:hu%2Fsh%40:%20x@")
        with log_lines() as lines:
            self.assertEqual(await self.fetch(source), b'{"votes": 1}')
            self.origin.status = 401
            text = await self.refusal(source)
        name, credentials = self.origin.last("authorization").split()
        self.assertEqual((name, base64.b64decode(credentials)), ("Basic", b"me:hu/sh@: x"))
        for shown in (str(source), repr(source), text, *lines):
            self.assertNotIn("hu%2Fsh", shown)
            self.assertNotIn("hu/sh", shown)
        self.assertIn("me:***@", str(source))

    async def test_tls(self):
        """Over TLS the certificate is verified against the roots in SSL_CERT_FILE, and its name against the host."""
        authority, folder = Authority(), Path(self.mktemp())
        folder.mkdir()
        key, certificate = authority.issue("localhost")
        both = written(folder / "server.pem", pem(key, certificate))
        port = self.listen(Site(self.origin, reactor=reactor), server_options(both, both))
        roots = written(folder / "roots.pem", pem(authority.certificate))
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": roots}):
            self.assertEqual(
                await self.fetch(self.source(scheme="https", host="localhost", port=port)), b'{"votes": 1}'
            )
            text = await self.refusal(self.source(scheme="https", port=port))
            self.assertIn("TLS failed", text)
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": both}):
            text = await self.refusal(self.source(scheme="https", host="localhost", port=port))
            self.assertIn("TLS failed", text)
            self.assertIn("certificate", text)

    async def test_polled(self):
        """When it is polled, the last document stays while the server is silent, and updates resume afterwards."""
        source = self.source()
        document = Document(reactor, "/", 1000)
        poller = SinglePoller(document, source, 0.1, reactor)
        poller.startService()
        await until(reactor, lambda: document.snapshot is not None)
        self.origin.status = None
        await until(reactor, lambda: poller.stats.error is not None)
        self.assertIn("no answer within", str(poller.stats.error))
        self.origin.status, self.origin.body = 200, b"2"
        await until(reactor, lambda: document.snapshot is not None and document.snapshot.body == b"2")
        poller.stopService()
