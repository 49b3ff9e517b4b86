"""Everything under deploy/, run: the programs accept it, and what an application sends arrives where people look."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from servers import COMPOSE, DEPLOY, Span, built, until_is
from servers.composed import SERVICES, hosts
from servers.stack import Stack  # noqa: TC002 - pytest reads it

pytestmark = pytest.mark.xdist_group("stack")  # one stack, however many workers there are
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def accepted(*command: str | Path) -> str:
    """The output of a command that has to succeed, run where the shipped files are."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- The files themselves -----------------------------------------------------------------------------------


@pytest.mark.verifies("Collector configurations")
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


def test_data_sources_are_those_of_the_stack() -> None:
    """Traces of exemplars are looked for where there are any; Tempo and ClickHouse are there under *full* only."""
    sources = yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())["datasources"]
    assert {source["uid"]: source.get("url") for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "jaeger": "http://jaeger:16686",
        "tempo": "http://tempo:3200",
        "clickhouse": None,
    }
    destinations = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert {one["datasourceUid"] for one in destinations} == {"jaeger", "tempo"}
    assert {urlsplit(one["url"]).hostname for one in sources if "url" in one} <= hosts("full").keys()
    assert sources[-1]["jsonData"]["host"] in hosts("full")
    (features,) = (one for one in SERVICES["prometheus"]["command"] if one.startswith("--enable-feature="))
    assert "exemplar-storage" in features


# --- An application behind it all ---------------------------------------------------------------------------


@pytest.mark.server
def test_the_names_in_the_readme_are_the_names_in_prometheus(stack: Stack) -> None:
    """Row by row of its table; and nothing else of ours is there."""
    readme = (DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| `((?:gen_ai|promptcache)\.[\w.]+)` \| `([\w{},]+)` \|$", readme, re.MULTILINE)
    documented = set(re.findall(r"^\| `(promptcache_engine_\w+)` \|", readme, re.MULTILINE))
    for _, name in rows:
        stem, _, endings = name.partition("{")
        documented |= {stem + ending for ending in endings.rstrip("}").split(",")} if endings else {name}
    opted_in = {f"gen_ai_client_token_usage_{ending}" for ending in ("bucket", "count", "sum")}
    there_are = 'group by (__name__) ({__name__=~"promptcache_.+|gen_ai_.+"})'
    until_is(lambda: {labels["__name__"] for labels, _ in stack.found(there_are)}, documented | opted_in)


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
