"""Everything under deploy/, run: the programs accept it, and what an application sends arrives where people look."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from servers import COMPOSE, DEPLOY, ROOT, Span, built
from servers.stack import Stack  # noqa: TC002 - pytest reads it

pytestmark = pytest.mark.xdist_group("stack")  # one stack, however many workers there are
PROVISIONING = DEPLOY / "grafana" / "provisioning"
STACK = yaml.safe_load((COMPOSE / "compose.yaml").read_text())


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
    shipped = ["agent.yaml", "gateway.yaml", "jaeger.yaml", "otel-collector.yaml"]  # the first two: test_collector.py
    assert sorted(path.name for path in configurations) == shipped
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


# --- compose.yaml -------------------------------------------------------------------------------------------


def test_ports_are_on_loopback_only() -> None:
    published = [port for service in STACK["services"].values() for port in service.get("ports", ())]
    assert len(published) == 7
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
    others = {
        part["gomod"].split("/")[-1]
        for kind in ("extensions", "receivers", "processors", "exporters", "connectors")
        for part in builder[kind]
        if not part["gomod"].endswith(f" v{collector_version}")
    }
    assert others == {"clickhouseexporter v0.157.0", "signaltometricsconnector v0.156.0"}


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
    scraping = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = scraping["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["otel-collector:8889"]}]
    assert of["otel-collector"]["METRICS_ENDPOINT"].endswith(":8889")
    (alerting,) = scraping["alerting"]["alertmanagers"]
    assert alerting["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert services["alertmanager"]["ports"] == ["127.0.0.1:9093:9093"]
    (dashboards,) = yaml.safe_load((PROVISIONING / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert dashboards["options"]["path"] in mounted
    home = Path(of["grafana"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / "grafana" / "dashboards" / home.name).exists()
    assert str(home.parent) == dashboards["options"]["path"]


def test_data_sources_are_those_of_the_stack() -> None:
    """Traces of exemplars are looked for where there are any; Tempo and ClickHouse are the reader's own."""
    sources = yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())["datasources"]
    assert {source["uid"]: source.get("url") for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "jaeger": "http://jaeger:16686",
        "tempo": "http://tempo:3200",
        "clickhouse": None,
    }
    destinations = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert {one["datasourceUid"] for one in destinations} == {"jaeger", "tempo"}
    (features,) = (one for one in STACK["services"]["prometheus"]["command"] if one.startswith("--enable-feature="))
    assert "exemplar-storage" in features


# --- An application behind it all ---------------------------------------------------------------------------


@pytest.mark.server
def test_the_names_in_the_readme_are_the_names_in_prometheus(stack: Stack) -> None:
    """Row by row of its table; and nothing else of ours is there."""
    readme = (DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| `((?:gen_ai|promptcache)\.[\w.]+)` \| `([\w{},]+)` \|$", readme, re.MULTILINE)
    documented = set()
    for _, name in rows:
        stem, _, endings = name.partition("{")
        documented |= {stem + ending for ending in endings.rstrip("}").split(",")} if endings else {name}
    found = stack.found('group by (__name__) ({__name__=~"promptcache_.+|gen_ai_.+"})')
    names = {labels["__name__"] for labels, _ in found}
    opted_in = {f"gen_ai_client_token_usage_{ending}" for ending in ("bucket", "count", "sum")}
    assert names == documented | opted_in


@pytest.mark.server
def test_the_ledger_is_a_file(stack: Stack) -> None:
    """One record a call, with the journal and advice beside them; an application's own logs do not get into it."""
    events = stack.collector.ledger_events()
    of_shop = [event["eventName"] for event in events if event["service.name"] == "shop"]
    assert of_shop.count("promptcache.call") == stack.calls
    known = {"promptcache.call", "promptcache.prefix.changed", "promptcache.advice"}
    assert {event["eventName"] for event in events} <= known


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
