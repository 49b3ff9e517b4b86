"""Usage to money: exact, by the prices of the day, and unknown where nobody knows."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import genai_prices
import pytest

from otel_promptcache import pricing
from otel_promptcache.cli.price import price_lines
from otel_promptcache.model import Usage
from otel_promptcache.pricing import PriceUnknownError, cost, prices, storage
from otel_promptcache.providers import anthropic

MILLION = Decimal(1_000_000)
OPUS = ("claude-opus-5",)  # 5 in, 25 out, 0.50 read, 6.25 and 10 written


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-11-21T12:00")


# --- Worked by hand -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cases(shared: Path) -> dict[str, dict[str, Any]]:
    lines = (shared / "data" / "cost_cases.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@pytest.fixture(scope="session")
def priced(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in price_lines(json.dumps(case) for case in cases.values())}


class TestWorkedByHand:
    """Usage payloads as the APIs return them, with their cost by the providers' price pages."""

    def test_exact_to_eight_decimals(self, cases: dict[str, Any], priced: dict[str, Any]) -> None:
        """Cost, cost without caching, and the signed saving, of every one."""
        wrong = {}
        for identity, case in cases.items():
            row = priced[identity]
            expected = [float(case[name]) for name in ("expected_usd", "expected_uncached_usd", "expected_savings_usd")]
            found = [row[name] for name in ("cost_usd", "without_cache_usd", "saving_usd")]
            if None in found or [round(one, 8) for one in found] != expected or row.get("estimated"):
                wrong[identity] = (found, expected, case["note"])
        assert wrong == {}
        assert len(cases) >= 53

    def test_every_cost_names_its_prices(self, priced: dict[str, Any]) -> None:
        """So that it can be worked out again."""
        listed = f"genai-prices {genai_prices.__version__}"
        assert all(row["price_version"].startswith((listed, "corrections ")) for row in priced.values())

    def test_order_and_ids_are_kept(self, cases: dict[str, Any], priced: dict[str, Any]) -> None:
        """A reader joins by id, or by line."""
        assert list(priced) == list(cases)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "usage: missing, or no JSON object"),
        ('{"usage": 5}', "usage: missing, or no JSON object"),
        (
            '{"usage": {"x": 1}}',
            "api_flavor: 'None' is none of messages, chat, responses, generate_content, interactions, caches",
        ),
        (
            '{"usage": {"prompt_tokens": null}, "api_flavor": "chat"}',
            "usage: no token counts as the chat API reports them",
        ),
        ('{"usage": {"prompt_tokens": 5}}', "no price for a call that names no model of "),
        ("[1, 2]", "usage: missing, or no JSON object"),
        ('{"usage": {"input_tokens": 5}, "request_time": "soon"}', "Invalid isoformat string: 'soon'"),
    ],
)
def test_a_line_that_cannot_be_priced(line: str, reason: str) -> None:
    """Says what is wrong with it, and the next one is read."""
    good = '{"id": "b", "provider": "anthropic", "model": "claude-opus-5", "usage": {"input_tokens": 1000000}}'
    bad, blank_is_skipped = price_lines([line, "", " \n", good])
    assert (bad["id"], bad["cost_usd"], bad["reason"]) == (1, None, reason)
    assert (blank_is_skipped["id"], blank_is_skipped["cost_usd"]) == ("b", 5.0)


def test_a_line_that_is_no_json() -> None:
    """Is named by its number."""
    (found,) = price_lines(["{"])
    assert (found["id"], found["cost_usd"]) == (1, None)


# --- Token classes --------------------------------------------------------------------------------------------


class TestClasses:
    """Each class at its own price; the classes add up to the total."""

    def test_read_write_fresh_output(self) -> None:
        """A million of each."""
        found = cost(Usage(3_000_000, 1_000_000, 1_000_000, 1_000_000), "anthropic", OPUS, NOW)
        assert (found.read, found.write, found.uncached, found.output) == (
            Decimal("0.50"),
            Decimal("6.25"),
            Decimal(5),
            Decimal(25),
        )
        assert (found.total, found.without_cache, found.saving) == (Decimal("36.75"), Decimal(40), Decimal("3.25"))
        assert found.estimated is False
        assert found.version == f"genai-prices {genai_prices.__version__}"

    def test_the_saving_of_a_cold_write_is_negative(self) -> None:
        """Writing costs more than not caching; later reads have to earn it."""
        found = cost(Usage(1_000_000, 0, 1_000_000), "anthropic", OPUS, NOW)
        assert found.saving == Decimal("-1.25")

    def test_unit_prices(self) -> None:
        """What a lost token cost, and what it would have cost."""
        found = cost(Usage(10, 0, 10), "anthropic", OPUS, NOW)
        assert [price * MILLION for price in (found.read_price, found.fresh_price, found.write_price)] == [
            Decimal("0.50"),
            Decimal(5),
            Decimal("6.25"),
        ]

    def test_nothing_reported_costs_nothing(self) -> None:
        """The price is known, the counts are not."""
        assert cost(Usage(), "anthropic", OPUS, NOW).total == 0

    def test_more_cached_than_sent(self) -> None:
        """A provider's miscount makes no negative cost."""
        assert cost(Usage(10, 20, 5), "anthropic", OPUS, NOW).uncached == 0

    def test_web_searches(self) -> None:
        """10 USD a thousand, cached or not."""
        found = cost(Usage(0, web_searches=3), "anthropic", OPUS, NOW)
        assert (found.output, found.without_cache, found.saving) == (Decimal("0.03"), Decimal("0.03"), 0)


