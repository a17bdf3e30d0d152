"""The public and the admin site, by whole requests over a connection."""

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
from tests.support import FakeReactor, answer_of, exchange, exchange_on, many, request

DATA = b'{"votes": ' + b"1" * 300 + b"}"


@implementer(ISource)
class Source:
    """Gives one document, until it is told not to."""

    def __init__(self, data):
        self.data = data

    def __str__(self):
        return "source:"

    async def fetch(self):
        return await Deferred() if self.data is None else self.data

    def close(self):
        """Nothing is open."""


class Case(SynchronousTestCase):
    """Two documents, and the sites around them."""

    short_cut = False

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
        fast = LiveSite(public, self.reactor, responders)
        self.site = fast if self.short_cut else LiveSite(public, self.reactor)
        of_admin = admin_resources(lambda: self.pollers, self.counts, self.reactor.seconds)
        self.admin = AdminSite(of_admin, self.reactor, ["live.example"])

    def counts(self):
        return Counts({"/": DocumentCounts(answers={"br": 2, "304": 1})}, connections=3)

    def get(self, *args, site=None, **fields):
        return answer_of(exchange(site or self.site, request(*args, **fields)))

    def assert_problem(self, answer):
        """See that an answer is a whole problem document that nobody keeps."""
        self.assertEqual(answer.fields["Content-Type"], "application/problem+json")
        self.assertEqual(answer.fields["Cache-Control"], "no-store")
        self.assertEqual(answer.fields["Content-Length"], str(len(answer.body)))
        self.assertIn("Date", answer.fields)
        self.assertEqual(json.loads(answer.body)["status"], answer.status)


class SiteTests(Case):
    """What every request has in common."""

    def test_methods(self):
        """GET and HEAD give the document, OPTIONS says what may be done, and anything else is refused with that list."""
        whole = self.get(accept_encoding="gzip")
        head = self.get("/", "HEAD", accept_encoding="gzip")
        self.assertEqual((whole.status, head.status, head.body), (200, 200, b""))
        self.assertEqual(head.lines, whole.lines)
        self.assertEqual(len(whole.body), int(whole.fields["Content-Length"]))
        options = self.get("/", "OPTIONS", origin="https://a.example", access_control_request_method="GET")
        self.assertEqual((options.status, options.body), (204, b""))
        self.assertEqual(options.fields["Allow"], "GET, HEAD, OPTIONS")
        self.assertEqual(options.fields["Access-Control-Allow-Methods"], "GET, HEAD, OPTIONS")
        self.assertEqual(options.fields["Access-Control-Allow-Headers"], "*")
        self.assertEqual(options.fields["Access-Control-Max-Age"], "86400")
        self.assertFalse({"Content-Length", "Transfer-Encoding", "Content-Type"} & set(options.fields))
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get"):
            answer = self.get("/", method)
            self.assertEqual((answer.status, answer.fields["Allow"]), (405, "GET, HEAD, OPTIONS"), method)
            self.assert_problem(answer)

    def test_fault(self):
        """A fault of livestate's own is a problem document that says nothing of it, and a traceback in the log."""

        def respond(request):
            request.responseHeaders.setRawHeaders(b"X-Half-Made", [b"1"])
            raise RuntimeError("hush")

        self.patch(DocumentResource, "respond", lambda resource, request: respond(request))
        # With anything unusual in it, a request takes the way of twisted.web.
        answer = self.get(x_unusual="\x01")
        head = self.get("/", "HEAD")
        self.assertEqual(answer.status, 500)
        self.assert_problem(answer)
        self.assertEqual((head.lines, head.body), (answer.lines, b""))
        self.assertEqual(set(answer.fields) - {"Content-Length"},
                         {"Date", "Content-Type", "Cache-Control", "X-Content-Type-Options"})  # fmt: skip
        for word in (b"hush", b"RuntimeError", b".py", b"Twisted"):
            self.assertNotIn(word, answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_fault_in_the_middle(self):
        """An answer that breaks off in its middle does not look whole: the connection is cut."""

        def respond(resource, request):
            request.write(b"half")
            raise RuntimeError

        self.patch(DocumentResource, "respond", respond)
        transport = exchange_on(self.site, request("/", "HEAD", x_unusual="\x01"))
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_not_found(self):
        """A path at which nothing is gives a problem document, and to HEAD the same head."""
        for target in ("/nothing", "//", "/%2F", "/a", "/_live", "/_live/", "/A%20b.json", "http://h/nothing"):
            answer = self.get(target)
            self.assertEqual(answer.status, 404, target)
            self.assert_problem(answer)
        head = self.get("/nothing", "HEAD")
        self.assertEqual((head.lines, head.body), (self.get("/nothing").lines, b""))

    def test_targets(self):
        """A query does not matter, a path may be percent-encoded, and a target may be in absolute form."""
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
        """An HTTP/1.1 request has exactly one Host field; HTTP/1.0 may do without, but not with two."""
        for head, status in (
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET /nothing HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ):
            answer = answer_of(exchange(self.site, head))
            self.assertEqual(answer.status, status, head)
            if status == 400:
                self.assert_problem(answer)

    def test_bodies_are_read_past(self):
        """A request's body, however it is sent, is no part of the next request, and costs no memory."""
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
                answers = transport.value()
                self.assertEqual(answers.count(b"HTTP/1.1 "), 2, body[:30])
                self.assertTrue(answers.endswith(b"\r\n\r\n[2]"))

    def test_stays_open(self):
        """A connection stays for the next request, unless the client says otherwise or speaks HTTP/1.0."""
        for head, closes in (
            (request(), False),
            (request(connection="keep-alive"), False),
            (request(connection="close"), True),
            (b"GET / HTTP/1.0\r\n\r\n", True),
        ):
            transport = exchange_on(self.site, head)
            self.assertEqual(transport.disconnecting, closes, head)
            self.assertEqual(answer_of(transport.value()).body, DATA)

    def test_server_is_not_named(self):
        """No answer of either site tells what software it is, also not the odd ones."""
        answers = []
        for site in (self.site, self.admin):
            answers += [
                exchange(site, request(target, method))
                for target in ("/", "/nothing", "*", "/health", "/_live/ready")
                for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW")
            ]
            answers += [
                exchange(site, b"nonsense\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"),
                exchange(site, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
            ]
        for answer in answers:
            self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer)
            self.assertIsNone(re.search(rb"(?im)^server:|twisted", answer), answer)

    def test_tls_protocols(self):
        """HTTP/2 is not offered."""
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])

    def test_ready(self):
        """`/_live/ready` says ok while all is fresh and stale when not, and is a 503 only where there is nothing."""
        answer = self.get("/_live/ready")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(answer.fields["Cache-Control"], "no-store")
        self.sources["/"].data = None
        self.reactor.run_for(5)
        answer = self.get("/_live/ready")
        self.assertEqual((answer.status, answer.body), (200, b"stale\n"))
        self.pollers[0].document.snapshot = None
        self.assertEqual(self.get("/_live/ready").status, 503)

    def test_ready_no_more(self):
        """`/_live/ready` is a 503 once the server is about to end, however fresh all is."""
        self.ready.stopping = True
        answer = self.get("/_live/ready")
        self.assertEqual((answer.status, answer.body), (503, b"ending\n"))


