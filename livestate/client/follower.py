"""Keeping up with one document, whatever happens to the server and on the way to it.

States and what moves between them:

    streaming --it ends, no answer--> waiting --backoff, at least what `retry:` said--> streaming
    streaming --there is no stream, or it is blocked--> polling
    polling --no answer--> waiting --backoff--> polling
    polling --after STREAM_AGAIN, and then ever longer--> streaming
    any --the document is not there, the server not trusted--> ended, with a WatchError

A request of the polling asks to be held until there is news (`Prefer: wait`, RFC 7240). A server that does not know
of that answers at once, and is asked again after the interval.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from livestate.client.address import DocumentAddress
from livestate.client.connection import ANSWER, Connection, Silent, Unreachable
from livestate.client.eventstream import EventTooLarge
from livestate.client.state import ClientState, State, Status, Transport, parse
from livestate.client.stream import EventStreamReader, NotEvents
from livestate.errors import WatchError
from livestate.system.backoff import Backoff

T = TypeVar("T")

#: Seconds: the longest pause before an unreachable server is asked again, and the longest that a server may wish for.
LONGEST_PAUSE = 15.0
LONGEST_WISH = 60.0

#: Seconds until a stream is answered, and then until its first bytes: a server sends some at once, and a proxy that
#: gathers them sends neither those nor the head.
FIRST_BYTES = 5.0

#: A stream counts as dead when nothing came for so many heartbeats.
HEARTBEATS = 2.5

#: Streams in a row that gave nothing, until the document is polled instead.
STREAM_TRIES = 3

#: Seconds of polling until a stream is tried again; doubled each time, up to the second.
STREAM_AGAIN = 60.0
STREAM_AGAIN_LIMIT = 600.0

#: Seconds that a request asks to be held.
WAIT = 30

#: Answers to a request that may be other ones the next time (RFC 9110, RFC 8470, RFC 6585).
_LATER = {408, 425, 429}


class Follower:
    """Keeps up with one document."""

    log = Logger()

    def __init__(
        self,
        connection: Connection,
        address: DocumentAddress,
        on_state: Callable[[State], None],
        *,
        interval: float,
        heartbeat: float,
        max_size: int,
        on_status: Callable[[Status], None] | None = None,
    ) -> None:
        """Be ready to follow the document at `address`.

        :param on_state: is called with each State that differs from the one before.
        :param interval: seconds between requests where the server does not hold them.
        :param heartbeat: seconds between the server's heartbeats on a quiet stream.
        :param max_size: bytes that the document may have.
        :param on_status: is called with each Status that differs from the one before.
        """
        self.status = Status(connected=False, transport="events")
        self._connection = connection
        self._clock = connection.clock
        self._address = address
        self._held = ClientState(self._deliver)
        self._on_state = on_state
        self._interval = interval
        self._silence = HEARTBEATS * heartbeat
        self._max_size = max_size
        self._on_status = on_status
        self._backoff = Backoff(first=1.0, limit=LONGEST_PAUSE)
        self._wish = 0.0
        self._logged = ""
        self._failed_streams = 0
        self._stream_again = 0.0
        self._stream_pause = STREAM_AGAIN
        self._stopping = False
        self._calling = False
        self._task: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Begin.

        :returns: what fires with None after `stop`, or fails with the WatchError that ended it.
        """
        self._task = Deferred.fromCoroutine(self._run())
        return self._task

    def stop(self) -> None:
        """End: nothing is called after this, and in the next turn of the reactor every connection is closed."""
        self._stopping = True
        # Called by what it calls, it is not waiting, or for a connection that is now closed.
        if self._task is not None and not self._calling:
            self._task.cancel()
        self._connection.close()

    def _deliver(self, state: State) -> None:
        if not self._stopping:
            self._call(self._on_state, state)

    async def _run(self) -> None:
        try:
            await self._follow()
        finally:
            self._connection.close()

    async def _follow(self) -> None:
        while not self._stopping:
            try:
                if self._clock.seconds() >= self._stream_again:
                    await self._stream()
                else:
                    await self._ask()
            except NotEvents as error:
                self._poll_for_a_while(str(error))
            except Unreachable as error:
                await self._wait_after(error)
            except Exception:
                # Called off, Twisted's requests and connections say so in exceptions of their own.
                if not self._stopping:
                    raise

    async def _wait_after(self, error: Unreachable) -> None:
        if self._stopping:
            return
        self._tell(connected=False, trouble=str(error))
        wish = min(max(self._wish, error.retry_after), LONGEST_WISH)
        await deferLater(self._clock, max(wish, self._backoff.next_delay()))

    def _poll_for_a_while(self, why: str) -> None:
        self.log.debug("{url}: {why}; polling for {pause:g} s",
                       url=self._address.events, why=why, pause=self._stream_pause)  # fmt: skip
        self._failed_streams = 0
        self._stream_again = self._clock.seconds() + self._stream_pause
        self._stream_pause = min(2 * self._stream_pause, STREAM_AGAIN_LIMIT)

    async def _stream(self) -> None:
        """Read an event stream until it ends.

        :raises Unreachable: always, where nothing worse has happened.
        """
        fields = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self._held.event_id is not None:
            fields["Last-Event-ID"] = self._held.event_id
        try:
            response = await self._connection.get(self._address.events, fields, FIRST_BYTES)
        except Silent as error:
            raise NotEvents(str(error)) from None
        if response.code != 200 or _media_type(response) != "text/event-stream":
            self._connection.abort()
            if not _comes_later(response.code):
                raise NotEvents(f"answered {response.code}, {_media_type(response) or 'of no type'}")
            raise self._stream_failed(Unreachable(f"the event stream answered {response.code}", _retry_after(response)))
        stream = EventStreamReader(self._held, self._max_size, self._clock)
        began = self._clock.seconds()
        received = False

        def take(data: bytes) -> None:
            nonlocal received
            received = True
            self._tell(connected=True, transport="events")
            stream.feed(data)
            if self._stopping:
                raise CancelledError

        trouble = Unreachable("the event stream ended")
        try:
            await self._connection.read(response, take, self._silence, FIRST_BYTES)
        except Unreachable as error:
            trouble = error
        except EventTooLarge:
            raise self._too_large() from None
        self._wish = stream.retry or 0.0
        if received:
            self._failed_streams, self._stream_pause = 0, STREAM_AGAIN
        elif isinstance(trouble, Silent):
            raise NotEvents(str(trouble))
        else:
            raise self._stream_failed(trouble)
        if stream.events or self._clock.seconds() - began >= FIRST_BYTES:
            self._backoff.reset()
        raise trouble

    def _stream_failed(self, trouble: Unreachable) -> Exception:
        self._failed_streams += 1
        return NotEvents(str(trouble)) if self._failed_streams >= STREAM_TRIES else trouble

    async def _ask(self) -> None:
        """Ask for the document once, and wait until it is time to ask again."""
        began = self._clock.seconds()
        fields = {"Accept": "application/json", "Prefer": f"wait={WAIT}"}
        if self._held.etag is not None:
            fields["If-None-Match"] = self._held.etag
        response = await self._connection.get(self._address.document, fields, WAIT + ANSWER)
        body = await self._body(response)
        applied = "wait" in ", ".join(response.headers.getRawHeaders("Preference-Applied", []))
        transport: Transport = "long-poll" if applied else "poll"
        if response.code == 200:
            try:
                value = parse(body)
            except ValueError as error:
                raise WatchError(f"{self._address.document}: what is there is not JSON: {error}") from None
            self._tell(connected=True, transport=transport)
            self._held.answer(value, response.headers.getRawHeaders("ETag", [None])[0], transport)
        elif _comes_later(response.code):
            raise Unreachable(f"the server answered {response.code}", _retry_after(response))
        elif response.code != 304 or self._held.etag is None:
            raise self._refusal(response)
        else:
            self._tell(connected=True, transport=transport)
        self._backoff.reset()
        self._wish = 0.0
        if self._stopping:
            return
        if response.code != 200 or not applied:
            await deferLater(self._clock, max(0.0, began + self._interval - self._clock.seconds()))

    async def _body(self, response: Any) -> bytes:
        pieces: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > self._max_size:
                raise EventTooLarge
            pieces.append(data)

        try:
            await self._connection.read(response, take)
        except EventTooLarge:
            raise self._too_large() from None
        return b"".join(pieces)

    def _refusal(self, response: Any) -> WatchError:
        moved = response.headers.getRawHeaders("Location", [""])[0]
        hint = f"; redirects are not followed, it points to {moved}" if moved else ""
        return WatchError(f"{self._address.document}: answered {response.code}{hint}")

    def _too_large(self) -> WatchError:
        return WatchError(f"{self._address.document}: it has more than {self._max_size:,} bytes")

    def _tell(self, connected: bool, transport: Transport | None = None, trouble: str | None = None) -> None:
        # The first trouble after a connection is often none: a stream that was ended, and goes on after a pause.
        if trouble is not None and not self.status.connected and trouble != self._logged:
            self._logged = trouble
            self.log.warn("{url}: {trouble}; asking on", url=self._address.document, trouble=trouble)
        elif connected and self._logged:
            self._logged = ""
            self.log.info("{url}: good again", url=self._address.document)
        status = Status(connected, transport or self.status.transport, trouble)
        if status == self.status:
            return
        self.status = status
        if self._on_status is not None and not self._stopping:
            self._call(self._on_status, status)

    def _call(self, callback: Callable[[T], None], argument: T) -> None:
        """Call one of the reader's functions, which may call `stop`."""
        self._calling = True
        try:
            callback(argument)
        finally:
            self._calling = False


def _media_type(response: Any) -> str:
    value: str = response.headers.getRawHeaders("Content-Type", [""])[0]
    return value.partition(";")[0].strip().lower()


def _comes_later(code: int) -> bool:
    """Tell whether an answer says that another may come to the same request later."""
    return code >= 500 or code in _LATER


def _retry_after(response: Any) -> float:
    """Give the seconds of a Retry-After field; 0 where there is none, or a date."""
    value = response.headers.getRawHeaders("Retry-After", [""])[0].strip()
    return float(value) if value.isascii() and value.isdigit() else 0.0
