"""The viewer page in a real Chromium, with a real Redis behind it."""

import json

from selenium.webdriver.common.keys import Keys
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.browser import StreamBlocker, find_axe, serve_page, shared_browser
from tests.integration.http import get
from tests.integration.processes import free_port, until
from tests.integration.servers import Livestate, RedisServer

RESULTS = {
    "title": "Election",
    "votes": {"Meadow": 100, "Harbour": 90, "Plum": 40},
    "places": [{"name": f"Place {number}", "counted": number} for number in range(40)],
    "done": False,
}


class Case(SynchronousTestCase):
    """One browser for all tests; a Redis and a livestate for each of them."""

    def setUp(self):
        self.browser = shared_browser()
        self.redis = RedisServer(self)
        self.set(RESULTS)
        self.set({"other": [1, 2, 3]}, "other")
        self.port = free_port()
        self.start()
        self.page = f"http://127.0.0.1:{self.port}/_live/"
        self.browser.emulate()
        self.addCleanup(self.browser.open, "about:blank")
        self.browser.open("about:blank")
        self.browser.console()

    def start(self):
        """Start livestate. When it is started again, the port is the same."""
        sources = [
            f"--source={path}={self.redis.url}?key={key}"
            for path, key in (("/", "livestate"), ("/other.json", "other"))
        ]
        self.service = Livestate(self, *sources, f"--http=tcp:{self.port}:interface=127.0.0.1", http=False)

    def set(self, state, key="livestate"):
        """Write a document to Redis."""
        self.redis.set(json.dumps(state), key)

    def open(self, **device):
        """Open the page, and wait until it shows the document."""
        self.browser.emulate(**device)
        self.browser.open(self.page)
        self.browser.until_text("#status", "Live")
        self.browser.until_text("#tree", "title", "Election")

    def focused(self):
        """Return the text of the focused row."""
        return self.browser.run("return document.activeElement.innerText.replace(/\\s+/g, ' ').trim()")

    def press(self, *keys):
        """Press keys; they go to the focused element."""
        for key in keys:
            self.browser.driver.switch_to.active_element.send_keys(key)


