"""A document's changes as server-sent events (HTML Standard section 9.2).

A request for the same path can be upgraded to WebSocket, if `livestate.web.resources.websocket` is available.
"""

import random
from collections.abc import Callable, Sequence

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from livestate.documents.history import Message
from livestate.formats.event_stream import COMMENT, LAST_CHUNK, MEDIA_TYPE, chunk, event, retry, unchunked_length
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.request import field, wants_patches
from livestate.web.resources.upgrade import NOT_INSTALLED, wants_websocket
from livestate.web.responses.responder import ALLOW, Responder
from livestate.web.responses.response import Response, problem
from livestate.web.streams.broadcast import Broadcast, Framing
from livestate.web.streams.subscriber import LoggedSubscriber, Subscriber

#: Milliseconds that a client waits before it reconnects, chosen at random for each client. So after a restart of the
#: server, 15,000 clients reconnect at 5,000 per second instead of all at once.
RETRY = 1000, 4000


def _encode(messages: Sequence[Message]) -> bytes:
    return b"".join(event(m.event_id, m.data, b"patch" if m.is_patch else b"") for m in messages)


def _encode_chunk(messages: Sequence[Message]) -> bytes:
    return chunk(_encode(messages))


#: The framings, by whether the stream is sent in chunks.
FRAMINGS = {
    False: Framing(_encode, COMMENT, b"", "event_readers"),
    True: Framing(_encode_chunk, chunk(COMMENT), LAST_CHUNK, "event_readers"),
}


class EventsResource(Resource):
    """Streams the changes of one document.

    The status is 200 even while there is no document yet: after any other status an EventSource does not reconnect.
    """

    isLeaf = True

    def __init__(
        self,
        responder: Responder,
        broadcast: Broadcast,
        upgrade_to_websocket: Callable[[Request, Broadcast], Response | None] | None = None,
    ) -> None:
        """:param upgrade_to_websocket: upgrades a request, or returns the response that refuses it; None: missing."""
        super().__init__()
        self._responder = responder
        self._broadcast = broadcast
        self._upgrade_to_websocket = upgrade_to_websocket

    def render(self, request: Request) -> int:
        """Answer a request of any method."""
        method = request.method
        if method == b"GET":
            if wants_websocket(request):
                self._upgrade(request)
            else:
                self._stream(request)
        elif method == b"HEAD":
            self._head(request).write_to(request)
        elif method == b"OPTIONS":
            self._responder.preflight(field(request, b"Origin")).write_to(request)
        else:
            problem(405, "An event stream allows GET, HEAD and OPTIONS.", (b"Allow", ALLOW)).write_to(request)
        return NOT_DONE_YET

    def _head(self, request: Request) -> Response:
        fields = (
            (b"Content-Type", MEDIA_TYPE),
            (b"Cache-Control", b"no-store"),
            # Otherwise nginx buffers events until it has some kilobytes of them.
            (b"X-Accel-Buffering", b"no"),
            (b"X-Content-Type-Options", b"nosniff"),
            *self._responder.cross_origin(field(request, b"Origin")),
        )
        return Response(200, fields)

    def _upgrade(self, request: Request) -> None:
        refused: Response | None = problem(501, NOT_INSTALLED)
        if self._upgrade_to_websocket is not None:
            refused = self._upgrade_to_websocket(request, self._broadcast)
        if refused is not None:
            refused.write_to(request)

    def _stream(self, request: Request) -> None:
        channel: LiveChannel = request.channel  # type: ignore[assignment]  # the only channel class of this site
        chunked = request.clientproto == b"HTTP/1.1"
        group = self._broadcast.group(FRAMINGS[chunked], wants_patches(request))
        version = self._broadcast.history.version_of(field(request, b"Last-Event-ID") or b"")
        log_line = channel.connections.log_later(request)
        subscriber = (
            Subscriber(channel, group, version)
            if log_line is None
            else LoggedSubscriber(channel, group, version, log_line, unchunked_length if chunked else len)
        )
        for name, value in self._head(request).fields:
            request.responseHeaders.setRawHeaders(name, [value])
        request.write(b"")
        first = retry(random.randint(*RETRY))  # noqa: S311  # no secret
        subscriber.write(chunk(first) if chunked else first)
        subscriber.start()
