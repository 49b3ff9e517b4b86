"""A prompt laid out for the cache: what stands where, where prefixes may end, and a digest for each of them.

One hash runs over the whole prompt and is read off at every place that matters, so the work grows with the
prompt's length alone. Equal digests mean equal scope and equal text up to there; markers play no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

from otel_promptcache.emulator.tokens import Piece, Tokenizer, cuts, piece
from otel_promptcache.model import Breakpoint, Kind, Prompt, Scope, Section, Segment
from otel_promptcache.providers.rules import Rules

DIGEST_SIZE: Final = 16

_BORDER: Final = b"\xff"

_RUNS: Final = frozenset({Kind.TOOL_USE, Kind.TOOL_RESULT})
_NO_POSITION: Final = frozenset({Section.PARAMETERS, Section.HELD})


class Layout:
    """The pieces of a prompt, and ``ends``: the tokens of its first n segments, for n from 0 on."""

    __slots__ = ("_root", "_segments", "_tokenizer", "ends", "pieces")

    def __init__(self, prompt: Prompt, scope: Scope, tokenizer: Tokenizer) -> None:
        self._root = scope
        self._segments = prompt.segments
        self._tokenizer = tokenizer
        self.pieces = [piece(segment, tokenizer) for segment in prompt.segments]
        self.ends = list(itertools.accumulate((one.tokens for one in self.pieces), initial=0))

    @property
    def total(self) -> int:
        """Tokens of the prompt."""
        return self.ends[-1]

    def prefixes(self) -> list[bytes]:
        """Digests of the first n segments, for n from 0 on."""
        state = self._start()
        digests = [state.digest()]
        for segment, one in zip(self._segments, self.pieces, strict=True):
            _open(state, segment)
            state.update(_encoded(one.text))
            digests.append(state.digest())
        return digests

    def granules(self, size: int) -> list[bytes]:
        """Digests of the first ``size``, 2 x ``size``, ... tokens; boundaries may lie within a segment."""
        state = self._start()
        digests: list[bytes] = []
        wanted = size  # tokens to the next boundary
        for segment, one in zip(self._segments, self.pieces, strict=True):
            _open(state, segment)
            for part, tokens in _parts(one, wanted, size, self._tokenizer):
                state.update(_encoded(part))
                wanted -= tokens
                if not wanted:
                    digests.append(state.digest())
                    wanted = size
        return digests

    def _start(self) -> blake2b:
        state = blake2b(digest_size=DIGEST_SIZE)
        for name in (self._root.provider, self._root.credential, self._root.model, self._root.cache_key):
            state.update(_encoded(name) + _BORDER)
        return state


def _open(state: blake2b, segment: Segment) -> None:
    """Sets a segment off from the one before by a byte that no UTF-8 text contains."""
    state.update(_BORDER + _encoded(segment.role) + _BORDER)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _parts(one: Piece, first: int, size: int, tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """A piece cut at token boundaries: after ``first`` tokens, then after every ``size``; (text, tokens) of each."""
    boundaries = range(first, one.tokens + 1, size)
    places = cuts(tokenizer, one.text, boundaries) if one.divisible else itertools.repeat(len(one.text))
    start = done = 0
    for boundary, end in zip(boundaries, places, strict=False):
        yield one.text[start:end], boundary - done
        start, done = end, boundary
    yield one.text[start:], one.tokens - done


# --- Where prefixes may end ---------------------------------------------------------------------------------


def searched(prompt: Prompt, rules: Rules) -> set[int]:
    """Lengths, in leading segments, at which the provider looks for an entry of an earlier request."""
    if rules.implicit_mark:
        return _searched_ends(prompt, rules)
    return {length for place in prompt.breakpoints for length in _window(prompt.segments, place.length, rules.lookback)}


def _window(segments: Sequence[Segment], start: int, lookback: int) -> Iterator[int]:
    """Lengths from a breakpoint backwards, at most ``lookback`` positions, the breakpoint itself the first.

    A position is a block; a run of tool calls, and a run of their results, is one. Parameters are no blocks.
    """
    position = 0
    earlier: Kind | None = None
    for length in range(start, 0, -1):
        segment = segments[length - 1]
        if segment.section in _NO_POSITION:
            continue
        if segment.kind is not earlier or segment.kind not in _RUNS:
            position += 1
            if lookback and position > lookback:
                return
        earlier = segment.kind
        yield length


def _searched_ends(prompt: Prompt, rules: Rules) -> set[int]:
    """The lookups of GPT-5.6 and later: every explicit mark; unless the request is explicit only, also the newest
    eligible message ends and the end of the instructions in front.

    developers.openai.com/api/docs/guides/prompt-caching, 2026-09-23. The guide considers the first 2 and the
    latest 50 explicit marks, the API reference the latest 80; below either limit there is no difference.
    """
    lengths = {place.length for place in prompt.breakpoints}
    if prompt.automatic:
        lengths.update(eligible_ends(prompt.segments)[-rules.lookback :])
        lengths.add(_instructions_end(prompt.segments))
    return lengths - {0}


def eligible_ends(segments: Sequence[Segment]) -> list[int]:
    """Lengths at which a message ends that an implicit breakpoint may follow: a user message, or the last of a run
    of tool results.
    """
    ends = []
    for length, segment in enumerate(segments, 1):
        if segment.section is not Section.MESSAGES:
            continue
        following = segments[length] if length < len(segments) else None
        if following is not None and following.element == segment.element:
            continue
        speaker = _speaker(segment)
        if speaker == "user" or (speaker == "tool" and (following is None or _speaker(following) != "tool")):
            ends.append(length)
    return ends


def _speaker(segment: Segment) -> str:
    """Who said it, in one word for all the names that tool results have."""
    role = segment.role.partition("\0")[0]
    return "tool" if role in ("tool", "function") or role.endswith("_output") else role


def _instructions_end(segments: Sequence[Segment]) -> int:
    return max((length for length, segment in enumerate(segments, 1) if segment.section is Section.SYSTEM), default=0)


def written(prompt: Prompt, rules: Rules, ends: Sequence[int]) -> tuple[Breakpoint, ...]:
    """The breakpoints at which this request stores entries, shortest prefix first.

    Prefixes below the minimum are passed over without an error. Of more explicit marks than the provider writes,
    the latest count, after the implicit one (types of openai 3.54, ``PromptCacheOptions.mode``).
    """
    places = sorted(place for place in prompt.breakpoints if ends[place.length] >= rules.minimum)
    implicit = [place for place in places if not place.explicit]
    explicit = [place for place in places if place.explicit]
    if rules.max_breakpoints:
        explicit = explicit[-(rules.max_breakpoints - len(implicit)) :]
    return tuple(sorted(implicit + explicit))
