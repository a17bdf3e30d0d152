"""HTTP as other programs see it: curl, and httplint's judgement of real answers."""

import json
import re
import socket
from collections.abc import Iterator

from httplint import HttpRequestLinter, HttpResponseLinter, levels
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import TIMEOUT
from tests.integration.processes import folder_for, run
from tests.integration.servers import Livestate, RedisServer

#: What httplint complains of, and why it is right as it is.
ACCEPTED = {
    "CORS_PREFLIGHT_ONLY": "every OPTIONS is given one answer; browsers heed these fields in that to a preflight alone",
    "STORE_PUBLIC_UNNECESSARY": "max-age alone would do, but not where a request carries Authorization, as it does to "
    "a site that is still behind a password: RFC 9111 section 3.5 then lets shared caches keep the answer for `public`",
}

DOCUMENT = json.dumps({"places": [{"name": f"place {n}", "votes": n} for n in range(100)]})


class ServedTests(SynchronousTestCase):
    """One livestate with a document that is there and one that is not."""

    def setUp(self):
        folder = folder_for(self)
        (folder / "there.json").write_text(DOCUMENT)
        sources = ("--source=file:there.json", "--source=/missing.json=file:missing.json")
        self.service = Livestate(self, *sources, https="", folder=folder)
        self.service.until_served()


class CurlTests(ServedTests):
    """curl."""

    def curl(self, *arguments: str, path: str = "/", https: bool = False) -> tuple[int, dict[str, str], str]:
        """Give status, fields and content."""
        url = (self.service.https if https else self.service.http) + path
        ran = run("curl", "-sS", "-i", "--max-time", "10", "--cacert", self.service.cafile, *arguments, url)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""), arguments)
        head, _, body = ran.stdout.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), fields, body

    def test_get(self):
        """A plain GET over HTTP, HTTPS, HTTP/1.0, in absolute form and with a query gives the plain document."""
        for arguments in ((), ("--http1.0",), ("--request-target", f"{self.service.http}/")):
            self.assertEqual(self.curl(*arguments)[2], DOCUMENT, arguments)
        self.assertEqual(self.curl(path="/?cache=buster")[2], DOCUMENT)
        status, fields, body = self.curl(https=True)
        self.assertEqual((status, body), (200, DOCUMENT))
        self.assertEqual(fields["content-type"], "application/json")
        self.assertEqual(fields["x-content-type-options"], "nosniff")
        self.assertEqual(fields["access-control-allow-origin"], "*")
        self.assertRegex(fields["cache-control"], r"^public, max-age=1, stale-while-revalidate=\d+, stale-if-error=\d+")
        self.assertRegex(fields["etag"], '^"[^"]+"$')

    def test_compressed(self):
        """`--compressed` gets a coding that curl knows, and undoes it."""
        status, fields, body = self.curl("--compressed")
        self.assertEqual((status, body), (200, DOCUMENT))
        self.assertIn(fields["content-encoding"], ("gzip", "br", "zstd"))
        self.assertLess(int(fields["content-length"]), len(DOCUMENT) / 2)
        self.assertIn("Accept-Encoding", fields["vary"])

    def test_head(self):
        """HEAD has the fields of GET, and no body."""
        _, of_get, _ = self.curl()
        status, of_head, body = self.curl("--head")
        self.assertEqual((status, body), (200, ""))
        for fields in (of_get, of_head):
            fields.pop("date")
            fields.pop("livestate-age")
        self.assertEqual(of_head, of_get)

    def test_conditional(self):
        """If-None-Match: the tag, a weak one, a list, `*` give 304 without body; another one 200."""
        etag = self.curl()[1]["etag"]
        for value in (etag, f"W/{etag}", f'"a", {etag} , "b"', "*"):
            status, fields, body = self.curl("-H", f"If-None-Match: {value}")
            self.assertEqual((status, body, fields["etag"]), (304, "", etag), value)
            self.assertIn("cache-control", fields)
            self.assertNotIn("content-type", fields)
        self.assertEqual(self.curl("-H", 'If-None-Match: "another"')[0], 200)
        self.assertEqual(self.curl("--head", "-H", f"If-None-Match: {etag}")[0], 304)
        compressed = self.curl("--compressed")[1]["etag"]
        self.assertNotEqual(compressed, etag)
        self.assertEqual(self.curl("--compressed", "-H", f"If-None-Match: {compressed}")[0], 304)

    def test_options(self):
        """OPTIONS, as a preflight, allows what can be done for a day."""
        status, fields, body = self.curl(
            "-X", "OPTIONS", "-H", "Origin: https://example.org", "-H", "Access-Control-Request-Method: GET"
        )
        self.assertEqual((status, body), (204, ""))
        self.assertEqual(fields["allow"], "GET, HEAD, OPTIONS")
        self.assertEqual(fields["access-control-allow-origin"], "*")
        self.assertGreater(int(fields["access-control-max-age"]), 0)

    def test_problems(self):
        """404, 405, 406 and 503 are problem documents, with what the client needs to go on."""
        for status, arguments, path, field in (
            (404, (), "/nowhere", "content-type"),
            (405, ("-X", "DELETE"), "/", "allow"),
            (405, ("-d", "x=1"), "/", "allow"),
            (406, ("-H", "Accept-Encoding: identity;q=0, unheard-of"), "/", "vary"),
            (503, (), "/missing.json", "retry-after"),
        ):
            answered, fields, body = self.curl(*arguments, path=path)
            self.assertEqual(answered, status)
            self.assertEqual(fields["content-type"], "application/problem+json")
            self.assertEqual(json.loads(body)["status"], status)
            self.assertIn(field, fields)

    def test_body_is_read_past(self):
        """A body that nobody asked for does not upset the connection: the next request on it is answered."""
        ran = run(
            "curl", "-sS", "--max-time", "10", "-X", "POST", "--data-binary", "@-", "-o", "/dev/null",
            "-w", "%{http_code} ", f"{self.service.http}/",
            "--next", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}", f"{self.service.http}/",
            stdin=b"x" * 5_000_000,
        )  # fmt: skip
        self.assertEqual(ran.stdout, "405 200 0")


