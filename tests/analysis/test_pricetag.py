"""The price of a change, worked by hand.

The model's prices in these ledgers are 3 USD a million tokens, 0.30 read, 3.75 written: a token that is written in
place of being read costs 3.45 USD a million more.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.analysis.ledger import LedgerCall
from otel_promptcache.analysis.pricetag import DAY, Comparison, PriceTag, changes, tags
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.providers import BY_NAME
from otel_promptcache.snapshot import Prefix, Snapshot, SnapshotError, take

KEY, DEPLOYMENT = HashKey("snapshot"), HashKey("deployment")
MODEL = "claude-sonnet-4-6"
PREMIUM = (3.75 - 0.30) / 1e6


def prefix(system: str, deployment: HashKey | None = DEPLOYMENT, **more: Any) -> Prefix:
    body = {"model": MODEL, "system": system, "messages": [{"role": "user", "content": "hello"}], **more}
    return take(BY_NAME["anthropic"].prompt(body), "anthropic", KEY, deployment)


def tools(name: str, ttl: bool = False) -> list[dict[str, Any]]:
    mark = {"cache_control": {"type": "ephemeral"}} if ttl else {}
    return [{"name": name, "description": "x" * 4000, "input_schema": {"type": "object"}, **mark}]


def call(at: float, of: Prefix, read: int = 2000, conversation: str = "c", **more: Any) -> LedgerCall:
    """A call that read so many tokens and wrote 100."""
    assert of.production is not None
    known = {
        "identity": f"{at} {conversation} {more}",
        "provider": "anthropic",
        "model": MODEL,
        "route": "/chat",
        "key_id": DEPLOYMENT.id,
        "sections": of.production.sections,
        "write": 100,
        "uncached": 10,
        "cost_read": read * 0.3e-6,
        "cost_write": 100 * 3.75e-6,
        "cost_uncached": 10 * 3e-6,
    }
    return LedgerCall(**(known | {"at": at, "read": read, "conversation": conversation} | more))


def price(old: Prefix, new: Prefix, *ledger: LedgerCall, days: float | None = None) -> PriceTag:
    """The tag of the only change."""
    base, head = (Snapshot("key", {"test": [one]}) for one in (old, new))
    ((tag,), _) = tags(changes(base, head).changed, ledger, days)
    return tag


def compared(old: list[Prefix], new: list[Prefix]) -> Comparison:
    """The prefixes of one test, before and after."""
    return changes(Snapshot("key", {"test": old}), Snapshot("key", {"test": new}))


def blocks(*lifetimes: int, text: str = "words " * 500) -> Prefix:
    """A system block for each lifetime of its breakpoint in seconds, 0 for none."""
    control = {300: {"type": "ephemeral"}, 3600: {"type": "ephemeral", "ttl": "1h"}}
    found = [
        {"type": "text", "text": f"{number} {text}"} | ({"cache_control": control[ttl]} if ttl else {})
        for number, ttl in enumerate(lifetimes)
    ]
    body = {"model": MODEL, "system": found, "messages": [{"role": "user", "content": "hello"}]}
    return take(BY_NAME["anthropic"].prompt(body), "anthropic", KEY, DEPLOYMENT)


GONE = prefix("another agent")
OLD, NEW = prefix("one\ntwo\nthree"), prefix("one\nTWO\nthree")


class TestTraffic:
    """Which calls have the old prefix, and how many a day."""

    def test_calls_a_day_by_route(self) -> None:
        """Over the time that the whole ledger covers, whosever calls are its first and last."""
        other = prefix("another agent")
        tag = price(
            OLD,
            NEW,
            call(0, other),
            *(call(second, OLD) for second in (10, 20, 30)),
            call(40, OLD, route="/mail"),
            call(2 * DAY, other),
        )
        assert (tag.calls, tag.calls_a_day) == (4, 2)
        assert tag.routes == (("/chat", 1.5), ("/mail", 0.5))

    def test_a_given_number_of_days(self) -> None:
        """For a ledger that was cut out of a longer time."""
        assert price(OLD, NEW, call(0, OLD), call(10, OLD), days=0.5).calls_a_day == 4

    def test_changed_tools_concern_every_system_prompt(self) -> None:
        """What stands behind the change may be another tenant's; what stands in front may not."""
        old, new = prefix("for acme", tools=tools("a")), prefix("for acme", tools=tools("b"))
        tenants = [call(0, prefix("for zenith", tools=tools("a"))), call(DAY, prefix("for acme", tools=tools("a")))]
        assert price(old, new, *tenants, call(1, prefix("for acme", tools=tools("c")))).calls == 2

    def test_a_changed_system_prompt_concerns_its_own_calls(self) -> None:
        """Under the same tools only."""
        old, new = prefix("one", tools=tools("a")), prefix("two", tools=tools("a"))
        others = [prefix("one"), prefix("one", tools=tools("b")), prefix("three", tools=tools("a"))]
        assert price(old, new, call(0, old), *(call(DAY, other) for other in others)).calls == 1

    def test_first_tools(self) -> None:
        """Added in front of everything: calls that have none yet."""
        new = prefix("one\ntwo\nthree", tools=tools("a"))
        assert price(OLD, new, call(0, OLD), call(DAY, new)).calls == 1

    def test_another_model(self) -> None:
        """Concerns the calls that went to the old one."""
        new = prefix("one\ntwo\nthree", model="claude-opus-5-5")
        tag = price(OLD, new, call(0, OLD), call(DAY, OLD, model="claude-opus-5-5"))
        assert (tag.calls, tag.change.difference.path) == (1, "model")


