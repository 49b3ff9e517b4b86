"""Prompt, usage and history to a ``Diagnosis``: what the cache did, why, and what it should have done.

Two amounts are compared with what the provider read: what the rules let *this* request read, and what a *stable*
application would have read. The second needs the request that this one should have matched; where none is
convincing, nothing is expected and nothing is blamed.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.history import TELLING, Info, Node, Sent, Sight
from otel_promptcache.model import Diagnosis, Kind, Prompt, Scope, Section, Segment, Usage
from otel_promptcache.providers.rules import Matching, Rules
from otel_promptcache.semconv import Cause, Reason, Status

_ROUNDING: Final = 8
"""Bytes by which a boundary in tokens may seem to lie inside the last character of a segment."""

TOLERANCE: Final = 0.05
"""Share of the expectation that may be missing in a hit (contract: one granule or 5 %)."""

ESTIMATE_TOLERANCE: Final = 0.15
"""The same where token counts of a prefix are byte shares of a reported total."""

LEADING: Final = frozenset({Section.PARAMETERS, Section.TOOLS, Section.SYSTEM})

REASON_OF_SECTION: Final[dict[Section, Reason]] = {
    Section.PARAMETERS: Reason.PARAMETERS_CHANGED,
    Section.TOOLS: Reason.TOOLS_CHANGED,
    Section.SYSTEM: Reason.SYSTEM_CHANGED,
    Section.MESSAGES: Reason.MESSAGES_CHANGED,
    Section.HELD: Reason.MESSAGES_CHANGED,
}
_CAUSE_OF_PARAMETER: Final[dict[str, Cause]] = {
    "tool_choice": Cause.TOOL_CHOICE,
    "thinking": Cause.THINKING,
    "output_config.effort": Cause.REASONING_EFFORT,
    "reasoning.effort": Cause.REASONING_EFFORT,
    "reasoning_effort": Cause.REASONING_EFFORT,
    "verbosity": Cause.VERBOSITY,
    "text.verbosity": Cause.VERBOSITY,
    "text.format": Cause.RESPONSE_FORMAT,
    "response_format": Cause.RESPONSE_FORMAT,
    "output_config.format": Cause.RESPONSE_FORMAT,
    "speed": Cause.SPEED,
    "service_tier": Cause.SERVICE_TIER,
}


class Change(NamedTuple):
    """Where two prompts part, and what kind of change it is."""

    place: Segment
    cause: Cause | None = None
    line: int | None = None


class _Expectation(NamedTuple):
    """What a stable application would have read, and what kept this one from it."""

    tokens: int
    exact: bool
    reason: Reason | None = None
    change: Change | None = None
    source: Sent | None = None


_NOTHING: Final = _Expectation(0, True)


class _Case(NamedTuple):
    """Everything the rules below look at."""

    prompt: Prompt
    sight: Sight
    rules: Rules
    usage: Usage

    @property
    def total(self) -> int:
        return self.usage.input_total or 0

    def tokens_at(self, length: int) -> tuple[int, bool]:
        """Tokens of the first ``length`` segments of this prompt, and whether a response told them."""
        return _tokens_at(self.sight.nodes, length, self.total)

    @property
    def ttl(self) -> int:
        return self.prompt.retention or self.rules.ttl

    @property
    def unmarked(self) -> bool:
        """Whether nothing in the request asks for caching where the provider does not cache by itself."""
        if self.rules.matching is Matching.PREFIX or self.prompt.breakpoints:
            return False
        return self.rules.needs_marker or not self.prompt.automatic


def diagnose(prompt: Prompt, sight: Sight, usage: Usage | None, rules: Rules) -> Diagnosis:
    """The verdict on one call. ``usage`` may still lack output tokens; they play no part."""
    if usage is None or not usage.available or usage.read is None:
        return Diagnosis(Status.UNKNOWN, Reason.USAGE_NOT_REPORTED)
    case = _Case(prompt, sight, rules, usage)
    read = usage.read
    expected = _expect(case)
    if expected.tokens < max(rules.minimum, 1):
        expected = _NOTHING
    if not expected.tokens:
        return _unexpected(case, read)
    tolerance = max(rules.granule, expected.tokens * (TOLERANCE if expected.exact else ESTIMATE_TOLERANCE))
    if read >= expected.tokens - tolerance:
        return Diagnosis(Status.HIT, expected=min(expected.tokens, case.total))
    parted = expected.change
    return Diagnosis(
        Status.PARTIAL if read else Status.MISS,
        expected.reason or Reason.UNKNOWN,
        parted.cause if parted else None,
        parted.place if parted else None,
        parted.line if parted else None,
        expected=expected.tokens,
        lost=max(0, min(expected.tokens, case.total) - read),
        link=expected.source.link if expected.source else None,
    )


def _unexpected(case: _Case, read: int) -> Diagnosis:
    """Nothing was expected: a first request, or one that cannot be cached."""
    if read:
        return Diagnosis(Status.HIT)
    if not case.usage.write:
        last = max((place.length for place in case.prompt.breakpoints), default=len(case.sight.nodes))
        if case.total < case.rules.minimum:
            return Diagnosis(Status.UNCACHEABLE, Reason.BELOW_MINIMUM)
        if case.unmarked and not case.prompt.previous_id:
            return Diagnosis(Status.UNCACHEABLE, Reason.BREAKPOINT_MISSING)
        if case.prompt.breakpoints and case.usage.write == 0 and case.tokens_at(last)[0] < case.rules.minimum:
            return Diagnosis(Status.UNCACHEABLE, Reason.BELOW_MINIMUM)
    return Diagnosis(Status.COLD)


# --- What should have been read -----------------------------------------------------------------------------


def _expect(case: _Case) -> _Expectation:
    if case.prompt.previous_id or case.prompt.conversation_id:
        return _expect_held(case)
    best = _expect_shared(case)
    previous = case.sight.previous
    last = previous.leaf if previous is not None else None
    if last is not None and last.length == case.sight.shared and _info(last).section is Section.MESSAGES:
        return best  # this request continues or repeats an earlier one: nothing was changed
    for source in _candidates(case.sight):
        found = _expect_from(case, source)
        if found is not None and found.tokens > best.tokens:
            best = found
    return best


def _candidates(sight: Sight) -> list[Sent]:
    """Requests this one may have been meant to match, the likeliest first, none twice."""
    seen: dict[int, Sent] = {}
    for sent in (sight.holder, sight.previous, *sight.kin, sight.site):
        if sent is not None and sent.leaf is not None and sent is not sight.sent:
            seen.setdefault(id(sent), sent)
    return list(seen.values())


def _expect_shared(case: _Case) -> _Expectation:
    """What earlier requests with the very same beginning left, whether or not it is still there."""
    sight = case.sight
    length = max(sight.live, sight.expired, sight.pending, sight.beyond)
    reason = None
    if length > sight.live:
        if length == sight.expired:
            reason = Reason.TTL_EXPIRED
        elif length == sight.beyond:
            reason = Reason.LOOKBACK_EXCEEDED
        else:
            reason = Reason.CONCURRENT_WRITE
    elif case.unmarked and sight.previous is not None:
        length = max((node.length for node, _ in sight.previous.breakpoints if node.length <= sight.shared), default=0)
        reason = Reason.BREAKPOINT_MISSING
    if not length:
        return _NOTHING
    tokens, exact = case.tokens_at(length)
    return _Expectation(tokens, exact, reason, source=sight.nodes[length - 1].last if reason else _source(case, length))


def _source(case: _Case, length: int) -> Sent | None:
    """The request that a hit of this length would have come from."""
    previous = case.sight.previous
    return previous if previous is not None and length <= case.sight.shared else None


def _expect_held(case: _Case) -> _Expectation:
    """History held by the server: the earlier request is known by its id, and only what is resent can differ."""
    source = case.sight.holder
    if source is None or source.leaf is None:
        return _NOTHING
    tokens = source.cached if case.rules.matching is Matching.BREAKPOINT else source.total
    if not tokens:
        return _NOTHING
    reason = _scope_reason(source.scope, case.sight.sent.scope)
    parted = None
    if reason is None:
        segments = case.prompt.segments
        places = [index for index, segment in enumerate(segments) if segment.section in LEADING]
        resent = {segments[index].section for index in places}
        old = [info for info in map(_info, source.path()) if info.section in resent]
        new = [_info(case.sight.nodes[index]) for index in places]
        at = parting(old, new)
        if at is not None:
            parted = change([segments[index] for index in places], new, at, old)
            reason = REASON_OF_SECTION[parted.place.section]
    if _expired(case, source):
        reason, parted = Reason.TTL_EXPIRED, None
    return _Expectation(tokens, case.rules.matching is Matching.BREAKPOINT, reason, parted, source)


def _expect_from(case: _Case, source: Sent) -> _Expectation | None:
    """What a stable application would have read of one earlier request, if this one was meant to match it."""
    old = source.path()
    old_infos = [_info(node) for node in old]
    new_infos = [_info(node) for node in case.sight.nodes]
    at = parting(old_infos, new_infos)
    scope_reason = _scope_reason(source.scope, case.sight.sent.scope)
    if scope_reason is not None:
        return _expect_other_scope(case, source, scope_reason, old, at)
    if at is None or at >= len(old) or at >= len(new_infos):
        return None  # one continues the other: nothing changed
    place = _blame(case, old_infos, new_infos, at)
    if place is None:
        return None
    length = len(old) if place is _Whole else _leading_length(old_infos)
    tokens, exact = _held_after(case, source, old, length)
    if not tokens:
        return None
    if _expired(case, source):
        return _Expectation(tokens, exact, Reason.TTL_EXPIRED, source=source)
    parted = change(case.prompt.segments, new_infos, at, old_infos)
    return _Expectation(tokens, exact, REASON_OF_SECTION[parted.place.section], parted, source)


class _Whole:
    """Blame extends to everything the earlier request had cached."""


class _Leading:
    """Blame extends to tools, system and parameters: the messages are another conversation's."""


