"""The choice of a representation from what a client accepts and has."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.negotiation import CODINGS, accepted_codings, allowed_origin, matches, media_weight
from tests.support import many

TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

names = st.sampled_from(
    [b"gzip", b"x-gzip", b"br", b"zstd", b"identity", b"*", b"deflate", b"GZip", b"Identity", b"X-GZIP"]
)
spaces = st.sampled_from([b"", b"", b" ", b"\t", b" \t "])
weights = st.sampled_from([
    b"", b"", b";q=0", b";q=0.", b";q=0.000", b";q=0.001", b";q=0.5", b";q=0.50", b";Q=0.7", b";q=1", b";q=1.000",
    b"; q=0.3", b" ;\tq=0.999", b";q=2", b";q=1.001", b";q=-1", b";q=", b";q=0.1234", b";q=.5", b";level=1", b";q=0.5;x=1",
])  # fmt: skip
members = st.builds(lambda a, name, weight, b: a + name + weight + b, spaces, names, weights, spaces)
noise = st.binary(max_size=6)
accept_encodings = st.lists(st.one_of(members, members, members, noise), max_size=7).map(b",".join)

tag_bytes = st.lists(st.sampled_from([*range(0x23, 0x7F), 0x21, *range(0x80, 0x100)]), max_size=6).map(bytes)
etags = tag_bytes.map(lambda inside: b'"' + inside + b'"')


def weight_of(member):
    """Read one member by RFC 9110 sections 12.4.2 and 12.5.3: its name, and its weight in thousandths; or None."""
    name, semicolon, parameter = member.partition(b";")
    name = name.strip(b" \t")
    if not name or not set(name) <= TOKEN_BYTES:
        return None
    if not semicolon:
        return name.lower(), 1000
    key, equals, value = parameter.strip(b" \t").partition(b"=")
    whole, point, rest = value.partition(b".")
    if key.lower() != b"q" or not equals or whole not in (b"0", b"1") or len(rest) > 3:
        return None
    if rest and not set(rest) <= set(b"0123456789"):
        return None
    weight = int(whole) * 1000 + int(rest.ljust(3, b"0"))
    return (name.lower(), weight) if weight <= 1000 else None


def model(accept_encoding):
    """Give the weight of each coding in thousandths, 0.5 for the plain bytes that are accepted without being named."""
    named: dict[str, float] = {}
    for member in accept_encoding.split(b","):
        read = weight_of(member)
        if read is not None:
            name, weight = read
            named.setdefault("gzip" if name == b"x-gzip" else name.decode("ascii"), weight)
    given = {coding: named.get(coding, named.get("*", 0)) for coding in CODINGS if coding != "identity"}
    given["identity"] = named.get("identity", 0 if named.get("*") == 0 else 0.5)
    return given


class AcceptedCodingsTests(SynchronousTestCase):
    """What a client accepts."""

    @many
    @given(st.binary(max_size=60))
    def test_never_raises(self, value):
        """Any bytes at all give some of the known codings, each once."""
        codings = accepted_codings(value)
        self.assertLessEqual(set(codings), set(CODINGS))
        self.assertEqual(len(codings), len(set(codings)))

    @many
    @given(accept_encodings)
    def test_agrees_with_the_rfc(self, value):
        """What is accepted, and in which order, is what a plain reading of RFC 9110 12.5.3 gives."""
        given_weights = model(value)
        expected = sorted(
            (coding for coding in CODINGS if given_weights[coding] > 0),
            key=lambda coding: (-given_weights[coding], CODINGS.index(coding)),
        )
        self.assertEqual(accepted_codings(value), tuple(expected))

    def test_no_field(self):
        """A client that names no coding is given the plain bytes only."""
        self.assertEqual(accepted_codings(None), ("identity",))
        self.assertEqual(accepted_codings(b""), ("identity",))

    def test_examples(self):
        """The fields that browsers, tools and the RFC show are understood as they are meant."""
        for value, expected in (
            (b"gzip, deflate, br, zstd", ("br", "zstd", "gzip", "identity")),
            (b"gzip", ("gzip", "identity")),
            (b"*", ("br", "zstd", "gzip", "identity")),
            (b"compress;q=0.5, gzip;q=1.0", ("gzip", "identity")),
            (b"gzip;q=1.0, identity; q=0.5, *;q=0", ("gzip", "identity")),
            (b"identity;q=1, gzip;q=0.9", ("identity", "gzip")),
            (b"*;q=0", ()),
            (b"identity;q=0", ()),
            (b"identity;q=0, br;q=0.1", ("br",)),
            (b"gzip;q=0, *", ("br", "zstd", "identity")),
        ):
            self.assertEqual(accepted_codings(value), expected, value)

    @many
    @given(accept_encodings)
    def test_few_outcomes(self, value):
        """There is one outcome an order of codings, however many fields there are, so that outcomes can be kept."""
        self.assertIn(accepted_codings(value), all_orders())


def all_orders():
    """Give every order of every choice of codings: there are 65."""
    orders: set[tuple[str, ...]] = {()}
    while True:
        more = orders | {(*order, coding) for order in orders for coding in CODINGS if coding not in order}
        if more == orders:
            assert len(orders) == 65
            return orders
        orders = more


class WeightTests(SynchronousTestCase):
    """How much a media type is wanted."""

    def test_table(self):
        """The most specific range that fits decides, and what is malformed counts for nothing."""
        for accept, weight in (
            (None, 1.0),
            (b"", 0.0),
            (b"text/html", 1.0),
            (b"TEXT/HTML;Q=0.25", 0.25),
            (b"*/*;q=0.1, text/*;q=0.2, text/html;q=0.3", 0.3),
            (b"*/*;q=0.1,text/*;q=0.2", 0.2),
            (b"image/*, */*;q=0.1", 0.1),
            (b"text/html;q=0, */*", 0.0),
            (b"text/html;level=1, */*;q=0.4", 0.4),
            (b"text/html;q=2, texthtml, ,;", 0.0),
        ):
            self.assertEqual(media_weight(b"text/html", accept), weight, accept)

    @many
    @given(st.binary() | st.lists(st.sampled_from([b"text", b"/", b"*", b"html", b";q=", b"0.5", b","])).map(b"".join))
    def test_any_bytes(self, accept):
        """Any field at all gives a weight."""
        self.assertTrue(0 <= media_weight(b"text/html", accept) <= 1)


class MatchesTests(SynchronousTestCase):
    """What a client has."""

    @many
    @given(st.lists(st.tuples(st.booleans(), etags), min_size=1, max_size=5), st.data())
    def test_finds_each_of_a_list(self, tags, data):
        """Each tag of a list is found, weak or strong, with commas inside or not, and however it is spaced."""
        gap = data.draw(st.sampled_from([b",", b", ", b" ,\t", b",,", b", ,"]))
        field = gap.join((b"W/" if weak else b"") + tag for weak, tag in tags)
        _, wanted = data.draw(st.sampled_from(tags))
        self.assertTrue(matches(field, wanted))

    @many
    @given(st.lists(etags, max_size=5), etags)
    def test_finds_no_other(self, tags, wanted):
        """A tag that is not a member of the list is not found, though its text may be inside a member."""
        self.assertEqual(matches(b", ".join(tags), wanted), wanted in tags)

    @many
    @given(st.binary(max_size=40), etags)
    def test_never_raises(self, field, etag):
        """Any bytes at all are an answer, and one that names the tag nowhere says no."""
        if matches(field, etag):
            self.assertTrue(etag in field or field.strip(b" \t") == b"*")

    def test_star(self):
        """`*` matches whatever there is, but only alone."""
        self.assertTrue(matches(b"*", b'"a"'))
        self.assertTrue(matches(b" * ", b'"a"'))
        self.assertFalse(matches(b'"*"', b'"a"'))
        self.assertFalse(matches(b"*, *", b'"a"'))

    def test_comma_inside(self):
        """A comma inside a tag does not end it."""
        self.assertTrue(matches(b'"a,b", "c"', b'"a,b"'))
        self.assertTrue(matches(b'"a,b", "c"', b'"c"'))
        self.assertFalse(matches(b'"a,b"', b'"b"'))
        self.assertFalse(matches(b'"a,"b","', b'"b"'))

    def test_malformed_members(self):
        """What is no entity tag is passed over, and the next member counts."""
        self.assertTrue(matches(b'abc, "x"', b'"x"'))
        self.assertTrue(matches(b', , "x"', b'"x"'))
        self.assertFalse(matches(b"x", b'"x"'))
        self.assertFalse(matches(b'w/"x"', b'"x"'))
        self.assertFalse(matches(b'"x', b'"x"'))


class AllowedOriginTests(SynchronousTestCase):
    """Who may read from a page."""

    def test_table(self):
        """`*` opens the document to all and also without Origin; a list gives back just the origin it holds."""
        listed = (b"https://a.example", b"https://b.example")
        for origin, allowed, expected in (
            (None, (b"*",), b"*"),
            (b"https://a.example", (b"*",), b"*"),
            (None, listed, None),
            (b"https://b.example", listed, b"https://b.example"),
            (b"https://c.example", listed, None),
            (b"https://a.example.evil", listed, None),
            (b"null", listed, None),
        ):
            self.assertEqual(allowed_origin(origin, allowed), expected, origin)
