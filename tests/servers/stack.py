"""Everything under ``deploy/`` running behind an application that has something of every kind to say."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_promptcache import attribute, route
from otel_promptcache.emulator import Emulator
from servers import (
    EXEMPLARS,
    HOST,
    Collector,
    Jaeger,
    Prometheus,
    Sample,
    collector,
    jaeger,
    prometheus,
    prometheus_config,
    until,
)
from servers.application import Clients, Observed, message, observed, provider, text
from servers.engines import engines
from servers.estate import gateway, listed
from servers.valkey import valkey

WINDOWS: Mapping[str, str] = MappingProxyType({"$__rate_interval": "10m", "$__interval": "10m", "$__range": "15m"})
"""As long as a busy machine may need from the first call of the application to the last question."""
OF_BOT = {"team": "support", "tenant": "acme", "feature": "replies"}
EVERY = ("1s", "10s")
"""Between scrapes, and between looks at the rules: each second they would take more than a processor."""
VARIABLES = ("service", "route", "provider", "model", "team")


def filled_in(expression: str, **chosen: str) -> str:
    """An expression as Grafana sends it: every filter at *All* but those that are chosen, over the last minutes."""
    for variable, value in {**WINDOWS, **{f"${name}": chosen.get(name, ".*") for name in VARIABLES}}.items():
        expression = expression.replace(variable, value)
    return expression


@dataclass
class Stack:
    """Everything running, after an application has sent what it had to say."""

    prometheus: Prometheus
    jaeger: Jaeger
    collector: Collector
    calls: int
    """Of the service ``shop``."""
    older: Prometheus
    """Debian's, which scrapes the same."""

    def found(self, expression: str, **chosen: str) -> list[Sample]:
        """What an expression of a dashboard finds, finite values only (a call without usage is 0 / 0). On a busy
        machine a scrape fails at times, and nothing is there until the next."""
        asked = filled_in(expression, **chosen)
        return until(lambda: [one for one in self.prometheus.query(asked) if math.isfinite(one[1])])

    def values(self, expression: str, **chosen: str) -> list[float]:
        return [value for _, value in self.found(expression, **chosen)]


# --- What is sent -------------------------------------------------------------------------------------------


def conversation(clients: Clients, *turns: str) -> None:
    """A call with a breakpoint behind the system prompt and one behind the last turn."""
    asked = message(text(2000, "sys"), *turns)
    asked["messages"][-1]["content"] = [
        {"type": "text", "text": turns[-1], "cache_control": {"type": "ephemeral"}},
    ]
    clients.anthropic.messages.create(**asked)


def shop(clients: Clients, name: str) -> None:
    """Ten calls: cold, hit, miss, partial, streams, errors, without usage, without price, of both SDKs."""
    create = clients.anthropic.messages.create
    with route("/chat"), attribute(team="search", feature="answers"):
        for first in ("one", "one", name):
            create(**message(f"{first}\n" + text(1999), text(10)))
        for _ in create(**message(text(1500, name), text(10), stream=True)):
            pass
    with route("/agent"), attribute(team="support"):
        opened = (text(300, "ask"), text(300, "say"))
        conversation(clients, *opened, text(300, name), text(300, "and"), text(300, "now"))
        conversation(clients, *opened, text(400, name), text(300, "and"), text(300, "now"))
    with route("/summary"):
        with pytest.raises(anthropic.InternalServerError):
            create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"})
        create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"})
        create(**message(text(2000), text(10), model="claude-of-tomorrow"))
        clients.openai.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": text(2560)}])


def bot(clients: Clients, emulated: Emulator, name: str) -> None:
    """What a provider and an account do: entries dropped, requests refused, marks lost, more routes than labels."""
    create = clients.anthropic.messages.create
    with route("/bot"), attribute(**OF_BOT):
        for _ in range(2):
            for _ in create(**message(text(2000, "bot"), text(10), stream=True)):
                pass
        time.sleep(2.1)  # an entry younger than that may not be visible yet, and nobody is blamed
        emulated.evict()
        create(**message(text(2000, "bot"), text(10)))
        create(**message(f"{name}\n" + text(1999, "bot"), text(10)))
        unmarked = {"system": [{"type": "text", "text": text(2000, "bot")}]}
        create(**message(text(2000, "bot"), text(10)), extra_body=unmarked)
        patient = clients.anthropic.with_options(max_retries=1)
        for wait in (0.01, math.nan):
            emulated.retry_after = wait
            patient.messages.create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "429*1"})
    for number in range(110):
        with route(f"/item/{number}"):
            create(**message("short", "short", mark=False))


# --- Where it goes ------------------------------------------------------------------------------------------


