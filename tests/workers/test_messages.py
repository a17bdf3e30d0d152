"""The frames between supervisor and workers."""

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
    for_supervisor,
    for_worker,
    frame,
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
        st.booleans(),
        _times,
        st.lists(
            st.tuples(st.sampled_from(["identity", "br", "gzip"]), st.binary(max_size=20), st.binary(max_size=300))
        ),
    ),
    st.just(Serve()),
    st.builds(Drain, st.booleans()),
    st.just(Reopen()),
)
_counted = st.integers(0, 2**40)
counts = st.builds(
    Counts,
    st.dictionaries(
        st.sampled_from(["/", "/a"]),
        st.builds(
            DocumentCounts,
            st.dictionaries(st.sampled_from(["304", "br"]), st.integers(1, 2**40)),
            _counted, _counted, _counted, _counted,
        ),
    ),
    _counted, _counted,
)  # fmt: skip
from_worker = st.one_of(
    st.builds(Hello, _counted),
    st.builds(Alive, counts),
    st.builds(LogEntry, st.sampled_from(["info", "warn"]), st.text()),
)


def cut(data, lengths):
    """Cut `data` into pieces."""
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
    yield data[start:]


class FramesTests(SynchronousTestCase):
    """Messages on a stream."""

    @many
    @given(st.lists(to_worker, max_size=6), st.lists(st.integers(0, 60), max_size=40))
    def test_to_worker(self, messages, lengths):
        """What the supervisor says arrives as it was said, wherever the bytes are cut."""
        frames = for_worker()
        found: list[ToWorker] = []
        for piece in cut(b"".join(map(frame, messages)), lengths):
            found += frames.feed(piece)
        self.assertEqual(found, messages)

    @many
    @given(st.lists(from_worker, max_size=6), st.lists(st.integers(0, 60), max_size=40))
    def test_from_worker(self, messages, lengths):
        """What a worker says arrives as it was said, wherever the bytes are cut."""
        frames = for_supervisor()
        found: list[FromWorker] = []
        for piece in cut(b"".join(map(frame, messages)), lengths):
            found += frames.feed(piece)
        self.assertEqual(found, messages)

    @many
    @given(st.binary(max_size=60))
    def test_anything(self, data):
        """Bytes that are no messages are refused as such, or waited for, and nothing else is raised."""
        try:
            list(for_worker().feed(data))
        except msgspec.DecodeError:
            pass

    def test_other_direction(self):
        """A message that is for the other side is none."""
        self.assertRaises(msgspec.DecodeError, list, for_supervisor().feed(frame(Drain())))


class CountsTests(SynchronousTestCase):
    """Adding up."""

    @many
    @given(st.lists(counts, max_size=4))
    def test_total(self, parts):
        """A sum has what all parts have, in any order, and what is over of each part stays when it is gone."""
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
    """What a zygote is told."""

    def test_as_it_was(self):
        """A worker has the settings that were given, but for the sources and their passwords, and the saved documents."""
        settings = load_settings(
            {
                "source": ["/a=redis://u:secret@h/0?key=k", "demo:"], "access-log": ["a.log"], "workers": ["3"],
                "state-dir": ["saved"], "max-stale": ["60"], "cors-origin": ["https://a.example"],
            }
        )  # fmt: skip
        setup = Setup(settings, "livestate.net.reactor", [Port(b"pem"), Port(None)])
        data = setup.to_json()
        self.assertNotIn(b"secret", data)
        told = Setup.of_json(data)
        self.assertEqual((told.ports, told.reactor), (setup.ports, setup.reactor))
        self.assertEqual(
            told.settings.documents, (DocumentSettings("/a", "", 1.0, 60.0), DocumentSettings("/", "", 1.0, 60.0))
        )
        self.assertEqual(told.settings.access_log, settings.access_log)
        self.assertEqual((told.settings.workers, told.settings.cors_origins), (3, ("https://a.example",)))
        self.assertIsNone(told.settings.state_dir)
