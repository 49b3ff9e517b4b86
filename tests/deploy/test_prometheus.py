"""Rules, budgets and alerts: the programs accept them, their own tests pass, and each has a page in the runbook."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import PROMETHEUS, ROOT, debian

FILES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yaml"))
RULES = [
    rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
]  # fmt: skip
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TOLD = {"summary", "description", "usd_per_day", "query_url", "runbook_url"}


def accepted(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- Rules --------------------------------------------------------------------------------------------------


@pytest.mark.verifies("Prometheus configurations")
@pytest.mark.server
def test_prometheus_accepts_its_configuration() -> None:
    said = accepted(debian("promtool"), "check", "config", "prometheus.yaml")
    assert "SUCCESS: 5 rule files found" in said
    found = sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", said)))
    assert found == len(RULES)


@pytest.mark.verifies("files of promtool tests")
@pytest.mark.server
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file: Path) -> None:
    """Their own unit tests, by promtool."""
    assert "SUCCESS" in accepted(debian("promtool"), "test", "rules", file)


def test_every_alert_has_a_test() -> None:
    tested = {
        case["alertname"]: bool(case["exp_alerts"])
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in sorted(test["alert_rule_test"], key=lambda case: bool(case["exp_alerts"]))
    }
    assert tested == dict.fromkeys(ALERTS, True)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_whom_it_concerns_and_what_to_do(name: str) -> None:
    """Labels to route by, USD a day, a query to begin with, and a page in the runbook that is there."""
    alert = ALERTS[name]
    assert set(alert["labels"]) == {"severity", "team", "route"}
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert set(alert["annotations"]) == TOLD
    assert alert["annotations"]["query_url"].startswith("{{ $externalURL }}{{ printf ")
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert path.endswith("/docs/runbook.md")
    assert anchor == name.lower()
    assert f"\n## {name}\n" in (ROOT / "docs" / "runbook.md").read_text()


def test_the_runbook_has_no_page_too_many() -> None:
    pages = re.findall(r"^## (PromptCache\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(pages) == sorted(ALERTS)


# --- Budgets ------------------------------------------------------------------------------------------------


def budgets(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROMETHEUS / "budgets.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_rules_of_budgets_are_those_of_the_file() -> None:
    assert budgets("--check").returncode == 0


def test_budgets_become_constants(tmp_path: Path) -> None:
    """One series a team; without a team's label for what nobody claims; written anew when they change."""
    file, output = tmp_path / "budgets.yaml", tmp_path / "rules.yaml"
    file.write_text("teams: {search: 1200.5, 7: 3}\nunattributed: 20\n")
    assert budgets(file, "--output", output, "--check").returncode == 1
    assert not output.exists()
    assert budgets(file, "--output", output).returncode == 0
    (group,) = yaml.safe_load(output.read_text())["groups"]
    assert [(rule["expr"], rule.get("labels")) for rule in group["rules"]] == [
        ("vector(1200.5)", {"promptcache_attr_team": "search"}),
        ("vector(3)", {"promptcache_attr_team": "7"}),
        ("vector(20)", None),
    ]
    assert budgets(file, "--output", output, "--check").returncode == 0
    file.write_text("teams: {search: 5}\n")
    again = budgets(file, "--output", output, "--check")
    assert again.returncode == 1
    assert "run budgets.py" in again.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teams: {search: many}", "teams.search: 'many' is no number"),
        ("teams: {search: 0}", "teams.search: 0 is no number of USD above zero"),
        ("teams: {search: .inf}", "teams.search: inf is no number"),
        ("teams: {search: true}", "teams.search: True is no number"),
        ("teams: [search]", "teams: name and USD a month"),
        ("team: {search: 5}", "has the keys teams and unattributed"),
        ("[]", "has the keys teams and unattributed"),
        ("teams: {search: 5", "expected ',' or '}'"),
    ],
)
def test_a_wrong_budget_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(text)
    done = budgets(file, "--output", tmp_path / "rules.yaml")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "rules.yaml").exists()


# --- Alertmanager -------------------------------------------------------------------------------------------


@pytest.mark.verifies("Prometheus configurations")
@pytest.mark.server
def test_alertmanager_accepts_its_configuration() -> None:
    assert "3 receivers" in accepted(debian("amtool"), "check-config", "alertmanager.yaml")


@pytest.mark.server
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"team": "search", "severity": "warning"}, "search"),
        ({"team": "support", "severity": "warning"}, "support"),
        ({"team": "platform", "severity": "warning"}, "platform"),
        ({"team": "unattributed", "severity": "warning"}, "platform"),
        ({"team": "search", "severity": "critical"}, "platform,search"),
    ],
)
def test_alerts_go_to_their_team(labels: dict[str, Any], receivers: str) -> None:
    """What is critical goes to the platform as well; so does what no team has a route for."""
    said = [f"{name}={value}" for name, value in labels.items()]
    command = (debian("amtool"), "config", "routes", "test", "--config.file=alertmanager.yaml", *said)
    assert accepted(*command).strip() == receivers


def test_every_team_with_a_budget_has_a_receiver() -> None:
    teams = yaml.safe_load((PROMETHEUS / "budgets.yaml").read_text())["teams"]
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())
    assert {receiver["name"] for receiver in config["receivers"]} == {*teams, "platform"}
