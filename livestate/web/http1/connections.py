"""The open connections of one site, and the state that they share.

A connection references this object and not the site, which avoids circular imports.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.web.http import Request

from livestate.web.http1.access_log import AccessLog
from livestate.web.http1.fair_scheduler import FairScheduler
from livestate.web.http1.fast_request import RequestMemo, Responders
from livestate.web.http1.response_memo import ResponseMemo


class OpenConnection(Protocol):
    """The part of a connection that timeouts, limits and drains use."""

    transport: Any
    #: Checks since the last request, and checks since an unfinished request started (None: no unfinished request).
    quiet: int
    unfinished: int | None

    def overdue(self, quiet: int, unfinished: int) -> bool:
        """Return whether the connection was quiet, or a request on it unfinished, for that many checks."""

    def idle(self) -> bool:
        """Return whether the connection is between two requests."""

    def drain(self) -> None:
        """Make the next response the last."""

    def close_idle(self) -> None:
        """Close an idle connection."""

    def loseConnection(self) -> None:
        """Close the connection once everything is sent."""

    def abortConnection(self) -> None:
        """Close the connection now, and drop unsent data."""


class Connections:
    """The state that all connections of one site share."""

    def __init__(self, clock: Any, responders: Responders) -> None:
        """:param responders: the documents by path that are served on the fast path."""
        self.responders = responders
        self.request_memo = RequestMemo()
        self.response_memo = ResponseMemo()
        self.scheduler = FairScheduler(clock)
        #: The access log, if there is one.
        self.access_log: AccessLog | None = None
        #: Whether the next response of each connection is its last.
        self.draining = False
        self.open: set[OpenConnection] = set()
        #: Connections and TLS handshakes so far, and how many of the handshakes resumed a session.
        self.accepted = 0
        self.handshakes = 0
        self.resumptions = 0

    def drain(self) -> None:
        """Make the next response of each connection its last."""
        self.draining = True
        for connection in self.open:
            connection.drain()

    def log_later(self, request: Request) -> Callable[[int, int], None] | None:
        """Return a function that logs a request when it ends, given the status and the bytes of the body.

        :returns: None if there is no access log.
        """
        return None if self.access_log is None else self.access_log.later(request)
