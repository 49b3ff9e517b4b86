"""A prompt laid out for the cache: what stands where, and a digest for each of its prefixes.

One hash runs over the whole prompt and is read off at every place that matters, so the work grows with the
prompt's length alone. Equal digests mean equal scope and equal text up to there; markers play no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from otel_promptcache.emulator.tokens import Piece, Tokenizer, cuts, piece
from otel_promptcache.model import Prompt, Scope, Segment

DIGEST_SIZE: Final = 16

_BORDER: Final = b"\xff"


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
        for name in self._root:
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
