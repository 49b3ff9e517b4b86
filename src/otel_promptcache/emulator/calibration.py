"""A tokenizer for recorded prompts, made from the counts that were reported for them.

The providers' tokenizers are not public, and a cache's boundaries lie at token counts. What is reported pins them:
the total of each prompt; where entries end at marks, the tokens up to the last mark, whether they were read or
written; where a common prefix is read, the granule in which two prompts part. Between the pinned places, tokens are
spread evenly over the text. Equal beginnings of two prompts get equal tokens, always.

A token is written as one character, so that a prompt whose texts are replaced by their tokens is counted with
``len`` and cut anywhere, and the emulator works on it as on any other.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

from otel_promptcache.emulator.tokens import compact
from otel_promptcache.fingerprint import common_start
from otel_promptcache.model import Kind, Prompt, Section, Segment, Segments
from otel_promptcache.providers._wire import unmarked

_BEFORE_ROLE: Final = "\x1e"
_BEFORE_TEXT: Final = "\x1f"
_ANSWERING: Final = "assistant"
_OPENING: Final = f"{_BEFORE_ROLE}{_ANSWERING}{_BEFORE_TEXT}"
_FIRST: Final = 0x10000
_ALPHABET: Final = 0x110000 - _FIRST
"""Characters to write tokens with; those of two different texts are equal once in a million."""

_NEAR: Final = 0.03
"""How far an even spread may lie from the truth, as a share of the prompt, to tell which place a count belongs to."""


class Text(NamedTuple):
    """A prompt as one text. ``ends`` are the characters up to the end of each of its segments; behind the last one
    the answer is opened, for which every provider counts a few tokens."""

    whole: str
    ends: tuple[int, ...]


class Pin(NamedTuple):
    """Tokens up to a place: at least ``least``, less than ``below``."""

    least: int
    below: int


Key = bytes
"""Digest of the beginning of a text: the name of a place, whichever prompt it is found in."""


@dataclass(slots=True)
class _Path:
    """The places of one prompt in order: characters up to each, and its name."""

    offsets: list[int]
    keys: list[Key]


def text_of(prompt: Prompt) -> Text:
    """A prompt's segments one behind the other, each after its role. Parameters are no text."""
    parts: list[str] = []
    ends = []
    length = 0
    for segment in prompt.segments:
        if segment.section is not Section.PARAMETERS:
            part = f"{_BEFORE_ROLE}{segment.role}{_BEFORE_TEXT}{_plain(segment)}"
            parts.append(part)
            length += len(part)
        ends.append(length)
    return Text("".join(parts) + _OPENING, tuple(ends))


def _plain(segment: Segment) -> str:
    value = segment.value
    if type(value) is str:
        return value
    return compact(unmarked(value) if type(value) is dict else value)


