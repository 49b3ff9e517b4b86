"""deploy/collector, run: agents, gateways and what is behind them, with calls, foreign spans and engines in front."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest
from boards.model import QUERIES
from boards.promql import series
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HTTPSpanExporter
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from servers import HOST, Jaeger, Prometheus, built, free_ports, jaeger, prometheus, prometheus_config, until, until_is
from servers.application import Clients, message, observed, provider, text
from servers.engines import engines
from servers.estate import (
    CONFIGURATIONS,
    SCHEMA,
    ClickHouse,
    Tier,
    agent,
    clickhouse_server,
    gateway,
    listed,
    question,
)

from otel_promptcache import attribute, route, semconv

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("estate")]
SPANS = json.loads(Path(__file__).with_name("foreign_spans.json").read_text())
SHIPPED = ("agent.yaml", "gateway.yaml")
ROUNDS = 6


@pytest.mark.verifies("Collector configurations")
@pytest.mark.parametrize("name", SHIPPED)
def test_the_collector_accepts_its_configuration(name: str) -> None:
    """From the root of the repository, with no variable set."""
    command = [built("collector"), "validate", f"--config={CONFIGURATIONS / name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CONFIGURATIONS.parents[1])
    assert done.returncode == 0, done.stderr


# --- An application, an agent, two gateways -----------------------------------------------------------------


@dataclass
class Estate:
    """What is behind two gateways after an application has made its calls, and its own account of them."""

    jaeger: Jaeger
    prometheus: Prometheus
    clickhouse: ClickHouse
    ledger: list[dict[str, Any]]
    spans: list[Any]
    """Of calls, as the application ended them."""
    early: int
    """How many of them were over before the gateways gave up waiting for links."""

    def kept(self) -> set[tuple[str, str]]:
        """Trace id and span id of every span in Jaeger."""
        return {(span.trace_id, span.span_id) for span in self.jaeger.find("shop")}


def ids(span: Any) -> tuple[str, str]:
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def turn(clients: Clients, *said: str) -> None:
    """A call of a conversation, with a breakpoint behind what was said last."""
    asked = message(text(2000, "sys"), *said)
    asked["messages"][-1]["content"] = [{"type": "text", "text": said[-1], "cache_control": {"type": "ephemeral"}}]
    clients.anthropic.messages.create(**asked)


def conversation(clients: Clients, number: int) -> list[str]:
    """Three turns, each of which reads the one before; all that was said. Each call is a trace of its own."""
    said = [text(1500, word) for word in (f"a{number:02}", "say", "yes", "ans", "and")]
    for length in (1, 3, 5):
        turn(clients, *said[:length])
    return said


def edit(clients: Clients, said: list[str]) -> None:
    """A turn that finds its history rewritten: it links to the turn before, which was a hit."""
    turn(clients, f"edited {said[0]}", *said[1:], text(1500, "mor"), text(1500, "end"))


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    folder = tmp_path_factory.mktemp("estate")
    with (
        jaeger(folder) as tracing,
        clickhouse_server(folder) as tables,
        gateway(folder, "one", **(behind := behind_gateways(tracing, tables))) as one,
        gateway(folder, "two", **behind) as two,
        agent(folder, [one, two]) as front,
        prometheus(prometheus_config([one.metrics, two.metrics]), folder) as scraping,
        provider() as emulated,
    ):
        emulated.limits.enforced = False
        there: dict[str, Any] = {"endpoint": front.grpc, "insecure": True, "timeout": 60}
        metrics = PeriodicExportingMetricReader(OTLPMetricExporter(**there), export_interval_millis=3_600_000)
        spans = BatchSpanProcessor(OTLPSpanExporter(**there), schedule_delay_millis=1000)
        wires = spans, BatchLogRecordProcessor(OTLPLogExporter(**there))
        clients = Clients(emulated.url)
        sent = {"readers": [metrics], "span_processors": [wires[0]], "log_processors": [wires[1]]}
        with observed(**sent, service="shop", service_version="1", ledger="true") as seen:
            with route("/chat"), attribute(team="search"):
                for number in range(ROUNDS):
                    edit(clients, conversation(clients, number))
                forgotten = conversation(clients, ROUNDS)
                with pytest.raises(anthropic.InternalServerError):
                    clients.anthropic.messages.create(**message("", "hi"), extra_headers={"x-emulator-fault": "500"})
            seen.settle()
            early = len(seen.spans)
            assert all(wire.force_flush() for wire in (metrics, *wires))
            until(lambda: len(tables.ask("SELECT 1 FROM promptcache_calls")) == len(seen.ledger))
            decided = "processor_tail_sampling_global_count_traces_sampled"
            until(lambda: of_itself(one, decided) + of_itself(two, decided) >= early)
            with route("/chat"), attribute(team="search"):
                edit(clients, forgotten)
            seen.settle()
            assert all(wire.force_flush() for wire in (metrics, *wires))
            until(lambda: len(tables.ask("SELECT 1 FROM promptcache_calls")) == len(seen.ledger))
            total = seen.total("promptcache.calls")
            until(lambda: [one for _, one in scraping.query("sum(promptcache_calls_total)") if one == total])
            until(lambda: ids(seen.spans[-1]) in {(s.trace_id, s.span_id) for s in tracing.find("shop")})
            found = Estate(tracing, scraping, tables, seen.ledger, seen.spans, early)
        clients.close()
        yield found


LINK_WAIT = 10
"""Seconds. Spans that link to each other are sent within one second, and again after five where they were refused."""


def behind_gateways(tracing: Jaeger, tables: ClickHouse) -> dict[str, str]:
    """Nothing is kept by chance."""
    return {
        "TRACES_ENDPOINT": tracing.endpoint,
        "CLICKHOUSE_ENDPOINT": tables.url,
        "HITS_PERCENT": "0",
        "LINK_WAIT": f"{LINK_WAIT}s",
    }


def test_the_ledger_is_a_table(estate: Estate) -> None:
    """To the last digit, and a row a call; what a call did not say is null, not zero."""
    (row,) = estate.clickhouse.ask(
        "SELECT toInt64(count()) AS calls, toInt64(sum(gen_ai_usage_input_tokens)) AS input, "
        "toInt64(sum(gen_ai_usage_cache_read_input_tokens)) AS read, sum(promptcache_cost_total) AS usd, "
        "sum(promptcache_lost_usd) AS lost, toInt64(countIf(promptcache_cost_total IS NULL)) AS unpriced "
        "FROM promptcache_calls WHERE service_name = 'shop' AND service_version = '1'"
    )
    ours = estate.ledger

    def total(name: str) -> Any:
        return sum(one.get(name, 0) for one in ours)

    assert int(row["calls"]) == len(ours)
    assert int(row["input"]) == total("gen_ai.usage.input_tokens")
    assert int(row["read"]) == total("gen_ai.usage.cache_read.input_tokens") > 0
    assert row["usd"] == pytest.approx(total("promptcache.cost.total"), abs=1e-9)
    assert row["lost"] == pytest.approx(total("promptcache.lost.usd"), abs=1e-9)
    assert int(row["unpriced"]) == 1  # the call that failed


def test_every_field_has_its_column(estate: Estate) -> None:
    """Nothing of the ledger is left over in `other`, and each column says what the event said."""
    rows = {row["promptcache_call_id"]: row for row in estate.clickhouse.ask("SELECT * FROM promptcache_calls")}
    for event in estate.ledger:
        row = rows[event["promptcache.call.id"]]
        assert row["other"] == {}
        for name, value in event.items():
            found = row[name.replace(".", "_")]
            assert (type(value)(found) if not isinstance(value, bool) else found) == value, name


@pytest.mark.verifies("SQL on the tables of the real exporter")
@pytest.mark.parametrize("file", sorted(QUERIES.glob("*.sql")), ids=lambda file: file.stem)
def test_the_dashboards_questions_are_answered(estate: Estate, file: Path) -> None:
    """Every column that they ask for is in the shipped tables."""
    found = estate.clickhouse.ask(question(file, predecessor=predecessor(estate)))
    assert found or file.stem.startswith(("first_chunk", "prefix_changes"))  # no streams here, and no journal


def predecessor(estate: Estate) -> str:
    return str(estate.spans[-1].attributes["promptcache.predecessor"])


def test_the_tables_are_what_the_names_make() -> None:
    """`python deploy/clickhouse/schema.py` writes them."""
    done = subprocess.run([sys.executable, SCHEMA.with_name("schema.py"), "--check"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_what_is_sent_twice_is_there_once(estate: Estate) -> None:
    stored = "INSERT INTO promptcache_events SELECT * FROM promptcache_events"
    before = len(estate.clickhouse.ask("SELECT 1 FROM promptcache_calls_stored"))
    estate.clickhouse.ask(stored)
    assert len(estate.clickhouse.ask("SELECT 1 FROM promptcache_calls_stored")) > before
    assert len(estate.clickhouse.ask("SELECT 1 FROM promptcache_calls")) == len(estate.ledger)


def test_money_in_prometheus_is_money_in_the_ledger(estate: Estate) -> None:
    """Over two gateways: each process's counters are on one of them."""
    total = sum(one.get("promptcache.cost.total", 0) for one in estate.ledger)
    until_is(lambda: estate.prometheus.value("sum(promptcache_cost_USD_total)"), pytest.approx(total, abs=1e-6))


