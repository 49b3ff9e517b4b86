"""Rate limits: the response headers that tell them, and whether reading from the cache counts against them.

The headers here are the only ones of a response that are looked at. Everything else stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

Header = tuple[bytes, bytes]
"""Name and value as they came over the wire."""


class Measure(StrEnum):
    """What a header tells."""

    LIMIT = "limit"
    REMAINING = "remaining"
    RETRY_AFTER = "retry_after"
    """Seconds."""


class Told(NamedTuple):
    """A header in our words. ``kind`` is what is limited, empty where the header is of no kind."""

    measure: Measure
    kind: str


def _headers() -> dict[bytes, Told]:
    kinds = {
        # What stands around "limit" and "remaining", and the kind that it is.
        # platform.claude.com/docs/en/api/rate-limits, .../service-tiers, .../fast-mode (2026-09)
        "anthropic-ratelimit-requests-{}": "requests",
        "anthropic-ratelimit-tokens-{}": "tokens",
        "anthropic-ratelimit-input-tokens-{}": "input_tokens",
        "anthropic-ratelimit-output-tokens-{}": "output_tokens",
        "anthropic-priority-input-tokens-{}": "priority_input_tokens",
        "anthropic-priority-output-tokens-{}": "priority_output_tokens",
        "anthropic-fast-input-tokens-{}": "fast_input_tokens",
        "anthropic-fast-output-tokens-{}": "fast_output_tokens",
        # platform.openai.com/docs/guides/rate-limits; Azure, Groq, xAI and other compatible endpoints have the same
        "x-ratelimit-{}-requests": "requests",
        "x-ratelimit-{}-tokens": "tokens",
        # Mistral (as seen in traffic, 2026)
        "x-ratelimit-{}-req-minute": "requests",
        "x-ratelimit-{}-tokens-minute": "tokens",
        "x-ratelimitbysize-{}-minute": "tokens",
        # OpenRouter and other gateways
        "x-ratelimit-{}": "requests",
    }
    found = {
        pattern.format(measure).encode(): Told(measure, kind)
        for pattern, kind in kinds.items()
        for measure in (Measure.LIMIT, Measure.REMAINING)
    }
    return found | {b"retry-after": Told(Measure.RETRY_AFTER, ""), b"retry-after-ms": Told(Measure.RETRY_AFTER, "")}


HEADERS: Final = _headers()
"""The allow list, names in lower case."""
_NUMBER: Final = re.compile(rb"\s*(\d{1,15})(?:\.(\d{1,6})\d{0,12})?\s*")


def kept(raw: Iterable[Header]) -> list[Header]:
    """Those of a response's headers that are in the allow list."""
    return [pair for pair in raw if pair[0].lower() in HEADERS]


def parsed(headers: Sequence[Header]) -> tuple[dict[Told, float], int]:
    """What the headers say, and how many of them say nothing that is a number. An HTTP date is a way to say
    ``retry-after`` too; no provider uses it, and it is among the latter."""
    found: dict[Told, float] = {}
    malformed = 0
    for name, value in headers:
        number = _NUMBER.fullmatch(value)
        if number is None:
            malformed += 1
            continue
        told, lowered = HEADERS[name.lower()], name.lower()
        amount = float(value)
        if lowered == b"retry-after-ms":
            found[told] = amount / 1000
        else:
            found.setdefault(told, amount)
    return found, malformed


class Counting(NamedTuple):
    """Whether tokens that are read from the cache count against the limit of input tokens."""

    provider: str
    models: str
    """A pattern; empty for all others."""
    reads_count: bool
    source: str


_DAGGER: Final = "docs.anthropic.com/en/api/rate-limits, models marked with a dagger (2025)"
COUNTING: Final = (
    # The first row that fits holds; of a provider that is not here, nothing is known.
    Counting("anthropic", "claude-3-5-*", True, _DAGGER),
    Counting("anthropic", "claude-3-haiku*", True, _DAGGER),
    Counting("anthropic", "claude-3-opus*", True, _DAGGER),
    Counting("anthropic", "", False, "platform.claude.com/docs/en/api/rate-limits (2026-11)"),
    Counting("aws.bedrock", "", False, "github.com/aws/agent-toolkit-for-aws, prompt-caching.md (2026-11)"),
    Counting("openai", "", True, "platform.openai.com/docs/guides/prompt-caching, FAQ"),
    Counting("azure.ai.openai", "", True, "as OpenAI: platform.openai.com/docs/guides/prompt-caching, FAQ"),
    Counting("groq", "", False, "console.groq.com/docs/rate-limits (2026-11)"),
)


def reads_count(provider: str, model: str) -> bool | None:
    """Whether cache reads count against the limit of input tokens; None where nobody says."""
    for row in COUNTING:
        if row.provider == provider and (not row.models or fnmatchcase(model, row.models)):
            return row.reads_count
    return None