class TestIfItVaries:
    """Everything that is read today, paid in full."""

    def test_is_what_they_read(self) -> None:
        """Two days, 2000 + 3000 + 0 tokens read."""
        tag = price(OLD, NEW, call(0, OLD), call(DAY, OLD, 3000), call(2 * DAY, OLD, 0, cost_read=0.0))
        assert tag.usd_a_day == pytest.approx(5000 * PREMIUM / 2)

    def test_without_a_write_price_it_is_the_uncached_one(self) -> None:
        """As with providers that do not charge for writes."""
        free = {"write": 0, "cost_write": 0.0}
        tag = price(OLD, NEW, call(0, OLD, **free), call(DAY, OLD, **free))
        assert tag.usd_a_day == pytest.approx(4000 * 2.7e-6)

    def test_what_stands_in_front_is_read_all_the_same(self) -> None:
        """Tools with a breakpoint of their own survive a changed system prompt, by their share of the bytes."""
        old, new = (prefix(system, tools=tools("a", ttl=True)) for system in ("one " * 1000, "two " * 1000))
        share = old.parts[0].size / old.size
        tag = price(old, new, call(0, old, 4000), call(DAY, old, 4000))
        assert tag.usd_a_day == pytest.approx(2 * (4000 - int(4000 * share)) * PREMIUM)
        unmarked = [prefix(system, tools=tools("a")) for system in ("one " * 1000, "two " * 1000)]
        tag = price(*unmarked, call(0, unmarked[0], 4000), call(DAY, unmarked[0], 4000))
        assert tag.usd_a_day == pytest.approx(2 * 4000 * PREMIUM)

    @given(some.lists(some.integers(min_value=0, max_value=100_000), min_size=2, max_size=20))
    def test_is_proportional_to_traffic(self, reads: list[int]) -> None:
        """Twice the calls in the same time cost twice as much."""
        once = [call(index * DAY, OLD, read) for index, read in enumerate(reads)]
        twice = [*once, *(one._replace(identity=one.identity + "again") for one in once)]
        first, second = price(OLD, NEW, *once), price(OLD, NEW, *twice)
        assert second.usd_a_day == pytest.approx(2 * (first.usd_a_day or 0))


