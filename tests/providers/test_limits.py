"""Rate-limit headers: which are read, what they say, and whose cache reads count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.providers.limits import HEADERS, Measure, Told, kept, parsed, reads_count

LIMIT, LEFT, WAIT = Measure.LIMIT, Measure.REMAINING, Measure.RETRY_AFTER


def said(**headers: str) -> tuple[dict[Told, float], int]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return parsed(kept(raw))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("anthropic-ratelimit-input-tokens-limit", Told(LIMIT, "input_tokens")),
        ("Anthropic-RateLimit-Output-Tokens-Remaining", Told(LEFT, "output_tokens")),
        ("anthropic-priority-input-tokens-remaining", Told(LEFT, "priority_input_tokens")),
        ("anthropic-fast-output-tokens-limit", Told(LIMIT, "fast_output_tokens")),
        ("x-ratelimit-limit-requests", Told(LIMIT, "requests")),
        ("X-RateLimit-Remaining-Tokens", Told(LEFT, "tokens")),
        ("x-ratelimitbysize-remaining-minute", Told(LEFT, "tokens")),
        ("x-ratelimit-limit-req-minute", Told(LIMIT, "requests")),
        ("x-ratelimit-remaining", Told(LEFT, "requests")),
        ("retry-after", Told(WAIT, "")),
    ],
)
def test_what_is_read(name: str, told: Told) -> None:
    """However it is spelled."""
    assert said(**{name: "17"}) == ({told: 17.0}, 0)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "x-api-key",
        "set-cookie",
        "x-request-id",
        "anthropic-organization-id",
        "x-ratelimit-reset-tokens",
    ],
)
def test_nothing_else_is(name: str) -> None:
    """Least of all what names somebody."""
    assert kept([(name.encode(), b"1")]) == []
    assert not any(name.encode() in known for known in HEADERS)


@pytest.mark.parametrize(
    "value", ["", "many", "-1", "1e9", "0x10", "nan", "9" * 16, "1,000", "Fri, 31 Dec 2027 23:59:59 GMT"]
)
def test_no_number(value: str) -> None:
    """Counted, and otherwise ignored; what stands beside it holds."""
    found, malformed = said(retry_after=value, x_ratelimit_limit_tokens="5")
    assert (found, malformed) == ({Told(LIMIT, "tokens"): 5.0}, 1)


def test_milliseconds_are_more_exact() -> None:
    """Where both headers are there, in whatever order."""
    assert said(retry_after="1", retry_after_ms="250")[0] == {Told(WAIT, ""): 0.25}
    assert said(retry_after_ms="250", retry_after="1")[0] == {Told(WAIT, ""): 0.25}


@pytest.mark.parametrize(
    ("provider", "model", "counts"),
    [
        ("anthropic", "claude-opus-5-5", False),
        ("anthropic", "claude-3-5-haiku-20241022", True),
        ("anthropic", "claude-3-7-sonnet-20250219", False),
        ("openai", "gpt-6-sol", True),
        ("azure.ai.openai", "gpt-5", True),
        ("groq", "llama-3.3-70b-versatile", False),
        ("aws.bedrock", "us.anthropic.claude-opus-5-5-v1:0", False),
        ("deepseek", "deepseek-flash", None),
        ("", "", None),
    ],
)
def test_whose_reads_count(provider: str, model: str, counts: bool | None) -> None:
    """By provider and model; nobody knows of the others."""
    assert reads_count(provider, model) is counts


@given(st.lists(st.tuples(st.sampled_from(sorted(HEADERS)) | st.binary(max_size=20), st.binary(max_size=30))))
def test_any_bytes(raw: list[tuple[bytes, bytes]]) -> None:
    """Nothing is raised, and no number is negative or beyond measure."""
    found, malformed = parsed(kept(raw))
    assert all(0 <= amount < 10**15 for amount in found.values())
    assert 0 <= malformed <= len(raw)
