"""A headless Chromium, a proxy that blocks event streams, and a site of another origin."""

import atexit
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.processes import until
from tests.integration.venvs import ROOT

#: No sandbox, because continuous integration runs as root, and no network requests by the browser itself.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

#: Timeout in seconds. On a busy machine, a browser is slow to start and to draw.
TIMEOUT = 45.0


def find_chromium() -> tuple[str, str]:
    """Return the paths of the browser and its driver.

    :raises SkipTest: when they are not installed; in continuous integration, that is a failure.
    """
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found) and not os.environ.get("CI"):
        raise SkipTest("chromium or chromedriver is not installed (Debian: apt install chromium chromium-driver)")
    browser, driver = found
    assert browser and driver, "chromium or chromedriver is not installed"
    return browser, driver


def find_axe() -> Path:
    """Return the path of axe-core's script, which npm installs.

    :raises SkipTest: when it is not installed; in continuous integration, that is a failure.
    """
    script = ROOT / "node_modules/axe-core/axe.min.js"
    if not script.exists() and not os.environ.get("CI"):
        raise SkipTest("axe-core is not installed (npm install)")
    return script


class Browser:
    """A Chromium with its own temporary profile."""

    def __init__(self) -> None:
        binary, driver = find_chromium()
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        for flag in (*FLAGS, f"--user-data-dir={self._profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(TIMEOUT)
        self.driver.set_script_timeout(TIMEOUT)

    def quit(self) -> None:
        """Quit the browser and delete its profile."""
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def emulate(
        self, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "no-preference"
    ) -> None:
        """Emulate a device with a screen of this size and these user preferences."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": name, "value": value} for name, value in features.items()]},
        )

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page, and return its result."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the visible text of an element, with runs of white space collapsed."""
        script = "const e = document.querySelector(arguments[0]); return e?.checkVisibility() ? e.innerText : ''"
        return " ".join(self.run(script, selector).split())

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds, and return its value."""

        def holds() -> Any:
            try:
                return condition()
            except StaleElementReferenceException:
                return None

        return until(holds, what, TIMEOUT)

    def until_text(self, selector: str, *wanted: str) -> None:
        """Wait until an element shows all these texts."""
        try:
            self.until(lambda: all(text in self.text(selector) for text in wanted), f"{wanted} in {selector}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.text(selector)!r}") from None

    def console(self) -> list[str]:
        """Return the warnings and errors logged to the console since the last call."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [str(entry["message"]) for entry in entries if entry["level"] in ("WARNING", "SEVERE")]


@cache
def shared_browser() -> Browser:
    """Return the browser that all tests of this process share. It quits when the process exits."""
    # trial does not call tearDownClass.
    browser = Browser()
    atexit.register(browser.quit)
    return browser


class StreamBlocker:
    """A proxy that forwards everything except requests for event streams, which it never answers."""

    def __init__(self, case: SynchronousTestCase, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.swallowed = 0
        case.addCleanup(self._close)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL that it listens on."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        try:
            while data := source.recv(65536):
                # The browser's requests have no body, and are not pipelined: each is one read.
                if is_request and b"/events" in data.partition(b"\r\n")[0]:
                    self.swallowed += 1
                else:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def serve_page(case: SynchronousTestCase, text: str) -> str:
    """Serve a page from another origin, and return its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Page, text.encode("utf-8")))
    case.addCleanup(server.server_close)
    case.addCleanup(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"


class _Page(BaseHTTPRequestHandler):
    def __init__(self, body: bytes, *args: Any) -> None:
        self._body = body
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self._body)

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests."""
