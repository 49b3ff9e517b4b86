"""The cache itself: what a request reads, what it stores, what it is billed. Pure: no HTTP, no clock of its own.

A request is looked up when it starts and stores its entries when its response begins, so two that start together
both write. Lifetimes count from the start of the request that wrote or last read an entry
(platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-09). Minimum, granule, lookback and lifetime
come from the rows of ``providers.rules``.

Where the documents are silent the emulator decides as follows. Reading a prefix keeps every shorter entry on its
path alive too. A marked place inside a prefix that is read gets an entry of its own and is not billed, for the
text is in the cache already. A living entry keeps its lifetime when it is marked again with another one.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Final, NamedTuple

from otel_promptcache.emulator.layout import Layout
from otel_promptcache.emulator.sequences import Match, Sequences, Stored
from otel_promptcache.emulator.tokens import Tokenizer, quarter_bytes
from otel_promptcache.model import Prompt, Scope
from otel_promptcache.providers.rules import Matching, Rules, rules_for
from otel_promptcache.providers.windows import windows, written
from otel_promptcache.semconv import Reason, Status

MAX_ENTRIES: Final = 200_000
"""Entries kept, expired ones included (they tell why a request missed). Beyond it the longest unused go."""

_TRIMMED_TO: Final = 0.9


@dataclass(frozen=True, slots=True)
class Accounting:
    """What one request was billed, in tokens, and why it was not less. ``total`` = read + written + fresh."""

    total: int
    read: int = 0
    writes: tuple[tuple[int, int], ...] = ()
    """(lifetime in seconds, tokens) of what was stored, the longest lifetime first."""
    status: Status = Status.COLD
    reason: Reason | None = None
    length: int = 0
    """Leading segments that lie wholly inside what was read."""
    why: str = ""
    """A sentence where status and reason do not say it all."""

    @property
    def write(self) -> int:
        """Tokens stored for all lifetimes."""
        return sum(tokens for _, tokens in self.writes)

    @property
    def fresh(self) -> int:
        """Tokens neither read nor stored."""
        return self.total - self.read - self.write


@dataclass(slots=True)
class Entry:
    """A stored prefix. It is alive up to and including ``expires``."""

    scope: Scope
    tokens: int
    ttl: int
    """Seconds."""
    used: float
    """Start of the request that wrote or last read it."""
    reads: int = 0
    evicted: bool = False

    @property
    def expires(self) -> float:
        return self.used + self.ttl

    def alive(self, now: float) -> bool:
        return not self.evicted and now <= self.expires


Stores = tuple[tuple[bytes, int, int], ...]
"""(digest of a prefix, its tokens, lifetime in seconds) of what a request is going to store."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request under way: its accounting, and what is stored once its response begins."""

    accounting: Accounting
    scope: Scope
    started: float
    stores: Stores = ()
    match: Match | None = None
    """What was found instead, where prompts are matched token by token."""


class _Found(NamedTuple):
    """A look-up before anything has changed: ``path`` are the prefixes that a read keeps alive."""

    accounting: Accounting
    stores: Stores = ()
    path: Sequence[bytes] = ()
    match: Match | None = None


