"""What a prompt map says of breakpoints, and of the earlier prompt that it is a delta to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from otel_promptcache.fingerprint import Chain, HashKey
from otel_promptcache.history import Sight


def marks_of(places: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Breakpoints as a map has them: the lifetime in minutes, by the length of the prefix in front."""
    return {length: min(255, max(1, ttl // 60)) for length, ttl in places}


def base_of(key: HashKey, sight: Sight, marks: Mapping[int, int]) -> tuple[Chain | None, int]:
    """The chain of the earlier prompt a map is a delta to, and how many leading segments they share, with marks."""
    previous = sight.previous
    if previous is None:
        return None, 0
    before = marks_of((node.length, ttl) for node, ttl in previous.breakpoints)
    moved = [length for length in marks.keys() | before.keys() if marks.get(length) != before.get(length)]
    shared = min(sight.shared, *(length - 1 for length in moved)) if moved else sight.shared
    chain = previous.path().chain(key) if shared else None
    return (chain, shared) if chain is not None else (None, 0)  # forgotten since
