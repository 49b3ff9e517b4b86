"""Rate limits as providers keep them: a bucket for each key, model and kind, refilled all the time, told in headers.

Anthropic limits requests, input and output tokens a minute, and input that is read from the cache does not count
(platform.claude.com/docs/en/api/rate-limits); OpenAI limits requests and tokens, and all of them count
(platform.openai.com/docs/guides/rate-limits, .../prompt-caching); Groq does as OpenAI, but for tokens that are read
(console.groq.com/docs/rate-limits). Engines that people run themselves, DeepSeek and
Gemini say nothing of limits. Nothing is refused unless ``enforced``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.clock import Clock
from otel_promptcache.providers.limits import reads_count

MINUTE: Final = 60.0

_KINDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    # Who sends headers: kinds of limits, and what stands for them in the headers' names.
    "anthropic": (
        ("requests", "anthropic-ratelimit-requests-{}"),
        ("input_tokens", "anthropic-ratelimit-input-tokens-{}"),
        ("output_tokens", "anthropic-ratelimit-output-tokens-{}"),
    ),
    "openai": (("requests", "x-ratelimit-{}-requests"), ("tokens", "x-ratelimit-{}-tokens")),
    "groq": (("requests", "x-ratelimit-{}-requests"), ("tokens", "x-ratelimit-{}-tokens")),
}


class RateLimits:
    """The buckets of an emulator. The limits may be changed while it runs."""

    def __init__(self, clock: Clock) -> None:
        self.enforced = False
        """Whether an empty bucket refuses the next request."""
        self.limits: dict[str, int] = {
            "requests": 4_000,
            "input_tokens": 2_000_000,
            "output_tokens": 400_000,
            "tokens": 2_000_000,
        }
        """A minute, by kind."""
        self._clock = clock
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Fills every bucket."""
        with self._lock:
            self._spent: dict[tuple[str, str, str], tuple[float, float]] = {}

    def exhausted(self, provider: str, owner: str, model: str) -> bool:
        """Whether the next request would be refused."""
        kinds = _KINDS.get(provider, ())
        return self.enforced and any(self._left(owner, model, kind) <= 0 for kind, _ in kinds)

    def take(self, provider: str, owner: str, model: str, used: Accounting, output: int) -> None:
        """Takes what a request has used out of its buckets."""
        read = used.read if reads_count(provider, model) is False else 0
        counted = {
            "requests": 1,
            "input_tokens": used.total - read,
            "output_tokens": output,
            "tokens": used.total - read + output,
        }
        now = self._clock.now()
        with self._lock:
            for kind, _ in _KINDS.get(provider, ()):
                key = owner, model, kind
                self._spent[key] = self._spent_now(key, now) + counted[kind], now

    def headers(self, provider: str, owner: str, model: str) -> Mapping[str, str]:
        """What the provider says of them in a response."""
        found: dict[str, str] = {}
        for kind, name in _KINDS.get(provider, ()):
            limit, left = self.limits[kind], max(0.0, self._left(owner, model, kind))
            wait = (limit - left) / limit * MINUTE
            thousands = provider == "anthropic" and kind != "requests"  # tokens are rounded to the nearest thousand
            found[name.format("limit")] = str(limit)
            found[name.format("remaining")] = str(int(round(left, -3)) if thousands else int(left))
            found[name.format("reset")] = self._reset(provider, wait)
        return found

    def _reset(self, provider: str, wait: float) -> str:
        if provider == "anthropic":
            return datetime.fromtimestamp(self._clock.now() + wait, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"{wait * 1000:.0f}ms" if wait < 1 else f"{wait:.3f}s"

    def _left(self, owner: str, model: str, kind: str) -> float:
        with self._lock:
            return self.limits[kind] - self._spent_now((owner, model, kind), self._clock.now())

    def _spent_now(self, key: tuple[str, str, str], now: float) -> float:
        """What is still missing in a bucket that has been refilled since it was last used."""
        spent, at = self._spent.get(key, (0.0, now))
        return max(0.0, spent - (now - at) / MINUTE * self.limits[key[2]])
