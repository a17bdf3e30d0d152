"""The readers of the mixed soak: one process of them, who check every byte that they get.

What goes wrong falls into two kinds. A *wrong* answer has no excuse at any time: bytes that were never published, a
version older than one that this connection had before, an entity tag that names two byte strings, a 304 or an answer to
a reader whose document is too old. A *broken* connection has one, if a worker was killed just then: those are noted
with their time, and the other side judges.
"""

import asyncio
import gzip
import json
import math
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import brotli
import zstandard

from livestate.formats.merge_patch import apply
from tests.soak.mixed_document import number_of, state

#: Seconds that anything may take: longer than a wait, a heartbeat or the replacement of a worker.
LIMIT = 40.0

CODINGS = ("", "identity", "gzip", "br", "zstd", "gzip, deflate, br, zstd", "gzip;q=0.5, br;q=0.4")

DECODE: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


class Broken(Exception):
    """The connection ended where it should not have."""


class Wrong(Exception):
    """An answer that has no excuse."""


class Ground:
    """What the readers of one process share.

    :param must: the number that every reader should have by now at least, shared with the publisher.
    :param published: when each document was published, on the monotonic clock, by its number modulo the length.
    """

    def __init__(self, ports: tuple[int, int], must: Any, published: Any, over: Any) -> None:
        self.ports = ports
        self.must, self.published, self.over = must, published, over
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.counts: Counter[str] = Counter()
        self.broken: list[tuple[float, str]] = []
        self.wrong: list[tuple[float, str]] = []
        self.delays: list[float] = []
        self.connections: set[Connection] = set()
        #: Seconds that this process was late at most. What it notes then, and while it makes up for it, is its own fault.
        self.late = 0.0
        self._late_until = 0.0
        self._meanings: dict[str, bytes] = {}

    def named(self, etag: str, body: bytes) -> None:
        """Note what an entity tag names."""
        if self._meanings.setdefault(etag, body) != body:
            raise Wrong(f"{etag} names two byte strings")

    def delivered(self, number: int) -> None:
        """Note when an event came."""
        self.delays.append(time.monotonic() - self.published[number % len(self.published)])

    def look_round(self, late: float) -> None:
        """Find connections on which nothing comes any more; `late` is how many seconds this process is just now."""
        now, must = time.monotonic(), self.must.value
        self.late = max(self.late, late)
        if late > 0.5:
            self._late_until = now + 5
        for connection in [*self.connections]:
            if connection.waits_since < now - LIMIT:
                self.wrong.append((now, f"nothing came for {LIMIT:.0f} s"))
                connection.close()
            if connection.streams_since < now - 5 and connection.last < must and now > self._late_until:
                self.wrong.append((now, f"a stream was left behind at {connection.last}, where {must} is due"))
                connection.close()


