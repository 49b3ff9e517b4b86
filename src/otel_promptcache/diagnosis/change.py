"""Where and how two prompts part."""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint.fields import Field, Leaf, leaves, plain_text
from otel_promptcache.history import TELLING, Info, Remembered
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import server_tool, unmarked
from otel_promptcache.semconv import Cause, Reason

REASON_OF_SECTION: Final[dict[Section, Reason]] = {
    Section.PARAMETERS: Reason.PARAMETERS_CHANGED,
    Section.TOOLS: Reason.TOOLS_CHANGED,
    Section.SYSTEM: Reason.SYSTEM_CHANGED,
    Section.MESSAGES: Reason.MESSAGES_CHANGED,
    Section.HELD: Reason.CONTEXT_CHANGED,
}
CAUSE_OF_PARAMETER: Final[dict[str, Cause]] = {
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
    "betas": Cause.BETA_FEATURES,
    "lora_request": Cause.LORA,
    "lora_path": Cause.LORA,
    "cache_salt": Cause.CACHE_SALT,
    "chat_template": Cause.CHAT_TEMPLATE,
    "chat_template_kwargs": Cause.CHAT_TEMPLATE,
}
_MEDIA_CAUSE: Final = {Kind.IMAGE: Cause.IMAGE, Kind.DOCUMENT: Cause.DOCUMENT, Kind.AUDIO: Cause.DOCUMENT}
_TOGGLES: Final = {"images": Kind.IMAGE, "citations": Kind.DOCUMENT}
"""Segments that stand for what some block further on does to all in front of it (``providers.anthropic``)."""
_PLACED: Final = frozenset({Section.SYSTEM, Section.MESSAGES})
"""Where an element that moved is still looked into: a message's first differing line is told too."""
_MAX_ALIGNED: Final = 16
"""Places at which an earlier history is tried to go on."""
_NOTE: Final = 200
"""Bytes up to which a message in place of many says that they are gone rather than what they said."""


class Change(NamedTuple):
    """Where two prompts part, and what kind of change it is."""

    place: Segment
    cause: Cause | None = None
    line: int | None = None
    field: Field = ()
    offset: int | None = None
    certain: bool = True
    """Whether digests show the cause; else it is what the new text looks like."""
    truncated: bool = False
    """Whether the difference lies beyond what is looked at of a segment."""


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
    toggled = _TOGGLES.get(before.label if after.label not in _TOGGLES else after.label)
    if toggled is not None and before.label != after.label:
        return _toggled(segments, new, old, toggled)
    if before.section is not after.section:
        return _at_section_end(segments, at, before, after)
    if segment.section is Section.PARAMETERS:
        if before.label != after.label:
            gone = not any(segment.role == info.label for info in old[at:])
            name = after.label if gone else before.label
            return Change(segment._replace(role=name), CAUSE_OF_PARAMETER.get(name))
        return Change(segment, CAUSE_OF_PARAMETER.get(segment.role))
    found = _exact(_parted(segment, before, after), before, segment)
    moved = _moved(segments, new, at, old)
    if moved is None:
        return found
    if segment.section not in _PLACED:
        return Change(segment, moved)
    return found._replace(cause=moved, certain=True)


def _toggled(segments: Sequence[Segment], new: Sequence[Info], old: Sequence[Info], kind: Kind) -> Change:
    """The first picture or cited document came, or the last one went: the place is where it stands, or stood."""
    came = next((index for index, info in enumerate(new) if info.kind is kind), None)
    if came is None:
        # Without it the earlier prompt is one segment shorter in front, by the toggle itself.
        stood = next((index for index, info in enumerate(old) if info.kind is kind), 1)
        came = min(stood - 1, len(segments) - 1)
    return Change(segments[came], _MEDIA_CAUSE[kind])


