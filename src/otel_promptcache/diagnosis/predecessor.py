"""The earlier request that this one should have matched, and what stands between the two.

No ids are needed: the longest shared chain, then the request sharing most segments, then the call site. A candidate
counts only if something shows that the two were meant to be one conversation, or one agent.
"""

from __future__ import annotations

from collections.abc import Sequence

from otel_promptcache import fingerprint
from otel_promptcache.diagnosis.case import (
    LEADING,
    NOTHING,
    Case,
    Expectation,
    expired,
    held_after,
    leading_length,
)
from otel_promptcache.diagnosis.change import (
    REASON_OF_SECTION,
    Change,
    change,
    history_reason,
    parting,
)
from otel_promptcache.history import TELLING, Info, Path, Sent, Sight
from otel_promptcache.model import Scope, Section
from otel_promptcache.providers.rules import Matching
from otel_promptcache.semconv import Cause, Reason

_REWRITTEN = frozenset({Cause.EDITED, Cause.REPLACED, Cause.REMOVED, None})
"""Causes that a second rewriting in a row makes a habit."""


def expect_changed(case: Case, best: Expectation) -> Expectation:
    """What a stable application would have read, if that is more than what an equal beginning lets expect."""
    for source in candidates(case.sight):
        found = _expect_from(case, source)
        if found is not None and (found.tokens > best.tokens or _tells_more(found, best)):
            best = found
    return best


def _tells_more(found: Expectation, best: Expectation) -> bool:
    """Whether a version of the same worth shows by digests how it became this one, where the other does not."""
    if found.change is None or best.change is None or found.tokens < best.tokens * 0.9:
        return False
    return found.reason is best.reason and found.change.certain > best.change.certain


def candidates(sight: Sight) -> list[Sent]:
    """Requests this one may have been meant to match, the likeliest first, none twice."""
    seen: dict[int, Sent] = {}
    for sent in (sight.holder, sight.previous, *sight.kin, *sight.sites):
        if sent is not None and sent.leaf is not None and sent is not sight.sent:
            seen.setdefault(id(sent), sent)
    return list(seen.values())


def expect_held(case: Case) -> Expectation:
    """History held by the server: the earlier request is known by its id, and only what is resent can differ."""
    source = case.sight.holder
    if source is None or source.leaf is None:
        return NOTHING
    tokens = source.cached if case.rules.matching is Matching.BREAKPOINT else source.total
    if not tokens:
        return NOTHING
    reason = scope_reason(source.scope, case.scope)
    parted = None
    if reason is None:
        segments = case.prompt.segments
        places = [index for index, segment in enumerate(segments) if segment.section in LEADING]
        resent = {segments[index].section for index in places}
        before = source.path().infos()
        theirs = [index for index, one in enumerate(before) if one.section in resent]
        old = [before[index] for index in theirs]
        new = [case.sight.infos[index] for index in places]
        at = parting(old, new)
        if at is not None:
            source.describe(theirs[at], old[at])
            parted = change([segments[index] for index in places], new, at, old)
            reason = REASON_OF_SECTION[parted.place.section]
            if parted.place.role == "context_management":
                reason = Reason.CONTEXT_CHANGED
    if expired(case, source):
        reason, parted = Reason.TTL_EXPIRED, None
    return Expectation(tokens, case.rules.matching is Matching.BREAKPOINT, reason, parted, source)


def _expect_from(case: Case, source: Sent) -> Expectation | None:
    """What a stable application would have read of one earlier request, if this one was meant to match it."""
    old = source.path()
    old_infos, new_infos = old.infos(), case.sight.infos
    at = parting(old_infos, new_infos)
    other_scope = scope_reason(source.scope, case.scope)
    if other_scope is not None:
        return _expect_other_scope(case, source, other_scope, old, at)
    if at is None or at >= len(old) or at >= len(new_infos):
        return None  # one continues the other: nothing changed
    elements = old.elements(), [segment.element for segment in case.prompt.segments]
    source.describe(at, old_infos[at])
    reason = history_reason(old_infos, new_infos, at, *elements) or _summed_up(case, source, old_infos, at, *elements)
    place = Whole if reason is not None else blame(case, source, old_infos, new_infos, at)
    if place is None or (place is Leading and case.sight.shared >= leading_length(new_infos)):
        return None  # of two versions that are both in use, this one has been sent before
    length = leading_length(old_infos) if place is Leading else len(old)
    tokens, exact = held_after(case, source, old, length)
    if not tokens:
        return None
    parted = change(case.prompt.segments, new_infos, at, old_infos)
    if reason is None:
        reason = REASON_OF_SECTION[parted.place.section]
        if reason is Reason.MESSAGES_CHANGED:
            parted = _recurrent(case, source, parted)
    elif parted.cause is not None:
        parted = parted._replace(cause=Cause.REMOVED if reason is Reason.HISTORY_TRUNCATED else Cause.REPLACED)
    if expired(case, source):
        return Expectation(tokens, exact, Reason.TTL_EXPIRED, source=source, also=(reason,))
    return Expectation(tokens, exact, reason, parted, source, guessed=place is Resembling)


def _recurrent(case: Case, source: Sent, parted: Change) -> Change:
    """Notes that this request rewrote its history; if the one before did too, that is the cause."""
    if parted.cause not in _REWRITTEN:
        return parted
    case.sight.sent.rewrites = source.rewrites + 1
    return parted._replace(cause=Cause.RECURRENT_EDIT) if source.rewrites else parted


