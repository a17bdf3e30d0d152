"""The table of scenarios: what the load does, and whether the document changes meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["keepalive", "connect", "idle", "freshness", "events", "push"]


@dataclass(frozen=True)
class Scenario:
    """One question to all peers."""

    name: str
    title: str
    kind: Kind
    tls: bool = False
    changing: bool = False
    conditional: bool = False
    browser: bool = False
    resume: bool = False
    only: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What one of the measured things is called."""
        return {"keepalive": "request", "connect": "connection", "events": "event"}.get(self.kind, "")


# Only what reads the store can be asked how fresh it is.
LIVE = ("livestate", "livestate-epoll")
STREAMING = (*LIVE, "nchan", "mercure", "go")

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("http", "HTTP keep-alive", "keepalive", changing=True),
        Scenario("https", "HTTPS keep-alive", "keepalive", tls=True, changing=True),
        Scenario("not-modified", "HTTP polls answered 304", "keepalive", conditional=True),
        Scenario(
            "browser",
            "HTTP from browsers: 600 header sets, half 200, half 304",
            "keepalive",
            changing=True,
            browser=True,
        ),
        Scenario("new-connection", "HTTP, a new connection for each request", "connect", changing=True),
        Scenario("new-tls", "HTTPS, a new connection and full handshake for each request", "connect", tls=True),
        Scenario("new-tls-resumed", "HTTPS, a new connection with a resumed session", "connect", tls=True, resume=True),
        Scenario("idle", "Memory of idle keep-alive connections, HTTP", "idle"),
        Scenario("idle-tls", "Memory of idle keep-alive connections, HTTPS", "idle", tls=True),
        Scenario("freshness", "From the write in the store to the readers, HTTP", "freshness", only=LIVE),
        Scenario("push", "From the write in the store to the last event reader, HTTP", "push", only=LIVE),
        Scenario("events", "Event streams, HTTP: a change a second to every reader", "events", only=STREAMING),
        Scenario(
            "events-tls", "Event streams, HTTPS: a change a second to every reader", "events", tls=True, only=STREAMING
        ),
    )
}
