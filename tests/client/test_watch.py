"""The iterator and the callback, by a real server of twisted.web on loopback."""

import gc
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from livestate.client import State, Watch, WatchError, subscribe, watch
from livestate.errors import SettingsError
from livestate.tls.contexts import server_options
from tests.client.test_follower import Server
from tests.support import Authority, log_lines, pem, until, written

reactor: Any = _reactor


class Origin(Resource):
    """A document and its events, told what to send; `open` are the streams."""

    def __init__(self):
        super().__init__()
        self.isLeaf = True
        self.open = []
        self.asked = []
        self.status = 200
        self.first: bytes | None = b'retry: 10\n\nid: 1\ndata: {"n": 1}\n\n'

    def render(self, request):
        self.asked.append(request)
        if not request.path.endswith(b"/events"):
            request.setResponseCode(self.status)
            return b'{"polled": true}'
        if self.first is None:
            request.setResponseCode(404)
            return b""
        request.setHeader("Content-Type", "text/event-stream")
        request.write(self.first)
        self.open.append(request)
        request.notifyFinish().addBoth(lambda _: self.open.remove(request))
        return NOT_DONE_YET

    def send(self, data):
        for request in self.open:
            request.write(data)


class Plain(Protocol):
    """Answers whatever comes as a server without TLS does."""

    def dataReceived(self, data):
        transport: Any = self.transport
        transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        transport.loseConnection()


class WatchCase(TestCase):
    """A server, and a look at what is left when it is over."""

    timeout = 20

    def setUp(self):
        self.origin = Origin()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.listen()}/r.json"

    def listen(self, options=None):
        site = Site(self.origin, reactor=reactor)
        build = site.buildProtocol

        def counting(address):
            protocol: Any = build(address)
            lost = protocol.connectionLost
            self.connections += 1

            def gone(reason):
                self.connections -= 1
                return lost(reason)

            protocol.connectionLost = gone
            return protocol

        site.buildProtocol = counting  # type: ignore[method-assign]
        if options is None:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, site, options, interface="127.0.0.1")

        async def stop():
            await port.stopListening()
            # trial itself fails a test that leaves a delayed call or a connection.
            await until(reactor, lambda: self.connections == 0)

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return port.getHost().port

    async def pause(self):
        """Let everything that is under way happen."""
        await deferLater(reactor, 0.05)


