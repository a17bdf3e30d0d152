"""What Twisted finds of livestate: strings only, so that nothing is imported before it is chosen."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

livestate = ServiceMaker(
    "livestate",
    "livestate.tap",
    "One live JSON document, fresh every second, over HTTP and HTTPS",
    "livestate",
)

livestate_reactor = Reactor(
    "livestate",
    "livestate.net.reactor",
    "epoll(7) with direct sockets: TCP and TLS that write at once (livestate's default on Linux)",
)
