"""The host names that the admin site answers to: a defence against DNS rebinding.

Any web site can let its own name resolve to 127.0.0.1. To the browser, whatever is served there then has the origin of
that site, and the site's scripts may read it. But the browser sends the name in the Host field, and a name that does
not belong to this machine is refused. An IP address is safe, because it cannot be made to resolve to something else. A
request without a Host field is safe, because every browser sends one.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

#: As a name on the list, it admits every name.
ANY = "*"

#: A name or an address, and optionally a port (RFC 9110 section 7.2).
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]*))(?::[0-9]*)?")


class HostAllowlist:
    """Admits IP addresses, `localhost`, the name of this machine, and the names that it is given."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """:param names: more names to admit, without ports; `*` admits every name."""
        own = socket.gethostname().lower()
        # Browsers do not send an empty field either.
        self._names = {"", "localhost", own, own.partition(".")[0], *(name.lower() for name in names)}

    def admits(self, host: str) -> bool:
        """Return whether a request may have this value of the Host field."""
        if ANY in self._names:
            return True
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["address"] or found["name"]).lower()
        return name.removesuffix(".") in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