def _parted(segment: Segment, before: Info, after: Info) -> Change:
    """How the segment that stood there became the one that stands there."""
    if before.role != after.role and "\0" in segment.role:
        return Change(segment._replace(kind=Kind.SPEAKER), Cause.EDITED, 1)
    for kind in (segment.kind, before.kind):
        if kind in _MEDIA_CAUSE and segment.kind is not before.kind:
            return Change(segment, _MEDIA_CAUSE[kind])
    detail = after.detailed(segment, before.hashed)
    cause, line, field, certain = fingerprint.difference(before.detail, detail, segment, before.hashed)
    beyond = cause is None and detail is not None and detail.truncated
    return Change(segment, cause, line, field, certain=certain, truncated=beyond)


def _moved(segments: Sequence[Segment], new: Sequence[Info], at: int, old: Sequence[Info]) -> Cause | None:
    """Whether whole segments came, went or changed places, rather than one having become another."""
    before, after = old[at], new[at]
    mine = [info for info in new[at:] if info.section is after.section]
    theirs = [info for info in old[at:] if info.section is after.section]
    kept, known = {id(info) for info in mine}, {id(info) for info in theirs}
    if Counter(map(id, mine)) == Counter(map(id, theirs)) or (id(before) in kept and id(after) in known):
        return Cause.REORDERED
    if before.kind is Kind.REASONING and id(before) not in kept:
        return Cause.REASONING_DROPPED
    segment = segments[at]
    if id(before) in kept:
        if Kind.IMAGE is segment.kind:
            return Cause.IMAGE
        return Cause.SERVER_TOOLS if _at_provider(segment) else _MEDIA_CAUSE.get(segment.kind, Cause.ADDED)
    if id(after) in known:
        return Cause.SERVER_TOOLS if before.label else _MEDIA_CAUSE.get(before.kind, Cause.REMOVED)
    return _replaced(segment, before, after, kept, theirs)


def _replaced(segment: Segment, before: Info, after: Info, kept: set[int], theirs: Sequence[Info]) -> Cause | None:
    """Whether a whole block of text gave way to another in front of blocks that stayed."""
    if segment.section is not Section.SYSTEM or Kind.TEXT is not segment.kind is not before.kind:
        return None
    stayed = sum(info.size for info in theirs[1:] if id(info) in kept)
    alike = fingerprint.similar(before.detail, after.detailed(segment, before.hashed))
    long = min(before.size, after.size) >= _NOTE
    return Cause.REPLACED if stayed >= TELLING and long and not alike else None


def _at_provider(segment: Segment) -> bool:
    """Whether a tool is one of the provider's own."""
    return segment.section is Section.TOOLS and bool(server_tool(segment.value))


def _at_section_end(segments: Sequence[Segment], at: int, before: Info, after: Info) -> Change:
    """One prompt has more elements in a section than the other, which is already in a later one."""
    segment = segments[at]
    if Section.PARAMETERS in (before.section, after.section):
        name = before.label or after.label
        return Change(segment._replace(section=Section.PARAMETERS, role=name), CAUSE_OF_PARAMETER.get(name))
    if after.section < before.section:
        return Change(segment, Cause.SERVER_TOOLS if _at_provider(segment) else Cause.ADDED)
    earlier = segments[at - 1] if at else None
    element = earlier.element + 1 if earlier is not None and earlier.section is before.section else 0
    cause = Cause.SERVER_TOOLS if before.section is Section.TOOLS and before.label else Cause.REMOVED
    return Change(segment._replace(section=before.section, element=element, item=-1), cause)


# --- What became of a history as a whole --------------------------------------------------------------------


class Cut(NamedTuple):
    """Part of an earlier history that gave way: from ``at`` to ``old_end``, now up to ``new_end``."""

    at: int
    old_end: int
    new_end: int


