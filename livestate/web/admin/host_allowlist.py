"""The names that a site may be asked by.

A page of any site can have its own name resolve to 127.0.0.1 (DNS rebinding), and its scripts then read, as their own
origin's, what is served there. The browser tells by Host which name was asked for: one that is not this machine's is
refused. An IP address is no name, and nobody can have it resolve to something else; who sends no Host is no browser.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

#: Whatever stands in place of the names that are allowed admits all.
ANY = "*"

#: A name or an address, and perhaps a port (RFC 9110 section 7.2).
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]*))(?::[0-9]*)?")


class HostAllowlist:
    """What is admitted: IP addresses, `localhost`, this machine's name, and others that are named."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """:param names: the others, without ports; `*`: all there are."""
        own = socket.gethostname().lower()
        # An empty field is no browser's either.
        self._names = {"", "localhost", own, own.partition(".")[0], *(name.lower() for name in names)}

    def admits(self, host: str) -> bool:
        """Tell whether one may ask by what a Host field says."""
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
