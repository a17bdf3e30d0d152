"""The manifests in etc/kubernetes: against Kubernetes' own schemas, against one another, and what they run."""

import copy
import re
import shlex
from typing import Any

import kubernetes_validate
import yaml
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.config.strports import parse_strports
from livestate.web.drain import LIMIT as DRAINED
from livestate.workers.supervisor import DRAIN_TIMEOUT
from tests.integration.certificates import Authority
from tests.integration.http import Client, get
from tests.integration.processes import TERMINATED, Child, folder_for, free_port, run, twistd_arguments, until
from tests.integration.servers import RedisServer
from tests.integration.venvs import ROOT

FOLDER = ROOT / "etc" / "kubernetes"

#: The oldest that they are for, and the newest that there was when they were made.
VERSIONS = "1.30", "1.37"


def manifests() -> dict[str, Any]:
    """Give the manifests by kind."""
    found = [one for path in sorted(FOLDER.iterdir()) for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    by_kind = {one["kind"]: one for one in found}
    assert len(by_kind) == len(found), "two of a kind"
    return by_kind


def in_comments(name: str) -> list[Any]:
    """Give what stands as YAML in a file's comments."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    blocks = "\n".join(line[6:] if line.startswith("#     ") else "---" for line in lines if line.startswith("#"))
    return [block for block in yaml.safe_load_all(blocks) if block]


def faults(manifest: Any, version: str) -> str:
    """Say what a version of Kubernetes would not take of a manifest; nothing where it takes it."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


class ManifestTests(SynchronousTestCase):
    """All of them together."""

    def setUp(self) -> None:
        self.manifests = manifests()
        self.pod = self.manifests["Deployment"]["spec"]["template"]
        (self.container,) = self.pod["spec"]["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.toml = self.manifests["Secret"]["stringData"]["livestate.toml"]

    def test_schema(self) -> None:
        """Kubernetes' schemas find no fault, nor any field that they do not know."""
        kinds = {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Secret", "NetworkPolicy"}
        self.assertEqual(set(self.manifests), kinds)
        for version in VERSIONS:
            for kind, manifest in self.manifests.items():
                self.assertEqual(faults(manifest, version), "", f"{kind}, Kubernetes {version}")

    def test_schema_refuses(self) -> None:
        """A misspelt field, a value of another type and a missing field are found, in each kind of manifest."""

        def misspelt(spec: Any) -> None:
            spec["selektor"] = spec.pop("selector")

        def mistyped(spec: Any) -> None:
            spec["template"]["spec"]["terminationGracePeriodSeconds"] = "half a minute"

        def missing(spec: Any) -> None:
            del spec["scaleTargetRef"]

        for kind, spoil in (
            ("Deployment", misspelt), ("Service", misspelt), ("PodDisruptionBudget", misspelt),
            ("Deployment", mistyped), ("HorizontalPodAutoscaler", missing),
        ):  # fmt: skip
            manifest = copy.deepcopy(self.manifests[kind])
            spoil(manifest["spec"])
            for version in VERSIONS:
                self.assertNotEqual(faults(manifest, version), "", f"{kind}: {spoil.__name__}")

    def test_names(self) -> None:
        """What one manifest names is in the other: pods, ports, Secrets and folders."""
        labels = self.pod["metadata"]["labels"]
        spec = {kind: manifest.get("spec") for kind, manifest in self.manifests.items()}
        for selector in (
            spec["Deployment"]["selector"]["matchLabels"], spec["Service"]["selector"],
            spec["PodDisruptionBudget"]["selector"]["matchLabels"], spec["NetworkPolicy"]["podSelector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in self.pod["spec"]["topologySpreadConstraints"]),
        ):  # fmt: skip
            self.assertEqual(selector, labels)
        target = spec["HorizontalPodAutoscaler"]["scaleTargetRef"]
        deployment = self.manifests["Deployment"]
        self.assertEqual(
            (target["apiVersion"], target["kind"], target["name"]),
            (deployment["apiVersion"], "Deployment", deployment["metadata"]["name"]),
        )
        self.assertEqual(spec["HorizontalPodAutoscaler"]["minReplicas"], spec["Deployment"]["replicas"])
        served = [port["targetPort"] for port in spec["Service"]["ports"]]
        self.assertEqual(served, ["http", "https"])
        allowed = [port["port"] for rule in spec["NetworkPolicy"]["ingress"] for port in rule["ports"]]
        self.assertEqual(set(allowed), set(self.ports))
        secrets = [volume["secret"]["secretName"] for volume in self.pod["spec"]["volumes"] if "secret" in volume]
        self.assertEqual(secrets, [self.manifests["Secret"]["metadata"]["name"], "livestate-tls"])
        volumes = {volume["name"] for volume in self.pod["spec"]["volumes"]}
        self.assertEqual({mount["name"] for mount in self.container["volumeMounts"]}, volumes)

    def test_options(self) -> None:
        """livestate takes the options, and they are about the ports and folders of the pod; the password is only there."""
        config = folder_for(self) / "livestate.toml"
        config.write_text(self.toml, encoding="utf-8")
        settings = load_settings({}, str(config))
        (http,), (https,), admin = settings.http, settings.https, settings.admin
        mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        for name, description in (("http", http), ("https", https), ("admin", admin or "")):
            self.assertEqual(parse_strports(description)[1]["port"], str(self.ports[name]))
            self.assertNotIn("interface", description)
        files = parse_strports(https)[1]
        self.assertEqual(
            (files["privateKey"], files["certKey"]), (f"{mounts['tls']}/tls.key", f"{mounts['tls']}/tls.crt")
        )
        self.assertEqual(str(settings.state_dir), mounts["state"])
        self.assertIn(f"--config={mounts['config']}/livestate.toml", self.container["command"])
        password = re.search(r"://\w+:([^@]+)@", self.toml)
        assert password
        found = [path.name for path in FOLDER.iterdir() if password[1] in path.read_text(encoding="utf-8")]
        self.assertEqual(found, ["secret.yaml"])

    def test_end(self) -> None:
        """A pod is given the time that it takes: the sleep, and then the drain, of workers too."""
        sleep = self.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        given = self.pod["spec"]["terminationGracePeriodSeconds"] - sleep
        self.assertGreater(given, max(DRAINED, DRAIN_TIMEOUT) + 5)

    def test_security(self) -> None:
        """The pod is one that Kubernetes' own standard calls restricted, and it writes to no disk but its state."""
        pod, container = self.pod["spec"]["securityContext"], self.container["securityContext"]
        self.assertEqual((pod["runAsNonRoot"], pod["seccompProfile"]), (True, {"type": "RuntimeDefault"}))
        self.assertGreater(pod["runAsUser"], 0)
        self.assertEqual(
            container,
            {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        )
        writable = [mount["name"] for mount in self.container["volumeMounts"] if not mount.get("readOnly")]
        self.assertEqual(writable, ["state"])

    def test_metrics(self) -> None:
        """The autoscaler, the adapter's rule and the scrape job go by a metric that there is, at a port that there is."""
        documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
        metrics = self.manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
        (name,) = [metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"]
        self.assertIn(name, documented)
        scrape, adapter = in_comments("autoscaler.yaml")
        (rule,) = adapter["rules"]
        self.assertTrue(rule["seriesQuery"].startswith(f"{name}{{"))
        self.assertEqual(re.findall(r"livestate_\w+", rule["metricsQuery"]), [name])
        (job,) = scrape["scrape_configs"]
        # Debian's promtool does not know of Kubernetes.
        self.assertEqual(job.pop("kubernetes_sd_configs"), [{"role": "pod"}])
        keep = job["relabel_configs"][0]
        self.assertEqual(keep["regex"], f"{self.pod['metadata']['labels']['app.kubernetes.io/name']};admin")
        self.assertIn("admin", self.ports)
        config = folder_for(self) / "prometheus.yml"
        config.write_text(yaml.safe_dump(scrape), encoding="utf-8")
        checked = run("promtool", "check", "config", config)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_it_runs(self) -> None:
        """The pod's command, with its options, starts without the store, is ready when there is a document, and ends in
        the time that it is given."""
        folder = folder_for(self)
        user, password = re.search(r"redis://(\w+):([^@]+)@", self.toml).groups()  # type: ignore[union-attr]
        rights = f"--user {user} on >{password} ~livestate &livestate +get +select +subscribe +ping"
        store = RedisServer(self, options=tuple(shlex.split(rights)), start=False)
        key, certificate = Authority(folder).issue("tls")
        key.rename(folder / "tls.key")
        certificate.rename(folder / "tls.crt")
        here = {name: free_port() for name in self.ports}
        toml = self.toml.replace("/etc/livestate-tls", str(folder)).replace("/var/lib/livestate", str(folder / "state"))
        toml = toml.replace("@redis:6379", f"@127.0.0.1:{store.port}")
        for name, port in self.ports.items():
            toml = toml.replace(f":{port}", f":{here[name]}:interface=127.0.0.1")
        config = folder / "livestate.toml"
        config.write_text(toml)
        self.assertEqual(self.container["command"][0], "twistd")
        command = [*twistd_arguments(), *self.container["command"][1:]]
        command[-1] = f"--config={config}"

        def asked(probe: str) -> int:
            wanted = self.container[probe]["httpGet"]
            return get(f"http://127.0.0.1:{here[wanted['port']]}", wanted["path"]).status

        def starts() -> bool:
            try:
                return asked("startupProbe") == 200
            except OSError:
                return False

        child = Child(self, command, folder)
        child.wait_for(starts, "livestate")
        self.assertEqual((asked("livenessProbe"), asked("readinessProbe")), (200, 503))
        store.start()
        store.set('{"a": 1}')
        until(lambda: asked("readinessProbe") == 200, "it is ready")
        client = Client(f"https://127.0.0.1:{here['https']}", folder / "authority.pem")
        self.assertEqual(client.get().json(), {"a": 1})
        client.close()

        def told() -> bool:
            store.command("PUBLISH", "livestate", "")
            status = get(f"http://127.0.0.1:{here['admin']}", "/status").json()
            return bool(status["documents"][0]["notifications"])

        until(told, "it is told of changes")
        self.assertEqual(child.stop(), TERMINATED)