class LiveTests(Case):
    """The page follows the store."""

    def test_changes(self):
        """A change in Redis is highlighted in the tree and moves the bars of the chart."""
        browser = self.browser
        self.open()
        browser.until_text("#chart", "Meadow", "100")
        widths = "return [...document.querySelectorAll('#chart .bar')].map((bar) => parseFloat(bar.style.width))"
        self.assertEqual([round(width) for width in browser.run(widths)], [100, 90, 40])
        self.assertEqual(browser.run("return document.querySelector('#series').selectedOptions[0].text"), "votes")
        browser.run(
            "window.highlighted = new Set(); new MutationObserver(() => {"
            " for (const key of document.querySelectorAll('[data-highlight] .key'))"
            " highlighted.add(key.innerText); })"
            ".observe(document.querySelector('#tree'), { subtree: true, childList: true, attributes: true });"
            "window.row = document.querySelector('#tree li li .key').closest('li')"
        )
        self.set({**RESULTS, "votes": {"Meadow": 100, "Harbour": 125, "Plum": 40, "Granite": 10}})
        browser.until_text("#tree", "Harbour 125", "+35", "Granite 10")
        browser.until_text("#chart", "125", "Granite")
        self.assertEqual([round(width) for width in browser.run(widths)], [100, 80, 32, 8])
        self.assertEqual(browser.text("#chart li"), "Harbour +35 125")
        self.assertEqual(browser.run("return [...highlighted].sort()"), ["Granite", "Harbour"])
        self.assertTrue(browser.run("return row.isConnected"), "the tree was rebuilt")
        self.assertEqual(browser.text("#changes"), "1")
        browser.until(
            lambda: not browser.run("return document.querySelector('[data-highlight]')"), "the highlight to end"
        )
        self.set({**RESULTS, "votes": {"Plum": 40}, "done": True})
        browser.until_text("#tree", "done true")
        self.assertNotIn("Harbour", browser.text("#tree"))
        browser.until_text("#version", "1")
        browser.until_text("#store", "responding")
        self.assertEqual(browser.console(), [])

    def test_restart(self):
        """The page survives a restart of the server: it goes offline, then live with the newest state."""
        browser = self.browser
        self.open()
        browser.run("window.same = true")
        self.service.stop()
        browser.until_text("#status", "Offline")
        self.assertIn("cannot be reached", browser.text("#reason"))
        self.assertIn("Election", browser.text("#tree"))
        self.set({**RESULTS, "title": "After the restart"})
        self.start()
        browser.until_text("#tree", "After the restart")
        browser.until_text("#status", "Live")
        self.assertEqual(browser.text("#reason"), "")
        self.assertTrue(browser.run("return window.same"))
        self.set({**RESULTS, "title": "Later still"})
        browser.until_text("#tree", "Later still")
        # Chromium itself logs every refused connection, and a script cannot prevent that.
        self.assertEqual([line for line in browser.console() if "net::ERR_" not in line], [])

    def test_store_away(self):
        """While the store is down, the page shows the last document and says that the store is silent."""
        self.open()
        self.redis.stop()
        self.browser.until_text("#store", "silent for")
        self.assertIn("Election", self.browser.text("#tree"))
        self.redis.start()
        self.browser.until_text("#store", "responding")
        self.assertEqual(self.browser.console(), [])

    def test_no_document_yet(self):
        """A document that does not exist yet is shown as soon as it does."""
        self.redis.command("DEL", "livestate")
        self.service.stop()
        self.start()
        self.browser.open(self.page)
        self.browser.until_text("#status", "Live")
        self.browser.until_text("#empty", "There is no document yet.")
        self.set(RESULTS)
        self.browser.until_text("#tree", "Election")
        self.assertEqual(self.browser.text("#empty"), "")
        self.assertEqual(self.browser.console(), [])

    def test_blocked_streams(self):
        """Behind a proxy that swallows event streams, the page long-polls, says why, and still shows every change."""
        browser = self.browser
        proxy = StreamBlocker(self, self.port)
        browser.open(f"{proxy.url}/_live/")
        browser.until_text("#tree", "Election")
        browser.until(lambda: "olling" in browser.text("#status"), "polling")
        self.assertIn("a proxy may be buffering it", browser.text("#reason"))
        for title in ("One", "Two", "Three"):
            self.set({**RESULTS, "title": title})
            browser.until_text("#tree", title)
        browser.until_text("#status", "Live (long polling)")
        self.assertGreaterEqual(proxy.swallowed, 1)
        self.assertEqual(browser.console(), [])

    def test_hostile_document(self):
        """Markup in a document is shown as text."""
        attack = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
        self.set(
            {attack: attack, "__proto__": {"constructor": 1}, "votes": {attack: 2, "b": {"colour": "red;}"}}, "": None}
        )
        self.browser.open(self.page)
        self.browser.until_text("#tree", attack, "__proto__", "constructor")
        self.assertEqual(self.browser.run("return document.querySelectorAll('#tree img, #tree script').length"), 0)
        self.assertIn("livestate", self.browser.driver.title)
        self.assertEqual(self.browser.console(), [])

    def test_any_document(self):
        """Every kind of JSON value is shown, and can replace any other."""
        self.open()
        for state, shown in (
            (17, "17"),
            ("text", '"text"'),
            ([], "[0]"),
            ([[], {}], "[2]"),
            (None, "null"),
            ({"a": 1}, "a 1"),
        ):
            self.set(state)
            self.browser.until_text("#tree", shown)
        self.set(RESULTS)
        self.browser.until_text("#tree", "votes", "title")
        self.assertEqual(self.browser.console(), [])

    def test_large_document(self):
        """Of 20,000 nodes, only the open ones have elements, a page at a time, and changes do not close them."""
        browser = self.browser
        rows = [{"name": f"row {n}", "votes": n, "padding": "x" * 100} for n in range(5000)]
        large = {"title": "Large", "rows": rows}
        self.open()
        self.set(large)
        browser.until_text("#tree", "Large")
        count = "return document.querySelectorAll('#tree li').length"
        self.assertLess(browser.run(count), 50)
        browser.driver.find_element("css selector", "#tree li li:nth-child(2) > .row").click()
        browser.until_text("#tree", "Show 200 more of 4,800")
        self.assertEqual(browser.run(count), 204)
        self.press(Keys.END, Keys.ENTER)
        self.assertEqual(browser.run(count), 404)
        self.assertTrue(self.focused().startswith("200 {3} "))
        self.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        rows[200]["votes"] = -5
        rows.insert(300, {"name": "new", "votes": 1})
        self.set(large)
        browser.until_text("#tree", "votes -5", "new")
        self.assertEqual(self.focused(), 'name "row 200"')
        browser.until_text("#chart-rest", "and 4,977 more")
        self.assertEqual(browser.console(), [])