def test_misses_errors_and_what_they_link_to_are_kept(estate: Estate) -> None:
    """Whole, on whichever gateway; hits that nothing links to are gone, and so are the marks."""
    spans = estate.spans[: estate.early]
    wanted = {ids(span) for span in spans if span.attributes.get("promptcache.status") in ("miss", "partial")}
    links = {
        (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}")
        for span in spans
        if ids(span) in wanted
        for link in span.links
    }
    errors = {ids(span) for span in spans if span.attributes.get("error.type")}
    assert (len(wanted), len(links), len(errors)) == (ROUNDS, ROUNDS, 1)
    assert not links & wanted  # each leads to another trace
    until(lambda: wanted | links | errors <= estate.kept())
    kept = estate.kept()
    hits = {ids(span) for span in spans if span.attributes.get("promptcache.status") == "hit"}
    assert len(hits) == 3 * (ROUNDS + 1) - 1
    assert hits & kept == links
    assert kept == wanted | links | errors | {ids(estate.spans[-1])}
    assert all(span.name != "promptcache.mark" for span in estate.jaeger.find("shop"))
    print(f"links of kept misses that lead to kept spans: {len(links & kept)} of {len(links)}")


def test_a_link_further_back_than_the_wait_leads_to_the_ledger(estate: Estate) -> None:
    """What no sampler can have: the trace is gone. Its row is there."""
    late = estate.spans[-1]
    ((trace_id, span_id),) = [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in late.links]
    assert late.attributes["promptcache.predecessor"] == f"{trace_id}-{span_id}"
    assert (trace_id, span_id) not in estate.kept()
    found = estate.clickhouse.ask(
        f"SELECT promptcache_status AS status FROM promptcache_calls "
        f"WHERE trace_id = '{trace_id}' AND span_id = '{span_id}'"
    )
    assert found == [{"status": "hit"}]


