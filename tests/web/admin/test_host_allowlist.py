"""The host names that the admin site answers to."""

import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.admin.host_allowlist import HostAllowlist
from tests.support import many


class HostAllowlistTests(SynchronousTestCase):
    """`HostAllowlist`."""

    def setUp(self):
        self.patch(socket, "gethostname", lambda: "Box.example")

    def test_admitted(self):
        """IP addresses, localhost, this machine's name and the given names are admitted, with any port."""
        allowlist = HostAllowlist(["Prometheus.example", "live_state"])
        for name in (
            "127.0.0.1", "127.8.9.10", "10.0.0.5", "192.0.2.1", "[::1]", "[2001:DB8::1]", "localhost", "LocalHost",
            "localhost.", "box", "box.example", "BOX.EXAMPLE", "prometheus.example", "live_state",
        ):  # fmt: skip
            for port in ("", ":", ":9180", ":80"):
                self.assertTrue(allowlist.admits(name + port), name + port)
        self.assertTrue(allowlist.admits(""))

    def test_foreign(self):
        """Any other name is refused, even if it looks similar."""
        for name in (
            "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "example",
            "box.example.evil.example", "[evil.example]", "[::1].evil.example", "[", "]", "::1", "user@localhost",
            "127.0.0.1@evil.example", " ", "localhost/evil", "0x7f.0.0.1", "2130706433", "localhost..", "*", "\xff",
        ):  # fmt: skip
            for port in ("", ":9180"):
                self.assertFalse(HostAllowlist().admits(name + port), name + port)

    def test_any(self):
        """With *, every name is admitted."""
        self.assertTrue(HostAllowlist(["*"]).admits("evil.example"))

    @many
    @given(st.text(st.sampled_from("[]:.-*@/ab01%é "), max_size=12))
    def test_arbitrary_text(self, text):
        """Arbitrary text raises nothing, and is admitted only if it contains no name that could be resolved."""
        if HostAllowlist().admits(text):
            self.assertRegex(text, r"^(|[0-9.]+|\[[0-9a-b:.]+\])(:[0-9]*)?$")
