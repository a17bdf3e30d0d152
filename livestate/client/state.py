"""The states of a document, and the client's record of the newest one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from livestate.formats.merge_patch import apply

#: How a state arrived: on an event stream, as the response to a held request, or by plain polling.
Transport = Literal["events", "long-poll", "poll"]


@dataclass(frozen=True, slots=True)
class State:
    """A document at one moment."""

    #: The parsed document. Do not modify it: it may share parts with other states.
    value: Any
    #: The server's version, which only grows; None if the state arrived by polling.
    version: int | None
    #: The entity tag, including its quotes; None if the state arrived as an event or the server sends no tags.
    etag: str | None
    #: The merge patch (RFC 7396) that turns the previously delivered state into this one; None if not available.
    patch: dict[str, Any] | None
    transport: Transport


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the connection to the server."""

    #: Whether the newest state is the server's current one, or about to be.
    connected: bool
    transport: Transport
    #: Why there is no connection, as one readable line.
    trouble: str | None = None


class ClientState:
    """Stores the newest state of a document and delivers each new one."""

    def __init__(self, deliver: Callable[[State], None]) -> None:
        """Start without a state.

        :param deliver: called with each State whose value differs from the previous one.
        """
        self.state: State | None = None
        #: What the next request sends to the server: the event id or the entity tag of the newest state, or of an equal
        #: state received later.
        self.event_id: str | None = None
        self.etag: str | None = None
        self._deliver = deliver

    def set_from_event(self, value: Any, event_id: str | None) -> Any:
        """Store a complete state received as an event, and return the stored value."""
        self.event_id, self.etag = event_id, None
        return self._store(State(value, version_of(event_id), None, None, "events"))

    def set_from_response(self, value: Any, etag: str | None, transport: Transport) -> None:
        """Store a complete state received as a response body."""
        self.event_id, self.etag = None, etag
        self._store(State(value, None, etag, None, transport))

    def apply_patch(self, base: Any, patch: Any, event_id: str | None) -> Any:
        """Apply a merge patch received as an event to `base`, and return the stored value."""
        value = apply(base, patch)
        self.event_id, self.etag = event_id, None
        follows = self.state is not None and self.state.value is base and isinstance(patch, dict)
        return self._store(State(value, version_of(event_id), None, patch if follows else None, "events"))

    def _store(self, state: State) -> Any:
        if self.state is None or not same(self.state.value, state.value):
            self.state = state
            self._deliver(state)
        return self.state.value


def version_of(event_id: str | None) -> int | None:
    """Return the version in an event id (VERSION-TAG), or None if it has none."""
    version = (event_id or "").partition("-")[0]
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else None


def parse(text: str | bytes) -> Any:
    """Parse a document.

    :raises ValueError: when it is not JSON (RFC 8259), or nested too deeply for Python.
    """
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def same(one: Any, other: Any) -> bool:
    """Return whether two parsed documents are the same JSON. Unlike in Python, 1, 1.0 and true are different."""
    try:
        return bool(one == other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except RecursionError:
        return False


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
