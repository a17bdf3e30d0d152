"""Properties of livestate as a whole, whatever its store, its clients and its clocks do.

Two nodes poll one simulated store, each with its own clock, and are restarted now and then, cleanly or not. Clients of
all kinds read from either node, and switch between them. Everything runs in one process with a simulated clock.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

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
from livestate.documents.snapshot import Snapshot
from livestate.documents.snapshot_store import SnapshotStore
from livestate.errors import DocumentMissing, SourceError
from livestate.formats.merge_patch import apply
from livestate.sources.api import ISource
from livestate.system.logs import LogFiles
from livestate.web.site_service import SiteService
from tests.codings import DECODERS
from tests.formats.test_event_stream import parsed
from tests.polling import SinglePoller
from tests.support import NOW, FakeReactor, ParsedResponse, parse_response, request, stories
from tests.web.resources.test_events import Connection
from tests.web.resources.test_websocket import FIELDS as WEBSOCKET
from tests.web.resources.test_websocket import TEXT, frames

#: Seconds: an interval, and a moment to notify the subscribers.
MAX_DELAY = 1.0 + 0.05

#: Seconds until a store that is back is noticed: the longest pause of the Poller, and a fetch.
MAX_RECOVERY = 2.0

SETTINGS = load_settings({"source": ["demo:"]})

members = st.recursive(
    st.sampled_from([None, True, 1, 1.0, "x", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
#: Documents. For most of them a patch is smaller than the whole; some are large, some have line ends.
documents = st.builds(
    lambda value, pad, layout: json.dumps({"value": value, "pad": "x" * pad}, **layout).encode(),
    st.dictionaries(st.sampled_from("abcd"), members, max_size=3) | st.integers(0, 3) | members,
    st.sampled_from([200] * 8 + [0, 70_000]),
    st.sampled_from([{}, {}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}]),
)


def canonical(value: Any) -> str:
    """Return a parsed document in a canonical form in which 1, 1.0 and true remain distinct."""
    return json.dumps(value, sort_keys=True)


@implementer(ISource)
class Store:
    """The store that both nodes poll."""

    def __init__(self) -> None:
        self.content = b"{}"
        self.fault = "none"

    async def fetch(self) -> bytes:
        if self.fault == "away":
            raise SourceError("away")
        if self.fault == "missing":
            raise DocumentMissing("missing")
        return b"{" if self.fault == "bad" else self.content

    def close(self) -> None:
        pass


class Node:
    """One livestate, from a start until it is restarted."""

    def __init__(self, store: Store, directory: Path, now: float) -> None:
        self.reactor = FakeReactor(now)
        self.directory = directory
        self.document = Document(self.reactor, "/", 2**24)
        #: The canonical document of each version.
        self.versions: dict[int, str] = {}
        self.document.subscribe(self._record)
        snapshot_store = SnapshotStore(self.reactor, self.document, directory)
        poller = SinglePoller(self.document, store, 1.0, self.reactor)
        self.serving = SiteService(self.reactor, SETTINGS, [poller], LogFiles())
        self.parts = self.serving, poller, snapshot_store
        for part in self.parts:
            part.startService()

    @property
    def version(self) -> int:
        return 0 if self.document.snapshot is None else self.document.snapshot.version

    @property
    def body(self) -> bytes | None:
        return None if self.document.snapshot is None else self.document.snapshot.body

    def request(self, **fields: str) -> ParsedResponse:
        connection = Connection(self.serving.site, request("/", **fields))
        response = parse_response(connection.transport.value())
        connection.lose()
        return response

    def stop(self) -> None:
        for part in self.parts:
            part.stopService()

    def _record(self, snapshot: Snapshot) -> None:
        text = canonical(json.loads(snapshot.body))
        assert self.versions.setdefault(snapshot.version, text) == text, "one version is two documents"
        TAGS[snapshot.tag] = text


#: The canonical document of each tag, on either node.
TAGS: dict[bytes, str] = {}


class Subscriber:
    """A subscriber, on one connection after another."""

    def __init__(self, target: str) -> None:
        self.fields: dict[str, str] = {}
        self._target = target
        self.value: Any = None
        self.connection: Connection | None = None
        self._consumed = 0
        self._version = 0

    def connect(self, node: Node) -> None:
        self.lose()
        self.node = node
        self._consumed = self._version = 0
        self.connection = Connection(node.serving.site, request(self._target, **self.fields))

    def lose(self) -> None:
        """Lose the connection, after reading what has arrived."""
        if self.connection is not None:
            self.read()
            self.connection.channel.connectionLost(Failure(ConnectionLost()))
            self.connection = None

    def pause(self) -> None:
        """Stop reading from the connection."""
        if self.connection is not None:
            self.connection.transport.room = 0

    def resume(self) -> None:
        """Read everything that is waiting and that arrives."""
        if self.connection is not None:
            self.connection.transport.make_room(1 << 30)
            self.read()

    def read(self) -> None:
        raise NotImplementedError

    def assert_newer(self, version: int) -> None:
        assert version > self._version, "a version went back or came twice on one connection"
        self._version = version


class EventSubscriber(Subscriber):
    """A subscriber by server-sent events."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.event_id: str | None = None

    def connect(self, node: Node) -> None:
        self.lose()
        self.fields = {} if self.event_id is None else {"last_event_id": self.event_id}
        super().connect(node)

    @property
    def stream(self) -> bytes:
        """The body so far: the content of all complete chunks."""
        assert self.connection is not None
        body, whole = parse_response(self.connection.transport.value()).body, b""
        while size := re.match(rb"([0-9a-f]+)\r\n", body):
            end = size.end() + int(size[1], 16)
            if len(body) < end + 2:
                break
            whole, body = whole + body[size.end() : end], body[end + 2 :]
        return whole

    def read(self) -> None:
        events = parsed(self.stream)[0]
        for kind, event_id, data in events[self._consumed :]:
            self.event_id = event_id
            version, _, tag = event_id.partition("-")
            self.assert_newer(int(version))
            content = json.loads(data)
            self.value = apply(self.value, content) if kind == "patch" else content
            assert canonical(self.value) == TAGS[tag.encode()], "the state is not the one that the event id names"
        self._consumed = len(events)


