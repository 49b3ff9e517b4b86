"""Rate limits of the emulator: buckets that refill, told in headers, and what counts against them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from otel_promptcache.emulator import Clock, Emulator, emulator

SYSTEM = [{"type": "text", "text": "abc " * 2000, "cache_control": {"type": "ephemeral"}}]
ASK: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 10,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": "hello"}],
}
CHAT = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def provider() -> Iterator[Emulator]:
    """Time stands, for buckets are refilled in no time."""
    with emulator(clock=Clock.standing(1_800_000_000)) as running:
        yield running


def post(provider: Emulator, path: str, body: dict[str, Any], key: str = "k") -> httpx2.Response:
    headers = {"x-api-key": key, "authorization": f"Bearer {key}", "anthropic-version": "2023-06-01"}
    return httpx2.post(provider.url + path, json=body, headers=headers)


def left(provider: Emulator, key: str = "k") -> int:
    headers = post(provider, "/v1/messages", ASK, key).headers
    return int(headers["anthropic-ratelimit-input-tokens-remaining"])


def test_what_is_read_does_not_count(provider: Emulator) -> None:
    """The write does; tokens are told in thousands. Another key has a bucket of its own."""
    provider.limits.limits["input_tokens"] = 6000
    assert [left(provider), left(provider), left(provider)] == [4000] * 3
    assert left(provider, "another") == 4000


def test_buckets_refill(provider: Emulator) -> None:
    """All the time, and a minute fills them."""
    provider.limits.limits["input_tokens"] = 6000
    assert left(provider) == 4000
    provider.clock.advance(10)
    assert left(provider) == 5000
    provider.clock.advance(60)
    assert left(provider) == 6000


def test_openai_counts_everything(provider: Emulator) -> None:
    """Cached tokens, too, and the answer."""
    headers = post(provider, "/v1/chat/completions", CHAT).headers
    assert headers["x-ratelimit-limit-tokens"] == "2000000"
    assert int(headers["x-ratelimit-remaining-tokens"]) < 2_000_000
    assert headers["x-ratelimit-remaining-requests"] == "3999"
    assert headers["x-ratelimit-reset-requests"].endswith("ms")


@pytest.mark.parametrize("who", ["deepseek", "vllm", "sglang", "llamacpp"])
def test_who_says_nothing(provider: Emulator, who: str) -> None:
    """As in recorded traffic."""
    headers = post(provider, f"/{who}/v1/chat/completions", CHAT).headers
    assert [name for name in headers if "ratelimit" in name] == []


def test_refused(provider: Emulator) -> None:
    """An empty bucket refuses, in the provider's shape, until it has refilled or is told to forget."""
    provider.limits.enforced = True
    provider.limits.limits["input_tokens"] = 1000
    assert post(provider, "/v1/messages", ASK).status_code == 200
    refusal = post(provider, "/v1/messages", ASK)
    assert (refusal.status_code, refusal.json()["error"]["type"]) == (429, "rate_limit_error")
    assert refusal.headers["anthropic-ratelimit-input-tokens-remaining"] == "0"
    assert refusal.headers["retry-after"] == "1"
    provider.clock.advance(120)
    assert post(provider, "/v1/messages", ASK).status_code == 200
    provider.reset()
    assert post(provider, "/v1/messages", ASK).status_code == 200
