"""Prompt, usage and history to a ``Diagnosis``: what the cache did, why, and what it should have done.

Two amounts are compared with what the provider read: what the rules let *this* request read, and what a *stable*
application would have read. The second needs the request that this one should have matched; where none is
convincing, nothing is expected and nothing is blamed.

One file a question: ``predecessor`` which request it should have matched, ``change`` where and how they part,
``breakpoints`` what was marked, ``provider`` what is left when nothing changed, ``words`` how to say it.
"""

from __future__ import annotations

from typing import Final

from otel_promptcache.diagnosis.breakpoints import expect_equal, expect_frozen
from otel_promptcache.diagnosis.case import NOTHING, Case, Expectation, hit_depth, lifetime
from otel_promptcache.diagnosis.change import REASON_OF_SECTION, Change, change, parting
from otel_promptcache.diagnosis.predecessor import expect_changed, expect_held
from otel_promptcache.diagnosis.provider import nothing_expected, unexplained
from otel_promptcache.diagnosis.words import actor, explanation
from otel_promptcache.history import Sight
from otel_promptcache.model import Diagnosis, Evidence, Prompt, Usage
from otel_promptcache.providers.rules import Rules
from otel_promptcache.semconv import Confidence, Reason, Status

TOLERANCE: Final = 0.05
"""Share of the expectation that may be missing in a hit (contract: one granule or 5 %)."""

ESTIMATE_TOLERANCE: Final = 0.15
"""The same where token counts of a prefix are byte shares of a reported total."""


def diagnose(prompt: Prompt, sight: Sight, usage: Usage | None, rules: Rules, served: str = "") -> Diagnosis:
    """The verdict on one call. ``usage`` may still lack output tokens; they play no part. ``served`` is the model that
    the response names. Of a sight that is ``alone`` no more is said than it proves."""
    sight.sent.served = served
    if usage is None or not usage.available or usage.read is None:
        return Diagnosis(Status.UNKNOWN, Reason.USAGE_NOT_REPORTED)
    case = Case(prompt, sight, rules, usage, served)
    expected = _worth(case, _expect(case), usage.read)
    if sight.alone:
        return _unshared(case, expected, usage.read)
    if not expected.tokens:
        return nothing_expected(case, usage.read)
    if _enough(case, expected, usage.read):
        frozen = expect_frozen(case)
        if frozen is None or _enough(case, frozen, usage.read):
            return Diagnosis(Status.HIT, expected=min(expected.tokens, case.total))
        expected = frozen
    return _missed(case, expected, usage.read)


def _expect(case: Case) -> Expectation:
    if case.turned_off:
        return NOTHING
    if case.prompt.previous_id or case.prompt.conversation_id:
        return expect_held(case)
    equal = expect_equal(case)
    return equal if case.continues else expect_changed(case, equal)


def _worth(case: Case, expected: Expectation, read: int) -> Expectation:
    return expected if expected.tokens >= _least(case, read) else NOTHING


def _least(case: Case, read: int) -> int:
    """Tokens below which nothing can be expected: the minimum, or a block of a server that has read none."""
    return max(case.rules.minimum, 1 if read else case.rules.largest_granule, 1)


def _enough(case: Case, expected: Expectation, read: int) -> bool:
    share = TOLERANCE if expected.exact else ESTIMATE_TOLERANCE
    return read >= expected.tokens - max(_granule(case.rules, read), expected.tokens * share)


def _granule(rules: Rules, read: int) -> int:
    """Tokens that a read is rounded down to a multiple of. Where that is a setting of the server's, the amount read
    says how large it can be."""
    granule = rules.granule
    while read and 2 * granule <= rules.largest_granule and not read % (2 * granule):
        granule *= 2
    return granule


