"""Counters that a gateway makes: from the ledger of processes too brief to have any, and from spans of others."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from servers import Prometheus, prometheus, prometheus_config, until, until_empty, until_is
from servers.application import Clients, message, observed, provider, text
from servers.estate import CONFIGURATIONS, Tier, gateway

from otel_promptcache import attribute, route

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("estate")]
PROCESSES = 3
LABELS = (
    *("gen_ai_provider_name", "gen_ai_request_model", "promptcache_route", "promptcache_attr_team"),
    *(
        "promptcache_attr_tenant",
        "promptcache_attr_feature",
        "promptcache_status",
        "promptcache_reason",
        "promptcache_cost_class",
    ),
)
COUNTERS = (
    *("promptcache_calls_total", "promptcache_usage_missing_calls_total", "promptcache_unpriced_calls_total"),
    *("promptcache_cost_USD_total", "promptcache_cost_without_cache_USD_total"),
    *("promptcache_lost_tokens_total", "promptcache_lost_cost_USD_total"),
    *(
        f"gen_ai_client_inference_usage_{kind}_tokens_total"
        for kind in ("input", "output", "cache_read_input", "cache_write_input")
    ),
)


@dataclass
class Counted:
    """A gateway that counts ``jobs`` from its ledger, and ``shop``, which did the same, as it counts itself."""

    prometheus: Prometheus
    gateway: Tier
    ledger: list[dict[str, Any]] = field(default_factory=list)
    """Of ``jobs``."""

    def values(self, counter: str, service: str) -> dict[frozenset[tuple[str, str]], float]:
        found = self.prometheus.query(f'sum by ({", ".join(LABELS)}) ({counter}{{service_name="{service}"}}) > 0')
        return {frozenset(labels.items()): value for labels, value in found}

    def differing(self, counter: str) -> list[tuple[frozenset[tuple[str, str]], float, float]]:
        """Labels of which processes and the ledger say something else, with what they say; or that there is nothing."""
        itself, ledger = (self.values(counter, service) for service in ("shop", "jobs"))
        said = [(one, itself.get(one, 0), ledger.get(one, 0)) for one in itself.keys() | ledger.keys() or {frozenset()}]
        return [one for one in said if not one[1] or one[2] != pytest.approx(one[1])]

    def calls(self, service: str) -> float:
        return sum(self.values("promptcache_calls_total", service).values())


def counters(tier: Tier) -> Iterator[tuple[str, dict[str, str], float]]:
    """Of both its pages: what processes have counted, and what it has."""
    for address in (tier.metrics, tier.counted):
        yield from page_of(address)


def page_of(address: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and beginning of each counter, as a Prometheus of today asks for them."""
    protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": protobuf})
    with urllib.request.urlopen(request, timeout=60) as response:
        page = response.read()
    while page:
        size, rest = varint(page)
        family, page = dict(fields(rest[:size])), rest[size:]
        for metric in family.get(4, ()):
            parts = dict(fields(metric))
            for counter in parts.get(3, ()):
                (stamp,) = dict(fields(counter)).get(3, (b"",))
                pairs = (dict(fields(label)) for label in parts.get(1, ()))
                since = dict(fields(stamp)).get(1, (0,))[0]
                yield family[1][0].decode(), {one[1][0].decode(): one[2][0].decode() for one in pairs}, since


def varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for place, byte in enumerate(data):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, data[place + 1 :]
    raise AssertionError("cut off")


def fields(data: bytes) -> Iterator[tuple[int, list[Any]]]:
    """Number and values of each field of a message."""
    found: dict[int, list[Any]] = {}
    while data:
        tag, data = varint(data)
        value: Any
        match tag & 7:
            case 0:
                value, data = varint(data)
            case 1:
                value, data = data[:8], data[8:]
            case _:
                size, data = varint(data)
                value, data = data[:size], data[size:]
        found.setdefault(tag >> 3, []).append(value)
    yield from found.items()


def foreign_span(tier: Tier) -> None:
    """A call of a service that does not run the package."""
    tracers = TracerProvider(resource=Resource({"service.name": "legacy"}))
    tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(tier.grpc, insecure=True, timeout=60)))
    usage = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 100}
    tracers.get_tracer("app").start_span("chat", kind=SpanKind.CLIENT, attributes=usage).end()


def process(clients: Clients) -> None:
    """Everything that is counted: cold, hit, miss, another team, a failure, no usage, no price, another provider."""
    create = clients.anthropic.messages.create
    with route("/letters"), attribute(team="mail", tenant="acme", feature="summary"):
        for first in ("one", "one", "two"):
            create(**message(f"{first}\n" + text(1999), text(10)))
        with pytest.raises(anthropic.InternalServerError):
            create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"})
    with route("/notes"):
        create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"})
        create(**message(text(2000), text(10), model="claude-of-tomorrow"))
        clients.openai.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": text(2560)}])


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    folder: Path = tmp_path_factory.mktemp("counted")
    services = {"LEDGER_METRICS_SERVICES": "^jobs$", "SPAN_METRICS_SERVICES": "^legacy$"}
    with (
        gateway(folder, **services) as running,
        prometheus(prometheus_config([running.metrics, running.counted]), folder) as scraping,
    ):
        found = Counted(scraping, running)
        there: dict[str, Any] = {"endpoint": running.grpc, "insecure": True, "timeout": 60}
        for service in ("jobs", "shop"):
            with provider() as emulated:
                emulated.limits.enforced = False
                clients = Clients(emulated.url)
                for number in range(PROCESSES):
                    metrics = PeriodicExportingMetricReader(OTLPMetricExporter(**there), 3_600_000)
                    logs = BatchLogRecordProcessor(OTLPLogExporter(**there))
                    told: dict[str, Any] = {"service": service, "instance": f"{service}-{number}", "ledger": "true"}
                    told["metric_keys"] = "team,tenant,feature"
                    with observed(readers=[metrics], log_processors=[logs], **told) as seen:
                        process(clients)
                        found.ledger += seen.ledger if service == "jobs" else []
                        seen.settle()
                        assert metrics.force_flush()
                        assert logs.force_flush()
                clients.close()
            until(lambda s=service: found.calls(s) >= 7 * PROCESSES)
        yield found


