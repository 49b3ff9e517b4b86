"""Gemini ``usageMetadata`` to token classes, for pricing payloads offline.

Source: ai.google.dev/gemini-api/docs/caching (2026-10-13) and the types of google-genai 3.4.
"""

from __future__ import annotations

from otel_promptcache.model import Usage
from otel_promptcache.providers._wire import count, mapping


def usage(raw: object) -> Usage | None:
    """Token classes of a ``usageMetadata`` object: the prompt count includes cached tokens, the candidates' count
    excludes thoughts, which are billed as output."""
    fields = mapping(raw)
    total = count(fields.get("promptTokenCount"))
    if total is None:
        return None
    answered = count(fields.get("candidatesTokenCount"))
    thoughts = count(fields.get("thoughtsTokenCount"))
    return Usage(
        input_total=total + (count(fields.get("toolUsePromptTokenCount")) or 0),
        read=count(fields.get("cachedContentTokenCount")),
        output=None if answered is None and thoughts is None else (answered or 0) + (thoughts or 0),
        reasoning=thoughts,
    )
