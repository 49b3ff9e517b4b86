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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from otel_promptcache.emulator.layout import Layout
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

    @property
    def expires(self) -> float:
        return self.used + self.ttl


Stores = tuple[tuple[bytes, int, int], ...]
"""(digest of a prefix, its tokens, lifetime in seconds) of what a request is going to store."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request under way: its accounting, and what is stored once its response begins."""

    accounting: Accounting
    scope: Scope
    started: float
    stores: Stores


class Cache:
    """All entries, of every provider, account and model. Not thread-safe."""

    def __init__(self, tokenizer: Tokenizer = quarter_bytes) -> None:
        self.tokenizer = tokenizer
        self._entries: dict[bytes, Entry] = {}
        self._underway: Counter[bytes] = Counter()
        """Prefixes that requests without a response yet are going to store."""

    def look_up(self, prompt: Prompt, scope: Scope, now: float) -> Ticket:
        """Reads for a request that starts now. ``store`` or ``abandon`` has to follow."""
        rules = rules_for(scope.provider, scope.model)
        layout = Layout(prompt, scope, self.tokenizer)
        look_up = self._at_marks if rules.matching is Matching.BREAKPOINT else self._at_granules
        accounting, stores = look_up(prompt, rules, layout, now)
        self._underway.update(digest for digest, _, _ in stores)
        return Ticket(accounting, scope, now, stores)

    def store(self, ticket: Ticket) -> None:
        """The response begins: from here on others can read what this request stored."""
        self._forget_underway(ticket)
        for digest, tokens, ttl in ticket.stores:
            entry = self._entries.get(digest)
            if entry is None or entry.expires < ticket.started:
                self._entries[digest] = Entry(ticket.scope, tokens, ttl, ticket.started)
            else:
                entry.used = max(entry.used, ticket.started)
        if len(self._entries) > MAX_ENTRIES:
            self._trim()

    def abandon(self, ticket: Ticket) -> None:
        """No response will come: nothing is stored."""
        self._forget_underway(ticket)

    def entries(self, most: int) -> list[Entry]:
        """The entries used last, newest first, at most so many."""
        return heapq.nlargest(most, self._entries.values(), key=lambda entry: entry.used)

    def __len__(self) -> int:
        return len(self._entries)

    # --- entries at marked places ---------------------------------------------------------------------------

    def _at_marks(self, prompt: Prompt, rules: Rules, layout: Layout, now: float) -> tuple[Accounting, Stores]:
        digests, ends = layout.prefixes(), layout.ends
        places = written(prompt, rules, ends)
        length, reason = self._longest(digests, set(chain.from_iterable(windows(prompt, rules))), now)
        read = ends[length]
        self._keep_alive(digests[: length + 1], now)
        if not read and not places:
            reason = _why_nothing_is_stored(prompt, rules, layout.total)
        writes = bill(read, [(ends[place.length], place.ttl) for place in places])
        accounting = Accounting(layout.total, read, writes, status(read, reason), reason, length)
        return accounting, tuple((digests[place.length], ends[place.length], place.ttl) for place in places)

    def _longest(self, digests: Sequence[bytes], lengths: set[int], now: float) -> tuple[int, Reason | None]:
        """Longest length that can be read, and what kept the request from a longer one that was or will be there."""
        reason = None
        farthest = max(lengths, default=0)
        for length in range(farthest, 0, -1):
            entry = self._entries.get(digests[length])
            alive = entry is not None and now <= entry.expires
            if length in lengths:
                if alive:
                    return length, reason
                reason = reason or self._why_not_alive(digests[length])
            elif reason is None and alive:
                reason = Reason.LOOKBACK_EXCEEDED
        return 0, reason

    # --- any common prefix, in granules ---------------------------------------------------------------------

    def _at_granules(self, prompt: Prompt, rules: Rules, layout: Layout, now: float) -> tuple[Accounting, Stores]:
        if layout.total < rules.minimum:
            reason = Reason.BELOW_MINIMUM
            return Accounting(layout.total, status=status(0, reason), reason=reason), ()
        size = rules.granule
        digests = layout.granules(size)
        count = next((index for index, digest in enumerate(digests) if not self._alive(digest, now)), len(digests))
        missed = self._why_not_alive(digests[count]) if count < len(digests) else None
        if count * size < rules.minimum:
            count = 0
        self._keep_alive(digests[:count], now)
        read = count * size
        length = bisect.bisect_right(layout.ends, read) - 1
        accounting = Accounting(layout.total, read, (), status(read, missed), missed, length)
        ttl = prompt.retention or rules.ttl
        return accounting, tuple((digest, index * size, ttl) for index, digest in enumerate(digests, 1))

    # --- shared ---------------------------------------------------------------------------------------------

    def _alive(self, digest: bytes, now: float) -> bool:
        entry = self._entries.get(digest)
        return entry is not None and now <= entry.expires

    def _why_not_alive(self, digest: bytes) -> Reason | None:
        """What keeps a prefix that is not alive from being read: not stored yet, no longer, or (None) never."""
        if digest in self._underway:
            return Reason.CONCURRENT_WRITE
        return Reason.TTL_EXPIRED if digest in self._entries else None

    def _keep_alive(self, path: Sequence[bytes], now: float) -> None:
        """Counts a read of the prefix that a path ends with, and gives all entries on it a new start."""
        for digest in path:
            entry = self._entries.get(digest)
            if entry is not None and now <= entry.expires:
                entry.used = max(entry.used, now)
        if path and (last := self._entries.get(path[-1])) is not None:
            last.reads += 1

    def _forget_underway(self, ticket: Ticket) -> None:
        for digest, _, _ in ticket.stores:
            if self._underway[digest] > 1:
                self._underway[digest] -= 1
            else:
                del self._underway[digest]

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


def _why_nothing_is_stored(prompt: Prompt, rules: Rules, total: int) -> Reason:
    """Why no entry is stored: nothing is marked, or all that is marked is too short."""
    if prompt.breakpoints or (total < rules.minimum and not rules.needs_marker):
        return Reason.BELOW_MINIMUM
    return Reason.BREAKPOINT_MISSING
