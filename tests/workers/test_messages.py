"""The messages between supervisor and workers."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import DocumentSettings, load_settings
from livestate.web.counts import Counts, DocumentCounts, total
from livestate.workers.messages import (
    Alive,
    Changed,
    Confirmed,
    Drain,
    FromWorker,
    Hello,
    LogEntry,
    Reopen,
    Serve,
    ToWorker,
    frame,
    supervisor_decoder,
    worker_decoder,
)
from livestate.workers.setup import Port, Setup
from tests.support import many

_paths = st.text(max_size=20)
_times = st.floats(0, 1e11)
to_worker = st.one_of(
    st.builds(Confirmed, _paths, _times),
    st.builds(
        Changed,
        _paths,
        st.integers(1, 2**53),
        _times,
        _times,
        st.binary(max_size=20),
        st.binary(max_size=300),
    ),
    st.just(Serve()),
    st.builds(Drain, st.booleans()),
    st.just(Reopen()),
)
_numbers = st.integers(0, 2**40)
counts = st.builds(
    Counts,
    st.dictionaries(
        st.sampled_from(["/", "/a"]),
        st.builds(
            DocumentCounts,
            st.dictionaries(st.sampled_from(["304", "br"]), st.integers(1, 2**40)),
            _numbers, _numbers, _numbers, _numbers,
        ),
    ),
    _numbers, _numbers,
)  # fmt: skip
from_worker = st.one_of(
    st.builds(Hello, _numbers),
    st.builds(Alive, counts),
    st.builds(LogEntry, st.sampled_from(["info", "warn"]), st.text()),
)


def split(data, lengths):
    """Split `data` into pieces of these lengths."""
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
    yield data[start:]


class FramesTests(SynchronousTestCase):
    """Messages on a byte stream."""

    @many
    @given(st.lists(to_worker, max_size=6), st.lists(st.integers(0, 60), max_size=40))
    def test_to_worker(self, messages, lengths):
        """The messages of the supervisor arrive unchanged, wherever the bytes are split."""
        decoder = worker_decoder()
        found: list[ToWorker] = []
        for piece in split(b"".join(map(frame, messages)), lengths):
            found += decoder.feed(piece)
        self.assertEqual(found, messages)

    @many
    @given(st.lists(from_worker, max_size=6), st.lists(st.integers(0, 60), max_size=40))
    def test_from_worker(self, messages, lengths):
        """The messages of a worker arrive unchanged, wherever the bytes are split."""
        decoder = supervisor_decoder()
        found: list[FromWorker] = []
        for piece in split(b"".join(map(frame, messages)), lengths):
            found += decoder.feed(piece)
        self.assertEqual(found, messages)

    @many
    @given(st.binary(max_size=60))
    def test_anything(self, data):
        """Arbitrary bytes raise DecodeError or wait for more bytes; no other exception is raised."""
        try:
            list(worker_decoder().feed(data))
        except msgspec.DecodeError:
            pass

    def test_other_direction(self):
        """A message that belongs to the other direction is rejected."""
        self.assertRaises(msgspec.DecodeError, list, supervisor_decoder().feed(frame(Drain())))


class CountsTests(SynchronousTestCase):
    """Sums of counters."""

    @many
    @given(st.lists(counts, max_size=4))
    def test_total(self, parts):
        """A sum covers all parts, in any order, and the totals of a part remain when it is gone."""
        whole = total(parts)
        self.assertEqual(whole, total(reversed(parts)))
        self.assertEqual(whole.connections, sum(part.connections for part in parts))
        for path, counted in whole.documents.items():
            of_path = [part.documents[path] for part in parts if path in part.documents]
            self.assertEqual(counted.events_sent, sum(part.events_sent for part in of_path))
            self.assertEqual(counted.answers.get("br", 0), sum(part.answers.get("br", 0) for part in of_path))
        gone = total(part.past() for part in parts)
        self.assertEqual(gone.connections, 0)
        for path, counted in gone.documents.items():
            self.assertEqual((counted.event_readers, counted.long_polls), (0, 0))
            self.assertEqual(counted.answers, whole.documents[path].answers)
            self.assertEqual(counted.events_sent, whole.documents[path].events_sent)


class SetupTests(SynchronousTestCase):
    """The setup that a zygote gets."""

    def test_round_trip(self):
        """A worker gets all settings, except for the sources with their passwords, and the snapshot store."""
        settings = load_settings(
            {
                "source": ["/a=redis://u:secret@h/0?key=k", "demo:"], "access-log": ["a.log"], "workers": ["3"],
                "state-dir": ["saved"], "max-stale": ["60"], "cors-origin": ["https://a.example"],
            }
        )  # fmt: skip
        setup = Setup(settings, "livestate.net.reactor", [Port(b"pem"), Port(None)])
        data = setup.to_json()
        self.assertNotIn(b"secret", data)
        decoded = Setup.from_json(data)
        self.assertEqual((decoded.ports, decoded.reactor), (setup.ports, setup.reactor))
        self.assertEqual(
            decoded.settings.documents, (DocumentSettings("/a", "", 1.0, 60.0), DocumentSettings("/", "", 1.0, 60.0))
        )
        self.assertEqual(decoded.settings.access_log, settings.access_log)
        self.assertEqual((decoded.settings.workers, decoded.settings.cors_origins), (3, ("https://a.example",)))
        self.assertIsNone(decoded.settings.state_dir)