def _summed_up(
    case: Case, source: Sent, old: Sequence[Info], at: int, old_elements: Sequence[int], elements: Sequence[int]
) -> Reason | None:
    """Whether a whole conversation gave way to its summary: it is known by its id, and much shorter than it was."""
    if not case.named_alike(source) or old[at].section is not Section.MESSAGES or at != leading_length(old):
        return None
    before, after = old_elements[-1] - old_elements[at], elements[-1] - elements[at]
    return Reason.HISTORY_COMPACTED if before >= 4 and after * 2 <= before else None


class Whole:
    """Blame extends to everything the earlier request had cached."""


class Resembling(Whole):
    """The same, where a first message that looks alike is all that says so: a template would look alike too."""


class Leading:
    """Blame extends to tools, system and parameters: the messages are another conversation's."""


def blame(case: Case, source: Sent, old: Sequence[Info], new: Sequence[Info], at: int) -> type[Whole | Leading] | None:
    """Whether a difference at ``at`` broke a prefix that was meant to be shared, and how much of it."""
    later = {id(one) for one in old[at:] if one.size >= TELLING}
    segments = case.prompt.segments
    together = _together(case, source, old, new, at)
    if old[at].section in LEADING or new[at].section in LEADING:
        if together:
            return Whole
        # Who speaks another API is another program: what its prompts have in common they have from their authors.
        same_api = source.dialect == case.prompt.dialect
        return Leading if same_api and versions(case, old, new, at) else None
    # Nor may two conversations that come to the same request, or two documents under the same instruction; but parts
    # that have changed places were all there before.
    changed_places = id(new[at]) in later and old[at].size >= TELLING and any(one is old[at] for one in new[at:])
    if together or changed_places:
        return Whole
    # Nothing behind the difference is shared. An edited last turn is a fork, not an accident; a rewritten earlier
    # one still shows itself as a version of what stood there.
    element = segments[at].element
    if element >= segments[-1].element or not fingerprint.similar(old[at].detail, _detail(case, old, at)):
        return None
    if element > segments[leading_length(new)].element or case.named_alike(source):
        return Whole
    # What was said after it, said again word for word, makes it the same conversation, however little it was.
    behind = old[at + 1 :]
    if behind and len(new) > len(old) and all(one is other for one, other in zip(behind, new[at + 1 :], strict=False)):
        return Whole
    # An opener that went on as it was has its conversation. This is another of the same template, and its first turn
    # was another worker's.
    ended = source.leaf is not None and source.leaf.element == element and not source.leaf.continued
    return Resembling if ended else None


def _together(case: Case, source: Sent, old: Sequence[Info], new: Sequence[Info], at: int) -> bool:
    """Whether messages behind a difference show that both requests are of one conversation."""
    segments = case.prompt.segments
    newest = segments[-1].element
    # The newest message shows nothing: two agents may well be asked the same question.
    kept = {
        id(one)
        for one, segment in zip(new[at:], segments[at:], strict=True)
        if one.section is Section.MESSAGES and segment.element < newest
    }
    if not any(id(one) in kept and one.size >= TELLING for one in old[at:]):
        return False
    mine, theirs = case.sight.sent.conversation, source.conversation
    if mine and theirs:
        return mine == theirs
    opener = leading_length(new)
    if old[at].section is Section.MESSAGES and segments[at].element > segments[opener].element:
        return True
    if old[leading_length(old)] is new[opener] and versions(case, old, new, at):
        return True
    # Neither agent nor opener is the same: a canned answer, an attachment, a history that several agents are shown
    # would be in both requests too. Who goes on with a conversation resends what was its newest message.
    places = source.path().elements()
    return any(id(one) in kept for one, element in zip(old, places, strict=False) if element == places[-1])


def versions(case: Case, old: Sequence[Info], new: Sequence[Info], at: int) -> bool:
    """Whether the leading parts of two prompts are versions of one another, not two agents' prompts."""
    both_system = old[at].section is Section.SYSTEM and new[at].section is Section.SYSTEM
    if both_system and fingerprint.similar(old[at].detail, _detail(case, old, at)):
        return True
    # Agents share tools, and tools share their layout; who shares a piece of the system prompt is the same agent.
    told = {id(one) for one in old if one.section is Section.SYSTEM and one.size >= TELLING}
    if told:
        return any(id(one) in told for one in new)
    tools = {id(one) for one in old if one.section is Section.TOOLS and one.size >= TELLING}
    return any(id(one) in tools for one in new)


def _detail(case: Case, old: Sequence[Info], at: int) -> fingerprint.Detail | None:
    return case.sight.infos[at].detailed(case.prompt.segments[at], old[at].hashed)


def _expect_other_scope(case: Case, source: Sent, reason: Reason, old: Path, at: int | None) -> Expectation | None:
    """The same conversation under another model, key or account."""
    shared = len(old) if at is None else at
    common = sum(one.size for one in old.infos()[:shared] if one.section is Section.MESSAGES)
    if source.scope.provider != case.scope.provider or shared <= case.sight.shared or common < TELLING:
        return None
    if shared == len(case.prompt.segments) and reason is Reason.MODEL_CHANGED:
        return None  # the same question to another model is a first request there, not a conversation that moved
    tokens, exact = held_after(case, source, old, shared)
    if not tokens:
        return None
    if expired(case, source):
        return Expectation(tokens, exact, Reason.TTL_EXPIRED, source=source, also=(reason,))
    return Expectation(tokens, exact, reason, source=source)


def scope_reason(old: Scope, new: Scope) -> Reason | None:
    """What keeps two requests from sharing entries at all."""
    if old == new:
        return None
    if old.model != new.model:
        return Reason.MODEL_CHANGED
    if old.cache_key != new.cache_key:
        return Reason.CACHE_KEY_CHANGED
    return Reason.SCOPE_CHANGED