@dataclass
class Calibration:
    """Token counts for a set of prompts; pin what is known of them, then ask for their tokens."""

    texts: Sequence[Text]
    _paths: list[_Path] = field(init=False)
    _exact: dict[Key, int] = field(init=False, default_factory=dict)
    _ranges: dict[Key, Pin] = field(init=False, default_factory=dict)
    _shared: list[list[int]] = field(init=False)
    _counts: dict[Key, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        wholes = [text.whole for text in self.texts]
        self._shared = [[common_start(one, other) for other in wholes] for one in wholes]
        self._paths = [
            _path(text.whole, sorted({0, *text.ends, *shared, len(text.whole)}))
            for text, shared in zip(self.texts, self._shared, strict=True)
        ]
        self._exact[self._paths[0].keys[0] if self._paths else b""] = 0

    def pin(self, number: int, offset: int, tokens: int) -> None:
        """The first ``offset`` characters of a prompt are so many tokens. What was said first holds."""
        self._exact.setdefault(self._key(number, offset), tokens)
        self._counts = {}

    def pin_parting(self, number: int, granule: int, recomputed: int, read: int) -> None:
        """A prompt was read up to where it parts from one of the others, rounded down to a granule; of a prompt that
        is wholly known the last ``recomputed`` tokens are not read."""
        whole = len(self.texts[number].whole)
        total = self._exact.get(self._key(number, whole))
        if not total or read <= total - recomputed < read + granule:
            return
        near = [(abs(place * total / whole - read), place) for place in set(self._shared[number]) - {0, whole}]
        distance, place = min(near, default=(total, whole))
        key = self._key(number, place)
        if distance <= max(granule, _NEAR * total) and key not in self._exact:
            before = self._ranges.get(key, Pin(0, total + 1))
            pin = Pin(max(before.least, read), min(before.below, read + granule))
            if pin.least < pin.below:
                self._ranges[key] = pin
                self._counts = {}

    def shared(self, number: int, other: int) -> int:
        """Tokens that two prompts have in common at their beginnings."""
        return self._tokens()[self._key(number, self._shared[number][other])]

    def calibrated(self, number: int, prompt: Prompt) -> Prompt:
        """The prompt with each text written as its tokens. Its total is as reported, where that was pinned."""
        text, path = self.texts[number], self._paths[number]
        counts = self._tokens()
        written = _written(text.whole, path, [counts[key] for key in path.keys])
        ends = [counts[self._key(number, end)] for end in text.ends]
        segments = [
            segment if segment.section is Section.PARAMETERS else segment._replace(value=written[start:end])
            for segment, start, end in zip(prompt.segments, [0, *ends], ends, strict=False)
        ]
        if opening := written[ends[-1] :]:
            segments.append(Segment(0, Section.MESSAGES, Kind.TEXT, len(segments), -1, _ANSWERING, opening))
        return prompt._replace(segments=Segments(segments))

    def _key(self, number: int, offset: int) -> Key:
        path = self._paths[number]
        return path.keys[bisect.bisect_left(path.offsets, offset)]

    def _tokens(self) -> dict[Key, int]:
        """Tokens up to every place: pinned ones as pinned, the rest spread evenly between them, front to back.

        A place on the way of several prompts takes the least of what they say, so that each has room behind it.
        """
        if self._counts:
            return self._counts
        counts = dict(self._exact)
        places = sorted({(offset, key) for path in self._paths for offset, key in _pairs(path)})
        through: dict[Key, list[_Path]] = {}
        for path in self._paths:
            for key in path.keys:
                through.setdefault(key, []).append(path)
        for offset, key in places:
            if key not in counts:
                guesses = [_between(path, offset, counts) for path in through[key]]
                pin = self._ranges.get(key)
                guess = min(guesses)
                counts[key] = guess if pin is None else min(max(guess, pin.least), pin.below - 1)
        self._counts = counts
        return counts


def _path(whole: str, offsets: list[int]) -> _Path:
    state = blake2b(digest_size=16)
    keys = []
    for start, end in zip([0, *offsets], offsets, strict=False):
        state.update(whole[start:end].encode("utf-8", "surrogatepass"))
        keys.append(state.digest())
    return _Path(offsets, keys)


def _pairs(path: _Path) -> Iterator[tuple[int, Key]]:
    return zip(path.offsets, path.keys, strict=True)


def _between(path: _Path, offset: int, counts: dict[Key, int]) -> int:
    """Tokens up to a place by an even spread between its neighbours with a count; at least one for each place between.

    Without a count behind it, four characters are a token.
    """
    here = bisect.bisect_left(path.offsets, offset)
    start, before = path.offsets[here - 1], counts[path.keys[here - 1]]
    for steps, index in enumerate(range(here + 1, len(path.keys)), 1):
        after = counts.get(path.keys[index])
        if after is not None:
            share = (offset - start) / (path.offsets[index] - start)
            return max(before, min(max(before + 1, before + round((after - before) * share)), after - steps))
    return before + max(1, (offset - start) // 4)


def _written(whole: str, path: _Path, counts: Sequence[int]) -> str:
    """A text as its tokens."""
    written: list[str] = []
    for (start, end), (first, last) in zip(itertools.pairwise(path.offsets), itertools.pairwise(counts), strict=True):
        number = last - first
        cuts = [start + (end - start) * index // number for index in range(number + 1)] if number > 0 else []
        written += [
            _character(whole[left:right], index) for index, (left, right) in enumerate(itertools.pairwise(cuts))
        ]
    return "".join(written)


def _character(part: str, index: int) -> str:
    digest = blake2b(f"{index}\0{part}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return chr(_FIRST + int.from_bytes(digest, "big") % _ALPHABET)
