"""WebSocket with a real livestate whose Redis changes, and with a client of another make, over HTTP and HTTPS."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from livestate.formats.merge_patch import apply
from tests.integration.events import TIMEOUT, EventReader, document
from tests.integration.processes import TERMINATED, memory, until
from tests.integration.servers import Livestate, RedisServer
from tests.web.resources.test_websocket import FIELDS, TEXT, frame, frames

#: As header names are given to `EventReader`.
UPGRADE: dict[str, Any] = {name.title(): value for name, value in FIELDS.items()}

T = TypeVar("T")


class Client:
    """One connection of the `websockets` package. Its asyncio client, run while it is waited for.

    Its other client reads in a thread while it writes in another, and Python's ssl module does not always bear that:
    one TLS connection of a thousand then hangs.
    """

    def __init__(self, case: SynchronousTestCase, url: str, context: ssl.SSLContext | None, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        case.addCleanup(self._loop.close)
        self.connection = self.run(self._connect(url, context, more))
        case.addCleanup(self.close)

    @staticmethod
    async def _connect(url: str, context: ssl.SSLContext | None, more: dict[str, Any]) -> Any:
        return await connect(url, ssl=context, open_timeout=TIMEOUT, ping_interval=None, **more)

    def run(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait."""
        return self._loop.run_until_complete(asyncio.wait_for(waiting, TIMEOUT))

    def receive(self, count: int = 1) -> list[Any]:
        """Give the next messages."""
        return [json.loads(self.run(self.connection.recv())) for _ in range(count)]

    def closed(self) -> int | None:
        """Wait for the end, and give the status in the server's close frame."""
        try:
            while True:
                self.run(self.connection.recv())
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def close(self) -> None:
        """Close the connection."""
        self.run(self.connection.close())


class WebSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = RedisServer(self)
        self.store.set(document(1))
        self.service = self.start("--heartbeat=1")

    def start(self, *options: str) -> Livestate:
        """Start a livestate of the store."""
        service = Livestate(self, f"--source={self.store.url}", "--interval=0.05", *options, https="")
        service.until_served()
        return service

    def connect(self, target: str = "/events", https: bool = False, **more: Any) -> Client:
        """Connect one."""
        base = self.service.https if https else self.service.http
        context = ssl.create_default_context(cafile=str(self.service.cafile)) if https else None
        return Client(self, base.replace("http", "ws") + target, context, **more)

    def change(self, version: int, **more: Any) -> None:
        """Set the key, and wait until that is served."""
        self.store.set(document(version, **more))
        until(lambda: self.service.get().json()["version"] == version, f"version {version}")

    def test_changes_reach_everyone(self) -> None:
        """Each change of the key reaches readers over HTTP and HTTPS, of states and of patches."""
        clients = [
            (self.connect(target, https), target)
            for target in ("/events", "/events?delta=merge")
            for https in (False, True)
        ]
        before = [client.receive(1)[0] for client, _ in clients]
        self.assertEqual(self.service.status()["websocket_readers"], 4)
        self.assertEqual(self.service.status()["event_readers"], 0)
        for version in range(2, 5):
            self.change(version)
        for (client, target), first in zip(clients, before, strict=True):
            self.assertEqual(first["state"], json.loads(document(1)))
            state, versions = first["state"], [first["version"]]
            for number, message in enumerate(client.receive(3), 2):
                versions.append(message.pop("version"))
                [(kind, value)] = message.items()
                self.assertEqual(kind, "patch" if "delta" in target else "state")
                state = apply(state, value) if kind == "patch" else value
                self.assertEqual(state, json.loads(document(number)))
            self.assertEqual(versions, sorted(set(versions)))

    def test_pings(self) -> None:
        """Both sides' pings are answered, and clients close in an orderly way."""
        for https in (False, True):
            client = self.connect(https=https)

            async def ping(client: Client = client) -> None:
                await (await client.connection.ping())

            client.run(ping())
            client.run(asyncio.sleep(2.5))
            self.change(2 + https)
            client.receive(2)
            client.close()
            self.assertEqual(client.connection.close_code, 1000)
        until(lambda: self.service.status()["websocket_readers"] == 0, "all are gone")

    def test_slow_reader(self) -> None:
        """A reader who does not read is a few versions behind when it does, and the last is the newest."""
        slow = [self.reader(https=https, receive=4096) for https in (False, True)]
        quick = self.connect()
        quick.receive(1)
        for version in range(2, 80):
            self.store.set(document(version, 1000))
            quick.receive(1)
        until(lambda: self.service.status()["events_skipped"] > 80, "messages are skipped")
        for reader in slow:
            versions: list[int] = []
            while versions[-1:] != [79]:
                self.assertTrue(reader.read())
                with contextlib.suppress(AssertionError, IndexError):  # a frame that is not whole yet
                    versions = [
                        json.loads(text)["state"]["version"] for kind, text in self.sent(reader) if kind == TEXT
                    ]
            self.assertEqual(versions, sorted(versions))
            self.assertLess(len(versions), 40)

    def test_flood(self) -> None:
        """What a client says is read past: it costs no memory, and the messages go on."""
        for https in (False, True):
            reader = self.reader(https=https)
            before = memory(self.service.pid)
            piece = (frame(TEXT, b"x" * 4000) + frame(9, b"ping")) * 16
            for _ in range(16 * 32):
                reader.socket.sendall(piece)
                if len(reader.received) < 32_000_000:
                    reader.read()
            self.assertLess(memory(self.service.pid) - before, 16 * 1024 * 1024)
            self.change(2 + https)
            reader.until(lambda reader=reader, n=2 + https: b'"state":{"version": %d' % n in reader.received)  # type: ignore[misc]
            reader.socket.close()

    def test_pings_and_reads_nothing(self) -> None:
        """One who pings and reads nothing has no pongs piled up for it."""
        reader = self.reader(receive=4096)
        before = memory(self.service.pid)
        reader.socket.settimeout(1)
        piece = frame(9, b"x" * 125) * 500
        with contextlib.suppress(TimeoutError):
            for _ in range(500):
                reader.socket.sendall(piece)
        self.assertLess(memory(self.service.pid) - before, 8 * 1024 * 1024)

    def test_too_large(self) -> None:
        """A client that says too much is told so, and let go."""
        for https in (False, True):
            client = self.connect(https=https)
            client.run(client.connection.send("x" * 1_000_000))
            self.assertEqual(client.closed(), 1009)
        until(lambda: self.service.status()["websocket_readers"] == 0, "all are gone")

    def test_stop(self) -> None:
        """At SIGTERM clients are told that the server goes away (1001)."""
        clients = [self.connect(https=https) for https in (False, True)]
        for client in clients:
            client.receive(1)
        self.assertEqual(self.service.stop(), TERMINATED)
        for client in clients:
            self.assertEqual(client.closed(), 1001)
        self.assertNotIn("Traceback", self.service.log)

    def test_origins(self) -> None:
        """Pages of other origins than those named are refused, and those of the server's own are not."""
        self.service = self.start("--cors-origin=https://a.example")
        for origin in ("https://a.example", self.service.http, None):
            self.connect(origin=origin).receive()
        with self.assertRaises(InvalidStatus) as caught:
            self.connect(origin="https://b.example")
        self.assertEqual(caught.exception.response.status_code, 403)

    def test_bad_handshakes(self) -> None:
        """A handshake of another version is answered 426 with the one that is spoken, a broken one 400."""
        for wrong, status in (({"Sec_Websocket_Version": "8"}, 426), ({"Sec_Websocket_Key": "x"}, 400)):
            reader = EventReader(self, self.service, **{**UPGRADE, **wrong})
            reader.until(lambda reader=reader: reader.received.endswith(b"}"))  # type: ignore[misc]
            self.assertTrue(reader.head.startswith(f"HTTP/1.1 {status} "), reader.head)
            self.assertEqual("\r\nSec-Websocket-Version: 13" in reader.head, status == 426)

    def test_comes_and_goes(self) -> None:
        """Hundreds who come and go, politely or not, leave nothing behind."""
        for n in range(300):
            reader = EventReader(self, self.service, https=n % 10 == 0, **UPGRADE)
            if n % 3:
                reader.read()
            if n % 5 == 0:
                reader.socket.sendall(frame(8) if n % 2 else frame(3) * 2)
            reader.socket.close()
        until(lambda: self.service.status()["websocket_readers"] == 0, "all are gone")
        self.assertNotIn("Traceback", self.service.log)

    def test_access_log(self) -> None:
        """A WebSocket has its line in the access log when it ends."""
        log = self.service.folder / "access.log"
        self.service = self.start(f"--access-log={log}")
        client = self.connect(user_agent_header="socket")
        client.receive(1)
        client.close()
        until(lambda: '"socket"' in log.read_text(), "the line")
        [line] = [line for line in log.read_text().splitlines() if '"socket"' in line]
        self.assertRegex(line, r'"GET /events HTTP/1.1" 101 \d{3,} ')

    def reader(self, **more: Any) -> EventReader:
        """Connect one that speaks for itself, and wait for its first message."""
        reader = EventReader(self, self.service, **more, **UPGRADE)
        reader.until(lambda: b'"state":' in reader.received)
        self.assertTrue(reader.head.startswith("HTTP/1.1 101 "), reader.head)
        return reader

    @staticmethod
    def sent(reader: EventReader) -> list[tuple[int, bytes]]:
        """Give the frames that a reader of its own make was sent."""
        found: list[tuple[int, bytes]] = frames(reader.received.partition(b"\r\n\r\n")[2])
        return found
