"""URLs with several Redis servers, and the slots of a cluster."""

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError, SourceError
from livestate.sources.api import IWatching, IWritableSource
from livestate.sources.factory import make_source
from livestate.sources.redis.slots import SLOTS, Redirection, owners_of, redirection, slot_of
from livestate.sources.redis.url import NodeAddress, addresses_of, split
from tests.support import FakeReactor, few, many

names = st.text(st.sampled_from(string.ascii_lowercase + string.digits + ".-_"), min_size=1, max_size=12)
addresses = st.builds(NodeAddress, names | st.sampled_from(["::1", "fe80::1%eth0"]), st.integers(1, 65535))


class AddressTests(SynchronousTestCase):
    """The servers in a URL."""

    @many
    @given(st.lists(addresses, min_size=1, max_size=5, unique=True), st.sampled_from(["", "u:p%40@", ":p@", "u@"]))
    def test_list(self, servers, login):
        """A list of servers is parsed into the same list, whatever comes before and after it."""
        parts = split(f"REDIS+cluster://{login}{','.join(map(str, servers))}/a/b?c=d#e")
        self.assertEqual(addresses_of(parts, 1), tuple(servers))
        self.assertEqual((parts.scheme, parts.path, parts.query), ("redis+cluster", "/a/b", "c=d"))

    def test_default_port(self):
        """A server without a port gets the default, and duplicates are removed."""
        self.assertEqual(
            addresses_of(split("x://a,[::1],b:7,a:9"), 9),
            (NodeAddress("a", 9), NodeAddress("::1", 9), NodeAddress("b", 7)),
        )

    def test_wrong(self):
        """An invalid list of servers is refused without showing it, as it may be part of a password."""
        for authority in (
            "",
            ",",
            "a,,b",
            "a:",
            "a:0",
            "a:65536",
            "a:hush",
            "[hush",
            "a b",
            "u:hu/sh@a",
            "u:1/hush@a",
            "u:x/y/hush@a",
            "a,",
            "a:1:2",
        ):
            for kind, tail in (("sentinel", "svc"), ("cluster", "")):
                url = f"redis+{kind}://{authority}/{tail}"
                error = self.assertRaises(SettingsError, make_source, FakeReactor(), url, 100)
                self.assertIn("HOST:PORT,HOST:PORT", str(error), url)
                if "@" in authority:
                    self.assertNotIn("hush", str(error))
        error = self.assertRaises(SettingsError, make_source, FakeReactor(), "redis+cluster:a", 100)
        self.assertIn("not a URL", str(error))

    def test_refused(self):
        """An invalid part of a URL is refused with a message that says what would be valid."""
        for url, text in (
            ("redis+sentinel://a", "the URL has no service"),
            ("redis+sentinel://a/", "the URL has no service"),
            ("redis+sentinel://a/svc/x", "the database must be a number"),
            ("redis+sentinel://a/svc?read_from=replica", "read_from must be primary or prefer_replica, not 'replica'"),
            ("redis+sentinel://a/svc?cafile=x", "cafile needs TLS"),
            ("rediss+sentinel://a/svc?cafile=/nowhere", "/nowhere"),
            ("redis+cluster://a/1", "a cluster has only the database 0"),
            ("redis+cluster://a/?read_from=prefer_replica", "unknown parameter 'read_from'"),
            ("redis://a/?sentinel_password=hush", "unknown parameter 'sentinel_password'"),
            ("redis+nonsense://a", "unknown kind of source"),
        ):
            error = self.assertRaises(SettingsError, make_source, FakeReactor(), url, 100)
            self.assertIn(text, str(error))
            self.assertNotIn("hush", str(error))

    def test_made(self):
        """All parameters together make a source to write to and to watch, whose name has no password."""
        for url in (
            "redis+sentinel://u:hush@a:1,b/svc/3?key=k&sentinel_username=s&sentinel_password=hush"
            "&read_from=prefer_replica&notify=keyspace",
            "rediss+sentinel://:hush@[::1]:1,b/svc?notify=c",
            "redis+cluster://u:hush@a,b:7000?key=k&notify=c",
            "rediss+cluster://a/0?notify=c",
        ):
            source: Any = make_source(FakeReactor(), url, 100)
            self.assertTrue(IWritableSource.providedBy(source) and IWatching.providedBy(source))
            self.assertNotIn("hush", str(source))
            source.close()

    @few
    @given(
        st.sampled_from(["redis+sentinel://", "redis+cluster://", "redis+sentinel:", "rediss+cluster://"]),
        st.text(st.sampled_from("ab:/?#[]@%&=*,.0123é \n\t\x00-"), max_size=14),
    )
    def test_any_url(self, scheme, rest):
        """Any URL either makes a source or raises SettingsError."""
        try:
            make_source(FakeReactor(), scheme + rest, 100).close()
        except SettingsError:
            pass


