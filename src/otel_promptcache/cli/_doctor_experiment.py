"""The child process of ``doctor``: imports, patches and calls here leave no trace in the doctor's own process.

``python -m otel_promptcache.cli._doctor_experiment TASK [SDK ...]`` prints one JSON object. ``patches`` says which
targets are patched. ``calls`` loads every installed instrumentor as ``opentelemetry-instrument`` does, makes real
calls against a loopback server whose token counts are known, and says which spans and metrics came out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind

from otel_promptcache import semconv
from otel_promptcache.cli._doctor_provider import CALLS, Scripted, provider
from otel_promptcache.instrumentation import patches, runtime
from otel_promptcache.telemetry.identity import INSTANCE

ROOT: Final = "otel_promptcache.doctor"
"""Scope of the span around each call."""

_SHOWN: Final = 200
_SECONDS: Final = 10.0


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:_SHOWN]}".rstrip(": ")


# --- patches ------------------------------------------------------------------------------------------------


def look_at_patches(sdks: Sequence[str]) -> dict[str, Any]:
    """Imports each SDK, patches it, and looks at every target."""
    found: dict[str, Any] = {}
    for sdk in sdks:
        try:
            import_module(patches.module_of(sdk))
            patches.instrument(sdk)
        except Exception as error:
            found[sdk] = {"error": _said(error), "targets": []}
            continue
        targets = [(patch.target, patches.applied(patch)) for patch in patches.PATCHES if patch.sdk == sdk]
        found[sdk] = {"error": "", "targets": targets}
    return found


# --- instance -----------------------------------------------------------------------------------------------


def look_at_instance(_: Sequence[str]) -> dict[str, Any]:
    """Under which name the SDK would have this process count."""
    from opentelemetry.sdk.resources import Resource

    return {"instance": str(Resource.create().attributes.get(INSTANCE, ""))}


# --- calls --------------------------------------------------------------------------------------------------


def make_calls(sdks: Sequence[str]) -> dict[str, Any]:
    """One call of every kind, under every installed instrumentor."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(sampler=ALWAYS_ON)  # the application's own sampler has no say here
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([reader]))
    loaded, failed = load_instrumentors()
    tracer = trace.get_tracer(ROOT)
    made = []
    with provider() as address:
        client = lru_cache(lambda sdk: _CLIENTS[sdk](address))
        for scripted in CALLS:
            if scripted.sdk in sdks:
                spans.clear()
                error = _one(scripted, client, tracer)
                seen = [_span(span, scripted) for span in spans.get_finished_spans()]
                made.append({"name": scripted.name, "error": error, "spans": [span for span in seen if span]})
    return {"loaded": loaded, "failed": failed, "calls": made, "metrics": list(_metrics(reader))}


def load_instrumentors() -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    """Loads what ``opentelemetry-instrument`` would.

    Entry point and module of each, and what stopped the loading: the entry point, if it was one, and the error.
    """
    # The launcher's own loop, so that we do as it does.
    load: Any = import_module("opentelemetry.instrumentation.auto_instrumentation._load")
    default: Any = import_module("opentelemetry.instrumentation.distro").DefaultDistro
    loaded: list[tuple[str, str]] = []
    raising: list[str] = []

    class Distro(default):  # type: ignore[misc]
        def load_instrumentor(self, entry_point: Any, **kwargs: Any) -> None:
            try:
                super().load_instrumentor(entry_point, **kwargs)
            except ImportError:
                raise  # passed over by the launcher too
            except Exception:
                raising.append(entry_point.name)  # the launcher gives up here
                raise
            loaded.append((entry_point.name, entry_point.value.partition(":")[0]))

    try:
        load._load_instrumentors(Distro())  # noqa: SLF001
    except Exception as error:
        return loaded, ("".join(raising), _said(error))
    return loaded, None


def _one(scripted: Scripted, client: Callable[[str], Any], tracer: trace.Tracer) -> str:
    """Makes a call inside a span, as a server would; what went wrong, or nothing."""
    try:
        with tracer.start_as_current_span("doctor", kind=SpanKind.SERVER):
            answer = scripted.make(client(scripted.sdk))
            if scripted.stream:
                for _ in answer:
                    pass
    except Exception as error:
        return _said(error)
    running = runtime.running()
    if running is not None:
        running.observer.worker.flush(_SECONDS)
    return ""


def _anthropic(address: str) -> Any:
    module = import_module("anthropic")
    return module.Anthropic(api_key="doctor", base_url=address, max_retries=0, timeout=_SECONDS)


def _openai(address: str) -> Any:
    module = import_module("openai")
    return module.OpenAI(api_key="doctor", base_url=f"{address}/v1", max_retries=0, timeout=_SECONDS)


_CLIENTS: Final[dict[str, Callable[[str], Any]]] = {"anthropic": _anthropic, "openai": _openai}


def _span(span: Any, scripted: Scripted) -> dict[str, Any] | None:
    """Scope and token counts of a span. Counts are recognised by their value: whatever others call them."""
    scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
    if scope == ROOT:
        return None
    attributes = span.attributes or {}
    known = scripted.usage.known()
    tokens = {
        name: value
        for name, value in attributes.items()
        if isinstance(value, int | float)
        and not name.startswith("promptcache.")
        and (value in known or name == semconv.INPUT_TOKENS)
    }
    ours = any(name.startswith("promptcache.") for name in attributes)
    return {"scope": scope, "name": span.name, "tokens": tokens, "ours": ours}


def _metrics(reader: Any) -> Iterator[dict[str, Any]]:
    """Name, scope and number of records of each metric; of a counter, its sum."""
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = metric.data.data_points
                count = sum(point.count if hasattr(point, "count") else point.value for point in points)
                yield {"name": metric.name, "scope": scope.scope.name, "count": count}


_TASKS: Final[dict[str, Callable[[Sequence[str]], dict[str, Any]]]] = {
    "patches": look_at_patches,
    "calls": make_calls,
    "instance": look_at_instance,
}


def main() -> None:
    """Runs a task. What instrumented libraries print goes to standard error; ours alone is the answer."""
    answer = os.dup(1)
    os.dup2(2, 1)
    task, *sdks = sys.argv[1:]
    found = _TASKS[task](sdks)
    with contextlib.suppress(OSError):
        os.write(answer, json.dumps(found).encode())
    os._exit(0)  # exit handlers of others might wait for an exporter


if __name__ == "__main__":
    main()
