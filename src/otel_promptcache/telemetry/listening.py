"""Is anybody listening?"""

from __future__ import annotations

import importlib.util

from otel_promptcache.telemetry.context import Watcher


def problem(provider: object, meters: object) -> str | None:
    """Why nothing can arrive anywhere from these providers of tracers and meters, and what to do; None when it can."""
    has_sdk = hasattr(provider, "add_span_processor") or type(meters).__name__ == "MeterProvider"
    if not has_sdk and importlib.util.find_spec("opentelemetry.sdk") is None:
        return "the OpenTelemetry SDK is missing: pip install 'otel-promptcache[otlp]'"
    if not has_sdk:
        return (
            "no TracerProvider or MeterProvider is set: start the application with opentelemetry-instrument, "
            "set OTEL_PROMPTCACHE_AUTO=1 (see `otel-promptcache auto`), or configure the SDK before the first call"
        )
    if _exports_nothing(provider, meters):
        return (
            "the providers have no exporter: set OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER to otlp "
            "(pip install 'otel-promptcache[otlp]'), or add a span processor or metric reader"
        )
    return None


def _exports_nothing(provider: object, meters: object) -> bool:
    """Whether SDK providers have neither a span processor besides ours nor a metric reader; False where unknown."""
    combined = getattr(provider, "_active_span_processor", None)
    processors = getattr(combined, "_span_processors", None)
    readers = getattr(meters, "_metric_readers", None)
    if readers is None and type(meters).__name__ == "MeterProvider":
        return False
    if processors is None:
        return False
    return not readers and all(isinstance(one, Watcher) for one in processors)
