"""Reading one event stream: states, and the merge patches between them.

A patch is of the version sent just before it on the same stream; on one that was taken up with `Last-Event-ID`, of the
document which that names. So a stream has a state of its own, beside what the reader was given.

Versions only grow. Behind one address there may be several servers, though, and after a change of server the first
state may be an older one than the reader has, from a server that has not asked the store yet. It is not given to the
reader: the next event will be newer. Where the stream goes on for a while without one, or with one that is older too,
it is the server's clock that is behind, and what it says counts.
"""

import re
from typing import Any

from livestate.client.eventstream import Event, EventStreamParser
from livestate.client.state import ClientState, parse, version_of

_SAYABLE = re.compile("[!-~]{1,100}")

#: Seconds: longer than a server takes to ask its store again.
SETTLED = 5.0


class NotEvents(Exception):
    """What came is not the events of a document."""


class EventStreamReader:
    """One event stream."""

    def __init__(self, held: ClientState, max_size: int, clock: Any) -> None:
        """Begin one that was asked for with the version that is held."""
        #: How many events have come.
        self.events = 0
        self._held = held
        self._clock = clock
        self._parser = EventStreamParser(max_size)
        self._started = held.event_id is not None
        self._base = held.state.value if self._started and held.state is not None else None
        self._older: tuple[float, Any, str | None] | None = None

    @property
    def retry(self) -> float | None:
        """Seconds to wait before the next stream, as the server wishes; None: it did not say."""
        return None if self._parser.retry is None else self._parser.retry / 1000

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        :raises EventTooLarge: an event has more than `max_size` bytes.
        :raises NotEvents: an event is not the document's.
        """
        for event in self._parser.feed(data):
            if event.type in ("message", "patch"):
                self.events += 1
                self._take(event)
        if self._older is not None and self._clock.seconds() - self._older[0] >= SETTLED:
            _, value, event_id = self._older
            self._older = None
            self._base = self._held.event(value, event_id)

    def _take(self, event: Event) -> None:
        # What cannot be said in a field's value is not said.
        event_id = event.id if _SAYABLE.fullmatch(event.id) else None
        try:
            content = parse(event.data)
        except ValueError as error:
            raise NotEvents(f"an event is not JSON: {error}") from None
        first, self._older = self.events == 1, None
        if event.type == "patch":
            if not self._started:
                raise NotEvents("a patch came before there was anything to apply it to")
            try:
                self._base = self._held.patch(self._base, content, event_id)
            except RecursionError:
                raise NotEvents("a patch is nested too deeply") from None
            return
        self._started = True
        newest = self._held.state.version if self._held.state is not None else None
        version = version_of(event_id)
        if first and version is not None and newest is not None and version < newest:
            self._base = content
            self._older = self._clock.seconds(), content, event_id
        else:
            self._base = self._held.event(content, event_id)
