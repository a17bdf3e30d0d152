"""Requests that are answered when the document changes: `Prefer: wait` (RFC 7240 section 4.3).

Theory of operation. A GET that asks to wait and whose If-None-Match names the current document is held: a HeldRequest
replaces it in the channel, and twisted.web's request is released with everything that it references. When the document
changes or the time is over, the bytes of the response are made once for all equivalent requests, and written. As in a
broadcast (`livestate.web.streams.broadcast`), held requests are answered for a slice of time per turn of the reactor.

A large document is published uncompressed, and the codings in use follow some milliseconds later. A request waits for
the coding that its client prefers, but no longer than until the next version: a document may change faster than it can
be compressed.

Caches in front. A client that sees `Preference-Applied` takes a 304 to mean that nothing changed in all that time, and
asks again at once. So such a 304 must never come from a cache, and a response with this field is not stored. A request
that a cache makes on behalf of many clients is answered at once: otherwise all of them would wait, and nothing could be
stored. Such a request either has no If-None-Match (Varnish and nginx drop the client's), or has an If-Modified-Since as
well (RFC 9111 section 4.3.1). There is no `Vary: Prefer`, because `wait` determines when to answer, not with what (RFC
7240 section 2), and with it Google's and Akamai's caches would store no response at all.
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
from livestate.web.responses.response import Response, with_connection_close
from livestate.web.responses.variant import Variant
from livestate.web.streams.broadcast import BATCH
from livestate.web.streams.streams import Streams

#: Maximum seconds for which a request is held. Proxies time out after that (nginx, Apache httpd, AWS's load balancers).
MAX_WAIT = 60


class HeldRequest:
    """A request that is held. In the channel, it replaces twisted.web's request."""

    __slots__ = ("_channel", "_log_line", "_proto", "_released", "_timeout", "if_none_match", "seconds", "variant",
                 "waited_for")  # fmt: skip

    def __init__(
        self,
        request: Request,
        variant: Variant,
        if_none_match: bytes,
        seconds: int,
        released: Callable[["HeldRequest"], None],
    ) -> None:
        """:param released: called when the request is no longer held."""
        self._channel: LiveChannel = request.channel  # type: ignore[assignment]  # the only channel class of this site
        self._proto = request.clientproto
        self._log_line = self._channel.connections.log_later(request)
        self._released = released
        self._timeout: Any = None
        self.variant = variant
        self.if_none_match = if_none_match
        self.seconds = seconds
        #: The version with which the request was not answered, because the coding was not ready; 0: none.
        self.waited_for = 0
        self._channel.requests[0] = self

    def expire_by(self, timeout: Any) -> None:
        """Store the delayed call that answers the request when its time is over."""
        self._timeout = timeout

    def answer(self, response: Response, wire: bytes) -> None:
        """Send the response, and let the connection continue with the next request.

        :param wire: the response as bytes.
        """
        self._release()
        if not self._channel.persistent:
            wire = with_connection_close(wire) if self._proto == b"HTTP/1.1" else b"HTTP/1.0" + wire[len(b"HTTP/1.1") :]
        self._channel.write_now(wire)
        if self._log_line is not None:
            self._log_line(response.status, len(response.body))
        self._channel.requestDone(self)  # type: ignore[arg-type]  # it replaced the request

    def connectionLost(self, reason: Any) -> None:
        """Drop the request: its client is gone."""
        self._release()

    def _release(self) -> None:
        self._released(self)
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None


class LongPolls:
    """The held requests for one document."""

    __slots__ = ("_cancel_end", "_clock", "_document", "_held", "_scheduler", "_touched", "_unsubscribe")

    def __init__(
        self, clock: Any, document: Document, streams: Streams, touched: Callable[[], object] = lambda: None
    ) -> None:
        """:param touched: called when the number of held requests has changed."""
        self._clock = clock
        self._document = document
        self._touched = touched
        self._scheduler = streams.scheduler
        self._held: dict[HeldRequest, None] = {}
        self._unsubscribe = document.subscribe(self._publish)
        self._cancel_end = streams.on_stop(self.end)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, request: Request, variant: Variant, if_none_match: bytes, seconds: int) -> None:
        """Answer `request` once the document is no longer the one that `if_none_match` names, or after `seconds`."""
        held = HeldRequest(request, variant, if_none_match, seconds, self._forget)
        self._held[held] = None
        self._touched()
        # Up to a tenth earlier, so that clients that started together do not all return together.
        delay = seconds * random.uniform(0.9, 1.0)  # noqa: S311  # no secret
        held.expire_by(self._clock.callLater(delay, self._answer, held))

    def closers(self) -> list[Callable[[], None]]:
        """Return one function for each held request, which answers it."""
        return [partial(self._answer, held) for held in self._held]

    def end(self) -> None:
        """Answer all held requests."""
        for held in list(self._held):
            self._answer(held)

    def close(self) -> None:
        """End the subscription to the document, which is no longer served here."""
        self._unsubscribe()
        self._cancel_end()

    def _forget(self, held: HeldRequest) -> None:
        self._held.pop(held, None)
        self._touched()

    def _answer(self, held: HeldRequest) -> None:
        response = with_preference_applied(held.variant.respond(held.if_none_match), held.seconds)
        held.answer(response, response.wire())

    def _publish(self, snapshot: Snapshot) -> None:
        if self._held:
            self._scheduler.spread(self._answer_all())

    def _answer_all(self) -> Iterator[None]:
        # Each response and its bytes, by the id of the response. The reference to it keeps the id from being reused.
        wires: dict[tuple[int, int], tuple[Response, bytes]] = {}
        remaining = iter(list(self._held))
        while batch := list(islice(remaining, BATCH)):
            for held in batch:
                variant, if_none_match, seconds = held.variant, held.if_none_match, held.seconds
                if held not in self._held:
                    continue
                # The document may have changed twice, back to the version that the client has.
                if variant.is_current(if_none_match):
                    held.waited_for = 0
                    continue
                if self._waits(held):
                    continue
                response = variant.respond(if_none_match)
                made = wires.get((id(response), seconds))
                if made is None:
                    wire = with_preference_applied(response, seconds).wire()
                    made = wires[id(response), seconds] = response, wire
                held.answer(*made)
            yield

    def _waits(self, held: HeldRequest) -> bool:
        """Return whether a request waits for the coding that its client prefers, rather than get another one now."""
        snapshot = self._document.snapshot
        if snapshot is None or not held.variant.waits_for_coding():
            return False
        held.waited_for = held.waited_for or snapshot.version
        return held.waited_for == snapshot.version


def seconds_to_wait(request: Request) -> int | None:
    """Return for how long a request may be held, or None if it is not a long poll of a single client."""
    fields = request.requestHeaders
    if request.method != b"GET" or not fields.hasHeader(b"If-None-Match") or fields.hasHeader(b"If-Modified-Since"):
        return None
    seconds = wait_preference(field(request, b"Prefer"))
    return None if seconds is None else min(seconds, MAX_WAIT)


def with_preference_applied(response: Response, seconds: int) -> Response:
    """Return `response` with a Preference-Applied field (RFC 7240 section 3), and not to be stored by caches."""
    fields = [(name, b"no-store" if name == b"Cache-Control" else value) for name, value in response.fields]
    return replace(response, fields=(*fields, (b"Preference-Applied", b"wait=%d" % seconds)))
