"""The price of a changed prefix: two snapshots joined with the ledger of production.

Every figure comes from the calls of the ledger that have the old prefix:

* **Calls a day**: their number / the days that the ledger covers.
* **If it varies on every request**: what each of them read from cache behind the changed place would have been paid
  for in full, in USD a day.
* **One rewrite**: what the entries that are alive at a moment cost to write again, averaged over the moments of the
  ledger. A conversation that has a call before and after the moment pays for what the later one read; the part that
  all conversations share, the least that any of them read, is paid for once a model.

Paid in full is what the ledger says a written token of the same model costs or, where the provider does not charge
for writes, an uncached one.

A breakpoint that is gone has no rewrite: what the calls read up to it they pay for as uncached from then on, every day.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
from typing import Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.analysis.ledger import LedgerCall
from otel_promptcache.model import Section
from otel_promptcache.providers.rules import Matching, rules_for
from otel_promptcache.semconv import Cause, Reason
from otel_promptcache.snapshot import Difference, Prefix, Snapshot, SnapshotError, compare, differences

DAY: Final = 86_400.0


class Changed(NamedTuple):
    """A prefix that is not what it was, and the tests that say so."""

    old: Prefix
    difference: Difference
    tests: tuple[str, ...]
    varies: bool
    """Whether the calls of one test, which had one prefix before, now have several."""
    new: Prefix

    @property
    def lasting(self) -> bool:
        """Whether every call pays for it from now on: a breakpoint is gone."""
        return self.difference.reason is Reason.BREAKPOINT_MISSING


@dataclass(frozen=True)
class PriceTag:
    """What a change costs. USD are None where the ledger cannot tell; ``unknown`` then says why."""

    change: Changed
    calls: int = 0
    calls_a_day: float = 0.0
    routes: tuple[tuple[str, float], ...] = ()
    """Route and its calls a day, the busiest first."""
    usd_once: float | None = None
    usd_a_day: float | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Window:
    """What the ledger covers."""

    calls: int
    days: float
    key_ids: frozenset[str] = field(default_factory=frozenset)
    span: float = 0.0
    """Days from the first to the last call, whatever ``days`` was said to be."""


class Comparison(NamedTuple):
    """What two snapshots say of each other. What could not be compared is named by test."""

    changed: list[Changed]
    gone: tuple[str, ...] = ()
    """With prefixes in the base only: what became of them, nobody can tell."""
    new: tuple[str, ...] = ()


def changes(base: Snapshot, head: Snapshot) -> Comparison:
    """The prefixes that differ, the same change of the same prefix once, and the tests that are in one snapshot only.
    A test that is gone is taken for one that is new where their prefixes are equal or differ in one place: renamed.

    Raises SnapshotError when the snapshots are under different keys, for then everything differs.
    """
    if base.key != head.key and base.tests and head.tests:
        raise SnapshotError(
            "the two snapshots are under different keys and do not compare: the file was made anew in place of being "
            "renewed; restore it and run pytest --promptcache-update"
        )
    names = _paired(base, head)
    gone = [test for test in base.tests if test not in names]
    new = [test for test in head.tests if test not in names.values()]
    found: dict[tuple[object, ...], list[Changed]] = defaultdict(list)
    for test, name in names.items():
        old_ones, new_ones = base.tests[test], head.tests[name]
        for one in compare(old_ones, new_ones):
            if one.new is None:
                gone.append(name)
            elif one.old is None:
                new.append(name)
            else:
                digests = tuple(part.digest for part in one.old.parts)
                for difference in differences(one.old, one.new):
                    key = (one.old[:3], digests, one.old.marks, one.new.marks, difference)
                    varies = len(new_ones) > len(old_ones)
                    found[key].append(Changed(one.old, difference, (name,), varies, one.new))
    return Comparison([_together(group) for group in found.values()], _distinct(gone), _distinct(new))


def _together(group: Sequence[Changed]) -> Changed:
    """The same change, as several tests tell it."""
    known = next((one for one in group if one.old.production is not None), group[0])
    return known._replace(
        tests=_distinct(test for one in group for test in one.tests), varies=any(one.varies for one in group)
    )


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _paired(base: Snapshot, head: Snapshot) -> dict[str, str]:
    """The name in the head of each test of the base that is there, perhaps under another name."""
    names = {test: test for test in base.tests if test in head.tests}
    left = [test for test in head.tests if test not in base.tests]
    for alike in (_equal, _edited_in_one_place):
        for test in base.tests:
            if test in names:
                continue
            found = next((name for name in left if alike(base.tests[test], head.tests[name])), None)
            if found is not None:
                names[test] = found
                left.remove(found)
    return names


def _equal(old: Sequence[Prefix], new: Sequence[Prefix]) -> bool:
    return not compare(old, new)


def _edited_in_one_place(old: Sequence[Prefix], new: Sequence[Prefix]) -> bool:
    """Whether all but one prefix are the same, and that one differs in one part that is a version of what it was."""
    found = compare(old, new)
    if len(found) != 1 or found[0].old is None or found[0].new is None:
        return False
    before, after = found[0].old, found[0].new
    if before[:3] != after[:3]:
        return False
    if before.same_text(after):
        return True
    one, two = ([part.digest for part in prefix.parts] for prefix in (before, after))
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
    one, two = one[start:], two[start:]
    end = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(two), strict=False)))
    if len(one) == len(two) == end + 1:
        return fingerprint.similar(before.parts[start].detail, after.parts[start].detail)
    return max(len(one), len(two)) == end + 1 and start + end > 0


def tags(
    changed: Sequence[Changed], ledger: Iterable[LedgerCall], days: float | None = None
) -> tuple[list[PriceTag], Window]:
    """The price of each change, and what the ledger covers. ``days`` in place of the time from first to last call."""
    prices: dict[tuple[str, str], _Prices] = defaultdict(_Prices)
    matched: list[list[LedgerCall]] = [[] for _ in changed]
    key_ids: set[str] = set()
    count, first, last = 0, float("inf"), float("-inf")
    for call in ledger:
        count += 1
        first, last = min(first, call.at), max(last, call.at)
        key_ids.add(call.key_id)
        prices[call.provider, call.model].add(call)
        for change, calls in zip(changed, matched, strict=True):
            if affected(change, call):
                calls.append(call)
    span = max(0.0, last - first) / DAY if count else 0.0
    window = Window(count, span if days is None else days, frozenset(key_ids - {""}), span)
    return [_tag(change, calls, window, prices) for change, calls in zip(changed, matched, strict=True)], window


def affected(change: Changed, call: LedgerCall) -> bool:
    """Whether a call of production has the old prefix, as far as the changed section: what stands behind it may be
    another tenant's."""
    production = change.old.production
    if production is None or call.key_id != production.key_id:
        return False
    if change.difference.reason is Reason.MODEL_CHANGED and call.model != change.old.model:
        return False
    old, found = _by_section(production.sections), _by_section(call.sections)
    section = change.difference.section.name.lower()
    if change.difference.section is Section.PARAMETERS or section not in old:
        return old == found
    needed = [Section.TOOLS.name.lower(), section]
    return all(old.get(name) == found.get(name) for name in needed)


