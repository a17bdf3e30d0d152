"""Whatever happens to a service, the fast path responds as twisted.web does."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.support import stories
from tests.web.http1.test_channel import streams
from tests.web.http1.twins import BODY, Connections, Twins

PATHS = st.sampled_from(["/", "/results.json"])

#: Fields that polling clients send in addition to their validator.
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Accept-Encoding: gzip", b"accept-encoding: br;q=0.2, zstd", b"Accept-Encoding: identity;q=0",
            b"Origin: https://a.example", b"Origin: https://c.example", b"Cookie: a=b", b"Connection: keep-alive",
        ]
    ),
    max_size=2,
)  # fmt: skip


#: The number of a client. A client whose connection was closed reconnects.
WHO = st.integers(0, 2)


class Machine(RuleBasedStateMachine):
    """Three clients that use both sites of a service."""

    @initialize(all_origins=st.booleans())
    def set_up(self, all_origins: bool) -> None:
        self.twins = Twins(cors_origin="*" if all_origins else "https://a.example", max_stale="50")
        self.clients: dict[int, Connections] = {}
        self.drained = False

    def client(self, who: int) -> Connections:
        if who not in self.clients or self.clients[who].closed:
            self.disconnect(who)
            self.clients[who] = Connections(self.twins)
        return self.clients[who]

    @rule(who=WHO, path=PATHS, fields=FIELDS, etags=st.lists(st.integers(0, 5), min_size=1, max_size=6),
          cut=st.just(0) | st.integers(0, 99))  # fmt: skip
    def poll(self, who: int, path: str, fields: list[bytes], etags: list[int], cut: int) -> None:
        """Request a document several times, as pages do, with or without a current validator."""
        current = self.twins.etags()[path]
        for tag in etags:
            validator = [b"If-None-Match: " + current[tag]] if tag < len(current) else []
            data = self.request(path, *fields, *validator)
            self.client(who).send(data[:cut])
            self.client(who).send(data[cut:])

    @rule(who=WHO, path=PATHS, fields=FIELDS, validated=st.booleans(),
          between=st.sampled_from(["nothing", "change", "second", "stop_reading"]))  # fmt: skip
    def repeat(self, who: int, path: str, fields: list[bytes], validated: bool, between: str) -> None:
        """Send exactly the same request repeatedly, one by one and pipelined, with an event in between."""
        tag = next(iter(self.twins.etags()[path]), b'"x"')
        data = self.request(path, *fields, *[b"If-None-Match: " + tag] * validated)
        for _ in range(4):
            self.client(who).send(data)
        if between == "change":
            self.change(path, 9, False)
        elif between == "second":
            self.second()
        elif between == "stop_reading":
            self.stop_reading(who)
        self.client(who).send(data)
        self.client(who).send(data * 3)

    @rule(who=WHO, path=PATHS, wait=st.sampled_from([b"0", b"2", b"60"]), pipelined=st.booleans())
    def poll_long(self, who: int, path: str, wait: bytes, pipelined: bool) -> None:
        """Send a long poll, perhaps with another request behind it."""
        tag = next(iter(self.twins.etags()[path]), b'"x"')
        data = self.request(path, b"If-None-Match: " + tag, b"Prefer: wait=" + wait)
        self.client(who).send(data + self.request(path) * pipelined)

    @rule(who=WHO, path=PATHS, fields=FIELDS)
    def poll_last(self, who: int, path: str, fields: list[bytes]) -> None:
        """Send a request that closes the connection, and another one behind it."""
        self.client(who).send(self.request(path, b"Connection: close", *fields) + self.request(path))

    @rule(who=WHO, path=st.sampled_from(["/events", "/events?delta=merge", "/results.json/events"]))
    def subscribe(self, who: int, path: str) -> None:
        self.client(who).send(self.request(path))

    @rule(who=WHO, pieces=streams())
    def send_anything(self, who: int, pieces: list[bytes]) -> None:
        connection = self.client(who)
        for piece in pieces:
            connection.send(piece)

    @rule(who=WHO)
    def stop_reading(self, who: int) -> None:
        self.client(who).stop_reading()

    @rule(who=WHO)
    def read(self, who: int) -> None:
        self.client(who).read()

    @rule(who=WHO)
    def disconnect(self, who: int) -> None:
        connection = self.clients.pop(who, None)
        if connection is not None:
            self.compare(connection)
            connection.read()
            self.compare(connection)
            connection.lose()

    @rule(path=PATHS, number=st.integers(0, 3), large=st.booleans())
    def change(self, path: str, number: int, large: bool) -> None:
        """Publish a new version of a document, or an earlier one."""
        pad = b" " * 70_000 if large and number == 3 else b""
        self.twins.publish(path, BODY.replace(b"night", b"day %d" % number) + pad)

    @rule()
    def second(self) -> None:
        self.twins.confirm()
        self.twins.reactor.advance(1)

    @rule()
    def outage(self) -> None:
        """Let the store be down for so long that the documents are too old to be served."""
        self.twins.reactor.run_for(70, step=1.0)

    @precondition(lambda self: not self.drained)
    @rule(chance=st.integers(0, 9))
    def drain(self, chance: int) -> None:
        if chance == 9:
            self.drained = True
            self.twins.drain()

    def request(self, path: str, *fields: bytes) -> bytes:
        return b"\r\n".join([b"GET %b HTTP/1.1" % path.encode(), b"Host: h", *fields, b"", b""])

    def compare(self, connection: Connections) -> None:
        fast, slow = connection.outcomes()
        assert fast == slow, (fast, slow)

    def teardown(self) -> None:
        if not hasattr(self, "twins"):
            return
        for who in list(self.clients):
            self.disconnect(who)
        self.twins.close()
        assert not self.twins.failures, self.twins.failures


class TwinsTests(SynchronousTestCase):
    def test_any_history(self) -> None:
        """Both sites send the same bytes except for Date, whatever clients send, however it is split, and whether they
        read; while documents appear, change and grow too old, time passes, and the service drains."""
        run_state_machine_as_test(Machine, settings=stories)

    def test_twins_respond(self) -> None:
        """Both sites do respond: in a simple history, every response is there."""
        twins = Twins()
        self.addCleanup(twins.close)
        connection: Any = Connections(twins)
        connection.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 4)
        fast, slow = connection.outcomes()
        self.assertEqual(fast, slow)
        self.assertEqual(fast[0].count(BODY), 4)
        self.assertEqual(
            (len(twins.fast_site.connections.request_memo), len(twins.slow_site.connections.request_memo)), (1, 0)
        )
        connection.lose()
