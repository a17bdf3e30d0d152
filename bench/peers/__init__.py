"""The peers: all servers that the bench knows, in the order of its reports."""

from __future__ import annotations

from bench.peers import c_floor, go, h2o, haproxy, livestate, mercure, nchan, nginx, python_servers, varnish
from bench.peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        livestate.LIVESTATE,
        livestate.LIVESTATE_EPOLL,
        nginx.NGINX,
        h2o.H2O,
        go.GO,
        haproxy.HAPROXY,
        varnish.VARNISH,
        python_servers.GRANIAN,
        python_servers.UVICORN,
        python_servers.TWISTED,
        python_servers.FLASK,
        c_floor.FLOOR,
        nchan.NCHAN,
        mercure.MERCURE,
    )
}