class OriginTests(SynchronousTestCase):
    """--cors-origin."""

    def test_listed_origins(self):
        """A listed origin is answered with itself and Vary, another with neither permission nor refusal."""
        origins = ("--cors-origin=https://a.example", "--cors-origin=https://b.example:8443")
        service = Livestate(self, "--source=demo:", *origins)
        service.until_served()
        for origin in ("https://a.example", "https://b.example:8443"):
            answer = service.get(Origin=origin)
            self.assertEqual(answer["Access-Control-Allow-Origin"], origin)
            self.assertEqual(answer["Vary"], "Accept-Encoding, Origin")
        for fields in ({"Origin": "https://c.example"}, {}):
            answer = service.get(**fields)
            self.assertEqual((answer.status, answer["Access-Control-Allow-Origin"]), (200, ""))
            self.assertEqual(answer["Vary"], "Accept-Encoding, Origin")


class LintTests(ServedTests):
    """httplint."""

    def exchange(self, method: str, target: str, *fields: str) -> HttpResponseLinter:
        """Send a request and have the answer's very bytes judged."""
        host, port = self.service.http.removeprefix("http://").split(":")
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {host}:{port}",
            "User-Agent: test",
            *fields,
            "Connection: close",
        ]
        with socket.create_connection((host, int(port)), TIMEOUT) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        asked = HttpRequestLinter()
        asked.process_request_topline(method.encode(), target.encode(), b"1.1")
        asked.process_headers([_field(line.encode()) for line in lines[1:]])
        asked.finish_content(True)
        head, _, body = received.partition(b"\r\n\r\n")
        first, *answered = head.split(b"\r\n")
        linter = HttpResponseLinter()
        linter.request = asked
        linter.is_head_response = method == "HEAD"
        version, status, phrase = first.split(b" ", 2)
        linter.process_response_topline(version.removeprefix(b"HTTP/"), status, phrase)
        linter.process_headers([_field(line) for line in answered])
        if body:
            linter.feed_content(body)
        linter.finish_content(True)
        return linter

    def kinds(self) -> Iterator[tuple[int, HttpResponseLinter]]:
        """Give one answer of each kind, with the status that it should have."""
        for coding in ("identity", "gzip", "br", "zstd"):
            found = self.exchange("GET", "/", f"Accept-Encoding: {coding}")
            yield 200, found
            etag = re.search(r'"[^"]+"', str(found.headers.text))
            assert etag is not None
            yield 304, self.exchange("GET", "/", f"Accept-Encoding: {coding}", f"If-None-Match: {etag[0]}")
        yield 200, self.exchange("GET", "/", "Origin: https://example.org")
        yield 200, self.exchange("HEAD", "/")
        yield 204, self.exchange("OPTIONS", "/")
        yield 204, self.exchange("OPTIONS", "/", "Origin: https://a.example", "Access-Control-Request-Method: GET")
        yield 404, self.exchange("GET", "/nowhere")
        yield 404, self.exchange("HEAD", "/nowhere")
        yield 405, self.exchange("DELETE", "/")
        yield 406, self.exchange("GET", "/", "Accept-Encoding: identity;q=0")
        yield 503, self.exchange("GET", "/missing.json")
        yield 503, self.exchange("GET", "/_live/ready")
        yield 200, self.exchange("HEAD", "/", "Accept-Encoding: br")

    def test_no_complaint_is_unexplained(self):
        """httplint finds nothing of level "warning" or "bad" in any kind of answer that is not explained here."""
        complaints, explained = [], set()
        for status, linter in self.kinds():
            self.assertEqual(linter.status_code, status)
            for note in linter.notes:
                name = type(note).__name__
                if note.level not in (levels.WARN, levels.BAD):
                    continue
                if name in ACCEPTED:
                    explained.add(name)
                else:
                    complaints.append(f"{status}: {name} on {note.subject}: {note.summary}")
        self.assertEqual(complaints, [])
        self.assertEqual(explained, set(ACCEPTED), "an explanation that explains nothing any more")


class RedisSemanticsTests(SynchronousTestCase):
    """What the store's bytes mean for the answer."""

    def test_tiny(self):
        """A tiny document is given plain to everyone, with one tag; a large one again in codings."""
        store = RedisServer(self)
        store.set("[1]")
        service = Livestate(self, f"--source={store.url}", "--interval=0.2")
        service.until_served()
        answer = service.get(Accept_Encoding="br, gzip, zstd")
        self.assertEqual((answer["Content-Encoding"], answer.body), ("", b"[1]"))
        store.set(DOCUMENT)
        service.until_body(DOCUMENT.encode())
        self.assertEqual(service.get(Accept_Encoding="br, gzip, zstd")["Content-Encoding"], "br")


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name, value