class IteratorTests(WatchCase):
    """`async for`."""

    async def test_break(self):
        """A loop over a watch that has no name ends cleanly with `break`: the connection goes, and nothing is left."""
        seen = []
        async for state in watch(self.url):
            seen.append(state)
            if len(seen) == 2:
                break
            self.origin.send(b'event: patch\nid: 2\ndata: {"n": 2}\n\n')
        self.assertEqual(
            seen,
            [State({"n": 1}, 1, None, None, "events"), State({"n": 2}, 2, None, {"n": 2}, "events")],
        )
        await until(reactor, lambda: self.connections == 0)

    async def test_with(self):
        """`async with` ends it, also where the block fails, and when it is over every connection is closed."""
        with self.assertRaises(ZeroDivisionError):
            async with watch(self.url) as states:
                async for state in states:
                    self.assertTrue(states.status.connected)
                    raise ZeroDivisionError(state)
        await self.pause()
        self.assertEqual(self.connections, 0)
        self.assertRaises(StopAsyncIteration, states.__anext__().send, None)

    async def test_close_while_waiting(self):
        """One who waits for the next state when it is ended is let go, and it can be ended twice."""
        states = watch(self.url)
        await states.__anext__()
        waiting = Deferred.fromCoroutine(states.__anext__())
        self.assertNoResult(waiting)
        with self.assertRaises(RuntimeError):
            await states.__anext__()
        await states.aclose()
        self.failureResultOf(waiting, StopAsyncIteration)
        await states.aclose()
        await self.pause()
        self.assertEqual(self.connections, 0)

    async def test_close_at_any_time(self):
        """It can be ended before it began, while it connects, before the answer and between two tries."""
        await watch(self.url).aclose()
        self.assertEqual(self.origin.asked, [])
        self.origin.first = b""
        for url, rest in ((self.url, 0.0), (self.url, 0.05), (f"http://127.0.0.1:{self.unused()}/", 0.05)):
            states = watch(url)
            waiting = Deferred.fromCoroutine(states.__anext__())
            await deferLater(reactor, rest)
            await states.aclose()
            self.failureResultOf(waiting, StopAsyncIteration)
        await self.pause()
        self.assertEqual(self.connections, 0)

    def unused(self):
        port = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        number = port.getHost().port
        self.addCleanup(lambda: None)
        port.stopListening()
        return number

    async def test_cancelled(self):
        """A reader that is cancelled leaves nothing open."""

        async def read():
            async with watch(self.url) as states:
                async for _ in states:
                    pass

        reading = Deferred.fromCoroutine(read())
        await until(reactor, lambda: self.origin.open)
        await self.pause()
        reading.cancel()
        await reading.addErrback(lambda _: None)
        await self.pause()
        self.assertEqual(self.connections, 0)

    async def test_newest(self):
        """One who is slow gets the newest state, without a patch that would not fit, and nothing is queued."""
        async with watch(self.url) as states:
            await states.__anext__()
            for n in range(2, 500):
                self.origin.send(b'event: patch\nid: %d\ndata: {"n": %d}\n\n' % (n, n))
            await self.pause()
            self.assertEqual(await states.__anext__(), State({"n": 499}, 499, None, None, "events"))
            self.origin.send(b'event: patch\nid: 500\ndata: {"n": 500}\n\n')
            self.assertEqual(await states.__anext__(), State({"n": 500}, 500, None, {"n": 500}, "events"))

    async def test_error(self):
        """404 is raised once, after which it is over; everything is closed by itself."""
        self.origin.first, self.origin.status = None, 404
        states = watch(self.url)
        with self.assertRaises(WatchError) as raised:
            await states.__anext__()
        self.assertEqual(str(raised.exception), f"{self.url}: answered 404")
        self.assertEqual([state async for state in states], [])

    async def test_error_after_a_state(self):
        """A state that came before an error is given before it."""
        states = watch(self.url)
        await states.__anext__()
        self.origin.send(b"id: 2\ndata: 2\n\n")
        await self.pause()
        self.origin.first, self.origin.status = None, 404
        for request in list(self.origin.open):
            request.finish()
        await until(reactor, lambda: self.connections == 0 and len(self.origin.asked) == 3)
        self.assertEqual((await states.__anext__()).value, 2)
        with self.assertRaises(WatchError):
            await states.__anext__()
        await states.aclose()

    async def test_forgotten(self):
        """A thousand watches that were begun and forgotten leave no objects behind."""

        async def once():
            async for _ in watch(self.url):
                break

        def alive():
            gc.collect()
            return sum(str(type(thing).__module__).startswith("livestate.client") for thing in gc.get_objects())

        for _ in range(5):
            await once()
        await until(reactor, lambda: self.connections == 0)
        before = alive()
        for _ in range(50):
            await once()
        await until(reactor, lambda: self.connections == 0)
        self.assertLessEqual(alive(), before)

    async def test_login_and_headers(self):
        """The user and password of the URL, and what headers are given, go with every request."""
        url = self.url.replace("//", "//user:pass@")
        self.origin.first = None
        async with watch(url, headers={"X-Token": "abc"}) as states:
            await states.__anext__()
        self.assertEqual(len(self.origin.asked), 2)
        for request in self.origin.asked:
            self.assertEqual((request.getUser(), request.getPassword()), (b"user", b"pass"))
            self.assertEqual(request.getHeader("X-Token"), "abc")


class ReconnectTests(WatchCase):
    """What is left of connections that are gone."""

    number = 1

    async def reconnect(self, states, times):
        """Have the stream end and come back so many times, and count what is held after that."""
        for _ in range(times):
            self.number += 1
            count = len(self.origin.asked)
            self.origin.first = b"retry: 1\n\nid: %d\ndata: %d\n\n" % (self.number, self.number)
            states._follower._backoff.first = 0.002
            for request in list(self.origin.open):
                request.finish()
            self.assertEqual((await states.__anext__()).value, self.number)
            self.assertEqual(len(self.origin.asked), count + 1)
        self.origin.asked = self.origin.asked[-1:]
        await self.pause()
        gc.collect()
        return len(gc.get_objects())

    async def assert_nothing_piles_up(self, url, **options):
        async with watch(url, **options) as states:
            await states.__anext__()
            before = await self.reconnect(states, 10)
            self.assertLess(await self.reconnect(states, 150) - before, 150)

    async def test_http(self):
        """After 160 reconnects no more is held than after ten."""
        await self.assert_nothing_piles_up(self.url)

    async def test_https(self):
        """The same over TLS."""
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority()
        both = written(folder / "server.pem", pem(*authority.issue("localhost")))
        port = self.listen(server_options(both, both))
        cafile = written(folder / "ca.pem", pem(authority.certificate))
        await self.assert_nothing_piles_up(f"https://localhost:{port}/", cafile=cafile)


