"""``Usage`` to ``Cost``, exact, over the price data of genai-prices.

genai-prices is imported on a background thread (it brings pydantic) and its network updater is never started.
Unit prices are looked up once for a model, tier and hour; after that a cost is a few Decimal multiplications.
An unknown price is None, never zero.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from otel_promptcache.model import Cost, Usage

MILLION: Final = Decimal(1_000_000)
HOUR: Final = 3600

_PROVIDER_IDS: Final[dict[str, str]] = {
    # gen_ai.provider.name where genai-prices uses another id.
    "azure.ai.openai": "azure",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
}

RESIDENCY: Final = Decimal("1.1")
"""Anthropic ``inference_geo: us`` multiplies token prices, not tool fees (platform.claude.com pricing, 2026-09)."""

TWELVE_HOUR_WRITE: Final = Decimal("2.5")
"""OpenAI's 12-hour write in multiples of the input price (model page of gpt-6.2-sol, 2026-11)."""

WEEKEND_OFF_PEAK_HOUR: Final = 12
"""DeepSeek charges off-peak prices all weekend (api-docs.deepseek.com/quick_start/pricing, 2026-11); price data
knows hours but no weekdays, so a weekend call is priced as at noon UTC, which is off-peak."""


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """USD a token at one prompt size, and USD a web search."""

    fresh: Decimal
    read: Decimal | None
    write: Decimal | None
    write_hour: Decimal | None
    output: Decimal
    search: Decimal


