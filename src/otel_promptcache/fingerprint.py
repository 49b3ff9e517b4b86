"""Keyed digests of segments, the prefix chain, and what kind of difference parts two segments.

Three hashes, never confused:

* ``Segment.key``: the interpreter's own 64-bit hash. Fast, process-local, finds what is already known.
* ``Digest``: 128-bit blake2b under the hash key, made once per new segment. The only one that is exported.
* ``Chain``: h(i) = blake2b(h(i-1) || digest(i)); equal chains mean equal prefixes.

No text is kept: a ``Detail`` holds hashes of the lines and two loose digests, enough to say later whether only
blanks, only digits, or the order changed, and in which line.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final, NamedTuple, NewType

from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import MARKERS, structure, unmarked
from otel_promptcache.semconv import Cause

Digest = NewType("Digest", bytes)
Chain = NewType("Chain", bytes)

DIGEST_SIZE: Final = 16
MAX_ROLES: Final = 64
SHORT: Final = 6
"""Bytes of a digest that are shown and exported in fingerprints and maps."""

_MAX_DETAIL: Final = 4 * 2**20
"""Bytes of one segment beyond which no line hashes are made."""


class HashKey:
    """The key of every exported digest. Without a configured one, random: digests then compare in this process."""

    __slots__ = ("_states", "id", "key")

    def __init__(self, configured: str = "") -> None:
        secret = configured.encode() if configured else os.urandom(32)
        self.key = blake2b(secret, digest_size=32, person=b"promptcache-key").digest()
        self._states: dict[int, blake2b] = {}
        self.id = blake2b(self.key, digest_size=4, person=b"promptcache-id").hexdigest()

    def digest(self, role: str, data: bytes) -> Digest:
        """Digest of a segment's role and canonical bytes."""
        fast = hash(role)  # the role itself may hold a speaker's name, which is not ours to keep
        begun = self._states.get(fast)
        if begun is None:
            begun = blake2b(role.encode("utf-8", "surrogatepass") + b"\0", digest_size=DIGEST_SIZE, key=self.key)
            if len(self._states) < MAX_ROLES:  # a tool result's role carries the id of its call
                self._states[fast] = begun
        state = begun.copy()
        state.update(data)
        return Digest(state.digest())

    def chain(self, parent: Chain, digest: Digest) -> Chain:
        """The chain value of a prefix one segment longer."""
        return Chain(blake2b(parent + digest, digest_size=DIGEST_SIZE).digest())

    def root(self, *scope: str) -> Chain:
        """The chain value before the first segment: what must be equal besides the text."""
        return Chain(self.digest("scope", "\0".join(scope).encode("utf-8", "surrogatepass")))

    def name(self, text: str) -> str:
        """A short keyed stand-in for a name that must not be readable, `[key:3f2a]`."""
        return f"[key:{self.digest('name', text.encode('utf-8', 'surrogatepass')).hex()[:4]}]"

    def token(self, text: str) -> str:
        """A keyed stand-in for an identifier (a user, a credential): 16 hexadecimal digits."""
        return self.digest("token", text.encode("utf-8", "surrogatepass")).hex()[:16]


def canonical(segment: Segment) -> bytes:
    """The bytes a segment's digest is made of: its text, or its structure without cache markers."""
    value = segment.value
    if type(value) is dict and segment.kind is Kind.TEXT and "text" in value and len(value.keys() - MARKERS) == 2:
        value = value["text"]  # nothing but a text, whatever this API calls its type
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    return structure(unmarked(value) if type(value) is dict else value)


def sections(digests: Iterable[tuple[Section, Digest]]) -> tuple[tuple[Section, Digest], ...]:
    """One digest a section, over the digests of its segments in order."""
    states: dict[Section, blake2b] = {}
    for section, digest in digests:
        state = states.get(section)
        if state is None:
            state = states[section] = blake2b(digest_size=DIGEST_SIZE)
        state.update(digest)
    return tuple((section, Digest(state.digest())) for section, state in states.items())


def identity(digests: Iterable[tuple[Section, Digest]]) -> tuple[str, ...]:
    """``section:digest`` for each section, as ``promptcache.fingerprint`` has them."""
    return tuple(f"{section.name.lower()}:{digest[:SHORT].hex()}" for section, digest in sections(digests))


# --- Kinds of difference ------------------------------------------------------------------------------------

_BLANKS: Final = b" \t\r\n\v\f"
_WIDE_BLANKS: Final = (
    # No-break, fixed-width, zero-width and ideographic spaces, line and paragraph separators, byte order mark.
    "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b"
    "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
_DIGITS: Final = b"0123456789"

_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_WORD: Final = r"[^\W\d_]{3,}"
_YEAR: Final = r"(?:19|20)\d{2}"
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}"  # 2026-11-21, also at the start of a full ISO timestamp
    r"|\b\d{8}T\d{4}"  # 20261121T140559Z
    r"|\b\d{1,2}[:h]\d{2}\b"  # 14:05, 14:05:59, 14h05
    r"|\b\d{1,2} ?[ap]\.?m\b"  # 2 pm
    r"|\b\d{1,2}[./]\d{1,2}[./](?:\d{4}|\d{2})\b"  # 21.11.2026, 11/21/26
    r"|\b\d{4}[./]\d{1,2}[./]\d{1,2}\b"
    r"|\d{1,4} ?[年년] ?\d{1,2} ?[月월]"
    rf"|\b{_MONTH}\.?(?: \d{{1,2}}(?:st|nd|rd|th)?,?)? {_YEAR}\b"  # November 21st, 2026
    # Day, month, year: months have too many names to list, and the order is the same in most languages.
    rf"|\b\d{{1,2}}(?:st|nd|rd|th|\.)?[ -](?:de )?{_WORD}\.?,?(?: de)?[ -]{_YEAR}\b"
    r"|\b1[5-9]\d{8}(?:\.\d+|\d{3}(?:\d{3})?)?\b",  # epoch seconds, milliseconds, microseconds
    re.IGNORECASE,
)
_MAX_LINE: Final = 1_000
_MAX_LINES: Final = 8
"""Characters and lines that are searched for a time: the search runs while the caller waits."""
_SHORT_LINE: Final = 400
"""Characters up to which a line that holds a time is taken to have changed because of it (a weekday changes too)."""


