"""What a reader of a document is given."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from livestate.formats.merge_patch import apply

#: How a state came: an event stream, a request that the server held until there was news, or plain polling.
Transport = Literal["events", "long-poll", "poll"]


@dataclass(frozen=True, slots=True)
class State:
    """A document at one moment."""

    #: The document, parsed. It may share parts with other states: not to be changed.
    value: Any
    #: The server's version, which only grows; None where it came by polling.
    version: int | None
    #: The entity tag, quotes included; None where it came as an event, or the server gives none.
    etag: str | None
    #: The merge patch (RFC 7396) that makes it of the state given just before; None where there is none.
    patch: dict[str, Any] | None
    transport: Transport


@dataclass(frozen=True, slots=True)
class Status:
    """How a reader stands with the server."""

    #: Whether what is held is, or is about to be, what the server has.
    connected: bool
    transport: Transport
    #: Why it is not connected, as a line for a person.
    trouble: str | None = None


class ClientState:
    """What a reader has of a document, and how what is new reaches it."""

    def __init__(self, deliver: Callable[[State], None]) -> None:
        """Begin with nothing; `deliver` is called with each State that differs from the one before."""
        self.state: State | None = None
        #: What is told to the server, of the newest state, or of an equal one that came again: the id of its event, or
        #: its entity tag.
        self.event_id: str | None = None
        self.etag: str | None = None
        self._deliver = deliver

    def event(self, value: Any, event_id: str | None) -> Any:
        """Take a whole state that came as an event, and give its value as it is held from now on."""
        self.event_id, self.etag = event_id, None
        return self._take(State(value, version_of(event_id), None, None, "events"))

    def answer(self, value: Any, etag: str | None, transport: Transport) -> None:
        """Take a whole state that came as a response's body."""
        self.event_id, self.etag = None, etag
        self._take(State(value, None, etag, None, transport))

    def patch(self, base: Any, patch: Any, event_id: str | None) -> Any:
        """Take a change of `base` that came as an event, and give its value as `event` does."""
        value = apply(base, patch)
        self.event_id, self.etag = event_id, None
        follows = self.state is not None and self.state.value is base and isinstance(patch, dict)
        return self._take(State(value, version_of(event_id), None, patch if follows else None, "events"))

    def _take(self, state: State) -> Any:
        if self.state is None or not same(self.state.value, state.value):
            self.state = state
            self._deliver(state)
        return self.state.value


def version_of(event_id: str | None) -> int | None:
    """Give the version in the id of an event, VERSION-TAG; None where there is none."""
    version = (event_id or "").partition("-")[0]
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else None


def parse(text: str | bytes) -> Any:
    """Parse a document.

    :raises ValueError: it is not JSON (RFC 8259), or too deep for Python.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def same(one: Any, other: Any) -> bool:
    """Tell whether two parsed documents are the same one: 1, 1.0 and true, which Python calls equal, are not."""
    try:
        return bool(one == other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except RecursionError:
        return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
