"""child.py URL REQUEST: makes calls in the environment of another instrumentation, and prints what came of them.

REQUEST is JSON: ``start`` (names of STARTERS, in order), ``calls`` (names of CALLS and INCIDENTS), ``native`` (whether
the anthropic SDK emits spans of its own). Knows nothing of pytest, and of us only what ``ours`` starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
warnings.simplefilter("ignore")

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from neighbours.calls import CALLS, Clients
from neighbours.incidents import INCIDENTS

NATIVE_SWITCH = "ANTHROPIC_OPEN_TELEMETRY"
ROOT = "the.application"
OPENLIT_PRICES = {  # USD a thousand tokens; without a file it would fetch one
    "chat": {
        "claude-sonnet-4-6": {
            "promptPrice": 0.003,
            "completionPrice": 0.015,
            "cacheReadPrice": 0.0003,
            "cacheCreationPrice": 0.00375,
        },
        "gpt-5.6": {"promptPrice": 0.00125, "completionPrice": 0.01, "cacheReadPrice": 0.000125},
    },
    **{kind: {} for kind in ("embeddings", "images", "audio")},
}


class Open(SpanProcessor):
    """Counts spans that were started and not ended."""

    def __init__(self) -> None:
        self.spans: set[int] = set()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.spans.add(span.context.span_id)

    def on_end(self, span: Any) -> None:
        self.spans.discard(span.context.span_id)


class World:
    """The providers of this process, and what they were given."""

    def __init__(self) -> None:
        self.exporter, self.open, self.reader = InMemorySpanExporter(), Open(), InMemoryMetricReader()
        self.processors = [SimpleSpanProcessor(self.exporter), self.open]

    def own_providers(self) -> None:
        """Sets global providers of the OpenTelemetry SDK."""
        provider = TracerProvider()
        for processor in self.processors:
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider(metric_readers=[self.reader]))


# --- Who may be started -------------------------------------------------------------------------------------


def ours(_: World) -> None:
    import otel_promptcache

    otel_promptcache.instrument()


def opentelemetry(_: World) -> None:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    AnthropicInstrumentor().instrument()
    OpenAIInstrumentor().instrument()


def openllmetry(_: World) -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    AnthropicInstrumentor().instrument()
    OpenAIInstrumentor().instrument()


def openinference(_: World) -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    AnthropicInstrumentor().instrument()
    OpenAIInstrumentor().instrument()


def traceai(_: World) -> None:
    from traceai_openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=trace.get_tracer_provider())
    with contextlib.suppress(ModuleNotFoundError):  # what it imports is gone in newer versions of anthropic
        from traceai_anthropic import AnthropicInstrumentor

        AnthropicInstrumentor().instrument(tracer_provider=trace.get_tracer_provider())


def openlit(_: World) -> None:
    import openlit as library
    from openlit._instrumentors import MODULE_NAME_MAP

    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(OPENLIT_PRICES, file)
    others = [name for name in MODULE_NAME_MAP if name not in ("anthropic", "openai")]
    others += ["httpx", "requests", "urllib", "urllib3", "aiohttp-client"]
    library.init(disabled_instrumentors=others, disable_batch=True, pricing_json=file.name)


def logfire(world: World) -> None:
    import logfire as library

    library.configure(send_to_logfire=False, console=False, additional_span_processors=world.processors)
    library.instrument_anthropic()
    library.instrument_openai()


def ddtrace(_: World) -> None:
    os.environ.setdefault("DD_TRACE_AGENT_URL", "http://127.0.0.1:9")
    os.environ.setdefault("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    from ddtrace import patch

    patch(anthropic=True, openai=True)


def sentry(_: World) -> None:
    import sentry_sdk

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, send_default_pii=True)


def http(_: World) -> None:
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    HTTPXClientInstrumentor().instrument()
    RequestsInstrumentor().instrument()


def register(world: World) -> None:
    """As traceAI's article has it, with exports to nowhere."""
    os.environ.update(FI_API_KEY="key", FI_SECRET_KEY="secret", FI_BASE_URL="http://127.0.0.1:9")
    from fi_instrumentation import register as begin
    from fi_instrumentation.fi_types import ProjectType

    provider = begin(
        project_name="support",
        project_type=ProjectType.OBSERVE,
        set_global_tracer_provider=True,
        verbose=False,
    )
    for processor in world.processors:  # the first one takes the place of its own exporter
        provider.add_span_processor(processor)


