"""A FastAPI application in several processes of uvicorn.

    pip install 'otel-promptcache[all]' fastapi uvicorn opentelemetry-instrumentation-fastapi
    OTEL_SERVICE_NAME=shop OTEL_PROMPTCACHE_LEDGER=true \
        opentelemetry-instrument uvicorn --workers 4 examples.workers.asgi:app
"""

from __future__ import annotations

import anthropic
from fastapi import FastAPI

from otel_promptcache import attribute

app = FastAPI()
client = anthropic.AsyncAnthropic()

POLICY = "You answer questions about orders, returns and invoices. Be brief and kind. " * 80


@app.get("/{question}")
async def answer(question: str) -> str:
    with attribute(team="support"):
        message = await client.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=512,
            system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": question}],
        )
    return "".join(block.text for block in message.content if block.type == "text")