def history_cut(old: Sequence[Info], new: Sequence[Info], at: int, elements: Sequence[int]) -> Cut | None:
    """The stretch behind which the earlier history goes on to its end, word for word; None where it does not.

    The newest message shows nothing: two conversations may well come to the same question.
    """
    places: dict[int, int] = {}
    end = next((index for index in range(at, len(new)) if elements[index] == elements[-1]), len(new))
    for index in range(at, len(new)):
        places.setdefault(id(new[index]), index)
    tried = 0
    for index in range(at, len(old)):
        found = places.get(id(old[index]))
        if found is None or tried >= _MAX_ALIGNED:
            continue
        tried += 1
        rest = len(old) - index
        goes_on = all(one is other for one, other in zip(old[index:], new[found : found + rest], strict=False))
        telling = any(info.size >= TELLING for info in new[found : min(end, found + rest)])
        if goes_on and telling and found + rest <= len(new):
            return Cut(at, index, found)
    return None


def history_reason(
    old: Sequence[Info], new: Sequence[Info], at: int, old_elements: Sequence[int], elements: Sequence[int]
) -> Reason | None:
    """Whether messages were dropped or summed up, rather than one of them rewritten. The elements are the places of
    the segments among the messages."""
    if old[at].section is not Section.MESSAGES or new[at].section is not Section.MESSAGES:
        return None
    cut = history_cut(old, new, at, elements)
    if cut is None or old_elements[cut.old_end] == old_elements[at]:
        return None
    gone = [info for info in old[at : cut.old_end] if info.kind is not Kind.REASONING]
    dropped = old_elements[cut.old_end] - old_elements[at]
    if not gone:
        return None
    known, kept = {id(info) for info in old}, {id(info) for info in new[at:]}
    came = new[at : cut.new_end]
    if any(id(info) in known for info in came) or any(id(info) in kept for info in gone if info.size >= TELLING):
        return None  # changed places
    if not came:
        first = at == 0 or old[at - 1].section is not Section.MESSAGES
        return Reason.HISTORY_TRUNCATED if dropped >= 2 or first else None
    written = elements[cut.new_end] - elements[at]
    if dropped < 2 or written >= dropped:
        return None
    short = sum(info.size for info in came) < min(_NOTE, sum(info.size for info in gone) // 4)
    return Reason.HISTORY_TRUNCATED if short else Reason.HISTORY_COMPACTED


# --- The very character, where the text is remembered -------------------------------------------------------


def _exact(found: Change, before: Info, segment: Segment) -> Change:
    """With the character at which the texts part, if the earlier one is remembered."""
    if before.remembered is None:
        return found
    if found.place.kind is Kind.SPEAKER:
        old, new = (role.rpartition("\0")[2] for role in (before.remembered.role, segment.role))
        return found._replace(offset=fingerprint.common_start(old, new))
    theirs = _remembered_leaves(before.remembered, segment)
    if theirs is None:
        return found
    mine = leaves(segment)[0] if plain_text(segment) is None or before.remembered.plain else _block(segment)
    for old_leaf, new_leaf in zip(theirs, mine, strict=False):
        if old_leaf != new_leaf:
            offset = fingerprint.common_start(old_leaf.text, new_leaf.text) if old_leaf.field == new_leaf.field else 0
            line = 1 + new_leaf.text.count("\n", 0, offset)
            return found._replace(line=line, field=new_leaf.field, offset=offset)
    return found


def _remembered_leaves(text: Remembered, segment: Segment) -> list[Leaf] | None:
    if text.plain:
        written = text.data.decode("utf-8", "surrogatepass")
        if plain_text(segment) is not None:
            return [Leaf((), written)]
        return [Leaf(("type",), "text"), Leaf(("text",), written)]
    try:
        value = marshal.loads(text.data)  # noqa: S302 - written by this process, from its own memory
    except (ValueError, EOFError, TypeError):
        return None
    return leaves(segment._replace(value=value, kind=Kind.OTHER))[0]


def _block(segment: Segment) -> list[Leaf]:
    """The leaves of a text as the block that it may be written as."""
    value = segment.value
    if type(value) is dict:
        return leaves(segment._replace(value=unmarked(value), kind=Kind.OTHER))[0]
    return [Leaf(("type",), "text"), Leaf(("text",), str(value))]