# --- ClickHouse later than a gateway ------------------------------------------------------------------------


def test_a_gateway_that_started_before_its_tables_fills_them(tmp_path: Path) -> None:
    """What came meanwhile has waited, and every call is there: under its name, and with nothing left over."""
    (port,) = free_ports(1)
    soon = "exporters::clickhouse::retry_on_failure: {initial_interval: 500ms, max_interval: 1s}"
    with (
        gateway(tmp_path, "gateway", soon, CLICKHOUSE_ENDPOINT=f"http://{HOST}:{port}") as running,
        provider() as emulated,
    ):
        wire = BatchLogRecordProcessor(OTLPLogExporter(endpoint=running.grpc, insecure=True, timeout=60))
        clients = Clients(emulated.url)
        with observed(log_processors=[wire], service="early", ledger="true") as seen:

            def call() -> None:
                clients.anthropic.messages.create(**message(text(2000), text(10)))
                seen.settle()
                assert wire.force_flush()

            call()
            waiting = tmp_path / "gateway.log"
            until(lambda: "Exporting failed" in waiting.read_text())
            with clickhouse_server(tmp_path, port) as tables:
                call()
                asked = "SELECT promptcache_call_id AS id, other FROM promptcache_calls"
                until(lambda: len(tables.ask(asked)) >= 2)
                ids_of_calls = {event["promptcache.call.id"] for event in seen.ledger}
                assert {row["id"] for row in tables.ask(asked)} == ids_of_calls
                assert all(row["other"] == {} for row in tables.ask(asked))
        clients.close()


# --- Collectors that break off --------------------------------------------------------------------------------


def test_what_a_collector_has_taken_is_on_its_disk(tmp_path: Path) -> None:
    """The row of a call gets to its table by way of an agent and a gateway that are killed once they have taken it,
    each while what is behind it is not there yet."""
    gateways, table = (f"{HOST}:{port}" for port in free_ports(2))
    told = {"OTLP_GRPC_ENDPOINT": gateways, "CLICKHOUSE_ENDPOINT": f"http://{table}"}
    with agent(tmp_path, [gateways]) as front, provider() as emulated:
        wire = BatchLogRecordProcessor(OTLPLogExporter(endpoint=front.grpc, insecure=True, timeout=60))
        clients = Clients(emulated.url)
        with observed(log_processors=[wire], service="waiting", ledger="true") as seen:
            clients.anthropic.messages.create(**message(text(2000), text(10)))
            seen.settle()
            assert wire.force_flush()
        clients.close()
        os.kill(front.pid, signal.SIGKILL)
    with gateway(tmp_path, **told) as running, agent(tmp_path, [gateways]):
        until(lambda: of_itself(running, "receiver_accepted_log_records"))
        os.kill(running.pid, signal.SIGKILL)
    with clickhouse_server(tmp_path, int(table.rpartition(":")[2])) as tables, gateway(tmp_path, **told):
        asked = "SELECT promptcache_call_id AS id FROM promptcache_calls"
        found = until(lambda: tables.ask(asked))
        assert [row["id"] for row in found] == [event["promptcache.call.id"] for event in seen.ledger]


