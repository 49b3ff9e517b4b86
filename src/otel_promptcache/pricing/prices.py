"""What a token costs: the list of genai-prices, our corrections of it, and a price file of one's own, the last wins."""

from __future__ import annotations

import pkgutil
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from math import prod
from typing import Any, Final

from otel_promptcache.model import Usage
from otel_promptcache.pricing._tables import HOUR, Band
from otel_promptcache.pricing.pricefile import Asked, PriceFile, Row, parse

MILLION: Final = Decimal(1_000_000)
THOUSAND: Final = Decimal(1000)
ONE: Final = Decimal(1)

_PROVIDER_IDS: Final[dict[str, str]] = {
    # gen_ai.provider.name where genai-prices uses another id.
    "azure.ai.openai": "azure",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
}
_LISTED_FIELDS: Final[dict[str, str]] = {
    # Fields of genai-prices, and what they are called here.
    "input_mtok": "input",
    "cache_read_mtok": "read",
    "cache_write_mtok": "write",
    "cache_write_1h_mtok": "write_1h",
    "output_mtok": "output",
    "web_searches_kcount": "search",
}
_FEES: Final = frozenset({"search", "storage"})
"""Prices of what is no token of the call."""
MAX_MODEL: Final = 256
MAX_WORD: Final = 64
"""Characters that are looked at of what comes over the wire: it is remembered."""
_LONG_WRITES: Final = (("write_1h", HOUR), ("write_12h", 12 * HOUR))


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """USD a token at one prompt size, and USD a web search."""

    fresh: Decimal
    read: Decimal | None
    write: Decimal
    """At the shortest lifetime, and at every lifetime without a price of its own."""
    long_writes: Mapping[int, Decimal]
    """By lifetime in seconds."""
    output: Decimal
    search: Decimal
    storage: Decimal | None
    """USD a token and hour."""

    def write_for(self, ttl: int) -> Decimal:
        return self.long_writes.get(ttl, self.write)


class Tariff:
    """Prices of one model, for one kind of processing in one hour."""

    __slots__ = ("_bands", "_everything", "_sizes", "_times", "_tokens", "_units", "estimated", "version")

    def __init__(
        self,
        bands: Mapping[str, Band],
        version: str,
        *,
        times: Mapping[int, Decimal],
        tokens: Decimal,
        everything: Decimal,
        estimated: bool,
    ) -> None:
        self._bands = bands
        self._times = times
        """Multiples of the input price, by lifetime."""
        self._tokens = tokens
        """Factor of all prices of tokens, and of no fees."""
        self._everything = everything
        self.version = version
        self.estimated = estimated
        """Whether a price had to be assumed."""
        self._sizes = sorted({start for band in bands.values() for start, _ in band.tiers})
        self._units: dict[int, UnitPrices] = {}

    @property
    def of_tokens(self) -> bool:
        """Whether it has a price for input; it may know that of storage only."""
        return "input" in self._bands

    def units(self, tokens: int) -> UnitPrices:
        """Prices for a prompt of this size."""
        step = bisect_left(self._sizes, tokens)
        found = self._units.get(step)
        if found is None:
            found = self._units[step] = self._at(self._sizes[step - 1] + 1 if step else 0)
        return found

    def _at(self, tokens: int) -> UnitPrices:
        factor = self._tokens * self._everything

        def price(name: str) -> Decimal | None:
            band = self._bands.get(name)
            return None if band is None else band.at(tokens) / MILLION * factor

        fresh = price("input") or Decimal(0)
        write = price("write")
        long_writes = {ttl: fresh * times for ttl, times in self._times.items()}
        long_writes |= {ttl: usd for name, ttl in _LONG_WRITES if (usd := price(name)) is not None}
        search = self._bands.get("search")
        return UnitPrices(
            fresh=fresh,
            read=price("read"),
            write=fresh if write is None else write,
            long_writes=long_writes,
            output=price("output") or Decimal(0),
            search=Decimal(0) if search is None else search.at(tokens) / THOUSAND * self._everything,
            storage=price("storage"),
        )


@cache
def corrections() -> PriceFile:
    """Our own rows over the price data."""
    raw = pkgutil.get_data(__package__, "corrections.toml")
    assert raw is not None
    return parse(raw, "corrections")


