"""Tests of polling a source."""

import asyncio
import itertools
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from livestate.documents.document import Document
from livestate.documents.poller import MAX_PAUSE, MIN_POLL_SPACING
from livestate.documents.snapshot import LARGE
from livestate.errors import DocumentMissing, LivestateError, SourceError
from livestate.sources.api import ISource, IWatching
from tests.polling import SinglePoller
from tests.support import NOW, FakeReactor, few, log_lines

SILENCE = object()


@implementer(ISource)
class FakeSource:
    """Returns, raises or stays silent, as the test sets `answer`."""

    def __init__(self, answer=b"1"):
        self.answer = answer
        self.fetches = 0
        self.running = 0
        self.max_running = 0
        self.pending = []
        self.cancelled = 0
        self.closed = 0
        self.on_cancel = None

    def __str__(self):
        return "fake:"

    async def fetch(self):
        self.fetches += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            if self.answer is SILENCE:
                waiting: Deferred[bytes] = Deferred()
                self.pending.append(waiting)
                return await waiting
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer
        except CancelledError:
            self.cancelled += 1
            if self.on_cancel is not None:
                raise self.on_cancel from None
            raise
        finally:
            self.running -= 1

    def close(self):
        self.closed += 1


@implementer(IWatching)
class NotifyingSource(FakeSource):
    """Notifies of changes when the test calls `changed`, and records when it is asked."""

    def __init__(self, answer, clock):
        super().__init__(answer)
        self.clock = clock
        self.changed = None
        self.fetch_times = []

    def fetch(self):
        self.fetch_times.append(self.clock.seconds())
        return super().fetch()

    def watch(self, changed):
        assert self.changed is None
        self.changed = changed

    def answer_pending(self, data):
        """Finish the fetch in progress."""
        self.pending.pop().callback(data)


class PollerCase(SynchronousTestCase):
    """A document and its source."""

    def start(self, answer=b"1", interval=1.0):
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**20)
        self.source = self.make_source(answer)
        self.poller = SinglePoller(self.document, self.source, interval, self.reactor)
        self.poller.startService()
        self.addCleanup(self.stop)

    def make_source(self, answer):
        return FakeSource(answer)

    def stop(self):
        if self.poller.running:
            self.poller.stopService()

    def body(self):
        assert self.document.snapshot is not None
        return self.document.snapshot.body


