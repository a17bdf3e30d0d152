"""A real Chromium without a window, and things that stand between it and livestate."""

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

#: No sandbox, since continuous integration runs as root; and nothing that asks the network for something of its own.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

#: Seconds: a browser on a busy machine is slow to start and to draw.
LIMIT = 45.0


def find_chromium() -> tuple[str, str]:
    """Give the browser and its driver.

    :raises SkipTest: they are not installed; in continuous integration that is a failure.
    """
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found) and not os.environ.get("CI"):
        raise SkipTest("there is no chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    browser, driver = found
    assert browser and driver, "there is no chromium or no chromedriver"
    return browser, driver


def find_axe() -> Path:
    """Give axe-core's script, which npm installs.

    :raises SkipTest: it is not installed; in continuous integration that is a failure.
    """
    script = ROOT / "node_modules/axe-core/axe.min.js"
    if not script.exists() and not os.environ.get("CI"):
        raise SkipTest("there is no axe-core (npm install)")
    return script


class Browser:
    """One Chromium, with a profile of its own."""

    def __init__(self) -> None:
        binary, driver = find_chromium()
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        for flag in (*FLAGS, f"--user-data-dir={self._profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(LIMIT)
        self.driver.set_script_timeout(LIMIT)

    def quit(self) -> None:
        """End it."""
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "no-preference") -> None:
        """Be another device, with other preferences."""
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
        """Go to a page."""
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page, and give what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Give the text that is shown of an element, with single spaces."""
        script = "const e = document.querySelector(arguments[0]); return e?.checkVisibility() ? e.innerText : ''"
        return " ".join(self.run(script, selector).split())

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something."""

        def holds() -> Any:
            try:
                return condition()
            except StaleElementReferenceException:
                return None

        return until(holds, what, LIMIT)

    def until_text(self, selector: str, *wanted: str) -> None:
        """Wait until an element shows all these texts."""
        try:
            self.until(lambda: all(text in self.text(selector) for text in wanted), f"{wanted} in {selector}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.text(selector)!r}") from None

    def console(self) -> list[str]:
        """Give what was written to the console since the last time, as warnings or errors."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [str(entry["message"]) for entry in entries if entry["level"] in ("WARNING", "SEVERE")]


@cache
def shared_browser() -> Browser:
    """Give the browser that all tests of this process use; it ends with the process."""
    # trial calls no tearDownClass.
    browser = Browser()
    atexit.register(browser.quit)
    return browser


class StreamEater:
    """A proxy that lets everything through but the answers to requests for event streams, which never come."""

    def __init__(self, case: SynchronousTestCase, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.eaten = 0
        case.addCleanup(self._close)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _close(self) -> None:
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        try:
            while data := source.recv(65536):
                # Browsers' questions have no bodies, and come one by one.
                if asks and b"/events" in data.partition(b"\r\n")[0]:
                    self.eaten += 1
                else:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def serve_page(case: SynchronousTestCase, text: str) -> str:
    """Serve one page from a site of its own, and give its address."""
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
        """Say nothing."""