class Prices:
    """Tariffs by what they depend on, looked up once. ``own`` is a price file that wins over everything else."""

    def __init__(self, own: PriceFile | None = None) -> None:
        self.own = own
        self._tariff = lru_cache(maxsize=4096)(self._found)

    def warm_up(self) -> None:
        """Imports everything that a look-up needs."""
        self.tariff("anthropic", "claude-haiku-4-5", Usage(), 0)

    def tariff(self, provider: str, model: str, usage: Usage, when: float, account: str = "") -> Tariff | None:
        """What is to be paid for a call at this time, None where nobody knows: that too is remembered."""
        return self._tariff(
            Asked(
                provider,
                _PROVIDER_IDS.get(provider, provider),
                model[:MAX_MODEL],
                usage.tier[:MAX_WORD],
                usage.speed[:MAX_WORD],
                usage.processing,
                usage.geo[:MAX_WORD],
                account,
                usage.upstream[:MAX_WORD],
                int(when // HOUR),
            )
        )

    def _found(self, asked: Asked) -> Tariff | None:
        files = (corrections(),) if self.own is None else (corrections(), self.own)
        used: dict[str, None] = {}

        def rows(table: str) -> list[Row]:
            fitting = [(file.name, row) for file in files for row in file.fitting(table, asked)]
            if table in _ONLY_THE_CLOSEST:
                fitting = fitting[-1:]
            used.update(dict.fromkeys(name for name, _ in fitting))
            return [row for _, row in fitting]

        day = datetime.fromtimestamp(asked.hour * HOUR, UTC)
        for row in rows("off_peak"):
            if day.weekday() in row.weekdays or day.date() in row.dates:
                asked = asked._replace(hour=asked.hour - day.hour + row.hour)
        bands, source, estimated = _listed(
            asked.listed_as, asked.model, asked.tier, asked.speed, asked.processing, asked.hour
        )
        listed, bands = bool(bands), dict(bands)
        for row in rows("price"):
            factor = _processing(row, asked)
            if factor is None:
                if listed:
                    continue  # the list has a price for this kind of processing
                factor, estimated = ONE, True
            bands |= {name: _scaled(name, band, factor) for name, band in row.prices.items()}
        if "input" not in bands and "storage" not in bands:
            return None
        times = {row.ttl: row.factors["times"] for row in rows("write")}
        tokens = prod((row.factors["percent"] for row in rows("surcharge")), start=ONE)
        everything = prod((row.factors["percent"] for row in rows("discount")), start=ONE)
        version = " + ".join([source] * listed + list(used))
        return Tariff(bands, version, times=times, tokens=tokens, everything=everything, estimated=estimated)


_ONLY_THE_CLOSEST: Final = frozenset({"discount", "surcharge", "off_peak"})


def _processing(row: Row, asked: Asked) -> Decimal | None:
    """The factor of a row's prices for the kind of processing that is asked for, None where it names none."""
    factors = [row.factors.get(name) for name in asked.processings]
    return None if None in factors else prod((factor for factor in factors if factor is not None), start=ONE)


def _scaled(name: str, band: Band, factor: Decimal) -> Band:
    if factor == ONE or name in _FEES:
        return band
    return Band(band.base * factor, tuple((start, usd * factor) for start, usd in band.tiers))


@lru_cache(maxsize=4096)
def _listed(
    provider: str, model: str, tier: str, speed: str, processing: str, hour: int
) -> tuple[Mapping[str, Band], str, bool]:
    """The list's prices of a model in one hour, none where it does not know it, the list's name, and whether
    something had to be assumed.

    The list dates a kind of processing from the day on which it learned of it (batches of Anthropic and OpenAI from
    October 2026). Before, it is taken in the proportion to ordinary processing that it has in the newest prices.
    """
    import genai_prices

    source = f"genai-prices {genai_prices.__version__}"
    context = {}
    if tier in ("flex", "priority"):
        context["service_tier"] = tier
    if speed == "fast":
        context["speed"] = speed
    if processing == "batch":
        context["processing"] = processing

    def found(when: datetime | None, how: dict[str, str]) -> dict[str, Band]:
        try:
            calculated = genai_prices.calc_price(
                genai_prices.Usage(input_tokens=0, output_tokens=0),
                model,
                provider_id=provider,
                genai_request_timestamp=when,
                price_context=how or None,
            )
        except LookupError:
            return {}
        prices = vars(calculated.model_price)
        return {
            ours: _band(prices[theirs]) for theirs, ours in _LISTED_FIELDS.items() if prices.get(theirs) is not None
        }

    when = datetime.fromtimestamp(hour * HOUR, UTC)
    bands = found(when, context)
    if "input" not in bands:
        return {}, source, False
    if not context or bands != found(when, {}):
        return bands, source, False
    usual, special = found(None, {}), found(None, context)
    if usual == special:
        return bands, source, False
    factors = {name: special[name].base / usual[name].base for name in usual if name in special and usual[name].base}
    return {name: _scaled(name, band, factors.get(name, ONE)) for name, band in bands.items()}, source, True


def _band(value: Any) -> Band:
    if isinstance(value, Decimal):
        return Band(value)
    return Band(value.base, tuple((tier.start, tier.price) for tier in value.tiers))
