"""The scenarios: what the load does, and whether the document changes meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["keepalive", "connect", "idle", "freshness", "events", "push"]


@dataclass(frozen=True)
class Scenario:
    """One measurement of all peers."""

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
        """The name of what is counted."""
        return {"keepalive": "request", "connect": "connection", "events": "event"}.get(self.kind, "")


# Freshness can be measured only for servers that read the store.
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
        Scenario("freshness", "From the write in the store to the clients, HTTP", "freshness", only=LIVE),
        Scenario("push", "From the write in the store to the last subscriber, HTTP", "push", only=LIVE),
        Scenario("events", "Event streams, HTTP: a change per second to every subscriber", "events", only=STREAMING),
        Scenario(
            "events-tls",
            "Event streams, HTTPS: a change per second to every subscriber",
            "events",
            tls=True,
            only=STREAMING,
        ),
    )
}
