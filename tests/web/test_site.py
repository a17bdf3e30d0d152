"""The public and the admin site, tested with whole requests over a connection."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from livestate.documents.document import Document
from livestate.sources.api import ISource
from livestate.web.admin.site import AdminSite, admin_resources
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.resources.document import DocumentResource
from livestate.web.resources.readiness import ReadyResource
from livestate.web.responses.responder import Responder
from livestate.web.site import LiveSite, path_of
from tests.polling import SinglePoller
from tests.support import FakeReactor, exchange, exchange_on, many, parse_response, request

DATA = b'{"votes": ' + b"1" * 300 + b"}"


@implementer(ISource)
class Source:
    """A source with one document; without `data`, a fetch never ends."""

    def __init__(self, data):
        self.data = data

    def __str__(self):
        return "source:"

    async def fetch(self):
        return await Deferred() if self.data is None else self.data

    def close(self):
        """Nothing is open."""


class Case(SynchronousTestCase):
    """Two documents, and both sites."""

    fast_path = False

    def setUp(self):
        self.reactor = FakeReactor()
        self.sources = {"/": Source(DATA), "/a b.json": Source(b"[2]")}
        self.pollers, resources, responders = [], {}, {}
        for path, source in self.sources.items():
            document = Document(self.reactor, path, 2**20)
            responder = Responder(document, ("*",), None, self.reactor.seconds)
            responders[path.encode()] = responder
            resources[path.encode()] = DocumentResource(responder)
            poller = SinglePoller(document, source, 1.0, self.reactor)
            poller.startService()
            self.addCleanup(poller.stopService)
            self.pollers.append(poller)
        self.ready = ReadyResource(self.pollers)
        public: Any = {**resources, b"/_live/ready": self.ready}
        fast_site = LiveSite(public, self.reactor, responders)
        self.site = fast_site if self.fast_path else LiveSite(public, self.reactor)
        admin_paths = admin_resources(lambda: self.pollers, self.counts, self.reactor.seconds)
        self.admin = AdminSite(admin_paths, self.reactor, ["live.example"])

    def counts(self):
        return Counts({"/": DocumentCounts(answers={"br": 2, "304": 1})}, connections=3)

    def get(self, *args, site=None, **fields):
        return parse_response(exchange(site or self.site, request(*args, **fields)))

    def assert_problem_document(self, response):
        """Assert that a response is a complete problem document that caches do not store."""
        self.assertEqual(response.fields["Content-Type"], "application/problem+json")
        self.assertEqual(response.fields["Cache-Control"], "no-store")
        self.assertEqual(response.fields["Content-Length"], str(len(response.body)))
        self.assertIn("Date", response.fields)
        self.assertEqual(json.loads(response.body)["status"], response.status)


class SiteTests(Case):
    """Rules for all requests to the public site."""

    def test_methods(self):
        """GET and HEAD return the document, OPTIONS the allowed methods; any other method is refused with their list."""
        full = self.get(accept_encoding="gzip")
        head = self.get("/", "HEAD", accept_encoding="gzip")
        self.assertEqual((full.status, head.status, head.body), (200, 200, b""))
        self.assertEqual(head.lines, full.lines)
        self.assertEqual(len(full.body), int(full.fields["Content-Length"]))
        options = self.get("/", "OPTIONS", origin="https://a.example", access_control_request_method="GET")
        self.assertEqual((options.status, options.body), (204, b""))
        self.assertEqual(options.fields["Allow"], "GET, HEAD, OPTIONS")
        self.assertEqual(options.fields["Access-Control-Allow-Methods"], "GET, HEAD, OPTIONS")
        self.assertEqual(options.fields["Access-Control-Allow-Headers"], "*")
        self.assertEqual(options.fields["Access-Control-Max-Age"], "86400")
        self.assertFalse({"Content-Length", "Transfer-Encoding", "Content-Type"} & set(options.fields))
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get"):
            response = self.get("/", method)
            self.assertEqual((response.status, response.fields["Allow"]), (405, "GET, HEAD, OPTIONS"), method)
            self.assert_problem_document(response)

    def test_internal_error(self):
        """After an internal error, the response is a problem document without details, and the log has a traceback."""

        def respond(request):
            request.responseHeaders.setRawHeaders(b"X-Half-Made", [b"1"])
            raise RuntimeError("hush")

        self.patch(DocumentResource, "respond", lambda resource, request: respond(request))
        # A request with anything unusual in it is left to twisted.web.
        response = self.get(x_unusual="\x01")
        head = self.get("/", "HEAD")
        self.assertEqual(response.status, 500)
        self.assert_problem_document(response)
        self.assertEqual((head.lines, head.body), (response.lines, b""))
        self.assertEqual(set(response.fields) - {"Content-Length"},
                         {"Date", "Content-Type", "Cache-Control", "X-Content-Type-Options"})  # fmt: skip
        for word in (b"hush", b"RuntimeError", b".py", b"Twisted"):
            self.assertNotIn(word, response.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_internal_error_in_mid_response(self):
        """If an error occurs in the middle of a response, the connection is aborted, so the response cannot look complete."""

        def respond(resource, request):
            request.write(b"half")
            raise RuntimeError

        self.patch(DocumentResource, "respond", respond)
        transport = exchange_on(self.site, request("/", "HEAD", x_unusual="\x01"))
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_not_found(self):
        """An unknown path is answered with a problem document, and HEAD with the same head."""
        for target in ("/nothing", "//", "/%2F", "/a", "/_live", "/_live/", "/A%20b.json", "http://h/nothing"):
            response = self.get(target)
            self.assertEqual(response.status, 404, target)
            self.assert_problem_document(response)
        head = self.get("/nothing", "HEAD")
        self.assertEqual((head.lines, head.body), (self.get("/nothing").lines, b""))

    def test_targets(self):
        """The query is ignored, the path may be percent-encoded, and the target may be in absolute form."""
        for target in (
            "/",
            "/?",
            "/?x=1",
            "/?http://h/x",
            "http://live.example/",
            "HTTP://live.example",
            "https://h?x",
        ):
            self.assertEqual(self.get(target).body, DATA, target)
        for target in ("/a%20b.json", "/%61%20b.json?x=%zz", "http://live.example/a%20b.json"):
            self.assertEqual(self.get(target).body, b"[2]", target)

    def test_host(self):
        """An HTTP/1.1 request must have exactly one Host field, an HTTP/1.0 request at most one."""
        for head, status in (
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET /nothing HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ):
            response = parse_response(exchange(self.site, head))
            self.assertEqual(response.status, status, head)
            if status == 400:
                self.assert_problem_document(response)

    def test_bodies_are_discarded(self):
        """A request's body, whatever its framing, is discarded and does not affect the next request."""
        following = request("/a%20b.json")
        large = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000
        for body in (
            b"Content-Length: 5\r\n\r\nhello",
            b"Content-Length: %d\r\n\r\n%b" % (len(large), large),
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ):
            for method in (b"POST", b"GET"):
                data = b"%b / HTTP/1.1\r\nHost: a\r\n%b" % (method, body)
                transport = exchange_on(self.site, data + following)
                for _ in range(10_000):
                    if not transport.value().endswith(b"[2]"):
                        self.reactor.advance(0)
                responses = transport.value()
                self.assertEqual(responses.count(b"HTTP/1.1 "), 2, body[:30])
                self.assertTrue(responses.endswith(b"\r\n\r\n[2]"))

    def test_persistence(self):
        """A connection stays open for the next request, unless the client asks to close it or speaks HTTP/1.0."""
        for head, closes in (
            (request(), False),
            (request(connection="keep-alive"), False),
            (request(connection="close"), True),
            (b"GET / HTTP/1.0\r\n\r\n", True),
        ):
            transport = exchange_on(self.site, head)
            self.assertEqual(transport.disconnecting, closes, head)
            self.assertEqual(parse_response(transport.value()).body, DATA)

    def test_server_is_not_revealed(self):
        """No response of either site reveals the server software, not even an error response."""
        responses = []
        for site in (self.site, self.admin):
            responses += [
                exchange(site, request(target, method))
                for target in ("/", "/nothing", "*", "/health", "/_live/ready")
                for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW")
            ]
            responses += [
                exchange(site, b"nonsense\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
            ]
        for response in responses:
            self.assertTrue(response.startswith(b"HTTP/1.1 "), response)
            self.assertIsNone(re.search(rb"(?im)^server:|twisted", response), response)

    def test_tls_protocols(self):
        """HTTP/2 is not offered."""
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])

    def test_ready(self):
        """`/_live/ready` is ok or stale with status 200, and a 503 only if a document is missing."""
        response = self.get("/_live/ready")
        self.assertEqual((response.status, response.body), (200, b"ok\n"))
        self.assertEqual(response.fields["Cache-Control"], "no-store")
        self.sources["/"].data = None
        self.reactor.run_for(5)
        response = self.get("/_live/ready")
        self.assertEqual((response.status, response.body), (200, b"stale\n"))
        self.pollers[0].document.snapshot = None
        self.assertEqual(self.get("/_live/ready").status, 503)

    def test_ready_while_stopping(self):
        """`/_live/ready` is a 503 while the server is shutting down, even if all documents are fresh."""
        self.ready.stopping = True
        response = self.get("/_live/ready")
        self.assertEqual((response.status, response.body), (503, b"ending\n"))


