"""What the calls of a ledger cost by other prices: those of today, or of a price file.

A ledger record has the token counts of its call and all that its price depends on, so a cost is worked out again as
it was the first time, at the hour of the call. Nothing else of the ledger changes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

from otel_promptcache import pricing, semconv
from otel_promptcache.analysis import ledger
from otel_promptcache.model import Cost, Part, Usage
from otel_promptcache.pricing import Prices
from otel_promptcache.providers._wire import count, in_context
from otel_promptcache.providers.rules import TTL_SECONDS

_CONTEXT: Final = ("tier", "speed", "geo", "processing", "upstream")
SAME: Final = Decimal("1e-12")
"""USD by which a cost that went through a floating-point number may differ from itself."""


class Change(NamedTuple):
    """One call whose cost is another."""

    call: str
    provider: str
    model: str
    before: Decimal | None
    after: Decimal
    version_before: str
    version: str


@dataclass
class Group:
    """All calls of one model that have a price before and after."""

    calls: int = 0
    changed: int = 0
    before: Decimal = Decimal(0)
    after: Decimal = Decimal(0)


@dataclass
class Repricing:
    """What became of a ledger."""

    reading: ledger.Reading = field(default_factory=ledger.Reading)
    calls: int = 0
    without_usage: int = 0
    unpriced: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls without a price by these prices, by provider and model. They keep the cost they have."""
    newly_priced: int = 0
    after_newly: Decimal = Decimal(0)
    """Calls that had no cost, and what it is now."""
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)
    _known: set[str] = field(default_factory=set)


def repriced(lines: Iterable[str], prices: Prices, found: Repricing) -> Iterator[tuple[str, list[Change]]]:
    """Every line of a ledger with the costs in it worked out again, and the calls whose cost is another. Lines that are
    none of ours, and those that cannot be read, come out as they went in."""
    for line in lines:
        found.reading.lines += 1
        if semconv.EVENT_CALL not in line:
            found.reading.unreadable += bool(line.strip()) and not line.rstrip().endswith("}")
            yield line, []
            continue
        changes: list[Change] = []
        touched = False
        try:
            document = json.loads(line)
            for record, event in list(ledger.records(document, semconv.EVENT_CALL)):
                touched |= _touched(record, event, prices, found, changes)
        except _UNREADABLE:
            found.reading.unreadable += 1
        yield (json.dumps(document, ensure_ascii=False) + "\n" if touched else line), changes


_UNREADABLE: Final = (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError)
"""What comes of a line that is cut off, and of fields that are not what they should be."""


def _touched(
    record: dict[str, Any], event: ledger.Event, prices: Prices, found: Repricing, changes: list[Change]
) -> bool:
    """Rewrites the cost in a record; False where it stays as it is."""
    try:
        new = _again(event, prices, found, changes)
    except _UNREADABLE:
        found.reading.unreadable += 1
        return False
    if new is None:
        return False
    kept = [pair for pair in record["attributes"] if pair["key"] not in new]
    record["attributes"] = kept + [{"key": name, "value": value} for name, value in new.items() if value is not None]
    return True