class TestLifetimes:
    """Written tokens by what they were stored for."""

    @pytest.mark.parametrize(
        ("usage", "ttls", "written", "estimated"),
        [
            (Usage(1_000_000, 0, 1_000_000, write_by_ttl=((300, 1_000_000),)), (), "6.25", False),
            (Usage(1_000_000, 0, 1_000_000, write_by_ttl=((3600, 1_000_000),)), (), "10", False),
            (Usage(2_000_000, 0, 2_000_000, write_by_ttl=((300, 10**6), (3600, 10**6))), (), "16.25", False),
            (Usage(1_000_000, 0, 1_000_000), (), "6.25", False),
            (Usage(1_000_000, 0, 1_000_000), None, "6.25", True),
            (Usage(1_000_000, 0, 1_000_000), (300,), "6.25", False),
            (Usage(1_000_000, 0, 1_000_000), (3600,), "10", False),
            (Usage(1_000_000, 0, 1_000_000), (3600, 300), "6.25", True),
            (Usage(2_000_000, 0, 2_000_000, write_by_ttl=((3600, 1_000_000),)), (3600,), "20", True),
            (Usage(2_000_000, 0, 2_000_000, write_by_ttl=((3600, 1_000_000),)), (3600, 300), "16.25", True),
            (Usage(1_000_000, 0, 0, write_by_ttl=((300, 0), (3600, 0))), (3600, 300), "0", False),
        ],
        ids=[
            *(
                "5 minutes",
                "an hour",
                "both",
                "not said, nothing asked",
                "not said, not looked",
                "not said, 5 minutes asked",
            ),
            *("not said, an hour asked", "not said, both asked", "partly said", "partly said, both asked"),
            "nothing written",
        ],
    )
    def test_anthropic(self, usage: Usage, ttls: tuple[int, ...] | None, written: str, estimated: bool) -> None:
        """What no lifetime is named for is priced at the shortest that was asked for; an assumption says so."""
        found = cost(usage, "anthropic", OPUS, NOW, ttls)
        assert (found.write, found.estimated) == (Decimal(written), estimated)

    def test_openai_twelve_hours(self) -> None:
        """Two and a half times the input price, where half an hour is one and a quarter."""
        usage = Usage(2_000_000, 0, 2_000_000, write_by_ttl=((1800, 1_000_000), (43_200, 1_000_000)))
        found = cost(usage, "openai", ("gpt-6-sol",), NOW)
        assert found.write == found.fresh_price * MILLION * Decimal("3.75")

    def test_no_price_for_reads(self) -> None:
        """A model without cache prices: reads are taken at the full price, and the cost says so."""
        found = cost(Usage(1_000_000, 1_000_000), "openai", ("gpt-4",), NOW)
        assert (found.read, found.saving, found.estimated) == (found.fresh_price * MILLION, 0, True)
        assert cost(Usage(1_000_000, 0), "openai", ("gpt-4",), NOW).estimated is False


# --- What prices depend on ------------------------------------------------------------------------------------


