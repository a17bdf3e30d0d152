"""slowhttptest, for a few seconds; `python -m tests.soak.slow` is the long run."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import program_of, run
from tests.integration.servers import Livestate

MODES = ("-H", "-B", "-R", "-X")


class SlowTests(SynchronousTestCase):
    """All modes at once."""

    def test_available(self):
        """While slow heads, slow bodies, ranges and slow readers are at work, livestate is there for others."""
        service = Livestate(self, "--source=demo:")
        service.until_served()
        logged = len(service.log)
        arguments = ["-i", "1", "-c", "100", "-r", "100", "-l", "4", "-p", "3", "-u", f"{service.http}/"]
        with ThreadPoolExecutor(len(MODES)) as pool:
            attacks = [pool.submit(run, program_of("slowhttptest"), mode, *arguments) for mode in MODES]
            honest = service.client()
            asked = 0
            while not all(attack.done() for attack in attacks):
                self.assertEqual(honest.get().status, 200)
                asked += 1
                time.sleep(0.02)
        self.assertGreater(asked, 20)
        for mode, attack in zip(MODES, attacks, strict=True):
            said = re.sub(r"\x1b\[[0-9;]*m", "", attack.result().stdout)
            available = re.findall(r"service available: +(\w+)", said)
            self.assertTrue(available and set(available) == {"YES"}, (mode, said))
        self.assertEqual(service.log[logged:], "")