@dataclass
class _Wires:
    """The ways out of a process: one reader and two processors, each over OTLP to the Collector."""

    metrics: PeriodicExportingMetricReader
    spans: BatchSpanProcessor
    logs: BatchLogRecordProcessor

    @classmethod
    def to(cls, collecting: Collector) -> _Wires:
        there: dict[str, Any] = {"endpoint": collecting.grpc, "insecure": True, "timeout": 60}
        return cls(
            PeriodicExportingMetricReader(OTLPMetricExporter(**there), export_interval_millis=3_600_000),
            BatchSpanProcessor(OTLPSpanExporter(**there)),
            BatchLogRecordProcessor(OTLPLogExporter(**there)),
        )

    def observed(self, service: str, version: str, **settings: str) -> Any:
        return observed(
            readers=[self.metrics],
            span_processors=[self.spans],
            log_processors=[self.logs],
            service=service,
            service_version=version,
            instance=f"{service}-{version}",
            ledger="true",
            **settings,
        )

    def flush(self) -> None:
        for part in (self.metrics, self.spans, self.logs):
            assert part.force_flush()


def _scraped(seen: Observed, wires: _Wires, scraping: Sequence[Prometheus], service: str) -> None:
    """Sends what was counted, and waits until Prometheus has it."""
    seen.settle()
    wires.flush()
    counted = seen.total("promptcache.calls")
    expression = f'sum(promptcache_calls_total{{service_instance_id="{service}"}})'
    until(lambda: all(any(value == counted for _, value in one.query(expression)) for one in scraping))


def _later(seen: Observed, wires: _Wires, scraping: Sequence[Prometheus], seconds: int) -> None:
    """So many seconds on, by the observer's clock: what was written for five minutes is gone."""
    seen.observer.clock = lambda: time.time() + seconds
    seen.metrics()  # when they are read, the premium of what is gone is counted
    unread = seen.total("promptcache.write.unread.cost")
    wires.flush()
    instance = seen.tracer_provider.resource.attributes["service.instance.id"]
    expression = f'sum(promptcache_write_unread_cost_USD_total{{service_instance_id="{instance}"}})'
    until(lambda: all(any(value > 0.999 * unread for _, value in one.query(expression)) for one in scraping))


def _traced(seen: Observed, tracing: Jaeger) -> None:
    """Waits until Jaeger has the trace that was the last to end."""
    last = f"{seen.spans[-1].context.trace_id:032x}"
    until(lambda: tracing.trace(last))


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Jaeger, the Collector, a gateway that scrapes engines, and two Prometheus as they are shipped, only that counters
    of who is gone stay until all is asked; and processes one after the other, each with two rounds of calls a few
    scrapes apart: of a shop; of two versions of a bot; of a fleet that shares a history, and no key; of one that has
    engines of its own."""
    newer = folder / "newer"
    newer.mkdir()
    with (
        jaeger(folder) as tracing,
        collector(folder, tracing.endpoint, "exporters::prometheus::metric_expiration: 1h") as collecting,
        engines(busy=True) as pages,
        gateway(folder, ENGINES=listed(pages), ENGINES_INTERVAL="1s") as scraper,
        prometheus(prometheus_config([collecting.metrics, scraper.metrics], *EVERY), newer, EXEMPLARS) as newest,
        prometheus(prometheus_config([collecting.metrics, scraper.metrics], *EVERY), folder) as older,
        provider() as emulated,
        valkey() as history,
    ):
        scraping = (newest, older)
        emulated.limits.enforced = False
        clients = Clients(emulated.url)
        wires = _Wires.to(collecting)
        with wires.observed("shop", "1", token_usage_metric="true") as seen:
            for name in ("two", "six"):
                shop(clients, name)
                _scraped(seen, wires, scraping, "shop-1")
            seen.observer.trouble("test", ValueError())
            _later(seen, wires, scraping, 301)
            _traced(seen, tracing)
        settings = {
            "native_diagnostics": "true",
            "native_hosts": HOST,
            "metric_keys": "team,tenant,feature",
        }
        for version, secret in (("1", "one"), ("2", "two")):
            wires = _Wires.to(collecting)
            with wires.observed("bot", version, hash_key=secret, **settings) as seen:
                for name in ("two", "six"):
                    bot(clients, emulated, name)
                    seen.observer.trouble("test", ValueError())
                    _scraped(seen, wires, scraping, f"bot-{version}")
                _later(seen, wires, scraping, 301)
                with route("/bot"), attribute(**OF_BOT):
                    clients.anthropic.messages.create(**message(text(2000, f"ex{version}"), text(10)))
                _later(seen, wires, scraping, 602)
                _traced(seen, tracing)
            wires = _Wires.to(collecting)
            shared = {"history_url": history.url, "history_wait_ms": "5000"}  # all are answered, and counts increase
            with wires.observed("fleet", version, hash_key=secret, **shared) as seen:
                for _ in range(2):
                    with route("/fleet"):
                        clients.anthropic.messages.create(**message(text(2000, "flt"), text(10)))
                    _scraped(seen, wires, scraping, f"fleet-{version}")
        wires = _Wires.to(collecting)
        with wires.observed("engines", "1", provider_hosts=f"{urlsplit(emulated.url).netloc}=vllm") as seen:
            for _ in range(2):
                for _ in range(2):
                    asked = {"role": "user", "content": text(2560)}
                    clients.openai.chat.completions.create(model="tiny", messages=[asked])
                _scraped(seen, wires, scraping, "engines-1")
        clients.close()
        until(lambda: [one for one in collecting.ledger_events() if one["service.instance.id"] == "fleet-2"])
        yield Stack(newest, tracing, collecting, 20, older)