def _blame(case: _Case, old: Sequence[Info], new: Sequence[Info], at: int) -> type[_Whole | _Leading] | None:
    """Whether a difference at ``at`` broke a prefix that was meant to be shared, and how much of it."""
    later = {id(info) for info in old[at:] if info.size >= TELLING}
    # The newest message shows nothing: two agents may well be asked the same question.
    segments = case.prompt.segments
    together = any(
        id(info) in later and info.section is Section.MESSAGES and segment.element < segments[-1].element
        for info, segment in zip(new[at:], segments[at:], strict=True)
    )
    if old[at].section in LEADING or new[at].section in LEADING:
        if together:
            return _Whole
        return _Leading if _versions(case, old, new, at) else None
    # Nor may two conversations that come to the same request, or two documents under the same instruction; but parts
    # that have changed places were all there before.
    changed_places = id(new[at]) in later and old[at].size >= TELLING and any(info is old[at] for info in new[at:])
    if together or changed_places:
        return _Whole
    # Nothing behind the difference is shared. An edited last turn is a fork, not an accident; a rewritten earlier
    # one still shows itself as a version of what stood there.
    if segments[at].element < segments[-1].element and fingerprint.similar(old[at].detail, _detail(case, at)):
        return _Whole
    return None


def _versions(case: _Case, old: Sequence[Info], new: Sequence[Info], at: int) -> bool:
    """Whether the leading parts of two prompts are versions of one another, not two agents' prompts."""
    both_system = old[at].section is Section.SYSTEM and new[at].section is Section.SYSTEM
    if both_system and fingerprint.similar(old[at].detail, _detail(case, at)):
        return True
    # Agents share tools, and tools share their layout; who shares a piece of the system prompt is the same agent.
    told = {id(info) for info in old if info.section is Section.SYSTEM and info.size >= TELLING}
    if told:
        return any(id(info) in told for info in new)
    tools = {id(info) for info in old if info.section is Section.TOOLS and info.size >= TELLING}
    return any(id(info) in tools for info in new)


