"""``promptcache.advice``: an application whose cache writes do not pay, as an exporter hears of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from servers.application import Clients, Observed, fields, message, observed, text

from otel_promptcache import route
from otel_promptcache.emulator import Emulator


def advance(emulated: Emulator, seen: Observed, seconds: float) -> None:
    emulated.clock.advance(seconds)
    ahead = seen.observer.clock() - time.time() + seconds
    seen.observer.clock = lambda: time.time() + ahead


def advice(seen: Observed) -> list[dict[str, Any]]:
    seen.metrics()  # what waits to be counted is counted when metrics are collected
    return [fields(record) for record in seen.events("promptcache.advice")]


def test_a_lifetime_that_is_too_short(clients: Clients, emulated: Emulator) -> None:
    """A call every twenty minutes, at five: by the price list of the model, in money."""
    with observed() as seen, route("/chat"):
        for _ in range(16):
            clients.anthropic.messages.create(**message(text(2000), text(10)))
            advance(emulated, seen, 1200)
        (found,) = advice(seen)
        text_ = found.pop("promptcache.advice.text")
        assert text_.startswith("Entries run out before they are needed again: 1h instead of 5m costs less here.")
        assert 1200 <= found.pop("promptcache.advice.gap.median") <= found.pop("promptcache.advice.gap.p90") < 1210
        # 16 writes at 1.25 against one at 2 and 15 reads at 0.1, of 2000 tokens at 3 USD a million
        assert found.pop("promptcache.advice.usd") == pytest.approx(16.5 * 2000 * 3e-6, rel=0.01)
        assert found == {
            "promptcache.advice.kind": "ttl_too_short",
            "promptcache.advice.calls": 15,
            "promptcache.advice.ttl": "1h",
            "promptcache.ttl": "5m",
            "promptcache.route": "/chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-6",
            "promptcache.schema": 1,
        }


def test_prompts_that_are_sent_once(clients: Clients, emulated: Emulator) -> None:
    """GPT-5.6 writes by default; nobody reads."""
    with observed() as seen, route("/classify"):
        for number in range(12):
            clients.openai.responses.create(model="gpt-5.6", input=text(2000, f"{number:03}"))
        assert advice(seen) == []
        advance(emulated, seen, 1801)
        (found,) = advice(seen)
        assert (found["promptcache.advice.kind"], found["promptcache.ttl"]) == ("one_shot", "30m")
        unread = seen.total("promptcache.write.unread.cost")
        # It is said when there are ten; the metric goes on.
        assert found["promptcache.advice.usd"] == pytest.approx(
            unread * found["promptcache.advice.calls"] / 12, rel=0.1
        )


def test_writes_that_nobody_reads(clients: Clients, emulated: Emulator) -> None:
    """A breakpoint behind what is different each time."""
    with observed() as seen, route("/chat"):
        for number in range(12):
            clients.anthropic.messages.create(**message(text(2000, f"{number:03}"), text(10)))
        advance(emulated, seen, 301)
        (found,) = advice(seen)
        assert found["promptcache.advice.kind"] == "write_never_read"


@pytest.mark.parametrize("settings", [{"advice": "false"}, {"mode": "tokens"}])
def test_switched_off(settings: dict[str, str], clients: Clients, emulated: Emulator) -> None:
    with observed(**settings) as seen:
        for _ in range(16):
            clients.anthropic.messages.create(**message(text(2000), text(10)))
            advance(emulated, seen, 1200)
        assert advice(seen) == []


def test_a_conversation_needs_no_advice(clients: Clients, emulated: Emulator) -> None:
    with observed() as seen:
        for number in range(8):
            for turns in (1, 3, 5, 7):
                said = [text(20, f"{number}{turn:02}") for turn in range(turns)]
                clients.anthropic.messages.create(**message(text(2000), *said))
                advance(emulated, seen, 30)
        advance(emulated, seen, 301)
        assert advice(seen) == []