class Connection:
    """One strict connection."""

    def __init__(self, ground: Ground, tls: bool) -> None:
        self.ground, self._tls = ground, tls
        #: The number of the last document that came over it.
        self.last = -1
        #: Whether it was closed here, and is broken by that.
        self.closed = False
        #: When it began to wait for an answer; when it became a stream.
        self.waits_since = self.streams_since = math.inf

    async def open(self) -> None:
        """Connect."""
        context = self.ground.context if self._tls else None
        self.reader, self.writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", self.ground.ports[self._tls], ssl=context), LIMIT
        )
        self.ground.counts["connections"] += 1
        self.ground.connections.add(self)

    def close(self) -> None:
        """Close it."""
        self.closed = True
        self.ground.connections.discard(self)
        self.writer.close()

    def take(self, document: bytes) -> int:
        """Check a document, and give its number."""
        return self.moved_on(number_of(document))

    def moved_on(self, number: int) -> int:
        """See that the documents of this connection never go back."""
        if number < self.last:
            raise Wrong(f"{number} came after {self.last}")
        self.last = number
        return number

    async def ask(self, path: str, **fields: str) -> tuple[int, dict[str, str]]:
        """Send a request, and give its answer's status and fields, these in small letters."""
        lines = [f"GET {path} HTTP/1.1", "Host: live.example"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        # A limit of asyncio's on each read would be half of all the work here.
        self.waits_since = time.monotonic()
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *received = head.decode("ascii").split("\r\n")[:-2]
        return int(status.split()[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in received)
        }

    async def document(self, **fields: str) -> tuple[int, int, str]:
        """Ask for the document; give the status, the document's number, and its entity tag."""
        must = self.ground.must.value
        status, received = await self.ask("/", **fields)
        self.ground.counts[f"answers {status}"] += 1
        if status == 200:
            body = await self.reader.readexactly(int(received["content-length"]))
            self.ground.named(received["etag"], body)
            number = self.take(DECODE[received.get("content-encoding", "")](body))
            if number < must:
                raise Wrong(f"{number} is too old an answer, where {must} is due")
        elif status != 304:
            raise Wrong(f"status {status}")
        self.waits_since = math.inf
        return status, self.last, received["etag"]


async def poll(ground: Ground, connection: Connection) -> None:
    """Ask again and again, without a condition."""
    while not ground.over.value:
        await connection.document(Accept_Encoding=random.choice(CODINGS))
        await asyncio.sleep(random.uniform(1, 3))


async def revalidate(ground: Ground, connection: Connection, wait: str = "") -> None:
    """Ask again and again with the entity tag of what is there; with `wait`, be told of the next change."""
    coding = random.choice(CODINGS)
    _, _, etag = await connection.document(Accept_Encoding=coding)
    while not ground.over.value:
        must = ground.must.value
        status, number, etag = await connection.document(
            Accept_Encoding=coding, If_None_Match=etag, Prefer=f"wait={wait}" if wait else ""
        )
        if status == 304 and number < must:
            raise Wrong(f"304 to a reader who has {number}, where {must} is due")
        if not wait:
            await asyncio.sleep(random.uniform(1, 3))


async def long_poll(ground: Ground, connection: Connection) -> None:
    """Hold a request until the next change."""
    await revalidate(ground, connection, wait="20")


async def visit(ground: Ground, connection: Connection) -> None:
    """Ask once, and leave."""
    await connection.document(Accept_Encoding=random.choice(CODINGS))
    connection.close()
    await asyncio.sleep(random.uniform(4, 8))
    raise EOFError


async def follow(ground: Ground, connection: Connection, query: str = "") -> None:
    """Read the event stream."""
    status, fields = await connection.ask(f"/events{query}")
    if status != 200 or fields["content-type"] != "text/event-stream":
        raise Wrong(f"status {status} of the event stream")
    held: Any = None
    version = -1
    connection.streams_since = time.monotonic()
    event: dict[str, str] = {}
    waiting = b""
    while not ground.over.value:
        # A line at a time out of the chunks: our own check of both framings.
        while b"\n" not in waiting:
            connection.waits_since = time.monotonic()
            size = int(await connection.reader.readuntil(b"\r\n"), 16)
            if size == 0:
                raise Broken("the event stream ended")
            waiting += (await connection.reader.readexactly(size + 2))[:-2]
        line, _, waiting = waiting.partition(b"\n")
        name, _, value = line.decode().partition(": ")
        if name:
            event[name] = value
            continue
        if "data" in event:
            newer = int(event["id"].partition("-")[0])
            if newer <= version:
                raise Wrong(f"version {newer} came after {version}")
            version = newer
            if event.get("event") == "patch":
                held = apply(held, json.loads(event["data"]))
                connection.moved_on(held["n"])
                if held != state(held["n"]):
                    raise Wrong(f"patched to something else than {held['n']}")
                ground.counts["patches"] += 1
            else:
                held = state(connection.take(event["data"].encode()))
            ground.counts["events"] += 1
            if time.monotonic() > connection.streams_since + 3:
                ground.delivered(held["n"])
        event = {}


async def follow_patches(ground: Ground, connection: Connection) -> None:
    """Read the event stream's patches."""
    await follow(ground, connection, "?delta=merge")


#: The kinds of readers, and how many of a hundred are of each.
KINDS: tuple[tuple[Callable[[Ground, Connection], Awaitable[None]], int], ...] = (
    (poll, 24), (revalidate, 24), (follow, 12), (follow_patches, 12), (long_poll, 16), (visit, 12),
)  # fmt: skip


async def read(ground: Ground, kind: Callable[[Ground, Connection], Awaitable[None]], tls: bool) -> None:
    """Be one reader, who comes back after whatever happens."""
    await asyncio.sleep(random.uniform(0, 20))
    while not ground.over.value:
        connection = Connection(ground, tls)
        what = f"{kind.__name__}{' over TLS' if tls else ''}"
        try:
            await connection.open()
        except (OSError, asyncio.TimeoutError) as error:
            ground.broken.append((time.monotonic(), f"{what}: no connection: {error!r}"))
            await asyncio.sleep(0.5)
            continue
        try:
            await kind(ground, connection)
        except (EOFError, OSError, Broken) as error:
            if not connection.closed:
                ground.broken.append((time.monotonic(), f"{what}: {error!r}"))
        except (Wrong, ValueError, KeyError) as error:
            ground.wrong.append((time.monotonic(), f"{what}: {error!r}"))
        connection.close()
        await asyncio.sleep(random.uniform(0.1, 1))


async def _all(ground: Ground, readers: int) -> None:
    tasks = []
    for kind, share in KINDS:
        tasks += [asyncio.create_task(read(ground, kind, bool(number % 2))) for number in range(readers * share // 100)]
    ground.counts["readers"] = len(tasks)
    while not ground.over.value:
        due = time.monotonic() + 1
        await asyncio.sleep(1)
        ground.look_round(time.monotonic() - due)
    # Whoever waits for an event or a change now would wait for ever: nothing is published any more.
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(ports: tuple[int, int], must: Any, published: Any, over: Any, readers: int, results: Any) -> None:
    """Be `readers` readers until it is over, and say what came of it."""
    ground = Ground(ports, must, published, over)
    asyncio.run(_all(ground, readers))
    results.put((ground.counts, ground.broken, ground.wrong, sorted(ground.delays), ground.late))
