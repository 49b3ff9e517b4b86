"""Alerts as their readers meet them: processes of an application, a Collector, Prometheus, Alertmanager, a webhook.

The rules are the shipped ones with a shorter time: an hour is half a minute, two hundred calls are forty, and a month
has half of its days before it. Whether the true hours, numbers and months are right is what promtool tests. Everything
fires, reaches its team, and ends when its cause does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import (
    HOST,
    PROMETHEUS,
    Collector,
    Prometheus,
    Sample,
    alertmanager,
    collector,
    prometheus,
    prometheus_config,
    until,
    until_empty,
)
from servers.application import provider

pytestmark = pytest.mark.xdist_group("alerts")  # one story, however many workers there are
FASTER = 120
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONG = 600.0
"""Seconds in which an alert has to come or go, on a machine that does other things too."""
FILES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
INSTEAD = {
    # On the last evening of a month nothing is left that a forecast could add, and at midnight a month begins.
    "(days_in_month(vector(time())) - day_of_month(vector(time())) + 1) - (vector(time() % 86400) / 86400)": (
        "vector(15)"
    ),
    "(month(vector(time() - 1)) == month(last_over_time(vector(time())[5m:1m] @ end())))": "vector(1)",
    # A fifth of the calls, tokens and USD: a busy machine makes no more in half a minute.
    ">= 20": ">= 4",
    ">= 100": ">= 20",
    ">= 200": ">= 40",
    "> 200000": "> 40000",
    ") > 1\n)\nunless": ") > 0.2\n)\nunless",
}
"""What stands in the shipped rules, and what instead of it in those of a time that runs faster."""


# --- Time that runs faster ----------------------------------------------------------------------------------


def faster(duration: str) -> str:
    return f"{int(duration[:-1]) * SECONDS[duration[-1]] * 1000 // FASTER}ms"


def hurried(expression: str) -> str:
    """An expression whose ranges and offsets are shorter, in the middle of a month, and content with fewer calls."""
    shipped = rf"({'|'.join(map(re.escape, INSTEAD))})(?!\d)"
    found = re.sub(shipped, lambda one: INSTEAD[one[0]], expression)
    found = re.sub(r"offset (\d+[smhdw])", lambda one: f"offset {faster(one[1])}", found)
    found = re.sub(r"\[(\d+[smhdw])\]", lambda one: f"[{faster(one[1])}]", found)
    return re.sub(r"\[(\d+[smhdw]):(\d+[smhdw])\]", lambda one: f"[{faster(one[1])}:{faster(one[2])}]", found)


def hurried_rules(folder: Path) -> list[str]:
    """The shipped rules, in a folder, for a time that runs faster; without budgets."""
    paths = []
    for file in FILES:
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule["expr"] = hurried(rule["expr"])
                if "for" in rule:
                    rule["for"] = faster(rule["for"])
        if file.name != "budgets.yaml":
            (folder / file.name).write_text(yaml.safe_dump(rules))
        paths.append(str(folder / file.name))
    return paths


def set_budgets(folder: Path, usd: Mapping[str, float]) -> None:
    """As deploy/README.md says: the YAML, then the script."""
    file = folder / "budgets.wanted"
    file.write_text(yaml.safe_dump({"teams": dict(usd)}))
    command = [sys.executable, PROMETHEUS / "budgets.py", file, "--output", folder / "budgets.yaml"]
    subprocess.run(command, check=True)


def test_every_duration_is_hurried() -> None:
    """None is left as it was: all rules are as fast as each other."""
    said = "rate(a:b:1h[5m]) > avg_over_time(c:1w[1w:1h] offset 1d)"
    assert hurried(said) == "rate(a:b:1h[2500ms]) > avg_over_time(c:1w[5040000ms:30000ms] offset 720000ms)"
    for file in FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                assert not re.findall(r"offset \d+[mhdw]\b|\[\d+[mhdw][\]:]", hurried(rule["expr"]))
                assert not re.findall(r"month\(|>= \d{3}|> \d{6}", hurried(rule["expr"]))


def test_what_stands_for_something_else_is_in_the_rules() -> None:
    rules = [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    for shipped in INSTEAD:
        assert any(shipped in rule["expr"] for rule in rules), shipped


# --- Those who hear -----------------------------------------------------------------------------------------


@dataclass
class Readers:
    """Webhooks of teams: what each was told."""

    url: str
    heard: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def alerts(self, status: str) -> dict[str, list[dict[str, Any]]]:
        """Every alert of a status, by name, with its receiver."""
        found = defaultdict(list)
        for receiver, messages in list(self.heard.items()):
            for message in messages:
                for alert in message["alerts"]:
                    if alert["status"] == status:
                        found[alert["labels"]["alertname"]].append(alert | {"receiver": receiver})
        return found


@contextmanager
def listening() -> Iterator[Readers]:
    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            readers.heard[self.path.strip("/")].append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Is quiet."""

    server = ThreadingHTTPServer((HOST, 0), Webhook)
    readers = Readers(f"http://{HOST}:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield readers
    finally:
        server.shutdown()
        server.server_close()


def routing(readers: Readers) -> dict[str, Any]:
    """The sample configuration, with other addresses and without the wait."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())
    config["route"] |= {"group_wait": "200ms", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = f"{readers.url}/{receiver['name']}"
    return config


# --- Those who call -----------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A process of an application."""

    running: subprocess.Popen[str]

    def tell(self, kind: str) -> None:
        assert self.running.stdin is not None
        print(kind, file=self.running.stdin, flush=True)

    def stop(self) -> None:
        """Lets it end by itself, so that what it counted is sent."""
        assert self.running.stdin is not None
        self.running.stdin.close()
        try:
            self.running.wait(60)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()


@dataclass
class Scene:
    """A provider, a Collector, a Prometheus that alerts, and who hears of it."""

    provider: str
    collector: Collector
    prometheus: Prometheus
    readers: Readers
    folder: Path
    stack: ExitStack

    def start(self, service: str, version: str, team: str, key: str) -> Worker:
        """A process started as any other: by the launcher, configured by its environment alone."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "OTEL_SERVICE_NAME": service,
            "OTEL_RESOURCE_ATTRIBUTES": f"service.version={version},service.instance.id={service}-{version}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.grpc,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PROMPTCACHE_HASH_KEY": key,
            "OTEL_PROMPTCACHE_BUDGET_MS": "0",
        }
        launcher = Path(sys.executable).with_name("opentelemetry-instrument")
        command = [launcher, sys.executable, Path(__file__).with_name("worker.py"), self.provider, team]
        log = self.stack.enter_context((self.folder / f"{service}-{version}.log").open("w"))
        running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
        )
        worker = Worker(running)
        self.stack.callback(worker.stop)
        return worker

    def lately(self, name: str) -> list[Sample]:
        """What a recorded series has been, if only for a while."""
        return self.prometheus.query(f"last_over_time({name}[10m])")

    def counts(self, expression: str, at_least: float) -> None:
        until(lambda: [value for _, value in self.prometheus.query(expression) if value >= at_least], LONG)


@contextmanager
def staged(folder: Path) -> Iterator[Scene]:
    with (
        listening() as readers,
        alertmanager(routing(readers), folder) as alerting,
        collector(folder, "", "exporters::prometheus::metric_expiration: 8s") as collecting,
        provider() as emulated,
        ExitStack() as stack,
    ):
        config = prometheus_config([collecting.metrics])
        config["rule_files"] = hurried_rules(folder)
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alerting]}]}]}
        set_budgets(folder, {"search": 0.01, "support": 5})
        with prometheus(config, folder) as scraping:
            yield Scene(emulated.url, collecting, scraping, readers, folder, stack)


# --- The story ----------------------------------------------------------------------------------------------

OF_SEARCH = {
    "PromptCacheHitRateDrop": "/chat",
    "PromptCacheUnreadWrites": "/chat",
    "PromptCacheLossAfterDeploy": "/chat",
    "PromptCacheUnpricedCalls": "/chat",
    "PromptCacheUsageMissing": "/summary",
}
"""Alerts of the new version's routes."""
EVERYTHING = {
    **{name: ("search", route, "warning", {"search"}) for name, route in OF_SEARCH.items()},
    "PromptCacheBudgetSpent": ("search", "all", "critical", {"search", "platform"}),
    "PromptCacheBudgetForecast": ("support", "all", "warning", {"support"}),
    "PromptCacheTelemetryAbsent": ("support", "all", "critical", {"support", "platform"}),
    "PromptCacheKeyMismatch": ("platform", "all", "warning", {"platform"}),
    "PromptCacheOverhead": ("platform", "all", "warning", {"platform"}),
}
"""Of each alert: team, route, severity, and who hears of it."""
DUE = {
    (name, team, route, receiver) for name, (team, route, _, receivers) in EVERYTHING.items() for receiver in receivers
}
WHOSE = ("alertname", "team", "route")
FREE = {"PromptCacheOverhead"}
"""No provider's money."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, dict[str, Any]]]:
    """Version 1 runs well; version 2 is rolled out and is broken in every way; another service falls silent."""
    with staged(tmp_path_factory.mktemp("alerts")) as scene:
        night = scene.start("night", "1", "support", "one")
        first = scene.start("shop", "1", "search", "one")
        for worker in (night, first):
            worker.tell("steady")
        scene.counts('service_team:promptcache_calls:increase1h{service_name="night"}', 60)
        night.stop()
        # A half hour of version 1 that is an hour ago when version 2 has run for as long.
        before = "sum(version:promptcache_calls:increase30m{service_name='shop'} offset 30s)"
        scene.counts(before, 60)
        second = scene.start("shop", "2", "search", "two")
        second.tell("broken")
        scene.counts('sum(promptcache_calls_total{service_instance_id="shop-2"})', 1)
        first.tell("idle")
        fired: dict[str, list[dict[str, Any]]] = {}
        answers: dict[str, list[Sample]] = {}

        def left() -> set[Any]:
            """Whom nobody has told yet, and links behind which there is nothing yet: they are followed as they come."""
            fired.update(scene.readers.alerts("firing"))
            alerts = [alert for found in fired.values() for alert in found]
            heard = {(*(alert["labels"][label] for label in WHOSE), alert["receiver"]) for alert in alerts}
            links = {alert["annotations"]["query_url"] for alert in alerts}
            answers.update(
                (url, found) for url in links - answers.keys() if (found := scene.prometheus.query(asked(url)))
            )
            return (DUE - heard) | (links - answers.keys())

        until_empty(left, LONG)
        recorded = {name: until(lambda name=name: scene.lately(name), LONG) for name in records()}
        yield scene, {"fired": fired, "recorded": recorded, "workers": (first, second)}


def records() -> set[str]:
    rules = [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    return {rule["record"] for rule in rules if "record" in rule}


def asked(url: str) -> str:
    """The expression behind a link, with the shorter time."""
    (expression,) = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["g0.expr"]
    return hurried(expression)


@pytest.mark.server
@pytest.mark.slow
def test_everything_fires_and_nothing_else(story: tuple[Scene, dict[str, Any]]) -> None:
    """Each for the team that it concerns, with the labels that it is routed by."""
    _, told = story
    assert set(told["fired"]) == set(EVERYTHING)
    for name, (team, route, severity, receivers) in EVERYTHING.items():
        alerts = [alert for alert in told["fired"][name] if alert["labels"]["team"] == team]
        assert {alert["labels"]["severity"] for alert in alerts} == {severity}
        assert route in {alert["labels"]["route"] for alert in alerts}
        assert {alert["receiver"] for alert in alerts} == receivers


@pytest.mark.verifies("alerts in Alertmanager")
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYTHING)
def test_an_alert_says_what_it_costs_and_where_to_look(story: tuple[Scene, dict[str, Any]], name: str) -> None:
    """USD a day, and a link whose query finds something."""
    scene, told = story
    for alert in told["fired"][name]:
        said = alert["annotations"]
        assert (float(said["usd_per_day"]) == 0) == (name in FREE)
        assert said["query_url"].startswith(f"{scene.prometheus.url}/graph?")
        assert "{{" not in json.dumps(alert)
        assert "<no value>" not in json.dumps(alert)


@pytest.mark.verifies("recording rules with data")
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(records()))
def test_a_recorded_series_has_data(story: tuple[Scene, dict[str, Any]], name: str) -> None:
    """Also those that look back a week."""
    _, told = story
    assert told["recorded"][name]


@pytest.mark.server
@pytest.mark.slow
def test_the_deploy_is_named_with_its_reason(story: tuple[Scene, dict[str, Any]]) -> None:
    _, told = story
    found = {
        (alert["labels"]["service_version"], alert["labels"]["promptcache_reason"])
        for alert in told["fired"]["PromptCacheLossAfterDeploy"]
    }
    assert ("2", "system_changed") in found
    assert {version for version, _ in found} == {"2"}


@pytest.mark.server
@pytest.mark.slow
def test_everything_ends_with_its_cause(story: tuple[Scene, dict[str, Any]]) -> None:
    """Version 2 is rolled back, the silent service speaks again, and budgets are raised."""
    scene, told = story
    first, second = told["workers"]
    second.stop()
    first.tell("steady")
    scene.start("night", "1", "support", "one").tell("steady")
    set_budgets(scene.folder, {"search": 1e6, "support": 1e6})
    scene.prometheus.reload()
    until_empty(lambda: set(EVERYTHING) - set(scene.readers.alerts("resolved")), LONG)
    of_ours = 'ALERTS{alertstate="firing", alertname!="PromptCacheOverhead"}'  # a busy machine is a cause of that, too
    until(lambda: not scene.prometheus.query(of_ours), LONG)
