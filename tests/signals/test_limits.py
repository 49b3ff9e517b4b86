"""Rate limits beside the cache: what providers say of them, what is refused, and what misses spend of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from servers.application import MODEL, Clients, Observed, message, observed, provider, text
from servers.canned import always

from otel_promptcache.emulator import Clock, Emulator
from otel_promptcache.telemetry.limits import STALE

GPT = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hello"}]}
CLAUDE_LABELS = {"gen_ai.provider.name": "anthropic", "gen_ai.request.model": MODEL}
GPT_LABELS = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5.6"}


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    """In whose time nothing that was spent comes back between a request and its answer's headers."""
    with provider(clock=Clock.standing(time.time())) as running:
        yield running


@pytest.fixture
def clients(emulated: Emulator) -> Iterator[Clients]:
    emulated.reset()
    emulated.limits.enforced = False
    made = Clients(emulated.url)
    yield made
    made.close()


def gauge(seen: Observed, name: str, labels: dict[str, str]) -> dict[str, float]:
    """The points of a gauge that have these labels, by kind."""
    found: dict[str, float] = {}
    for attributes, value in seen.points(f"promptcache.ratelimit.{name}").items():
        said = dict(attributes)
        kind = said.pop("promptcache.ratelimit.kind", "")
        if said == labels:
            found[kind] = value
    return found


def refused(seen: Observed) -> dict[str, float]:
    """Refusals by what became of the call."""
    found: dict[str, float] = {}
    for attributes, value in seen.points("promptcache.ratelimit.refused").items():
        found[dict(attributes).get("promptcache.status", "")] = value
    return found


async def asked(client: Any, **more: Any) -> None:
    """One call of an async client, read to its end."""
    async with client:
        answer = await client.messages.create(**message(text(2000), text(10)), **more)
        if "stream" in more:
            async for _ in answer:
                pass


