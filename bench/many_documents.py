"""What documents cost that no one asks for: `python -m bench.many_documents`.

It creates 10,000 Document objects with bodies of 2 KB behind one SiteService, without sources, and prints the time and
the memory that this takes, and the CPU time of an idle second. Then each document is requested once, and the same is
printed again. No other process and no network is involved.
"""

import argparse
import json
import resource
import time
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from livestate.config.settings import load_settings
from livestate.documents.document import Document
from livestate.system.logs import LogFiles
from livestate.web.site_service import SiteService

#: Seconds over which the CPU time is measured.
SECONDS = 5


class ServedDocument:
    """A document without a source."""

    __slots__ = ("document",)

    def __init__(self, document: Document) -> None:
        self.document = document

    def is_fresh(self) -> bool:
        """Return True."""
        return True


def body_of(number: int) -> bytes:
    """Return a document of about 2 KB."""
    return json.dumps({"number": number, "places": [f"{n * 7919 % 99991:05}" for n in range(220)]}).encode()


def resident() -> int:
    """Return the bytes of memory that this process occupies."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Measurement:
    """One run."""

    def __init__(self, reactor: Any, count: int) -> None:
        self._reactor = reactor
        self._count = count
        self._paths = [f"/wards/{number}.json" for number in range(count)]
        self._settings = load_settings({"http": ["tcp:0"], "source": [f"{path}=demo:" for path in self._paths]})
        # What is imported and cached once.
        SiteService(reactor, self._settings, self._documents(), LogFiles())

    def _documents(self) -> list[ServedDocument]:
        return [ServedDocument(Document(self._reactor, path, 2**24)) for path in self._paths]

    async def run(self) -> None:
        """Measure, and print the results."""
        self._start()
        served = self._documents()
        self._report("documents")
        for number, each in enumerate(served):
            await each.document.update(body_of(number))
        self._report("their first versions")
        service = SiteService(self._reactor, self._settings, served, LogFiles())
        service.startService()
        self._report("the site")
        await self._idle("no document was requested")
        self._start()
        for path in self._paths:
            self._request(service, path)
        self._report("one request each")
        await self._idle("each document was requested once")

    def _start(self) -> None:
        self._memory, self._time = resident(), time.process_time()

    def _report(self, what: str) -> None:
        memory, now = resident() - self._memory, time.process_time()
        print(f"{what}: {now - self._time:.2f} s of CPU, {memory / self._count:,.0f} bytes per document")
        self._start()

    async def _idle(self, when: str) -> None:
        await self._sleep(1.5)
        start = time.process_time()
        await self._sleep(SECONDS)
        cpu = (time.process_time() - start) / SECONDS
        print(f"an idle second after {when}: {cpu * 1000:.2f} ms of CPU")

    def _sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, done.callback, None)
        return done

    @staticmethod
    def _request(service: SiteService, path: str) -> None:
        address = IPv4Address("TCP", "192.0.2.1", 54321)
        channel: Any = service.site.buildProtocol(address)
        channel.makeConnection(StringTransport(peerAddress=address))
        channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n".encode("ascii"))
        assert channel.transport.value().startswith(b"HTTP/1.1 200 ")
        channel.connectionLost(None)


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000, metavar="N")
    count = parser.parse_args().documents
    from twisted.internet import reactor  # noqa: PLC0415  # the default reactor is enough

    measurement = Measurement(reactor, count)
    done = Deferred.fromCoroutine(measurement.run())
    done.addErrback(lambda failure: failure.printTraceback())
    done.addBoth(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main()
