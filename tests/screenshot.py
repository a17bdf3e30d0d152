"""Makes the picture of the viewer that the README shows: `python -m tests.screenshot docs/viewer.png`.

It shows the demo's election in the middle of the counting, always the same one; port 8080 must be free.
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

#: Seconds for which votes come in before the picture is taken.
SECONDS = 20


def take(picture: Path) -> None:
    """Show the page, let votes come in, and save what is seen."""
    case = TestCase()
    browser = Browser()
    case.addCleanup(browser.quit)
    try:
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "results.json"
            begin = NIGHT * 1_980_000 + COUNTING // 2

            def write(second: int) -> None:
                document.write_bytes(msgspec.json.encode(state_at(3, begin + second)))

            write(0)
            sources = "--source=/results.json=file:results.json", "--source=/demo.json=demo:"
            Livestate(case, *sources, "--http=tcp:8080:interface=127.0.0.1", http=False, folder=Path(folder))  # type: ignore[arg-type]
            browser.look(1200, 720)
            browser.open("http://localhost:8080/_live/")
            browser.until_text("#chart", "Meadow")
            for second in range(1, SECONDS):
                write(second)
                time.sleep(1)
            browser.until_text("#tree", state_at(3, begin + SECONDS - 1)["updated"])
            browser.driver.save_screenshot(str(picture))
            case.doCleanups()
    finally:
        case.doCleanups()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