class Cache:
    """All entries, of every provider, account and model. Not thread-safe.

    ``capacity`` is the room of a self-hosted engine, in tokens; 0 for no limit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer = quarter_bytes,
        capacity: int = 0,
        rules: Callable[[str, str], Rules] = rules_for,
    ) -> None:
        self.tokenizer = tokenizer
        self.capacity = capacity
        self._rules = rules
        self._entries: dict[bytes, Entry] = {}
        self._sequences = Sequences(tokenizer, capacity)
        self._underway: Counter[bytes] = Counter()
        """Prefixes that requests without a response yet are going to store."""

    def look_up(self, prompt: Prompt, scope: Scope, now: float, slot: int | None = None) -> Ticket:
        """Reads for a request that starts now. ``store`` or ``abandon`` has to follow."""
        found = self._find(prompt, scope, now, slot)
        self._keep_alive(found.path, now)
        self._underway.update(digest for digest, _, _ in found.stores)
        if found.match is not None:
            self._sequences.start(found.match, scope, now)
        return Ticket(found.accounting, scope, now, found.stores, found.match)

    def would_read(self, prompt: Prompt, scope: Scope, now: float) -> int:
        """Tokens that a request would read; nothing is changed."""
        return self._find(prompt, scope, now, None).accounting.read

    def store(self, ticket: Ticket, answered: Prompt | None = None) -> None:
        """The response begins: from here on others can read what this request stored. ``answered``: the prompt with
        the answer behind it, where the provider keeps that too."""
        self.abandon(ticket)
        rules = self._rules(ticket.scope.provider, ticket.scope.model)
        if ticket.match is not None:
            self._sequences.store(ticket.match, ticket.scope, rules.ttl, ticket.started, answered)
        for digest, tokens, ttl in ticket.stores:
            entry = self._entries.get(digest)
            if entry is None or not entry.alive(ticket.started):
                self._entries[digest] = Entry(ticket.scope, tokens, ttl, ticket.started)
            else:
                entry.used = max(entry.used, ticket.started)
        if self.capacity and not rules.per_account:
            self._make_room(ticket.scope.provider, rules.granule, ticket.started)
        if len(self._entries) > MAX_ENTRIES:
            self._trim()

    def abandon(self, ticket: Ticket) -> None:
        """No response will come: nothing is stored."""
        for digest, _, _ in ticket.stores:
            if self._underway[digest] > 1:
                self._underway[digest] -= 1
            else:
                del self._underway[digest]
        if ticket.match is not None:
            self._sequences.end(ticket.match, ticket.scope)

    def evict(self) -> None:
        """Everything leaves at once, as when a machine is lost. What was there is remembered as evicted."""
        for entry in self._entries.values():
            entry.evicted = True
        self._sequences.evict()

    def entries(self, most: int) -> list[Entry | Stored]:
        """The entries used last, newest first, at most so many."""
        everything: Iterable[Entry | Stored] = chain(self._entries.values(), self._sequences)
        return heapq.nlargest(most, everything, key=lambda entry: entry.used)

    def __len__(self) -> int:
        return len(self._entries) + sum(1 for _ in self._sequences)

    def _find(self, prompt: Prompt, scope: Scope, now: float, slot: int | None) -> _Found:
        rules = self._rules(scope.provider, scope.model)
        if rules.whole_units or (rules.matching is Matching.PREFIX and rules.granule == 1):
            return self._token_by_token(prompt, scope, rules, now, slot)
        layout = Layout(prompt, scope, self.tokenizer)
        find = self._at_marks if rules.matching is Matching.BREAKPOINT else self._at_granules
        return find(prompt, rules, layout, now)

    # --- entries at marked places ---------------------------------------------------------------------------

    def _at_marks(self, prompt: Prompt, rules: Rules, layout: Layout, now: float) -> _Found:
        digests, ends = layout.prefixes(), layout.ends
        places = written(prompt, rules, ends)
        length, reason = self._longest(digests, set(chain.from_iterable(windows(prompt, rules))), now)
        read = ends[length]
        if not read and not places:
            reason = _why_nothing_is_stored(prompt, rules, layout.total)
        writes = bill(read, [(ends[place.length], place.ttl) for place in places])
        accounting = Accounting(layout.total, read, writes, status(read, reason), reason, length)
        stores = tuple((digests[place.length], ends[place.length], place.ttl) for place in places)
        return _Found(accounting, stores, digests[: length + 1])

    def _longest(self, digests: Sequence[bytes], lengths: set[int], now: float) -> tuple[int, Reason | None]:
        """Longest length that can be read, and what kept the request from a longer one that was or will be there."""
        reason = None
        farthest = max(lengths, default=0)
        for length in range(farthest, 0, -1):
            entry = self._entries.get(digests[length])
            alive = entry is not None and entry.alive(now)
            if length in lengths:
                if alive:
                    return length, reason
                reason = reason or self._why_not_alive(digests[length])
            elif reason is None and alive:
                reason = Reason.LOOKBACK_EXCEEDED
        return 0, reason

    # --- any common prefix, in granules ---------------------------------------------------------------------

    def _at_granules(self, prompt: Prompt, rules: Rules, layout: Layout, now: float) -> _Found:
        if layout.total < rules.minimum:
            return _too_short(layout.total)
        size = rules.granule
        digests = layout.granules(size)
        count = next((index for index, digest in enumerate(digests) if not self._alive(digest, now)), len(digests))
        missed = self._why_not_alive(digests[count]) if count < len(digests) else None
        count = min(count, (layout.total - rules.recomputed) // size)
        if count * size < rules.minimum:
            count = 0
        read = count * size
        ttl = prompt.retention or rules.ttl
        writes = ((ttl, len(digests) * size - read),) if rules.reports_writes else ()
        length = bisect.bisect_right(layout.ends, read) - 1
        accounting = Accounting(layout.total, read, writes, status(read, missed), missed, length)
        stores = tuple((digest, index * size, ttl) for index, digest in enumerate(digests, 1))
        return _Found(accounting, stores, digests[:count])

    # --- any common prefix, token by token ------------------------------------------------------------------

    def _token_by_token(self, prompt: Prompt, scope: Scope, rules: Rules, now: float, slot: int | None) -> _Found:
        match = self._sequences.find(prompt, scope, rules, now, slot)
        ends = list(accumulate((one.tokens for _, one in match.parts), initial=0))
        if ends[-1] < rules.minimum:
            return _too_short(ends[-1])
        length = bisect.bisect_right(ends, match.read) - 1
        verdict = status(match.read, match.reason)
        why = "only a whole unit can be read, and none ends in the common prefix" if rules.whole_units else ""
        missed = match.common >= rules.minimum and not match.read and verdict is Status.COLD
        return _Found(
            Accounting(ends[-1], match.read, (), verdict, match.reason, length, why if missed else ""), match=match
        )

    # --- shared ---------------------------------------------------------------------------------------------

    def _alive(self, digest: bytes, now: float) -> bool:
        entry = self._entries.get(digest)
        return entry is not None and entry.alive(now)

    def _why_not_alive(self, digest: bytes) -> Reason | None:
        """What keeps a prefix that is not alive from being read: not stored yet, no longer, or (None) never."""
        if digest in self._underway:
            return Reason.CONCURRENT_WRITE
        entry = self._entries.get(digest)
        if entry is None:
            return None
        return Reason.UNKNOWN if entry.evicted else Reason.TTL_EXPIRED

    def _keep_alive(self, path: Sequence[bytes], now: float) -> None:
        """Counts a read of the prefix that a path ends with, and gives all entries on it a new start."""
        for digest in path:
            entry = self._entries.get(digest)
            if entry is not None and entry.alive(now):
                entry.used = max(entry.used, now)
        if path and (last := self._entries.get(path[-1])) is not None:
            last.reads += 1

    def _make_room(self, provider: str, size: int, now: float) -> None:
        """Blocks unused for longest leave first, and of one prompt the end before the beginning."""
        alive = [one for one in self._entries.values() if one.scope.provider == provider and one.alive(now)]
        surplus = len(alive) - self.capacity // size
        for entry in heapq.nsmallest(surplus, alive, key=lambda one: (one.used, -one.tokens)) if surplus > 0 else ():
            entry.evicted = True

    def _trim(self) -> None:
        kept = heapq.nlargest(
            int(MAX_ENTRIES * _TRIMMED_TO),
            self._entries.items(),
            key=lambda item: (item[1].used, -item[1].tokens),
        )
        self._entries = dict(kept)


def bill(read: int, places: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """(lifetime, tokens) written, for places given as (tokens of the prefix, lifetime), longest lifetime first.

    With A = ``read``, B = the highest place of the longer lifetime after A and C = the last place: B - A tokens are
    written at the longer lifetime and C - B at the shorter
    (platform.claude.com/docs/en/build-with-claude/prompt-caching, "Mixing different TTLs", 2026-09).
    """
    highest: dict[int, int] = {}
    for tokens, ttl in places:
        highest[ttl] = max(tokens, highest.get(ttl, 0))
    writes = []
    covered = read
    for ttl in sorted(highest, reverse=True):
        writes.append((ttl, max(0, highest[ttl] - covered)))
        covered = max(covered, highest[ttl])
    return tuple(writes)


def status(read: int, reason: Reason | None) -> Status:
    """The verdict that goes with what was read and what kept the request from reading more."""
    if read:
        return Status.PARTIAL if reason else Status.HIT
    if reason in (Reason.BELOW_MINIMUM, Reason.BREAKPOINT_MISSING):
        return Status.UNCACHEABLE
    return Status.MISS if reason else Status.COLD


def _too_short(total: int) -> _Found:
    reason = Reason.BELOW_MINIMUM
    return _Found(Accounting(total, status=status(0, reason), reason=reason))


def _why_nothing_is_stored(prompt: Prompt, rules: Rules, total: int) -> Reason:
    """Why no entry is stored: nothing is marked, or all that is marked is too short."""
    if prompt.breakpoints or (total < rules.minimum and not rules.needs_marker):
        return Reason.BELOW_MINIMUM
    return Reason.BREAKPOINT_MISSING
