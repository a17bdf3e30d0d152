"""Requests that are answered when the document changes: `Prefer: wait` (RFC 7240 section 4.3).

Theory of operation. A GET whose If-None-Match names the current document, and which asks to wait, is held: a
HeldRequest takes the place of its request in the channel, and twisted.web's request, with everything that it holds, is
released. When the document changes, or the time is over, the bytes of the response are made once for all requests that
ask alike, and written. Held requests are answered for a slice of time per turn of the reactor, as a broadcast is
(`livestate.web.streams.broadcast`).

What caches in front make of it. A client that reads `Preference-Applied` takes a 304 to mean that nothing changed in
all that time, and asks again at once. So such a 304 must never come out of a cache, and a response with this field is
not stored. A request that a cache makes on behalf of many clients is answered like any other, at once: otherwise all of
them would wait, and nothing could be stored. Such a request has no If-None-Match (Varnish and nginx drop the client's),
or an If-Modified-Since as well (RFC 9111 section 4.3.1). There is no `Vary: Prefer`: `wait` chooses when to answer, not
what (RFC 7240 section 2), and with it Google's and Akamai's caches would store no response at all.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from twisted.web.http import Request

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.formats.negotiation import wait_preference
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.request import field
from livestate.web.responses.responder import Variant
from livestate.web.responses.response import Response, closing
from livestate.web.streams.broadcast import BATCH
from livestate.web.streams.streams import Streams

#: Seconds for which a request is held at most: proxies give up after that time (nginx, Apache httpd, AWS's load
#: balancers).
MAX_WAIT = 60


class HeldRequest:
    """One request that is held; in the channel, it takes the place of twisted.web's."""

    __slots__ = ("_channel", "_log_line", "_proto", "_released", "_timeout", "if_none_match", "seconds", "variant")

    def __init__(
        self,
        request: Request,
        variant: Variant,
        if_none_match: bytes,
        seconds: int,
        released: Callable[["HeldRequest"], None],
    ) -> None:
        """:param released: called when it is no longer held."""
        self._channel: LiveChannel = request.channel  # type: ignore[assignment]  # no other serves this site
        self._proto = request.clientproto
        self._log_line = self._channel.connections.log_later(request)
        self._released = released
        self._timeout: Any = None
        self.variant = variant
        self.if_none_match = if_none_match
        self.seconds = seconds
        self._channel.requests[0] = self

    def expire_by(self, timeout: Any) -> None:
        """Store the delayed call that will answer the request."""
        self._timeout = timeout

    def answer(self, response: Response, wire: bytes) -> None:
        """Send the response and continue with the connection.

        :param wire: the response as bytes.
        """
        self._release()
        if not self._channel.persistent:
            wire = closing(wire) if self._proto == b"HTTP/1.1" else b"HTTP/1.0" + wire[len(b"HTTP/1.1") :]
        self._channel.write_now(wire)
        if self._log_line is not None:
            self._log_line(response.status, len(response.body))
        self._channel.requestDone(self)  # type: ignore[arg-type]  # it stands for the request

    def connectionLost(self, reason: Any) -> None:
        """Hold the request no longer: its client is gone."""
        self._release()

    def _release(self) -> None:
        self._released(self)
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None


class LongPolls:
    """The requests for one document that are held."""

    def __init__(self, clock: Any, document: Document, streams: Streams) -> None:
        self._clock = clock
        self._scheduler = streams.scheduler
        self._held: dict[HeldRequest, None] = {}
        document.subscribe(self._publish)
        streams.on_stop(self.end)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, request: Request, variant: Variant, if_none_match: bytes, seconds: int) -> None:
        """Answer `request` when the document is no longer what `if_none_match` names, or `seconds` are over."""
        held = HeldRequest(request, variant, if_none_match, seconds, self._forget)
        self._held[held] = None
        # Up to a tenth earlier: clients that began together should not all come back together.
        delay = seconds * random.uniform(0.9, 1.0)  # noqa: S311  # no secret
        held.expire_by(self._clock.callLater(delay, self._answer, held))

    def closers(self) -> list[Callable[[], None]]:
        """Return one function for each held request, which answers it."""
        return [partial(self._answer, held) for held in self._held]

    def end(self) -> None:
        """Answer all held requests."""
        for held in list(self._held):
            self._answer(held)

    def _forget(self, held: HeldRequest) -> None:
        self._held.pop(held, None)

    def _answer(self, held: HeldRequest) -> None:
        response = with_preference_applied(held.variant.answer(held.if_none_match), held.seconds)
        held.answer(response, response.wire())

    def _publish(self, snapshot: Snapshot) -> None:
        # A large document is first published without its content codings, which take some milliseconds more.
        if self._held and snapshot.complete:
            self._scheduler.spread(self._answer_all())

    def _answer_all(self) -> Iterator[None]:
        # The bytes of each response, by the identity of the response, which is kept so that no other takes it.
        wires: dict[tuple[int, int], tuple[Response, bytes]] = {}
        rest = iter(list(self._held))
        while batch := list(islice(rest, BATCH)):
            for held in batch:
                variant, if_none_match, seconds = held.variant, held.if_none_match, held.seconds
                # It may have changed twice, and be again what the client has.
                if held not in self._held or variant.current(if_none_match):
                    continue
                response = variant.answer(if_none_match)
                made = wires.get((id(response), seconds))
                if made is None:
                    wire = with_preference_applied(response, seconds).wire()
                    made = wires[id(response), seconds] = response, wire
                held.answer(*made)
            yield


def seconds_to_wait(request: Request) -> int | None:
    """Return for how long a request may be held, or None where it is not a long poll of a single client."""
    fields = request.requestHeaders
    if request.method != b"GET" or not fields.hasHeader(b"If-None-Match") or fields.hasHeader(b"If-Modified-Since"):
        return None
    seconds = wait_preference(field(request, b"Prefer"))
    return None if seconds is None else min(seconds, MAX_WAIT)


def with_preference_applied(response: Response, seconds: int) -> Response:
    """Return `response` with the field that says that the client's preference was honoured (RFC 7240 section 3)."""
    fields = [(name, b"no-store" if name == b"Cache-Control" else value) for name, value in response.fields]
    return replace(response, fields=(*fields, (b"Preference-Applied", b"wait=%d" % seconds)))
