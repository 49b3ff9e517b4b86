"""Whole prompts as engines keep them that match token by token: radix trees, slots, prefix units.

A stored sequence is the pieces of one prompt and, where the engine keeps it, of the answer behind it. What two
sequences share is counted in whole tokens from the front. ``providers.rules`` says what of it can be read: every
token (SGLang), what stands in the best slot (llama.cpp), or what ends where a unit ends (DeepSeek).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from otel_promptcache.emulator.tokens import Piece, Tokenizer, cut, piece
from otel_promptcache.fingerprint import common_start
from otel_promptcache.model import Prompt, Scope
from otel_promptcache.providers.rules import Rules
from otel_promptcache.semconv import Reason

MAX_SEQUENCES: Final = 1_000
"""Kept for one scope, expired ones included."""

_KNOWN: Final = 10_000
"""Parts that are known again; beyond it the list begins anew."""

_COUNTED: Final = 64
"""Places in texts whose tokens are remembered: of many stored prompts most part from a new one at the same few."""

SIMILAR: Final = 0.1
"""Share of a prompt that a slot has to hold already to be chosen for it (llama.cpp, ``--slot-prompt-similarity``)."""

Part = tuple[str, Piece]
"""Who said it, and what."""


@dataclass(slots=True, eq=False)
class Stored:
    """One sequence. It is alive up to and including ``used`` + ``ttl``."""

    scope: Scope
    parts: Sequence[Part]
    tokens: int
    ttl: int
    used: float
    units: frozenset[int] = frozenset()
    """Lengths in tokens at which a read may end, where only some may."""
    reads: int = 0
    own: int = 0
    """Tokens that no sequence stored before had: what it takes of the room."""
    evicted: bool = False

    @property
    def expires(self) -> float:
        return self.used + self.ttl

    def alive(self, now: float) -> bool:
        return not self.evicted and now <= self.expires


class Match(NamedTuple):
    """What a look-up found."""

    read: int
    reason: Reason | None
    parts: Sequence[Part]
    units: frozenset[int]
    """Ends of units within the prompt, those that this request detects included."""
    common: int
    source: Stored | None
    slot: int


@dataclass(slots=True)
class _Shelf:
    """The sequences of one scope. ``slots``: what each slot holds; ``busy`` are those with a request in them."""

    stored: list[Stored] = field(default_factory=list)
    underway: list[Sequence[Part]] = field(default_factory=list)
    slots: dict[int, Stored] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)


class Sequences:
    """Sequences of all scopes that match token by token. ``capacity`` in tokens, 0 for no limit."""

    def __init__(self, tokenizer: Tokenizer, capacity: int = 0) -> None:
        self._tokenizer = tokenizer
        self._capacity = capacity
        self._shelves: dict[Scope, _Shelf] = {}
        self._known: dict[Part, Part] = {}
        self._counted = lru_cache(_COUNTED)(self._whole_tokens)

    def find(self, prompt: Prompt, scope: Scope, rules: Rules, now: float, slot: int | None) -> Match:
        """The longest read for a prompt. Changes nothing. ``slot``: the one the client insists on."""
        shelf = self._shelves.get(scope) or _Shelf()
        parts = self.parts(prompt)
        total = tokens(parts)
        if rules.slots:
            chosen, held = self._slot(shelf, parts, total, rules.slots, slot)
            candidates = [held] if held else []
        else:
            chosen, candidates = -1, shelf.stored
        best, read, common, reason = None, 0, 0, None
        units = {total}
        alike = [(one, self.shared(parts, one.parts)) for one in candidates]
        for one, shared in alike:
            length = min(_readable(one, shared, rules), total - rules.recomputed)
            length -= length % rules.granule
            if one.alive(now):
                common = max(common, shared)
                units |= {shared, *(unit for unit in one.units if unit <= shared)}
                # Of several that share as much the latest is used: the others' own ends are as old as before.
                if length and (length, one.used) > (read, best.used if best else 0.0):
                    best, read = one, length
        if read < rules.minimum:
            best, read = None, 0
        for one, shared in alike:
            if not one.alive(now) and shared > common:
                reason = Reason.UNKNOWN if one.evicted else Reason.TTL_EXPIRED
        if any(self.shared(parts, other) > common for other in shelf.underway):
            reason = Reason.CONCURRENT_WRITE
        ends = frozenset(units - {0}) if rules.whole_units else frozenset[int]()
        return Match(read, reason, parts, ends, common, best, chosen)

    def start(self, match: Match, scope: Scope, now: float) -> None:
        """The request goes on: it uses what it reads, and its own sequence is under way."""
        shelf = self._shelves.setdefault(scope, _Shelf())
        shelf.underway.append(match.parts)
        if match.slot >= 0:
            shelf.busy.add(match.slot)
        if match.source is not None:
            match.source.used = max(match.source.used, now)
            match.source.reads += 1

    def end(self, match: Match, scope: Scope) -> None:
        """The request is under way no longer."""
        shelf = self._shelves.get(scope)
        if shelf is None:  # forgotten meanwhile
            return
        shelf.underway = [one for one in shelf.underway if one is not match.parts]
        shelf.busy.discard(match.slot)

    def store(self, match: Match, scope: Scope, ttl: int, started: float, answered: Prompt | None) -> None:
        """Keeps a prompt, with the answer behind it where ``answered`` is the conversation so far."""
        shelf = self._shelves.setdefault(scope, _Shelf())
        parts = self.parts(answered) if answered else match.parts
        size = tokens(parts)
        units = match.units | {size} if match.units else match.units
        common = max((self.shared(parts, one.parts) for one in shelf.stored if one.alive(started)), default=0)
        new = Stored(scope, parts, size, ttl, started, units, own=max(0, size - common))
        if match.slot >= 0:
            shelf.slots[match.slot] = new
            return
        # A sequence that the new one continues lives on in it.
        continued = [one for one in shelf.stored if one.alive(started) and _begins(parts, one.parts)]
        new.own += sum(one.own for one in continued)
        if continued:
            shelf.stored = [one for one in shelf.stored if one not in continued]
        shelf.stored.append(new)
        del shelf.stored[:-MAX_SEQUENCES]
        self._make_room(shelf, started)

    def evict(self) -> None:
        """All living sequences leave."""
        for one in self:
            one.evicted = True

    def __iter__(self) -> Iterator[Stored]:
        for shelf in self._shelves.values():
            yield from shelf.stored
            yield from shelf.slots.values()

    def parts(self, prompt: Prompt) -> list[Part]:
        """Equal parts are one object, so that long texts are compared once and not with everything stored."""
        if len(self._known) > _KNOWN:
            self._known.clear()
        found = [(segment.role, piece(segment, self._tokenizer)) for segment in prompt.segments]
        return [self._known.setdefault(part, part) for part in found]

    def shared(self, one: Sequence[Part], other: Sequence[Part]) -> int:
        """Whole tokens that two sequences have in common from the front."""
        common = 0
        for (role, mine), (their_role, theirs) in zip(one, other, strict=False):
            if role != their_role:
                break
            if mine.text == theirs.text:
                common += mine.tokens
                continue
            if mine.divisible and theirs.divisible:
                common += self._counted(mine.text, common_start(mine.text, theirs.text))
            break
        return common

    def _whole_tokens(self, text: str, characters: int) -> int:
        if not characters:
            return 0
        count = self._tokenizer(text[:characters])
        return count if cut(self._tokenizer, text, count) <= characters else count - 1

    def _slot(
        self, shelf: _Shelf, parts: Sequence[Part], total: int, slots: int, wanted: int | None
    ) -> tuple[int, Stored | None]:
        """The slot for a prompt: the one that holds most of it, else the one unused for longest."""
        if wanted is not None and 0 <= wanted < slots:
            return wanted, shelf.slots.get(wanted)
        free = [number for number in range(slots) if number not in shelf.busy] or list(range(slots))
        shared = {n: self.shared(parts, shelf.slots[n].parts) for n in free if n in shelf.slots}
        best = max(shared, key=lambda n: shared[n], default=-1)
        if best < 0 or shared[best] <= SIMILAR * total:
            best = min(free, key=lambda n: shelf.slots[n].used if n in shelf.slots else -1.0)
        return best, shelf.slots.get(best)

    def _make_room(self, shelf: _Shelf, now: float) -> None:
        if not self._capacity:
            return
        alive = sorted((one for one in shelf.stored if one.alive(now)), key=lambda one: one.used, reverse=True)
        while alive and sum(one.own for one in alive) > self._capacity:
            leaving = alive.pop()
            leaving.evicted = True
            # What another sequence shares with it stays, and is that one's from now on.
            heirs = [(self.shared(one.parts, leaving.parts), number) for number, one in enumerate(alive)]
            shared, number = max(heirs, default=(0, 0))
            if kept := max(0, shared - (leaving.tokens - leaving.own)):
                alive[number].own += kept


def tokens(parts: Iterable[Part]) -> int:
    return sum(one.tokens for _, one in parts)


def _readable(stored: Stored, shared: int, rules: Rules) -> int:
    """What can be read of a sequence that shares so many tokens with a prompt."""
    if not rules.whole_units:
        return shared
    return max((unit for unit in stored.units if unit <= shared), default=0)


def _begins(parts: Sequence[Part], beginning: Sequence[Part]) -> bool:
    return len(beginning) <= len(parts) and all(a == b for a, b in zip(parts, beginning, strict=False))