def _expect_other_scope(
    case: _Case, source: Sent, reason: Reason, old: Sequence[Node], at: int | None
) -> _Expectation | None:
    """The same conversation under another model, key or account."""
    shared = len(old) if at is None else at
    common = sum(_info(node).size for node in old[:shared] if _info(node).section is Section.MESSAGES)
    if source.scope.provider != case.sight.sent.scope.provider or shared <= case.sight.shared or common < TELLING:
        return None
    if shared == len(case.prompt.segments) and reason is Reason.MODEL_CHANGED:
        return None  # the same question to another model is a first request there, not a conversation that moved
    tokens, exact = _held_after(case, source, old, shared)
    if not tokens:
        return None
    if _expired(case, source):
        reason = Reason.TTL_EXPIRED
    return _Expectation(tokens, exact, reason, source=source)


def _held_after(case: _Case, source: Sent, old: Sequence[Node], length: int) -> tuple[int, bool]:
    """Tokens the provider held after ``source`` for its first ``length`` segments."""
    if case.rules.matching is Matching.BREAKPOINT:
        places = [node for node, _ in source.breakpoints if node.length <= length]
        if not places:
            return 0, True
        deepest = max(places, key=lambda node: node.length)
        last = max((node for node, _ in source.breakpoints), key=lambda node: node.length)
        if deepest is last and source.cached is not None:
            return source.cached, True
        length = deepest.length
    elif length >= len(old) and source.total:
        return source.total - source.total % case.rules.granule, True
    tokens, exact = _tokens_at(old, length, source.total or 0)
    return tokens - tokens % case.rules.granule, exact


# --- Where and how two prompts part -------------------------------------------------------------------------


def parting(old: Sequence[Info], new: Sequence[Info]) -> int | None:
    """Index of the first difference; None when one prompt is the beginning of the other."""
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        if before is not after:
            return index
    return None


