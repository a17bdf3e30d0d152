"""The viewer page and the client module, under `/_live/`.

The files in the folder `static` are read once, at the start. The page, with its list of documents, is made when it is
first asked for, and each content coding of a file likewise. The entity tags are hashes of the bytes, and browsers
revalidate the files each time (`Cache-Control: no-cache`), so after an update of livestate no browser mixes old and new
files.
"""

import html
from collections.abc import Callable, Iterable
from functools import partial
from importlib.resources import files
from urllib.parse import quote

from twisted.web.http import Request
from twisted.web.resource import IResource

from livestate.documents.snapshot import Representation, Snapshot, new_snapshot, with_coding
from livestate.formats.negotiation import accepted_codings, matches
from livestate.web.http1.request import field
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Fields, Response, problem

#: The path of the page; the other files are below it.
VIEWER = b"/_live/"

ALLOW = b"GET, HEAD"

#: Everything that the page needs comes from this server. It allows no script or style in the page itself, nothing from
#: other sites, no frame around it (Content Security Policy Level 3), and no text to become markup (Trusted Types).
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; frame-ancestors 'none'; form-action 'none'; require-trusted-types-for 'script'"
)

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "svg": b"image/svg+xml",
}

#: The one file that pages of other sites may import.
_SHARED = "livestate.js"

#: The comment in the page that is replaced by the links to the documents.
_PLACEHOLDER = b"<!-- documents -->"


class StaticResource(ResponseResource):
    """Answers GET and HEAD with bytes that never change."""

    def __init__(self, body: Callable[[], bytes], content_type: bytes, more: Fields = ()) -> None:
        """Serve what `body` returns when it is called at the first request.

        :param more: additional fields.
        """
        super().__init__()
        self._body = body
        self._content_type = content_type
        self._more = more
        self._snapshot: Snapshot | None = None

    def respond(self, request: Request) -> Response:
        """Return the response for the method, content coding and entity tag."""
        if request.method not in (b"GET", b"HEAD"):
            return problem(405, "This resource allows GET and HEAD.", (b"Allow", ALLOW))
        codings = accepted_codings(field(request, b"Accept-Encoding"))
        snapshot = self._snapshot or new_snapshot(self._body(), 0.0)
        for coding in codings:
            snapshot = with_coding(snapshot, coding)
            if coding in snapshot.representations:
                break
        self._snapshot = snapshot
        representation = snapshot.best(codings)
        if representation is None:
            return problem(406, f"The available content codings are: {', '.join(snapshot.possible)}.")
        known = field(request, b"If-None-Match")
        if known is not None and matches(known, representation.etag):
            return Response(304, self._common(representation))
        content: Fields = (
            (b"Content-Type", self._content_type),
            (b"Content-Length", b"%d" % len(representation.body)),
        )
        if representation.coding != "identity":
            content = (*content, (b"Content-Encoding", representation.coding.encode("ascii")))
        return Response(200, (*content, *self._common(representation)), representation.body)

    def _common(self, representation: Representation) -> Fields:
        return (
            (b"ETag", representation.etag),
            (b"Cache-Control", b"no-cache"),
            (b"Vary", b"Accept-Encoding"),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Referrer-Policy", b"no-referrer"),
            *self._more,
        )


class RedirectResource(ResponseResource):
    """Redirects GET and HEAD to a relative path, since a proxy in front may add a prefix."""

    def __init__(self, location: bytes) -> None:
        super().__init__()
        self._location = location

    def respond(self, request: Request) -> Response:
        """Return the redirect."""
        if request.method not in (b"GET", b"HEAD"):
            return problem(405, "This resource allows GET and HEAD.", (b"Allow", ALLOW))
        fields = (b"Location", self._location), (b"Content-Length", b"0"), (b"Cache-Control", b"no-cache")
        return Response(308, fields)


def viewer_resources(documents: Callable[[], Iterable[str]]) -> dict[bytes, IResource]:
    """Return the viewer's resources, by path.

    :param documents: returns the paths of the documents, as `Document.path` has them.
    """
    # From `/_live`, "_live/" resolves to `/_live/`; from `/_live/` it would be `/_live/_live/`.
    found: dict[bytes, IResource] = {VIEWER.rstrip(b"/"): RedirectResource(b"_live/")}
    for file in files("livestate.web").joinpath("static").iterdir():
        content_type = _TYPES.get(file.name.rpartition(".")[2])
        if content_type is None:
            continue
        body = file.read_bytes()
        if file.name == "index.html":
            page = partial(_page, body, documents)
            found[VIEWER] = StaticResource(page, content_type, ((b"Content-Security-Policy", POLICY),))
            continue
        shared = file.name == _SHARED
        more = ((b"Access-Control-Allow-Origin", b"*"),) if shared else ()
        found[VIEWER + file.name.encode("ascii")] = StaticResource(partial(bytes, body), content_type, more)
    return found


def _page(template: bytes, documents: Callable[[], Iterable[str]]) -> bytes:
    return template.replace(_PLACEHOLDER, _links(documents()))


def _links(documents: Iterable[str]) -> bytes:
    """Return a list of links to the documents, relative to the viewer's path."""
    items = []
    for path in documents:
        target = "../" + quote(path[1:], safe="/:@!$&'()*+,;=~")
        items.append(f'<li><a href="{html.escape(target)}">{html.escape(path)}</a></li>')
    return "\n".join(items).encode("utf-8")
