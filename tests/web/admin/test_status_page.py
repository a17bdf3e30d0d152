"""The status as an HTML page."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.admin.status_page import status_page
from tests.support import many

TEXT = st.text(max_size=20) | st.sampled_from(["<script>alert(1)</script>", '"><img src=x>', "&lt;", "\udc80"])


def status(text="", **more):
    document = {
        "path": text,
        "source": text,
        "fresh": True,
        "trouble": text or None,
        "fetches": 12345,
        "failures": 0,
        "refusals": 0,
        "changes": 1,
        "answers": {"br": 3},
        "event_readers": 0,
        "websocket_readers": 0,
        "long_polls": 0,
        **more,
    }
    return {"version": "1", "uptime_seconds": 1.0, "connections": 1, "documents": [document]}


class Page(HTMLParser):
    """The tags and the text of a page, as a browser parses it."""

    def __init__(self, data):
        super().__init__()
        self.tags = set()
        self.text = ""
        self.feed(data.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


class StatusPageTests(SynchronousTestCase):
    """The page's content and its escaping."""

    @many
    @given(TEXT)
    def test_text_stays_text(self, text):
        """The text of a source or a path never becomes markup."""
        page = Page(status_page(status(text)))
        self.assertEqual(
            page.tags,
            {"html", "meta", "title", "style", "h1", "p", "table", "caption", "tr", "th", "td", "a"},
        )
        if text.isprintable():
            self.assertIn(text, page.text)

    def test_states(self):
        """The page shows whether a document is fresh, stale or missing, and marks what is wrong."""
        for more, state, marked in (
            ({"version": 1, "age_seconds": 0.5}, "fresh", False),
            ({"version": 1, "age_seconds": 5.0, "fresh": False}, "stale", True),
            ({"fresh": False}, "no document yet", True),
        ):
            page = status_page(status(**more)).decode()
            self.assertIn(f">{state}</td>", page)
            self.assertEqual('<td class="bad">' in page, marked)
        self.assertIn("<td>12,345</td>", page)

    def test_durations(self):
        """Long durations are shown in days and hours."""
        for seconds, shown in ((0.04, "0.0 s"), (119.94, "119.9 s"), (3725, "1:02:05"), (90061, "1 d 1:01:01")):
            self.assertIn(f"Up for {shown};", status_page({**status(), "uptime_seconds": seconds}).decode())

    def test_workers(self):
        """With workers, there is a table of them."""
        workers = [{"worker": 1, "pid": 12345, "connections": 2000}, {"worker": 2, "pid": None, "connections": 0}]
        page = status_page({**status(), "workers": workers}).decode()
        self.assertIn("<td>12345</td><td></td>", page)
        self.assertIn("<td>2,000</td><td>0</td>", page)

    def test_incomplete_status(self):
        """A slot without a worker, and a draining worker, are shown with the values that they have."""
        workers = [{"worker": 1, "restarts": 3, "pid": None}, {"worker": 2, "draining": True, "connections": 5}]
        page = status_page({**status(), "workers": workers}).decode()
        self.assertIn('<tr><th scope="row">restarts</th><td>3</td><td></td></tr>', page)
        self.assertIn('<tr><th scope="row">connections</th><td></td><td>5</td></tr>', page)
