"""Take the screenshot of the viewer for the README: `python -m tests.screenshot docs/viewer.png`.

It shows always the same moment of the demo's election, in the middle of the count. Port 8080 must be free.
"""

import sys
import tempfile
import time
from pathlib import Path
from unittest import TestCase

import msgspec

from livestate.sources.demo import COUNTING, NIGHT, state_at
from tests.integration.browser import Browser
from tests.integration.servers import Livestate

#: Seconds during which votes are counted before the screenshot is taken.
SECONDS = 20


def take(picture: Path) -> None:
    """Open the page, let votes come in, and save a screenshot."""
    case = TestCase()
    browser = Browser()
    case.addCleanup(browser.quit)
    try:
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "results.json"
            start = NIGHT * 1_980_000 + COUNTING // 2

            def write(second: int) -> None:
                document.write_bytes(msgspec.json.encode(state_at(3, start + second)))

            write(0)
            sources = "--source=/results.json=file:results.json", "--source=/demo.json=demo:"
            Livestate(case, *sources, "--http=tcp:8080:interface=127.0.0.1", http=False, folder=Path(folder))  # type: ignore[arg-type]
            browser.emulate(1200, 720)
            browser.open("http://localhost:8080/_live/")
            browser.until_text("#chart", "Meadow")
            for second in range(1, SECONDS):
                write(second)
                time.sleep(1)
            browser.until_text("#tree", state_at(3, start + SECONDS - 1)["updated"])
            browser.driver.save_screenshot(str(picture))
            case.doCleanups()
    finally:
        case.doCleanups()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