class Detail(NamedTuple):
    """What is remembered of a segment's text: process-local hashes, eight bytes a line (keyed ones in a snapshot)."""

    blanks: int
    """Hash of the text without blanks."""
    digits: int
    """Hash of the text without digits: 9:59 and 10:00 are then alike."""
    lines: array[int]
    times: tuple[int, ...] | None = None
    """Lines that hold a time, 1-based, for a text that will not be at hand; None: search the text."""


class Difference(NamedTuple):
    """How one text became another: the cause as far as hashes show it, and the first differing line, 1-based."""

    cause: Cause | None
    line: int | None


def text(segment: Segment) -> str | None:
    """The text that line numbers refer to; structures are laid out one field a line. None for pictures and sound."""
    value = segment.value
    if segment.kind in (Kind.IMAGE, Kind.AUDIO, Kind.DOCUMENT, Kind.HELD):
        return None
    if type(value) is dict and segment.kind is Kind.TEXT and type(value.get("text")) is str:
        value = value["text"]
    if type(value) is str:
        return value
    if type(value) is dict and segment.kind is Kind.TOOL_RESULT:
        for field in ("content", "output"):
            if type(value.get(field)) is str:
                return value[field]  # type: ignore[no-any-return]
    try:
        return json.dumps(unmarked(value) if type(value) is dict else value, ensure_ascii=False, indent=0)
    except (TypeError, ValueError, RecursionError):
        return None


def detail(segment: Segment, hashed: Callable[[bytes], int] = hash) -> Detail | None:
    """The loose and line hashes of a segment, None where there is no text or too much of it."""
    written = text(segment)
    if written is None:
        return None
    data = written.encode("utf-8", "surrogatepass")
    if len(data) > _MAX_DETAIL:
        return None
    dense = data
    if not written.isascii():
        for blank in _WIDE_BLANKS:
            written = written.replace(blank, "")
        dense = written.encode("utf-8", "surrogatepass")
    dense = dense.translate(None, _BLANKS)
    lines = array("q", map(hashed, data.split(b"\n")))
    return Detail(hashed(dense), hashed(data.translate(None, _DIGITS)), lines)


def times(segment: Segment) -> tuple[int, ...]:
    """The lines of a segment, 1-based, that hold a time or date and are short enough to have changed because of it."""
    lines = (text(segment) or "").split("\n")
    return tuple(number for number, line in enumerate(lines, 1) if len(line) <= _SHORT_LINE and _TIME.search(line))


def difference(old: Detail | None, new: Detail | None, segment: Segment) -> Difference:
    """What parts an earlier text, known by its hashes, from the present one."""
    if old is None or new is None:
        return Difference(None, None)
    if old[:3] == new[:3]:
        return Difference(Cause.EDITED, None)  # the text is equal: what differs is around it
    start, old_end, new_end = _changed(old.lines, new.lines)
    # Where one text is the beginning of the other they part at the end of its last line.
    line = max(1, min(start + 1, len(old.lines), len(new.lines)))
    if old.blanks == new.blanks:
        return Difference(Cause.WHITESPACE, line)
    one_line = old_end - start == 1 == new_end - start
    if _time_moved(new, segment, start, min(new_end, start + _MAX_LINES), old.digits == new.digits, one_line):
        return Difference(Cause.TIMESTAMP, line)
    if len(old.lines) == len(new.lines) and sorted(old.lines) == sorted(new.lines):
        return Difference(Cause.REORDERED, line)
    return Difference(Cause.EDITED, line)


def _time_moved(new: Detail, segment: Segment, start: int, end: int, only_digits: bool, one_line: bool) -> bool:  # noqa: FBT001
    """Whether the differing lines hold a time, and differ as they would if it had moved."""
    if new.times is not None:
        return (only_digits or one_line) and any(start < line <= end for line in new.times)
    written = (text(segment) or "").split("\n")[start:end]
    if only_digits or (one_line and len(written[0]) <= _SHORT_LINE):
        return any(_TIME.search(part[:_MAX_LINE]) for part in written)
    return False


def _changed(old: array[int], new: array[int]) -> tuple[int, int, int]:
    """First differing line, and the ends of the differing stretch in both."""
    limit = min(len(old), len(new))
    start = 0
    while start < limit and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < limit - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return start, len(old) - tail, len(new) - tail


def similar(old: Detail | None, new: Detail | None) -> bool:
    """Whether two texts are versions of one another: equal but for blanks or digits, or half of the lines alike."""
    if old is None or new is None:
        return False
    if old.blanks == new.blanks or old.digits == new.digits:
        return True
    longer = max(len(old.lines), len(new.lines))
    if longer < 2:
        return False
    start, old_end, _ = _changed(old.lines, new.lines)
    same = start + len(old.lines) - old_end
    return 2 * max(same, len(set(old.lines) & set(new.lines))) >= longer
