"""An equal prefix, in scope and in time, that was not read: what is left to say, the visible first."""

from __future__ import annotations

from typing import Final

from otel_promptcache.diagnosis.breakpoints import over_the_limit
from otel_promptcache.diagnosis.case import Case, Expectation, lifetime
from otel_promptcache.history import Sent
from otel_promptcache.model import Diagnosis
from otel_promptcache.providers.rules import Matching
from otel_promptcache.semconv import Reason, Status

VISIBLE_AFTER: Final = 2.0
"""Seconds after the beginning of the writer's answer in which an entry may not be readable everywhere."""
_ESTIMATE: Final = 2
"""By how much the estimated length of a text, from the bytes of its neighbours, may be too large at most."""
_TEMPLATE: Final = 0.05
"""Share of a first request up to which what a server reads is its own chat template, where it caches any length."""
_NEAR: Final = 2
"""Multiple of the documented minimum up to which a platform's own may be the reason."""


def unexplained(case: Case, expected: Expectation) -> Reason:
    """The reason of a miss for which nothing in the prompt gives one.

    The provider is named only when the prefix was provably the same, in scope and in time.
    """
    source = expected.source
    if source is not None:
        if case.served and source.served and case.served != source.served:
            return Reason.MODEL_CHANGED
        if _other_lifetime(case, source):
            return Reason.TTL_CHANGED
    if case.sight.held:
        return _held(case)
    if _never_arrived(case) and case.tokens_at(case.deepest)[0] >= _NEAR * case.rules.minimum:
        return Reason.MARKER_LOST
    if over_the_limit(case, range(1, case.sight.shared + 1)):
        return Reason.BREAKPOINT_LIMIT
    if case.rules.machine_rate and case.sight.rate > case.rules.machine_rate:
        return Reason.ROUTING_OVERFLOW
    if case.usage.server_tools or case.prompt.truncated or source is None:
        return Reason.UNKNOWN
    written = case.rules.matching is Matching.BREAKPOINT
    if written and source.began is not None and 0 <= case.sight.sent.at - source.began <= VISIBLE_AFTER:
        return Reason.WRITE_NOT_VISIBLE
    if not case.rules.lifetime_stated:
        return Reason.IMPLICIT_UNRELIABLE
    if case.usage.read and not expected.exact and not _far_below(case, expected):
        return Reason.UNKNOWN  # how much was held is an estimate
    return Reason.PROVIDER_EVICTED


def _far_below(case: Case, expected: Expectation) -> bool:
    """Whether so little was read that an estimate of what was held cannot be wrong by as much."""
    return case.prompt.text_only and _ESTIMATE * (case.usage.read or 0) <= expected.tokens


def _never_arrived(case: Case) -> bool:
    """Whether a marked prompt was neither read nor written, where marks alone decide: what had been evicted would have
    been written anew, and so the mark is not on the wire that the provider sees."""
    nothing = case.usage.write == 0 and not case.usage.read
    return nothing and case.rules.needs_marker and bool(case.prompt.breakpoints) and not case.prompt.truncated


def _has_stored(case: Case) -> bool:
    """Whether this endpoint is known to store what is marked, for this account and model."""
    earlier = (case.sight.previous, *case.sight.kin, *case.sight.sites)
    return any(one is not None and one.scope == case.scope and one.cached for one in earlier)


def _asked(case: Case) -> bool:
    """Whether the request marks something: a mark that the provider implies asks nothing of an endpoint that may know
    none."""
    marks = case.prompt.breakpoints
    return bool(marks) and (case.rules.matching is Matching.BREAKPOINT or any(place.explicit for place in marks))


def _held(case: Case) -> Reason:
    """What the server holds cannot be seen; that it was asked to edit it can."""
    edits = any(segment.role == "context_management" for segment in case.prompt.segments)
    return Reason.CONTEXT_CHANGED if edits else Reason.UNKNOWN


def _other_lifetime(case: Case, source: Sent) -> bool:
    """Whether one of the two requests asked for a shorter life than the other, and the gap lies between them."""
    asked = max((place.ttl for place in case.prompt.breakpoints), default=0)
    had = lifetime(case, source) if source.breakpoints else 0
    gap = case.sight.sent.at - source.at
    return bool(asked and had) and asked != had and min(asked, had) < gap


def nothing_expected(case: Case, read: int) -> Diagnosis:
    """Nothing was expected: a first request, or one that cannot be cached."""
    if read and (case.rules.minimum or read > _TEMPLATE * case.total):
        return Diagnosis(Status.HIT)
    if case.usage.write:
        return Diagnosis(Status.COLD)
    if case.total < case.rules.minimum:
        return Diagnosis(Status.UNCACHEABLE, Reason.BELOW_MINIMUM)
    if case.unmarked and not case.prompt.previous_id:
        lost = case.prompt.marks_lost
        return Diagnosis(Status.UNCACHEABLE, Reason.MARKER_LOST if lost else Reason.BREAKPOINT_MISSING)
    if case.usage.write == 0 and _asked(case):
        marked = case.tokens_at(case.deepest)[0]
        if marked < case.rules.minimum:
            return Diagnosis(Status.UNCACHEABLE, Reason.BELOW_MINIMUM)
        if not case.prompt.previous_id and not case.prompt.conversation_id:
            if marked < _NEAR * case.rules.minimum:
                return Diagnosis(Status.UNCACHEABLE, Reason.NEAR_MINIMUM)
            lost = _never_arrived(case) and _has_stored(case)
            return Diagnosis(Status.UNCACHEABLE, Reason.MARKER_LOST if lost else Reason.UNSUPPORTED)
    return Diagnosis(Status.COLD)
