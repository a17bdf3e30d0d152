"""The limit of open files."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


class OpenFilesTests(SynchronousTestCase):
    """`raise_open_files`, in a process of its own."""

    def raised(self, soft, hard):
        """Give the limits after it was called under these, and what was logged."""
        program = (
            "import resource, sys\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "from twisted.logger import globalLogPublisher, formatEvent\n"
            "globalLogPublisher.addObserver(lambda event: print(formatEvent(event)))\n"
            "from livestate.system.open_files import raise_open_files\n"
            "raise_open_files()\n"
            "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        )
        # livestate need not be installed for the tests of a module: it is taken from the checkout.
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=Path(__file__).parents[2],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return ran.stdout.splitlines()

    def test_raised(self):
        """The limit becomes the hard limit, and nothing is said where that is enough."""
        self.assertEqual(self.raised(1024, 12000), ["(12000, 12000)"])

    def test_too_low(self):
        """Where the hard limit is low too there is one line, with the number, what it is good for and what to do."""
        warning, limits = self.raised(1024, 4096)
        self.assertEqual(limits, "(4096, 4096)")
        self.assertIn("at most 4096 files", warning)
        self.assertIn("about 3996 readers", warning)
        self.assertIn("LimitNOFILE=", warning)
