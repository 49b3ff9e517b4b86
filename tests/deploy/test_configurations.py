"""Everything under deploy/, run: the programs accept it, and what an application sends arrives where people look."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anthropic
import promql_parser
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from servers import (
    COMPOSE,
    ROOT,
    Collector,
    Jaeger,
    Prometheus,
    Span,
    built,
    collector,
    debian,
    jaeger,
    prometheus,
    prometheus_config,
    until,
)
from servers.application import Clients, Observed, message, observed, provider, text

from otel_promptcache import attribute, route

DEPLOY = COMPOSE.parent
DASHBOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "promptcache.json").read_text())
STACK = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def filled_in(expression: str) -> str:
    """An expression as Grafana sends it: every filter at *All*, a range of a minute, rates over ten seconds."""
    values = {"$__rate_interval": "10s", "$__range": "1m", "$service": ".*", "$route": ".*", "$team": ".*"}
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    return expression


def accepted(*command: str | Path) -> str:
    """The output of a command that has to succeed, run where the shipped files are."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- The files themselves -----------------------------------------------------------------------------------


@pytest.mark.server
def test_the_collector_accepts_its_configuration() -> None:
    """Every file that has receivers and a service is one; Jaeger's is built of the same parts, but of its own."""
    configurations = [
        path
        for path in DEPLOY.rglob("*.yaml")
        if {"receivers", "service"} <= set(yaml.safe_load(path.read_text()) or {})
    ]
    assert sorted(path.name for path in configurations) == ["jaeger.yaml", "otel-collector.yaml"]
    accepted(built("collector"), "validate", f"--config={COMPOSE / 'otel-collector.yaml'}")
    accepted(built("jaeger"), "validate", "--config", COMPOSE / "jaeger.yaml")


@pytest.mark.server
def test_a_wrong_configuration_is_not_accepted(tmp_path: Path) -> None:
    """That validation means something."""
    config = yaml.safe_load((COMPOSE / "otel-collector.yaml").read_text())
    config["exporters"]["prometheus"]["no_such_setting"] = True
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [built("collector"), "validate", f"--config={tmp_path / 'wrong.yaml'}"], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"no_such_setting" in done.stderr


@pytest.mark.server
def test_prometheus_accepts_its_configuration() -> None:
    program = debian("promtool")
    assert "SUCCESS: 1 rule files found" in accepted(program, "check", "config", "prometheus.yaml")
    assert "SUCCESS: 4 rules found" in accepted(program, "check", "rules", "alerts.yaml")


@pytest.mark.server
def test_alerts_fire_when_they_should() -> None:
    """Their own unit tests, by promtool."""
    assert "SUCCESS" in accepted(debian("promtool"), "test", "rules", "alerts_test.yaml")


def test_every_alert_has_a_place_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    rules = yaml.safe_load((COMPOSE / "alerts.yaml").read_text())["groups"][0]["rules"]
    alerts = {rule["alert"]: rule["annotations"] for rule in rules if "alert" in rule}
    assert set(alerts) == {"PromptCacheHitRateDrop", "PromptCacheUnreadWrites"}
    for name, said in alerts.items():
        path, _, anchor = said["runbook_url"].partition("#")
        assert path.endswith("/docs/runbook.md")
        assert anchor == name.lower()
        assert f"## {name}\n" in runbook


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses(expression: str) -> None:
    """With its types: a rate of no range, or a sum of a range, is refused."""
    assert "$" not in filled_in(expression)
    promql_parser.parse(filled_in(expression))


def test_every_panel_asks_something() -> None:
    assert sorted(PANELS) == [
        "Calls",
        "Cost",
        "Cost by class and saving",
        "Hit rate",
        "Hit rate by route",
        "Lost",
        "Lost by reason",
        "Saving",
        "Time to first chunk by status",
        "Tokens by class",
    ]
    assert all(panel["targets"] for panel in PANELS.values())


# --- compose.yaml -------------------------------------------------------------------------------------------


def test_ports_are_on_loopback_only() -> None:
    published = [port for service in STACK["services"].values() for port in service.get("ports", ())]
    assert len(published) == 6
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published)