def _by_section(sections: Iterable[str]) -> dict[str, str]:
    return dict(section.split(":", 1) for section in sections)


# --- Money --------------------------------------------------------------------------------------------------


@dataclass
class _Prices:
    """What the tokens of a model have cost in the ledger."""

    written: int = 0
    uncached: int = 0
    usd_written: float = 0.0
    usd_uncached: float = 0.0

    def add(self, call: LedgerCall) -> None:
        if call.cost_write is not None:
            self.written += call.write
            self.usd_written += call.cost_write
        if call.cost_uncached is not None:
            self.uncached += call.uncached
            self.usd_uncached += call.cost_uncached

    @property
    def full(self) -> float | None:
        """USD of a token that is not read from cache though it could be; None where no call tells."""
        if self.written:
            return self.usd_written / self.written
        return self.fresh

    @property
    def fresh(self) -> float | None:
        """USD of an uncached token; None where no call tells."""
        return self.usd_uncached / self.uncached if self.uncached else None


def _tag(
    change: Changed, calls: list[LedgerCall], window: Window, prices: Mapping[tuple[str, str], _Prices]
) -> PriceTag:
    production = change.old.production
    if production is None:
        return PriceTag(change, unknown="the old snapshot has no digests under OTEL_PROMPTCACHE_HASH_KEY")
    if production.key_id not in window.key_ids:
        keys = ", ".join(sorted(window.key_ids)) or "none"
        return PriceTag(
            change,
            unknown=f"{Reason.KEY_MISMATCH}: the old snapshot is under the deployment key {production.key_id}, the "
            f"ledger under {keys}",
        )
    if not window.days:
        return PriceTag(change, unknown="the ledger covers no time; say with --days how much it stands for")
    added = change.difference.marker and change.difference.cause is Cause.ADDED
    if change.difference.marker and not (added or change.lasting):
        return PriceTag(change, unknown="what another lifetime of its entries costs, the ledger does not tell")
    routes = Counter(call.route for call in calls)
    tag = PriceTag(
        change,
        len(calls),
        len(calls) / window.days,
        tuple((route, number / window.days) for route, number in routes.most_common()),
    )
    if added:  # a further entry takes nothing away
        return replace(tag, usd_once=0.0, usd_a_day=0.0)
    readers = [call for call in calls if call.read]
    if any(call.cost_read is None or prices[call.provider, call.model].full is None for call in readers):
        models = ", ".join(sorted({call.model for call in readers if call.cost_read is None})) or "some models"
        return replace(tag, unknown=f"the ledger has no price for {models}")
    once = a_day = 0.0
    for (provider, model), group in _grouped(calls).items():
        full = prices[provider, model].full or 0.0
        if change.lasting:
            a_day += _unmarked(change, group, prices[provider, model].fresh or full) / window.days
            continue
        shared = min((call.read for call in group if call.read), default=0)
        kept = _kept(change, provider, model, shared)
        a_day += sum(_premium(call, call.read - kept, full) for call in group) / window.days
        # An average over the moments of the ledger: days that are said to be fewer are no fewer moments.
        once += _rewritten(group, shared, kept, full) / (max(window.days, window.span) * DAY)
    return replace(tag, usd_once=once, usd_a_day=a_day)


