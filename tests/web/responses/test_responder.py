"""The responses for a document, and that both ways of sending them yield the same bytes."""

import gzip
import json
from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import livestate.documents.snapshot
from livestate.documents.document import Document
from livestate.documents.snapshot import ENCODERS, LARGE, new_snapshot
from livestate.web.resources.document import DocumentResource
from livestate.web.responses.responder import Responder
from livestate.web.site import LiveSite
from tests.support import NOW, FakeReactor, exchange, many, parse_response, result_of

DATA = json.dumps({"votes": list(range(300))}).encode()
BIG = json.dumps([{"row": n} for n in range(LARGE // 10)]).encode()
LISTED = ("https://a.example", "https://b.example")

accept_encodings = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(
            ["gzip", "br", "zstd", "identity", "*", "br;q=0.5", "gzip;q=0", "identity;q=0", "*;q=0", "x;y"]
        ),
        max_size=4,
    ).map(", ".join),
)
origins = st.sampled_from([None, "https://a.example", "https://b.example", "https://c.example", "null", ""])
validators = st.sampled_from([None, "*", '"x"', "first", "weak first", "second, last", "nonsense", "last, "])


class Case(SynchronousTestCase):
    """A document, its Responder, and a site without the fast path."""

    def make(self, data: bytes | None = DATA, origins=("*",), max_stale=None, hold_threads=False):
        self.reactor = FakeReactor(hold_threads=hold_threads)
        self.document = Document(self.reactor, "/", 2**20)
        self.responder = Responder(self.document, origins, max_stale, self.reactor.seconds)
        self.site = LiveSite({b"/": DocumentResource(self.responder)}, self.reactor)
        if data is not None and not hold_threads:
            result_of(self.document.update(data))

    def etags(self):
        """Return the entity tags of all content codings."""
        for coding in ENCODERS:
            self.document.ask((coding,))
        snapshot = self.document.snapshot
        return [] if snapshot is None else [r.etag.decode("ascii") for r in snapshot.representations.values()]

    def request(self, method="GET", accept_encoding=None, origin=None, if_none_match=None):
        fields = {"Accept-Encoding": accept_encoding, "Origin": origin, "If-None-Match": if_none_match}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([f"{method} / HTTP/1.1", "Host: live.example", *lines, "", ""]).encode("latin-1")

    def response(self, accept_encoding=None, origin=None, if_none_match=None):
        """Return the Response for a request's fields."""

        def field(value):
            return None if value is None else value.strip(" \t").encode("latin-1")

        return self.responder.variant(field(accept_encoding), field(origin)).respond(field(if_none_match))


class WireTests(Case):
    """`Response.wire` returns what twisted.web writes."""

    @many
    @given(
        st.sampled_from(["good", "none", "stale", "large"]),
        st.sampled_from([("*",), LISTED]),
        accept_encodings,
        origins,
        validators,
        st.floats(0, 100),
    )
    def test_wire(self, state, allowed, accept_encoding, origin, validator, elapsed):
        """For any document and request, `wire` returns the same bytes that twisted.web writes."""
        self.make(
            {"none": None, "large": BIG}.get(state, DATA), allowed, 0.5 if state == "stale" else None, state == "large"
        )
        if state == "large":
            # Published uncompressed, while its codings are still being made.
            self.document.restore(new_snapshot(BIG, NOW), NOW)
        self.reactor.rightNow += elapsed
        self.responder.renew()
        if_none_match = validator
        for word, index in (("first", 0), ("second", 1), ("last", -1)):
            etags = self.etags()
            if validator is not None and word in validator and etags:
                etag = etags[min(index, len(etags) - 1)]
                if_none_match = (if_none_match or "").replace(word, etag).replace("weak ", "W/")
        response = self.response(accept_encoding, origin, if_none_match)
        written = exchange(self.site, self.request("GET", accept_encoding, origin, if_none_match))
        self.assertEqual(written, response.wire())
        head = exchange(self.site, self.request("HEAD", accept_encoding, origin, if_none_match))
        self.assertEqual(head, written.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")

    def test_variant_wires(self):
        """The bytes that a Variant keeps are those of its responses."""
        self.make()
        variant = self.responder.variant(b"gzip", None)
        self.assertEqual(variant.prepare(), self.response("gzip").wire())
        prepared = variant.prepare_not_modified()
        self.assertEqual(len(prepared), 2)
        for etag, wire in prepared.items():
            self.assertEqual(wire, self.response("gzip", None, etag.decode("ascii")).wire())

    def test_preflight(self):
        """The response to OPTIONS has the same bytes too."""
        for allowed in (("*",), LISTED):
            self.make(origins=allowed)
            for origin in (None, "https://a.example", "https://c.example"):
                response = self.responder.preflight(None if origin is None else origin.encode("ascii"))
                self.assertEqual(exchange(self.site, self.request("OPTIONS", origin=origin)), response.wire())


class ResponseTests(Case):
    """The contents of responses."""

    def fields(self, *args):
        return parse_response(self.response(*args).wire()).fields

    def test_full(self):
        """A 200 carries the document and exactly these fields."""
        self.make()
        self.reactor.advance(1.5)
        response = self.response("gzip")
        self.assertEqual(response.status, 200)
        self.assertEqual(gzip.decompress(response.body), DATA)
        snapshot = self.document.snapshot
        assert snapshot is not None
        self.assertEqual(
            self.fields("gzip"),
            {
                "Date": formatdate(NOW + 1.5, usegmt=True),
                "Content-Type": "application/json",
                "Content-Length": str(len(response.body)),
                "Content-Encoding": "gzip",
                "Last-Modified": formatdate(NOW, usegmt=True),
                "ETag": snapshot.representations["gzip"].etag.decode("ascii"),
                "Cache-Control": "public, max-age=1, stale-while-revalidate=1, stale-if-error=300",
                "Vary": "Accept-Encoding",
                "Link": '</events>; rel="alternate"; type="text/event-stream"',
                "Livestate-Age": "1",
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Expose-Headers": "ETag, Link, Livestate-Age, Preference-Applied",
                "X-Content-Type-Options": "nosniff",
            },
        )
        self.assertNotIn("Content-Encoding", self.fields("identity"))
        self.assertEqual(self.response(None).body, DATA)

    def test_not_modified(self):
        """A 304 carries the fields that a cache updates its copy with, but no body and no fields about a body."""
        self.make()
        etag = self.fields("br")["ETag"]
        response = self.response("br", None, etag)
        self.assertEqual((response.status, response.body), (304, b""))
        expected = {name: value for name, value in self.fields("br").items() if not name.startswith("Content-")}
        del expected["Last-Modified"], expected["X-Content-Type-Options"]
        self.assertEqual(parse_response(response.wire()).fields, expected)

    def test_etags(self):
        """Each coding has its own entity tag. The tags of all codings that the client accepts are recognised, no others."""
        self.make()
        etags = {coding: self.fields(coding)["ETag"] for coding in ("br", "zstd", "gzip", "identity")}
        self.assertEqual(len(set(etags.values())), 4)
        for coding, etag in etags.items():
            for accepted in ("gzip", "br, zstd, gzip", "identity;q=0, br"):
                response = self.response(accepted, None, f'"other", W/{etag}')
                known = coding in accepted.split(", ") or (coding == "identity" and "identity;q=0" not in accepted)
                self.assertEqual(response.status, 304 if known else 200, (coding, accepted))
                if known:
                    self.assertEqual(parse_response(response.wire()).fields["ETag"], etag)

    def test_outdated_etag(self):
        """With the tag of a previous version, a client gets the full new version."""
        self.make()
        etag = self.fields("gzip")["ETag"]
        result_of(self.document.update(b'{"votes": 1}'))
        response = self.response("gzip", None, etag)
        self.assertEqual((response.status, response.body), (200, b'{"votes": 1}'))

    def test_vary(self):
        """Vary names Origin if the response depends on it, whether or not the origin may read."""
        self.make()
        self.assertEqual(self.fields("gzip", "https://a.example")["Vary"], "Accept-Encoding")
        self.make(origins=LISTED)
        for origin in (None, "https://a.example", "https://c.example"):
            etag = self.fields("gzip", origin)["ETag"]
            for if_none_match in (None, etag):
                self.assertEqual(self.fields("gzip", origin, if_none_match)["Vary"], "Accept-Encoding, Origin")

    def test_cors(self):
        """With `*` all origins may read. With a list, only the listed ones may, and others get no CORS fields."""
        allow = "Access-Control-Allow-Origin"
        self.make()
        self.assertEqual(self.fields(None, None)[allow], "*")
        self.assertEqual(self.fields(None, "https://a.example")[allow], "*")
        self.make(origins=LISTED)
        self.assertEqual(self.fields(None, "https://b.example")[allow], "https://b.example")
        for origin in (None, "https://c.example"):
            self.assertFalse([name for name in self.fields(None, origin) if name.startswith("Access-Control")])

    def test_no_document(self):
        """While there is no document yet, the response is a problem document with Retry-After."""
        self.make(None, LISTED)
        for if_none_match in (None, "*"):
            response = parse_response(self.response("gzip", "https://a.example", if_none_match).wire())
            self.assertEqual(response.status, 503)
            self.assertEqual(response.fields["Retry-After"], "1")
            self.assertEqual(response.fields["Cache-Control"], "no-store")
            self.assertEqual(response.fields["Content-Type"], "application/problem+json")
            self.assertEqual(response.fields["Access-Control-Allow-Origin"], "https://a.example")
            self.assertNotIn("ETag", response.fields)
            content = json.loads(response.body)
            self.assertEqual((content["title"], content["status"]), ("Service Unavailable", 503))
            self.assertIn("no document yet", content["detail"])

    def test_max_stale(self):
        """Beyond the maximum age the document is no longer served, until the store confirms it."""
        self.make(max_stale=10)
        etag = self.fields("gzip")["ETag"]
        self.reactor.advance(10)
        self.responder.renew()
        self.assertEqual(self.response("gzip", None, etag).status, 304)
        self.reactor.advance(0.5)
        self.responder.renew()
        for if_none_match in (None, etag, "*"):
            response = self.response("gzip", None, if_none_match)
            self.assertEqual(response.status, 503)
            self.assertIn("too old", json.loads(response.body)["detail"])
        result_of(self.document.update(DATA))
        self.responder.renew()
        self.assertEqual(self.response("gzip").status, 200)

    def test_without_max_stale(self):
        """Without a maximum age, a document of any age is served."""
        self.make()
        self.reactor.advance(10 * 365 * 86400)
        self.assertEqual(self.response("gzip").status, 200)

    def test_not_acceptable(self):
        """A client that accepts none of the available codings gets a list of them."""
        self.make(b'{"small": true}')
        response = self.response("identity;q=0, gzip")
        self.assertEqual(response.status, 406)
        self.assertIn("identity", json.loads(response.body)["detail"])
        self.assertEqual(parse_response(response.wire()).fields["Vary"], "Accept-Encoding")

    def test_unfinished_codings(self):
        """While the only coding that a client accepts is being made, it gets 503 with Retry-After; others get another."""
        self.make(None, hold_threads=True)
        self.document.restore(new_snapshot(BIG, NOW), NOW)
        response = self.response("identity;q=0, gzip")
        self.assertEqual((response.status, parse_response(response.wire()).fields["Retry-After"]), (503, "1"))
        plain = self.response("gzip")
        self.assertEqual(plain.body, BIG)
        self.reactor.run_job()
        self.assertEqual(gzip.decompress(self.response("identity;q=0, gzip").body), BIG)
        self.assertEqual(gzip.decompress(self.response("gzip").body), BIG)
        tag = dict(plain.fields)[b"ETag"].decode()
        self.assertEqual(self.response("gzip", None, tag).status, 304)
        self.assertEqual(self.response("gzip, identity;q=0", None, tag).status, 200)

    def test_coding_made_for_another_client(self):
        """A 304 by the tag of a coding is sent as soon as that coding was made, for whomever it was made."""
        self.make()
        self.assertEqual(self.response("br, gzip", None, '"x"').status, 200)
        tag = self.fields("gzip")["ETag"]
        self.assertEqual(self.response("br, gzip", None, tag).status, 304)

    def test_only_what_is_asked_for(self):
        """A document has the codings that were asked for, and a change makes those that are in use."""
        self.make()
        assert self.document.snapshot is not None
        self.response("identity")
        self.assertEqual(set(self.document.snapshot.representations), {"identity"})
        self.response("br, gzip, zstd")
        self.assertEqual(set(self.document.snapshot.representations), {"identity", "br"})
        result_of(self.document.update(DATA + b" "))
        self.assertEqual(set(self.document.snapshot.representations), {"identity", "br"})

    def test_useless_coding(self):
        """A client gets the next coding if the one that it prefers does not make the document smaller."""
        encoders = {**ENCODERS, "br": bytes}
        self.patch(livestate.documents.snapshot, "ENCODERS", encoders)
        self.make()
        self.assertEqual(self.fields("br, gzip")["Content-Encoding"], "gzip")
        self.assertEqual(self.response("br").body, DATA)
        response = self.response("br, identity;q=0")
        self.assertEqual(response.status, 406)
        self.assertNotIn("br", json.loads(response.body)["detail"].partition(": ")[2].rstrip(".").split(", "))

    def test_renew(self):
        """Within a second the responses stay the same; after it, they have a new Date and age."""
        self.make()
        first = self.response("gzip")
        self.assertIs(self.response("gzip"), first)
        self.reactor.advance(1)
        self.assertIs(self.response("gzip"), first)
        self.responder.renew()
        second = self.fields("gzip")
        self.assertEqual(second["Date"], formatdate(NOW + 1, usegmt=True))
        self.assertEqual(second["Livestate-Age"], "1")
        self.assertEqual(self.fields("gzip", None, second["ETag"])["Date"], second["Date"])

    def test_change_within_a_second(self):
        """A change of the document is visible at once, even within a second."""
        self.make()
        self.response("gzip")
        result_of(self.document.update(b"2"))
        self.assertEqual(self.response("gzip").body, b"2")

    def test_few_variants(self):
        """However many clients there are, the number of kept variants is bounded by orders of codings and origins."""
        self.make(origins=LISTED)
        for index in range(2000):
            self.response(f"gzip;q=0.{index % 1000:03}, br;q=0.{index % 7}", f"https://{index}.example")
        self.assertLessEqual(len(self.responder._variants), 65)

    def test_counts(self):
        """On renewal, the sent responses are counted: by coding for a 200, and else by status."""
        self.make()
        etag = self.fields("gzip")["ETag"]
        for _ in range(2):
            self.response("gzip")
        self.response(None)
        self.response("gzip", None, etag)
        self.response("identity;q=0, *;q=0")
        self.responder.renew()
        self.assertEqual(dict(self.responder.tally), {"gzip": 3, "identity": 1, "304": 1, "406": 1})
