"""From the SDK's call over OTLP, a real Collector and a real Prometheus to the figures of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind
from servers import DEPLOY, Prometheus, collector, prometheus, prometheus_config, until
from servers.application import HAS_NATIVE, Clients, message, observed, provider, text
from servers.stack import filled_in

from otel_promptcache import route

MILLION = Decimal(1_000_000)
OUT = 50 * Decimal(15) / MILLION
"""USD of an answer of claude-sonnet-4-6."""


def cold(written: int, price: str, fresh: int) -> Decimal:
    return (written * Decimal(price) + fresh * 3) / MILLION + OUT


def hit(read: int, fresh: int) -> Decimal:
    return (read * Decimal("0.3") + fresh * 3) / MILLION + OUT


def openai_call(fresh: int, read: int) -> Decimal:
    """gpt-4.1-mini: 0.40 USD a million input tokens, 0.10 read, 1.60 output."""
    return (fresh * Decimal("0.4") + read * Decimal("0.1") + 50 * Decimal("1.6")) / MILLION


BY_HAND = {
    "/chat": [
        cold(2000, "3.75", 10),
        hit(2000, 10),
        hit(2000, 10),
        cold(2000, "3.75", 10),  # a miss: written again
    ],
    "/summary": [cold(3000, "6", 20), openai_call(2560, 0), openai_call(0, 2560)],
}


# --- The pipeline -------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """What an application left behind."""

    prometheus: Prometheus
    ledger: list[dict[str, Any]]
    first: float
    """Time of the last sample of the first two calls."""
    last: float
    """Time of the last sample after all calls."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Two calls, a while, and five more of several routes, models and kinds."""
    folder: Path = tmp_path_factory.mktemp("pipeline")
    calls = 'sum(promptcache_calls_total{service_name="shop"})'
    tokens = 'gen_ai_client_inference_usage_input_tokens_total{promptcache_route="/chat"}'
    with (
        collector(folder) as collecting,
        prometheus(prometheus_config([collecting.metrics]), folder) as scraping,
        provider() as emulated,
    ):
        metrics = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=f"{collecting.http}/v1/metrics", timeout=60), export_interval_millis=3_600_000
        )
        ledger = BatchLogRecordProcessor(OTLPLogExporter(endpoint=collecting.grpc, insecure=True, timeout=60))
        clients = Clients(emulated.url)
        with observed(readers=[metrics], log_processors=[ledger], service="shop", ledger="true") as seen:

            def exported(count: int, inputs: int) -> None:
                """Once all of it is there: a scrape may come in the middle of the Collector's taking it, the one after
                that does not."""
                seen.settle()
                assert metrics.force_flush()
                until(lambda: scraping.value(calls) == count and scraping.value(tokens) == inputs)
                until(lambda: len(moments(inputs)) > 1)

            def moments(inputs: int) -> list[float]:
                return [moment for moment, value in scraping.samples(tokens) if value == inputs]

            def ask(first: str) -> None:
                clients.anthropic.messages.create(**message(f"{first}\n" + text(1999), text(10)))

            with route("/chat"):
                ask("one")
                ask("one")
                exported(2, 4020)
                ask("one")
                ask("two")
            with route("/summary"):
                for _ in clients.anthropic.messages.create(**message(text(3000), text(20), ttl="1h", stream=True)):
                    pass
                for _ in range(2):
                    clients.openai.chat.completions.create(
                        model="gpt-4.1-mini", messages=[{"role": "user", "content": text(2560)}]
                    )
            exported(7, 8040)
            assert ledger.force_flush()
        until(lambda: len(collecting.ledger_events()) >= 7)
        clients.close()
        yield Ran(scraping, collecting.ledger_events(), moments(4020)[-1], moments(8040)[-1])


@pytest.mark.server
def test_money_is_the_same_everywhere(ran: Ran) -> None:
    """Σ of the cost counter over its classes = Σ of the ledger = what it comes to by hand."""
    by_hand = float(sum(sum(costs) for costs in BY_HAND.values()))
    assert ran.prometheus.value("sum(promptcache_cost_USD_total)") == pytest.approx(by_hand, abs=1e-6)
    assert sum(call["promptcache.cost.total"] for call in ran.ledger) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.server
@pytest.mark.parametrize("name", BY_HAND)
def test_money_by_route(ran: Ran, name: str) -> None:
    by_hand = [float(cost) for cost in BY_HAND[name]]
    in_ledger = [call["promptcache.cost.total"] for call in ran.ledger if call["promptcache.route"] == name]
    assert in_ledger == pytest.approx(by_hand, abs=1e-9)
    counted = ran.prometheus.value(f'sum(promptcache_cost_USD_total{{promptcache_route="{name}"}})')
    assert counted == pytest.approx(sum(by_hand), abs=1e-6)