def _grouped(calls: Iterable[LedgerCall]) -> dict[tuple[str, str], list[LedgerCall]]:
    found: dict[tuple[str, str], list[LedgerCall]] = defaultdict(list)
    for call in sorted(calls, key=lambda one: one.at):
        found[call.provider, call.model].append(call)
    return found


def _premium(call: LedgerCall, tokens: float, full: float) -> float:
    """USD that so many tokens of a call would have cost above their price as a cache read."""
    if not call.read or tokens <= 0 or call.cost_read is None:
        return 0.0
    return tokens * (full - call.cost_read / call.read)


def _unmarked(change: Changed, group: Sequence[LedgerCall], fresh: float) -> float:
    """USD that the calls of one model would have paid without the breakpoint that is gone. A breakpoint further back
    ends an entry that holds all the same; one further in front keeps its share, by bytes."""
    left = max((length for length, ttl in enumerate(change.new.marks, 1) if ttl), default=0)
    if left > change.difference.before:
        return 0.0
    shared = min((call.read for call in group if call.read), default=0)
    kept = shared * sum(part.size for part in change.old.parts[:left]) // max(change.old.size, 1)
    return sum(_premium(call, call.read - kept, fresh) for call in group)


def _rewritten(group: Sequence[LedgerCall], shared: int, kept: float, full: float) -> float:
    """USD times seconds: what a rewrite costs at each moment, summed over the moments. ``group`` is of one model."""
    conversations: dict[str, list[LedgerCall]] = defaultdict(list)
    for call in group:
        if call.conversation:
            conversations[call.conversation].append(call)
    total = sum(gap * _premium(call, shared - kept, full) for gap, call in _gaps(group))
    for calls in conversations.values():
        total += sum(gap * _premium(call, call.read - max(shared, kept), full) for gap, call in _gaps(calls))
    return total


def _gaps(calls: Sequence[LedgerCall]) -> Iterator[tuple[float, LedgerCall]]:
    """Each call but the first, with the seconds since the one before: the moments after which it comes next."""
    for earlier, later in pairwise(calls):
        yield later.at - earlier.at, later


def _kept(change: Changed, provider: str, model: str, shared: int) -> float:
    """Tokens in front of the changed place that are read all the same: their share of the shared part, by bytes."""
    rules, parts = rules_for(provider, model), change.old.parts
    front = change.difference.before
    if rules.matching is Matching.BREAKPOINT:
        front = max((length for length in range(front + 1) if length and parts[length - 1].ttl), default=0)
    if change.difference.reason is Reason.MODEL_CHANGED or not change.old.size:
        return 0.0
    tokens = shared * sum(part.size for part in parts[:front]) // change.old.size
    tokens -= tokens % rules.granule
    return float(tokens) if tokens >= max(rules.minimum, 1) else 0.0
