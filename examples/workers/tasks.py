"""Celery tasks, each in a process of its own.

    pip install 'otel-promptcache[all]' 'celery[redis]'
    OTEL_SERVICE_NAME=jobs OTEL_PROMPTCACHE_LEDGER=true CELERY_BROKER_URL=redis://localhost \
        opentelemetry-instrument celery --app examples.workers.tasks worker --concurrency 4 --max-tasks-per-child 1
"""

from __future__ import annotations

import os

import anthropic
from celery import Celery

app = Celery("jobs", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost"))

POLICY = "You sum up what customers wrote, in a sentence. " * 160


@app.task
def summarize(letter: str) -> None:
    anthropic.Anthropic().messages.create(
        model="claude-sonnet-4-6",
        max_tokens=512,
        system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": letter}],
    )
