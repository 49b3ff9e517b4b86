"""How one text became another, told from the hashes of the one and the text of the other."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from otel_promptcache.fingerprint.detail import Detail, Hashed, detail, sentence_hash, sentences
from otel_promptcache.fingerprint.fields import Field, Leaf, leaves, written
from otel_promptcache.model import Kind, Segment
from otel_promptcache.semconv import Cause

_MAX_LINES: Final = 8
"""Differing lines that are searched for what changes of itself: the search runs while the caller waits."""
_LABELLED: Final = 120
"""Characters up to which one of several lines is a label and a value."""
_PASSAGES: Final = 3
"""Lines in a row, all of them new, from which a piece of text was replaced rather than edited."""
_MEDIA_CAUSE: Final = {Kind.IMAGE: Cause.IMAGE, Kind.AUDIO: Cause.DOCUMENT, Kind.DOCUMENT: Cause.DOCUMENT}
_WRITTEN: Final = frozenset({Kind.TEXT, Kind.TOOL, Kind.DOCUMENT})
"""Kinds of segments that an application writes; calls and results are about people without having changed for one."""
_OWN_FIELDS: Final = frozenset({(), ("function",), ("custom",), ("toolSpec",)})
"""Objects whose keys the API defines: their order is the serialiser's."""


class Difference(NamedTuple):
    """How one text became another: the cause as far as hashes show it, and where they part."""

    cause: Cause | None
    line: int | None
    """1-based, within the text of the field."""
    field: Field = ()
    certain: bool = False
    """Whether digests show the cause; else it is what the new text looks like."""


class _Stretch(NamedTuple):
    """The differing lines: the first, and the ends in both texts."""

    start: int
    old_end: int
    new_end: int


def difference(old: Detail | None, new: Detail | None, segment: Segment, hashed: Hashed = hash) -> Difference:
    """What parts an earlier text, known by its hashes, from the present one. ``hashed`` made the hashes of both."""
    if old is None or new is None:
        return Difference(_MEDIA_CAUSE.get(segment.kind), None)
    if old.lines == new.lines:
        # The lines are equal: what differs is around them, or beyond what is looked at.
        return Difference(None if new.truncated else Cause.EDITED, None)
    stretch = changed(old.lines, new.lines)
    # Where one text is the beginning of the other they part at the end of its last line.
    at = max(0, min(stretch.start, len(new.lines) - 1, stretch.start if new.values else len(old.lines) - 1))
    laid_out = leaves(segment)[0]
    field: Field = ()
    line: int | None = None if new.values else at + 1
    if new.hints is None:  # else the text is not at hand
        field, line = _place(laid_out, at)
    cause = _loosely_equal(old, new, stretch, segment)
    if cause is Cause.KEY_ORDER:
        field, own = _reordered_object(laid_out, old, field, hashed)
        return Difference(Cause.FIELD_ORDER if own else cause, line, field, certain=True)
    if cause is not None:
        return Difference(cause, line, field, certain=True)
    if segment.kind in _MEDIA_CAUSE and not new.size:
        return Difference(_MEDIA_CAUSE[segment.kind], line, field, certain=True)
    if _same_pieces(old, new):
        return Difference(Cause.REORDERED, line, field, certain=True)
    cause = _volatile(old, new, stretch, laid_out, hashed)
    if cause is not None and not (cause is Cause.USER_DATA and segment.kind not in _WRITTEN):
        return Difference(cause, line, field)
    return Difference(_rewritten(old, new, stretch, laid_out), line, field)


def _loosely_equal(old: Detail, new: Detail, stretch: _Stretch, segment: Segment) -> Cause | None:
    """The kind of change that a loose digest forgives, if one does."""
    if segment.kind in _MEDIA_CAUSE and not new.size:
        return Cause.URL_SIGNATURE if old.blanks == new.blanks else None
    only_blanks = old.blanks == new.blanks
    if (
        new.parsed
        and old.parsed == new.parsed
        and not (only_blanks and not new.values and _at_an_end(old, new, stretch))
    ):
        return Cause.RESERIALIZED
    if new.sorted and old.sorted == new.sorted:
        return Cause.KEY_ORDER
    if old.endings == new.endings and not (old.values or new.values):
        return Cause.LINE_ENDINGS
    if only_blanks:
        return Cause.WHITESPACE
    if old.folded == new.folded:
        return Cause.UNICODE
    return Cause.RESERIALIZED if new.slim and old.slim == new.slim else None