class PollerTests(PollerCase):
    """A source that does not notify."""

    def test_interface(self):
        """The source of these tests implements the interface."""
        verifyObject(ISource, FakeSource())

    def test_interval(self):
        """A source that answers is asked at once, and then once per interval, on schedule."""
        self.start(interval=0.5)
        self.assertEqual((self.source.fetches, self.body()), (1, b"1"))
        self.source.answer = b"2"
        self.reactor.run_for(10)
        self.assertEqual((self.source.fetches, self.body()), (21, b"2"))
        self.assertEqual(self.poller.stats.fetches, 21)
        self.assertTrue(self.poller.is_fresh())

    def test_timeout(self):
        """A silent fetch is cancelled before the next one is due, and that is the error shown."""
        with log_lines() as lines:
            self.start(SILENCE)
            self.reactor.run_for(0.75)
            self.assertEqual((self.source.cancelled, self.poller.stats.error), (0, None))
            self.reactor.run_for(0.15)
        self.assertEqual((self.source.cancelled, self.source.running), (1, 0))
        self.assertEqual(self.poller.stats.error, "no answer within 0.8 s")
        self.assertEqual(len(lines), 1)

    def test_timeout_of_long_intervals(self):
        """However long the interval, a fetch takes at most ten seconds."""
        self.start(SILENCE, interval=3600)
        self.reactor.run_for(10.2, step=0.1)
        self.assertEqual(self.source.cancelled, 1)

    def test_timeout_whatever_is_raised(self):
        """An error that a driver raises when cancelled counts as a timeout, not as a fault."""
        for error in (ConnectingCancelledError("connecting"), SourceError("closed"), RuntimeError("gave up")):
            with log_lines() as lines:
                self.start(SILENCE)
                self.source.on_cancel = error
                self.reactor.run_for(0.9)
                self.assertEqual(self.poller.stats.error, "no answer within 0.8 s")
                self.source.answer = b"2"
                self.reactor.run_for(2)
                self.poller.stopService()
            self.assertEqual(len(lines), 2, lines)
            self.assertEqual(self.body(), b"2")

    @few
    @given(
        st.sampled_from([0.05, 0.3, 1.0, 7.0]),
        st.lists(st.sampled_from(["good", "silence", "error", "missing", "bad", "fault"]), min_size=1, max_size=8),
        st.lists(st.floats(0.1, 4), min_size=8, max_size=8),
    )
    def test_never_two(self, interval, answers, spans):
        """Whatever a source does, fetches never overlap, and are no more frequent than interval and back-off allow."""
        self.start(interval=interval)
        for answer, span in zip(answers, spans, strict=False):
            self.source.answer = {
                "good": b"2",
                "silence": SILENCE,
                "error": SourceError("away"),
                "missing": DocumentMissing("no such key"),
                "bad": b"nope",
                "fault": RuntimeError("oops"),
            }[answer]
            before = self.source.fetches
            self.reactor.run_for(span, step=0.025)
            # Half of the first back-off ceiling is the shortest pause between two fetches.
            self.assertLessEqual(self.source.fetches - before, span / (0.5 * min(interval, 0.25)) + 2)
        self.assertEqual(self.source.max_running, 1)
        self.source.answer = b"3"
        self.reactor.run_for(max(2, interval) + interval)
        self.assertEqual(self.body(), b"3")
        self.poller.stopService()
        self.flushLoggedErrors(RuntimeError)

    def test_backoff_then_interval(self):
        """A lost store is asked after growing pauses, and once it is back, on the old schedule."""
        with mock.patch("random.uniform", return_value=1.0):
            self.start()
            self.source.answer = SourceError("away")
            asked = []
            for step in range(1000):
                before = self.source.fetches
                self.reactor.advance(0.01)
                asked += [round(0.01 * (step + 1), 2)] * (self.source.fetches - before)
        pauses = [b - a for a, b in zip(asked, asked[1:], strict=False)]
        self.assertApproximates(pauses[0], 0.25, 0.021)
        self.assertApproximates(pauses[1], 0.5, 0.021)
        self.assertApproximates(pauses[2], 1.0, 0.021)
        for pause in pauses[3:]:
            self.assertApproximates(pause, MAX_PAUSE, 0.021)
        self.source.answer = b"2"
        self.reactor.run_for(3)
        before = self.source.fetches
        self.reactor.run_for(20)
        self.assertEqual(self.source.fetches - before, 20)
        self.assertAlmostEqual(self.document.confirmed % 1.0, NOW % 1.0, places=3)

    @few
    @given(st.floats(0.1, 30), st.sampled_from([0.05, 0.5, 1.0]), st.booleans())
    def test_recovery(self, outage, interval, silent):
        """A store that is back after any outage, with errors or silence, is noticed within two seconds."""
        self.start(interval=interval)
        self.source.answer = SILENCE if silent else SourceError("away")
        self.reactor.run_for(outage, step=0.025)
        self.source.answer = b'"back"'
        self.reactor.run_for(2.0, step=0.025)
        self.assertEqual(self.body(), b'"back"')
        self.assertIsNone(self.poller.stats.error)
        self.poller.stopService()

    def test_slowest_recovery(self):
        """A store that is back just after a fetch started, at the longest pause, is noticed within two seconds."""
        with mock.patch("random.uniform", return_value=1.0):
            self.start(SILENCE)
            while self.source.fetches < 12:
                self.reactor.advance(0.01)
            self.source.answer = b'"back"'
            self.reactor.run_for(2.0, step=0.01)
        self.assertEqual(self.body(), b'"back"')

    def test_never_dies(self):
        """Whatever a source raises, it is asked again and its good answer is served; a fault is logged with a traceback."""
        errors = [
            SourceError("away"),
            LivestateError("other"),
            DocumentMissing("gone"),
            ValueError("a fault"),
            OSError(5, "a fault"),
            RuntimeError("a fault\nin two lines"),
            CancelledError(),
            asyncio.CancelledError(),
            StopIteration(),
            StopAsyncIteration(),
        ]
        for error in errors:
            self.start()
            self.source.answer = error
            self.reactor.run_for(5)
            self.assertTrue(self.poller.stats.error, repr(error))
            self.assertNotIn("\n", str(self.poller.stats.error))
            self.source.answer = b"2"
            self.reactor.run_for(2)
            self.assertEqual((self.body(), self.poller.stats.error), (b"2", None), repr(error))
            self.poller.stopService()
        faults = self.flushLoggedErrors()
        self.assertEqual(
            [fault.type for fault in faults],
            # A StopIteration that leaves a coroutine is a RuntimeError (PEP 479).
            [
                ValueError,
                OSError,
                RuntimeError,
                CancelledError,
                asyncio.CancelledError,
                RuntimeError,
                StopAsyncIteration,
            ],
        )

    def test_process_exit(self):
        """SystemExit and KeyboardInterrupt from a source stop the reactor, with a line in the log."""
        for error in (SystemExit(3), KeyboardInterrupt()):
            for late in (False, True):
                with log_lines(LogLevel.critical) as lines:
                    self.start(b"1" if late else error)
                    self.source.answer = error
                    self.assertFalse(self.reactor.hasStopped)
                    self.reactor.run_for(1.1)
                self.assertTrue(self.reactor.hasStopped)
                self.assertEqual(lines, [f"the store fake: raised {error!r}; shutting down"])
                fetches = self.source.fetches
                self.poller.stopService()
                self.reactor.run_for(3)
                self.assertEqual((self.source.fetches, self.source.closed), (fetches, 1))

    def test_refused_and_missing(self):
        """A store that answers with a bad document or none is not down: it is asked on schedule."""
        for answer in (DocumentMissing("no such key"), b"nope"):
            self.start()
            self.source.answer = answer
            self.reactor.run_for(10)
            self.assertEqual(self.source.fetches, 11)
            self.assertEqual((self.poller.stats.failures, self.body()), (10, b"1"))

    def test_logged_once(self):
        """A failure is logged when it starts and when its reason changes, and the recovery once; nothing in between."""
        with log_lines() as lines:
            self.start(SourceError("refused"))
            self.reactor.run_for(10)
            self.assertEqual(len(lines), 1)
            self.assertIn("fake:: refused; nothing to serve yet, answering 503", lines[0])
            self.source.answer = SourceError("no route")
            self.reactor.run_for(10)
            self.assertEqual(len(lines), 2)
            self.source.answer = b"1"
            self.reactor.run_for(10)
            self.assertEqual(len(lines), 3)
            self.assertRegex(lines[2], r"recovered after (19|2[01])\.\d s")
            self.source.answer = b"bad"
            self.reactor.run_for(10)
            self.assertEqual(len(lines), 4)
            self.assertIn("; serving the last good document, retrying", lines[3])

    def test_reasons_that_keep_changing(self):
        """Reasons that alternate, or are never the same, are logged a limited number of times in one outage."""
        self.start()
        for names, minimum, maximum in (("a", "b"), 10, 10), (map(str, range(10_000)), 20, 20):
            reasons = itertools.cycle(names)
            with log_lines() as lines:
                for _ in range(100):
                    self.source.answer = SourceError(next(reasons))
                    self.reactor.run_for(1.2)
            self.assertEqual((minimum <= len(lines) <= maximum, len(set(lines)) >= 2), (True, True), lines)
            self.assertEqual(self.poller.stats.error, str(self.source.answer))
            with log_lines() as lines:
                self.source.answer = b"1"
                self.reactor.run_for(2)
            self.assertEqual(len(lines), 1)
        self.assertIn("recovered", lines[0])

    def test_text_from_the_store(self):
        """Whatever a store says becomes one line of log of limited length, without control characters."""
        with log_lines() as lines:
            self.start(SourceError("Redis says: no\n2026-11-24 all is well\x1b[2J" + "x" * 20_000))
            self.reactor.run_for(3)
        self.assertEqual((len(lines), len(lines[0].splitlines())), (1, 1))
        self.assertIn("no 2026-11-24 all is well [2J", lines[0])
        self.assertLess(len(lines[0]), 700)

    def test_fault_logged_once(self):
        """A fault of the source is logged with its traceback when it starts, not every second."""
        self.start(ZeroDivisionError("oops"))
        self.reactor.run_for(10)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.poller.stats.error, "ZeroDivisionError: oops")

    def test_stop(self):
        """Stopping cancels a fetch or pause in progress, closes the source, and logs nothing."""
        for answer, moment in ((b"1", 0.3), (SILENCE, 0.3), (SourceError("away"), 1.7)):
            self.start(answer)
            self.reactor.run_for(moment)
            self.source.on_cancel = RuntimeError("cancelled")
            with log_lines() as lines:
                self.poller.stopService()
                fetches = self.source.fetches
                self.reactor.run_for(5)
            self.assertEqual((self.source.fetches, self.source.running, self.source.closed), (fetches, 0, 1))
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.assertEqual(lines, [])

    def test_stop_while_compressing(self):
        """Stopping while a large document is being compressed leaves nothing behind."""
        self.start()
        self.reactor.hold_threads = True
        self.source.answer = b'"' + b"x" * LARGE + b'"'
        self.reactor.run_for(1.1)
        self.assertEqual(len(self.reactor.jobs), 1)
        self.poller.stopService()
        self.reactor.run_job()
        self.reactor.run_for(3)
        self.assertEqual((self.reactor.jobs, self.body()), ([], b"1"))

    def test_fresh(self):
        """A document is fresh until three intervals after its confirmation, or two seconds if that is longer."""
        self.start(interval=0.5)
        self.source.answer = SILENCE
        self.reactor.advance(2.0)
        self.assertTrue(self.poller.is_fresh())
        self.reactor.advance(0.1)
        self.assertFalse(self.poller.is_fresh())
        self.start(SourceError("away"))
        self.assertFalse(self.poller.is_fresh())