class LibrarySubscriber(EventSubscriber):
    """The same with livestate.client, which waits a while before it accepts a server whose clock is behind."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._state = ClientState(self._changed)

    def connect(self, node: Node) -> None:
        self.lose()
        self.event_id = self._state.event_id
        self._events = EventStreamReader(self._state, 2**24, node.reactor)
        super().connect(node)

    def read(self) -> None:
        stream = self.stream
        self._events.feed(stream[self._consumed :])
        self._consumed = len(stream)

    def _changed(self, state: State) -> None:
        self.value = state.value


class WebSocketSubscriber(Subscriber):
    """A subscriber by WebSocket."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.fields = WEBSOCKET

    def read(self) -> None:
        """Read all complete frames."""
        assert self.connection is not None
        data = self.connection.transport.value().partition(b"\r\n\r\n")[2]
        if self.connection.transport.waiting:
            return
        messages = [json.loads(payload) for opcode, payload in frames(data) if opcode == TEXT]
        for message in messages[self._consumed :]:
            self.assert_newer(message["version"])
            self.value = apply(self.value, message["patch"]) if "patch" in message else message["state"]
            assert canonical(self.value) == self.node.versions[message["version"]], (
                "the state is not the one of its version"
            )
        self._consumed = len(messages)


class Client:
    """A client that requests the document, immediately or with a long poll."""

    def __init__(self) -> None:
        self.etag: str | None = None
        self.body: bytes | None = None
        self.pending: Connection | None = None

    @property
    def _validator(self) -> dict[str, str]:
        return {} if self.etag is None else {"if_none_match": self.etag}

    def request(self, node: Node, coding: str, etags: dict[str, bytes]) -> None:
        if node.body is not None:
            self.receive(node.request(accept_encoding=coding, **self._validator), node, etags)

    def long_poll(self, node: Node, etags: dict[str, bytes]) -> None:
        """Start a long poll; the previous one is answered by now, or abandoned."""
        self.check(node, etags)
        self.lose()
        if node.body is not None:
            fields = {"prefer": "wait=30", "accept_encoding": "gzip", **self._validator}
            self.pending = Connection(node.serving.site, request("/", **fields))

    def check(self, node: Node, etags: dict[str, bytes]) -> None:
        """Read the response to the long poll, if it has arrived."""
        if self.pending is not None and self.pending.transport.value():
            self.receive(parse_response(self.pending.transport.value()), node, etags, at_once=False)
            self.lose()

    def lose(self) -> None:
        if self.pending is not None:
            self.pending.lose()
            self.pending = None

    def receive(self, response: ParsedResponse, node: Node, etags: dict[str, bytes], at_once: bool = True) -> None:
        etag = response.fields["ETag"]
        if response.status == 304:
            assert etag == self.etag or not at_once, "not the entity tag of the request"
            assert not at_once or self.body == node.body, "304, although the client does not have the current bytes"
            return
        assert response.status == 200, response
        assert etags.setdefault(etag, response.body) == response.body, "an entity tag names two byte strings"
        self.etag = etag
        self.body = DECODERS[response.fields.get("Content-Encoding", "identity")](response.body)
        if at_once:
            assert self.body == node.body, "not the current document"


