"""
Twisted's own suites pass on the direct reactor and on livestate's channel, except for the differences listed here.

The suites of the installed Twisted run in a child process.  An unlisted failure
fails the test; a listed difference that passes does too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TIMEOUT = 300

ROOT_ONLY = "fails on the stock epoll reactor too, when tests run as root"
NO_CONTEXT = "asserts the log prefix of legacy log.msg, but no logging context is set around an event here"
NAGLE = "asserts that TCP_NODELAY is off initially, but here it is on"

BUILDER_SUITES = [
    f"twisted.internet.test.test_{name}"
    for name in ["core", "time", "threads", "fdset", "tcp", "tls", "unix", "udp", "socket", "stdio", "process"]
]
BUILDER_DIFFERENCES = {
    "twisted.internet.test.test_tcp.TCP4ClientTestsBuilder_DirectReactorTests.test_logPrefix": NO_CONTEXT,
    "twisted.internet.test.test_tcp.TCP6ClientTestsBuilder_DirectReactorTests.test_logPrefix": NO_CONTEXT,
    "twisted.internet.test.test_tls.SSLClientTestsMixin_DirectReactorTests.test_logPrefix": NO_CONTEXT,
    "twisted.internet.test.test_tls.StartTLSClientTestsMixin_DirectReactorTests.test_logPrefix": NO_CONTEXT,
}
if os.getuid() == 0:
    BUILDER_DIFFERENCES |= {
        "twisted.internet.test.test_process.PTYProcessTestsBuilder_DirectReactorTests.test_changeUID": ROOT_ONLY,
        "twisted.internet.test.test_process.ProcessTestsBuilder_DirectReactorTests.test_changeUID": ROOT_ONLY,
    }

INSTALLED_SUITES = [
    "twisted.internet.test.test_endpoints",
    "twisted.protocols.test.test_tls",
    "twisted.test.test_amp",
    "twisted.test.test_factories",
    "twisted.test.test_internet",
    "twisted.test.test_policies",
    "twisted.test.test_ssl",
    "twisted.test.test_sslverify",
    "twisted.test.test_tcp",
    "twisted.test.test_tcp_internals",
    "twisted.web.test.test_http",
    "twisted.web.test.test_web",
    "twisted.web.test.test_webclient",
    "twisted.web.test.test_wsgi",
]
INSTALLED_DIFFERENCES = {
    "twisted.test.test_tcp.LoopbackTests.test_tcpNoDelay": NAGLE,
}

CHUNKED_1_0 = "sends chunks in HTTP/1.0, which livestate.web.http1.request_rules refuses"

CHANNEL_SUITES = ["twisted.web.test.test_http"]
CHANNEL_DIFFERENCES = {
    "twisted.web.test.test_http.ChannelProductionTests.test_HTTPChannelToleratesDataWhenTransportPaused": (
        "expects an answer to a request that arrives while its client does not read, but here it waits"
    ),
    "twisted.web.test.test_http.ChunkingTests.test_multipartFormData": CHUNKED_1_0,
    "twisted.web.test.test_http.ParsingTests.test_chunkedEncoding": CHUNKED_1_0,
    "twisted.web.test.test_http.ParsingTests.test_transferEncodingIdentity": (
        "sends a Transfer-Encoding unknown to RFC 9112, which livestate.web.http1.request_rules refuses"
    ),
    "twisted.web.test.test_http.ParsingTests.test_headersMultiline": (
        "continues a header line, which livestate.web.http1.request_rules refuses"
    ),
}


class TwistedSuites(SynchronousTestCase):
    not_a_unit_test = "runs Twisted's own suites, which takes a minute"

    def check(self, mode: str, suites: list[str], differences: dict[str, str], min_passed: int) -> None:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.run(
                [sys.executable, "-m", "tests.net.suite_runner", mode, *suites],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        if child.returncode:
            self.fail(f"exit status {child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}")
        report = json.loads(child.stdout.rstrip().rsplit("\n", 1)[-1])
        failed = set(report["failed"])
        self.assertEqual(failed - set(differences), set(), report["why"])
        self.assertEqual(set(differences) - failed, set(), "listed as a difference, but passes")
        self.assertGreaterEqual(report["passed"], min_passed)

    def test_suites_that_build_a_reactor(self) -> None:
        self.check("builder", BUILDER_SUITES, BUILDER_DIFFERENCES, min_passed=280)

    def test_suites_on_the_installed_reactor(self) -> None:
        self.check("installed", INSTALLED_SUITES, INSTALLED_DIFFERENCES, min_passed=500)

    def test_suites_on_the_channel(self) -> None:
        self.check("channel", CHANNEL_SUITES, CHANNEL_DIFFERENCES, min_passed=230)