class PathTests(SynchronousTestCase):
    """The path of a request's target."""

    @many
    @given(
        st.sampled_from([b"", b"/", b"http://", b"HTTPS://host", b"http://host/"]),
        st.lists(st.sampled_from([b"/", b"a", b"%2f", b"%zz", b"%", b":", b"\xff", b"."]), max_size=6).map(b"".join),
        st.binary(max_size=12),
    )
    def test_any_target(self, start, rest, query):
        """Any target has a path, and the query does not affect it."""
        self.assertEqual(path_of(start + rest + b"?" + query), path_of(start + rest))


class FastPathSiteTests(SiteTests):
    """The same tests, on the fast path."""

    fast_path = True


class AdminTests(Case):
    """The admin site: health, readiness, status and metrics."""

    def test_health(self):
        """The process is healthy while it answers, whatever the state of its documents."""
        self.sources["/"].data = None
        self.reactor.run_for(60, step=0.5)
        response = self.get("/health", site=self.admin)
        self.assertEqual((response.status, json.loads(response.body)), (200, {"status": "ok"}))
        self.assertEqual(response.fields["Content-Type"], "application/json")

    def get_with_host(self, target, host, *lines):
        """Request `target` from the admin site under a host name."""
        head = "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""])
        return parse_response(exchange(self.admin, head.encode()))

    def test_unknown_host_names(self):
        """A request for an unknown host name is refused, with a hint how to allow it: it may be a DNS rebinding attack."""
        for target in ("/health", "/ready", "/status", "/metrics", "/nothing"):
            response = self.get_with_host(target, "evil.example:9180")
            self.assertEqual((response.status, response.reason), (421, "Misdirected Request"))
            self.assert_problem_document(response)
            self.assertIn("--admin-host", json.loads(response.body)["detail"])
            self.assertNotIn(b"evil", response.body)
            for host in ("127.0.0.1:9180", "[::1]:9180", "localhost", "live.example"):
                self.assertEqual(self.get_with_host(target, host).status, 404 if target == "/nothing" else 200)
        without = parse_response(exchange(self.admin, b"GET /health HTTP/1.0\r\n\r\n"))
        self.assertEqual(without.status, 200)

    def test_no_cross_origin_access(self):
        """No page of another origin may read anything, whatever origin it claims."""
        for origin in ("https://evil.example", "null", "http://localhost:9180"):
            for target in ("/health", "/ready", "/status", "/metrics", "/nothing"):
                for method in ("GET", "OPTIONS"):
                    response = self.get(target, method, site=self.admin, origin=origin)
                    cross = [name for name in response.fields if name.startswith(("Access-Control", "Timing-Allow"))]
                    self.assertEqual(cross, [])

    def test_ready(self):
        """The admin site is ready while every document is fresh; otherwise it lists the stale ones."""
        self.assertEqual(self.get("/ready", site=self.admin).status, 200)
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        response = self.get("/ready", site=self.admin)
        self.assertEqual((response.status, json.loads(response.body)["stale"]), (503, ["/a b.json"]))

    def test_status(self):
        """The status shows each document: its representations, its age, and the problem with its source."""
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        etag = self.get(accept_encoding="gzip").fields["ETag"]
        status = json.loads(self.get("/status", site=self.admin).body)
        self.assertApproximates(status["uptime_seconds"], 5.0, 0.01)
        good, stale = status["documents"]
        self.assertEqual((good["path"], good["source"], good["fresh"], good["trouble"]), ("/", "source:", True, None))
        self.assertEqual((good["fetches"], good["changes"], good["failures"]), (6, 1, 0))
        self.assertEqual(good["representations"]["identity"]["bytes"], len(DATA))
        self.assertEqual(good["representations"]["gzip"]["etag"], etag)
        self.assertEqual(set(good["representations"]), {"identity", "gzip"})
        self.assertEqual((stale["fresh"], stale["trouble"]), (False, "no answer within 0.8 s"))
        self.assertGreater(stale["age_seconds"], 4)

    def test_status_is_negotiated(self):
        """Browsers get a page, other clients JSON. The page is not stored by caches and contains no scripts."""
        for accept, kind in (
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("text/*", "text/html; charset=utf-8"),
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("text/html;q=0.5, application/json", "application/json"),
            ("nonsense", "application/json"),
        ):
            response = self.get("/status", site=self.admin, accept=accept)
            self.assertEqual((response.fields["Content-Type"], response.fields["Vary"]), (kind, "Accept"), accept)
        self.assertEqual(self.get("/status", site=self.admin).fields["Content-Type"], "application/json")
        page = self.get("/status", site=self.admin, accept="text/html")
        self.assertEqual(page.fields["Cache-Control"], "no-store")
        self.assertTrue(page.fields["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-"))
        self.assertNotIn(b"<script", page.body)

    def test_metrics_without_a_document(self):
        """A document that was never fetched is not fresh, and has no age."""
        self.pollers[0].document.snapshot = None
        lines = self.get("/metrics", site=self.admin).body.decode().splitlines()
        self.assertIn('livestate_document_fresh{path="/"} 0.0', lines)
        self.assertIn('livestate_document_fresh{path="/a b.json"} 1.0', lines)
        self.assertEqual(len([line for line in lines if line.startswith("livestate_document_age_seconds{")]), 1)

    def test_metrics(self):
        """Responses are counted by status, content coding and path; a failing source is not up."""
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        response = self.get("/metrics", site=self.admin)
        self.assertEqual(response.fields["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        lines = response.body.decode().splitlines()
        for line in (
            'livestate_responses_total{code="200",coding="br",path="/"} 2.0',
            'livestate_responses_total{code="304",coding="",path="/"} 1.0',
            "livestate_connections 3.0",
            'livestate_source_up{path="/"} 1.0',
            'livestate_source_up{path="/a b.json"} 0.0',
            'livestate_fetches_total{path="/"} 6.0',
            'livestate_publication_delay_seconds_count{path="/"} 1.0',
            f'livestate_document_size_bytes{{coding="identity",path="/"}} {len(DATA)}.0',
        ):
            self.assertIn(line, lines)

    def test_metrics_have_one_format(self):
        """Whatever a scraper accepts, it gets the text format."""
        for accept in (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text;version=x",
            "text/plain;version=",
            "\xff",
        ):
            response = self.get("/metrics", site=self.admin, accept=accept)
            self.assertEqual(response.fields["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
            self.assertTrue(response.body.startswith(b"# HELP livestate_build_info "))

    def test_status_without_a_document(self):
        """The status includes a document that was never fetched."""
        self.pollers[0].document.snapshot = None
        shown, _ = json.loads(self.get("/status", site=self.admin).body)["documents"]
        self.assertEqual((shown["path"], shown["fresh"]), ("/", False))
        self.assertNotIn("version", shown)
