"""Content negotiation, conditional requests and allowed origins."""

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
    """Return the name of one member and its weight in thousandths, or None (RFC 9110 sections 12.4.2, 12.5.3)."""
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
    """Return the weight of each coding in thousandths: 0.5 for "identity" if it is accepted without being named."""
    named: dict[str, float] = {}
    for member in accept_encoding.split(b","):
        parsed = weight_of(member)
        if parsed is not None:
            name, weight = parsed
            named.setdefault("gzip" if name == b"x-gzip" else name.decode("ascii"), weight)
    weights = {coding: named.get(coding, named.get("*", 0)) for coding in CODINGS if coding != "identity"}
    weights["identity"] = named.get("identity", 0 if named.get("*") == 0 else 0.5)
    return weights


class AcceptedCodingsTests(SynchronousTestCase):
    """The content codings that a client accepts."""

    @many
    @given(st.binary(max_size=60))
    def test_never_raises(self, value):
        """For any bytes, the result contains only known codings, each at most once."""
        codings = accepted_codings(value)
        self.assertLessEqual(set(codings), set(CODINGS))
        self.assertEqual(len(codings), len(set(codings)))

    @many
    @given(accept_encodings)
    def test_agrees_with_the_rfc(self, value):
        """The accepted codings and their order agree with a literal reading of RFC 9110 section 12.5.3."""
        given_weights = model(value)
        expected = sorted(
            (coding for coding in CODINGS if given_weights[coding] > 0),
            key=lambda coding: (-given_weights[coding], CODINGS.index(coding)),
        )
        self.assertEqual(accepted_codings(value), tuple(expected))

    def test_no_field(self):
        """A client that names no coding gets the document uncompressed."""
        self.assertEqual(accepted_codings(None), ("identity",))
        self.assertEqual(accepted_codings(b""), ("identity",))

    def test_examples(self):
        """Fields from browsers, tools and the RFC give the intended codings."""
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
    def test_few_results(self, value):
        """However many different fields there are, the results are few enough to be cached."""
        self.assertIn(accepted_codings(value), all_orders())


def all_orders():
    """Return every ordering of every subset of the codings; there are 65."""
    orders: set[tuple[str, ...]] = {()}
    while True:
        more = orders | {(*order, coding) for order in orders for coding in CODINGS if coding not in order}
        if more == orders:
            assert len(orders) == 65
            return orders
        orders = more


class WeightTests(SynchronousTestCase):
    """The weight that a client gives a media type."""

    def test_table(self):
        """The most specific matching range decides, and malformed ranges are ignored."""
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
        """Any field gives a weight from 0 to 1."""
        self.assertTrue(0 <= media_weight(b"text/html", accept) <= 1)


class MatchesTests(SynchronousTestCase):
    """Whether a client already has the document."""

    @many
    @given(st.lists(st.tuples(st.booleans(), etags), min_size=1, max_size=5), st.data())
    def test_finds_each_of_a_list(self, tags, data):
        """Every tag in a list is found: weak or strong, with or without commas in it, with any spacing."""
        gap = data.draw(st.sampled_from([b",", b", ", b" ,\t", b",,", b", ,"]))
        field = gap.join((b"W/" if weak else b"") + tag for weak, tag in tags)
        _, wanted = data.draw(st.sampled_from(tags))
        self.assertTrue(matches(field, wanted))

    @many
    @given(st.lists(etags, max_size=5), etags)
    def test_finds_no_other(self, tags, wanted):
        """A tag that is not a member of the list is not found, even if its text is part of a member."""
        self.assertEqual(matches(b", ".join(tags), wanted), wanted in tags)

    @many
    @given(st.binary(max_size=40), etags)
    def test_never_raises(self, field, etag):
        """Any bytes give an answer, which is False if they do not contain the tag."""
        if matches(field, etag):
            self.assertTrue(etag in field or field.strip(b" \t") == b"*")

    def test_star(self):
        """`*` matches any tag, but only if it stands alone."""
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
        """A member that is not an entity tag is skipped, and the next one counts."""
        self.assertTrue(matches(b'abc, "x"', b'"x"'))
        self.assertTrue(matches(b', , "x"', b'"x"'))
        self.assertFalse(matches(b"x", b'"x"'))
        self.assertFalse(matches(b'w/"x"', b'"x"'))
        self.assertFalse(matches(b'"x', b'"x"'))


class AllowedOriginTests(SynchronousTestCase):
    """The origins whose pages may read a document."""

    def test_table(self):
        """With `*` the result is `*`, even without an Origin; with a list, it is the origin if the list contains it."""
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