SHAPES: dict[str, Callable[[Clients], Any]] = {
    "create": lambda c: c.anthropic.messages.create(**message(text(2000), text(10))),
    "stream": lambda c: list(c.anthropic.messages.create(stream=True, **message(text(2000), text(10)))),
    "raw": lambda c: c.anthropic.messages.with_raw_response.create(**message(text(2000), text(10))).parse(),
    "raw, never read": lambda c: c.anthropic.messages.with_raw_response.create(**message(text(2000), text(10))),
    "async": lambda c: asyncio.run(asked(c.async_anthropic)),
    "async stream": lambda c: asyncio.run(asked(c.async_anthropic, stream=True)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_anthropic(clients: Clients, shape: str) -> None:
    """Limits and what is left of them, by provider and model, whatever the shape of the call."""
    with observed() as seen:
        SHAPES[shape](clients)
        limits, left = gauge(seen, "limit", CLAUDE_LABELS), gauge(seen, "remaining", CLAUDE_LABELS)
    assert limits == {"requests": 4000, "input_tokens": 2_000_000, "output_tokens": 400_000}
    assert (left["requests"], left["input_tokens"]) == (3999, 1_998_000)


def test_openai(clients: Clients) -> None:
    """In its own headers; other calls stay apart."""
    with observed() as seen:
        clients.openai.chat.completions.create(**GPT)
        SHAPES["create"](clients)
        limits, left = gauge(seen, "limit", GPT_LABELS), gauge(seen, "remaining", GPT_LABELS)
        assert gauge(seen, "limit", CLAUDE_LABELS)["requests"] == 4000
    assert limits == {"requests": 4000, "tokens": 2_000_000}
    assert left["requests"] == 3999
    assert 1_999_900 <= left["tokens"] < 2_000_000


def test_who_says_nothing(emulated: Emulator, clients: Clients) -> None:
    """No header, no gauge: absent is not zero."""
    with observed() as seen, openai.OpenAI(api_key="k", base_url=emulated.url + "/vllm/v1", max_retries=0) as client:
        client.chat.completions.create(**GPT)
        assert seen.points("promptcache.ratelimit.limit") == {}


def test_what_is_left_grows_old(clients: Clients) -> None:
    """Two minutes later nobody knows it; the limit still is what it was."""
    with observed() as seen:
        SHAPES["create"](clients)
        assert gauge(seen, "remaining", CLAUDE_LABELS)
        limits = seen.observer.telemetry.book.limits  # type: ignore[attr-defined]
        real = limits._clock
        limits._clock = lambda: real() + STALE + 1
        try:
            assert gauge(seen, "remaining", CLAUDE_LABELS) == {}
            assert gauge(seen, "limit", CLAUDE_LABELS)["requests"] == 4000
        finally:
            limits._clock = real


class TestRefusals:
    """Every 429, by what became of its call in the end."""

    @pytest.mark.parametrize("way", ["sync", "async"])
    def test_retried(self, emulated: Emulator, clients: Clients, way: str) -> None:
        """Refused twice and answered then: one call, one span, two refusals, on a call that missed nothing."""
        emulated.retry_after = 0.01
        with observed() as seen:
            ask = message(text(2000), text(10))
            how = {"extra_headers": {"x-emulator-fault": "429*2"}}
            if way == "sync":
                clients.anthropic.with_options(max_retries=3).messages.create(**ask, **how)
            else:
                asyncio.run(asked(clients.async_anthropic.with_options(max_retries=3), **how))
            assert refused(seen) == {"cold": 2}
            assert gauge(seen, "retry_after", CLAUDE_LABELS) == {"": 0.01}
            assert seen.call["http.request.resend_count"] == 2

    @pytest.mark.parametrize("retries", [0, 2])
    def test_in_the_end(self, clients: Clients, emulated: Emulator, retries: int) -> None:
        """Refused for good: every attempt counts once, and there is no status."""
        emulated.retry_after = 0.01
        with observed() as seen:
            with pytest.raises(openai.RateLimitError):
                clients.openai.with_options(max_retries=retries).chat.completions.create(
                    **GPT, extra_headers={"x-emulator-fault": "429"}
                )
            assert sum(refused(seen).values()) == retries + 1
            assert gauge(seen, "limit", GPT_LABELS)["tokens"] == 2_000_000

    def test_other_errors_are_none(self, clients: Clients) -> None:
        """An outage is not a limit."""
        with observed() as seen:
            with pytest.raises(anthropic.InternalServerError):
                clients.anthropic.messages.create(
                    **message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"}
                )
            assert refused(seen) == {}

    def test_a_miss_spends_the_limit(self, emulated: Emulator, clients: Clients) -> None:
        """Three hits leave room for a fourth; three misses do not. That is what caching is worth beside its price."""
        emulated.limits.enforced = True
        emulated.limits.limits["input_tokens"] = 5000
        try:
            with observed() as seen:
                for number in range(4):
                    clients.anthropic.messages.create(**message(text(2000), text(10 + number)))
                assert seen.total("promptcache.ratelimit.lost.tokens") == 0
                emulated.limits.clear()
                changed = [message(f"{number}---\n" + text(1999), text(10)) for number in range(4)]
                for one in changed[:3]:
                    clients.anthropic.messages.create(**one)
                with pytest.raises(anthropic.RateLimitError):
                    clients.anthropic.messages.create(**changed[3])
                assert sum(refused(seen).values()) == 1
                lost = seen.total("promptcache.ratelimit.lost.tokens")
                assert lost == seen.total("promptcache.lost.tokens") > 4000
                assert gauge(seen, "remaining", CLAUDE_LABELS)["input_tokens"] == 0
        finally:
            emulated.limits.limits["input_tokens"] = 2_000_000


def test_misses_of_others_spend_no_limit(clients: Clients) -> None:
    """Where reads count as much as anything, a miss is no loss but of money."""
    with observed() as seen:
        for first in ("one", "two"):
            clients.openai.chat.completions.create(
                model="gpt-5.6",
                messages=[
                    {"role": "developer", "content": f"{first}\n" + text(3000)},
                    {"role": "user", "content": text(10)},
                ],
            )
        assert seen.total("promptcache.lost.tokens") > 0
        assert seen.total("promptcache.ratelimit.lost.tokens") == 0


ONE = {"input_tokens": 1, "output_tokens": 1}


class TestForeignHeaders:
    """A provider, or whatever stands in front of it, may send anything."""

    def test_malformed(self, caplog: pytest.LogCaptureFixture) -> None:
        """Counted, not logged, and nothing else is lost."""
        headers = {
            "anthropic-ratelimit-requests-limit": "SECRET",
            "anthropic-ratelimit-requests-remaining": "-5",
            "anthropic-ratelimit-input-tokens-limit": "7",
        }
        with caplog.at_level(logging.DEBUG, "otel_promptcache"), observed() as seen:
            always(ONE, model=MODEL, headers=headers).messages.create(**message(text(20), text(10)))
            assert gauge(seen, "limit", CLAUDE_LABELS) == {"input_tokens": 7}
            assert seen.points("promptcache.ratelimit.malformed") == {frozenset(CLAUDE_LABELS.items()): 2}
            assert seen.points("promptcache.internal.errors") == {}
        assert [record for record in caplog.records if record.name == "otel_promptcache"] == []

    def test_no_other_header_leaves(self) -> None:
        """Not on spans, not in the ledger, not on metrics."""
        headers = {"set-cookie": "SECRET=1", "x-request-id": "SECRET", "anthropic-organization-id": "SECRET"}
        with observed(ledger="true") as seen:
            always(ONE, model=MODEL, headers=headers).messages.create(**message(text(20), text(10)))
            told = [dict(span.attributes or {}) for span in seen.spans] + seen.ledger
            points = [metric.to_json() for metric in seen.metrics().values()]
        assert "SECRET" not in str(told) + str(points)
