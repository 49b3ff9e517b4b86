"""Prompt maps put together again: from packed deltas to what each prompt consists of and where it parts."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from otel_promptcache import semconv
from otel_promptcache.model import Section

_DIGEST: Final = 6
_LENGTH: Final = 3
_PACKED: Final = _DIGEST + _LENGTH + 2
"""Bytes a segment takes: digest, length, section and kind, breakpoint."""


class Event(Protocol):
    """What is needed of a log record: from a receiver, or from a file."""

    @property
    def name(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


class Piece(NamedTuple):
    """One segment of a prompt as its map has it: no text, only how long and what it is."""

    section: Section
    size: int
    """Bytes."""
    digest: bytes


class PromptMap(NamedTuple):
    """A whole prompt, and how much of its beginning was known from an earlier one."""

    pieces: tuple[Piece, ...]
    shared: int
    """Leading pieces that an earlier prompt began with too."""

    @property
    def size(self) -> int:
        return sum(_text(self.pieces))

    @property
    def shared_size(self) -> int:
        return sum(_text(self.pieces[: self.shared]))

    def ends(self) -> Iterator[int]:
        """Bytes up to the end of each piece."""
        return itertools.accumulate(_text(self.pieces))

    def sections(self) -> list[tuple[str, int]]:
        """(name, bytes) of each part, in order."""
        sizes: dict[str, int] = {}
        for piece, size in zip(self.pieces, _text(self.pieces), strict=True):
            if size:
                name = piece.section.name.lower()
                sizes[name] = sizes.get(name, 0) + size
        return list(sizes.items())


def _text(pieces: Iterable[Piece]) -> list[int]:
    """Bytes of text; parameters cut a prefix, but are none."""
    return [0 if piece.section is Section.PARAMETERS else piece.size for piece in pieces]


_NOTHING: Final = PromptMap((), 0)


def maps(events: Iterable[Event]) -> dict[str, PromptMap]:
    """Every prompt by call id. A map is a delta to a prompt that its chain digest names; a base that did not arrive
    leaves out all that stands on it.
    """
    by_chain: dict[str, PromptMap] = {}
    found: dict[str, PromptMap] = {}
    records = [event for event in events if event.name == semconv.EVENT_PROMPT]
    for record in sorted(records, key=lambda record: record.at):
        fields = record.attributes
        taken = int(fields.get(semconv.MAP_SHARED, 0))
        base = by_chain.get(str(fields.get(semconv.MAP_BASE, "")), _NOTHING)
        if taken > len(base.pieces):
            continue
        pieces = (*base.pieces[:taken], *_unpacked(str(fields[semconv.MAP_SEGMENTS])))
        # What is taken over ends where a breakpoint has moved, too; the text may be the same further on.
        whole = PromptMap(pieces, _same(base.pieces, pieces))
        by_chain[str(fields.get(semconv.PREFIX_CHAIN, ""))] = whole
        found[str(fields[semconv.CALL_ID])] = whole
    return found


def _same(before: Sequence[Piece], after: Sequence[Piece]) -> int:
    """How many pieces two prompts begin with alike."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((index for index, (old, new) in pairs if old != new), min(len(before), len(after)))


def _unpacked(text: str) -> list[Piece]:
    packed = base64.b64decode(text)
    pieces = []
    for start in range(0, len(packed), _PACKED):
        length = start + _DIGEST
        size = int.from_bytes(packed[length : length + _LENGTH], "big")
        pieces.append(Piece(Section(packed[length + _LENGTH] >> 4), size, packed[start:length]))
    return pieces
