"""``Usage`` to ``Cost``, exact, over the price data of genai-prices and the price files laid over it.

genai-prices is imported on a background thread (it brings pydantic) and its network updater is never started.
Unit prices are looked up once for a model, tier and hour; after that a cost is a few Decimal multiplications.
An unknown price is None, never zero.
"""

from __future__ import annotations

import os
import threading
from decimal import Decimal
from typing import Final

from otel_promptcache.model import Cost, Part, Usage
from otel_promptcache.pricing._tables import HOUR
from otel_promptcache.pricing.pricefile import PriceFile, PriceFileError, read
from otel_promptcache.pricing.prices import Prices, Tariff

NOTHING: Final = Decimal(0)

LISTED: Final = Prices()
"""The price data with our corrections, and nobody's own rows."""


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
            LISTED.warm_up()
            _loaded.set()
        return True
    finally:
        _loading.release()


def wait(timeout: float) -> bool:
    """Waits until the price data is loaded by another thread, ``timeout`` seconds at most."""
    return _loaded.wait(timeout)


def _tariff(prices: Prices, provider: str, models: tuple[str, ...], usage: Usage, when: float, account: str) -> Tariff:
    """That of the first of ``models`` that is known; raises PriceUnknownError."""
    for model in models:
        found = prices.tariff(provider, model, usage, when, account) if model else None
        if found is not None and found.of_tokens:
            return found
    raise PriceUnknownError(
        f"no price for {' or '.join(filter(None, models)) or 'a call that names no model'} of {provider}"
    )


def cost(
    usage: Usage,
    provider: str,
    models: tuple[str, ...],
    when: float,
    write_ttls: tuple[int, ...] | None = (),
    *,
    account: str = "",
    prices: Prices = LISTED,
) -> Cost:
    """The cost of one call in USD.

    ``models``: names to try, the one that answered first. ``when``: POSIX seconds of the request, for dated prices.
    ``write_ttls``: lifetimes the request asked for; written tokens that the response does not assign to a lifetime
    are priced at the shortest of them, and the cost says ``estimated``, as it does for None (not looked at).
    ``account``: whose prices, where a price file tells accounts apart. Raises PriceUnknownError.

    Where the response itemises its inner requests (``usage.parts``), each is priced as the provider bills it: by its
    own model and at its own size.
    """
    if not usage.parts:
        return _priced(usage, _tariff(prices, provider, models, usage, when, account), write_ttls)
    items: list[tuple[Part, Cost]] = []
    for part in usage.parts:
        names = (part.model, *models) if part.model else models
        tariff = _tariff(prices, provider, names, part.usage, when, account)
        items.append((part, _priced(part.usage, tariff, write_ttls)))
    return _sum(items)


def _priced(usage: Usage, tariff: Tariff, write_ttls: tuple[int, ...] | None) -> Cost:
    """One request that the provider billed."""
    total = usage.input_total or 0
    units = tariff.units(total)
    estimated = tariff.estimated
    read_tokens, write_tokens = usage.read or 0, usage.write or 0
    read_price = units.read
    if read_price is None:
        read_price, estimated = units.fresh, estimated or read_tokens > 0
    assigned = sum(tokens for _, tokens in usage.write_by_ttl)
    written = sum((units.write_for(ttl) * tokens for ttl, tokens in usage.write_by_ttl), NOTHING)
    rest = write_tokens - assigned
    if rest > 0:
        asked = write_ttls or (0,)
        written += units.write_for(min(asked)) * rest
        several = len({units.write_for(ttl) for ttl in asked}) > 1
        estimated = estimated or write_ttls is None or several or assigned > 0
    output = units.output * (usage.output or 0) + units.search * usage.web_searches
    return Cost(
        read=read_price * read_tokens,
        write=written,
        uncached=units.fresh * usage.uncached,
        output=output,
        without_cache=units.fresh * total + output,
        version=tariff.version,
        estimated=estimated,
        read_price=read_price,
        fresh_price=units.fresh,
        write_price=written / write_tokens if write_tokens else units.write,
    )


def _sum(items: list[tuple[Part, Cost]]) -> Cost:
    """Inner requests as one call. Unit prices are those of the last one that the call's own model answered."""
    costs = [cost for _, cost in items]
    main = next((cost for part, cost in reversed(items) if not part.model), costs[-1])
    tokens = sum(part.usage.write or 0 for part, _ in items)
    written = sum((cost.write for cost in costs), NOTHING)
    return main._replace(
        read=sum((cost.read for cost in costs), NOTHING),
        write=written,
        uncached=sum((cost.uncached for cost in costs), NOTHING),
        output=sum((cost.output for cost in costs), NOTHING),
        without_cache=sum((cost.without_cache for cost in costs), NOTHING),
        version=max((cost.version for cost in costs), key=len),
        estimated=any(cost.estimated for cost in costs),
        write_price=written / tokens if tokens else main.write_price,
    )


def lost(tokens: int, usage: Usage, paid: Cost) -> Decimal:
    """USD that tokens which were not read cost above the read price: as far as they were written again, at what
    writing cost."""
    written = min(tokens, usage.write or 0)
    return paid.write_price * written + paid.fresh_price * (tokens - written) - tokens * paid.read_price


def storage(
    tokens: int, hours: Decimal, provider: str, model: str, when: float, *, account: str = "", prices: Prices = LISTED
) -> tuple[Decimal, str]:
    """USD of keeping an explicit cache, and the version of its price. Raises PriceUnknownError."""
    found = prices.tariff(provider, model, Usage(), when, account)
    price = found.units(tokens).storage if found is not None else None
    if found is None or price is None:
        raise PriceUnknownError(f"no price for storage with {model} of {provider}")
    return price * tokens * hours, found.version


__all__ = [
    "HOUR",
    "LISTED",
    "PriceFile",
    "PriceFileError",
    "PriceUnknownError",
    "Prices",
    "cost",
    "load",
    "lost",
    "read",
    "ready",
    "storage",
    "wait",
]