def _at_an_end(old: Detail, new: Detail, stretch: _Stretch) -> bool:
    """Whether blank lines at an end of the text came or went, and nothing else."""
    at_an_end = stretch.start in (0, min(len(old.lines), len(new.lines)))
    return at_an_end and stretch.start in (stretch.old_end, stretch.new_end)


def _same_pieces(old: Detail, new: Detail) -> bool:
    """Whether the same lines, or the same values, stand in another order."""
    if len(old.lines) != len(new.lines):
        return False
    return sorted(old.lines) == sorted(new.lines) or bool(new.values and old.values == new.values)


def _reordered_object(laid_out: Sequence[Leaf], old: Detail, field: Field, hashed: Hashed) -> tuple[Field, bool]:
    """The outermost object whose keys changed places, and whether it is one of the API's own alone."""
    by_hash = {
        hashed(written(field) + b"\0" + text.split("\n", 1)[0].encode("utf-8", "surrogatepass")): field
        for field, text in laid_out
    }
    before = [by_hash[one] for one in old.lines if one in by_hash]
    known = set(before)
    after = [leaf.field for leaf in laid_out if leaf.field in known]
    parted = next(((mine, its) for mine, its in zip(after, before, strict=False) if mine != its), None)
    if parted is None:
        return field, False  # the order changed inside of a text that is JSON itself
    container = _common(*parted)
    if container not in _OWN_FIELDS:
        return container, False
    depth = len(container) + 1
    inner = {name: [path for path in after if path[:depth] == name] for name in {path[:depth] for path in after}}
    same = all(paths == [path for path in before if path[:depth] == name] for name, paths in inner.items())
    return container, same


def _common(one: Field, other: Field) -> Field:
    length = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _place(laid_out: Sequence[Leaf], at: int) -> tuple[Field, int]:
    """The field in which a line of the whole stands, and its number there, from 1."""
    passed = 0
    for field, text in laid_out:
        count = text.count("\n") + 1
        if at < passed + count:
            return field, at - passed + 1
        passed += count
    return (laid_out[-1].field, max(1, laid_out[-1].text.count("\n") + 1)) if laid_out else ((), 1)


def _lines(laid_out: Sequence[Leaf], start: int, end: int) -> list[str]:
    """Lines of the whole from ``start`` up to ``end``; what lies before and behind is not copied."""
    found: list[str] = []
    passed = 0
    for leaf in laid_out:
        count = leaf.text.count("\n") + 1
        if passed + count > start:
            lines = leaf.text.split("\n")
            found += lines[max(0, start - passed) : end - passed]
        passed += count
        if passed >= end:
            break
    return found


def _volatile(old: Detail, new: Detail, stretch: _Stretch, laid_out: Sequence[Leaf], hashed: Hashed) -> Cause | None:
    """What changed of itself in the differing lines, judged by the first that tells."""
    only_digits, only_words = old.digits == new.digits, old.words == new.words
    removed, added = stretch.old_end - stretch.start, stretch.new_end - stretch.start
    inserted = not removed and added <= _MAX_LINES
    local = removed == added and added <= _MAX_LINES
    if not (local or inserted or only_digits) or not added:
        return None
    if new.hints is not None:
        held = range(stretch.start + 1, stretch.new_end + 1)
        believed = (hint for hint in new.hints if only_digits or hint[0] is not Cause.COUNTER)
        return next((cause for cause, lines in believed if any(line in held for line in lines)), None)
    from otel_promptcache.fingerprint.volatile import RETRIEVED, Line, announced, cause_of

    same_digits = old.figures == new.figures
    texts = _lines(laid_out, stretch.start, min(stretch.new_end, stretch.start + _MAX_LINES))
    if local and not only_digits and old.pieces and new.pieces:
        fresh, gone = _sentences(texts, old, new, hashed)
        if fresh:
            texts, inserted = fresh, not gone
            added = len(fresh)
    if inserted:
        told = {announced(text) for text in texts if text.strip()}
        return told.pop() if len(told) == 1 else None
    causes = [cause_of(Line(text, only_digits, only_words, same_digits)) for text in texts if text.strip()]
    if only_digits or only_words or added == 1:
        return next((cause for cause in causes if cause is not None), None)
    # Several lines that say something else: each of them must be a label and a value, as in a block about the machine.
    if None in causes or any(len(text) > _LABELLED or RETRIEVED.match(text) for text in texts):
        return None
    return causes[0] if causes else None