class NotifyingTests(PollerCase):
    """A source that notifies of changes."""

    def make_source(self, answer):
        return NotifyingSource(answer, self.reactor)

    def test_interface(self):
        """The source of these tests implements the interface."""
        verifyObject(IWatching, NotifyingSource(b"1", None))

    def test_at_once(self):
        """A notification makes the Poller fetch at once; the schedule stays as it was."""
        self.start(interval=30)
        self.reactor.run_for(10)
        self.source.answer = b"2"
        self.source.changed()
        self.assertEqual((self.source.fetches, self.body(), self.poller.stats.notifications), (2, b"2", 1))
        self.reactor.run_for(51)
        self.assertEqual([round(when - NOW) for when in self.source.fetch_times], [0, 10, 30, 60])

    def test_during_fetch(self):
        """Notifications during a fetch cause one more fetch right after it, however many they are."""
        self.start(SILENCE, interval=30)
        self.reactor.run_for(0.2)
        for _ in range(5):
            self.source.changed()
        self.assertEqual(self.source.fetches, 1)
        self.source.answer_pending(b"1")
        self.assertEqual((self.source.fetches, self.body()), (2, b"1"))
        self.source.answer_pending(b"2")
        self.reactor.run_for(5)
        self.assertEqual((self.source.fetches, self.source.max_running, self.body()), (2, 1, b"2"))

    def test_while_compressing(self):
        """After a notification while a large document is being compressed, the change is fetched when that is done."""
        self.start(interval=30)
        self.reactor.run_for(1)
        self.reactor.hold_threads = True
        self.source.answer = b'"' + b"x" * LARGE + b'"'
        self.source.changed()
        self.source.answer = b"3"
        self.source.changed()
        self.assertEqual(self.source.fetches, 2)
        self.reactor.hold_threads = False
        self.reactor.run_job()
        self.reactor.run_for(1)
        self.assertEqual((self.source.fetches, self.body()), (3, b"3"))

    def test_fetch_spacing(self):
        """Constant notifications make the Poller fetch every 50 ms, not more often, and once more after the last."""
        self.start(interval=30)
        self.reactor.run_for(1)
        self.source.fetch_times.clear()
        for value in range(1000):
            self.source.answer = b"%d" % value
            self.source.changed()
            self.reactor.advance(0.001)
        self.reactor.run_for(1)
        self.assertEqual(self.body(), b"999")
        self.assertApproximates(len(self.source.fetch_times), 21, 1)
        for before, after in zip(self.source.fetch_times, self.source.fetch_times[1:], strict=False):
            self.assertGreaterEqual(after - before, MIN_POLL_SPACING - 1e-6)

    def test_tick_after_notification(self):
        """A tick due right after a fetch for a notification is postponed, not skipped."""
        self.start(interval=1.0)
        self.reactor.run_for(0.98, step=0.01)
        self.source.changed()
        self.reactor.run_for(2.5, step=0.01)
        self.assertEqual([round(when - NOW, 1) for when in self.source.fetch_times], [0, 1, 1, 2, 3])
        self.assertGreaterEqual(self.source.fetch_times[2] - self.source.fetch_times[1], MIN_POLL_SPACING - 1e-6)

    def test_tick_during_fetch(self):
        """A tick due during a fetch for a notification adds no second fetch."""
        self.start(interval=1.0)
        self.reactor.run_for(0.7)
        self.source.answer = SILENCE
        self.source.changed()
        self.reactor.run_for(0.6)
        self.assertEqual((self.source.fetches, self.source.max_running), (2, 1))
        self.source.answer = b"3"
        self.source.answer_pending(b"2")
        self.assertEqual((self.source.fetches, self.body()), (2, b"2"))
        self.reactor.run_for(1.2)
        self.assertEqual((self.source.fetches, self.body()), (3, b"3"))

    def test_backoff(self):
        """Notifications do not cut the back-off short; the next scheduled attempt sees the change."""
        with mock.patch("random.uniform", return_value=1.0):
            self.start(SourceError("away"), interval=1.0)
            self.reactor.run_for(5, step=0.01)
            fetches = self.source.fetches
            for _ in range(100):
                self.source.changed()
                self.reactor.advance(0.01)
            self.assertLessEqual(self.source.fetches, fetches + 1)
            self.source.answer = b"2"
            self.source.changed()
            self.reactor.run_for(MAX_PAUSE, step=0.01)
        self.assertEqual(self.body(), b"2")

    def test_notified_and_failed(self):
        """A fetch that fails after a notification is followed by the back-off pause, not by another fetch at once."""
        self.start(SILENCE)
        self.source.changed()
        self.source.answer = SourceError("away")
        self.source.pending.pop().errback(SourceError("away"))
        self.assertEqual(self.source.fetches, 1)
        self.reactor.run_for(0.3)
        self.assertEqual(self.source.fetches, 2)

    def test_notified_after_missing(self):
        """A store without the document is asked at once when it notifies."""
        self.start(DocumentMissing("no such key"), interval=30)
        self.reactor.run_for(1)
        self.source.answer = b"2"
        self.source.changed()
        self.assertEqual(self.body(), b"2")

    def test_after_stop(self):
        """A notification after the stop, or one postponed before it, causes no fetch."""
        self.start(interval=30)
        self.source.changed()
        self.poller.stopService()
        self.source.changed()
        self.reactor.run_for(60)
        self.assertEqual((self.source.fetches, self.source.closed), (1, 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    @few
    @given(
        st.sampled_from([0.05, 1.0, 7.0]),
        st.lists(
            st.tuples(st.sampled_from(["good", "silence", "error", "missing"]), st.integers(0, 30), st.integers(1, 60)),
            max_size=12,
        ),
    )
    def test_never_two(self, interval, steps):
        """Whatever a source does and whenever it notifies, fetches never overlap, start at least 50 ms apart, and the
        last change is served soon after a recovery."""
        self.start(interval=interval)
        for kind, notifications, ticks in steps:
            self.source.answer = {
                "good": b"2",
                "silence": SILENCE,
                "error": SourceError("away"),
                "missing": DocumentMissing("no such key"),
            }[kind]
            for tick in range(ticks):
                if tick < notifications:
                    self.source.changed()
                self.reactor.advance(0.01)
        self.source.answer = b"3"
        self.source.changed()
        # A silent fetch is cancelled after the Poller's timeout, then there is a pause.
        self.reactor.run_for(self.poller.timeout + MAX_PAUSE + 0.1, step=0.01)
        self.assertEqual((self.body(), self.source.max_running), (b"3", 1))
        for before, after in zip(self.source.fetch_times, self.source.fetch_times[1:], strict=False):
            self.assertGreaterEqual(after - before, MIN_POLL_SPACING - 1e-6)
        self.poller.stopService()
