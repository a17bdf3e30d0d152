"""Resolving host names, with a getaddrinfo that the tests control."""

import socket
import threading
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer
from zope.interface.verify import verifyObject

from livestate.documents.document import Document
from livestate.net.host_resolver import HostResolver
from livestate.sources.factory import make_source
from tests.polling import SinglePoller
from tests.support import log_lines, until

reactor: Any = _reactor


@implementer(IResolutionReceiver)
class Receiver:
    """A resolution receiver that records its notifications."""

    def __init__(self):
        self.events: list[Any] = []
        self.complete: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress):
        self.events.append("began")

    def addressResolved(self, address):
        self.events.append(address)

    def resolutionComplete(self):
        self.complete.callback(None)


class FakeGetaddrinfo:
    """A getaddrinfo that returns or raises `answer`, and blocks while `go_on` is cleared."""

    def __init__(self):
        self.answer: Any = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
        self.go_on = threading.Event()
        self.go_on.set()
        self.calls = 0
        self.running = 0

    def __call__(self, *_):
        self.calls += 1
        self.running += 1
        self.go_on.wait(20)
        self.running -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class HostResolverTests(TestCase):
    """The resolver on its own."""

    timeout = 20

    def setUp(self):
        self.getaddrinfo = FakeGetaddrinfo()
        self.addCleanup(self.getaddrinfo.go_on.set)
        self.resolver = HostResolver(reactor, self.getaddrinfo)

    def resolve(self, name="store.example", **options):
        receiver: Any = Receiver()
        resolution = self.resolver.resolveHostName(receiver, name, 80, **options)
        verifyObject(IHostResolution, resolution)
        self.assertEqual(resolution.name, name)
        return receiver, resolution

    def test_interface(self):
        """The resolver provides Twisted's interface."""
        verifyObject(IHostnameResolver, self.resolver)

    async def test_found(self):
        """The receiver gets every IPv4 and IPv6 address of the name, with the port."""
        self.getaddrinfo.answer.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)))
        self.getaddrinfo.answer.append((socket.AF_UNIX, socket.SOCK_STREAM, 6, "", ()))
        receiver, _ = self.resolve()
        await receiver.complete
        self.assertEqual(
            receiver.events, ["began", IPv4Address("TCP", "127.0.0.1", 80), IPv6Address("TCP", "::1", 80, 0, 0)]
        )

    async def test_arguments(self):
        """getaddrinfo gets the requested address family and socket type."""
        calls = []

        def getaddrinfo(*key):
            calls.append(key)
            return []

        self.resolver = HostResolver(reactor, getaddrinfo)
        for options in (
            {},
            {"addressTypes": [IPv4Address]},
            {"addressTypes": [IPv6Address], "transportSemantics": "UDP"},
        ):
            await self.resolve(**options)[0].complete
        families = socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6
        types = socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.assertEqual(calls, [("store.example", 80, *rest) for rest in zip(families, types, strict=True)])

    async def test_not_found(self):
        """If the lookup fails in any way, there is no address, and the next request starts a new lookup."""
        for error in (
            socket.gaierror(-2, "Name or service not known"),
            OSError(24, "Too many open files"),
            UnicodeError(),
        ):
            self.getaddrinfo.answer = error
            receiver, _ = self.resolve()
            await receiver.complete
            self.assertEqual(receiver.events, ["began"])
        self.assertEqual(self.getaddrinfo.calls, 3)

    async def test_shared(self):
        """Requests for a name that is being looked up share the result; a cancelled one gets nothing."""
        self.getaddrinfo.go_on.clear()
        (first, _), (cancelled, resolution), (last, _) = self.resolve(), self.resolve(), self.resolve()
        other, _ = self.resolve("other.example")
        resolution.cancel()
        resolution.cancel()
        await until(reactor, lambda: self.getaddrinfo.running == 2)
        self.getaddrinfo.go_on.set()
        for receiver in (first, last, other):
            await receiver.complete
            self.assertEqual(len(receiver.events), 2)
        self.assertEqual((cancelled.events, cancelled.complete.called, self.getaddrinfo.calls), (["began"], False, 2))

    async def test_all_cancelled(self):
        """While a lookup runs whose requests were all cancelled, a new request does not start another."""
        self.getaddrinfo.go_on.clear()
        _, resolution = self.resolve()
        resolution.cancel()
        receiver, _ = self.resolve()
        self.getaddrinfo.go_on.set()
        await receiver.complete
        self.assertEqual(self.getaddrinfo.calls, 1)

    def test_addresses(self):
        """An IP address is resolved at once, without a thread."""
        self.resolver = HostResolver(reactor)
        for address, address_type in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            receiver, _ = self.resolve(address)
            self.successResultOf(receiver.complete)
            self.assertEqual([type(event) for event in receiver.events], [str, address_type])


class OutageTests(TestCase):
    """A store whose host name cannot be resolved for a while."""

    timeout = 60

    def setUp(self):
        self.getaddrinfo = FakeGetaddrinfo()
        self.addCleanup(self.getaddrinfo.go_on.set)
        previous = reactor.installNameResolver(HostResolver(reactor, self.getaddrinfo))
        self.addCleanup(reactor.installNameResolver, previous)
        root = Resource()
        root.putChild(b"", Data(b"1", "application/json"))
        self.port = reactor.listenTCP(0, Site(root, reactor=reactor), interface="127.0.0.1")
        number = self.port.getHost().port
        self.getaddrinfo.answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))]
        self.document = Document(reactor, "/", 1000)
        source = make_source(reactor, f"http://store.example:{number}/", 1000)
        self.poller = SinglePoller(self.document, source, 0.05, reactor)
        self.addCleanup(lambda: ensureDeferred(self.end()))

    async def end(self):
        self.poller.stopService()
        await self.port.stopListening()
        await deferLater(reactor, 0.05)

    async def test_fails_and_comes_back(self):
        """Failed lookups log one line; once one succeeds, the document arrives within 2 s."""
        good, self.getaddrinfo.answer = (
            self.getaddrinfo.answer,
            socket.gaierror(-3, "Temporary failure in name resolution"),
        )
        with log_lines() as lines:
            self.poller.startService()
            await until(reactor, lambda: self.poller.stats.failures >= 4)
            self.assertEqual(len(lines), 1)
            self.assertIn("store.example", lines[0])
            started, self.getaddrinfo.answer = reactor.seconds(), good
            await until(reactor, lambda: self.document.snapshot is not None)
            self.assertLess(reactor.seconds() - started, 2)
        self.assertEqual(len(lines), 2)

    async def test_hangs(self):
        """However often the store is polled, a lookup that hangs blocks one thread, and none of the reactor's."""
        self.getaddrinfo.go_on.clear()
        self.poller.startService()
        await until(reactor, lambda: self.poller.stats.failures >= 4)
        self.assertEqual((self.getaddrinfo.calls, self.getaddrinfo.running), (1, 1))
        self.assertEqual(await deferToThread(lambda: 1), 1)
        started = reactor.seconds()
        self.getaddrinfo.go_on.set()
        await until(reactor, lambda: self.document.snapshot is not None)
        self.assertLess(reactor.seconds() - started, 2)
