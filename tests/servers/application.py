"""An application to observe: SDK clients that talk to an emulated provider, and what telemetry says of it.

The emulator's tokenizer counts four bytes as one token, so that every count and every cost in a test can be worked
out by hand: ``text(2000)`` has 2000 tokens, and every answer has 50.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric, MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

import otel_promptcache
from otel_promptcache import pricing
from otel_promptcache.emulator import Reply, emulator
from otel_promptcache.instrumentation import runtime
from otel_promptcache.observer import Observer

InMemoryLogs = getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter

MODEL = "claude-sonnet-4-6"
"""3 USD a million input tokens, 0.30 read, 3.75 written for five minutes, 6 for an hour, 15 output; at least 1024
tokens are cached."""

OUTPUT = 50
"""Tokens of every answer."""


def text(tokens: int, word: str = "abc") -> str:
    """A text of so many tokens, made of one word of three letters."""
    assert len(word) == 3
    return f"{word} " * tokens


def provider(**options: Any) -> Any:
    """An emulated provider whose every answer has ``OUTPUT`` tokens."""
    return emulator(answer=lambda _: Reply(text(OUTPUT, "out")), **options)


HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters
"""Whether the anthropic SDK emits spans of its own."""


class Clients:
    """One client a kind, all pointed at one provider. With ``native`` the anthropic SDK emits spans of its own."""

    def __init__(self, url: str, native: TracerProvider | None = None) -> None:
        common: dict[str, Any] = {"api_key": "sk-test", "max_retries": 0}
        ours = dict(common)
        if HAS_NATIVE:
            ours["open_telemetry"] = {"tracer_provider": native} if native is not None else False
        self.anthropic = anthropic.Anthropic(base_url=url, **ours)
        self.async_anthropic = anthropic.AsyncAnthropic(base_url=url, **ours)
        self.openai = openai.OpenAI(base_url=url + "/v1", **common)

    def close(self) -> None:
        self.anthropic.close()
        self.openai.close()


def message(
    system: str, *turns: str, model: str = MODEL, ttl: str = "5m", mark: bool = True, **more: Any
) -> dict[str, Any]:
    """The arguments of ``messages.create``: a system prompt with a breakpoint at its end, and what was said."""
    block: dict[str, Any] = {"type": "text", "text": system}
    if mark:
        block["cache_control"] = {"type": "ephemeral", "ttl": ttl}
    said = [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
    return {"model": model, "max_tokens": 500, "system": [block], "messages": said, **more}


# --- What telemetry says of it ------------------------------------------------------------------------------


def event_name(record: Any) -> str:
    """The name of an event, where APIs before 1.35 have it too."""
    return getattr(record, "event_name", None) or (record.attributes or {}).get("event.name", "")


def fields(record: Any) -> dict[str, Any]:
    """What an event says."""
    return {name: value for name, value in (record.attributes or {}).items() if name != "event.name"}


@dataclass
class Observed:
    """Everything that is exported while ``observed()`` lasts."""

    observer: Observer
    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    records: Any

    def settle(self) -> None:
        """Waits for what is done off the caller's thread."""
        assert self.observer.worker.flush(60)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, in the order in which they ended."""
        self.settle()
        return list(self.exporter.get_finished_spans())

    @property
    def calls(self) -> list[ReadableSpan]:
        """Finished spans of calls."""
        return [span for span in self.spans if "promptcache.status" in (span.attributes or {})]

    @property
    def call(self) -> Mapping[str, Any]:
        """Attributes of the only finished span of a call."""
        (span,) = self.calls
        return span.attributes or {}

    def events(self, name: str) -> list[Any]:
        """The log records of one event."""
        self.settle()
        found = [item.log_record for item in self.records.get_finished_logs()]
        return [record for record in found if event_name(record) == name]

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The attributes of every ledger event."""
        return [fields(record) for record in self.events("promptcache.call")]

    @property
    def maps(self) -> list[dict[str, Any]]:
        """The attributes of every prompt map."""
        return [fields(record) for record in self.events("promptcache.prompt")]

    def metrics(self) -> dict[str, Metric]:
        """Collects, and gives every metric of ours by name."""
        self.settle()
        return collected(self.reader)

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The value of every point of a counter, by labels."""
        metric = self.metrics().get(name)
        points = metric.data.data_points if metric is not None else ()
        return {frozenset((point.attributes or {}).items()): point.value for point in points}

    def total(self, name: str) -> float:
        """The sum of a counter over all its labels."""
        return sum(self.points(name).values())


def collected(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Every metric of ours that a reader collects now, by name."""
    data = reader.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
    return {
        metric.name: metric for scope in scopes if scope.scope.name == "otel_promptcache" for metric in scope.metrics
    }


@contextmanager
def observed(
    *,
    sampler: Sampler = ALWAYS_ON,
    readers: Sequence[MetricReader] = (),
    span_processors: Sequence[SpanProcessor] = (),
    log_processors: Sequence[LogRecordProcessor] = (),
    service: str = "test",
    service_version: str = "",
    instance: str = "first",
    **settings: str,
) -> Iterator[Observed]:
    """Both SDKs instrumented, under settings given without their prefix: ``observed(ledger="true")``.

    There is no limit to our own time unless a test sets one: a busy machine would exceed it.
    """
    settings.setdefault("budget_ms", "0")
    assert pricing.load()
    assert runtime.running() is None, "instrumented already: by whom, and why is it not over?"
    versioned = {"service.version": service_version} if service_version else {}
    resource = Resource({"service.name": service, "service.instance.id": instance, **versioned})
    reader, exporter, records = InMemoryMetricReader(), InMemorySpanExporter(), InMemoryLogs()
    tracers = TracerProvider(resource=resource, sampler=sampler)
    for processor in (SimpleSpanProcessor(exporter), *span_processors):
        tracers.add_span_processor(processor)
    meters = MeterProvider([reader, *readers], resource=resource)
    loggers = LoggerProvider(resource=resource)
    for log_processor in (log_export.SimpleLogRecordProcessor(records), *log_processors):
        loggers.add_log_record_processor(log_processor)
    with _environment({f"OTEL_PROMPTCACHE_{name.upper()}": value for name, value in settings.items()}):
        otel_promptcache.instrument(tracer_provider=tracers, meter_provider=meters, logger_provider=loggers)
    running = runtime.running()
    assert running is not None
    try:
        yield Observed(running.observer, tracers, meters, loggers, reader, exporter, records)
    finally:
        otel_promptcache.uninstrument()
        tracers.shutdown()
        meters.shutdown()
        loggers.shutdown()


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Only these settings of ours, and everything else as it is."""
    before = {name: value for name, value in os.environ.items() if name.startswith("OTEL_PROMPTCACHE_")}
    for name in before:
        del os.environ[name]
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)
