"""A web service whose calls are told apart by route, team, tenant and conversation.

    pip install 'otel-promptcache[all]' fastapi uvicorn opentelemetry-instrumentation-fastapi
    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 opentelemetry-instrument uvicorn examples.fastapi_app:app

Routes are found by themselves: each call carries the `http.route` of the request it serves.
"""

from __future__ import annotations

from typing import Annotated

import anthropic
from fastapi import FastAPI, Header

from otel_promptcache import attribute, conversation

app = FastAPI()
client = anthropic.AsyncAnthropic()

POLICY = "You answer questions about orders, returns and invoices. Be brief and kind. " * 80


@app.post("/threads/{thread}/messages")
async def answer(thread: str, question: str, tenant: Annotated[str, Header()] = "public") -> dict[str, str]:
    with attribute(team="support", feature="chat", tenant=tenant), conversation(thread):
        message = await client.messages.create(
            model="claude-opus-5-5",
            max_tokens=512,
            system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": question}],
        )
    return {"answer": "".join(block.text for block in message.content if block.type == "text")}