STARTERS: dict[str, Callable[[World], None]] = {
    one.__name__: one
    for one in (
        ours,
        opentelemetry,
        openllmetry,
        openinference,
        traceai,
        openlit,
        logfire,
        ddtrace,
        sentry,
        http,
        register,
    )
}
BRINGS_ITS_PROVIDER = {"logfire", "register"}


# --- Calls and what came of them ----------------------------------------------------------------------------


class Lines(logging.Handler):
    """What is logged at WARNING or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()[:200]}")


def described(span: Any) -> dict[str, Any]:
    """A span as JSON."""
    attributes = dict(span.attributes or {})
    return {
        "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
        "name": span.name,
        "kind": span.kind.name,
        "status": span.status.status_code.name,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent else 0,
        "dropped": span.dropped_attributes,
        "attributes": {
            name: value if not isinstance(value, str) else value[:100]
            for name, value in attributes.items()
            if isinstance(value, str | bool | int | float)
        },
    }


def settle() -> None:
    """Waits for what we do off the caller's thread."""
    runtime = sys.modules.get("otel_promptcache.instrumentation.runtime")
    running = runtime.running() if runtime is not None else None
    if running is not None:
        running.observer.worker.flush(60)


def made(name: str, clients: Clients, world: World) -> dict[str, Any]:
    """One call inside a span of the application's, as a server would make it."""
    world.exporter.clear()
    before = set(world.open.spans)
    lines = Lines()
    logging.getLogger().addHandler(lines)
    call = {**CALLS, **INCIDENTS}[name]
    try:
        with trace.get_tracer(ROOT).start_as_current_span("request") as root:
            result = call(clients)
            if inspect.iscoroutine(result):
                result = clients.runner.run(result)
            current = trace.get_current_span() is root
    except BaseException as error:
        result, current = f"{type(error).__name__}: {str(error)[:200]}", True
    gc.collect()
    settle()
    gc.collect()
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush()
    logging.getLogger().removeHandler(lines)
    spans = [described(span) for span in world.exporter.get_finished_spans()]
    return {
        "result": result,
        "current": current,
        "spans": [span for span in spans if span["scope"] != ROOT],
        "root": next((span["id"] for span in spans if span["scope"] == ROOT), 0),
        "unended": len(world.open.spans - before),
        "log": lines.lines,
    }


def counted(world: World) -> dict[str, float]:
    """The sum of each counter of ours, and the number of records of each histogram by scope."""
    data = world.reader.get_metrics_data()
    found: dict[str, float] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    name = f"{scope.scope.name} {metric.name}"
                    found[name] = found.get(name, 0) + (point.count if hasattr(point, "count") else point.value)
    return found


def main() -> None:
    url, request = sys.argv[1], json.loads(sys.argv[2])
    answer = os.dup(1)
    os.dup2(2, 1)  # what instrumented libraries print is no answer
    os.environ[NATIVE_SWITCH] = str(request["native"]).lower()
    world = World()
    if not BRINGS_ITS_PROVIDER & set(request["start"]):
        world.own_providers()
    for name in request["start"]:
        STARTERS[name](world)
    if "ours" in request["start"]:
        from otel_promptcache import pricing

        pricing.load()
    with asyncio.Runner() as runner:
        clients = Clients(url, runner)
        found = {name: made(name, clients, world) for name in request["calls"]}
    with os.fdopen(answer, "w") as out:
        json.dump({"calls": found, "counted": counted(world)}, out, default=str)
        out.flush()
        os._exit(0)  # exporters of others would wait for servers that are not there


if __name__ == "__main__":
    main()
