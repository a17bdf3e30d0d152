"""What livestate cannot start with: each is one line on standard error and exit code 1."""

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import folder_for, free_port, run, twistd_arguments
from tests.support import pem

#: Options, and a word that the line must hold. `PORT` stands for a free port, `BUSY` for a taken one.
CASES = (
    # Options
    ("--frobnicate=1", "frobnicate"),
    ("stray", "stray"),
    ("--interval=0", "--interval"),
    ("--interval=soon", "--interval"),
    ("--interval=nan", "--interval"),
    ("--interval=inf", "--interval"),
    ("--interval=", "--interval"),
    ("--max-stale=-1", "--max-stale"),
    ("--max-stale=never", "--max-stale"),
    ("--max-size=large", "--max-size"),
    ("--max-size=0", "--max-size"),
    ("--cors-origin=example.org", "--cors-origin"),
    ("--cors-origin=https://example.org/", "--cors-origin"),
    ("--state-dir=", "--state-dir"),
    ("--state-dir=/dev/null/state", "--state-dir"),
    ("--access-log=missing/access.log", "--access-log"),
    ("--access-log=.", "--access-log"),
    # Sources
    ("--source=nonsense", "--source"),
    ("--source=", "--source"),
    ("--source=gopher://example.org/", "gopher"),
    ("--source=/srv/results.json", "file:/srv/results.json"),
    ("--source=results=demo:", "--source"),
    ("--source=/a?b=demo:", "/a?b"),
    ("--source=/a b=demo:", "/a b"),
    ("--source=/a/../b=demo:", "/a/../b"),
    ("--source=/_live/x=demo:", "/_live"),
    ("--source=demo:?seed=x", "seed"),
    ("--source=demo:?sead=1", "sead"),
    ("--source=file:", "file"),
    ("--source=file://elsewhere/x", "file"),
    ("--source=http:///x", "host"),
    ("--source=http://127.0.0.1:99999/", "--source"),
    ("--source=redis://127.0.0.1:99999/0", "--source"),
    ("--source=redis://127.0.0.1/first", "first"),
    ("--source=redis://127.0.0.1/0?keey=a", "keey"),
    ("--source=redis://127.0.0.1/0?key=a&key=b", "key"),
    ("--source=redis://127.0.0.1/0?cafile=ca.pem", "cafile"),
    ("--source=rediss://127.0.0.1/0?cafile=missing.pem", "missing.pem"),
    ("--source=rediss://127.0.0.1/0?cafile=nonsense.pem", "nonsense.pem"),
    ("--source=redis+unix:?key=a", "socket"),
    ("--source=redis://:secret@127.0.0.1/first", "***"),
    ("--source=demo: --source=demo:", "already"),
    ("--source=/a=demo: --source=/a/events=demo:", "/a/events"),
    # Listeners
    ("--http=", "--http"),
    ("--http=nonsense", "--http"),
    ("--http=nosuch:1", "--http"),
    ("--http=tcp:", "--http"),
    ("--http=tcp:http", "--http"),
    ("--http=tcp:99999", "--http"),
    ("--http=tcp:PORT:interface=192.0.2.1", "no such address"),
    ("--http=tcp:PORT:interface=nonsense", "--http"),
    ("--http=tcp:PORT:frobnicate=1", "--http"),
    ("--http=tcp:PORT:backlog=many", "--http"),
    ("--http=unix:missing/web.sock", "--http"),
    ("--http=ssl:PORT", "--https"),
    ("--http=tcp:BUSY:interface=127.0.0.1", "in use"),
    ("--https=ssl:BUSY:interface=127.0.0.1", "in use"),
    ("--admin=tcp:BUSY:interface=127.0.0.1", "in use"),
    ("--http=tcp:PORT:interface=127.0.0.1 --https=ssl:PORT:interface=127.0.0.1", "in use"),
    ("--http=tcp:PORT --admin=tcp:PORT:interface=127.0.0.1", "in use"),
    ("--admin=nonsense", "--admin"),
    # TLS
    ("--https=tcp:PORT", "--https"),
    ("--https=ssl:", "--https"),
    ("--https=ssl:PORT:frobnicate=1", "frobnicate"),
    ("--https=ssl:PORT:privateKey=missing.pem:certKey=certificate.pem", "missing.pem"),
    ("--https=ssl:PORT:privateKey=key.pem:certKey=missing.pem", "missing.pem"),
    ("--https=ssl:PORT:privateKey=key.pem:certKey=.", "Is a directory"),
    ("--https=ssl:PORT:privateKey=key.pem:certKey=nonsense.pem", "nonsense.pem"),
    ("--https=ssl:PORT:privateKey=nonsense.pem:certKey=certificate.pem", "nonsense.pem"),
    ("--https=ssl:PORT:privateKey=encrypted.pem:certKey=certificate.pem", "encrypted"),
    ("--https=ssl:PORT:privateKey=other.pem:certKey=certificate.pem", "does not match"),
    ("--https=ssl:PORT:privateKey=key.pem", "key.pem"),
    ("--https=ssl:PORT:privateKey=key.pem:certKey=certificate.pem:extraCertChain=missing.pem", "missing.pem"),
    # The configuration file
    ("--config=missing.toml", "missing.toml"),
    ("--config=.", "--config"),
    ("--config=nonsense.pem", "TOML"),
    ("--config=latin1.toml", "TOML"),
    ("--config=unknown.toml", "intervall"),
    ("--config=type.toml", "interval"),
    ("--config=text.toml", "access-log"),
    ("--config=table.toml", "[[document]]"),
    ("--config=no-source.toml", "source"),
    ("--config=unknown-in-document.toml", "sorce"),
    ("--config=clash.toml", "already"),
)  # fmt: skip