class PathTests(SynchronousTestCase):
    """Where a request's target points."""

    @many
    @given(
        st.sampled_from([b"", b"/", b"http://", b"HTTPS://host", b"http://host/"]),
        st.lists(st.sampled_from([b"/", b"a", b"%2f", b"%zz", b"%", b":", b"\xff", b"."]), max_size=6).map(b"".join),
        st.binary(max_size=12),
    )
    def test_any_target(self, start, rest, query):
        """Any target at all has a path, and whatever its query is does not change it."""
        self.assertEqual(path_of(start + rest + b"?" + query), path_of(start + rest))


class ShortCutSiteTests(SiteTests):
    """The same, with the short cut through the channel."""

    short_cut = True


class AdminTests(Case):
    """Health, readiness and status."""

    def test_health(self):
        """While the process answers it is healthy, whatever its documents are."""
        self.sources["/"].data = None
        self.reactor.run_for(60, step=0.5)
        answer = self.get("/health", site=self.admin)
        self.assertEqual((answer.status, json.loads(answer.body)), (200, {"status": "ok"}))
        self.assertEqual(answer.fields["Content-Type"], "application/json")

    def ask(self, target, host, *lines):
        """Ask the admin site by a name."""
        head = "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""])
        return answer_of(exchange(self.admin, head.encode()))

    def test_foreign_names(self):
        """Asked by a name that is not known, it says nothing but how to allow one: another's page may have had it lead
        here (DNS rebinding).
        """
        for target in ("/health", "/ready", "/status", "/metrics", "/nothing"):
            answer = self.ask(target, "evil.example:9180")
            self.assertEqual((answer.status, answer.reason), (421, "Misdirected Request"))
            self.assert_problem(answer)
            self.assertIn("--admin-host", json.loads(answer.body)["detail"])
            self.assertNotIn(b"evil", answer.body)
            for host in ("127.0.0.1:9180", "[::1]:9180", "localhost", "live.example"):
                self.assertEqual(self.ask(target, host).status, 404 if target == "/nothing" else 200)
        without = answer_of(exchange(self.admin, b"GET /health HTTP/1.0\r\n\r\n"))
        self.assertEqual(without.status, 200)

    def test_other_origins(self):
        """No page of another origin is allowed to read anything, whichever it says that it is."""
        for origin in ("https://evil.example", "null", "http://localhost:9180"):
            for target in ("/health", "/ready", "/status", "/metrics", "/nothing"):
                for method in ("GET", "OPTIONS"):
                    answer = self.get(target, method, site=self.admin, origin=origin)
                    cross = [name for name in answer.fields if name.startswith(("Access-Control", "Timing-Allow"))]
                    self.assertEqual(cross, [])

    def test_ready(self):
        """It is ready while every document is fresh; else those that are not are named."""
        self.assertEqual(self.get("/ready", site=self.admin).status, 200)
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        answer = self.get("/ready", site=self.admin)
        self.assertEqual((answer.status, json.loads(answer.body)["stale"]), (503, ["/a b.json"]))

    def test_status(self):
        """The status shows each document: what it is made of, how old it is, and what troubles its source."""
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        status = json.loads(self.get("/status", site=self.admin).body)
        self.assertApproximates(status["uptime_seconds"], 5.0, 0.01)
        good, silent = status["documents"]
        self.assertEqual((good["path"], good["source"], good["fresh"], good["trouble"]), ("/", "source:", True, None))
        self.assertEqual((good["fetches"], good["changes"], good["failures"]), (6, 1, 0))
        self.assertEqual(good["representations"]["identity"]["bytes"], len(DATA))
        self.assertEqual(good["representations"]["gzip"]["etag"], self.get(accept_encoding="gzip").fields["ETag"])
        self.assertEqual((silent["fresh"], silent["trouble"]), (False, "no answer within 0.8 s"))
        self.assertGreater(silent["age_seconds"], 4)

    def test_status_is_negotiated(self):
        """Browsers get a page, other clients JSON; the page is no cache's and runs nothing."""
        for accept, kind in (
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("text/*", "text/html; charset=utf-8"),
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("text/html;q=0.5, application/json", "application/json"),
            ("nonsense", "application/json"),
        ):
            answer = self.get("/status", site=self.admin, accept=accept)
            self.assertEqual((answer.fields["Content-Type"], answer.fields["Vary"]), (kind, "Accept"), accept)
        self.assertEqual(self.get("/status", site=self.admin).fields["Content-Type"], "application/json")
        page = self.get("/status", site=self.admin, accept="text/html")
        self.assertEqual(page.fields["Cache-Control"], "no-store")
        self.assertTrue(page.fields["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-"))
        self.assertNotIn(b"<script", page.body)

    def test_metrics_without_a_document(self):
        """Of a document that has never been there, no age is told, and it is not fresh."""
        self.pollers[0].document.snapshot = None
        lines = self.get("/metrics", site=self.admin).body.decode().splitlines()
        self.assertIn('livestate_document_fresh{path="/"} 0.0', lines)
        self.assertIn('livestate_document_fresh{path="/a b.json"} 1.0', lines)
        self.assertEqual(len([line for line in lines if line.startswith("livestate_document_age_seconds{")]), 1)

    def test_metrics(self):
        """What is counted is told by status, content coding and path; a source in trouble is not up."""
        self.sources["/a b.json"].data = None
        self.reactor.run_for(5)
        answer = self.get("/metrics", site=self.admin)
        self.assertEqual(answer.fields["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        lines = answer.body.decode().splitlines()
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
        """Whatever a scraper says that it accepts, it is given the text format."""
        for accept in (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text;version=x",
            "text/plain;version=",
            "\xff",
        ):
            answer = self.get("/metrics", site=self.admin, accept=accept)
            self.assertEqual(answer.fields["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
            self.assertTrue(answer.body.startswith(b"# HELP livestate_build_info "))

    def test_status_without_a_document(self):
        """A document that has never been there is shown too."""
        self.pollers[0].document.snapshot = None
        shown, _ = json.loads(self.get("/status", site=self.admin).body)["documents"]
        self.assertEqual((shown["path"], shown["fresh"]), ("/", False))
        self.assertNotIn("version", shown)