class SlotTests(SynchronousTestCase):
    """The slots of a cluster."""

    def test_known(self):
        """Slots follow the specification: CRC16 has its check value, and only the hash tag counts if there is one."""
        for key, slot in (
            (b"123456789", 0x31C3),
            (b"", 0),
            (b"foo", 12182),
            (b"hello", 866),
            (b"somekey", 11058),
        ):
            self.assertEqual(slot_of(key), slot, key)
        for key, hashed in (
            (b"{user1000}.following", b"user1000"),
            (b"foo{bar}{zap}", b"bar"),
            (b"foo{{bar}}zap", b"{bar"),
        ):
            self.assertEqual(slot_of(key), slot_of(hashed), key)
        self.assertNotEqual(slot_of(b"foo{}{bar}"), slot_of(b"bar"))
        self.assertNotEqual(slot_of(b"foo{bar"), slot_of(b"bar"))

    @few
    @given(st.binary(max_size=30))
    def test_any_key(self, key):
        """Any key has a slot."""
        self.assertIn(slot_of(key), range(SLOTS))

    def test_redirections(self):
        """MOVED and ASK are parsed by the specification; a missing host means the one that was asked."""
        asked = NodeAddress("here", 1)
        for text, target in (
            ("MOVED 3999 127.0.0.1:6381", Redirection(NodeAddress("127.0.0.1", 6381), False)),
            ("ASK 3999 node.example:6381", Redirection(NodeAddress("node.example", 6381), True)),
            ("MOVED 3999 ::1:6381", Redirection(NodeAddress("::1", 6381), False)),
            ("MOVED 3999 :6381", Redirection(NodeAddress("here", 6381), False)),
            ("MOVED 3999", None),
            ("MOVED 3999 x", None),
            ("MOVED 3999 x:y", None),
            ("CLUSTERDOWN The cluster is down", None),
            ("", None),
        ):
            self.assertEqual(redirection(text, asked), target, text)

    def test_owners(self):
        """The owner of a slot is the first node of its range; all other nodes are listed once."""
        reply = [
            [0, 5, [b"a", 1, b"id", []], [b"b", 2, b"id", []]],
            [6, 9, [None, 3, b"id", [b"x", b"y"]], [b"?", 4, b"id"]],
            [10, 11, [b"a", 1, b"id", []]],
        ]
        asked = NodeAddress("here", 9)
        found = owners_of(7, reply, asked)
        self.assertEqual(found.owner, NodeAddress("here", 3))
        self.assertEqual(found.others, (NodeAddress("a", 1), NodeAddress("b", 2), NodeAddress("here", 4)))
        error = self.assertRaises(SourceError, owners_of, 12, reply, asked)
        self.assertIn("no node serves the key's slot (12)", str(error))

    @few
    @given(
        st.recursive(
            st.none() | st.integers() | st.binary(max_size=3) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=5),
            max_leaves=20,
        )
    )
    def test_any_reply(self, reply):
        """Any reply either gives an owner or raises SourceError."""
        try:
            owners_of(7, reply, NodeAddress("here", 9))
        except SourceError:
            pass
