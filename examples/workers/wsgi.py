"""A WSGI application under gunicorn, loaded before the workers are forked.

    pip install 'otel-promptcache[all]' gunicorn
    OTEL_SERVICE_NAME=shop OTEL_PROMPTCACHE_LEDGER=true \
        opentelemetry-instrument gunicorn --preload --workers 4 examples.workers.wsgi:app
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anthropic

from otel_promptcache import attribute, route

client = anthropic.Anthropic()

POLICY = "You answer questions about orders, returns and invoices. Be brief and kind. " * 80


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    question = environ["PATH_INFO"].strip("/") or "What can I return?"
    with route("/ask"), attribute(team="support"):
        message = client.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=512,
            system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": question}],
        )
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [block.text.encode() for block in message.content if block.type == "text"]
