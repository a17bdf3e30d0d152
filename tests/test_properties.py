"""What holds of livestate as a whole, whatever its store, its readers and its clocks do.

Two nodes ask one simulated store, each by a clock of its own, and are restarted now and then, in an orderly way or not.
Readers of all kinds read from either, and change over. All in one process, with time that is told to go on.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from livestate.client.event_stream_reader import ACCEPT_OLDER_AFTER, EventStreamReader
from livestate.client.state import ClientState, State
from livestate.config.settings import load_settings
from livestate.documents.document import Document
from livestate.documents.poller import Poller
from livestate.documents.snapshot import Snapshot
from livestate.documents.snapshot_store import SnapshotStore
from livestate.errors import DocumentMissing, SourceError
from livestate.formats.merge_patch import apply
from livestate.sources.api import ISource
from livestate.system.logs import LogFiles
from livestate.web.site_service import SiteService
from tests.codings import DECODERS
from tests.formats.test_event_stream import parsed
from tests.support import NOW, Answer, FakeReactor, answer_of, request, stories
from tests.web.http1.twins import viewer_of
from tests.web.resources.test_events import Connection
from tests.web.resources.test_websocket import FIELDS as WEBSOCKET
from tests.web.resources.test_websocket import TEXT, frames

#: Seconds: an interval, and the moment that it takes to tell the readers.
BOUND = 1.0 + 0.05

#: Seconds until a store that is back is noticed: the longest pause of the Poller, and a fetch.
NOTICED = 2.0

SETTINGS = load_settings({"source": ["demo:"]})

members = st.recursive(
    st.sampled_from([None, True, 1, 1.0, "x", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
#: Documents, of most of which a patch is smaller than the whole. Some are large, some have line ends.
documents = st.builds(
    lambda value, pad, layout: json.dumps({"value": value, "pad": "x" * pad}, **layout).encode(),
    st.dictionaries(st.sampled_from("abcd"), members, max_size=3) | st.integers(0, 3) | members,
    st.sampled_from([200] * 8 + [0, 70_000]),
    st.sampled_from([{}, {}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}]),
)


def canonical(value: Any) -> str:
    """Write a parsed document in one way: 1, 1.0 and true stay three values."""
    return json.dumps(value, sort_keys=True)


@implementer(ISource)
class Store:
    """What both nodes ask."""

    def __init__(self) -> None:
        self.content = b"{}"
        self.trouble = "none"

    async def fetch(self) -> bytes:
        if self.trouble == "away":
            raise SourceError("away")
        if self.trouble == "missing":
            raise DocumentMissing("missing")
        return b"{" if self.trouble == "bad" else self.content

    def close(self) -> None:
        pass


class Node:
    """One livestate, until it is restarted."""

    def __init__(self, store: Store, folder: Path, now: float) -> None:
        self.reactor = FakeReactor(now)
        self.folder = folder
        self.document = Document(self.reactor, "/", 2**24)
        #: What each version was.
        self.versions: dict[int, str] = {}
        self.document.subscribe(self._note)
        saved = SnapshotStore(self.reactor, self.document, folder)
        poller = Poller(self.document, store, 1.0, self.reactor)
        with mock.patch("livestate.web.site_service.viewer_resources", viewer_of):
            self.serving = SiteService(self.reactor, SETTINGS, [poller], LogFiles())
        self.parts = self.serving, poller, saved
        for part in self.parts:
            part.startService()

    @property
    def version(self) -> int:
        return 0 if self.document.snapshot is None else self.document.snapshot.version

    @property
    def body(self) -> bytes | None:
        return None if self.document.snapshot is None else self.document.snapshot.body

    def ask(self, **fields: str) -> Answer:
        connection = Connection(self.serving.site, request("/", **fields))
        answer = answer_of(connection.transport.value())
        connection.lose()
        return answer

    def stop(self) -> None:
        for part in self.parts:
            part.stopService()

    def _note(self, snapshot: Snapshot) -> None:
        text = canonical(json.loads(snapshot.body))
        assert self.versions.setdefault(snapshot.version, text) == text, "one version is two documents"
        TAGS[snapshot.tag] = text


#: Of whatever node, what the document of each tag is.
TAGS: dict[bytes, str] = {}


class Reader:
    """One who is told, on one connection after the other."""

    def __init__(self, target: str) -> None:
        self.fields: dict[str, str] = {}
        self._target = target
        self.value: Any = None
        self.connection: Connection | None = None
        self._taken = 0
        self._version = 0

    def connect(self, node: Node) -> None:
        self.lose()
        self.node = node
        self._taken = self._version = 0
        self.connection = Connection(node.serving.site, request(self._target, **self.fields))

    def lose(self) -> None:
        """Lose the connection; what had come was taken."""
        if self.connection is not None:
            self.read()
            self.connection.channel.connectionLost(Failure(ConnectionLost()))
            self.connection = None

    def stop(self) -> None:
        """Take nothing any more."""
        if self.connection is not None:
            self.connection.transport.room = 0

    def go_on(self) -> None:
        """Take what waits, and all that comes."""
        if self.connection is not None:
            self.connection.transport.give_room(1 << 30)
            self.read()

    def read(self) -> None:
        raise NotImplementedError

    def newer(self, version: int) -> None:
        assert version > self._version, "a version went back, or came twice, on one connection"
        self._version = version


class EventReader(Reader):
    """By events."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.event_id: str | None = None

    def connect(self, node: Node) -> None:
        self.lose()
        self.fields = {} if self.event_id is None else {"last_event_id": self.event_id}
        super().connect(node)

    @property
    def stream(self) -> bytes:
        """The body, as far as chunks are whole."""
        assert self.connection is not None
        body, whole = answer_of(self.connection.transport.value()).body, b""
        while size := re.match(rb"([0-9a-f]+)\r\n", body):
            end = size.end() + int(size[1], 16)
            if len(body) < end + 2:
                break
            whole, body = whole + body[size.end() : end], body[end + 2 :]
        return whole

    def read(self) -> None:
        events = parsed(self.stream)[0]
        for kind, event_id, data in events[self._taken :]:
            self.event_id = event_id
            version, _, tag = event_id.partition("-")
            self.newer(int(version))
            content = json.loads(data)
            self.value = apply(self.value, content) if kind == "patch" else content
            assert canonical(self.value) == TAGS[tag.encode()], "what was told is not what its id names"
        self._taken = len(events)


