"""The Twisted plugins of livestate. They hold names only, so that nothing is imported until it is used."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

livestate = ServiceMaker(
    "livestate",
    "livestate.tap",
    "Live JSON documents, fresh every second, over HTTP and HTTPS",
    "livestate",
)

livestate_reactor = Reactor(
    "livestate",
    "livestate.net.reactor",
    "epoll(7) with TCP and TLS transports that write immediately (the default of livestate on Linux)",
)