class TLSTests(WatchCase):
    """Certificates."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        key, certificate = self.authority.issue("localhost")
        both = written(self.folder / "server.pem", pem(key, certificate))
        self.port = self.listen(server_options(both, both))
        self.cafile = written(self.folder / "ca.pem", pem(self.authority.certificate))

    async def test_trusted(self):
        """A certificate of the authority in `cafile` is trusted."""
        async with watch(f"https://localhost:{self.port}/", cafile=self.cafile) as states:
            self.assertEqual((await states.__anext__()).value, {"n": 1})

    async def test_not_trusted(self):
        """One that nobody vouches for, another authority's, or for another name is an error, not tried again."""
        other = written(self.folder / "other.pem", pem(Authority("other").certificate))
        for host, cafile in (("localhost", None), ("localhost", other), ("127.0.0.1", self.cafile)):
            states = watch(f"https://{host}:{self.port}/", cafile=cafile)
            with self.assertRaises(WatchError) as raised:
                await states.__anext__()
            self.assertIn("certificate", str(raised.exception))
            await states.aclose()
            self.assertEqual(len(str(raised.exception).splitlines()), 1)
        self.assertEqual(self.origin.asked, [])

    async def test_no_tls(self):
        """A server that does not speak TLS on that port is an error."""
        port = reactor.listenTCP(0, Factory.forProtocol(Plain), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with self.assertRaises(WatchError) as raised:
            await watch(f"https://localhost:{port.getHost().port}/", cafile=self.cafile).__anext__()
        self.assertIn("TLS failed", str(raised.exception))

    async def test_silent(self):
        """A server that no longer takes part, not even in a goodbye, is left all the same."""
        async with watch(f"https://localhost:{self.port}/", cafile=self.cafile) as states:
            await states.__anext__()
            for request in self.origin.open:
                request.transport.pauseProducing()
        for request in list(self.origin.open):
            request.transport.resumeProducing()


class SubscribeTests(WatchCase):
    """The callback form."""

    async def test_states(self):
        """It is called with each state, in order, none left out, until it is stopped."""
        seen: list[Any] = []
        stop = subscribe(self.url, lambda state: seen.append(state.value))
        await until(reactor, lambda: seen)
        self.origin.send(b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(2, 40)))
        await until(reactor, lambda: 39 in seen)
        self.assertEqual(seen, [{"n": 1}, *range(2, 40)])
        await stop()
        self.origin.send(b"id: 99\ndata: 99\n\n")
        await self.pause()
        self.assertEqual((seen[-1], self.connections), (39, 0))

    async def test_stop_inside(self):
        """It can be stopped from inside of the callback."""
        seen = []

        def callback(state):
            seen.append(state.value)
            stop()

        self.origin.first = b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"
        stop = subscribe(self.url, callback)
        await until(reactor, lambda: seen)
        await until(reactor, lambda: self.connections == 0)
        self.assertEqual(seen, [1])

    async def test_failing_callback(self):
        """A callback that fails is logged with its traceback, and called on."""
        seen: list[Any] = []

        def callback(state):
            seen.append(state.value)
            raise ZeroDivisionError

        stop = subscribe(self.url, callback)
        await until(reactor, lambda: seen)
        self.origin.send(b"id: 2\ndata: 2\n\n")
        await until(reactor, lambda: 2 in seen)
        await stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    async def test_error(self):
        """What ends it is given to `on_error`, once, and without one it is logged as a line."""
        self.origin.first, self.origin.status = None, 404
        errors: list[WatchError] = []
        subscribe(self.url, self.fail, on_error=errors.append)
        await until(reactor, lambda: errors)
        with log_lines(LogLevel.error) as lines:
            subscribe(self.url, self.fail)
            await until(reactor, lambda: lines)
        await self.pause()
        self.assertEqual(
            ([str(error) for error in errors], lines), ([f"{self.url}: answered 404"], [f"{self.url}: answered 404"])
        )


class ArgumentsTests(SynchronousTestCase):
    """What is refused before anything is asked."""

    def test_wrong(self):
        """A URL that is none, or a file that has no certificates, is said at once, without a password."""
        for url in (
            "nonsense",
            "ftp://h/",
            "http://",
            "http://h:port/",
            "http://h:0/",
            "http://[::1/",
            "//h/",
            "http://ü/",
        ):
            self.assertRaises(SettingsError, watch, url)
        error = self.assertRaises(SettingsError, watch, "ftp://user:hush@h/")
        self.assertNotIn("hush", str(error))
        self.assertRaises(SettingsError, watch, "https://h/", cafile="missing.pem")

    def test_agent(self):
        """The requests can be made by another agent, and a watch that is not iterated asks nothing."""
        server = Server()
        states = watch("http://h/", reactor=reactor, agent=server)
        self.assertIsInstance(states, Watch)
        self.assertEqual(server.asked, [])