class UsabilityTests(Case):
    """The page is accessible, and easy to use."""

    def test_documents(self):
        """Each document is a link with an address of its own, and Back returns to the previous document."""
        browser = self.browser
        self.open()
        browser.driver.find_element("link text", "/other.json").send_keys(Keys.ENTER)
        browser.until_text("#tree", "other")
        self.assertEqual(browser.text("#name"), "/other.json")
        self.assertEqual(browser.text("nav [aria-current]"), "/other.json")
        self.assertIn("?document=", browser.driver.current_url)
        browser.driver.refresh()
        browser.until_text("#tree", "other")
        browser.driver.back()
        browser.until_text("#tree", "Election")
        self.assertEqual(browser.text("#name"), "/")
        self.assertEqual(browser.run("return document.querySelector('#raw').pathname"), "/")
        self.assertEqual(browser.console(), [])

    def test_keyboard(self):
        """The tree is one tab stop, and follows the keyboard conventions of the tree view pattern."""
        browser = self.browser
        self.open()
        self.assertEqual(browser.run("return document.querySelectorAll('#tree [tabindex=\"0\"]').length"), 1)
        browser.run("document.querySelector('#series').focus()")
        self.press(Keys.TAB)
        self.assertEqual(self.focused(), "{4}")
        self.press(Keys.ARROW_DOWN)
        self.assertEqual(self.focused(), 'title "Election"')
        self.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
        self.assertEqual(self.focused(), "Meadow 100")
        self.press(Keys.ARROW_LEFT)
        self.assertEqual(self.focused(), "votes {3}")
        self.press(Keys.ARROW_LEFT)
        self.assertEqual(self.focused(), "votes {3} Meadow 100 · Harbour 90 · Plum 40")
        self.press(Keys.ARROW_LEFT)
        self.assertEqual(self.focused(), "{4}")
        self.press("p")
        self.assertTrue(self.focused().startswith("places [40]"))
        self.press(Keys.ENTER)
        opened = "return document.activeElement.getAttribute('aria-expanded')"
        self.assertEqual(browser.run(opened), "true")
        self.press(Keys.SPACE)
        self.assertEqual(browser.run(opened), "false")
        self.press(Keys.END)
        self.assertEqual(self.focused(), "done false")
        self.press(Keys.ARROW_DOWN)
        self.assertEqual(self.focused(), "done false")
        self.press(Keys.HOME)
        self.assertEqual(self.focused(), "{4}")
        self.press(Keys.ARROW_RIGHT, "*")
        self.assertEqual(browser.run("return document.querySelectorAll('#tree [aria-expanded=false]').length"), 40)
        self.press(Keys.TAB)
        self.assertFalse(browser.run("return document.querySelector('#tree').contains(document.activeElement)"))

    def test_focus_is_kept(self):
        """The focused row keeps the focus when it changes; when it is removed, its parent gets the focus."""
        self.open()
        self.press(*[Keys.TAB] * 6)
        self.browser.run("document.querySelector('#tree [tabindex=\"0\"]').focus()")
        self.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
        self.assertEqual(self.focused(), "Meadow 100")
        self.set({**RESULTS, "votes": {"Meadow": 101}})
        self.browser.until(lambda: (self.focused() or "").startswith("Meadow 101"), "the change")
        self.set({**RESULTS, "votes": {"Plum": 1}})
        self.browser.until(lambda: (self.focused() or "").startswith("votes {1}"), "the focus of the parent")

    def test_series(self):
        """A selected series stays selected while the document changes."""
        browser = self.browser
        self.open()
        browser.until_text("#chart", "Meadow")
        browser.driver.find_element("css selector", "#series").send_keys("places")
        browser.until_text("#chart", "Place 39")
        self.assertEqual(browser.text("#chart-rest"), "and 16 more")
        self.set({**RESULTS, "places": [{"name": "Nowhere", "counted": 7}, {"name": "Elsewhere", "counted": 8}]})
        browser.until_text("#chart", "Nowhere", "Elsewhere")
        self.assertIn("places", browser.run("return document.querySelector('#series').selectedOptions[0].text"))

    def test_pause(self):
        """A paused page does not change, and shows the newest state when it is resumed."""
        browser = self.browser
        self.open()
        button = browser.driver.find_element("css selector", "#pause")
        button.send_keys(Keys.SPACE)
        self.assertEqual(button.get_attribute("aria-pressed"), "true")
        self.set({**RESULTS, "title": "Meanwhile"})
        address = f"http://127.0.0.1:{self.port}"
        until(lambda: get(address).json()["title"] == "Meanwhile", "the change")
        self.assertIn("Election", browser.text("#tree"))
        button.send_keys(Keys.ENTER)
        browser.until_text("#tree", "Meanwhile")

    def test_status_is_announced_rarely(self):
        """A screen reader announces changes of the connection's state, but not those of the document."""
        browser = self.browser
        self.open()
        live = "return [...document.querySelectorAll('[role=status], [role=alert], [aria-live]')].map((e) => e.id)"
        self.assertEqual(browser.run(live), ["status"])
        browser.run(
            "window.announced = 0; new MutationObserver(() => announced++)"
            ".observe(document.querySelector('#status'), { subtree: true, childList: true, characterData: true })"
        )
        for number in range(3):
            self.set({**RESULTS, "title": f"Title {number}"})
            browser.until_text("#tree", f"Title {number}")
        self.assertEqual(browser.run("return announced"), 0)

    def test_phone(self):
        """On a screen 360 pixels wide, nothing overflows and touch targets are large enough."""
        browser = self.browser
        self.open(width=360, height=740)
        browser.until_text("#chart", "Meadow")
        self.assertEqual(browser.run("return document.documentElement.scrollWidth"), 360)
        small = browser.run(
            "return [...document.querySelectorAll('a, button, select, #tree .row')].map((e) => e.getBoundingClientRect())"
            ".filter((box) => box.height < 24 || box.width < 24).length"
        )
        self.assertEqual(small, 0)

    def test_reduced_motion(self):
        """With reduced motion, changes are highlighted without animation."""
        browser = self.browser
        self.open(motion="reduce")
        browser.until_text("#chart", "Meadow")
        browser.run("window.moved = []; addEventListener('animationstart', (e) => moved.push(e.animationName), true);"
                    "addEventListener('transitionrun', (e) => moved.push(e.propertyName), true)")  # fmt: skip
        self.set({**RESULTS, "votes": {"Meadow": 1, "Harbour": 200, "Plum": 40}})
        browser.until_text("#tree", "Harbour 200")
        colour = browser.run("return getComputedStyle(document.querySelector('[data-highlight]')).backgroundColor")
        self.assertNotIn(colour, ("rgba(0, 0, 0, 0)", ""))
        browser.until(
            lambda: not browser.run("return document.querySelector('[data-highlight]')"), "the highlight to end"
        )
        self.assertEqual(browser.run("return moved"), [])

    def test_axe(self):
        """axe-core finds no violation: in the light and dark schemes, on a phone, and while offline."""
        browser = self.browser
        for device in ({}, {"scheme": "dark"}, {"width": 360, "height": 740}):
            self.open(**device)
            browser.until_text("#chart", "Meadow")
            self.assert_accessible(str(device))
        self.service.stop()
        browser.until_text("#status", "Offline")
        self.assert_accessible("offline")

    def assert_accessible(self, what):
        """Run axe-core in the page, and fail on any violation."""
        self.browser.run(find_axe().read_text(encoding="utf-8"))
        violations = self.browser.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(({ violations }) => done(violations), (error) => done([error]))"
        )
        found = [(v["id"], v["help"], [node["html"] for node in v["nodes"]][:3]) for v in violations]
        self.assertEqual(found, [], what)


class ModuleTests(Case):
    """livestate.js in pages of other sites."""

    def test_other_site(self):
        """A page of another site can import the module and follow a document, even across a restart."""
        browser = self.browser
        site = f"http://127.0.0.1:{self.port}"
        address = serve_page(
            self,
            f"""<!doctype html><link rel="icon" href="data:,"><p id="title"></p><p id="how"></p>
            <script type="module">
            import {{ subscribe }} from "{site}/_live/livestate.js";
            subscribe("{site}/", (state, info) => {{
              document.querySelector("#title").textContent = state.title;
              document.querySelector("#how").textContent = info.patch ? "a patch" : "a state";
            }}, {{ onStatus: (status) => document.documentElement.dataset.status = status.state }});
            </script>""",
        )
        browser.open(address)
        browser.until_text("#title", "Election")
        self.set({**RESULTS, "title": "Changed"})
        browser.until_text("#title", "Changed")
        self.assertEqual(browser.text("#how"), "a patch")
        self.assertEqual(browser.console(), [])
        self.service.stop()
        self.set({**RESULTS, "title": "Again"})
        self.start()
        browser.until_text("#title", "Again")
        self.assertEqual([line for line in browser.console() if "net::ERR_" not in line and "CORS" not in line], [])
