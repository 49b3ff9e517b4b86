"""What the provider holds, by the rules: what a request may read of what earlier ones left, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator

from otel_promptcache.history import Entry, Node, Path, Sight
from otel_promptcache.model import Prompt
from otel_promptcache.providers.rules import Matching, Rules
from otel_promptcache.providers.windows import windows


def place_entries(prompt: Prompt, path: Path, now: float) -> tuple[tuple[Node, int], ...]:
    """Notes an entry at each breakpoint that has no living one; returns the places with their lifetimes."""
    marks = [place for place in prompt.breakpoints if 0 < place.length <= len(path)]
    places = tuple((path.keep(place.length), place.ttl) for place in marks)
    for node, ttl in places:
        if node.entry is None or not node.entry.alive(now):
            node.entry = Entry(ttl, now)
    return places


def withdraw(sight: Sight) -> None:
    """Takes back what was assumed of a request that failed before its response began: it left nothing to read."""
    sent = sight.sent
    for node, _ in sent.breakpoints:
        if node.entry is not None and node.entry.used == sent.at and not node.entry.readable:
            node.entry = None
    for stem, _, end in sight.nodes.pieces:
        stem.left(sent, min(end, sight.shared - stem.start), sight.previous)


def simulate(sight: Sight, prompt: Prompt, rules: Rules, now: float) -> None:
    """Fills in what this request may read, by the rules, from what earlier ones left."""
    if rules.matching is Matching.PREFIX:
        _simulate_prefix(sight, prompt, rules, now)
        return
    for window in windows(prompt, rules):
        _search(sight, window, now)
    if sight.previous is not None:
        # What the newest request with this prefix marked, but no window reached.
        for node, _ in sight.previous.breakpoints:
            if sight.live < node.length <= sight.shared and node.entry is not None and prompt.breakpoints:
                if not node.entry.alive(now):
                    sight.expired = max(sight.expired, node.length)
                elif node.entry.readable:
                    sight.beyond = max(sight.beyond, node.length)


def _search(sight: Sight, window: Iterator[int], now: float) -> None:
    """Follows one search to the first entry that can be read."""
    for length in window:
        node = sight.nodes.kept(length) if length <= sight.shared else None
        entry = node.entry if node is not None else None
        if entry is None:
            continue
        if not entry.alive(now):
            sight.expired = max(sight.expired, length)
        elif not entry.readable:
            sight.pending = max(sight.pending, length)
        else:
            sight.live = max(sight.live, length)
            return


def _simulate_prefix(sight: Sight, prompt: Prompt, rules: Rules, now: float) -> None:
    ttl = prompt.retention or rules.ttl
    for high, low, last in sight.nodes.lasts():
        # While the newest is on its way, an earlier one with part of the same prefix may be readable.
        before = last.before if not last.readable else None
        found = [(high, last)] if before is None or high > last.shared else []
        if before is not None and last.shared > low:
            found.append((min(high, last.shared), before))
        for length, sent in found:
            if now - sent.at > ttl:
                sight.expired = max(sight.expired, length)
            elif not sent.readable:
                sight.pending = max(sight.pending, length)
            else:
                sight.live = length
                return
