"""Starting: certificates, options, listeners, and the configuration file."""

import re
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate.config.options import OPTIONS
from tests.integration.certificates import Authority
from tests.integration.http import Client
from tests.integration.processes import folder_for, free_port, run, twistd_arguments, until
from tests.integration.servers import Livestate

ROOT = Path(__file__).parents[2]


class DevelopmentCertificateTests(SynchronousTestCase):
    """`--https=ssl:PORT` in a folder without server.pem."""

    def test_made_and_kept(self):
        """The first start makes server.pem, for its owner alone, and logs its fingerprint; the next one keeps it."""
        folder = folder_for(self)
        service = Livestate(self, "--source=demo:", https="", folder=folder)
        made = (folder / "server.pem").read_bytes()
        self.assertEqual(stat.S_IMODE((folder / "server.pem").stat().st_mode), 0o600)
        shown = run("openssl", "x509", "-in", folder / "server.pem", "-noout", "-fingerprint", "-sha256").stdout
        fingerprint = shown.strip().partition("=")[2]
        self.assertRegex(fingerprint, "^([0-9A-F]{2}:){31}[0-9A-F]{2}$")
        self.assertIn(fingerprint, service.log)
        client = Client(service.https.replace("127.0.0.1", "localhost"), folder / "server.pem")
        self.assertEqual(client.get().status, 200)
        client.close()
        service.stop()
        service = Livestate(self, "--source=demo:", https="", folder=folder)
        self.assertEqual((folder / "server.pem").read_bytes(), made)
        self.assertNotIn("certificate", service.log)
        client = service.client(https=True)
        self.assertEqual(client.get().status, 200)
        client.close()


class ListenerTests(SynchronousTestCase):
    """Where livestate can listen."""

    def assert_serves(self, client: Client) -> None:
        """See that a document comes."""
        answer = client.get()
        client.close()
        self.assertEqual(answer.status, 200)
        self.assertIn("parties", answer.json())

    def test_certificate_and_key(self):
        """A certificate of one's own, as `ssl:PORT:privateKey=…:certKey=…`, is what is sent."""
        authority = Authority(folder_for(self))
        key, certificate = authority.issue()
        service = Livestate(self, "--source=demo:", https=f":privateKey={key}:certKey={certificate}")
        self.assert_serves(Client(service.https, authority.certificate))
        self.assertFalse(service.cafile.exists())

    def test_repeated(self):
        """--http and --https may repeat."""
        plain, tls = free_port(), free_port()
        service = Livestate(
            self, "--source=demo:", f"--http=tcp:{plain}:interface=127.0.0.1", f"--https=ssl:{tls}", https=""
        )
        self.assert_serves(service.client())
        self.assert_serves(service.client(https=True))
        self.assert_serves(Client(f"http://127.0.0.1:{plain}"))
        self.assert_serves(Client(f"https://127.0.0.1:{tls}", service.cafile))

    def test_http_off(self):
        """`--http=` leaves HTTPS alone."""
        folder = folder_for(self)
        config = folder / "off.toml"
        config.write_text('http = []\nsource = "demo:"\n')
        for options in (["--http="], [f"--config={config}"]):
            service = Livestate(self, "--source=demo:", *options, https="", http=False, folder=folder)
            self.assert_serves(service.client(https=True))
            self.assertEqual(len(re.findall(r"(documents|admin).* starting on ", service.log)), 2, service.log)

    def test_unix_socket(self):
        """`unix:` strings work."""
        folder = folder_for(self)
        Livestate(self, "--source=demo:", f"--http=unix:{folder}/web.sock")
        self.assert_serves(Client(f"unix:{folder}/web.sock"))

    def test_ipv6(self):
        r"""IPv6 works, with its colons escaped: `tcp:PORT:interface=\:\:1`."""
        port, tls = free_port(), free_port()
        service = Livestate(
            self, "--source=demo:", rf"--http=tcp:{port}:interface=\:\:1", rf"--https=ssl:{tls}:interface=\:\:1"
        )
        self.assert_serves(Client(f"http://[::1]:{port}"))
        self.assert_serves(Client(f"https://[::1]:{tls}", service.cafile))

    def test_admin_is_apart(self):
        """Health and status are served on the admin listener alone, and documents never there."""
        service = Livestate(self, "--source=demo:")
        for path in ("/health", "/ready", "/status"):
            self.assertEqual(Client(service.admin).get(path).status, 200, path)
            self.assertEqual(service.get(path).status, 404, path)
        self.assertEqual(Client(service.admin).get("/").status, 404)


