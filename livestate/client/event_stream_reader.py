"""Reads one event stream: complete states, and the merge patches between them.

A patch applies to the version sent just before it on the same stream. On a stream resumed with `Last-Event-ID`, the
first patch applies to the document which that id names. A stream therefore has a state of its own, in addition to the
state delivered to the application.

Versions only grow. Several servers may share one address, though. After a switch to a server that has not yet polled
the store, the first state may be older than the one already delivered. Such a state is not delivered, because the next
event will be newer. If the stream sends another older state, or nothing newer for `ACCEPT_OLDER_AFTER` seconds, the
server's clock is behind, and its state is accepted.
"""

import re
from typing import Any

from livestate.client.event_stream_parser import Event, EventStreamParser
from livestate.client.state import ClientState, parse, version_of

#: Event ids that can be sent as a `Last-Event-ID` field.
_HEADER_SAFE = re.compile("[!-~]{1,100}")

#: Seconds without a newer state before an older one is accepted: longer than a server takes to poll its store again.
ACCEPT_OLDER_AFTER = 5.0


class StreamUnusable(Exception):
    """The server sends no event stream of a document here, or a proxy blocks it."""


class EventStreamReader:
    """Reads one event stream and stores its states."""

    def __init__(self, client_state: ClientState, max_size: int, clock: Any) -> None:
        """Start reading a stream that was requested with the event id in `client_state`.

        :param max_size: maximum size of one event, in bytes.
        """
        #: The number of events received.
        self.events = 0
        self._client_state = client_state
        self._clock = clock
        self._parser = EventStreamParser(max_size)
        self._has_base = client_state.event_id is not None
        self._base = client_state.state.value if self._has_base and client_state.state is not None else None
        #: A first state that was older than the delivered one: time of arrival, value and event id.
        self._older: tuple[float, Any, str | None] | None = None

    @property
    def retry(self) -> float | None:
        """The reconnection delay that the server asked for, in seconds, or None."""
        return None if self._parser.retry is None else self._parser.retry / 1000

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the stream.

        :raises EventTooLarge: when an event exceeds `max_size`.
        :raises StreamUnusable: when an event is not one of a document.
        """
        for event in self._parser.feed(data):
            if event.type in ("message", "patch"):
                self.events += 1
                self._handle(event)
        if self._older is not None and self._clock.seconds() - self._older[0] >= ACCEPT_OLDER_AFTER:
            _, value, event_id = self._older
            self._older = None
            self._base = self._client_state.set_from_event(value, event_id)

    def _handle(self, event: Event) -> None:
        event_id = event.id if _HEADER_SAFE.fullmatch(event.id) else None
        try:
            content = parse(event.data)
        except ValueError as error:
            raise StreamUnusable(f"an event is not JSON: {error}") from None
        first, self._older = self.events == 1, None
        if event.type == "patch":
            if not self._has_base:
                raise StreamUnusable("received a patch before any state")
            try:
                self._base = self._client_state.apply_patch(self._base, content, event_id)
            except RecursionError:
                raise StreamUnusable("a patch is nested too deeply") from None
            return
        self._has_base = True
        newest = self._client_state.state.version if self._client_state.state is not None else None
        version = version_of(event_id)
        if first and version is not None and newest is not None and version < newest:
            self._base = content
            self._older = self._clock.seconds(), content, event_id
        else:
            self._base = self._client_state.set_from_event(content, event_id)
