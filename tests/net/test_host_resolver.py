"""Looking up names, with a getaddrinfo that does what it is told."""

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
from livestate.documents.poller import Poller
from livestate.net.host_resolver import HostResolver
from livestate.sources.factory import make_source
from tests.support import log_lines, until

reactor: Any = _reactor


@implementer(IResolutionReceiver)
class Receiver:
    """Notes what it is told."""

    def __init__(self):
        self.events: list[Any] = []
        self.complete: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress):
        self.events.append("began")

    def addressResolved(self, address):
        self.events.append(address)

    def resolutionComplete(self):
        self.complete.callback(None)


class Resolver:
    """A getaddrinfo: it gives or raises `answer`, and while it is held, in its own time."""

    def __init__(self):
        self.answer: Any = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0
        self.running = 0

    def __call__(self, *_):
        self.asked += 1
        self.running += 1
        self.go_on.wait(20)
        self.running -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class NamesTests(TestCase):
    """The resolver by itself."""

    timeout = 20

    def setUp(self):
        self.resolver = Resolver()
        self.addCleanup(self.resolver.go_on.set)
        self.names = HostResolver(reactor, self.resolver)

    def ask(self, name="store.example", **more):
        receiver: Any = Receiver()
        resolution = self.names.resolveHostName(receiver, name, 80, **more)
        verifyObject(IHostResolution, resolution)
        self.assertEqual(resolution.name, name)
        return receiver, resolution

    def test_interface(self):
        """It is a resolver as Twisted knows it."""
        verifyObject(IHostnameResolver, self.names)

    async def test_found(self):
        """Each address that there is of the name is told of, with its port, of either family."""
        self.resolver.answer.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)))
        self.resolver.answer.append((socket.AF_UNIX, socket.SOCK_STREAM, 6, "", ()))
        receiver, _ = self.ask()
        await receiver.complete
        self.assertEqual(
            receiver.events, ["began", IPv4Address("TCP", "127.0.0.1", 80), IPv6Address("TCP", "::1", 80, 0, 0)]
        )

    async def test_asked_for(self):
        """getaddrinfo is asked for the family and the kind of socket that are wanted."""
        asked = []

        def getaddrinfo(*key):
            asked.append(key)
            return []

        self.names = HostResolver(reactor, getaddrinfo)
        for more in ({}, {"addressTypes": [IPv4Address]}, {"addressTypes": [IPv6Address], "transportSemantics": "UDP"}):
            await self.ask(**more)[0].complete
        families = socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6
        kinds = socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.assertEqual(asked, [("store.example", 80, *rest) for rest in zip(families, kinds, strict=True)])

    async def test_not_found(self):
        """Whatever goes wrong, the answer is that there is no address, and the next question is a new one."""
        for error in (
            socket.gaierror(-2, "Name or service not known"),
            OSError(24, "Too many open files"),
            UnicodeError(),
        ):
            self.resolver.answer = error
            receiver, _ = self.ask()
            await receiver.complete
            self.assertEqual(receiver.events, ["began"])
        self.assertEqual(self.resolver.asked, 3)

    async def test_shared(self):
        """Who asks for a name that is being looked up has the same answer; who has left is not told."""
        self.resolver.go_on.clear()
        (first, _), (left, leaving), (last, _) = self.ask(), self.ask(), self.ask()
        other, _ = self.ask("other.example")
        leaving.cancel()
        leaving.cancel()
        await until(reactor, lambda: self.resolver.running == 2)
        self.resolver.go_on.set()
        for receiver in (first, last, other):
            await receiver.complete
            self.assertEqual(len(receiver.events), 2)
        self.assertEqual((left.events, left.complete.called, self.resolver.asked), (["began"], False, 2))

    async def test_all_have_left(self):
        """A lookup that nobody waits for any more is not begun a second time beside itself."""
        self.resolver.go_on.clear()
        _, leaving = self.ask()
        leaving.cancel()
        receiver, _ = self.ask()
        self.resolver.go_on.set()
        await receiver.complete
        self.assertEqual(self.resolver.asked, 1)

    def test_addresses(self):
        """An address is no name: it is there at once, without a thread."""
        self.names = HostResolver(reactor)
        for address, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            receiver, _ = self.ask(address)
            self.successResultOf(receiver.complete)
            self.assertEqual([type(event) for event in receiver.events], [str, kind])


class OutageTests(TestCase):
    """A store behind a name."""

    timeout = 60

    def setUp(self):
        self.resolver = Resolver()
        self.addCleanup(self.resolver.go_on.set)
        before = reactor.installNameResolver(HostResolver(reactor, self.resolver))
        self.addCleanup(reactor.installNameResolver, before)
        root = Resource()
        root.putChild(b"", Data(b"1", "application/json"))
        self.port = reactor.listenTCP(0, Site(root, reactor=reactor), interface="127.0.0.1")
        number = self.port.getHost().port
        self.resolver.answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))]
        self.document = Document(reactor, "/", 1000)
        source = make_source(reactor, f"http://store.example:{number}/", 1000)
        self.poller = Poller(self.document, source, 0.05, reactor)
        self.addCleanup(lambda: ensureDeferred(self.end()))

    async def end(self):
        self.poller.stopService()
        await self.port.stopListening()
        await deferLater(reactor, 0.05)

    async def test_fails_and_comes_back(self):
        """While the name is not found that is one line of log; once it is, the document is there within 2 s."""
        good, self.resolver.answer = self.resolver.answer, socket.gaierror(-3, "Temporary failure in name resolution")
        with log_lines() as lines:
            self.poller.startService()
            await until(reactor, lambda: self.poller.stats.failures >= 4)
            self.assertEqual(len(lines), 1)
            self.assertIn("store.example", lines[0])
            began, self.resolver.answer = reactor.seconds(), good
            await until(reactor, lambda: self.document.snapshot is not None)
            self.assertLess(reactor.seconds() - began, 2)
        self.assertEqual(len(lines), 2)

    async def test_hangs(self):
        """A lookup that hangs keeps one thread however often the store is asked, and none of the reactor's."""
        self.resolver.go_on.clear()
        self.poller.startService()
        await until(reactor, lambda: self.poller.stats.failures >= 4)
        self.assertEqual((self.resolver.asked, self.resolver.running), (1, 1))
        self.assertEqual(await deferToThread(lambda: 1), 1)
        began = reactor.seconds()
        self.resolver.go_on.set()
        await until(reactor, lambda: self.document.snapshot is not None)
        self.assertLess(reactor.seconds() - began, 2)
