"""WebSocket: what clients are sent, and the effects of anything that they send."""

import gc
import json
import struct
import weakref
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from livestate.formats.merge_patch import apply
from livestate.formats.negotiation import may_connect
from livestate.web.idle_timeout import QUIET, IdleTimeouts
from livestate.web.resources.events import EventsResource
from livestate.web.resources.websocket import MAX_MESSAGE, WebSockets, WebSocketSubscriber
from livestate.web.site import LiveSite
from livestate.web.streams.subscriber import STUCK
from tests.support import exchange, many, parse_response, request
from tests.web.resources.test_events import Case, Connection, state

#: RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec_websocket_key": KEY,
    "sec_websocket_version": "13",
}

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", last: bool = True, mask: bytes | None = b"\1\2\3\4") -> bytes:
    """Return a client's frame (RFC 6455 section 5.2)."""
    first, masked, size = opcode | last << 7, 0 if mask is None else 0x80, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Parse a server's frames, which must be complete and not masked; return the opcode and payload of each."""
    found = []
    while data:
        first, size = data[0], data[1]
        assert first & 0xF0 == 0x80, "a final frame, without extensions"
        data = data[2:]
        if size == 126:
            size, data = struct.unpack("!H", data[:2])[0], data[2:]
        elif size == 127:
            size, data = struct.unpack("!Q", data[:8])[0], data[8:]
        assert len(data) >= size, "the frame is complete"
        found.append((first & 15, data[:size]))
        data = data[size:]
    return found


class Client(Connection):
    """The connection of one WebSocket client."""

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the frames that were sent after the handshake."""
        return frames(self.transport.value().partition(b"\r\n\r\n")[2])

    def messages(self) -> list[Any]:
        """Return the text messages."""
        return [json.loads(payload) for opcode, payload in self.frames() if opcode == TEXT]

    def numbers(self) -> list[int]:
        """Return the numbers of the documents in all messages, with each patch applied to the previous state."""
        value: Any = None
        numbers = []
        for message in self.messages():
            value = apply(value, message["patch"]) if "patch" in message else message["state"]
            numbers.append(value["number"])
        return numbers

    def send(self, *pieces: bytes) -> None:
        """Send data, until the server has closed the connection."""
        for piece in pieces:
            if not self.transport.disconnecting:
                self.channel.dataReceived(piece)

    def lose(self) -> None:
        """Disconnect."""
        self.channel.connectionLost(Failure(ConnectionLost()))

    @property
    def closed(self) -> int:
        """The status in the server's close frame, which must be the last frame."""
        opcode, payload = self.frames()[-1]
        assert opcode == CLOSE, self.frames()
        return int(struct.unpack("!H", payload[:2])[0])


class WebSocketCase(Case):
    def setUp(self) -> None:
        super().setUp()
        sockets = WebSockets(self.reactor, self.origins)
        self.site = LiveSite(
            {b"/events": EventsResource(self.responder, self.broadcast, sockets.upgrade)}, self.reactor
        )

    def client(self, target: str = "/events", *, data: bytes = b"", **more: str) -> Client:
        """Connect a client."""
        return Client(self.site, request(target, **{**FIELDS, **more}) + data)


