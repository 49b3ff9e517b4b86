"""What applications call. Importing this is cheap: the rest is imported when it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_promptcache.attribution import attribute, conversation, prompt, route, strategy

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> None:
    """Observes the prompt cache on every call of the ``anthropic`` and ``openai`` SDKs, imported already or not.

    Providers left out are OpenTelemetry's global ones, also when they are set later. Idempotent, and at peace with
    ``opentelemetry-instrument`` doing the same. Settings come from ``OTEL_PROMPTCACHE_*``; a wrong one is reported
    in the log and its default holds. Never raises because of an SDK that is missing or too old.
    """
    from otel_promptcache.instrumentation import patches, runtime

    runtime.start(tracer_provider, meter_provider, logger_provider)
    for sdk in patches.SDKS:
        patches.instrument(sdk)


def flush(seconds: float = 3.0) -> bool:
    """Has everything exported that was observed so far, by the providers in use. False when time ran out first.

    Called by itself before a process ends without its exit handlers, as far as that can be known
    (``OTEL_PROMPTCACHE_FLUSH_AT_END``); for a process that calls ``os._exit`` or is frozen, call it.
    """
    from otel_promptcache.instrumentation import runtime

    return runtime.flush(seconds)


def uninstrument() -> None:
    """Takes everything back. Calls that are under way end as they would without us."""
    from otel_promptcache.instrumentation import patches, runtime

    for sdk in patches.SDKS:
        patches.uninstrument(sdk)
    runtime.stop()


__all__ = ["attribute", "conversation", "flush", "instrument", "prompt", "route", "strategy", "uninstrument"]