def of_itself(tier: Tier, name: str) -> float:
    """The sum of a counter that it keeps of itself, over all its labels."""
    with urllib.request.urlopen(f"http://{tier.telemetry}/metrics", timeout=60) as page:
        return sum(map(float, re.findall(rf"(?m)^otelcol_{name}\b.* (\S+)$", page.read().decode())))


# --- Other instrumentations' spans --------------------------------------------------------------------------

USAGE = "gen_ai.usage."
EXPECTED = {
    # Input, read, written, output, as the provider counted them. None: nobody has said.
    "messages": (5100, 3000, 2000, 50),
    "chat": (5000, 3000, 1500, 50),
    "responses": (5000, 3000, 1500, 50),
    "manual": (None, 3000, 2000, None),
}
WRONG = {
    # What the instrumentation itself leaves out, or counts otherwise; nobody behind it can know better.
    ("openllmetry", "chat_sync"): (5000, 3000, None, 50),
    ("openllmetry", "responses_sync"): (5000, 3000, None, 50),
    ("openllmetry", "messages_stream"): (5100, 3000, 2000, 51),
    ("traceai", "messages_sync"): (100, None, None, 50),
    ("traceai", "messages_stream"): (100, None, None, 50),
    ("traceai", "chat_sync"): (5000, None, None, 50),
    ("traceai", "responses_sync"): (5000, 3000, None, 50),
}
BY_HAND = {
    # What an application wrote, and what it comes to.
    "the API's names": (
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 3000,
            "cache_creation_input_tokens": 2000,
            "output_tokens": 50,
        },
        (5100, 3000, 2000, 50),
    ),
    "input without what is cached": (
        {"input_tokens": 100, "cache_read_tokens": 3000, "cache_write_tokens": 2000, "output_tokens": 50},
        (5100, 3000, 2000, 50),
    ),
    "input with it": (
        {"prompt_tokens": 5000, "cache_read_tokens": "3000", "completion_tokens": 50},
        (5000, 3000, 0, 50),
    ),
    "ours already": (
        {"promptcache.schema": 1, "cache_read_tokens": 3000, f"{USAGE}cache_read.input_tokens": 1},
        (None, 1, None, None),
    ),
}
RECORDED = [(name, call) for name, made in SPANS.items() for call in made]


@dataclass
class Named:
    """A gateway that foreign spans have been sent through."""

    jaeger: Jaeger
    prometheus: Prometheus

    def usage(self, service: str) -> list[tuple[int | None, ...]]:
        names = ("input_tokens", "cache_read.input_tokens", "cache_write.input_tokens", "output_tokens")
        found = until(lambda: self.jaeger.find(service))
        return [tuple(span.tags.get(USAGE + name) for name in names) for span in found]


def service_of(*words: str) -> str:
    return "-".join(words).replace(" ", "-").replace("'", "")


def emit(exporter: Any, service: str, scope: str, name: str, attributes: dict[str, Any], kind: str = "CLIENT") -> None:
    tracers = TracerProvider(resource=Resource({"service.name": service}))
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    tracers.get_tracer(scope).start_span(name, kind=SpanKind[kind], attributes=attributes).end()
    assert tracers.force_flush()


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    folder = tmp_path_factory.mktemp("named")
    counted = "^(openinference|openllmetry|opentelemetry|anthropic|traceai|with-us)-"
    with (
        jaeger(folder) as tracing,
        gateway(folder, TRACES_ENDPOINT=tracing.endpoint, HITS_PERCENT="100", SPAN_METRICS_SERVICES=counted) as running,
        prometheus(prometheus_config([running.metrics, running.counted]), folder) as scraping,
    ):
        ways: tuple[Callable[[], Any], ...] = (
            lambda: OTLPSpanExporter(endpoint=running.grpc, insecure=True, timeout=60),
            lambda: HTTPSpanExporter(endpoint=f"{running.http}/v1/traces", timeout=60),
        )
        for number, (recording, call) in enumerate(RECORDED):
            for span in SPANS[recording][call]:
                sent = span["scope"], span["name"], span["attributes"], span["kind"]
                emit(ways[number % 2](), service_of(recording, call), *sent)
        for name, (attributes, _) in BY_HAND.items():
            emit(ways[0](), service_of("hand", name), "app", "answer", attributes, "INTERNAL")
        yield Named(tracing, scraping)