class MessagesTests(WebSocketCase):
    """What a client is sent."""

    def test_handshake(self) -> None:
        """The response is RFC 6455's, and no extension or subprotocol is accepted, whatever is offered."""
        offers: list[dict[str, str]] = [
            {},
            {"sec_websocket_extensions": "permessage-deflate; bogus", "sec_websocket_protocol": "a, a"},
            {"upgrade": "h2c, WebSocket", "connection": "keep-alive, upgrade"},
        ]
        for more in offers:
            response = parse_response(Client(self.site, request("/events", **{**FIELDS, **more})).transport.value())
            self.assertEqual(response.status, 101)
            self.assertEqual(
                response.fields, {"Upgrade": "WebSocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
            )

    def test_state_and_changes(self) -> None:
        """A client is sent the state first and then each change, as text messages with their version."""
        client = self.client()
        first = self.version
        self.publish(state(2))
        expected = [b'{"version":%b,"state":%b}' % (v.encode(), state(n)) for n, v in ((1, first), (2, self.version))]
        self.assertEqual(client.frames(), [(TEXT, text) for text in expected])
        self.publish(state(2))
        self.assertEqual(client.numbers(), [1, 2])

    def test_sizes(self) -> None:
        """Documents of any size are sent as one frame."""
        client = self.client("/events?delta=merge")
        for number, size in enumerate((0, 60, 125, 126, 65535, 65536, 200_000)):
            self.publish(b'{"number": %d, "x": "%b"}' % (number, b"x" * size))
        self.assertEqual(client.numbers()[1:], list(range(7)))

    def test_deltas(self) -> None:
        """With `delta=merge` a change is sent as a patch if that is smaller, and otherwise as the state."""
        client, plain = self.client("/events?delta=merge"), self.client()
        self.publish(state(2))
        self.publish(b'{"number": 3}')
        self.publish(state(4, member=None))
        self.publish(state(5, member=None))
        self.assertEqual(
            [next(k for k in message if k != "version") for message in client.messages()],
            ["state", "patch", "state", "state", "patch"],
        )
        self.assertEqual(client.numbers(), [1, 2, 3, 4, 5])
        self.assertEqual(plain.numbers(), [1, 2, 3, 4, 5])
        versions = [message["version"] for message in client.messages()]
        self.assertEqual(versions, [message["version"] for message in plain.messages()])

    def test_same_bytes(self) -> None:
        """The frame of a change is made once: the same object is written to all clients."""
        written: list[bytes] = []
        for _ in range(50):
            self.client().channel.stream.write = written.append  # type: ignore[union-attr]
        self.publish(state(2))
        self.assertEqual(len(written), 50)
        self.assertEqual(len(set(map(id, written))), 1)

    def test_heartbeat(self) -> None:
        """An idle client is sent a ping."""
        client = self.client()
        self.reactor.run_for(17, step=0.25)
        self.assertEqual(client.frames()[1:], [(PING, b"")])
        client.send(frame(PONG))
        self.publish(state(2))
        self.assertEqual(client.numbers(), [1, 2])

    def test_slow_client_skips_versions(self) -> None:
        """A client with unsent data is sent nothing more, and later only the newest version."""
        client = self.client()
        client.transport.room = 100
        for number in range(2, 50):
            self.publish(state(number))
            self.assertLess(len(client.transport.waiting), 600)
        client.transport.make_room(10**6)
        self.assertEqual(client.numbers(), [1, 2, 49])

    def test_stuck_client(self) -> None:
        """A client that reads nothing for half a minute is disconnected."""
        client = self.client()
        client.transport.room = 100
        self.publish(state(2))
        self.reactor.run_for(STUCK - 2, step=0.5)
        self.assertFalse(client.transport.aborted)
        self.reactor.run_for(5, step=0.5)
        self.assertTrue(client.transport.aborted)

    def test_stop(self) -> None:
        """When the service stops, clients are sent a close frame ("going away", 1001), or disconnected if too slow."""
        client, behind = self.client(), self.client()
        behind.transport.room = 10
        self.publish(state(2))
        self.streams.stopService()
        self.assertEqual(client.closed, 1001)
        self.assertTrue(client.transport.disconnecting)
        self.assertTrue(behind.transport.aborted)
        self.streams.startService()

    def test_counts(self) -> None:
        """WebSocket clients are counted separately from subscribers of event streams."""
        self.client()
        gone = self.client("/events?delta=merge")
        self.subscriber()
        self.assertEqual(self.broadcast.subscriber_counts()["websocket_readers"], 2)
        self.assertEqual(self.broadcast.subscriber_counts()["event_readers"], 1)
        gone.lose()
        self.assertEqual(self.broadcast.subscriber_counts()["websocket_readers"], 1)

    def test_idle_timeout(self) -> None:
        """A WebSocket has no idle timeout."""
        idle_timeouts = IdleTimeouts(self.reactor, lambda: self.site.connections.open)
        idle_timeouts.startService()
        self.addCleanup(idle_timeouts.stopService)
        client = self.client()
        self.reactor.run_for(6 * QUIET * 5.0, step=1)
        self.assertFalse(client.transport.disconnecting)

    def test_no_reference_cycle(self) -> None:
        """When a client disconnects, all of its memory is freed at once, without the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        for last in (b"", frame(CLOSE), frame(3)):
            client = self.client()
            client.send(frame(PING), last)
            subscriber = client.channel.stream
            assert isinstance(subscriber, WebSocketSubscriber)
            references = weakref.ref(client.channel), weakref.ref(subscriber._protocol)
            client.lose()
            client.transport.producer = None
            del client, subscriber
            self.assertEqual([reference() for reference in references], [None, None], last)


class HandshakeTests(WebSocketCase):
    """Handshakes that are refused or ignored."""

    def test_refused(self) -> None:
        """A bad handshake is answered with an error, and the connection continues as HTTP."""
        for status, changes in (
            (426, {"sec_websocket_version": "8"}),
            (426, {"sec_websocket_version": "14"}),
            (426, {"sec_websocket_version": "13, 13"}),
            (426, {"sec_websocket_version": None}),
            (400, {"sec_websocket_key": None}),
            (400, {"sec_websocket_key": "short"}),
            (400, {"sec_websocket_key": f"{KEY}, {KEY}"}),
            (400, {"sec_websocket_key": "é" * 22 + "=="}),
            (400, {"connection": None}),
            (400, {"connection": "keep-alive"}),
        ):
            fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
            client = Client(self.site, request("/events", **fields))
            response = parse_response(client.transport.value())
            with self.subTest(changes):
                self.assertEqual(response.status, status)
                self.assertEqual(json.loads(response.body)["status"], status)
                if status == 426:
                    self.assertEqual(response.fields["Upgrade"], "websocket")
                    self.assertEqual(response.fields["Sec-Websocket-Version"], "13")
                    self.assertTrue(client.transport.value().startswith(b"HTTP/1.1 426 Upgrade Required\r\n"))
                client.transport.clear()
                client.send(request("/events", "HEAD"))
                self.assertEqual(parse_response(client.transport.value()).status, 200)
                self.assertEqual(self.broadcast.subscriber_counts()["websocket_readers"], 0)

    def test_two_keys(self) -> None:
        """A handshake with a repeated field is refused."""
        twice = request("/events", **FIELDS)[:-2] + f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        self.assertEqual(parse_response(exchange(self.site, twice)).status, 400)

    def test_no_upgrade(self) -> None:
        """Other upgrades, and any in HTTP/1.0, are ignored; other methods are answered as usual."""
        self.assertEqual(self.client(upgrade="h2c").events()[0][2], state(1).decode())
        old = Client(self.site, request("/events", **FIELDS).replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertTrue(old.transport.value().startswith(b"HTTP/1.0 200 "))
        for method, status in (("POST", 405), ("HEAD", 200), ("OPTIONS", 204)):
            response = parse_response(exchange(self.site, request("/events", method, **FIELDS)))
            self.assertEqual(response.status, status)

    def test_not_installed(self) -> None:
        """Without Autobahn the response says what to install."""
        site = LiveSite({b"/events": EventsResource(self.responder, self.broadcast)}, self.reactor)
        response = parse_response(exchange(site, request("/events", **FIELDS)))
        self.assertEqual(response.status, 501)
        self.assertIn("livestate[websocket]", json.loads(response.body)["detail"])

    def test_any_origin(self) -> None:
        """If all origins may read, all may connect, even those that are not URLs."""
        for origin in ("https://a.example", "null", "chrome-extension://abc", "nonsense"):
            self.assertEqual(parse_response(self.client(origin=origin).transport.value()).status, 101)


class OriginTests(WebSocketCase):
    """With a list of origins in `--cors-origin`."""

    origins = ("https://a.example",)

    def test_origins(self) -> None:
        """Pages of the listed origins and of the server's own may connect, and so may programs; others are refused."""
        for origin, status in (
            ("https://a.example", 101),
            ("http://live.example", 101),
            ("https://LIVE.example", 101),
            ("https://b.example", 403),
            ("https://live.example:8443", 403),
            ("https://a.example.evil.example", 403),
            ("null", 403),
            ("", 403),
            ("live.example", 403),
        ):
            response = parse_response(self.client(origin=origin).transport.value())
            self.assertEqual(response.status, status, origin)
        self.assertEqual(parse_response(self.client().transport.value()).status, 101)
        self.assertFalse(may_connect(b"https://", b"", ()))


class ClientTests(WebSocketCase):
    """What happens to data from clients."""

    def test_messages_are_discarded(self) -> None:
        """Messages, whole or fragmented, are discarded, and nothing of them is kept."""
        client = self.client(data=frame(TEXT, b"with the request"))
        client.send(frame(TEXT, b"x" * 100), frame(2, bytes(range(256))), frame(TEXT, "é".encode(), last=False))
        client.send(*[frame(0, b"", last=False)] * 10_000, frame(0))
        self.publish(state(2))
        self.assertEqual(client.numbers(), [1, 2])
        self.assertEqual(len(client.frames()), 2)
        subscriber = client.channel.stream
        assert isinstance(subscriber, WebSocketSubscriber)
        protocol = subscriber._protocol
        self.assertEqual((protocol.data, protocol.message_data, protocol.frame_data), (b"", [], None))

    def test_refused(self) -> None:
        """A protocol violation closes the connection with the right status, and no message follows."""
        for status, sent in (
            (1002, frame(TEXT, b"x", mask=None)),
            (1002, frame(3)),
            (1002, frame(PING, b"x" * 126)),
            (1002, frame(0, b"x")),
            (1007, frame(TEXT, b"\xff")),
            (1009, frame(TEXT, b"x" * (MAX_MESSAGE + 1))),
            (1009, frame(TEXT, b"x" * MAX_MESSAGE, last=False) + frame(0, b"x")),
        ):
            with self.subTest(status=status, sent=sent[:8]):
                client = self.client()
                client.send(sent)
                self.publish(state(self.document.changes + 5))
                self.assertEqual(client.closed, status)
                self.assertFalse(client.transport.disconnecting, "the server waits for the client's close frame")
                client.send(frame(CLOSE, struct.pack("!H", status)))
                self.assertTrue(client.transport.disconnecting)
                self.assertFalse(client.transport.aborted)
                client.lose()

    def test_endless_control_frame(self) -> None:
        """If a client keeps sending after a close frame, the data is not kept, and it is disconnected after half a minute."""
        client = self.client()
        # A ping of 2^40 bytes: Autobahn buffers control frames until they are complete.
        client.send(b"\x89\xff" + struct.pack("!Q", 1 << 40) + b"\1\2\3\4")
        subscriber = client.channel.stream
        assert isinstance(subscriber, WebSocketSubscriber)
        for _ in range(100):
            client.send(b"x" * 4096)
        buffered = sum(map(len, subscriber._protocol.control_frame_data or ())) + len(subscriber._protocol.data)
        self.assertLessEqual(buffered, MAX_MESSAGE + 4096)
        self.assertEqual(client.closed, 1002)
        self.reactor.run_for(STUCK + 3, step=0.5)
        self.assertTrue(client.transport.aborted)

    def test_close_frame_after_a_large_message(self) -> None:
        """After a message is refused, reading continues through the rest of it, however large, to the close frame."""
        client = self.client()
        message = frame(TEXT, b"x" * 2_000_000) + frame(PING, b"x" * 2000) + frame(CLOSE, b"\x03\xf1")
        client.send(*[message[start : start + 4096] for start in range(0, len(message), 4096)])
        self.assertEqual(client.closed, 1009)
        self.assertTrue(client.transport.disconnecting)

    def test_close(self) -> None:
        """A client's close frame is answered, and then the connection is closed."""
        for payload in (b"", b"\x03\xe8", b"\x03\xe9going"):
            client = self.client()
            client.send(frame(CLOSE, payload) + frame(TEXT, b"more"))
            self.publish(state(self.document.changes + 5))
            self.assertEqual([opcode for opcode, _ in client.frames()], [TEXT, CLOSE])
            self.assertTrue(client.transport.disconnecting)
            client.lose()
        self.assertEqual(self.broadcast.subscriber_counts()["websocket_readers"], 0)

    def test_close_while_slow(self) -> None:
        """A slow client that sends a close frame is sent no later version when it resumes reading."""
        client = self.client()
        client.transport.room = 100
        self.publish(state(2))
        client.send(frame(CLOSE))
        self.publish(state(3))
        client.transport.make_room(10**6)
        self.assertEqual([opcode for opcode, _ in client.frames()], [TEXT, TEXT, CLOSE])

    def test_pings(self) -> None:
        """Pings are answered. While data is unsent, only the last ping is answered, once there is room."""
        client = self.client()
        client.send(frame(PING, b"a"), frame(PING, b"b"))
        self.assertEqual(client.frames()[1:], [(PONG, b"a"), (PONG, b"b")])
        client.transport.room = 100
        self.publish(state(2))
        for number in range(10_000):
            client.send(frame(PING, b"%d" % number))
        self.publish(state(3))
        self.assertLess(len(client.transport.waiting), 600)
        client.transport.make_room(10**6)
        self.assertEqual(client.frames()[3:-1][1:], [(PONG, b"9999")])
        self.assertEqual(client.numbers(), [1, 2, 3])

    def test_pings_without_reading(self) -> None:
        """A client that sends pings and reads nothing has little unsent data, and is disconnected."""
        client = self.client()
        client.transport.room = 50
        for _ in range(10_000):
            client.send(frame(PING, b"x" * 125))
        self.assertLess(len(client.transport.waiting), 200)
        self.reactor.run_for(STUCK + 3, step=0.5)
        self.assertTrue(client.transport.aborted)

    @many
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(
                    frame,
                    st.integers(0, 15),
                    st.binary(max_size=200),
                    st.booleans(),
                    st.sampled_from([b"\1\2\3\4", b"\0\0\0\0", None]),
                ),
            ),
            max_size=8,
        ),
        st.integers(1, 400),
    )
    @example([frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"x")], 3)
    @example([frame(3), frame(3), frame(PING, b"x")], 400)
    def test_any_input(self, pieces: list[bytes], size: int) -> None:
        """Whatever a client sends, split anywhere, it is sent complete frames, with at most one close frame, at the end."""
        self.setUp()
        client, other = self.client("/events?delta=merge"), self.client()
        data = b"".join(pieces)
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
            self.publish(state(start + 100))
        opcodes = [opcode for opcode, _ in client.frames()]
        self.assertLessEqual(set(opcodes), {TEXT, CLOSE, PONG})
        self.assertNotIn(CLOSE, opcodes[:-1])
        if CLOSE not in opcodes:
            self.assertEqual(client.numbers(), other.numbers())
        client.lose()
        self.assertEqual(self.broadcast.subscriber_counts()["websocket_readers"], 1)
        self.streams.stopService()
        self.streams.startService()
