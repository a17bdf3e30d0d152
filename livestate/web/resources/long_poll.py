"""Requests that are answered when the document changes: `Prefer: wait` (RFC 7240 section 4.3).

Theory of operation. A GET whose If-None-Match names the current document, and which asks to wait, is held: a Waiting
takes the place of its request in the channel, and twisted.web's request, with all that it holds, is let go. When the
document changes, or the time is over, the answer's bytes are made once for all who ask alike and written; those who
wait are answered a slice of time in each turn of the reactor, as a broadcast is (`livestate.web.streams.broadcast`).

What caches in front make of it. Whoever reads `Preference-Applied` takes a 304 for a sign that nothing changed in all
that time, and asks again at once; so it must never come out of a cache, and an answer with it is not stored. A request
that a cache makes, on behalf of many, is answered as any other: at once, since all of them would wait, and so that it
can be stored. It has no If-None-Match (Varnish and nginx leave out the client's), or an If-Modified-Since beside it
(RFC 9111 section 4.3.1). There is no `Vary: Prefer`: `wait` chooses when to answer, not what (RFC 7240 section 2), and
with it Google's and Akamai's caches would store no answer at all.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.web.http import Request

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.formats.negotiation import wait_preference
from livestate.web.http1.request import field
from livestate.web.responses.responder import Variant
from livestate.web.responses.response import Response, closing
from livestate.web.streams.broadcast import BATCH
from livestate.web.streams.streams import Streams

if TYPE_CHECKING:
    from livestate.web.http1.channel import LiveChannel

#: Seconds that a request is held at most: proxies give up after that time (nginx, Apache httpd, AWS's load balancers).
LONGEST_WAIT = 60


class Waiting:
    """One request that is held; in the channel, it stands in the place of twisted.web's."""

    __slots__ = ("_call", "_channel", "_done", "_entry", "_proto", "if_none_match", "seconds", "variant")

    def __init__(
        self,
        request: Request,
        variant: Variant,
        if_none_match: bytes,
        seconds: int,
        done: Callable[["Waiting"], None],
    ) -> None:
        """:param done: called when it is held no more."""
        self._channel: LiveChannel = request.channel  # type: ignore[assignment]  # no other serves this site
        self._proto = request.clientproto
        self._entry = self._channel.site.entry(request)
        self._done = done
        self._call: Any = None
        self.variant = variant
        self.if_none_match = if_none_match
        self.seconds = seconds
        self._channel.requests[0] = self

    def expire_by(self, call: Any) -> None:
        """Take what will end the waiting."""
        self._call = call

    def answer(self, response: Response, wire: bytes) -> None:
        """Send the answer and go on with the connection.

        :param wire: the answer as bytes.
        """
        self._release()
        if not self._channel.persistent:
            wire = closing(wire) if self._proto == b"HTTP/1.1" else b"HTTP/1.0" + wire[len(b"HTTP/1.1") :]
        self._channel.write_now(wire)
        self._channel.site.log_entry(self._entry, response.status, len(response.body))
        self._channel.requestDone(self)  # type: ignore[arg-type]  # it stands for the request

    def connectionLost(self, reason: Any) -> None:
        """Be answered no more."""
        self._release()

    def _release(self) -> None:
        self._done(self)
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


class LongPolls:
    """The requests for one document that are held."""

    def __init__(self, clock: Any, document: Document, streams: Streams) -> None:
        self._clock = clock
        self._streams = streams
        self._waiting: dict[Waiting, None] = {}
        document.subscribe(self._publish)
        streams.on_stop(self.end)

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, request: Request, variant: Variant, if_none_match: bytes, seconds: int) -> None:
        """Answer `request` when the document is not any more what `if_none_match` names, or `seconds` are over."""
        waiting = Waiting(request, variant, if_none_match, seconds, self._forget)
        self._waiting[waiting] = None
        # Up to a tenth earlier: those who began together do not all come back together.
        delay = seconds * random.uniform(0.9, 1.0)  # noqa: S311  # no secret
        waiting.expire_by(self._clock.callLater(delay, self._answer, waiting))

    def closers(self) -> list[Callable[[], None]]:
        """Give what answers each."""
        return [partial(self._answer, waiting) for waiting in self._waiting]

    def end(self) -> None:
        """Answer all."""
        for waiting in list(self._waiting):
            self._answer(waiting)

    def _forget(self, waiting: Waiting) -> None:
        self._waiting.pop(waiting, None)

    def _answer(self, waiting: Waiting) -> None:
        response = applied(waiting.variant.answer(waiting.if_none_match), waiting.seconds)
        waiting.answer(response, response.wire())

    def _publish(self, snapshot: Snapshot) -> None:
        # A large document is first there without its content codings, which will be some milliseconds more.
        if self._waiting and snapshot.complete:
            self._streams.spread(self._answer_all())

    def _answer_all(self) -> Iterator[None]:
        # The answers as bytes by what they were made of, which is held so that no other takes its identity.
        wires: dict[tuple[int, int], tuple[Response, bytes]] = {}
        rest = iter(list(self._waiting))
        while batch := list(islice(rest, BATCH)):
            for waiting in batch:
                variant, if_none_match, seconds = waiting.variant, waiting.if_none_match, waiting.seconds
                # It may have changed twice, and be again what the client has.
                if waiting not in self._waiting or variant.current(if_none_match):
                    continue
                response = variant.answer(if_none_match)
                made = wires.get((id(response), seconds))
                if made is None:
                    made = wires[id(response), seconds] = response, applied(response, seconds).wire()
                waiting.answer(*made)
            yield


def seconds_to_wait(request: Request) -> int | None:
    """Give how long a request is to be held at most, or None where it is no long poll of one client's."""
    fields = request.requestHeaders
    if request.method != b"GET" or not fields.hasHeader(b"If-None-Match") or fields.hasHeader(b"If-Modified-Since"):
        return None
    seconds = wait_preference(field(request, b"Prefer"))
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def applied(response: Response, seconds: int) -> Response:
    """Give an answer that says that the client's preference was heeded (RFC 7240 section 3)."""
    fields = [(name, b"no-store" if name == b"Cache-Control" else value) for name, value in response.fields]
    return replace(response, fields=(*fields, (b"Preference-Applied", b"wait=%d" % seconds)))
