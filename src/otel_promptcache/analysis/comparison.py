"""Two request bodies: where the later one parts from the earlier one it should have continued, and how.

The first difference is judged by the diagnosis of live traffic, as if everything were cached for ever and nothing had
been read; what differs behind it, which would break the prefix next, is listed by section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

from otel_promptcache.analysis import places
from otel_promptcache.analysis.documents import TrafficError
from otel_promptcache.analysis.exchanges import APART, BY_NAME, INSTANT, Exchange, dialect_of
from otel_promptcache.analysis.findings import Shown
from otel_promptcache.analysis.places import Place
from otel_promptcache.analysis.replay import replay
from otel_promptcache.diagnosis import REASON_OF_SECTION
from otel_promptcache.model import Answer, Prompt, Section, Segment, Usage
from otel_promptcache.paths import parsed
from otel_promptcache.providers import Dialect
from otel_promptcache.semconv import PROMPT_CHANGED, Cause, Reason

DIALECTS: Final = tuple(BY_NAME)

_TOKENS_A_BYTE: Final = 64
"""So many that no change is lost in the granule of tokens that prefixes are cached in."""
_ALIGNED: Final = 5_000
"""Segments up to which prompts are aligned to find what differs behind the first difference."""


class Difference(NamedTuple):
    """One place at which two bodies part. ``place`` None: nothing is there to be compared with."""

    reason: Reason
    cause: Cause | None
    path: str
    place: Place | None = None
    line: int | None = None


class Comparison(NamedTuple):
    """Differences in the order in which they break the prefix, and how much of the later prompt is in front."""

    differences: list[Difference]
    shared: int
    segments: int
    shared_share: float


def compare(old: Mapping[str, Any], new: Mapping[str, Any], dialect: str = "") -> Comparison:
    """What parts two bodies. Raises TrafficError for bodies of different dialects, or without a prompt."""
    found = [BY_NAME[dialect] if dialect else dialect_of(body) for body in (old, new)]
    if found[0] is not found[1]:
        raise TrafficError(
            f"the first body looks like {found[0].name} and the second like {found[1].name}; --dialect says which it is"
        )
    spoken = found[0]
    before, after = spoken.prompt(old), spoken.prompt(new)
    if not before.segments or not after.segments:
        raise TrafficError("no prompt in one of the bodies: an object with messages or input is needed")
    shared = places.shared(before, after)
    size = max(1, sum(map(_bytes, after.segments)))
    return Comparison(
        [*_scopes(before, after), *_texts(spoken, old, new, before, after, shared)],
        shared,
        len(after.segments),
        sum(map(_bytes, after.segments[:shared])) / size,
    )


def where(one: Difference, shown: Shown) -> str:
    """Path and line, as far as they may be shown."""
    path = shown.path(one.place.path if one.place is not None else parsed(one.path))
    line = one.place.line if one.place is not None and one.place.line else one.line
    return path if line is None else f"{path}, line {line}"


def _bytes(segment: Segment) -> int:
    value = segment.value
    return len(value if isinstance(value, str) else str(value))


def _scopes(old: Prompt, new: Prompt) -> Iterator[Difference]:
    if old.model != new.model:
        yield Difference(Reason.MODEL_CHANGED, None, "model", Place(("model",), old.model, new.model))
    if old.cache_key != new.cache_key:
        place = Place(("prompt_cache_key",), old.cache_key, new.cache_key)
        yield Difference(Reason.CACHE_KEY_CHANGED, None, "prompt_cache_key", place)


def _texts(
    dialect: Dialect, old: Mapping[str, Any], new: Mapping[str, Any], before: Prompt, after: Prompt, shared: int
) -> Iterator[Difference]:
    if shared == len(after.segments) or shared == len(before.segments):
        return  # one is the beginning of the other
    judged = replay([_exchange(dialect, old, 0), _exchange(dialect, {**new, "model": old.get("model")}, 1)])[1]
    verdict = judged.diagnosis
    if verdict.reason in PROMPT_CHANGED and verdict.place is not None:
        yield Difference(verdict.reason, verdict.cause, dialect.path(verdict.place), judged.place, verdict.line)
    elif (
        after.segments[shared].element < after.segments[-1].element
        or before.segments[shared].section < Section.MESSAGES
    ):
        yield _by_section(dialect, old, new, before.segments[shared], after.segments[shared], None)
    else:
        return  # only the newest message is another one
    yield from _behind(dialect, old, new, before, after, shared)


def _exchange(dialect: Dialect, body: Mapping[str, Any], number: int) -> Exchange:
    """A request of a provider that caches every prefix; the second has read nothing of it."""
    body = {name: value for name, value in body.items() if name != "prompt_cache_key"}
    size = sum(map(_bytes, dialect.prompt(body).segments))
    usage = Usage(input_total=_TOKENS_A_BYTE * size, read=0)
    at = number * APART
    return Exchange(
        case="diff", name="diff", number=number, dialect=dialect, provider="", endpoint="", credential="", session="",
        body=body, answer=Answer(usage), at=at, begun=at + INSTANT, ended=at + INSTANT, timed=False,
    )  # fmt: skip


def _by_section(
    dialect: Dialect,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Segment | None,
    after: Segment,
    cause: Cause | None,
) -> Difference:
    place = places.between(dialect, old, new, before, after) if before is not None else None
    return Difference(REASON_OF_SECTION[after.section], cause, dialect.path(after), place)


def _behind(
    dialect: Dialect, old: Mapping[str, Any], new: Mapping[str, Any], before: Prompt, after: Prompt, shared: int
) -> Iterator[Difference]:
    """What differs behind the first difference, section by section; new messages at the end are none."""
    if max(len(before.segments), len(after.segments)) > _ALIGNED:
        return
    first = after.segments[shared].section
    for section in Section:
        theirs, mine = (
            [one for one in prompt.segments[shared:] if one.section is section] for prompt in (before, after)
        )
        matcher = SequenceMatcher(None, [one.key for one in theirs], [one.key for one in mine], autojunk=False)
        for kind, start, end, at, to in matcher.get_opcodes():
            told = section is first and at == start == 0
            newest = section is Section.MESSAGES and end == len(theirs)
            if kind == "equal" or told or newest:
                continue
            if kind == "insert":
                yield _by_section(dialect, old, new, None, mine[at], Cause.ADDED)
            elif kind == "delete":
                yield _by_section(dialect, old, new, None, theirs[start], Cause.REMOVED)
            else:
                pairs = zip(theirs[start:end], mine[at:to], strict=False)
                yield from (_by_section(dialect, old, new, one, other, None) for one, other in pairs)