def _again(event: ledger.Event, prices: Prices, found: Repricing, changes: list[Change]) -> dict[str, Any] | None:
    """The attributes of a call's cost as they are now, None where the record stays as it is."""
    said = event.attributes
    call = str(said.get(semconv.CALL_ID) or "")
    repeated = bool(call) and call in found._known  # noqa: SLF001
    found._known.add(call)  # noqa: SLF001
    aside = Repricing() if repeated else found  # what an export has sent twice is written twice, and counted once
    found.reading.repeated += repeated
    aside.calls += 1
    if not ledger.readable(said):
        aside.reading.of_another_schema += 1
        return None
    usage = usage_of(said)
    if usage is None:
        aside.without_usage += 1
        return None
    provider = str(said.get(semconv.PROVIDER) or "")
    models = tuple(str(said.get(name) or "") for name in (semconv.RESPONSE_MODEL, semconv.REQUEST_MODEL))
    named = provider, models[1] or models[0]
    try:
        cost = pricing.cost(
            usage,
            provider,
            models,
            event.at / 1e9 - float(said.get(semconv.DURATION) or 0),
            _ttls(said),
            account=str(said.get(f"{semconv.PRICE_CONTEXT}.account") or ""),
            prices=prices,
        )
    except pricing.PriceUnknownError:
        aside.unpriced[named] += 1
        return None
    before = _usd(said.get(semconv.COST_TOTAL))
    changed = before is None or abs(before - cost.total) > SAME
    aside.versions[cost.version] += 1
    if before is None:
        aside.newly_priced += 1
        aside.after_newly += cost.total
    else:
        group = aside.groups.setdefault(named, Group())
        group.calls += 1
        group.changed += changed
        group.before += before
        group.after += cost.total
    if changed and not repeated:
        version = str(said.get(semconv.PRICE_VERSION) or "")
        changes.append(Change(call, *named, before, cost.total, version, cost.version))
    return _attributes(cost, usage, count(said.get(semconv.LOST_TOKENS)) or 0)


def usage_of(said: Mapping[str, Any]) -> Usage | None:
    """The token counts of a ledger record with what their price depends on, None where it has none."""
    total = count(said.get(semconv.INPUT_TOKENS))
    if total is None:
        return None
    written = f"{semconv.WRITE_TOKENS_BY_TTL}."
    by_ttl = [
        (TTL_SECONDS.get(ttl) or int(ttl), tokens)
        for name, value in said.items()
        if name.startswith(written) and (tokens := count(value)) is not None
        for ttl in [name.removeprefix(written)]
    ]
    raw = said.get(f"{semconv.PRICE_CONTEXT}.parts")
    found = Usage(
        input_total=total,
        read=count(said.get(semconv.CACHE_READ_TOKENS)),
        write=count(said.get(semconv.CACHE_WRITE_TOKENS)),
        output=count(said.get(semconv.OUTPUT_TOKENS)),
        write_by_ttl=tuple(by_ttl),
        web_searches=count(said.get(semconv.WEB_SEARCHES)) or 0,
        parts=_parts(json.loads(raw)) if raw is not None else (),
    )
    return in_context(found, **{name: str(said.get(f"{semconv.PRICE_CONTEXT}.{name}") or "") for name in _CONTEXT})


def _parts(raw: list[tuple[str, int, int | None, int | None, int | None, list[tuple[int, int]]]]) -> tuple[Part, ...]:
    if not raw:
        raise ValueError("a call of too many parts to be told")
    return tuple(
        Part(
            str(model),
            Usage(
                count(total), count(read), count(write), count(output), None, tuple((int(a), int(b)) for a, b in ttls)
            ),
        )
        for model, total, read, write, output, ttls in raw
    )


def _ttls(said: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Lifetimes that the request asked for; None where that was not looked at, which left the cost an estimate."""
    asked = said.get(f"{semconv.PRICE_CONTEXT}.ttls")
    if asked:
        return tuple(map(int, str(asked).split(",")))
    return None if said.get(semconv.COST_ESTIMATED) else ()


def _usd(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    usd = Decimal(repr(value))
    return usd if usd.is_finite() else None


def _attributes(cost: Cost, usage: Usage, lost: int) -> dict[str, Any]:
    """A cost as it stands in a record; None for what it no longer has."""
    money = {
        semconv.COST_TOTAL: cost.total,
        semconv.COST_READ: cost.read,
        semconv.COST_WRITE: cost.write,
        semconv.COST_UNCACHED: cost.uncached,
        semconv.COST_OUTPUT: cost.output,
        semconv.COST_WITHOUT_CACHE: cost.without_cache,
    }
    found: dict[str, Any] = {name: {"doubleValue": float(usd)} for name, usd in money.items()}
    found[semconv.PRICE_VERSION] = {"stringValue": cost.version}
    found[semconv.COST_ESTIMATED] = {"boolValue": True} if cost.estimated else None
    if lost:
        found[semconv.LOST_USD] = {"doubleValue": float(pricing.lost(lost, usage, cost))}
    return found