class ConfigTests(SynchronousTestCase):
    """Options in TOML."""

    def test_config_and_command_line(self):
        """What stands in the file holds, what stands on the command line wins."""
        folder = folder_for(self)
        config = folder / "livestate.toml"
        config.write_text(
            f"""
            interval = 0.5
            max-size = 7000
            http = ["tcp:{free_port()}:interface=127.0.0.1"]
            cors-origin = ["https://example.org"]
            access-log = "{folder}/access.log"
            [[document]]
            path = "/night.json"
            source = "demo:"
            interval = 0.1
            [[document]]
            source = "file:{folder}/large.json"
            """
        )
        (folder / "large.json").write_text('"' + "x" * 8000 + '"')
        service = Livestate(self, f"--config={config}")
        self.assertEqual(service.status("/night.json")["interval_seconds"], 0.1)
        self.assertEqual(service.status("/")["interval_seconds"], 0.5)
        service.until_status("/", trouble=bool)
        answer = service.get("/night.json", Origin="https://example.org")
        self.assertEqual(answer["Access-Control-Allow-Origin"], "https://example.org")
        until(lambda: "GET /night.json" in (folder / "access.log").read_text(), "the request is logged")
        service.stop()

        service = Livestate(self, f"--config={config}", "--interval=0.25", "--max-size=9000", "--cors-origin=*")
        self.assertEqual(service.status("/")["interval_seconds"], 0.25)
        service.until_served("/")
        self.assertEqual(service.get("/night.json")["Access-Control-Allow-Origin"], "*")
        service.stop()

        service = Livestate(self, f"--config={config}", "--source=/only=demo:")
        self.assertEqual(service.get("/night.json").status, 404)
        service.until_served("/only")

    def test_example(self):
        """The example configuration starts as it is, and with everything in it that is commented out."""
        example = (ROOT / "etc/livestate.toml").read_text()
        uncommented = re.sub(r"^#(?=[a-z\[])", "", example, flags=re.MULTILINE)
        self.assertNotEqual(example, uncommented)
        for original in (example, uncommented):
            folder = folder_for(self)
            key, certificate = Authority(folder).issue()
            text = original.replace("/var/", f"{folder}/var/")
            text = text.replace("/etc/livestate/key.pem", f"{key}")
            text = text.replace("/etc/livestate/fullchain.pem", f"{certificate}")
            (folder / "var/log/livestate").mkdir(parents=True)
            (folder / "example.toml").write_text(text)
            # Ports of the test's own: the command line wins.
            tls = f"ssl:{free_port()}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
            service = Livestate(self, "--config=example.toml", f"--https={tls}", folder=folder)
            self.assertIn(service.get().status, (200, 503))
            self.assertEqual(service.status()["path"], "/")
            service.stop()


class HelpTests(SynchronousTestCase):
    """What is said of livestate before it starts."""

    def test_help(self):
        """`twistd livestate --help` names every option, with its default where it has one."""
        shown = run(*twistd_arguments(), "livestate", "--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        for option in OPTIONS:
            self.assertIn(f"--{option.name}=", shown.stdout)
            self.assertIn(option.default or "", shown.stdout)

    def test_listed(self):
        """`twistd --help` lists livestate."""
        self.assertRegex(run(*twistd_arguments(), "--help").stdout, r"\n +livestate +Live JSON documents")

    def test_version(self):
        """`twistd livestate --version` and `livestate --version` say the same."""
        ran = run(*twistd_arguments(), "livestate", "--version")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(ran.stdout, run(Path(twistd_arguments()[0]).parent / "livestate", "--version").stdout)