@pytest.mark.server
def test_tokens_arrive_whole(ran: Ran) -> None:
    """Every counter, by route, with the names and labels that a query uses."""

    def by_route(metric: str) -> dict[str, float]:
        query = f'sum by (promptcache_route) ({metric}{{service_name="shop"}})'
        found = until(lambda: ran.prometheus.query(query))
        return {labels["promptcache_route"]: value for labels, value in found}

    usage = "gen_ai_client_inference_usage_"
    assert by_route(f"{usage}input_tokens_total") == {"/chat": 8040, "/summary": 3020 + 5120}
    assert by_route(f"{usage}cache_read_input_tokens_total") == {"/chat": 4000, "/summary": 2560}
    assert by_route(f"{usage}cache_write_input_tokens_total") == {"/chat": 4000, "/summary": 3000}
    assert by_route(f"{usage}output_tokens_total") == {"/chat": 200, "/summary": 150}
    assert by_route("promptcache_lost_tokens_total") == {"/chat": 2000}
    lost = 2000 * (3.75e-6 - 0.3e-6)
    assert by_route("promptcache_lost_cost_USD_total") == pytest.approx({"/chat": lost})


@pytest.mark.server
def test_the_hit_rate_of_the_dashboard(ran: Ran) -> None:
    """Of the two later calls of /chat one read 2000 of 2010 tokens and one none: 2000 / 4020."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "overview.json").read_text())
    (panel,) = (panel for panel in dashboard["panels"] if panel["title"] == "Hit rate")
    (target,) = panel["targets"]
    # One millisecond more, because newer Prometheus leaves out a sample at the very beginning.
    window = f"{round((ran.last - ran.first) * 1000) + 1}ms"
    expression = filled_in(target["expr"].replace("$__range", window), service="shop", route="/chat")
    assert ran.prometheus.value(expression, ran.last) == pytest.approx(2000 / 4020, rel=1e-3)


@pytest.mark.server
def test_the_resource_is_kept_apart_from_the_scrape(ran: Ran) -> None:
    """service.name and service.instance.id are labels; the exporter's own job and instance are gone."""
    (labels, _), *_ = until(lambda: ran.prometheus.query("promptcache_calls_total"))
    assert (labels["service_name"], labels["service_instance_id"]) == ("shop", "first")
    assert labels["job"] == "otel-collector"
    assert not {"exported_job", "exported_instance"} & set(labels)


# --- Sampling -----------------------------------------------------------------------------------------------


def figures(sampler: Sampler, native: bool) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exported spans, counters and ledger of forty requests that ask a model, under a head sampler."""
    with provider() as emulated, observed(sampler=sampler, ledger="true", hash_key="secret") as seen:
        clients = Clients(emulated.url, seen.tracer_provider if native else None)
        start = seen.tracer_provider.get_tracer("web").start_as_current_span
        for number in range(40):
            first = "two" if number % 8 == 7 else "one"
            with start("GET", kind=SpanKind.SERVER, attributes={"http.route": f"/chat/{number % 2}"}):
                clients.anthropic.messages.create(**message(f"{first}\n" + text(1999), text(10)))
        clients.close()
        metrics = seen.metrics()
        counters = {
            name: {
                frozenset(point.attributes.items()): getattr(point, "value", None) or point.count for point in points
            }
            for name, points in ((name, metric.data.data_points) for name, metric in metrics.items())
            if name != "promptcache.ratelimit.remaining"  # refills while we look
        }
        calls = seen.ledger
    for call in calls:
        for name in ("promptcache.call.id", "promptcache.duration", "promptcache.lineage.id", "gen_ai.response.id"):
            assert call.pop(name)
    return len(seen.exporter.get_finished_spans()), counters, calls


@pytest.mark.parametrize("native", [False, True], ids=["our spans", "the SDK's own spans"])
def test_head_sampling_changes_no_figure(native: bool) -> None:
    """At 10 % most spans are gone, and every counter, label and ledger field is as at 100 %."""
    if native and not HAS_NATIVE:
        pytest.skip("this anthropic SDK has no spans of its own")
    spans, counters, calls = figures(ALWAYS_ON, native)
    fewer, sampled_counters, sampled_calls = figures(ParentBased(TraceIdRatioBased(0.1)), native)
    assert spans == 80
    assert fewer < 60
    assert len(calls) == 40
    assert sampled_calls == calls
    assert sampled_counters == {
        name: {labels: pytest.approx(value) for labels, value in points.items()} for name, points in counters.items()
    }
