"""testssl.sh against livestate: its direct transports and Twisted's stock ones, ECDSA and RSA certificates.

Nothing may be rated worse than LOW but what `INHERENT` explains, and no check that matters may be left out.

    python -m tests.soak.tls_audit
"""

import json
import os
import shutil
import subprocess
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import folder_for
from tests.integration.servers import Livestate
from tests.soak.script import run

#: testssl.sh's ratings that are not worse than low.
GOOD = {"OK", "INFO", "LOW"}

#: What it rates worse, or cannot look at, and why that is so.
INHERENT = {
    "cert_revocation": "the certificate is the tests' own authority's, which publishes no revocations",
    "BREACH": "an answer that is compressed holds no secret, nor anything of the request: the attack needs both",
    "engine_problem": "is about the OpenSSL that looks: it knows no GOST",
    "sessionresumption_ticket": "its client may end before the ticket of TLS 1.3 has come; resumption has tests of its own",
}

#: Checks that there must be an outcome of: a run that was cut short is no success.
EXPECTED = {
    "SSLv2",
    "SSLv3",
    "TLS1",
    "TLS1_1",
    "TLS1_2",
    "TLS1_3",
    "heartbleed",
    "ROBOT",
    "secure_client_renego",
    "LOGJAM",
}


class Audit(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Look, print, and fail where something is rated worse."""
        program = shutil.which("testssl") or shutil.which("testssl.sh")
        assert program is not None, "this needs testssl.sh (Debian: testssl.sh)"
        wrong: list[str] = []
        for reactor, kind in (("", "ECDSA"), ("epoll", "ECDSA"), ("", "RSA")):
            os.environ["LIVESTATE_TEST_REACTOR"] = reactor
            began = time.monotonic()
            findings = self.look(program, kind)
            print(f"{reactor or 'direct'}, {kind}: {len(findings)} findings in {time.monotonic() - began:.0f} s")
            for finding in findings:
                name, rating, text = finding["id"], finding["severity"], finding["finding"]
                if rating in GOOD - {"LOW"}:
                    continue
                known = INHERENT.get(name.partition(" ")[0])
                print(f"  {rating:<8} {name}: {text}" + (f" [{known}]" if known else ""))
                if rating not in GOOD and not known:
                    wrong.append(f"{reactor or 'direct'}, {kind}: {rating} {name}: {text}")
            missing = EXPECTED - {finding["id"].partition(" ")[0] for finding in findings}
            wrong += [f"{reactor or 'direct'}, {kind}: no outcome of {name}" for name in sorted(missing)]
        self.assertEqual(wrong, [])

    def look(self, program: str, kind: str) -> list[dict[str, Any]]:
        """Start livestate with a certificate of its kind, and give what testssl.sh finds."""
        folder = folder_for(self)
        authority = Authority(folder)
        key, certificate = authority.issue(
            days=90, key=rsa.generate_private_key(65537, 2048) if kind == "RSA" else None
        )
        service = Livestate(self, "--source=demo:", https=f":privateKey={key}:certKey={certificate}", folder=folder)
        service.until_served()
        output = folder / "findings.json"
        subprocess.run(
            [program, "--quiet", "--warnings=off", "--color=0", "--nodns=none", f"--add-ca={authority.certificate}",
             f"--jsonfile={output}", service.https.replace("https://127.0.0.1", "localhost")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=900, check=False,
        )  # fmt: skip
        service.stop()
        findings: list[dict[str, Any]] = json.loads(output.read_text())
        return findings


if __name__ == "__main__":
    run(Audit())
