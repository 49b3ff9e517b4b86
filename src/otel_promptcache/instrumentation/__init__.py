"""OpenTelemetry instrumentors of the SDKs: the entry points that ``opentelemetry-instrument`` finds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_promptcache.instrumentation import patches, runtime


class _PromptCacheInstrumentor(BaseInstrumentor):
    """Observes the prompt cache on every call of one SDK. A singleton, like every OpenTelemetry instrumentor."""

    _sdk: ClassVar[str]
    _requirement: ClassVar[str]

    def instrumentation_dependencies(self) -> Collection[str]:
        return (self._requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        """``tracer_provider``, ``meter_provider`` and ``logger_provider`` default to the global ones."""
        runtime.start(**kwargs)
        patches.instrument(self._sdk)

    def _uninstrument(self, **_: Any) -> None:
        patches.uninstrument(self._sdk)
        if not patches.wanted():
            runtime.stop()


class AnthropicPromptCacheInstrumentor(_PromptCacheInstrumentor):
    """Observes the ``anthropic`` SDK."""

    _sdk = "anthropic"
    _requirement = "anthropic >= 0.79"


class OpenAIPromptCacheInstrumentor(_PromptCacheInstrumentor):
    """Observes the ``openai`` SDK, and with it every provider that speaks its dialects."""

    _sdk = "openai"
    _requirement = "openai >= 1.109"


__all__ = ["AnthropicPromptCacheInstrumentor", "OpenAIPromptCacheInstrumentor"]