class TestContext:
    """Tier, speed, processing, place, size and time."""

    @pytest.mark.parametrize(
        ("change", "factor"),
        [
            ({}, 1),
            ({"tier": "standard"}, 1),
            ({"processing": "batch"}, Decimal("0.5")),
            ({"geo": "us"}, Decimal("1.1")),
            ({"geo": "eu"}, 1),
            ({"geo": "us", "processing": "batch"}, Decimal("0.55")),
        ],
        ids=str,
    )
    def test_anthropic(self, change: dict[str, str], factor: Decimal) -> None:
        """Multipliers stack, on every class of tokens."""
        usage = Usage(3_000_000, 1_000_000, 1_000_000, 1_000_000)
        plain = cost(usage, "anthropic", OPUS, NOW)
        found = cost(usage._replace(**change), "anthropic", OPUS, NOW)
        assert found.total == plain.total * factor
        assert found.without_cache == plain.without_cache * factor
        assert found.read_price == plain.read_price * factor

    def test_residency_is_anthropic_s(self) -> None:
        """And multiplies no tool fees."""
        assert cost(Usage(10, geo="us"), "openai", ("gpt-5",), NOW) == cost(Usage(10), "openai", ("gpt-5",), NOW)
        assert cost(Usage(0, web_searches=1, geo="us"), "anthropic", OPUS, NOW).output == Decimal("0.01")

    @pytest.mark.parametrize(("tier", "usd"), [("flex", "0.125"), ("default", "0.25"), ("priority", "0.5")])
    def test_tiers(self, tier: str, usd: str) -> None:
        """Half for waiting, double for not waiting."""
        assert cost(Usage(100_000, tier=tier), "openai", ("gpt-5.4",), NOW).total == Decimal(usd)

    @pytest.mark.parametrize(
        ("provider", "model", "edge"),
        [
            ("anthropic", "claude-haiku-5-5", 100_000),
            ("openai", "gpt-5.4", 272_000),
            ("google", "gemini-3.1-pro-preview", 200_000),
        ],
    )
    def test_bands(self, provider: str, model: str, edge: int) -> None:
        """The whole request pays the price of the band it reaches; the edge itself is below."""
        below = cost(Usage(edge), provider, (model,), NOW)
        above = cost(Usage(edge + 1), provider, (model,), NOW)
        one_more = cost(Usage(1), provider, (model,), NOW).total
        assert below.total == one_more * edge
        assert above.total > below.total * Decimal("1.5")
        for read, written in ((edge, 0), (0, edge), (edge // 2, edge // 2)):  # what is read and written counts, too
            assert cost(Usage(edge, read, written), provider, (model,), NOW).fresh_price == below.fresh_price
            assert cost(Usage(edge + 1, read, written), provider, (model,), NOW).fresh_price == above.fresh_price

    @pytest.mark.parametrize(
        ("moment", "peak"),
        [
            ("2026-10-01T02:00", False),  # a Thursday, National Day
            ("2026-10-08T02:00", True),  # the Thursday after the holidays
            ("2026-10-10T02:00", False),  # a Saturday on which China works
            ("2026-11-20T00:59", False),
            ("2026-11-20T01:00", True),
            ("2026-11-20T04:00", False),
            ("2026-11-20T06:00", True),
            ("2026-11-20T09:59", True),
            ("2026-11-20T10:00", False),
            ("2026-11-20T02:00", True),  # a Friday
            ("2026-11-20T12:00", False),
            ("2026-11-21T02:00", False),  # Saturday
            ("2026-11-22T02:00", False),  # Sunday
            ("2026-11-23T02:00", True),
        ],
    )
    def test_deepseek_has_weekends(self, moment: str, peak: bool) -> None:
        """Peak hours are those of working days."""
        found = cost(Usage(1_000_000, 0), "deepseek", ("deepseek-v4-flash",), at(moment))
        off = cost(Usage(1_000_000, 0), "deepseek", ("deepseek-v4-flash",), at("2026-11-20T12:00"))
        assert found.total == off.total * (2 if peak else 1)

    @pytest.mark.parametrize(
        ("moment", "usd"), [("2026-09-01T12:00", "0.2"), ("2026-10-06T23:59", "0.2"), ("2026-10-07T00:00", "0.1")]
    )
    def test_a_price_of_the_past(self, moment: str, usd: str) -> None:
        """The price data knows the newest read price of this model only."""
        found = cost(Usage(1_000_000, 1_000_000), "anthropic", ("claude-sonnet-5-5",), at(moment))
        batch = cost(Usage(1_000_000, 1_000_000, processing="batch"), "anthropic", ("claude-sonnet-5-5",), at(moment))
        assert (found.total, batch.total, found.estimated) == (Decimal(usd), Decimal(usd) / 2, False)

    def test_batches_before_the_list_knew_them(self) -> None:
        """They were as cheap then; that the proportion was today's is an assumption, and said to be one."""
        usage = Usage(3_000_000, 1_000_000, 1_000_000, 1_000_000)
        plain = cost(usage, "anthropic", OPUS, at("2026-09-01T12:00"))
        batch = cost(usage._replace(processing="batch"), "anthropic", OPUS, at("2026-09-01T12:00"))
        assert (batch.total, batch.estimated) == (plain.total / 2, True)

    @pytest.mark.parametrize(("moment", "usd"), [("2026-12-31T23:00", "0.5"), ("2027-01-01T00:00", "1")])
    def test_storage(self, moment: str, usd: str) -> None:
        """By the million tokens and hour."""
        found, _ = storage(2_000_000, Decimal("0.5"), "gcp.gemini", "gemini-3.8-flash", at(moment))
        assert found == Decimal(usd)
        with pytest.raises(PriceUnknownError, match=r"no price for storage with gpt-5\.4 of openai"):
            storage(1, Decimal(1), "openai", "gpt-5.4", at(moment))

    def test_a_kind_of_processing_without_a_price(self) -> None:
        """A model that only we know is priced as in ordinary processing then, and the cost says so."""
        found = cost(Usage(1_000_000, tier="flex"), "openai", ("gpt-6.2-sol",), NOW)
        assert (found.total, found.estimated) == (4, True)

    def test_what_comes_over_the_wire_is_not_kept_at_any_length(self) -> None:
        """A tier, a place or a model of a megabyte is looked up like a short one, and nothing of it stays."""
        long = "x" * 1_000_000
        listed = prices.Prices()
        usage = Usage(1000, tier=long, geo=long, speed=long, upstream=long)
        cost(usage, "anthropic", OPUS, 1_795_000_000, prices=listed)  # loads the price data
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20):
            told = usage._replace(tier=f"{number}{long}")
            assert cost(told, "anthropic", OPUS, 1_795_000_000, prices=listed).uncached == Decimal("0.005")
            with pytest.raises(PriceUnknownError):
                cost(told, "anthropic", (f"{number}{long}",), 1_795_000_000, prices=listed)
        del told
        kept = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert kept < 1_000_000

    def test_the_one_that_answered_first(self) -> None:
        """A name that is not known gives way to the one that was asked for."""
        assert cost(Usage(1_000_000), "anthropic", ("nonsense", *OPUS), NOW).total == 5
        assert cost(Usage(1_000_000), "anthropic", ("", *OPUS), NOW).total == 5

    @pytest.mark.parametrize("provider", ["x_ai", "mistral_ai", "azure.ai.openai", "gcp.gemini", "groq"])
    def test_providers_by_the_conventions_name(self, provider: str) -> None:
        """Their names in the price data are others."""
        models = {
            "x_ai": "grok-4",
            "mistral_ai": "mistral-large-latest",
            "azure.ai.openai": "gpt-4.1",
            "gcp.gemini": "gemini-2.5-flash",
            "groq": "llama-3.3-70b-versatile",
        }
        assert cost(Usage(1_000_000), provider, (models[provider],), NOW).total > 0


@pytest.mark.parametrize(
    ("provider", "models", "message"),
    [
        ("anthropic", ("claude-none",), "no price for claude-none of anthropic"),
        ("anthropic", ("a-none", "b-none"), "no price for a-none or b-none of anthropic"),
        ("nobody", ("claude-opus-5",), "no price for claude-opus-5 of nobody"),
        ("anthropic", ("", ""), "no price for a call that names no model of anthropic"),
        ("anthropic", (), "no price for a call that names no model of anthropic"),
    ],
)
def test_an_unknown_price_is_an_error_of_its_own(provider: str, models: tuple[str, ...], message: str) -> None:
    """Never zero, and a sentence that says what was looked for."""
    with pytest.raises(PriceUnknownError, match=message):
        cost(Usage(10), provider, models, NOW)


# --- How it is looked up --------------------------------------------------------------------------------------


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The models that genai-prices was asked about."""
    asked: list[str] = []
    real = genai_prices.calc_price

    def counting(usage: Any, model: str, **how: Any) -> Any:
        asked.append(model)
        return real(usage, model, **how)

    monkeypatch.setattr(genai_prices, "calc_price", counting)
    prices._listed.cache_clear()
    pricing.LISTED._tariff.cache_clear()
    yield asked
    prices._listed.cache_clear()
    pricing.LISTED._tariff.cache_clear()


class TestItems:
    """A response that itemises its inner requests is billed by the item."""

    MESSAGE: ClassVar[dict[str, Any]] = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}
    COMPACTION: ClassVar[dict[str, Any]] = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}

    def priced(self, model: str = OPUS[0], **usage: Any) -> Decimal:
        found = anthropic.usage(usage)
        assert found is not None
        return cost(found, "anthropic", (model,), NOW).total

    def test_compaction_is_in_no_sum(self) -> None:
        """It is billed all the same; the counts stay those of the response."""
        usage = {"input_tokens": 23_000, "output_tokens": 1000, "iterations": [self.COMPACTION, self.MESSAGE]}
        found = anthropic.usage(usage)
        assert found is not None
        assert (found.input_total, found.output) == (23_000, 1000)
        paid = cost(found, "anthropic", OPUS, NOW)
        assert paid.total == (Decimal(203_000) * 5 + Decimal(4500) * 25) / MILLION
        assert (paid.uncached, paid.fresh_price) == (Decimal("1.015"), Decimal(5) / MILLION)

    def test_one_item_is_no_news(self) -> None:
        """Most responses have one iteration, and it is the whole call."""
        assert self.priced(input_tokens=23_000, output_tokens=1000, iterations=[self.MESSAGE]) == self.priced(
            input_tokens=23_000, output_tokens=1000
        )

    def test_each_at_its_own_size(self) -> None:
        """Two requests below the edge pay the low band, though their sum is above."""
        one = {"type": "message", "input_tokens": 60_000, "output_tokens": 0}
        found = self.priced("claude-haiku-5-5", input_tokens=120_000, output_tokens=0, iterations=[one, one])
        assert found == Decimal("0.012")

    def test_each_with_its_own_lifetimes(self) -> None:
        """The split of the whole covers the first iteration only; the items have theirs."""
        hour = {"cache_creation_input_tokens": 10**6, "cache_creation": {"ephemeral_1h_input_tokens": 10**6}}
        minutes = {"cache_creation_input_tokens": 10**6, "cache_creation": {"ephemeral_5m_input_tokens": 10**6}}
        item = {"type": "message", "input_tokens": 0, "output_tokens": 0}
        found = self.priced(
            input_tokens=0,
            output_tokens=0,
            cache_creation_input_tokens=2 * 10**6,
            cache_creation=hour["cache_creation"],
            iterations=[item | hour, item | minutes],
        )
        assert found == Decimal("16.25")

    def test_an_advising_model_has_its_own_price(self) -> None:
        """Here Haiku 4.5, at 1 USD a million."""
        advice = {"type": "advisor_message", "model": "claude-haiku-4-5", "input_tokens": 10**6, "output_tokens": 0}
        assert self.priced(input_tokens=10**6, output_tokens=0, iterations=[self.MESSAGE, advice]) == 6

    @pytest.mark.parametrize(
        "iterations",
        [[MESSAGE], [], None, "many", [None, 5, {}], [{"type": "message"}], [MESSAGE, MESSAGE]],
        ids=str,
    )
    def test_items_that_do_not_add_up(self, iterations: object) -> None:
        """The sums stand."""
        assert self.priced(input_tokens=10**6, output_tokens=0, iterations=iterations) == 5

    def test_searches_are_paid_once(self) -> None:
        """And the place of inference holds for all items."""
        usage = {"input_tokens": 10**6, "output_tokens": 0, "server_tool_use": {"web_search_requests": 3}}
        usage |= {"inference_geo": "us", "iterations": [{"type": "message", "input_tokens": 5 * 10**5}] * 2}
        assert self.priced(**usage) == Decimal("5.53")


def test_prices_are_looked_up_once_an_hour(lookups: list[str]) -> None:
    """Sizes and counts need no other look; another hour, tier or model does."""
    for tokens in (1, 1000, 500_000):
        cost(Usage(tokens), "anthropic", OPUS, NOW + tokens / 1000)
    assert lookups == ["claude-opus-5"]
    cost(Usage(1), "anthropic", OPUS, NOW + 3600)
    cost(Usage(1, processing="batch"), "anthropic", OPUS, NOW)
    assert len(lookups) == 4  # a batch is looked up beside ordinary processing


def test_an_unknown_model_is_looked_up_once(lookups: list[str]) -> None:
    """That it is unknown is worth remembering."""
    for _ in range(3):
        with pytest.raises(PriceUnknownError):
            cost(Usage(1), "anthropic", ("claude-none",), NOW)
    assert lookups == ["claude-none"]


QUIET = """
import socket, sys, threading

def refuse(*_):
    raise AssertionError("no network")

socket.socket.connect = socket.getaddrinfo = refuse
from otel_promptcache import pricing
assert "genai_prices" not in sys.modules and not pricing.ready()
from otel_promptcache.model import Usage
assert pricing.load() and pricing.ready()
pricing.cost(Usage(1000, 500, 0, 10), "anthropic", ("claude-opus-5",), 1795262400.0)
print([thread.name for thread in threading.enumerate()])
"""


def test_nothing_is_fetched_and_no_thread_is_started() -> None:
    """genai-prices could update itself from the network; we never ask it to, and import it no sooner than needed."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False, timeout=300)
    assert (done.stdout.strip(), done.stderr) == ("['MainThread']", "")
