"""The detail of a segment in few bytes, for keeping."""

from __future__ import annotations

import struct
from array import array
from typing import Final

from otel_promptcache.fingerprint.detail import (
    BLANKS,
    FEW_LINES,
    JSON_KEY,
    JSON_OPENS,
    LONG,
    MAX_DETAIL,
    MAX_LINES,
    Detail,
    detail,
)
from otel_promptcache.fingerprint.signs import DIGITS, NO_DIGITS, WORDS
from otel_promptcache.model import Kind, Section, Segment

_LOOSE: Final = (
    "blanks",
    "digits",
    "endings",
    "folded",
    "words",
    "figures",
    "values",
    "parsed",
    "sorted",
    "slim",
    "bag",
)
_HEAD: Final = struct.Struct("<HHI")
_PIECES, _CUT = 1 << 14, 1 << 15


_OWN, _OWN_ENDINGS = 0b110011, 0b000100
"""Flags of the hashes that a plain text has of its own: blanks, digits, words, figures; endings where it has lines."""
_LINE: Final = struct.Struct("<HHIqqqqq")


def packed(segment: Segment) -> bytes:
    """The packed detail of a segment. What most are, a plain text of ASCII, is packed without making a detail of it
    first, which takes a third of the time."""
    text = segment.value
    if type(text) is not str or segment.kind is Kind.HELD or segment.section is not Section.MESSAGES:
        return pack(detail(segment))
    if not text.isascii() or text[:1] in JSON_OPENS or len(text) > MAX_DETAIL:
        return pack(detail(segment))
    data = text.encode()
    count = data.count(b"\n")
    if (
        b"\r" in data
        or b"`" in data
        or JSON_KEY in data
        or count >= MAX_LINES
        or (len(text) >= LONG and count < FEW_LINES)
    ):
        return pack(detail(segment))
    blanks, digits = hash(data.translate(None, BLANKS)), hash(data.translate(None, DIGITS))
    words, figures = hash(data.translate(None, WORDS)), hash(data.translate(None, NO_DIGITS))
    if not count:
        return _LINE.pack(_OWN, 0, len(text), blanks, digits, words, figures, hash(data))
    lines = data.split(b"\n")
    if len(text) >= LONG and max(map(len, lines)) > LONG:
        return pack(detail(segment))
    numbers = array("q", [blanks, digits, hash(data), words, figures])
    numbers.extend(map(hash, lines))
    return _HEAD.pack(_OWN | _OWN_ENDINGS, 0, len(text)) + numbers.tobytes()


def pack(detail: Detail | None) -> bytes:
    """A detail in few bytes, for keeping: 8, and 8 for each hash that is not what it usually is. Hints are left out."""
    if detail is None:
        return b""
    lines = detail.lines
    usual = _usual(detail.blanks, detail.endings, lines)
    told = detail[0], detail[1], *detail[3:12]
    flags, kept = 0, []
    for number, (value, expected) in enumerate(zip(told, usual, strict=True)):
        if value != expected:
            flags |= 1 << number
            kept.append(value)
    pieces = detail.pieces
    if detail.truncated:
        flags |= _CUT
    if pieces:
        flags |= _PIECES
    head = _HEAD.pack(flags, len(pieces), min(detail.size, 2**32 - 1))
    return head + array("q", [*kept, *pieces]).tobytes() + lines.tobytes()


def unpack(data: bytes) -> Detail:
    """What ``pack`` has packed."""
    flags, count, size = _HEAD.unpack_from(data)
    numbers = array("q", data[_HEAD.size :])
    loose = (flags & (_PIECES - 1)).bit_count()
    kept, lines = numbers[:loose], numbers[loose + count :]
    found: list[int] = []
    taken = iter(kept)
    for number in range(len(_LOOSE)):
        if flags >> number & 1:
            found.append(next(taken))
        else:
            blanks, endings = (found[0] if found else 0), (found[2] if len(found) > 2 else 0)
            found.append(_usual(blanks, endings, lines)[number])
    blanks, digits, endings, folded, words, figures, values, parsed, sorted_, slim, bag = found
    return Detail(
        blanks,
        digits,
        lines,
        endings,
        folded,
        words,
        figures,
        values,
        parsed,
        sorted_,
        slim,
        bag,
        size,
        frozenset(numbers[loose : loose + count]),
        bool(flags & _CUT),
    )


def _usual(blanks: int, endings: int, lines: array[int]) -> tuple[int, ...]:
    """What the loose hashes are of a line of plain text."""
    return 0, 0, lines[0] if len(lines) == 1 else 0, blanks, 0, 0, 0, 0, 0, endings, 0
