"""Breakpoints: where an equal beginning was not read because of where entries are, and are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_promptcache.diagnosis.case import NOTHING, Case, Expectation, info, leading_length
from otel_promptcache.history import TELLING, Sent
from otel_promptcache.model import Section
from otel_promptcache.providers.rules import Matching
from otel_promptcache.semconv import Reason

_STILL: Final = 2
"""Requests in a row that must have left the last breakpoint where it was before this one."""
_SAID: Final = 2
"""Messages that two prompts have in common where nothing else shows that they are one conversation's."""
_UNCOVERED: Final = 0.2
"""Share of the earlier prompt behind its last breakpoint from which a frozen one is told."""


def expect_equal(case: Case) -> Expectation:
    """What earlier requests with the very same beginning left, whether or not it is still there."""
    sight = case.sight
    length = max(sight.live, sight.expired, sight.pending, sight.beyond)
    if length <= sight.live:
        unmarked = _expect_unmarked(case)
        if unmarked is not None:
            return unmarked
        if not length:
            return NOTHING
        tokens, exact = case.tokens_at(length)
        return Expectation(tokens, exact, source=_source(case, length))
    if length == sight.expired:
        reason = Reason.TTL_EXPIRED
    elif length == sight.beyond:
        # An entry behind the last breakpoint is never looked for, however near it is.
        reason = Reason.BREAKPOINT_MOVED if length > case.deepest else Reason.LOOKBACK_EXCEEDED
    else:
        reason = Reason.CONCURRENT_WRITE
    tokens, exact = case.tokens_at(length)
    return Expectation(tokens, exact, reason, source=_source(case, length))


def _source(case: Case, length: int) -> Sent | None:
    """The request that a hit of this length would have come from."""
    previous = case.sight.previous
    return previous if previous is not None and length <= case.sight.shared else None


def _expect_unmarked(case: Case) -> Expectation | None:
    """What an equal beginning would have given, had anything marked its end."""
    previous = case.sight.previous
    if previous is None or case.rules.matching is Matching.PREFIX:
        return None
    if case.unmarked:
        return _expect_marker(case, previous)
    stable = leading_length(case.sight.infos)
    if case.continues or case.sight.shared < stable:
        return None
    if case.sight.live >= stable:
        return _expect_adrift(case, previous) if case.sight.shared > stable else None
    tokens, exact = case.tokens_at(stable)
    if tokens < case.rules.minimum or any(place.length <= case.sight.shared for place in case.prompt.breakpoints):
        return None
    explicit = any(place.explicit for place in case.prompt.breakpoints)
    reason = Reason.BREAKPOINT_MISPLACED if explicit else Reason.BREAKPOINT_MISSING
    if case.sight.unanswered:
        return Expectation(tokens, exact, Reason.CONCURRENT_WRITE, source=previous, also=(reason,))
    # Marks that the provider places by itself leave a new conversation nothing to read: that is a first request, and
    # nobody's fault.
    if not explicit and not case.named_alike(previous) and not _adrift(case, previous):
        return None
    return Expectation(tokens, exact, reason, source=previous)


def _expect_adrift(case: Case, previous: Sent) -> Expectation | None:
    """A conversation whose only mark among the messages stands, each time, on something that does not come again: what
    is resent in front of it is written anew with every turn."""
    sight = case.sight
    if not all(place.explicit and not sight.live < place.length <= sight.shared for place in case.prompt.breakpoints):
        return None
    tokens, exact = case.tokens_at(sight.shared)
    again = tokens - case.tokens_at(sight.live)[0]
    if again < max(case.rules.minimum, _UNCOVERED * case.total) or not _adrift(case, previous):
        return None
    return Expectation(tokens, exact, Reason.BREAKPOINT_MISPLACED, source=previous)


def _expect_marker(case: Case, previous: Sent) -> Expectation | None:
    """A request without any marker, where the earlier one had some: lost on the way where it is known, or where the
    same call site marked a block before that it sends again without; else the application set none."""
    marked = [node.length for node, _ in previous.breakpoints if node.length <= case.sight.shared]
    if not marked:
        return None
    tokens, exact = case.tokens_at(max(marked))
    # What stands at the very end may have been marked by one parameter of the request rather than by hand.
    by_hand = previous.leaf is not None and min(marked) < previous.leaf.length
    lost = case.prompt.marks_lost or (by_hand and previous.route == case.sight.sent.route)
    reasons = (Reason.MARKER_LOST, Reason.BREAKPOINT_MISSING) if lost else (Reason.BREAKPOINT_MISSING,)
    return Expectation(tokens, exact, reasons[0], source=previous, also=reasons[1:])


def _adrift(case: Case, previous: Sent) -> bool:
    """Whether this is the third request in a row that goes on with a conversation, and marks nothing of it that comes
    again. That it grows tells it from turns that are taken back."""
    front, shared = leading_length(case.sight.infos), case.sight.shared
    # An opener may be a template's; what was said after it is not.
    messages = {one.element for one in case.prompt.segments[front:shared]}
    if (
        shared <= previous.shared
        or len(messages) < _SAID
        or not any(one.size >= TELLING for one in case.sight.infos[front + 1 : shared])
    ):
        return False
    case.sight.sent.adrift = previous.adrift + 1
    return case.sight.sent.adrift >= _STILL


def expect_frozen(case: Case) -> Expectation | None:
    """What would have been read besides, had the last breakpoint gone along with the conversation.

    Told of a marker among the messages that stood still three times, or when no mark is left to place; that only the
    system prompt is marked is a choice.
    """
    previous, marks = case.sight.previous, case.prompt.breakpoints
    if previous is None or not marks or not previous.breakpoints or not case.continues:
        return None
    if not all(place.explicit for place in marks):
        return None
    here = case.sight.nodes[case.deepest - 1]
    before = max((node for node, _ in previous.breakpoints), key=lambda node: node.length)
    if here is not before:
        return None
    case.sight.sent.frozen = previous.frozen + 1
    total, covered = previous.total or 0, case.tokens_at(case.deepest)[0]
    tail = total - covered
    if previous.frozen + 1 < _STILL or tail < max(case.rules.minimum, _UNCOVERED * total):
        return None
    used_up = 0 < case.rules.max_breakpoints <= len(marks)
    if info(here).section is not Section.MESSAGES and not used_up:
        return None
    reason = Reason.BREAKPOINT_LIMIT if used_up else Reason.BREAKPOINT_FROZEN
    return Expectation(total, True, reason, source=previous)


def over_the_limit(case: Case, shared: Sequence[int]) -> bool:
    """Whether the places that requests share are among those that the provider passes over."""
    explicit = [place.length for place in case.prompt.breakpoints if place.explicit]
    limit = case.rules.max_breakpoints
    return 0 < limit < len(explicit) and any(length in shared for length in sorted(explicit)[:-limit])