def _missed(case: Case, expected: Expectation, read: int) -> Diagnosis:
    parted, source = expected.change, expected.source
    reason = expected.reason or unexplained(case, expected)
    return Diagnosis(
        Status.PARTIAL if read else Status.MISS,
        reason,
        parted.cause if parted else None,
        parted.place if parted else None,
        parted.line if parted else None,
        expected=expected.tokens,
        lost=max(0, min(expected.tokens, case.total) - read),
        link=source.link if source else None,
        field=parted.field if parted else (),
        offset=parted.offset if parted else None,
        also=expected.also,
        confidence=_confidence(case, expected, reason),
        evidence=_evidence(case, expected),
    )


def _evidence(case: Case, expected: Expectation) -> Evidence:
    parted, source = expected.change, expected.source
    return Evidence(
        case.sight.shared,
        len(case.sight.infos),
        case.sight.sent.at - source.at if source else None,
        lifetime(case, source) if source else None,
        case.rules.minimum,
        f"{case.rules.source} ({case.rules.read_on})",
        case.prompt.truncated or (parted is not None and parted.truncated),
    )


_PROVEN_ALONE: Final = frozenset(
    {
        Reason.PROVIDER_EVICTED,
        Reason.IMPLICIT_UNRELIABLE,
        Reason.ROUTING_OVERFLOW,
        Reason.BREAKPOINT_LIMIT,
        Reason.MARKER_LOST,
        Reason.CONTEXT_CHANGED,
        Reason.UNKNOWN,
    }
)
"""Reasons for which an equal prefix that was there, this request and its response are enough."""


def _unshared(case: Case, expected: Expectation, read: int) -> Diagnosis:
    """What stands of a verdict where others may have sent what is not known here.

    A prefix that this history has, in scope and in time, is there whatever others did: they can only have kept it
    longer. When an entry was last read, and which request a changed one should have matched, is for them to say too.
    """
    named = bool(case.prompt.previous_id)  # by the id of the very response
    held = named or bool(case.prompt.conversation_id)
    equal = expected if held or case.turned_off else _worth(case, expect_equal(case), read)
    if equal.tokens and not _enough(case, equal, read):
        reason = equal.reason or unexplained(case, equal)
        proven = reason in _PROVEN_ALONE if equal.reason is None else named and reason is not Reason.TTL_EXPIRED
        found = _missed(case, equal, read)
        return found if proven else _unsure(found)
    if read:
        return Diagnosis(Status.HIT, expected=min(equal.tokens, case.total) if equal.tokens else None)
    if expected.tokens:
        return _unsure(_missed(case, expected, read))
    found = nothing_expected(case, read)
    if found.status is not Status.COLD:
        return found
    return Diagnosis(Status.UNKNOWN, evidence=_evidence(case, NOTHING)._replace(alone=True))


def _unsure(found: Diagnosis) -> Diagnosis:
    """A miss of which only that is known; what it looks like goes along."""
    assert found.evidence is not None
    assert found.reason is not None
    return Diagnosis(
        found.status,
        Reason.UNKNOWN,
        expected=found.expected,
        lost=found.lost,
        link=found.link,
        also=(found.reason,),
        confidence=Confidence.POSSIBLE,
        evidence=found.evidence._replace(alone=True),
    )


def _confidence(case: Case, expected: Expectation, reason: Reason) -> Confidence:
    parted, source = expected.change, expected.source
    if reason is Reason.UNKNOWN or source is None or expected.guessed:
        return Confidence.POSSIBLE
    if parted is not None and not parted.certain:
        return Confidence.LIKELY
    if reason is Reason.MARKER_LOST and not case.prompt.marks_lost:
        return Confidence.LIKELY
    return Confidence.CERTAIN if source in (case.sight.previous, case.sight.holder) else Confidence.LIKELY


__all__ = [
    "ESTIMATE_TOLERANCE",
    "REASON_OF_SECTION",
    "TOLERANCE",
    "Change",
    "actor",
    "change",
    "diagnose",
    "explanation",
    "hit_depth",
    "parting",
]
