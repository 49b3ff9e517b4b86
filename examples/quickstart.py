"""The same question twice, with a stable system prompt: a cold call and a hit.

    pip install 'otel-promptcache[all]'
    python examples/quickstart.py                # against a local provider, nothing to pay
    ANTHROPIC_API_KEY=… python examples/quickstart.py

Prints what the prompt cache did; point OTEL_EXPORTER_OTLP_ENDPOINT at a collector and start it with
`opentelemetry-instrument` to see the same there.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

import anthropic
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_promptcache
from otel_promptcache.emulator import emulator

POLICY = "Returns are free within thirty days. Damaged goods are replaced at once and never questioned. " * 120


def main() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    otel_promptcache.instrument()

    with nullcontext() if "ANTHROPIC_API_KEY" in os.environ else emulator() as local:
        client = anthropic.Anthropic() if local is None else anthropic.Anthropic(base_url=local.url, api_key="local")
        for question in ("May I return a lamp?", "May I return a lamp?"):
            client.messages.create(
                model="claude-opus-5-5",
                max_tokens=64,
                system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
                messages=[{"role": "user", "content": question}],
            )

    for span in spans.get_finished_spans():
        found = span.attributes or {}
        print(
            f"{found['promptcache.status']:6}",
            f"read {found['gen_ai.usage.cache_read.input_tokens']:5}",
            f"write {found['gen_ai.usage.cache_write.input_tokens']:5}",
            f"cost {found.get('promptcache.cost.total', float('nan')):.6f} USD",
        )


if __name__ == "__main__":
    main()