def change(segments: Sequence[Segment], new: Sequence[Info], at: int, old: Sequence[Info]) -> Change:
    """What kind of change stands at segment ``at``. ``new`` belong to ``segments``, ``old`` to the earlier prompt."""
    segment = segments[at]
    before, after = old[at], new[at]
    if before.section is not after.section:
        return _at_section_end(segments, at, before, after)
    if segment.section is Section.PARAMETERS:
        if before.label != after.label:
            gone = not any(segment.role == info.label for info in old[at:])
            name = after.label if gone else before.label
            return Change(segment._replace(role=name), _CAUSE_OF_PARAMETER.get(name))
        return Change(segment, _CAUSE_OF_PARAMETER.get(segment.role))
    if Kind.IMAGE in (segment.kind, before.kind):
        return Change(segment, Cause.IMAGE)
    mine = [info for info in new[at:] if info.section is after.section]
    theirs = [info for info in old[at:] if info.section is after.section]
    kept, known = {id(info) for info in mine}, {id(info) for info in theirs}
    if Counter(map(id, mine)) == Counter(map(id, theirs)) or (id(before) in kept and id(after) in known):
        return Change(segment, Cause.REORDERED)
    if id(before) in kept:
        return Change(segment, Cause.ADDED)
    if id(after) in known:
        return Change(segment, Cause.REMOVED)
    cause, line = fingerprint.difference(before.detail, _detailed(after, segment), segment)
    readable = segment.kind in (Kind.TEXT, Kind.TOOL_RESULT) and type(segment.value) in (str, dict)
    return Change(segment, cause, line if readable else None)


def _at_section_end(segments: Sequence[Segment], at: int, before: Info, after: Info) -> Change:
    """One prompt has more elements in a section than the other, which is already in a later one."""
    segment = segments[at]
    if Section.PARAMETERS in (before.section, after.section):
        name = before.label or after.label
        return Change(segment._replace(section=Section.PARAMETERS, role=name), _CAUSE_OF_PARAMETER.get(name))
    if after.section < before.section:
        return Change(segment, Cause.ADDED)
    earlier = segments[at - 1] if at else None
    element = earlier.element + 1 if earlier is not None and earlier.section is before.section else 0
    return Change(segment._replace(section=before.section, element=element, item=-1), Cause.REMOVED)


def _detailed(info: Info, segment: Segment) -> fingerprint.Detail | None:
    """Line hashes of a present segment; made here when the worker has not come to it yet."""
    if info.detail is None:
        info.detail = fingerprint.detail(segment)
    return info.detail


def _detail(case: _Case, at: int) -> fingerprint.Detail | None:
    return _detailed(_info(case.sight.nodes[at]), case.prompt.segments[at])


def _scope_reason(old: Scope, new: Scope) -> Reason | None:
    if old == new:
        return None
    if old.model != new.model:
        return Reason.MODEL_CHANGED
    if old.cache_key != new.cache_key:
        return Reason.CACHE_KEY_CHANGED
    return Reason.SCOPE_CHANGED


def _expired(case: _Case, source: Sent) -> bool:
    """Whether all that an earlier request left had run out before this one was sent."""
    lifetimes = [ttl for _, ttl in source.breakpoints] or [case.ttl]
    return case.sight.sent.at - source.at > max(lifetimes)


def _leading_length(infos: Sequence[Info]) -> int:
    """Number of segments in front of the messages."""
    return next((index for index, info in enumerate(infos) if info.section not in LEADING), len(infos))


def _info(node: Node) -> Info:
    assert node.info is not None  # only roots have none, and no path contains its root
    return node.info


def _tokens_at(nodes: Sequence[Node], length: int, total: int) -> tuple[int, bool]:
    """Tokens of a prefix: told by a response, else a byte share between the nearest counts that were."""
    if length <= 0:
        return 0, True
    node = nodes[length - 1]
    if node.tokens:
        return node.tokens, True
    low = next((other for other in reversed(nodes[: length - 1]) if other.tokens), None)
    high = next((other for other in nodes[length:] if other.tokens), None)
    size_low, tokens_low = (low.size, low.tokens) if low else (0, 0)
    size_high, tokens_high = (high.size, high.tokens) if high else (nodes[-1].size, total)
    if size_high <= size_low:
        return tokens_low, False
    share = (node.size - size_low) / (size_high - size_low)
    return tokens_low + int(share * max(0, tokens_high - tokens_low)), False


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
    if live and sight.nodes[live - 1].tokens == usage.read:
        low = live  # what was read ends where an earlier response said that this many tokens do
    else:  # by bytes: what was read ends where its share of the prompt's bytes does
        inside = usage.read / usage.input_total * sight.nodes[-1].size
        low = bisect.bisect_right(sight.nodes, inside + _ROUNDING, key=lambda node: node.size)
    last = prompt.segments[low - 1] if low else None
    if last is None or last.section not in array_sections:
        return 0.0
    after = prompt.segments[low] if low < len(prompt.segments) else None
    whole = after is None or after.element != last.element or after.section is not last.section
    return (last.element + (1 if whole else 0)) / elements
