"""What the rules look at: one request, what was known when it was sent, what the provider reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from otel_promptcache.diagnosis.change import Change
from otel_promptcache.history import Info, Node, Path, Sent, Sight
from otel_promptcache.model import Prompt, Scope, Section, Usage
from otel_promptcache.providers.rules import Matching, Rules
from otel_promptcache.semconv import Reason

LEADING: Final = frozenset({Section.PARAMETERS, Section.TOOLS, Section.SYSTEM})
_ROUNDING: Final = 8
"""Bytes by which a boundary in tokens may seem to lie inside the last character of a segment."""


class Expectation(NamedTuple):
    """What a stable application would have read, and what kept this one from it."""

    tokens: int
    exact: bool
    reason: Reason | None = None
    change: Change | None = None
    source: Sent | None = None
    also: tuple[Reason, ...] = ()
    guessed: bool = False
    """Whether the earlier request may as well be another conversation's."""


NOTHING: Final = Expectation(0, True)


class Case(NamedTuple):
    """Everything the rules look at."""

    prompt: Prompt
    sight: Sight
    rules: Rules
    usage: Usage
    served: str = ""
    """Model that answered, where the response says so."""

    @property
    def total(self) -> int:
        return self.usage.input_total or 0

    @property
    def scope(self) -> Scope:
        return self.sight.sent.scope

    @property
    def ttl(self) -> int:
        return self.prompt.retention or self.rules.ttl

    @property
    def unmarked(self) -> bool:
        """Whether nothing in the request asks for caching where the provider does not cache by itself."""
        if self.rules.matching is Matching.PREFIX:
            return self.rules.can_be_off and not self.prompt.automatic
        if self.prompt.breakpoints:
            return False
        return self.rules.needs_marker or not self.prompt.automatic

    @property
    def turned_off(self) -> bool:
        """Whether the request asks a provider that caches every prefix not to."""
        return self.unmarked and self.rules.matching is Matching.PREFIX

    @property
    def deepest(self) -> int:
        """Segments in front of the last breakpoint."""
        return max((place.length for place in self.prompt.breakpoints), default=0)

    @property
    def continues(self) -> bool:
        """Whether this request is an earlier one with more behind it, or the same once more."""
        previous = self.sight.previous
        last = previous.leaf if previous is not None else None
        return last is not None and last.length == self.sight.shared and info(last).section is Section.MESSAGES

    def named_alike(self, source: Sent) -> bool:
        """Whether the application itself says that this request and an earlier one are of one conversation."""
        sent = self.sight.sent
        return source is self.sight.holder or bool(source.conversation and source.conversation == sent.conversation)

    def tokens_at(self, length: int) -> tuple[int, bool]:
        """Tokens of the first ``length`` segments of this prompt, and whether a response told them."""
        tokens, exact = tokens_at(self.sight.nodes, length, self.total)
        if not exact:
            # A share of bytes misjudges scripts and pictures, but no prompt has fewer tokens than its beginning.
            tokens = min([tokens, *[one.total for one in self.sight.holders(length) if one.total]])
        return tokens, exact


def info(node: Node) -> Info:
    """What is known of the segment at a position."""
    assert node.info is not None  # only roots have none, and no path contains its root
    return node.info


def leading_length(infos: Sequence[Info]) -> int:
    """Number of segments in front of the messages."""
    return next((index for index, one in enumerate(infos) if one.section not in LEADING), len(infos))


def tokens_at(path: Path, length: int, total: int) -> tuple[int, bool]:
    """Tokens of a prefix: told by a response, else a byte share between the nearest counts that were."""
    if length <= 0:
        return 0, True
    node = path.kept(length)
    if node is not None and node.tokens:
        return node.tokens, True
    counted = path.counted()
    low = next((other for other in reversed(counted) if other.length < length), None)
    high = next((other for other in counted if other.length > length), None)
    size_low, tokens_low = (low.size, low.tokens) if low else (0, 0)
    size_high, tokens_high = (high.size, high.tokens) if high else (path.size(len(path)), total)
    if size_high <= size_low:
        return tokens_low, False
    share = (path.size(length) - size_low) / (size_high - size_low)
    return tokens_low + int(share * max(0, tokens_high - tokens_low)), False


def held_after(case: Case, source: Sent, old: Path, length: int) -> tuple[int, bool]:
    """Tokens the provider held after ``source`` for its first ``length`` segments."""
    if case.rules.matching is Matching.BREAKPOINT:
        places = [node for node, _ in source.breakpoints if node.length <= length]
        if places:
            deepest = max(places, key=_length)
            last = max((node for node, _ in source.breakpoints), key=_length)
            if deepest is last and source.cached is not None:
                return source.cached, True
            length = deepest.length
        elif not case.rules.implicit_mark:
            return 0, True
        # Where marks are implied, what is in front of the messages would be held had it been marked once.
    elif length >= len(old) and source.total:
        return source.total - source.total % case.rules.granule, True
    tokens, exact = tokens_at(old, length, source.total or 0)
    return tokens - tokens % case.rules.granule, exact


def _length(node: Node) -> int:
    return node.length


def expired(case: Case, source: Sent) -> bool:
    """Whether all that an earlier request left had run out before this one was sent."""
    return case.sight.sent.at - source.at > lifetime(case, source)


def lifetime(case: Case, source: Sent) -> int:
    """The longest lifetime in seconds of anything that an earlier request left."""
    return max([ttl for _, ttl in source.breakpoints] or [case.ttl])


def hit_depth(prompt: Prompt, sight: Sight, usage: Usage) -> float | None:
    """Estimated share of message elements wholly inside the read prefix; None for server-held history.

    On the OpenAI dialects the leading instructions are elements of the message array too.
    """
    array_sections = (Section.MESSAGES,) if prompt.dialect == "anthropic" else (Section.MESSAGES, Section.SYSTEM)
    if prompt.previous_id or prompt.conversation_id or not prompt.segments or usage.read is None:
        return None
    elements = prompt.segments[-1].element + 1
    if prompt.segments[-1].section is not Section.MESSAGES or elements <= 0 or not usage.input_total:
        return None
    live = sight.live
    end = sight.nodes.kept(live) if live else None
    if end is not None and end.tokens == usage.read:
        low = live  # what was read ends where an earlier response said that this many tokens do
    else:  # by bytes: what was read ends where its share of the prompt's bytes does
        inside = usage.read / usage.input_total * sight.nodes.size(len(sight.nodes))
        low = sight.nodes.within(inside + _ROUNDING)
    last = prompt.segments[low - 1] if low else None
    if last is None or last.section not in array_sections:
        return 0.0
    after = prompt.segments[low] if low < len(prompt.segments) else None
    whole = after is None or after.element != last.element or after.section is not last.section
    return (last.element + (1 if whole else 0)) / elements