class TestOneRewrite:
    """What is alive at a moment is written again."""

    def test_one_conversation(self) -> None:
        """Whenever the change comes between its two calls, the second writes what it would have read."""
        tag = price(OLD, NEW, call(0, OLD, 0, cost_read=0.0), call(DAY, OLD, 5000))
        assert tag.usd_once == pytest.approx(5000 * PREMIUM)

    def test_half_of_the_time(self) -> None:
        """A conversation that spans half of the ledger is alive at every other moment."""
        other = prefix("another agent")
        tag = price(OLD, NEW, call(0, OLD, 0, cost_read=0.0), call(DAY / 2, OLD, 5000), call(DAY, other))
        assert tag.usd_once == pytest.approx(5000 * PREMIUM / 2)

    def test_conversations_share_what_they_have_in_common(self) -> None:
        """Two at once, 2000 tokens in common: those are written once, the rest of each for itself."""
        tag = price(
            OLD,
            NEW,
            call(0, OLD, 2000, "a"),
            call(0, OLD, 2000, "b"),
            call(DAY, OLD, 5000, "a"),
            call(DAY, OLD, 7000, "b"),
        )
        assert tag.usd_once == pytest.approx((2000 + 3000 + 5000) * PREMIUM)

    def test_days_that_are_said_to_be_fewer(self) -> None:
        """Change the calls a day; one rewrite is one rewrite."""
        ledger = [call(0, OLD, 0, cost_read=0.0), call(DAY, OLD, 5000)]
        assert price(OLD, NEW, *ledger, days=0.1).usd_once == pytest.approx(5000 * PREMIUM)
        assert price(OLD, NEW, *ledger, days=2).usd_once == pytest.approx(5000 * PREMIUM / 2)

    def test_is_never_more_than_a_day_of_varying_in_a_day(self) -> None:
        """One rewrite of everything costs no more than to rewrite it with each call of the ledger."""
        ledger = [call(hour * 3600.0, OLD, 2000 + hour * 10, f"c{hour % 5}") for hour in range(25)]
        tag = price(OLD, NEW, *ledger)
        assert tag.usd_once is not None
        assert tag.usd_a_day is not None
        assert 0 < tag.usd_once < tag.usd_a_day


class TestABreakpoint:
    """The text is what it was; what is cached of it is not."""

    def test_that_is_gone(self) -> None:
        """What the calls read they pay for as uncached from then on, every day: no rewrite ends that."""
        tag = price(blocks(300), blocks(0), call(0, blocks(300)), call(2 * DAY, blocks(300), 3000))
        assert tag.change.lasting
        assert tag.usd_a_day == pytest.approx(5000 * 2.7e-6 / 2)
        assert tag.usd_once == 0

    def test_another_one_that_is_left(self) -> None:
        """Keeps what stands in front of it; further back, everything."""
        ledger = [call(0, blocks(300, 300), 4000), call(DAY, blocks(300, 300), 4000)]
        share = int(4000 * blocks(0, 0).parts[0].size / blocks(0, 0).size)
        front = price(blocks(300, 300), blocks(300, 0), *ledger)
        assert front.usd_a_day == pytest.approx(2 * (4000 - share) * 2.7e-6)
        assert price(blocks(300, 300), blocks(0, 300), *ledger).usd_a_day == 0

    def test_that_goes_with_its_text(self) -> None:
        """Is a change beside the other one."""
        found = compared([blocks(300)], [blocks(0, text="other words")])
        assert [change.lasting for change in found.changed] == [False, True]

    def test_that_is_new(self) -> None:
        """Takes nothing away."""
        tag = price(blocks(0), blocks(300), call(0, blocks(0)), call(DAY, blocks(0)))
        assert (tag.calls, tag.usd_once, tag.usd_a_day, tag.unknown) == (2, 0, 0, "")

    def test_that_lives_for_another_time(self) -> None:
        """Costs what nobody knows."""
        tag = price(blocks(300), blocks(3600), call(0, blocks(300)), call(DAY, blocks(300)))
        assert tag.usd_a_day is None
        assert "another lifetime" in tag.unknown