class LibraryReader(EventReader):
    """The same, read by livestate.client. It waits a while before it believes a server whose clock is behind."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._held = ClientState(self._take)

    def connect(self, node: Node) -> None:
        self.lose()
        self.event_id = self._held.event_id
        self._events = EventStreamReader(self._held, 2**24, node.reactor)
        super().connect(node)

    def read(self) -> None:
        stream = self.stream
        self._events.feed(stream[self._taken :])
        self._taken = len(stream)

    def _take(self, state: State) -> None:
        self.value = state.value


class WebSocketSubscriber(Reader):
    """By WebSocket."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.fields = WEBSOCKET

    def read(self) -> None:
        """Take the frames that are whole."""
        assert self.connection is not None
        data = self.connection.transport.value().partition(b"\r\n\r\n")[2]
        if self.connection.transport.waiting:
            return
        messages = [json.loads(payload) for opcode, payload in frames(data) if opcode == TEXT]
        for message in messages[self._taken :]:
            self.newer(message["version"])
            self.value = apply(self.value, message["patch"]) if "patch" in message else message["state"]
            assert canonical(self.value) == self.node.versions[message["version"]], "not what the version is"
        self._taken = len(messages)


class Caller:
    """One who asks for the document, at once or to be held until it changes."""

    def __init__(self) -> None:
        self.etag: str | None = None
        self.body: bytes | None = None
        self.held: Connection | None = None

    @property
    def _validator(self) -> dict[str, str]:
        return {} if self.etag is None else {"if_none_match": self.etag}

    def ask(self, node: Node, coding: str, etags: dict[str, bytes]) -> None:
        if node.body is not None:
            self.take(node.ask(accept_encoding=coding, **self._validator), node, etags)

    def ask_long(self, node: Node, etags: dict[str, bytes]) -> None:
        """Ask; what was asked before is answered by now, or given up."""
        self.look(node, etags)
        self.lose()
        if node.body is not None:
            fields = {"prefer": "wait=30", "accept_encoding": "gzip", **self._validator}
            self.held = Connection(node.serving.site, request("/", **fields))

    def look(self, node: Node, etags: dict[str, bytes]) -> None:
        """Take an answer, if there is one."""
        if self.held is not None and self.held.transport.value():
            self.take(answer_of(self.held.transport.value()), node, etags, at_once=False)
            self.lose()

    def lose(self) -> None:
        if self.held is not None:
            self.held.lose()
            self.held = None

    def take(self, answer: Answer, node: Node, etags: dict[str, bytes], at_once: bool = True) -> None:
        etag = answer.fields["ETag"]
        if answer.status == 304:
            assert etag == self.etag or not at_once, "another entity tag than was asked with"
            assert not at_once or self.body == node.body, "304, though the client does not hold the current bytes"
            return
        assert answer.status == 200, answer
        assert etags.setdefault(etag, answer.body) == answer.body, "an entity tag names two byte strings"
        self.etag = etag
        self.body = DECODERS[answer.fields.get("Content-Encoding", "identity")](answer.body)
        if at_once:
            assert self.body == node.body, "not the current document"