@pytest.mark.parametrize(("recording", "call"), RECORDED, ids=[": ".join(one) for one in RECORDED])
def test_foreign_spans_get_our_names(named: Named, recording: str, call: str) -> None:
    expected = WRONG.get((recording, call), EXPECTED[call.partition("_")[0]])
    assert named.usage(service_of(recording, call)) == [expected]


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_set_by_hand_get_our_names(named: Named, name: str) -> None:
    """Of input that has no cached tokens in it, their sum is made; nothing that is there is overwritten."""
    assert named.usage(service_of("hand", name)) == [BY_HAND[name][1]]


def test_foreign_spans_have_provider_and_model(named: Named) -> None:
    (span,) = until(lambda: named.jaeger.find("openinference-chat_sync"))
    told = {name: span.tags.get(f"gen_ai.{name}") for name in ("provider.name", "request.model", "operation.name")}
    assert told == {"provider.name": "openai", "request.model": "gpt-5.6", "operation.name": "chat"}
    (span,) = until(lambda: named.jaeger.find("anthropic-messages_sync"))
    assert (span.tags["promptcache.write.tokens.5m"], span.tags["promptcache.write.tokens.1h"]) == (1500, 500)


def test_spans_of_named_services_are_counted(named: Named) -> None:
    """Each once, under the names that dashboards ask for; not where we count ourselves, nor where cached tokens are
    left out, nor of services that are not named."""
    series = "gen_ai_client_inference_usage_{}_total"

    def counted(kind: str) -> dict[str, float]:
        found = named.prometheus.query(f"sum by (service_name) ({series.format(kind)})")
        return {labels["service_name"]: value for labels, value in found}

    expected = {
        service_of(recording, call): usage
        for recording, call in RECORDED
        if recording not in ("with us", "hand-set")
        and (usage := WRONG.get((recording, call), EXPECTED[call.partition("_")[0]]))[1] is not None
    }
    until_is(lambda: counted("input_tokens"), {name: usage[0] for name, usage in expected.items()})
    until_is(lambda: counted("cache_read_input_tokens"), {name: usage[1] for name, usage in expected.items()})
    of_one = f'{series.format("input_tokens")}{{service_name="anthropic-messages_sync"}}'
    ((labels, _),) = until(lambda: named.prometheus.query(of_one))
    assert labels["promptcache_route"] == "(spans)"
    assert (labels["gen_ai_provider_name"], labels["gen_ai_request_model"]) == ("anthropic", "claude-sonnet-4-6")


# --- Engines ------------------------------------------------------------------------------------------------


def test_engines_caches_are_one_set_of_names(tmp_path: Path) -> None:
    """And nothing else of theirs is passed on."""
    with (
        engines() as pages,
        gateway(tmp_path, ENGINES=listed(pages), ENGINES_INTERVAL="500ms") as running,
        prometheus(prometheus_config([running.metrics]), tmp_path) as scraping,
    ):

        def by_engine(name: str) -> dict[tuple[str, str], float]:
            return {
                (labels["promptcache_engine"], labels.get("gen_ai_request_model", "")): value
                for labels, value in scraping.query(f"promptcache_engine_{name}")
            }

        figures = {
            "input_tokens_total": {("vllm", "tiny"): 2000, ("sglang", "tiny"): 8000},
            "cache_read_input_tokens_total": {("vllm", "tiny"): 1500, ("sglang", "tiny"): 6000},
            "uncached_tokens_total": {("llama_cpp", ""): 6886},
            "hit_ratio": {("sglang", "tiny"): 0.75},
            "usage_ratio": {("vllm", "tiny"): 0.25, ("sglang", "tiny"): 0.28},
        }
        until_is(lambda: {name: by_engine(name) for name in figures}, figures)
        of_engines = '{__name__=~"promptcache_engine_.+"}'
        until_is(
            lambda: {labels["__name__"] for labels, _ in scraping.query(of_engines)},
            {series(metric) for metric in semconv.ENGINE_METRICS},
        )
        names = {labels["__name__"] for labels, _ in scraping.query('{__name__=~".*(vllm|sglang|llamacpp).*"}')}
        assert not names
