"""Recorded traffic through the very history and diagnosis that live traffic goes through, told of everything at its
time. Pure: the same files give the same verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from otel_promptcache import diagnosis, pricing
from otel_promptcache.analysis import places
from otel_promptcache.analysis.exchanges import Exchange
from otel_promptcache.analysis.places import Place
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Cost, Diagnosis, Link, Prompt, Scope, Section, Segment, Usage
from otel_promptcache.pricing import Prices
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Reason, Status

SEGMENTS: Final = 1_000_000
"""Prompt segments remembered of one case."""

_NEED_TIMES: Final = frozenset(
    {
        Reason.TTL_EXPIRED,
        Reason.CONCURRENT_WRITE,
        Reason.WRITE_NOT_VISIBLE,
        Reason.PROVIDER_EVICTED,
        Reason.ROUTING_OVERFLOW,
        Reason.IMPLICIT_UNRELIABLE,
    }
)
"""Reasons that rest on when a request was sent."""
_SHOWN_BY_TRANSCRIPT: Final = frozenset(
    {Reason.MODEL_CHANGED, Reason.TTL_EXPIRED, Reason.USAGE_NOT_REPORTED, Reason.HISTORY_COMPACTED}
)
"""All that a transcript can show; tools, system prompt, parameters and markers are not in it."""


class Judged(NamedTuple):
    """One request and what is said of it."""

    exchange: Exchange
    prompt: Prompt
    diagnosis: Diagnosis
    place: Place | None = None
    """The very place in the texts, where the earlier request is at hand."""
    earlier: Exchange | None = None
    """The request that it should have matched."""
    old: Segment | None = None
    """What stood there before."""
    sizes: tuple[tuple[Section, int], ...] = ()
    """(section, bytes) of each segment."""
    shared: int = 0
    """Leading segments that the earlier request began with too."""
    cost: Cost | None = None
    lost_usd: Decimal | None = None

    @property
    def usage(self) -> Usage:
        return self.exchange.answer.usage or Usage()


def replay(
    exchanges: Sequence[Exchange], *, texts: bool = True, prices: Prices = pricing.LISTED, account: str = ""
) -> list[Judged]:
    """What is said of each request of one case, in the order in which they were given. Without ``texts`` from nothing
    but what live traffic keeps: no earlier text. ``account``: whose prices, where a price file tells accounts apart."""
    found: dict[int, Judged] = {}
    memory = Memory(HashKey("replay"), SEGMENTS)
    calls: dict[int, _Call] = {}
    for moment, what, number in _events(exchanges):
        exchange = exchanges[number]
        if what is _SENT:
            calls[number] = _sent(memory, exchange, number, moment)
        elif (call := calls[number]).sight is None:
            found[number] = Judged(exchange, call.prompt, Diagnosis(Status.UNKNOWN))
        elif what is _BEGUN:
            memory.begun(call.sight, moment)
        else:
            judged = _judged(exchanges, number, calls, texts=texts)
            found[number] = _priced(judged, prices, account)
            memory.ended(call.sight, exchange.answer.usage, exchange.answer.response_id, None)
    return [found[number] for number in range(len(exchanges))]


_BEGUN, _ENDED, _SENT = range(3)
"""At one moment, what ends is told before what starts."""


def _events(exchanges: Iterable[Exchange]) -> list[tuple[float, int, int]]:
    return sorted(
        event
        for number, one in enumerate(exchanges)
        for event in ((one.at, _SENT, number), (one.begun, _BEGUN, number), (one.ended, _ENDED, number))
    )


class _Call(NamedTuple):
    prompt: Prompt
    scope: Scope
    sight: Sight | None


def _sent(memory: Memory, exchange: Exchange, number: int, now: float) -> _Call:
    prompt = exchange.dialect.prompt(exchange.body)
    scope = Scope(exchange.provider, exchange.endpoint, exchange.credential, prompt.model, prompt.cache_key)
    if not prompt.segments:
        return _Call(prompt, scope, None)
    sight = memory.sent(
        prompt,
        scope,
        now=now,
        route="",
        conversation=prompt.conversation_id or exchange.session,
        link=Link(1, number + 1),
    )
    memory.describe(prompt, sight)
    return _Call(prompt, scope, sight)


def _judged(exchanges: Sequence[Exchange], number: int, calls: dict[int, _Call], *, texts: bool) -> Judged:
    exchange, (prompt, scope, sight) = exchanges[number], calls[number]
    assert sight is not None
    usage = exchange.answer.usage
    verdict = diagnosis.diagnose(prompt, sight, usage, rules_for(scope.provider, scope.model), exchange.answer.model)
    verdict = _compacted(_as_far_as_shown(verdict, exchange), exchanges, number)
    earlier = _earlier(exchanges, number, verdict.link, sight)
    judged = Judged(
        exchange,
        prompt,
        verdict,
        earlier=exchanges[earlier] if earlier is not None else None,
        sizes=tuple((info.section, info.size) for info in sight.infos),
        shared=sight.shared,
    )
    if verdict.place is None or earlier is None or not texts:
        return judged
    before = calls[earlier].prompt
    old = places.counterpart(before, prompt, verdict.place)
    shared = places.shared(before, prompt)
    place = places.between(exchange.dialect, exchanges[earlier].body, exchange.body, old, verdict.place)
    return judged._replace(place=place, old=old, shared=shared)


def _earlier(exchanges: Sequence[Exchange], number: int, link: Link | None, sight: Sight) -> int | None:
    """The request that this one should have matched: the one the verdict names, else the one it continues."""
    for one in (link, sight.previous.link if sight.previous is not None else None):
        if link is not None and one is not None and exchanges[one.span_id - 1].at < exchanges[number].at:
            return one.span_id - 1
    return None


def _as_far_as_shown(verdict: Diagnosis, exchange: Exchange) -> Diagnosis:
    """The verdict as far as the file bears it out: what it does not show is unknown, never guessed."""
    if verdict.reason is None:
        return verdict
    known = verdict.reason in _SHOWN_BY_TRANSCRIPT if not exchange.whole else True
    if known and (exchange.timed or verdict.reason not in _NEED_TIMES):
        return verdict
    return Diagnosis(verdict.status, Reason.UNKNOWN, expected=verdict.expected, lost=verdict.lost, link=verdict.link)


def _compacted(verdict: Diagnosis, exchanges: Sequence[Exchange], number: int) -> Diagnosis:
    """What a transcript says itself: the history was summarised, and what the call before had cached is left unread."""
    exchange = exchanges[number]
    before = next((one for one in reversed(exchanges[:number]) if one.session == exchange.session), None)
    usage, cached = exchange.answer.usage, before.answer.usage if before is not None else None
    if not exchange.compacted or before is None or usage is None or cached is None:
        return verdict
    expected, read = (cached.read or 0) + (cached.write or 0), usage.read or 0
    if read >= expected:
        return verdict
    status = Status.PARTIAL if read else Status.MISS
    lost = max(0, min(expected, usage.input_total or 0) - read)
    link = Link(1, exchanges.index(before) + 1)
    return Diagnosis(status, Reason.HISTORY_COMPACTED, expected=expected, lost=lost, link=link)


def _priced(judged: Judged, prices: Prices, account: str) -> Judged:
    """The same with what it cost, and what was lost, where the price is known."""
    exchange, prompt = judged.exchange, judged.prompt
    usage, lost = exchange.answer.usage, judged.diagnosis.lost
    if usage is None or not usage.available:
        return judged
    ttls = tuple(place.ttl for place in prompt.breakpoints)
    models = (exchange.answer.model, prompt.model)
    try:
        cost = pricing.cost(usage, exchange.provider, models, exchange.at, ttls, account=account, prices=prices)
    except pricing.PriceUnknownError:
        return judged
    return judged._replace(cost=cost, lost_usd=pricing.lost(lost, usage, cost) if lost else None)


def every(
    cases: Iterable[Sequence[Exchange]], *, texts: bool = True, prices: Prices = pricing.LISTED, account: str = ""
) -> Iterator[Judged]:
    """What is said of each request of each case."""
    for case in cases:
        yield from replay(case, texts=texts, prices=prices, account=account)
