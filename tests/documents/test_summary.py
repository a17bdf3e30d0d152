"""Tests of the status line for the operator."""

from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.document import Document
from livestate.documents.summary import summary
from livestate.sources.factory import make_source
from tests.polling import SinglePoller
from tests.support import FakeReactor, result_of


class SummaryTests(SynchronousTestCase):
    """`summary`."""

    def test_summary(self):
        """It counts documents and connections, and names each document that is not fresh, with its age and the reason."""
        reactor = FakeReactor()
        pollers = [
            SinglePoller(Document(reactor, path, 1000), make_source(reactor, "demo:", 1000), 1.0, reactor)
            for path in ("/a", "/b")
        ]
        self.assertEqual(
            summary(pollers, 0),
            "2 documents, 0 connections; /a is missing (no answer yet), /b is missing (no answer yet)",
        )
        for poller in pollers:
            result_of(poller.document.update(b"{}"))
        self.assertEqual(summary(pollers[:1], 7), "1 document, 7 connections; all fresh")
        reactor.advance(12)
        result_of(pollers[0].document.update(b"{}"))
        pollers[1].stats.failed("refused,\nreally", reactor.seconds())
        self.assertEqual(summary(pollers, 1), "2 documents, 1 connections; /b is 12 s old (refused, really)")
        self.assertEqual(
            summary(pollers, 0, "1 of 2 workers not serving"),
            "2 documents, 0 connections; 1 of 2 workers not serving, /b is 12 s old (refused, really)",
        )