class Machine(RuleBasedStateMachine):
    """Two nodes, their store and their clients."""

    @initialize(content=documents)
    def start(self, content: bytes) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.store = Store()
        self.store.content = content
        self.healthy = 0.0
        self.etags: dict[str, bytes] = {}
        TAGS.clear()
        for number in (0, 1):
            (Path(self.directory.name) / str(number)).mkdir()
        self.nodes = [Node(self.store, Path(self.directory.name) / str(n), NOW) for n in (0, 1)]
        self.highest = [0, 0]
        self.subscribers = [
            EventSubscriber("/events?delta=merge"), EventSubscriber("/events"), LibrarySubscriber("/events?delta=merge"),
            WebSocketSubscriber("/events?delta=merge"), WebSocketSubscriber("/events"),
        ]  # fmt: skip
        self.client, self.long_poll_client, self.long_poll_node = Client(), Client(), self.nodes[0]

    @rule(contents=st.lists(documents, min_size=1, max_size=4), seconds=st.sampled_from([1.0, 1.0, 0.3]))
    def change(self, contents: list[bytes], seconds: float) -> None:
        for content in contents:
            self.store.content = content
            self.wait(seconds)

    @rule(fault=st.sampled_from(["none", "away", "missing", "bad"]))
    def fail(self, fault: str) -> None:
        self.store.fault = fault
        self.healthy = 0.0

    @rule(seconds=st.sampled_from([0.3, 1.0, 2.5]))
    def wait(self, seconds: float) -> None:
        for node in self.nodes:
            node.reactor.run_for(seconds)
        self.healthy += seconds

    @rule(node=st.integers(0, 1))
    def connect_all(self, node: int) -> None:
        for subscriber in self.subscribers:
            subscriber.connect(self.nodes[node])

    @rule(who=st.integers(0, 4), node=st.integers(0, 1), meanwhile=st.lists(documents, max_size=3))
    def reconnect(self, who: int, node: int, meanwhile: list[bytes]) -> None:
        """Lose the connection, miss some changes, and reconnect to either node."""
        self.subscribers[who].lose()
        for content in meanwhile:
            self.store.content = content
            self.wait(1.0)
        self.subscribers[who].connect(self.nodes[node])

    @rule(who=st.integers(0, 4))
    def stop_reading(self, who: int) -> None:
        self.subscribers[who].pause()

    @rule(who=st.integers(0, 4))
    def resume_reading(self, who: int) -> None:
        self.subscribers[who].resume()

    @rule(nodes=st.lists(st.integers(0, 1), min_size=1, max_size=4),
          coding=st.sampled_from(["", "gzip", "br;q=0.5, zstd", "br"]))  # fmt: skip
    def request(self, nodes: list[int], coding: str) -> None:
        for node in nodes:
            self.client.request(self.nodes[node], coding, self.etags)
            self.wait(0.3)

    @rule(node=st.integers(0, 1))
    def long_poll(self, node: int) -> None:
        self.long_poll_node = self.nodes[node]
        self.long_poll_client.long_poll(self.long_poll_node, self.etags)

    @rule(node=st.integers(0, 1), orderly=st.booleans(), skew=st.sampled_from([0.0, 0.0, -3600.0, -0.001, 3600.0]))
    def restart(self, node: int, orderly: bool, skew: float) -> None:
        """Restart a node with another clock; after a power cut, with what was on disk."""
        old = self.nodes[node]
        for subscriber in self.subscribers:
            if subscriber.connection is not None and subscriber.node is old:
                subscriber.lose()
        if self.long_poll_node is old:
            self.long_poll_client.lose()
        before = old.version
        if orderly:
            old.stop()
        else:
            self.highest[node] = 0
        self.nodes[node] = new = Node(self.store, old.directory, old.reactor.seconds() + skew)
        assert not orderly or new.version >= before, "a version went back across a restart"
        self.long_poll_node = self.nodes[0]

    @rule(content=documents)
    def converge(self, content: bytes) -> None:
        """Assert that every client has what is in the store, a second after it is there or the store is back."""
        late = 0.0 if self.store.fault == "none" and self.healthy > MAX_RECOVERY else MAX_RECOVERY
        for number, subscriber in enumerate(self.subscribers):
            if subscriber.connection is None:
                subscriber.connect(self.nodes[number % 2])
            subscriber.resume()
        # The first long poll may be answered at once.
        self.long_poll(0)
        self.long_poll(0)
        pending = self.long_poll_client.pending
        self.store.content, self.store.fault = content, "none"
        self.wait(late + MAX_DELAY)
        expected = canonical(json.loads(content))
        for node in self.nodes:
            assert node.body == content, "the store was not polled in time"
        for subscriber in self.subscribers:
            subscriber.read()
            if isinstance(subscriber, LibrarySubscriber) and canonical(subscriber.value) != expected:
                # The next heartbeat brings it, once the client accepts the older clock.
                subscriber.node.reactor.run_for(ACCEPT_OLDER_AFTER + 15, step=0.5)
                subscriber.read()
            assert canonical(subscriber.value) == expected, "not converged"
        self.long_poll_client.check(self.nodes[0], self.etags)
        if pending is not None:
            assert self.long_poll_client.body == content, "not answered"

    @invariant()
    def versions_increase(self) -> None:
        for number, node in enumerate(getattr(self, "nodes", [])):
            assert node.version >= self.highest[number], "a version went back"
            self.highest[number] = node.version

    def teardown(self) -> None:
        if hasattr(self, "nodes"):
            for subscriber in self.subscribers:
                subscriber.lose()
            self.long_poll_client.lose()
            for node in self.nodes:
                node.stop()
            self.directory.cleanup()


class PropertiesTests(SynchronousTestCase):
    def test_any_story(self) -> None:
        """In any story, on a connection and across clean restarts, versions never go back. An entity tag names one byte
        string on all nodes. Only a client with the current bytes gets a 304. Patches lead to exactly the document that
        their id names. Every client has the last state a second after it is in the store."""
        run_state_machine_as_test(Machine, settings=stories)
