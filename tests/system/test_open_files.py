"""Tests of the limit on open files."""

import resource
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate.system.open_files import max_clients


class OpenFilesTests(SynchronousTestCase):
    """`raise_open_files`, in a child process."""

    def raised(self, soft, hard):
        """Call it under these limits; return what it logged, and the limits afterwards."""
        program = (
            "import resource, sys\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "from twisted.logger import globalLogPublisher, formatEvent\n"
            "globalLogPublisher.addObserver(lambda event: print(formatEvent(event)))\n"
            "from livestate.system.open_files import raise_open_files\n"
            "raise_open_files()\n"
            "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        )
        # Unit tests run without an installed livestate: this imports it from the checkout.
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=Path(__file__).parents[2],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return ran.stdout.splitlines()

    def test_raised(self):
        """The soft limit becomes the hard limit; if that is enough, nothing is logged."""
        self.assertEqual(self.raised(1024, 12000), ["(12000, 12000)"])

    def test_too_low(self):
        """If the hard limit is low as well, one line names it, what it is enough for, and what to do."""
        warning, limits = self.raised(1024, 4096)
        self.assertEqual(limits, "(4096, 4096)")
        self.assertIn("limit on open files is 4096", warning)
        self.assertIn("about 3996 clients", warning)
        self.assertIn("LimitNOFILE=", warning)

    def test_max_clients(self):
        """Clients get what is left of the limit after a reserve that grows with the documents, and at least a quarter."""
        for soft, documents, expected in (
            (resource.RLIM_INFINITY, 5, None), (1024, 0, 924), (1024, 60, 864), (150, 0, 50), (150, 2, 48), (100, 0, 25),
            (300, 120, 80), (300, 10_000, 75), (1_048_576, 20_000, 1_028_476), (4, 9, 1),
        ):  # fmt: skip
            self.patch(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
            self.assertEqual(max_clients(documents), expected, (soft, documents))