class TestUnknown:
    """What the ledger cannot tell is not zero."""

    def test_no_digests_of_production(self) -> None:
        """The snapshot was made without the deployment's key."""
        tag = price(prefix("one", None), NEW, call(0, OLD), call(DAY, OLD))
        assert (tag.usd_once, tag.usd_a_day) == (None, None)
        assert "OTEL_PROMPTCACHE_HASH_KEY" in tag.unknown

    def test_another_key(self) -> None:
        """Digests compare under one key only."""
        tag = price(OLD, NEW, call(0, OLD, key_id="ffffffff"), call(DAY, OLD, key_id="ffffffff"))
        assert f"{DEPLOYMENT.id}, the ledger under ffffffff" in tag.unknown

    def test_no_price(self) -> None:
        """Calls are counted, money is not guessed."""
        unpriced = {"cost_read": None, "cost_write": None, "cost_uncached": None}
        tag = price(OLD, NEW, call(0, OLD, **unpriced), call(DAY, OLD, **unpriced))
        assert (tag.calls, tag.usd_a_day) == (2, None)
        assert tag.unknown == f"the ledger has no price for {MODEL}"

    def test_no_time(self) -> None:
        """One call makes no day."""
        assert "--days" in price(OLD, NEW, call(0, OLD)).unknown

    def test_a_prefix_that_nobody_sends(self) -> None:
        """Is no unknown: it costs nothing."""
        tag = price(OLD, NEW, call(0, prefix("other")), call(DAY, prefix("other")))
        assert (tag.calls, tag.usd_once, tag.usd_a_day, tag.unknown) == (0, 0, 0, "")


class TestChanges:
    """What differs between two snapshots."""

    def test_the_same_change_once(self) -> None:
        """With every test that says so."""
        base = Snapshot("key", {"a": [OLD], "b": [OLD], "c": [prefix("other")], "gone": [GONE]})
        head = Snapshot("key", {"a": [NEW], "b": [NEW], "c": [prefix("other")], "new": [prefix("new")]})
        (change,), gone, new = changes(base, head)
        assert (gone, new) == (("gone",), ("new",))
        assert (change.tests, change.difference.path, change.difference.line) == (("a", "b"), "system", 2)
        assert not change.varies

    def test_several_prefixes_where_there_was_one(self) -> None:
        """The calls of one test no longer agree."""
        (change,) = compared([OLD], [NEW, prefix("one\n2\nthree")]).changed
        assert change.varies

    def test_in_another_order(self) -> None:
        """Calls that run at once, and one that comes first now, change nothing of the others."""
        assert compared([OLD, GONE], [GONE, OLD]) == Comparison([])
        assert compared([OLD, GONE], [prefix("new"), OLD, GONE]) == Comparison([], (), ("test",))

    def test_a_prefix_that_is_sent_no_longer(self) -> None:
        """Was not compared with anything."""
        assert compared([OLD, GONE], [OLD]) == Comparison([], ("test",))

    @pytest.mark.parametrize(
        ("old", "new", "places"),
        [
            (OLD, OLD, []),
            (OLD, NEW, ["system"]),
            (OLD, prefix("one\ntwo\nthree", tools=tools("a")), ["tools[0]"]),
            (OLD, prefix("all new"), None),
            (OLD, prefix("one\nTWO\nthree", tools=tools("a")), None),
        ],
        ids=["equal", "edited", "added", "another", "two places"],
    )
    def test_a_test_that_was_renamed(self, old: Prefix, new: Prefix, places: list[str] | None) -> None:
        """Is compared under its new name; one that has little in common is another test."""
        found = changes(Snapshot("key", {"a": [old]}), Snapshot("key", {"other": [GONE], "b": [new]}))
        if places is None:
            assert found == Comparison([], ("a",), ("other", "b"))
        else:
            assert [change.difference.path for change in found.changed] == places
            assert {test for change in found.changed for test in change.tests} <= {"b"}
            assert (found.gone, found.new) == ((), ("other",))

    def test_different_keys(self) -> None:
        """Would make everything a change."""
        with pytest.raises(SnapshotError, match="under different keys"):
            changes(Snapshot("one", {"a": [OLD]}), Snapshot("two", {"a": [NEW]}))
