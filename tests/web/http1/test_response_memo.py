"""Answers that are noted by the whole request are the answers that are right at that moment."""

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.logs import LogFile
from livestate.web.http1 import response_memo as prepared
from tests.web.http1.test_channel import BODY, Pair, request


def dateless(data: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]*", b"", data)


class PreparedTests(SynchronousTestCase):
    """One site, and a channel on it."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.site = self.pair.site
        self.channel, self.transport = self.pair.fast()
        self.poll = request(b"If-None-Match: " + self.pair.etags[0])

    def ask(self, data: bytes) -> bytes:
        """Give what is answered to `data`."""
        self.transport.clear()
        self.channel.dataReceived(data)
        answered: bytes = self.transport.value()
        return answered

    def test_second_time_in_a_row(self) -> None:
        """A request is noted the second time that it comes in a row, on whatever connection, and not before."""
        first = self.ask(self.poll)
        self.assertEqual(len(self.site.connections.response_memo), 0)
        other, transport = self.pair.fast()
        other.dataReceived(self.poll)
        self.assertEqual(len(self.site.connections.response_memo), 1)
        self.assertEqual((transport.value(), self.ask(self.poll)), (first, first))
        self.assertTrue(first.startswith(b"HTTP/1.1 304 "))

    def test_not_in_turn(self) -> None:
        """Requests that come in turn with others are not noted."""
        for _ in range(5):
            self.ask(self.poll)
            self.ask(request())
        self.assertEqual(len(self.site.connections.response_memo), 0)

    def test_a_change_is_seen_at_once(self) -> None:
        """After the document changed, no answer of before is given."""
        for _ in range(3):
            self.ask(self.poll)
            plain = self.ask(request(b"X: y"))
        for _ in range(3):
            self.ask(self.poll)
        Deferred.fromCoroutine(self.pair.responder.document.update(BODY.replace(b"night", b"day")))
        self.assertEqual(len(self.site.connections.response_memo), 0)
        self.assertNotEqual(dateless(self.ask(request(b"X: y"))), dateless(plain))
        self.assertTrue(self.ask(self.poll).startswith(b"HTTP/1.1 200 "))

    def test_renewed_each_second(self) -> None:
        """A noted answer does not outlive its Date."""
        for _ in range(3):
            before = self.ask(self.poll)
        self.pair.clock.advance(1)
        self.pair.responder.renew()
        self.assertNotEqual(self.ask(self.poll), before)
        self.assertEqual(dateless(self.ask(self.poll)).replace(b"Age: 1", b"Age: 0"), dateless(before))

    def test_ways_and_bytes(self) -> None:
        """Each answer is counted by the way that it took, and all bytes that were sent are."""
        responder = self.pair.responder
        responder.renew()
        before, sent = dict(responder.ways), responder.bytes_sent
        gzip = request(b"Accept-Encoding: gzip")
        asked = [
            request(),
            gzip,
            *[self.poll] * 5,
            request(),
            gzip.replace(b"GET", b"HEAD"),
            gzip.replace(b"GET", b"POST"),
        ]
        answers = [self.ask(data) for data in asked]
        responder.renew()
        given = {way: number - before.get(way, 0) for way, number in responder.ways.items()}
        # Of the polls two are parsed, and three the same bytes again; but for the validator, so is the request after them.
        self.assertEqual(given, {"general": 1, "parsed": 4, "remembered": 1, "repeated": 3})
        self.assertEqual(responder.bytes_sent - sent, sum(map(len, answers[:-1])))

    def test_counted(self) -> None:
        """Each answer is counted as what it is, once."""
        for _ in range(5):
            self.ask(self.poll)
        for _ in range(7):
            self.ask(request())
        self.pair.responder.renew()
        self.pair.responder.renew()
        self.assertEqual(dict(self.pair.responder.tally), {"304": 5, "identity": 7})

    def test_logged(self) -> None:
        """With an access log each answer is a line, however often the request comes."""
        lines: list[str] = []
        log: Any = type(
            "Log", (LogFile,), {"__init__": lambda self: None, "write": lambda self, line: lines.append(line)}
        )
        self.site.log_to(log())
        self.channel, self.transport = self.pair.fast()
        for _ in range(5):
            self.ask(self.poll)
        self.assertEqual(len(lines), 5)

    def test_bounded(self) -> None:
        """Who sends each of many requests twice fills it no further than its bound."""
        self.patch(prepared, "MAX_ENTRIES", 3)
        for number in range(10):
            for _ in range(2):
                self.ask(request(b"X: %d" % number))
        self.assertEqual(len(self.site.connections.response_memo), 3)
