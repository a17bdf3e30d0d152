"""The metrics of a running livestate, checked by promtool, and the alerts and the dashboard that use them."""

import json
import re
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import get
from tests.integration.processes import folder_for, run, until
from tests.integration.servers import Livestate

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "prometheus-rules.yml"
RULE_TESTS = ROOT / "tests" / "prometheus_rules.yml"
DASHBOARD = json.loads((ROOT / "etc" / "grafana-dashboard.json").read_text())

#: The name of a metric.
NAME = re.compile(r"\b(?:livestate|process)_\w+")


def promtool(*arguments, stdin=b""):
    """Run promtool; return its exit code and output."""
    ran = run("promtool", *arguments, stdin=stdin)
    return ran.returncode, ran.stdout + ran.stderr


def exported(service):
    """Return the values of all metrics, by name and labels."""
    text = get(service.admin, "/metrics").body.decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class MetricsTests(SynchronousTestCase):
    """The metrics of one process, with a document that exists and one that does not."""

    def setUp(self):
        self.service = Livestate(self, "--source=/a.json=demo:", "--source=/b.json=file:b.json", https="")
        self.service.until_served("/a.json")

    def value(self, name, **labels):
        return exported(self.service).get((name, *sorted(labels.items())))

    def test_promtool(self):
        """promtool finds no fault, with a document that exists and one that does not."""
        self.service.get("/a.json", accept_encoding="br")
        until(
            lambda: self.value("livestate_responses_total", path="/a.json", code="200", coding="br"),
            "the response is counted",
        )
        text = get(self.service.admin, "/metrics").body.decode()
        self.assertEqual(promtool("check", "metrics", stdin=text.encode()), (0, ""))

    def test_every_metric_is_described(self):
        """docs/metrics.md lists exactly the metrics that are exported, with their types."""
        text = get(self.service.admin, "/metrics").body.decode()
        described = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
        self.assertEqual(set(described), set(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)))

    def test_rules_and_dashboard_use_exported_metrics(self):
        """Each metric that an alert, its tests or a panel uses is exported."""
        names = {name for name, *_ in exported(self.service)}
        # Metrics without label values yet have no samples, but are announced.
        names |= set(re.findall(r"^# TYPE (\S+)", get(self.service.admin, "/metrics").body.decode(), re.MULTILINE))
        used = {
            "rules": "\n".join(re.findall(r"expr: ((?:\|\n(?:          .*\n)+)|.*)", RULES.read_text())),
            "their tests": "\n".join(re.findall(r"series: (.*)", RULE_TESTS.read_text())),
            "dashboard": json.dumps(DASHBOARD),
        }
        for where, text in used.items():
            found = set(NAME.findall(text))
            self.assertGreater(len(found), 8, where)
            self.assertEqual(found - names, set(), where)

    def test_handshakes(self):
        """Connections, TLS handshakes and resumed sessions are counted."""
        before = exported(self.service)
        url = urlsplit(self.service.https)
        context = ssl.create_default_context(cafile=str(self.service.cafile))
        session = None
        for _ in range(3):
            with socket.create_connection((url.hostname, url.port or 0), timeout=10) as raw:
                with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
                    connection.sendall(b"GET /a.json HTTP/1.1\r\nHost: a\r\n\r\n")
                    connection.recv(1)
                    # In TLS 1.3, session tickets come with the first bytes.
                    session = connection.session
        after = exported(self.service)
        for name, number in (("connections_accepted", 3), ("tls_handshakes", 3), ("tls_resumptions", 2)):
            key = (f"livestate_{name}_total",)
            self.assertEqual(after[key] - before[key], number, name)

    def test_counts(self):
        """Fetches, failures, subscribers, events and delays are counted."""
        responses = {"path": "/a.json", "code": "200", "coding": "gzip"}
        client = self.service.client()
        for _ in range(4):
            client.get("/a.json", Accept_Encoding="gzip")
        until(lambda: self.value("livestate_responses_total", **responses) == 4, "the responses are counted")
        url = urlsplit(self.service.http)
        with socket.create_connection((url.hostname, url.port or 0), timeout=10) as subscriber:
            subscriber.sendall(b"GET /a.json/events HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: self.value("livestate_event_readers", path="/a.json") == 1, "the subscriber is counted")
            until(lambda: self.value("livestate_delivery_delay_seconds_count", path="/a.json"), "a change is delivered")
        now = exported(self.service)
        self.assertEqual(now["livestate_source_up", ("path", "/a.json")], 1)
        self.assertEqual(now["livestate_source_up", ("path", "/b.json")], 0)
        self.assertGreater(now["livestate_fetch_failures_total", ("path", "/b.json")], 0)
        self.assertNotIn(("livestate_document_age_seconds", ("path", "/b.json")), now)
        self.assertGreater(now["livestate_event_bytes_total", ("path", "/a.json")], 0)
        delay = now["livestate_delivery_delay_seconds_sum", ("path", "/a.json")]
        self.assertTrue(0 < delay < 60, delay)
        self.assertGreater(now["livestate_event_loop_lag_seconds_count",], 0)

    def test_page(self):
        """The status page for browsers shows why a source has no document."""
        until(lambda: self.service.status("/b.json")["trouble"], "the failure of the source")
        page = get(self.service.admin, "/status", accept="text/html,*/*;q=0.8")
        self.assertEqual(page["Content-Type"], "text/html; charset=utf-8")
        self.assertIn(b"no such file", page.body)


class RulesTests(SynchronousTestCase):
    """The alerts."""

    def test_valid(self):
        """promtool accepts the rules, and their unit tests pass."""
        for arguments in (("check", "rules", RULES), ("test", "rules", RULE_TESTS)):
            code, output = promtool(*arguments)
            self.assertEqual(code, 0, output)

    def test_each_is_tested(self):
        """The unit tests of each alert have a moment when it fires and one when it does not."""
        alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
        self.assertGreater(len(alerts), 5)
        text = RULE_TESTS.read_text()
        self.assertEqual(
            set(re.findall(r"^ +alertname: (\w+)\n +exp_alerts:\n +- exp_labels", text, re.MULTILINE)), set(alerts)
        )
        self.assertEqual(set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text)), set(alerts))


class DashboardTests(SynchronousTestCase):
    """The dashboard."""

    def test_panels(self):
        """Each panel has a unique id, a position that no other panel overlaps, and a query."""
        panels = DASHBOARD["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            position = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(position["x"], position["x"] + position["w"])
                for y in range(position["y"], position["y"] + position["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            self.assertLessEqual(position["x"] + position["w"], 24)
            self.assertTrue(panel["targets"], panel["title"])

    def test_queries(self):
        """Each query is valid, and uses only variables of the dashboard."""
        known = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
        self.assertEqual(set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - known, set())
        queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
        rules = [
            {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
            for number, query in enumerate(queries)
        ]
        path = folder_for(self) / "queries.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        code, output = promtool("check", "rules", path)
        self.assertEqual(code, 0, output)
        self.assertIn(f"SUCCESS: {len(queries)} rules found", output)