def test_images_are_pinned() -> None:
    """To a release: never ``latest``, never a moving ``v3``."""
    for service in STACK["services"].values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), service["image"]


def test_images_are_of_the_versions_that_are_tested() -> None:
    for script, service in (("build-collector.sh", "otel-collector"), ("build-jaeger.sh", "jaeger")):
        (version,) = re.findall(r"^version=(\S+)$", (ROOT / "scripts" / script).read_text(), re.MULTILINE)
        assert STACK["services"][service]["image"].endswith(f":{version}")
    builder = yaml.safe_load((DEPLOY / "collector" / "builder.yaml").read_text())
    collector_version = STACK["services"]["otel-collector"]["image"].rpartition(":")[2]
    for kind in ("receivers", "processors", "exporters"):
        assert all(part["gomod"].endswith(f" v{collector_version}") for part in builder[kind])


def test_every_mounted_file_exists() -> None:
    for service in STACK["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert volume.endswith(":ro")
                assert (COMPOSE / source).exists(), source
            else:
                assert source in STACK["volumes"]


def test_the_services_find_each_other() -> None:
    """Names and ports in one file are those of another."""
    services = STACK["services"]
    of = {name: service.get("environment", {}) for name, service in services.items()}
    assert of["otel-collector"]["JAEGER_ENDPOINT"] == "jaeger:4317"
    assert of["jaeger"]["JAEGER_OTLP_ENDPOINT"].endswith(":4317")
    (job,) = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["otel-collector:8889"]}]
    assert of["otel-collector"]["METRICS_ENDPOINT"].endswith(":8889")
    provisioning = COMPOSE / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "datasources.yaml").read_text())["datasources"]
    assert {source["uid"]: source["url"] for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "jaeger": "http://jaeger:16686",
    }
    chosen = next(one for one in DASHBOARD["templating"]["list"] if one["name"] == "datasource")
    assert chosen["current"]["value"] == "prometheus"
    (dashboards,) = yaml.safe_load((provisioning / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert dashboards["options"]["path"] in mounted
    home = Path(of["grafana"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (COMPOSE / "grafana" / "dashboards" / home.name).exists()
    assert str(home.parent) == dashboards["options"]["path"]


# --- An application behind it all ---------------------------------------------------------------------------


@dataclass
class Stack:
    """Everything running, after an application has sent what it had to say."""

    prometheus: Prometheus
    jaeger: Jaeger
    collector: Collector
    calls: int


def conversation(clients: Clients, *turns: str) -> None:
    """A call with a breakpoint behind the system prompt and one behind the last turn."""
    asked = message(text(2000, "sys"), *turns)
    asked["messages"][-1]["content"] = [
        {"type": "text", "text": turns[-1], "cache_control": {"type": "ephemeral"}},
    ]
    clients.anthropic.messages.create(**asked)


def everything(clients: Clients, name: str) -> None:
    """Ten calls: cold, hit, miss, partial, streams, errors, without usage, without price, of both SDKs."""
    create = clients.anthropic.messages.create
    with route("/chat"), attribute(team="search", feature="answers"):
        for first in ("one", "one", name):
            create(**message(f"{first}\n" + text(1999), text(10)))
        for _ in create(**message(text(1500, name), text(10), stream=True)):
            pass
    with route("/agent"), attribute(team="support"):
        conversation(clients, text(300, "ask"), text(300, "say"), text(300, name))
        conversation(clients, text(400, name), text(300, "say"), text(300, name))
    with route("/summary"):
        with pytest.raises(anthropic.InternalServerError):
            create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"})
        create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"})
        create(**message(text(2000), text(10), model="claude-of-tomorrow"))
        clients.openai.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": text(2560)}])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Jaeger, the Collector and Prometheus as they are shipped, and two rounds of calls a few scrapes apart."""
    folder = tmp_path_factory.mktemp("stack")
    with (
        jaeger(folder) as tracing,
        collector(folder, tracing.endpoint) as collecting,
        prometheus(prometheus_config([collecting.metrics]), folder) as scraping,
        provider() as emulated,
    ):
        metrics = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=collecting.grpc, insecure=True), export_interval_millis=3_600_000
        )
        spans = BatchSpanProcessor(OTLPSpanExporter(endpoint=collecting.grpc, insecure=True))
        logs = BatchLogRecordProcessor(OTLPLogExporter(endpoint=collecting.grpc, insecure=True))
        clients = Clients(emulated.url)
        with observed(
            readers=[metrics],
            span_processors=[spans],
            log_processors=[logs],
            service="shop",
            ledger="true",
            token_usage_metric="true",
        ) as seen:
            for count, name in ((10, "two"), (20, "six")):
                everything(clients, name)
                _exported(seen, metrics, scraping, count)
            seen.observer.clock = lambda: time.time() + 301  # what was written for five minutes is gone
            seen.observer.trouble("test", ValueError())
            seen.settle()
            for part in (metrics, spans, logs):
                assert part.force_flush()
        clients.close()
        until(lambda: scraping.query("promptcache_write_unread_cost_USD_total"))
        until(lambda: len(collecting.ledger_events()) >= 20)
        until(lambda: tracing.find("shop", promptcache__status="miss"))
        yield Stack(scraping, tracing, collecting, 20)


def _exported(seen: Observed, metrics: PeriodicExportingMetricReader, scraping: Prometheus, count: int) -> None:
    seen.settle()
    assert metrics.force_flush()
    until(lambda: [value for _, value in scraping.query("sum(promptcache_calls_total)") if value == count])


@pytest.mark.server
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_finds_data(stack: Stack, expression: str) -> None:
    """In a Prometheus that scrapes the Collector: series, and numbers in them (0 / 0 where a call had no usage)."""
    found = stack.prometheus.query(filled_in(expression))
    assert any(math.isfinite(value) for _, value in found)


@pytest.mark.server
def test_panels_say_what_happened(stack: Stack) -> None:
    """Both statuses of streams, all reasons, four classes of money, three routes."""

    def labels(panel: str, label: str, index: int = 0) -> set[str]:
        found = stack.prometheus.query(filled_in(PANELS[panel]["targets"][index]["expr"]))
        return {one.get(label, "") for one, _ in found}

    assert labels("Hit rate by route", "promptcache_route") == {"/chat", "/agent", "/summary"}
    assert labels("Cost by class and saving", "promptcache_cost_class") == {"read", "write", "uncached", "output"}
    assert labels("Lost by reason", "promptcache_reason") == {"system_changed", "messages_changed"}
    assert "cold" in labels("Time to first chunk by status", "promptcache_status")
    assert labels("Calls", "gen_ai_request_model") == {"claude-sonnet-4-6", "claude-of-tomorrow", "gpt-4.1-mini"}


@pytest.mark.server
def test_time_to_first_chunk_is_told_in_fractions_of_a_second(stack: Stack) -> None:
    """An emulated answer begins within 100 ms: the buckets must be fine enough to show it."""
    expression = filled_in(PANELS["Time to first chunk by status"]["targets"][0]["expr"])
    assert all(0 < value < 0.32 for _, value in stack.prometheus.query(expression))


@pytest.mark.server
def test_filters_offer_what_is_there(stack: Stack) -> None:
    """The variables of the dashboard, by their own queries."""
    offered = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found = stack.prometheus.query(f'group by ({label}) ({metric}{{{label}!=""}})')
            offered[variable["name"]] = sorted(labels[label] for labels, _ in found)
    assert offered == {
        "service": ["shop"],
        "route": ["/agent", "/chat", "/summary"],
        "team": ["search", "support"],
    }


@pytest.mark.server
def test_the_names_in_the_readme_are_the_names_in_prometheus(stack: Stack) -> None:
    """Row by row of its table; and nothing else of ours is there."""
    readme = (DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| `((?:gen_ai|promptcache)\.[\w.]+)` \| `([\w{},]+)` \|$", readme, re.MULTILINE)
    documented = set()
    for _, name in rows:
        stem, _, endings = name.partition("{")
        documented |= {stem + ending for ending in endings.rstrip("}").split(",")} if endings else {name}
    found = stack.prometheus.query('group by (__name__) ({__name__=~"promptcache_.+|gen_ai_.+"})')
    names = {labels["__name__"] for labels, _ in found}
    opted_in = {f"gen_ai_client_token_usage_{ending}" for ending in ("bucket", "count", "sum")}
    assert names == documented | opted_in


@pytest.mark.server
def test_rules_are_evaluated(stack: Stack) -> None:
    """Both recorded rates and both alerts, without an error, on the series that are there."""
    until(lambda: all(rule["health"] != "unknown" for rule in stack.prometheus.rules().values()))
    rules = stack.prometheus.rules()
    assert {name: (rule["health"], rule.get("lastError")) for name, rule in rules.items()} == {
        "route:promptcache_hit_ratio:1h": ("ok", None),
        "route:promptcache_hit_ratio:1d_before": ("ok", None),
        "PromptCacheHitRateDrop": ("ok", None),
        "PromptCacheUnreadWrites": ("ok", None),
    }
    recorded = stack.prometheus.query("route:promptcache_hit_ratio:1h")
    assert {labels["promptcache_route"] for labels, _ in recorded} == {"/chat", "/agent", "/summary"}
    assert {labels["service_name"] for labels, _ in recorded} == {"shop"}


@pytest.mark.server
def test_the_ledger_is_a_file(stack: Stack) -> None:
    """One record a call; an application's own logs do not get into it."""
    events = stack.collector.ledger_events()
    assert [event["eventName"] for event in events] == ["promptcache.call"] * stack.calls


# --- Traces -------------------------------------------------------------------------------------------------


def the_miss(stack: Stack) -> tuple[Span, list[Span]]:
    found = stack.jaeger.find("shop", promptcache__reason="system_changed", promptcache__route="/chat")
    misses = [span for span in found if span.tags.get("promptcache.reason") == "system_changed"]
    assert len(misses) == 2
    return misses[0], stack.jaeger.find("shop", promptcache__route="/chat")


@pytest.mark.server
def test_a_miss_is_found_by_its_tags(stack: Stack) -> None:
    """As the runbook says: by status, reason and route; with place, cause and loss."""
    miss, _ = the_miss(stack)
    assert miss.name == "chat claude-sonnet-4-6"
    told = {
        "promptcache.status": "miss",
        "promptcache.path": "system[0]",
        "promptcache.cause": "edited",
        "promptcache.line": 1,
        "promptcache.lost.tokens": 2000,
        "promptcache.attr.team": "search",
        "gen_ai.usage.input_tokens": 2010,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_write.input_tokens": 2000,
        "span.kind": "client",
    }
    assert {name: miss.tags[name] for name in told} == told
    assert miss.tags["promptcache.lost.usd"] == pytest.approx(2000 * (3.75e-6 - 0.3e-6))
    assert miss.tags["promptcache.cost.total"] == pytest.approx(2000 * 3.75e-6 + 10 * 3e-6 + 50 * 15e-6)


@pytest.mark.server
def test_a_miss_links_to_what_it_should_have_matched(stack: Stack) -> None:
    """The link survives the whole way, and leads to a call of the same route with the other first line."""
    miss, others = the_miss(stack)
    ((_, trace_id, span_id),) = miss.references
    (target,) = (span for span in others if (span.trace_id, span.span_id) == (trace_id, span_id))
    assert target.tags["promptcache.status"] == "hit"
    assert target.tags["promptcache.prefix.id"] != miss.tags["promptcache.prefix.id"]


@pytest.mark.server
def test_errors_are_errors(stack: Stack) -> None:
    found = stack.jaeger.find("shop", error__type="api_error")
    assert [(span.tags["otel.status_code"], span.tags["error"]) for span in found] == [("ERROR", True)] * 2
    assert all("promptcache.status" not in span.tags for span in found)


@pytest.mark.server
def test_a_trace_is_found_from_its_ledger_record(stack: Stack) -> None:
    """The ids in the ledger are those in Jaeger."""
    (record, *_) = [event for event in stack.collector.ledger_events() if event.get("promptcache.status") == "partial"]
    (span,) = stack.jaeger.find("shop", gen_ai__response__id=record["gen_ai.response.id"])
    assert (span.trace_id, span.span_id) == (record["traceId"], record["spanId"])
    assert span.tags["promptcache.reason"] == record["promptcache.reason"] == "messages_changed"
