"""Responses from the response memo are always current."""

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.logs import LogFile
from livestate.web.http1 import response_memo
from tests.web.http1.test_channel import BODY, Pair, request


def dateless(data: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]*", b"", data)


class ResponseMemoTests(SynchronousTestCase):
    """One site, and a channel on it."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.site = self.pair.site
        self.channel, self.transport = self.pair.fast()
        self.poll = request(b"If-None-Match: " + self.pair.etags[0])

    def send(self, data: bytes) -> bytes:
        """Send `data`, and return the response."""
        self.transport.clear()
        self.channel.dataReceived(data)
        response: bytes = self.transport.value()
        return response

    def test_second_time_in_a_row(self) -> None:
        """A request is stored when it comes for the second time in a row, on whatever connection, and not before."""
        first = self.send(self.poll)
        self.assertEqual(len(self.site.connections.response_memo), 0)
        other_channel, transport = self.pair.fast()
        other_channel.dataReceived(self.poll)
        self.assertEqual(len(self.site.connections.response_memo), 1)
        self.assertEqual((transport.value(), self.send(self.poll)), (first, first))
        self.assertTrue(first.startswith(b"HTTP/1.1 304 "))

    def test_alternating_requests(self) -> None:
        """Alternating requests are not stored."""
        for _ in range(5):
            self.send(self.poll)
            self.send(request())
        self.assertEqual(len(self.site.connections.response_memo), 0)

    def test_change(self) -> None:
        """After a change of the document, no previous response is sent."""
        for _ in range(3):
            self.send(self.poll)
            plain = self.send(request(b"X: y"))
        for _ in range(3):
            self.send(self.poll)
        Deferred.fromCoroutine(self.pair.responder.document.update(BODY.replace(b"night", b"day")))
        self.assertEqual(len(self.site.connections.response_memo), 0)
        self.assertNotEqual(dateless(self.send(request(b"X: y"))), dateless(plain))
        self.assertTrue(self.send(self.poll).startswith(b"HTTP/1.1 200 "))

    def test_renew(self) -> None:
        """A stored response is not used for longer than its Date is current."""
        for _ in range(3):
            before = self.send(self.poll)
        self.pair.clock.advance(1)
        self.pair.responder.renew()
        self.assertNotEqual(self.send(self.poll), before)
        self.assertEqual(dateless(self.send(self.poll)).replace(b"Age: 1", b"Age: 0"), dateless(before))

    def test_counts_by_way_and_bytes(self) -> None:
        """Each response is counted by how its request was recognised, and all sent bytes are counted."""
        responder = self.pair.responder
        responder.renew()
        _, before, sent = responder.counts()
        gzip = request(b"Accept-Encoding: gzip")
        requests = [
            request(),
            gzip,
            *[self.poll] * 5,
            request(),
            gzip.replace(b"GET", b"HEAD"),
            gzip.replace(b"GET", b"POST"),
        ]
        responses = [self.send(data) for data in requests]
        responder.renew()
        counts = {way: number - before.get(way, 0) for way, number in responder.counts().ways.items()}
        # Two polls are parsed, and three are repeated. The next request differs from them only in the validator.
        self.assertEqual(counts, {"general": 1, "parsed": 4, "remembered": 1, "repeated": 3})
        self.assertEqual(responder.bytes_sent - sent, sum(map(len, responses[:-1])))

    def test_counts_by_kind(self) -> None:
        """Each response is counted once, by its kind."""
        for _ in range(5):
            self.send(self.poll)
        for _ in range(7):
            self.send(request())
        self.pair.responder.renew()
        self.pair.responder.renew()
        self.assertEqual(dict(self.pair.responder.tally), {"304": 5, "identity": 7})

    def test_access_log(self) -> None:
        """With an access log, each response has a line, even if the request is repeated."""
        lines: list[str] = []
        log: Any = type(
            "Log", (LogFile,), {"__init__": lambda self: None, "write": lambda self, line: lines.append(line)}
        )
        self.site.log_to(log())
        self.channel, self.transport = self.pair.fast()
        for _ in range(5):
            self.send(self.poll)
        self.assertEqual(len(lines), 5)

    def test_limit(self) -> None:
        """A client that sends each of many requests twice cannot exceed the limit on entries."""
        self.patch(response_memo, "MAX_ENTRIES", 3)
        for number in range(10):
            for _ in range(2):
                self.send(request(b"X: %d" % number))
        self.assertEqual(len(self.site.connections.response_memo), 3)
