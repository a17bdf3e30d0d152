"""What fuzzers found once is tried again each time: see tests/soak/README.md."""

import importlib

from twisted.trial.unittest import SynchronousTestCase

from tests.corpora import FOLDER, corpus

#: A half of a megabyte would be too much to carry along.
LARGEST = 200_000


class CorporaTests(SynchronousTestCase):
    def replay(self, name: str, least: int) -> None:
        inputs = corpus(name)
        self.assertGreater(len(inputs), least)
        target = importlib.import_module(f"tests.soak.fuzz_{name}")
        self.addCleanup(getattr(target, "close", lambda: None))
        for data in inputs:
            target.check(data)

    def test_requests(self) -> None:
        """Each stream of bytes that ever reached new code is answered by the short cut as by twisted.web."""
        self.replay("requests", 200)

    def test_source_urls(self) -> None:
        """Each URL that ever reached new code is a source, or refused in one line."""
        self.replay("source_urls", 100)

    def test_size(self) -> None:
        """They are small, together."""
        self.assertLess(sum(file.stat().st_size for file in FOLDER.iterdir()), LARGEST)