@pytest.mark.parametrize("counter", COUNTERS)
def test_the_ledger_makes_the_counters_that_processes_would(counted: Counted, counter: str) -> None:
    """Every label and every value."""
    until_empty(lambda: counted.differing(counter))


def test_money_of_many_processes_is_one_counter(counted: Counted) -> None:
    """Under the gateway's name, so that a thousand processes have the series of one; none of them is there itself."""
    ledger = sum(event.get("promptcache.cost.total", 0) for event in counted.ledger)
    money = 'promptcache_cost_USD_total{service_name="%s"}'
    until_is(lambda: counted.prometheus.value(f"sum({money % 'jobs'})"), pytest.approx(ledger, rel=1e-6))
    names = f"count(count by (service_instance_id) ({money}))"
    until_is(lambda: counted.prometheus.value(names % "jobs"), 1)
    until_is(lambda: counted.prometheus.value(names % "shop"), PROCESSES)
    ours = counted.prometheus.query('{__name__=~"promptcache_.+", service_instance_id=~"jobs-.*"}')
    assert ours == []


def test_counters_begin_at_zero(counted: Counted) -> None:
    """They say when they began. Prometheus can take them for zero then, and `increase` has their first value too."""
    found = [(labels["job"], since) for name, labels, since in counters(counted.gateway) if name in COUNTERS]
    assert {job for job, _ in found} == {"jobs", "shop"}
    assert all(time.time() - 3600 < since < time.time() for _, since in found)


def test_spans_that_come_one_after_the_other_add_up(counted: Counted) -> None:
    tokens = 'sum(gen_ai_client_inference_usage_input_tokens_total{service_name="legacy"})'
    for number in range(1, 4):
        foreign_span(counted.gateway)
        until(lambda n=number: [value for _, value in counted.prometheus.query(tokens) if value == 100 * n])


def test_what_is_counted_here_outlives_a_quiet_night(tmp_path: Path) -> None:
    """A process's counters are gone a while after its last word. The gateway's own stay, or they would come back with
    the next job's calls in them already, of which no `increase` knows."""
    brief = "exporters::prometheus::metric_expiration: 2s"
    services = {"LEDGER_METRICS_SERVICES": "^jobs$", "SPAN_METRICS_SERVICES": "^legacy$"}
    with gateway(tmp_path, "gateway", brief, **services) as running, provider() as emulated:
        foreign_span(running)
        clients = Clients(emulated.url)

        def jobs() -> set[str]:
            return {labels["job"] for name, labels, _ in counters(running) if name in COUNTERS}

        for service, there_are in (("jobs", {"jobs", "legacy"}), ("shop", {"jobs", "legacy", "shop"})):
            there: dict[str, Any] = {"endpoint": running.grpc, "insecure": True, "timeout": 60}
            metrics = PeriodicExportingMetricReader(OTLPMetricExporter(**there), 3_600_000)
            logs = BatchLogRecordProcessor(OTLPLogExporter(**there))
            with observed(readers=[metrics], log_processors=[logs], service=service, ledger="true") as seen:
                clients.anthropic.messages.create(**message(text(2000), text(10)))
                seen.settle()
                assert logs.force_flush()
                # Again and again: two seconds after its last word it is not to be seen any more.
                until(lambda wire=metrics, wanted=there_are: wire.force_flush() and jobs() == wanted)
        clients.close()
        until(lambda: jobs() == {"jobs", "legacy"})
        until_empty(lambda: {labels["job"] for _, labels, _ in page_of(running.metrics)})
        assert "metric_expiration: 720h" in (CONFIGURATIONS / "gateway.yaml").read_text()


def test_an_empty_name_is_nobody(tmp_path: Path) -> None:
    """A variable that is set, to nothing, is as one that is not: own counters stay, and nothing is counted here."""
    nobody = {"LEDGER_METRICS_SERVICES": "", "SPAN_METRICS_SERVICES": ""}
    with gateway(tmp_path, **nobody) as running, provider() as emulated:
        foreign_span(running)
        there: dict[str, Any] = {"endpoint": running.grpc, "insecure": True, "timeout": 60}
        metrics = PeriodicExportingMetricReader(OTLPMetricExporter(**there), 3_600_000)
        logs = BatchLogRecordProcessor(OTLPLogExporter(**there))
        clients = Clients(emulated.url)
        with observed(
            readers=[metrics], log_processors=[logs], service="shop", instance="shop-0", ledger="true"
        ) as seen:
            clients.anthropic.messages.create(**message(text(2000), text(10)))
            seen.settle()
            assert logs.force_flush()
            assert metrics.force_flush()
        clients.close()
        until(lambda: [name for name, *_ in counters(running) if name == "promptcache_calls_total"])
        found = {(labels["job"], labels["instance"]) for name, labels, _ in counters(running) if name in COUNTERS}
        assert found == {("shop", "shop-0")}