FILES = {
    "nonsense.pem": b"this is not PEM, nor TOML\n",
    "latin1.toml": b'source = "caf\xe9"\n',
    "unknown.toml": b"intervall = 1\n",
    "type.toml": b"interval = true\n",
    "text.toml": b"access-log = 5\n",
    "table.toml": b'[document]\nsource = "demo:"\n',
    "no-source.toml": b'[[document]]\npath = "/"\n',
    "unknown-in-document.toml": b'[[document]]\nsorce = "demo:"\n',
    "clash.toml": b'source = "demo:"\n[[document]]\nsource = "demo:"\n',
}


class RefusalTests(SynchronousTestCase):
    """Everything that livestate cannot start with."""

    def setUp(self):
        self.folder = folder_for(self)
        for name, content in FILES.items():
            (self.folder / name).write_bytes(content)
        key, certificate = Authority(self.folder).issue()
        key.rename(self.folder / "key.pem")
        certificate.rename(self.folder / "certificate.pem")
        other = ec.generate_private_key(ec.SECP256R1())
        (self.folder / "other.pem").write_bytes(pem(other))
        (self.folder / "encrypted.pem").write_bytes(pem(other, password=b"password"))
        self.busy = socket.create_server(("127.0.0.1", free_port()))
        self.addCleanup(self.busy.close)

    def start(self, text: str, folder: Path | None = None, *before: str) -> subprocess.CompletedProcess[str]:
        """Start with the options of a case, and others where it names none that is needed."""
        options = text.replace("PORT", str(free_port())).replace("BUSY", str(self.busy.getsockname()[1]))
        # A path with a space is one option all the same.
        arguments = [f"--{option}" for option in options.split(" --")] if " --" in options else [options]
        arguments = [argument.replace("----", "--") for argument in arguments]
        names = {argument.partition("=")[0] for argument in arguments}
        if "--source" not in names and "--config" not in names:
            arguments.append("--source=demo:")
        for name in {"--http", "--admin"} - names:
            arguments.append(f"{name}=tcp:{free_port()}:interface=127.0.0.1")
        try:
            return run(*twistd_arguments(), *before, "livestate", *arguments, cwd=folder or self.folder)
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(error.cmd, -1, str(error.stdout), "it runs")

    def assert_refused(self, text: str, word: str, ran: subprocess.CompletedProcess[str]) -> None:
        """See that a start ended as it should."""
        shown = f"{text}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        self.assertEqual(ran.returncode, 1, shown)
        self.assertEqual(ran.stderr.count("\n"), 1, shown)
        self.assertTrue(ran.stderr.startswith("livestate: "), shown)
        self.assertIn(word, ran.stderr, shown)
        self.assertNotIn("secret", ran.stderr + ran.stdout, shown)
        self.assertNotIn("Traceback", ran.stdout, shown)
        self.assertNotIn("Unhandled", ran.stdout, shown)

    def refuse(self, *before: str, every: int = 1) -> None:
        """Go through all cases, or one in `every`, with options of twistd's own in front."""
        cases = CASES[::every]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda case: self.start(case[0], None, *before), cases))
        wrong = []
        for (text, word), ran in zip(cases, results, strict=True):
            try:
                self.assert_refused(text, word, ran)
            except self.failureException as failure:
                wrong.append(str(failure))
        self.assertFalse(wrong, "\n\n".join(wrong))

    def test_in_the_foreground(self):
        """`twistd -n livestate` with a wrong option says so in one line and ends with 1."""
        self.refuse("-n", "--pidfile=")

    def test_in_the_background(self):
        """`twistd livestate` says so too, before it leaves the terminal."""
        # Nothing is in the background yet when options are read: one in some of each kind is enough.
        self.refuse("--pidfile=twistd-case.pid", "--logfile=twistd-case.log", every=4)
        self.assertEqual(list(self.folder.glob("twistd*.pid")), [])

    def test_log_file(self):
        """A log file that cannot be opened is one line."""
        ran = self.start("--interval=1", None, "-n", "--pidfile=", "--logfile=missing/twistd.log")
        self.assert_refused("--logfile", "missing/twistd.log", ran)

    def test_folders_of_twistd(self):
        """A pidfile or a folder that twistd itself cannot use is one line too."""
        for options in (("--pidfile=missing/twistd.pid",), ("--pidfile=", "--rundir=missing")):
            for before in (("-n",), ("--logfile=twistd.log",)):
                ran = self.start("--interval=1", None, *before, *options)
                self.assert_refused(" ".join(options), options[-1].partition("=")[0], ran)

    def test_certificate_that_cannot_be_made(self):
        """A folder in which no development certificate can be made is one line."""
        folder = self.folder / "gone"
        folder.mkdir()
        (folder / "server.pem").symlink_to("nowhere/server.pem")
        ran = self.start("--https=ssl:PORT:interface=127.0.0.1", folder, "-n", "--pidfile=")
        self.assert_refused("server.pem", "server.pem", ran)
