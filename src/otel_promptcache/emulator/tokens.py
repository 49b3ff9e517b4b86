"""A declared tokenizer, so that every count an emulator reports can be worked out by hand.

Tokens of a prompt are the sum over its segments. A segment's text (a structure's compact JSON, cache markers
left out) is counted by the tokenizer, by default one token for four UTF-8 bytes begun, and is at least 1.
An image is ``IMAGE_TOKENS`` whatever its size, also inside a tool result. Request parameters are 0: they cut a
prefix, but are no text.

Real tokenizers differ; prices, minimum lengths and cache boundaries work on these counts all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import unmarked

Tokenizer = Callable[[str], int]
"""Tokens of a text. Must depend on the text alone, and must not fall when the text grows at its end."""

BYTES_PER_TOKEN: Final = 4
IMAGE_TOKENS: Final = 1200
SPAN: Final = 4096
"""Characters of a text that are looked at together when it is cut."""

_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
_NESTING: Final = ("content", "output")


class Piece(NamedTuple):
    """One segment as the emulator counts and compares it."""

    text: str
    tokens: int
    divisible: bool
    """False where no prefix can end inside: pictures, and structures that hold some."""


def quarter_bytes(text: str) -> int:
    """The default tokenizer: UTF-8 bytes / 4, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def characters(text: str) -> int:
    """One token a character: every place in a text is a boundary."""
    return len(text)


def words(text: str) -> int:
    """One token a word, with the blanks behind it."""
    return len(text.split())


def piece(segment: Segment, tokenizer: Tokenizer) -> Piece:
    """The text of a segment and its tokens."""
    value = segment.value
    if segment.section is Section.PARAMETERS:
        return Piece(compact(value), 0, False)
    if type(value) is str:
        return Piece(value, max(1, tokenizer(value)), True)
    if type(value) is dict:
        value = unmarked(value)
    text = compact(value)
    if segment.kind is Kind.IMAGE:
        return Piece(text, IMAGE_TOKENS, False)
    plain, images = _without_images(value)
    if images:
        return Piece(text, max(1, tokenizer(compact(plain))) + images * IMAGE_TOKENS, False)
    return Piece(text, max(1, tokenizer(text)), True)


def compact(value: object) -> str:
    """JSON without blanks, keys in the order they came in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _without_images(value: object) -> tuple[object, int]:
    """A structure less the pictures in its content, and how many there were."""
    if not isinstance(value, Mapping):
        return value, 0
    images = 0
    plain: dict[str, Any] = dict(value)
    for field in _NESTING:
        parts = value.get(field)
        if isinstance(parts, list):
            plain[field] = [part for part in parts if not (isinstance(part, Mapping) and part.get("type") in _IMAGES)]
            images += len(parts) - len(plain[field])
    return plain, images


def cut(tokenizer: Tokenizer, text: str, tokens: int) -> int:
    """Characters of the longest beginning of ``text`` that has at most ``tokens`` tokens."""
    return next(cuts(tokenizer, text, (tokens,)))


def cuts(tokenizer: Tokenizer, text: str, tokens: Iterable[int]) -> Iterator[int]:
    """``cut`` for rising numbers of tokens, in time that grows with the text and no faster.

    Long texts are counted a span at a time. Two texts that begin alike are cut alike as far as they do, which is
    what makes common prefixes comparable.
    """
    start = before = 0  # characters and tokens in front of the span
    span = text[:SPAN]
    size = tokenizer(span)
    for wanted in tokens:
        while before + size < wanted and start + SPAN < len(text):
            before += size
            start += SPAN
            span = text[start : start + SPAN]
            size = tokenizer(span)
        yield start + _cut_span(tokenizer, span, size, wanted - before)


def _cut_span(tokenizer: Tokenizer, span: str, size: int, tokens: int) -> int:
    """Searched in widening steps from where the place would be if all characters had as many tokens."""
    if tokens >= size:
        return len(span)
    low, high = 0, len(span)  # low fits, high does not
    place = -(-tokens * len(span) // size)
    step = 1
    while low < place < high:
        if tokenizer(span[:place]) <= tokens:
            low, place = place, place + step
        else:
            high, place = place, place - step
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if tokenizer(span[:middle]) <= tokens:
            low = middle
        else:
            high = middle
    return low
