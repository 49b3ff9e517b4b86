"""Advice on cache writes: when it is given, what it rests on, and what it would have saved."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.advice import Advisor, Finding, sentence
from otel_promptcache.history import Write
from otel_promptcache.model import Cost, Observation, Usage
from otel_promptcache.semconv import Advice

MINUTE, HOUR = 60, 3600
ROW = ("promptcache.route", "/chat")
NOTHING = Decimal(0)
PRICE = Decimal("0.000003")
COST = Cost(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, "v", read_price=PRICE / 10, fresh_price=PRICE)


def call(gap: float | None, ttl: int, at: float = 0.0, dialect: str = "anthropic", **usage: Any) -> Observation:
    seen = Observation(
        call_id="c", dialect=dialect, provider="p", endpoint="e", port=443, model="m", stream=False, at=at
    )
    seen.write_ttls, seen.gap, seen.cost = (ttl,), gap, COST
    seen.usage = Usage(5000, **{"read": 4000, "write": 0, "output": 1, **usage})
    return seen


def calls(gaps: Iterable[float | None], ttl: int, **more: Any) -> list[Finding]:
    advisor = Advisor()
    return [found for gap in gaps for found in advisor.call(ROW, call(gap, ttl, **more))]


def spread(firsts: int, *gaps: tuple[int, float]) -> list[float | None]:
    return [None] * firsts + [gap for count, gap in gaps for _ in range(count)]


LIFETIMES = [
    # What was seen, the lifetime used, and the one that costs less.
    ("coffee breaks", spread(1, (31, 20 * MINUTE)), 5 * MINUTE, (Advice.TTL_TOO_SHORT, HOUR)),
    ("some coffee breaks", spread(2, (10, 20 * MINUTE), (20, MINUTE)), 5 * MINUTE, (Advice.TTL_TOO_SHORT, HOUR)),
    ("busy", spread(8, (24, MINUTE)), HOUR, (Advice.TTL_TOO_LONG, 5 * MINUTE)),
    ("busy at the short one", spread(8, (24, MINUTE)), 5 * MINUTE, None),
    ("coffee breaks at the long one", spread(1, (31, 20 * MINUTE)), HOUR, None),
    ("once a day", spread(1, (31, 24 * HOUR)), HOUR, (Advice.TTL_TOO_LONG, 5 * MINUTE)),
    ("once a day at the short one", spread(1, (31, 24 * HOUR)), 5 * MINUTE, None),
    ("hardly worth it", spread(1, (30, MINUTE), (1, 20 * MINUTE)), 5 * MINUTE, None),
    ("too few gaps", spread(23, (9, 20 * MINUTE)), 5 * MINUTE, None),
]


@pytest.mark.parametrize(
    ("gaps", "ttl", "expected"), [case[1:] for case in LIFETIMES], ids=[one[0] for one in LIFETIMES]
)
def test_lifetimes(gaps: list[float | None], ttl: int, expected: Any) -> None:
    """The lifetime that would have cost least for the gaps seen, where it saves a tenth."""
    found = calls(gaps, ttl)
    assert [(one.advice, one.better) for one in found] == ([expected] if expected else [])


def test_what_it_would_have_saved() -> None:
    """16 calls of 4000 cached tokens at 3 USD a million, the first new, the others 20 minutes apart: 16 writes at 1.25
    against one at 2 and 15 reads at 0.1, so 20 - 3.5 input prices of 4000 tokens."""
    (found,) = calls(spread(1, (15, 20 * MINUTE)), 5 * MINUTE)
    assert found.usd == pytest.approx((20 - 3.5) * 4000 * 0.000003)
    assert found.gaps == (20 * MINUTE, 20 * MINUTE)
    assert (found.calls, found.labels, found.ttl) == (15, ROW, 5 * MINUTE)
    assert sentence(found) == (
        "Entries run out before they are needed again: 1h instead of 5m costs less here. "
        "Half of the calls that share a prefix come within 20 min, nine in ten within 20 min."
    )


def test_openai_lifetimes() -> None:
    """Thirty minutes and twelve hours, of Responses; elsewhere there is no choice, and no advice."""
    gaps = spread(1, (31, 4 * HOUR))
    assert [one.better for one in calls(gaps, 30 * MINUTE, dialect="openai_responses")] == [12 * HOUR]
    assert calls(gaps, 30 * MINUTE, dialect="openai_chat") == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 90_000)), max_size=100), st.sampled_from([5 * MINUTE, HOUR]))
def test_advice_is_consistent(gaps: list[float | None], ttl: int) -> None:
    """Never the lifetime that is used already, never both ways, and always worth something."""
    for found in calls(gaps, ttl):
        assert found.better not in (None, ttl)
        assert found.usd > 0
        assert sentence(found)


# --- Writes that nobody reads -------------------------------------------------------------------------------


def unread(advisor: Advisor, count: int, *, implied: bool = False, at: float = 300.0) -> list[Finding]:
    writes = [Write(300, at, 0.001, ROW, implied=implied) for _ in range(count)]
    return [found for write in writes for found in advisor.unread(write)]


def test_write_never_read() -> None:
    """Ten are enough; it is said once, and again after a day."""
    advisor = Advisor()
    assert unread(advisor, 9) == []
    (found,) = unread(advisor, 1)
    assert (found.advice, found.calls, found.usd) == (Advice.WRITE_NEVER_READ, 10, pytest.approx(0.01))
    assert unread(advisor, 50) == []
    assert [one.advice for one in unread(advisor, 3, at=300.0 + 86_400)] == [Advice.WRITE_NEVER_READ]


def test_most_writes_are_read() -> None:
    """The last turn of each conversation is not: that is no waste."""
    advisor = Advisor()
    for number in range(120):
        list(advisor.call(ROW, call(30.0 if number % 8 else None, 5 * MINUTE, write=500)))
    assert unread(advisor, 20) == []


def test_one_shot() -> None:
    """Written by default: there is no breakpoint to take out, but a mode to name."""
    (found,) = unread(Advisor(), 10, implied=True)
    assert found.advice is Advice.ONE_SHOT
    assert 'prompt_cache_options={"mode": "explicit"}' in sentence(found)


@pytest.mark.parametrize("lacking", ["write_ttls", "usage", "cost"])
def test_what_is_not_known_is_not_counted(lacking: str) -> None:
    advisor = Advisor()
    for _ in range(64):
        seen = call(20.0 * MINUTE, 5 * MINUTE)
        setattr(seen, lacking, None)
        assert list(advisor.call(ROW, seen)) == []


def test_routes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a route after every customer gets advice for the first of them."""
    monkeypatch.setattr("otel_promptcache.advice.MAX_ROUTES", 5)
    advisor = Advisor()
    for number in range(50):
        for gap in (None, *[1000.0] * 20):
            list(advisor.call(("promptcache.route", str(number)), call(gap, 5 * MINUTE)))
    assert len(advisor._routes) == 5
