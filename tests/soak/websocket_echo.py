"""A WebSocket echo server with livestate's reactor, channel and WebSocket class, for the conformance tests.

python -m tests.soak.websocket_echo direct|epoll STRPORTS
"""

import sys
from typing import Any

#: Bytes of the largest message in the Autobahn test suite. livestate itself accepts only a few kilobytes.
LARGEST = 16 * 1024 * 1024


def main() -> None:
    """Choose the reactor, and serve until killed."""
    kind, description = sys.argv[1:]
    if kind == "direct":
        from livestate.net.reactor import install  # noqa: PLC0415  # before anything imports the reactor
    else:
        from twisted.internet.epollreactor import install  # noqa: PLC0415
    install()
    from twisted.internet import reactor  # noqa: PLC0415

    serve(reactor, description)


def serve(reactor: Any, description: str) -> None:
    """Serve `/events` without a document or heartbeats, so that clients receive only echoes."""
    from autobahn.twisted.websocket import WebSocketServerProtocol  # noqa: PLC0415
    from twisted.internet.endpoints import serverFromString  # noqa: PLC0415

    from livestate.documents.document import Document  # noqa: PLC0415
    from livestate.web.resources.events import EventsResource  # noqa: PLC0415
    from livestate.web.resources.websocket import LiveWebSocket, WebSockets  # noqa: PLC0415
    from livestate.web.responses.responder import Responder  # noqa: PLC0415
    from livestate.web.site import LiveSite  # noqa: PLC0415
    from livestate.web.streams.streams import Streams  # noqa: PLC0415

    class Echo(LiveWebSocket):
        onMessageFrameData = WebSocketServerProtocol.onMessageFrameData
        onMessageEnd = WebSocketServerProtocol.onMessageEnd

        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload, isBinary)

    class Echoes(WebSockets):
        protocol = Echo
        max_message = LARGEST

    document = Document(reactor, "/", LARGEST)
    responder = Responder(document, ("*",), None, reactor.seconds)
    streams = Streams(reactor, 3600)
    broadcast = streams.broadcast(document, responder.servable)
    streams.startService()
    site = LiveSite({b"/events": EventsResource(responder, broadcast, Echoes(reactor, ["*"]).upgrade)}, reactor)
    serverFromString(reactor, description).listen(site)
    reactor.run()


if __name__ == "__main__":
    main()