def _sentences(texts: Sequence[str], old: Detail, new: Detail, hashed: Hashed) -> tuple[list[str], int]:
    """The sentences of long lines that the earlier text did not have, and how many of its own are gone; none where
    more came or went than are told apart."""
    fresh = [text for text in sentences("\n".join(texts)) if sentence_hash(text, hashed) not in old.pieces]
    gone = len(old.pieces - new.pieces)
    return (fresh, gone) if len(fresh) <= _MAX_LINES and gone in (0, len(fresh)) else ([], gone)


def _rewritten(old: Detail, new: Detail, stretch: _Stretch, laid_out: Sequence[Leaf]) -> Cause:
    """Whether one piece of text stands in place of another, in front of what stayed; else it was edited."""
    behind = len(new.lines) - stretch.new_end
    if stretch.start in (stretch.old_end, stretch.new_end) or not behind:
        return Cause.EDITED
    from otel_promptcache.fingerprint.volatile import RETRIEVED

    known = set(old.lines)
    fresh = sum(line not in known for line in new.lines[stretch.start : stretch.new_end])
    lines = _lines(laid_out, stretch.start, min(stretch.new_end, stretch.start + 64))
    told = [line for line in lines if line.strip()]
    retrieved = any(map(RETRIEVED.match, told)) or (len(told) >= _PASSAGES and stretch.old_end - stretch.start >= 2)
    return Cause.REPLACED if retrieved and fresh >= min(len(told), 64) else Cause.EDITED


def changed(old: array[int], new: array[int]) -> _Stretch:
    """First differing line, and the ends of the differing stretch in both."""
    limit = min(len(old), len(new))
    start = 0
    while start < limit and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < limit - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return _Stretch(start, len(old) - tail, len(new) - tail)


def similar(old: Detail | None, new: Detail | None) -> bool:
    """Whether two texts are versions of one another: equal but for blanks or digits, or half of the lines alike."""
    if old is None or new is None:
        return False
    if old.blanks == new.blanks or old.digits == new.digits or old.folded == new.folded:
        return True
    if new.sorted and old.sorted == new.sorted:
        return True
    if old.slim and old.slim == new.slim:
        return True
    if old.pieces and new.pieces and 2 * len(old.pieces & new.pieces) >= max(len(old.pieces), len(new.pieces)):
        return True
    longer = max(len(old.lines), len(new.lines))
    if longer < 2:
        return False
    stretch = changed(old.lines, new.lines)
    same = stretch.start + len(old.lines) - stretch.old_end
    return 2 * max(same, len(set(old.lines) & set(new.lines))) >= longer


def common_start(one: str, other: str) -> int:
    """Characters at the beginning that two texts share, found in widening steps and then by halving: comparing is
    fast, looping is not, and most texts part early."""
    low, high, step = 0, min(len(one), len(other)), 64
    while low < high and one.startswith(other[low : low + step], low):
        low = min(high, low + step)
        step *= 2
    high = min(high, low + step)
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def volatile_lines(segment: Segment, numbers: Iterable[int]) -> tuple[tuple[Cause, tuple[int, ...]], ...]:
    """Which of these lines of a segment, counted from 1, would change of themselves, by what would change in them; for
    a text that will not be at hand when it is compared."""
    from otel_promptcache.fingerprint.volatile import Line, cause_of

    found: dict[Cause, list[int]] = {}
    lines = [line for leaf in leaves(segment)[0] for line in leaf.text.split("\n")]
    for number in itertools.takewhile(lambda number: number <= len(lines), numbers):
        text = lines[number - 1]
        cause = cause_of(Line(text, only_digits=False, only_words=False)) or cause_of(
            Line(text, only_digits=True, only_words=True)
        )
        if cause is not None:
            found.setdefault(cause, []).append(number)
    return tuple((cause, tuple(places)) for cause, places in found.items())


__all__ = ["Difference", "changed", "common_start", "detail", "difference", "similar", "volatile_lines"]
