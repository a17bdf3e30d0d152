"""The viewer's files: how they are served, and that the page complies with its own security policy."""

import gzip
import re
from html.parser import HTMLParser
from typing import Any

import brotli
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.resources.viewer import viewer_resources
from livestate.web.site import LiveSite
from tests.support import FakeReactor, exchange, few, parse_response, request

TYPES = {
    "": "text/html; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "tree.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "livestate.js": "text/javascript; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Page(HTMLParser):
    """Collects what a page loads and links to, and any forbidden content."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.forbidden: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        fields = dict(attrs)
        self._inside = tag
        self.forbidden += [name for name in fields if name == "style" or name.startswith("on")]
        if tag == "a":
            self.links.append((fields.get("href", ""), ""))
        elif fields.get("src") or fields.get("href"):
            self.loads.append(fields.get("src") or fields["href"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.forbidden.append(self._inside)
        if self._inside == "a":
            self.links[-1] = (self.links[-1][0], data)


class StaticTests(SynchronousTestCase):
    """Requests to a site with the viewer."""

    def setUp(self):
        self.site = self.site_with(["/", "/results.json"])

    def site_with(self, documents):
        """Return a site whose viewer lists these documents."""
        return LiveSite(viewer_resources(lambda: documents), FakeReactor())

    def get(self, name="", method="GET", **fields):
        return parse_response(exchange(self.site, request(f"/_live/{name}", method, **fields)))

    def page(self, site=None):
        return Page(parse_response(exchange(site or self.site, request("/_live/"))).body.decode())

    def test_files(self):
        """Each file has its type, is never sniffed, is revalidated each time, and HEAD returns the same head."""
        for name, content_type in TYPES.items():
            response, head = self.get(name), self.get(name, "HEAD")
            self.assertEqual((response.status, head.status, head.body), (200, 200, b""), name)
            self.assertEqual(response.fields["Content-Type"], content_type)
            self.assertEqual(response.fields["Content-Length"], str(len(response.body)))
            self.assertEqual(response.fields["Cache-Control"], "no-cache")
            self.assertEqual(response.fields["X-Content-Type-Options"], "nosniff")
            self.assertEqual(response.fields["Referrer-Policy"], "no-referrer")
            self.assertEqual(response.fields["Vary"], "Accept-Encoding")
            self.assertEqual(head.lines, response.lines)

    def test_codings(self):
        """Each content coding decodes to the same file and has its own entity tag; a client that accepts none gets 406."""
        for name in TYPES:
            plain, gzipped, brotli_coded = (
                self.get(name, accept_encoding=coding) for coding in ("identity", "gzip", "br")
            )
            self.assertNotIn("Content-Encoding", plain.fields)
            for response, decode in ((gzipped, gzip.decompress), (brotli_coded, brotli.decompress)):
                if "Content-Encoding" in response.fields:
                    self.assertEqual(decode(response.body), plain.body)
            if len(plain.body) > 1000:
                self.assertEqual(len({a.fields["ETag"] for a in (plain, gzipped, brotli_coded)}), 3)
                self.assertLess(len(brotli_coded.body), len(plain.body) / 2)
            self.assertEqual(self.get(name, accept_encoding="identity;q=0").status, 406)

    def test_not_modified(self):
        """A client that has a file in the chosen coding gets 304; with another tag it gets the file."""
        for name in TYPES:
            response = self.get(name, accept_encoding="br")
            again = self.get(name, accept_encoding="br", if_none_match=response.fields["ETag"])
            self.assertEqual((again.status, again.body, again.fields["ETag"]), (304, b"", response.fields["ETag"]))
            self.assertNotIn("Content-Type", again.fields)
            self.assertEqual(self.get(name, accept_encoding="br", if_none_match='"other"').status, 200)

    def test_made_when_asked_for(self):
        """The list of documents is not made before the page is requested, and is made once."""
        calls = []

        def documents():
            calls.append(1)
            return ["/"]

        site = LiveSite(viewer_resources(documents), FakeReactor())
        self.assertEqual(calls, [])
        for _ in range(2):
            self.assertIn(("../", "/"), self.page(site).links)
        self.assertEqual(calls, [1])

    def test_methods(self):
        """Only GET and HEAD are allowed."""
        for target in ("/_live", "/_live/", "/_live/livestate.js"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                response = parse_response(exchange(self.site, request(target, method)))
                self.assertEqual((response.status, response.fields["Allow"]), (405, "GET, HEAD"), (target, method))

    def test_redirect(self):
        """The path without its last slash redirects to the page, relatively, so that a proxy's prefix is kept."""
        response = parse_response(exchange(self.site, request("/_live")))
        self.assertEqual((response.status, response.fields["Location"]), (308, "_live/"))

    def test_cors(self):
        """Pages of other sites may import the client module, but no other file."""
        for name in TYPES:
            allowed = self.get(name, origin="https://a.example").fields.get("Access-Control-Allow-Origin")
            self.assertEqual(allowed, "*" if name == "livestate.js" else None, name)

    def test_policy(self):
        """The page's policy allows only content from this server, and the page complies with it."""
        policy = self.get().fields["Content-Security-Policy"]
        directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
        for name in ("default-src", "base-uri", "frame-ancestors", "form-action"):
            self.assertEqual(directives.pop(name), "'none'")
        self.assertEqual(directives.pop("require-trusted-types-for"), "'script'")
        self.assertEqual(set(directives.values()), {"'self'"})
        page = self.page()
        self.assertEqual(page.forbidden, [])
        self.assertEqual(set(page.loads), {"icon.svg", "viewer.css", "viewer.js"})
        for name in page.loads:
            self.assertIn(name, TYPES)
        for name in TYPES:
            text = self.get(name).body.decode()
            for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+|url\(|@import", text):
                self.assertEqual(url, "http://www.w3.org", name)

    def test_modules(self):
        """Each module imports only modules that are served."""
        for name in TYPES:
            if name.endswith(".js"):
                text = self.get(name).body.decode()
                for imported in re.findall(r'^import .* from "(.*)";$', text, re.MULTILINE):
                    self.assertIn(imported.removeprefix("./"), TYPES)
        self.assertNotRegex(self.get("livestate.js").body.decode(), r"(?m)^import ")

    def test_documents(self):
        """The page has relative links to the documents."""
        links = self.page().links
        self.assertIn(("../", "/"), links)
        self.assertIn(("../results.json", "/results.json"), links)

    @few
    @given(st.lists(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=9), max_size=4))
    def test_odd_paths(self, names):
        """Any document path is shown unchanged, and never becomes markup or a link to another host."""
        paths = [f"/{name}" for name in names]
        page = self.page(self.site_with(paths))
        self.assertEqual([text for target, text in page.links if text.startswith("/")], paths)
        self.assertEqual(page.forbidden, [])
        for target, text in page.links:
            if text.startswith("/"):
                self.assertTrue(target.startswith("../"))
                self.assertNotRegex(target, r"[?#\"<> \\]")

    def test_no_other_files(self):
        """There are no other files, and no path leads out of the folder."""
        for name in ("index.html", "nothing.js", "../tap.py", "%2e%2e/static.py", "static/viewer.js"):
            self.assertEqual(self.get(name).status, 404, name)
