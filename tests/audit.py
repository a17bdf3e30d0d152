"""Known vulnerabilities in what livestate is installed with: `python -m tests.audit`.

pip-audit asks the advisories of PyPI, and then of OSV for what PyPI does not tell of, about the versions that are
installed here: of what livestate and its extras need, not of the tools of its tests. A finding ends with 1. An advisory
service that cannot be reached says nothing about livestate: that is printed, and ends with 0.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: What is installed with livestate: for its own sake, and with each extra that a user may ask for.
ROOT = "livestate[mongodb,websocket]"

#: Findings that do not matter here, by the advisory's name, each with the reason.
EXPLAINED: dict[str, str] = {}

#: Seconds that one service is given.
TIMEOUT = 30


def installed(root: str) -> dict[str, str]:
    """Give the versions of all packages that `root` needs here, by name, itself left out."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
            needs = [Requirement(text) for text in requires(name) or []]
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    found.pop(canonicalize_name(Requirement(root).name), None)
    return found


def asked(service: str, packages: dict[str, str]) -> list[dict[str, Any]]:
    """Give what pip-audit says of each package; of none, where the service cannot be reached."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={number}\n" for name, number in sorted(packages.items()))
        file.flush()
        arguments = ["--requirement", file.name, "--no-deps", "--disable-pip", "--vulnerability-service", service,
                     "--format=json", "--progress-spinner=off", "--timeout=10"]  # fmt: skip
        try:
            ran = subprocess.run(
                [sys.executable, "-m", "pip_audit", *arguments],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
            dependencies: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
        except subprocess.TimeoutExpired:
            print(f"{service}: no answer within {TIMEOUT} s")
            return []
        except ValueError:
            print(f"{service}: {(ran.stderr.strip().splitlines() or ['nothing said'])[-1]}")
            return []
    return dependencies


def report(packages: Iterable[str], answers: Iterable[dict[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Give the findings, those that are explained, and the packages that nothing is known of."""
    findings, explained, unknown = [], [], set(packages)
    for answer in answers:
        if "skip_reason" in answer:
            continue
        unknown.discard(canonicalize_name(answer["name"]))
        for found in answer["vulns"]:
            names = [found["id"], *found.get("aliases", [])]
            line = f"{answer['name']} {answer['version']}: {', '.join(names)}"
            reason = next((EXPLAINED[name] for name in names if name in EXPLAINED), None)
            if reason is None:
                findings.append(f"{line}; mended in {', '.join(found['fix_versions']) or 'no version yet'}")
            else:
                explained.append(f"{line}: {reason}")
    return findings, explained, sorted(unknown)


def main() -> int:
    """Ask, and say what came of it."""
    packages = installed(ROOT)
    answers = asked("pypi", packages)
    unknown = report(packages, answers)[2]
    if unknown:
        answers += asked("osv", {name: packages[name] for name in unknown})
    findings, explained, unknown = report(packages, answers)
    for line in explained:
        print(f"explained: {line}")
    for line in findings:
        print(f"VULNERABLE: {line}")
    if unknown:
        print(f"NOT AUDITED, since no advisory service told of them: {', '.join(unknown)}")
    print(f"{len(packages) - len(unknown)} of {len(packages)} packages audited, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
