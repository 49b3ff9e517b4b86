"""The very place where two wire values part, in render order: field, line, character. Needs both texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from otel_promptcache.fingerprint import common_start
from otel_promptcache.model import Prompt, Segment
from otel_promptcache.paths import Path, parsed
from otel_promptcache.providers import Dialect
from otel_promptcache.providers._wire import MARKERS

_NOTHING: Final = object()
"""Stands where one of the two has no more."""


class Place(NamedTuple):
    """Where two values part. ``offset`` counts characters from 0, ``line`` from 1; both None where no two texts do."""

    path: Path
    old: object
    new: object
    offset: int | None = None
    line: int | None = None
    apart: bool = False
    """Settled already: what differs are the names of an object's fields, or their order."""


def shared(old: Prompt, new: Prompt) -> int:
    """How many leading segments two prompts have in common."""
    pairs = enumerate(zip(old.segments, new.segments, strict=False))
    alike = min(len(old.segments), len(new.segments))
    return next((index for index, (before, after) in pairs if before.key != after.key), alike)


def counterpart(old: Prompt, new: Prompt, place: Segment) -> Segment | None:
    """What stood in the earlier prompt where ``place`` stands in the new one; None for nothing of the kind."""
    at = shared(old, new)
    here = new.segments[at] if at < len(new.segments) else None
    there = old.segments[at] if at < len(old.segments) else None
    if here is not None and _same_place(here, place) and there is not None and there.section is place.section:
        return there
    return next((segment for segment in old.segments if _same_place(segment, place)), None)


def _same_place(one: Segment, other: Segment) -> bool:
    if one[1:2] + one[3:5] != other[1:2] + other[3:5]:
        return False
    return one.role == other.role or one.section != 0  # several parameters stand at one place


def between(
    dialect: Dialect, old_body: Mapping[str, Any], new_body: Mapping[str, Any], old: Segment | None, new: Segment
) -> Place | None:
    """Where two segments part, each looked up in its own body."""
    if old is None:
        return None
    there, here = parsed(dialect.path(old)), parsed(dialect.path(new))
    if (here != there or old.role != new.role) and here[:2] == there[:2]:
        there, here = there[:2], here[:2]  # what differs is who speaks, which call it belongs to, or the form
    before, after = _at(old_body, there), _at(new_body, here)
    if before is _NOTHING or after is _NOTHING:
        return None
    return parting(before, after, here)


def _at(body: object, path: Path) -> object:
    for step in path:
        if isinstance(step, str) and isinstance(body, Mapping):
            body = body.get(step, _NOTHING)
        elif isinstance(step, int) and isinstance(body, Sequence) and not isinstance(body, str) and step < len(body):
            body = body[step]
        else:
            return _NOTHING
    return body


def parting(old: object, new: object, path: Path = ()) -> Place | None:
    """The first place where two JSON values part; None where they are the same but for cache markers.

    The order of keys is significant: objects whose keys stand in another order part at the object.
    """
    # A stack rather than a recursion: a request may be nested deeper than the interpreter is.
    waiting: list[Place] = [Place(path, old, new)]
    while waiting:
        here = waiting.pop()
        before, after = here.old, here.new
        if here.apart:
            return here._replace(apart=False)
        if isinstance(before, str) and isinstance(after, str):
            if before != after:
                offset = common_start(before, after)
                return here._replace(offset=offset, line=1 + after.count("\n", 0, offset))
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            waiting += reversed(_fields(here, before, after))
        elif isinstance(before, list) and isinstance(after, list):
            pairs = list(enumerate(zip_longest(before, after, fillvalue=_NOTHING)))
            waiting += [Place((*here.path, index), *pair) for index, pair in reversed(pairs)]
        elif type(before) is not type(after) or before != after:
            return Place(here.path, _plain(before), _plain(after))
    return None


def _fields(here: Place, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Place]:
    """The places to look at in two objects, in order, up to the first name that one has and the other has not."""
    names, others = ([name for name in one if name not in MARKERS] for one in (before, after))
    alike = next((at for at, pair in enumerate(zip(names, others, strict=False)) if pair[0] != pair[1]), None)
    alike = min(len(names), len(others)) if alike is None else alike
    found = [Place((*here.path, name), before[name], after[name]) for name in names[:alike]]
    added = next((name for name in others[alike : alike + 1] if name not in before), None)
    gone = next((name for name in names[alike : alike + 1] if name not in after), None)
    if added is not None or gone is not None:
        name = added if added is not None else gone
        assert name is not None
        found.append(Place((*here.path, name), before.get(name), after.get(name), apart=True))
    elif names != others:
        found.append(here._replace(apart=True))
    return found


def _plain(value: object) -> object:
    return None if value is _NOTHING else value
