"""Follows one document, through server restarts and network failures.

State machine:

    streaming --the stream ends, or no response--> waiting --back-off, at least the `retry:` delay--> streaming
    streaming --no event stream, or it is blocked--> polling
    polling --no response--> waiting --back-off--> polling
    polling --after STREAM_RETRY, doubled each time--> streaming
    any --the document does not exist, or the server is not trusted--> ended, with a WatchError

Polling asks the server to hold each request until the document changes (`Prefer: wait`, RFC 7240). A server that does
not support this responds at once, and is polled again after the interval.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from livestate.client.address import DocumentAddress
from livestate.client.connection import TIMEOUT, Connection, TimedOut, Unreachable
from livestate.client.event_stream_parser import EventTooLarge
from livestate.client.event_stream_reader import EventStreamReader, StreamUnusable
from livestate.client.state import ClientState, State, Status, Transport, parse
from livestate.errors import WatchError
from livestate.system.backoff import Backoff

T = TypeVar("T")

#: Longest delay in seconds before an unreachable server is retried, and longest delay that a server can ask for.
MAX_DELAY = 15.0
MAX_SERVER_DELAY = 60.0

#: Timeout in seconds for the head of a stream, and then for its first bytes. A server sends some bytes at once; a proxy
#: that buffers the stream passes on neither these nor the head.
FIRST_BYTES_TIMEOUT = 5.0

#: A stream counts as dead after this many heartbeat intervals without data.
MISSED_HEARTBEATS = 2.5

#: After this many streams in a row that failed before any data arrived, the document is polled instead.
MAX_FAILED_STREAMS = 3

#: Seconds of polling before a stream is tried again. Doubled after each failure, up to the limit.
STREAM_RETRY = 60.0
STREAM_RETRY_LIMIT = 600.0

#: Seconds for which a request asks to be held.
WAIT = 30

#: Client-error statuses that may change on a retry (RFC 9110, RFC 8470, RFC 6585).
_RETRYABLE = {408, 425, 429}


class Follower:
    """Follows one document and reports its states."""

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
        """Prepare to follow the document at `address`.

        :param on_state: called with each State that differs from the previous one.
        :param interval: seconds between requests, if the server does not hold them.
        :param heartbeat: seconds between the server's heartbeats on an idle stream.
        :param max_size: maximum size of the document, in bytes.
        :param on_status: called with each Status that differs from the previous one.
        """
        self.status = Status(connected=False, transport="events")
        self._connection = connection
        self._clock = connection.clock
        self._address = address
        self._client_state = ClientState(self._deliver)
        self._on_state = on_state
        self._interval = interval
        self._idle_timeout = MISSED_HEARTBEATS * heartbeat
        self._max_size = max_size
        self._on_status = on_status
        self._backoff = Backoff(first=1.0, limit=MAX_DELAY)
        self._server_delay = 0.0
        self._logged_trouble = ""
        self._failed_streams = 0
        self._next_stream_at = 0.0
        self._stream_retry = STREAM_RETRY
        self._stopping = False
        self._in_callback = False
        self._task: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Start following.

        :returns: a Deferred that fires with None after `stop`, or fails with the WatchError that ended it.
        """
        self._task = Deferred.fromCoroutine(self._run())
        return self._task

    def stop(self) -> None:
        """Stop following. No callback is called after this; connections are closed in the next reactor turn."""
        self._stopping = True
        # During a callback the task waits for nothing, or only for a connection, which is closed here.
        if self._task is not None and not self._in_callback:
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
                if self._clock.seconds() >= self._next_stream_at:
                    await self._stream()
                else:
                    await self._poll()
            except StreamUnusable as error:
                self._switch_to_polling(str(error))
            except Unreachable as error:
                await self._back_off(error)
            except Exception:
                # Twisted's requests and connections raise exceptions of their own when they are cancelled.
                if not self._stopping:
                    raise

    async def _back_off(self, error: Unreachable) -> None:
        if self._stopping:
            return
        self._set_status(connected=False, trouble=str(error))
        server_delay = min(max(self._server_delay, error.retry_after), MAX_SERVER_DELAY)
        await deferLater(self._clock, max(server_delay, self._backoff.next_delay()))

    def _switch_to_polling(self, reason: str) -> None:
        self.log.debug("{url}: {reason}; polling for {seconds:g} s",
                       url=self._address.events, reason=reason, seconds=self._stream_retry)  # fmt: skip
        self._failed_streams = 0
        self._next_stream_at = self._clock.seconds() + self._stream_retry
        self._stream_retry = min(2 * self._stream_retry, STREAM_RETRY_LIMIT)

    async def _stream(self) -> None:
        """Read an event stream until it ends.

        :raises Unreachable: when the stream ends, for whatever reason that a retry may fix.
        :raises StreamUnusable: when the document must be polled instead.
        """
        fields = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self._client_state.event_id is not None:
            fields["Last-Event-ID"] = self._client_state.event_id
        try:
            response = await self._connection.get(self._address.events, fields, FIRST_BYTES_TIMEOUT)
        except TimedOut as error:
            raise StreamUnusable(str(error)) from None
        if response.code != 200 or _media_type(response) != "text/event-stream":
            self._connection.abort()
            if not _is_retryable(response.code):
                raise StreamUnusable(f"answered {response.code} with {_media_type(response) or 'no Content-Type'}")
            raise self._stream_failed(Unreachable(f"the event stream answered {response.code}", _retry_after(response)))
        stream = EventStreamReader(self._client_state, self._max_size, self._clock)
        started = self._clock.seconds()
        received = False

        def on_data(data: bytes) -> None:
            nonlocal received
            received = True
            self._set_status(connected=True, transport="events")
            stream.feed(data)
            if self._stopping:
                raise CancelledError

        trouble = Unreachable("the event stream ended")
        try:
            await self._connection.read(response, on_data, self._idle_timeout, FIRST_BYTES_TIMEOUT)
        except Unreachable as error:
            trouble = error
        except EventTooLarge:
            raise self._too_large() from None
        self._server_delay = stream.retry or 0.0
        if received:
            self._failed_streams, self._stream_retry = 0, STREAM_RETRY
        elif isinstance(trouble, TimedOut):
            raise StreamUnusable(str(trouble))
        else:
            raise self._stream_failed(trouble)
        if stream.events or self._clock.seconds() - started >= FIRST_BYTES_TIMEOUT:
            self._backoff.reset()
        raise trouble

    def _stream_failed(self, trouble: Unreachable) -> Exception:
        self._failed_streams += 1
        return StreamUnusable(str(trouble)) if self._failed_streams >= MAX_FAILED_STREAMS else trouble

    async def _poll(self) -> None:
        """Request the document once, then wait until the next request is due."""
        started = self._clock.seconds()
        fields = {"Accept": "application/json", "Prefer": f"wait={WAIT}"}
        if self._client_state.etag is not None:
            fields["If-None-Match"] = self._client_state.etag
        response = await self._connection.get(self._address.document, fields, WAIT + TIMEOUT)
        body = await self._read_body(response)
        held = "wait" in ", ".join(response.headers.getRawHeaders("Preference-Applied", []))
        transport: Transport = "long-poll" if held else "poll"
        if response.code == 200:
            try:
                value = parse(body)
            except ValueError as error:
                raise WatchError(f"{self._address.document}: the response is not JSON: {error}") from None
            self._set_status(connected=True, transport=transport)
            self._client_state.set_from_response(value, response.headers.getRawHeaders("ETag", [None])[0], transport)
        elif _is_retryable(response.code):
            raise Unreachable(f"the server answered {response.code}", _retry_after(response))
        elif response.code != 304 or self._client_state.etag is None:
            raise self._refusal(response)
        else:
            self._set_status(connected=True, transport=transport)
        self._backoff.reset()
        self._server_delay = 0.0
        if self._stopping:
            return
        if response.code != 200 or not held:
            await deferLater(self._clock, max(0.0, started + self._interval - self._clock.seconds()))

    async def _read_body(self, response: Any) -> bytes:
        pieces: list[bytes] = []
        size = 0

        def on_data(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > self._max_size:
                raise EventTooLarge
            pieces.append(data)

        try:
            await self._connection.read(response, on_data)
        except EventTooLarge:
            raise self._too_large() from None
        return b"".join(pieces)

    def _refusal(self, response: Any) -> WatchError:
        location = response.headers.getRawHeaders("Location", [""])[0]
        hint = f"; redirects are not followed, watch {location} instead" if location else ""
        return WatchError(f"{self._address.document}: answered {response.code}{hint}")

    def _too_large(self) -> WatchError:
        return WatchError(f"{self._address.document}: the document has more than {self._max_size:,} bytes")

    def _set_status(self, connected: bool, transport: Transport | None = None, trouble: str | None = None) -> None:
        # The first trouble after a connection is not logged: a stream that ended is often resumed after a short delay.
        if trouble is not None and not self.status.connected and trouble != self._logged_trouble:
            self._logged_trouble = trouble
            self.log.warn("{url}: {trouble}; retrying", url=self._address.document, trouble=trouble)
        elif connected and self._logged_trouble:
            self._logged_trouble = ""
            self.log.info("{url}: reconnected", url=self._address.document)
        status = Status(connected, transport or self.status.transport, trouble)
        if status == self.status:
            return
        self.status = status
        if self._on_status is not None and not self._stopping:
            self._call(self._on_status, status)

    def _call(self, callback: Callable[[T], None], argument: T) -> None:
        """Call an application's callback, which may call `stop`."""
        self._in_callback = True
        try:
            callback(argument)
        finally:
            self._in_callback = False


def _media_type(response: Any) -> str:
    value: str = response.headers.getRawHeaders("Content-Type", [""])[0]
    return value.partition(";")[0].strip().lower()


def _is_retryable(code: int) -> bool:
    """Return whether a later request may get another status."""
    return code >= 500 or code in _RETRYABLE


def _retry_after(response: Any) -> float:
    """Return the seconds in a Retry-After field, or 0 if there is none or it holds a date."""
    value = response.headers.getRawHeaders("Retry-After", [""])[0].strip()
    return float(value) if value.isascii() and value.isdigit() else 0.0