class Machine(RuleBasedStateMachine):
    """Two nodes, their store and their readers."""

    @initialize(content=documents)
    def begin(self, content: bytes) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store()
        self.store.content = content
        self.healthy = 0.0
        self.etags: dict[str, bytes] = {}
        TAGS.clear()
        for number in (0, 1):
            (Path(self.folder.name) / str(number)).mkdir()
        self.nodes = [Node(self.store, Path(self.folder.name) / str(n), NOW) for n in (0, 1)]
        self.highest = [0, 0]
        self.readers = [EventReader("/events?delta=merge"), EventReader("/events"), LibraryReader("/events?delta=merge"),
                        WebSocketSubscriber("/events?delta=merge"), WebSocketSubscriber("/events")]  # fmt: skip
        self.caller, self.long_caller, self.asked = Caller(), Caller(), self.nodes[0]

    @rule(contents=st.lists(documents, min_size=1, max_size=4), seconds=st.sampled_from([1.0, 1.0, 0.3]))
    def change(self, contents: list[bytes], seconds: float) -> None:
        for content in contents:
            self.store.content = content
            self.wait(seconds)

    @rule(trouble=st.sampled_from(["none", "away", "missing", "bad"]))
    def fail(self, trouble: str) -> None:
        self.store.trouble = trouble
        self.healthy = 0.0

    @rule(seconds=st.sampled_from([0.3, 1.0, 2.5]))
    def wait(self, seconds: float) -> None:
        for node in self.nodes:
            node.reactor.run_for(seconds)
        self.healthy += seconds

    @rule(node=st.integers(0, 1))
    def connect_all(self, node: int) -> None:
        for reader in self.readers:
            reader.connect(self.nodes[node])

    @rule(who=st.integers(0, 4), node=st.integers(0, 1), meanwhile=st.lists(documents, max_size=3))
    def come_back(self, who: int, node: int, meanwhile: list[bytes]) -> None:
        """Lose the connection, miss something, and come back to either node."""
        self.readers[who].lose()
        for content in meanwhile:
            self.store.content = content
            self.wait(1.0)
        self.readers[who].connect(self.nodes[node])

    @rule(who=st.integers(0, 4))
    def stop_reading(self, who: int) -> None:
        self.readers[who].stop()

    @rule(who=st.integers(0, 4))
    def go_on_reading(self, who: int) -> None:
        self.readers[who].go_on()

    @rule(nodes=st.lists(st.integers(0, 1), min_size=1, max_size=4),
          coding=st.sampled_from(["", "gzip", "br;q=0.5, zstd", "br"]))  # fmt: skip
    def ask(self, nodes: list[int], coding: str) -> None:
        for node in nodes:
            self.caller.ask(self.nodes[node], coding, self.etags)
            self.wait(0.3)

    @rule(node=st.integers(0, 1))
    def ask_long(self, node: int) -> None:
        self.asked = self.nodes[node]
        self.long_caller.ask_long(self.asked, self.etags)

    @rule(node=st.integers(0, 1), orderly=st.booleans(), skew=st.sampled_from([0.0, 0.0, -3600.0, -0.001, 3600.0]))
    def restart(self, node: int, orderly: bool, skew: float) -> None:
        """Restart a node, with its clock set; after a power cut, with what was on disk."""
        old = self.nodes[node]
        for reader in self.readers:
            if reader.connection is not None and reader.node is old:
                reader.lose()
        if self.asked is old:
            self.long_caller.lose()
        before = old.version
        if orderly:
            old.stop()
        else:
            self.highest[node] = 0
        self.nodes[node] = new = Node(self.store, old.folder, old.reactor.seconds() + skew)
        assert not orderly or new.version >= before, "a version went back over a restart"
        self.asked = self.nodes[0]

    @rule(content=documents)
    def tune_gc(self, content: bytes) -> None:
        """See that all have what is in the store, a second after it is there, or after it is noticed that it is back."""
        late = 0.0 if self.store.trouble == "none" and self.healthy > NOTICED else NOTICED
        for number, reader in enumerate(self.readers):
            if reader.connection is None:
                reader.connect(self.nodes[number % 2])
            reader.go_on()
        # The first time it may be answered at once.
        self.ask_long(0)
        self.ask_long(0)
        held = self.long_caller.held
        self.store.content, self.store.trouble = content, "none"
        self.wait(late + BOUND)
        expected = canonical(json.loads(content))
        for node in self.nodes:
            assert node.body == content, "the store was not asked in time"
        for reader in self.readers:
            reader.read()
            if isinstance(reader, LibraryReader) and canonical(reader.value) != expected:
                # The next sign of life, when it is settled, brings it.
                reader.node.reactor.run_for(ACCEPT_OLDER_AFTER + 15, step=0.5)
                reader.read()
            assert canonical(reader.value) == expected, "not converged"
        self.long_caller.look(self.nodes[0], self.etags)
        if held is not None:
            assert self.long_caller.body == content, "not answered"

    @invariant()
    def versions_go_up(self) -> None:
        for number, node in enumerate(getattr(self, "nodes", [])):
            assert node.version >= self.highest[number], "a version went back"
            self.highest[number] = node.version

    def teardown(self) -> None:
        if hasattr(self, "nodes"):
            for reader in self.readers:
                reader.lose()
            self.long_caller.lose()
            for node in self.nodes:
                node.stop()
            self.folder.cleanup()


class PropertiesTests(SynchronousTestCase):
    def test_any_story(self) -> None:
        """A version never goes back, on a connection and over orderly restarts; an entity tag names one byte string, on
        all nodes; 304 is for who holds the current bytes; patches lead to just the document that their id names; and
        every reader has the last state a second after it is in the store."""
        run_state_machine_as_test(Machine, settings=stories)
