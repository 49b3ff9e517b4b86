"""Advice on what is written to the cache: writes that nobody reads, and lifetimes that do not fit the gaps.

Told for a route (a row of the metrics) when enough calls have shown it, and again after a day. The arithmetic is that
of the price lists: a write costs a multiple of the input price that depends on its lifetime, a read a fraction of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_promptcache.history import Write
from otel_promptcache.model import Observation
from otel_promptcache.providers.rules import DAY, HOUR, MINUTE, TTL_NAMES
from otel_promptcache.semconv import Advice

LIFETIMES: Final[dict[str, tuple[tuple[int, float], ...]]] = {
    # By dialect: lifetimes in seconds, and the price of a write in multiples of the input price.
    # platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-09
    "anthropic": ((5 * MINUTE, 1.25), (HOUR, 2.0)),
    # developers.openai.com/api/docs/guides/prompt-caching, 2026-09-23; 12 hours on Responses only
    "openai_responses": ((30 * MINUTE, 1.25), (12 * HOUR, 2.5)),
}

ENOUGH: Final = 10
"""Writes, or gaps between two calls that share a prefix, that have to be seen before anything is said."""
MOSTLY: Final = 0.9
"""Share of writes that nobody reads, from which writing is a waste."""
WORTH: Final = 0.1
"""Share of what the cached part costs that another lifetime must save."""
MAX_GAPS: Final = 256
MAX_ROUTES: Final = 4_096
EVERY: Final = 16
"""Calls of a route between two looks at it."""
AGAIN: Final = float(DAY)
"""Seconds after which the same advice is given again."""


class Finding(NamedTuple):
    """One piece of advice."""

    advice: Advice
    labels: tuple[str, ...]
    ttl: int
    better: int | None
    """The lifetime to use, where it is about that."""
    calls: int
    """Writes, or calls that could have read, that it rests on."""
    usd: float
    """What it would have saved so far."""
    gaps: tuple[float, float] | None
    """Median and ninth decile of the seconds between calls that share a prefix."""


@dataclass(slots=True)
class _Route:
    """What is known of one row of the metrics, at one lifetime of its writes."""

    calls: int = 0
    writes: int = 0
    firsts: int = 0
    """Calls that had nothing to follow."""
    unread: int = 0
    implied: int = 0
    """Those of the unread ones that the provider placed by itself."""
    premium: float = 0.0
    tokens: int = 0
    """Cached tokens of all calls."""
    read_share: float = 0.1
    """Price of a read in multiples of the input price."""
    price: float = 0.0
    """USD an input token."""
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_GAPS))
    lifetimes: tuple[tuple[int, float], ...] = ()
    told: dict[Advice, float] = field(default_factory=dict)

    def in_reach(self, ttl: int) -> bool:
        """Whether a longer lifetime would have had some of it read: then that is what is wrong."""
        longest = max((seconds for seconds, _ in self.lifetimes), default=ttl)
        return sum(ttl < gap <= longest for gap in self.gaps) > (1 - MOSTLY) * len(self.gaps)


class Advisor:
    """Collects what calls show. Not thread-safe: it is told of one thing at a time."""

    def __init__(self) -> None:
        self._routes: dict[tuple[tuple[str, ...], int], _Route] = {}

    def call(self, labels: tuple[str, ...], seen: Observation) -> Iterator[Finding]:
        """A call that is over; what it brings to light."""
        usage, cost = seen.usage, seen.cost
        if not seen.write_ttls or usage is None or cost is None or not cost.fresh_price:
            return
        cached = (usage.read or 0) + (usage.write or 0)
        if not cached:
            return
        ttl = max(seen.write_ttls)
        route = self._route(labels, ttl)
        if route is None:
            return
        route.lifetimes = LIFETIMES.get(seen.dialect, ())
        route.calls += 1
        route.writes += bool(usage.write)
        route.tokens += cached
        route.price = float(cost.fresh_price)
        route.read_share = float(cost.read_price / cost.fresh_price)
        if seen.gap is None:
            route.firsts += 1
        else:
            route.gaps.append(seen.gap)
        if route.calls % EVERY == 0:
            found = _lifetime(route, labels, ttl)
            yield from _once(route, found, seen.at)

    def unread(self, write: Write) -> Iterator[Finding]:
        """A write that has run out and nobody has read."""
        route = self._route(write.labels, write.ttl)
        if route is None:
            return
        route.unread += 1
        route.implied += write.implied
        route.premium += write.premium
        if route.unread >= ENOUGH and route.unread >= MOSTLY * route.writes and not route.in_reach(write.ttl):
            all_implied = route.implied == route.unread
            advice = Advice.ONE_SHOT if all_implied else Advice.WRITE_NEVER_READ
            found = Finding(advice, write.labels, write.ttl, None, route.unread, route.premium, _deciles(route.gaps))
            yield from _once(route, found, write.expires)

    def _route(self, labels: tuple[str, ...], ttl: int) -> _Route | None:
        """None where there are too many to follow them all."""
        route = self._routes.get((labels, ttl))
        if route is None and len(self._routes) < MAX_ROUTES:
            route = self._routes[labels, ttl] = _Route()
        return route


def _once(route: _Route, found: Finding | None, now: float) -> Iterator[Finding]:
    if found is not None and now - route.told.get(found.advice, float("-inf")) >= AGAIN:
        route.told[found.advice] = now
        yield found


def _lifetime(route: _Route, labels: tuple[str, ...], ttl: int) -> Finding | None:
    """The lifetime that would have been cheapest for the gaps seen, if it is another one and worth it."""
    if len(route.gaps) < ENOUGH or ttl not in dict(route.lifetimes):
        return None
    paid = {seconds: _paid(route, seconds, multiple) for seconds, multiple in route.lifetimes}
    best = min(paid, key=lambda seconds: (paid[seconds], seconds))
    saved = paid[ttl] - paid[best]
    if best == ttl or saved < WORTH * paid[ttl]:
        return None
    advice = Advice.TTL_TOO_SHORT if best > ttl else Advice.TTL_TOO_LONG
    usd = saved * route.price * route.tokens / route.calls
    return Finding(advice, labels, ttl, best, len(route.gaps), usd, _deciles(route.gaps))


def _paid(route: _Route, ttl: int, multiple: float) -> float:
    """What a cached token would have cost so far at a lifetime, in multiples of the input price: one write for each
    call that follows nothing or comes too late, one read for each other."""
    late = sum(gap > ttl for gap in route.gaps)
    firsts = route.firsts * len(route.gaps) / max(1, route.calls - route.firsts)  # as many as go with the gaps kept
    return multiple * (firsts + late) + route.read_share * (len(route.gaps) - late)


def _deciles(gaps: deque[float]) -> tuple[float, float] | None:
    if not gaps:
        return None
    ordered = sorted(gaps)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]


def sentence(found: Finding) -> str:
    """The advice as an engineer would say it."""
    now = TTL_NAMES.get(found.ttl, f"{found.ttl}s")
    better = TTL_NAMES.get(found.better or 0, "")
    gaps = ""
    if found.gaps is not None:
        half, most = map(_span, found.gaps)
        gaps = f" Half of the calls that share a prefix come within {half}, nine in ten within {most}."
    match found.advice:
        case Advice.WRITE_NEVER_READ:
            text = (
                f"{found.calls} cache writes, nearly all there were, ran out after {now} and nobody had read them. "
                "Mark what later requests repeat, or take the breakpoint out."
            )
        case Advice.ONE_SHOT:
            text = (
                f"{found.calls} prompts were written to the cache by default and never sent again: each pays a quarter "
                'more for nothing. Send prompt_cache_options={"mode": "explicit"} without a breakpoint.'
            )
        case Advice.TTL_TOO_SHORT:
            text = f"Entries run out before they are needed again: {better} instead of {now} costs less here."
        case Advice.TTL_TOO_LONG:
            text = f"Entries live longer than they are needed: {better} instead of {now} costs less here."
    return text + gaps


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"
