"""A document that another server gives, by a real one of twisted.web on loopback."""

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
from livestate.documents.poller import Poller
from livestate.errors import DocumentMissing, SourceError
from livestate.sources.api import ISource
from livestate.sources.factory import make_source
from livestate.sources.http.source import HTTPSource
from livestate.system.timeouts import with_timeout
from livestate.tls.contexts import server_options
from tests.support import Authority, log_lines, pem, until, written

reactor: Any = _reactor


class Origin(Resource):
    """Answers as it is told, and remembers what it was asked."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.status: int | None = 200
        self.fields = {}
        self.body = b'{"votes": 1}'
        self.etag = None
        self.asked = []

    def render(self, request):
        self.asked.append(request)
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
        return self.asked[-1].getHeader(name)


class Raw(Protocol):
    """Says one thing to whoever connects, and closes."""

    def dataReceived(self, data):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.says)
        transport.loseConnection()


class Open(Protocol):
    """Says one thing to whoever asks, and more each moment if there is more, and leaves the connection open."""

    def dataReceived(self, data):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.says)
        if factory.more:
            transport.registerProducer(self, False)

    def resumeProducing(self):
        transport: Any = self.transport
        factory: Any = self.factory
        transport.write(factory.more)

    def stopProducing(self):
        pass


class HTTPTests(TestCase):
    """Against a server that behaves, and ones that do not."""

    timeout = 20

    def setUp(self):
        self.origin = Origin()
        self.site = Site(self.origin, reactor=reactor)
        self.open = 0
        self.port = self.listen(self.site)

    def listen(self, factory, options=None):
        """Serve on loopback until the end of the test, when no connection may be left."""
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
        """Fetch within the time that a beat of a second gives."""
        return with_timeout(5.0, source.fetch(), reactor)

    async def refusal(self, source, kind=SourceError):
        """Fetch in vain, and give the one line that says why."""
        error = await self.assertFailure(self.fetch(source), kind)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_interface(self):
        """It is a source as livestate knows it, and names itself by its URL."""
        source = self.source()
        verifyObject(ISource, source)
        self.assertEqual(str(source), f"http://127.0.0.1:{self.port}/r.json?x=1")

    async def test_get(self):
        """The URL is asked for as it is written, as JSON, and the body is given as it is."""
        source = self.source("/a%20b/r.json?x=1&y=%2F#part")
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertEqual(self.origin.asked[0].uri, b"/a%20b/r.json?x=1&y=%2F")
        self.assertEqual(self.origin.last("accept"), "application/json")
        self.assertEqual(self.origin.last("host"), f"127.0.0.1:{self.port}")
        self.assertIsNone(self.origin.last("authorization"))

    async def test_one_connection(self):
        """Fetches in turn use one connection, those after a refusal too."""
        source = self.source()
        for status in (200, 200, 404, 503, 200):
            self.origin.status = status
            try:
                await self.fetch(source)
            except SourceError:
                pass
            self.assertEqual(self.open, 1)

    async def test_conditional(self):
        """A server that gives entity tags is asked with the last one, and its 304 means the bytes that are kept."""
        source = self.source()
        self.origin.etag = b'"one"'
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertIsNone(self.origin.last("if-none-match"))
        self.origin.body = b"not sent"
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        self.assertEqual(self.origin.last("if-none-match"), '"one"')
        self.assertEqual(self.origin.asked[-1].code, 304)
        self.origin.etag, self.origin.body = b'"two"', b'{"votes": 2}'
        self.assertEqual(await self.fetch(source), b'{"votes": 2}')
        await self.fetch(source)
        self.assertEqual(self.origin.last("if-none-match"), '"two"')

    async def test_tag_withdrawn(self):
        """Where the server stops giving tags, it is asked without one, and a 304 that nobody asked for is refused."""
        source = self.source()
        self.origin.etag = b'"one"'
        await self.fetch(source)
        self.origin.etag, self.origin.body = None, b"2"
        self.assertEqual(await self.fetch(source), b"2")
        await self.fetch(source)
        self.assertIsNone(self.origin.last("if-none-match"))
        self.origin.status = 304
        self.assertIn("answered 304", await self.refusal(source))

    async def test_tag_survives_trouble(self):
        """An error in between does not make the kept bytes and their tag come apart."""
        source = self.source()
        self.origin.etag = b'"one"'
        await self.fetch(source)
        self.origin.status, self.origin.etag, self.origin.body = 500, b'"error"', b"oops"
        await self.refusal(source)
        self.origin.status, self.origin.etag = 200, b'"one"'
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    async def test_missing(self):
        """404 and 410 say that the document is missing; other errors, that the server is in trouble."""
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
        """A redirect is not followed, and the new address is named, without its password."""
        source = self.source()
        self.origin.fields = {b"Location": b"https://me:hush@other.example/new.json?next=%2Fr.json%3Ftoken%3Dhush"}
        for status in (301, 302, 303, 307, 308):
            self.origin.status = status
            text = await self.refusal(source)
            self.assertIn("https://me:***@other.example/new.json", text)
            self.assertNotIn("hush", text)
        self.assertEqual(len(self.origin.asked), 5)

    async def test_no_redirect_leads_elsewhere(self):
        """The other server can point livestate at no other host, port, scheme or file."""
        elsewhere = Origin()
        port = self.listen(Site(elsewhere, reactor=reactor))
        secret = written(Path(self.mktemp()), b'["secret"]')
        self.origin.status, source = 302, self.source()
        for target in (
            f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", f"//127.0.0.1:{port}/", "/other.json", "",
            f"file://{secret}", f"redis://127.0.0.1:{port}/0", "demo:", "\xff\xfe", "\x1b[2J", "x" * 9000, "http://[", "javascript:0",
        ):  # fmt: skip
            asked = len(self.origin.asked)
            self.origin.fields = {b"Location": target.encode("latin-1")}
            self.assertNotIn("secret", (await self.refusal(source)).replace(secret, ""))
            self.assertEqual(len(self.origin.asked), asked + 1)
        self.assertEqual(elsewhere.asked, [])
        # Nor by what a browser would follow too.
        self.origin.status, self.origin.body = 200, b"[1]"
        self.origin.fields = {
            b"Refresh": f"0; url=http://127.0.0.1:{port}/".encode(),
            b"Alt-Svc": f'h2=":{port}"'.encode(),
        }
        self.assertEqual(await self.fetch(source), b"[1]")
        self.assertEqual(await self.fetch(source), b"[1]")
        self.assertEqual(elsewhere.asked, [])

    async def test_too_large(self):
        """A document may have as many bytes as are allowed; of a larger one no more is read, and all goes on after."""
        source = self.source(max_size=1000)
        self.origin.body = b"x" * 1000
        self.assertEqual(len(await self.fetch(source)), 1000)
        for size in (1001, 5_000_000):
            self.origin.body = b"x" * size
            self.assertIn("more than 1,000 bytes (--max-size)", await self.refusal(source))
        self.origin.body = b"1"
        self.assertEqual(await self.fetch(source), b"1")

    async def test_connection_refused(self):
        """A server that is not there is one line, and is fetched from when it is there."""
        port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        source = self.source(port=number)
        self.assertIn("refused", (await self.refusal(source)).lower())
        again = reactor.listenTCP(number, self.site, interface="127.0.0.1")
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')
        await again.stopListening()

    async def test_silent(self):
        """A server that takes the connection and never answers is called off, and the next fetch works."""
        source = self.source()
        self.origin.status = None
        for _ in range(2):
            waiting = Deferred.fromCoroutine(source.fetch())
            asked = len(self.origin.asked)
            await until(reactor, functools.partial(self.asked_more_than, asked))
            self.assertNoResult(waiting)
            waiting.cancel()
            self.failureResultOf(waiting)
        await until(reactor, lambda: self.open == 0)
        self.origin.status = 200
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    def asked_more_than(self, times):
        return len(self.origin.asked) > times

    async def test_restarted(self):
        """A kept connection that the server has closed meanwhile costs no fetch."""
        source = self.source()
        await self.fetch(source)
        self.origin.channel.loseConnection()
        self.assertEqual(await self.fetch(source), b'{"votes": 1}')

    async def test_nonsense(self):
        """What is not HTTP, ends too early or says nothing is a SourceError of one line, never a fault."""
        for says in (
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
            factory.says, factory.noisy = says, False
            source = self.source(port=self.listen(factory))
            self.assertTrue(await self.refusal(source), says)

    def listen_open(self, says, more=b"", options=None):
        """Serve an `Open` that says `says`, and give it and its port."""
        factory: Any = Factory.forProtocol(Open)
        factory.says, factory.more, factory.noisy = says, more, False
        return factory, self.listen(factory, options)

    async def test_called_off_in_the_body(self):
        """A fetch that is called off while the body is being received leaves no connection."""
        for says in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"\r\n{"):
            factory, port = self.listen_open(b"HTTP/1.1 200 OK\r\n" + says)
            source = self.source(port=port)
            for _ in range(3):
                await self.assertFailure(with_timeout(0.05, source.fetch(), reactor), DeferTimeout)
            await until(reactor, lambda: self.open == 0)

    async def test_called_off_over_tls(self):
        """The same over TLS, where a server that says nothing more does not say good-bye either."""
        authority, folder = Authority(), Path(self.mktemp())
        folder.mkdir()
        key, certificate = authority.issue("localhost")
        both = written(folder / "server.pem", pem(key, certificate))
        roots = written(folder / "roots.pem", pem(authority.certificate))
        says = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        factory, port = self.listen_open(says, options=server_options(both, both))
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": roots}):
            source = self.source(scheme="https", host="localhost", port=port)
            for _ in range(3):
                await self.assertFailure(with_timeout(0.2, source.fetch(), reactor), DeferTimeout)
        await until(reactor, lambda: self.open == 0)

    async def test_announced_too_large(self):
        """A body that is announced to be too large is refused there and then, before any of it has come."""
        factory, port = self.listen_open(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        self.assertIn("more than 1,000 bytes", await self.refusal(self.source(port=port)))
        await until(reactor, lambda: self.open == 0)

    async def test_endless_head(self):
        """An answer whose head has no end is given up, as is one that never comes to the point."""
        for says, more in (
            (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
            (b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b" folded\r\n" * 1000),
            (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ):
            factory, port = self.listen_open(says, more)
            self.assertEqual(await self.refusal(self.source(port=port)), "the head of its answer has no end")
            await until(reactor, lambda: self.open == 0)

    async def test_interim(self):
        """A few interim answers (RFC 9110 section 15.2) before the answer itself are nothing."""
        says = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        factory, port = self.listen_open(says)
        self.assertEqual(await self.fetch(self.source(port=port)), b"{}")

    async def test_gzip(self):
        """A body in gzip is undone; one that is damaged, cut short, in another coding or a bomb is refused."""
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
            ("br", whole, "not asked for"),
            ("gzip, gzip", whole, "not asked for"),
            ("gzip", gzip.compress(b"0" * 1_000_001), "more than 1,000,000 bytes"),
        ):
            self.origin.fields, self.origin.body = {"Content-Encoding": coding}, body
            self.assertIn(reason, await self.refusal(source))

    async def test_bomb(self):
        """Of a small body that becomes a large one no more is made than is wanted."""
        source = self.source(max_size=1_000_000)
        self.origin.fields, self.origin.body = {"Content-Encoding": "gzip"}, gzip.compress(bytes(200_000_000), 1)
        tracemalloc.start()
        try:
            self.assertIn("more than 1,000,000 bytes", await self.refusal(source))
            self.assertLess(tracemalloc.get_traced_memory()[1], 10_000_000)
        finally:
            tracemalloc.stop()

    async def test_odd_fields(self):
        """Fields that are not ASCII are no fault, and a cookie is neither kept nor given back."""
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
        """A user and password in the URL are sent decoded, as Basic authentication, and stand in no text."""
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
        """Over TLS the certificate is verified against the roots in SSL_CERT_FILE, and its name against the host's."""
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
        """Polled, it serves through a server's silence and comes back by itself."""
        source = self.source()
        document = Document(reactor, "/", 1000)
        poller = Poller(document, source, 0.1, reactor)
        poller.startService()
        await until(reactor, lambda: document.snapshot is not None)
        self.origin.status = None
        await until(reactor, lambda: poller.stats.error is not None)
        self.assertIn("no answer within", str(poller.stats.error))
        self.origin.status, self.origin.body = 200, b"2"
        await until(reactor, lambda: document.snapshot is not None and document.snapshot.body == b"2")
        poller.stopService()