@dataclass(frozen=True, slots=True)
class _Band:
    """Prices by prompt size: a whole request pays the price of the highest band it exceeds."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...]

    def at(self, tokens: int) -> Decimal:
        price = self.base
        for start, tier in self.tiers:
            if tokens > start:
                price = tier
        return price


@dataclass(frozen=True, slots=True)
class _Model:
    bands: dict[str, _Band]
    version: str

    def units(self, tokens: int) -> UnitPrices:
        def price(name: str) -> Decimal | None:
            band = self.bands.get(name)
            return None if band is None else band.at(tokens) / MILLION

        return UnitPrices(
            fresh=price("input_mtok") or Decimal(0),
            read=price("cache_read_mtok"),
            write=price("cache_write_mtok"),
            write_hour=price("cache_write_1h_mtok"),
            output=price("output_mtok") or Decimal(0),
            search=(price("web_searches_kcount") or Decimal(0)) * 1000,
        )


class PriceUnknownError(LookupError):
    """No price is known for this provider and model."""


FORK_WAIT: Final = 2.0
"""Seconds that a fork waits for price data that is just being loaded: a child of a half-done import never ends it."""

_loaded = threading.Event()
_loading = threading.Lock()
_held_for_fork = False


def _before_fork() -> None:
    global _held_for_fork
    _held_for_fork = _loading.acquire(timeout=FORK_WAIT)


def _after_fork() -> None:
    global _loading, _held_for_fork
    _loading, _held_for_fork = threading.Lock(), False


def _after_fork_in_parent() -> None:
    global _held_for_fork
    if _held_for_fork:
        _held_for_fork = False
        _loading.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def ready() -> bool:
    """Whether prices can be looked up without importing anything."""
    return _loaded.is_set()


def load(timeout: float | None = None) -> bool:
    """Imports the price data; afterwards ``ready()``. Waits for another thread that is doing it, ``timeout`` seconds
    at most. Raises ImportError when genai-prices is missing."""
    if _loaded.is_set():
        return True
    if not _loading.acquire(timeout=-1 if timeout is None else timeout):
        return False
    try:
        if not _loaded.is_set():
            _lookup("anthropic", "claude-haiku-4-5", "", "", "", 0)
            _loaded.set()
        return True
    finally:
        _loading.release()


def wait(timeout: float) -> bool:
    """Waits until the price data is loaded by another thread, ``timeout`` seconds at most."""
    return _loaded.wait(timeout)


@lru_cache(maxsize=4096)
def _lookup(provider: str, model: str, tier: str, speed: str, processing: str, hour: int) -> _Model | None:
    """Prices of a model in one hour, None when unknown: that too is worth remembering."""
    import genai_prices

    when = datetime.fromtimestamp(hour * HOUR, UTC)
    context = {}
    if tier in ("flex", "priority"):
        context["service_tier"] = tier
    if speed == "fast":
        context["speed"] = speed
    if processing == "batch":
        context["processing"] = processing
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=0, output_tokens=0),
            model,
            provider_id=_PROVIDER_IDS.get(provider, provider),
            genai_request_timestamp=when,
            price_context=context or None,
        )
    except LookupError:
        return None
    bands = {name: _band(value) for name, value in vars(found.model_price).items() if value is not None}
    return _Model(bands, f"genai-prices {genai_prices.__version__}") if "input_mtok" in bands else None


def _band(value: Any) -> _Band:
    if isinstance(value, Decimal):
        return _Band(value, ())
    return _Band(value.base, tuple((tier.start, tier.price) for tier in value.tiers))


def _priced_hour(provider: str, when: float) -> int:
    hour = int(when // HOUR)
    if provider == "deepseek":
        moment = datetime.fromtimestamp(when, UTC)
        if moment.weekday() >= 5:
            hour += WEEKEND_OFF_PEAK_HOUR - moment.hour
    return hour


def model_prices(provider: str, models: tuple[str, ...], usage: Usage, when: float) -> _Model:
    """Prices of the first of ``models`` that is known; raises PriceUnknownError."""
    hour = _priced_hour(provider, when)
    for model in models:
        found = _lookup(provider, model, usage.tier, usage.speed, usage.processing, hour) if model else None
        if found is not None:
            return found
    raise PriceUnknownError(
        f"no price for {' or '.join(filter(None, models)) or 'a call that names no model'} of {provider}"
    )


def cost(
    usage: Usage, provider: str, models: tuple[str, ...], when: float, write_ttls: tuple[int, ...] | None = ()
) -> Cost:
    """The cost of one call in USD.

    ``models``: names to try, the one that answered first. ``when``: POSIX seconds of the request, for dated prices.
    ``write_ttls``: lifetimes the request asked for; written tokens that the response does not assign to a lifetime
    are priced at the shortest of them, and the cost says ``estimated``, as it does for None (not looked at).
    Raises PriceUnknownError.
    """
    total = usage.input_total or 0
    found = model_prices(provider, models, usage, when)
    units = found.units(total)
    estimated = False
    read_tokens, write_tokens = usage.read or 0, usage.write or 0
    read_price = units.read
    if read_price is None:
        read_price, estimated = units.fresh, read_tokens > 0
    write_price = units.write if units.write is not None else units.fresh

    def price_of(ttl: int) -> Decimal:
        if ttl == HOUR and units.write_hour is not None:
            return units.write_hour
        if ttl == 12 * HOUR:
            return units.fresh * TWELVE_HOUR_WRITE
        return write_price

    assigned = sum(tokens for _, tokens in usage.write_by_ttl)
    written = sum((price_of(ttl) * tokens for ttl, tokens in usage.write_by_ttl), Decimal(0))
    rest = write_tokens - assigned
    if rest > 0:
        asked = write_ttls or (0,)
        written += price_of(min(asked)) * rest
        estimated = estimated or write_ttls is None or len({price_of(ttl) for ttl in asked}) > 1 or assigned > 0

    geo = RESIDENCY if usage.geo == "us" and provider == "anthropic" else Decimal(1)
    output = units.output * (usage.output or 0) * geo + units.search * usage.web_searches
    return Cost(
        read=read_price * read_tokens * geo,
        write=written * geo,
        uncached=units.fresh * usage.uncached * geo,
        output=output,
        without_cache=units.fresh * total * geo + output,
        version=found.version,
        estimated=estimated,
        read_price=read_price * geo,
        fresh_price=units.fresh * geo,
        write_price=write_price * geo,
    )


def lost(tokens: int, usage: Usage, paid: Cost) -> Decimal:
    """USD that tokens which were not read cost above the read price: as far as they were written again, at what
    writing cost."""
    written = min(tokens, usage.write or 0)
    price = paid.write / usage.write * written if usage.write else Decimal(0)
    return price + paid.fresh_price * (tokens - written) - tokens * paid.read_price
