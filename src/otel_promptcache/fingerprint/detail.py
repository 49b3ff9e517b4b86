"""What is remembered of a segment's text: hashes of its lines, and loose digests that forgive one kind of difference.

Made once for each distinct segment, on the worker's thread. Equal loose and unequal exact digests tell the kind of a
change without keeping the text.
"""

from __future__ import annotations

import itertools
import json
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_promptcache.fingerprint.fields import Leaf, leaves, plain_text, written
from otel_promptcache.fingerprint.signs import (
    DIGITS,
    NO_DIGITS,
    WORDS,
    alike,
    compatible,
    plain_digits,
    without_wide_blanks,
)
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import unmarked
from otel_promptcache.semconv import Cause

MAX_DETAIL: Final = 4 * 2**20
"""Bytes of one segment beyond which only its beginning is looked at."""
MAX_LINES: Final = 200_000
_MAX_JSON: Final = 2**18
"""Characters of a text up to which it is tried as JSON."""

BLANKS: Final = b" \t\r\n\v\f"
_SENTENCE: Final = re.compile(r"(?<=[.!?;؟۔।॥])\s|[。！？；]|\n")
_CLAUSE: Final = re.compile(r"(?<=[,،])\s|[，、]")
_UNCUT: Final = 240
"""Characters of a sentence from which it is cut at commas, and from which what is left is cut at blanks: not every
script has marks."""
STATUS_LINE: Final = 200
"""Characters up to which a line is taken for a label and a value, or one sentence, and no prose."""
LONG: Final = 600
FEW_LINES: Final = 8
_MARKS_AS_BLANKS: Final = bytes.maketrans(b",;()[]{}|.!?", b" " * 12)
_WIDE_MARKS: Final = tuple(sign.encode() for sign in "、，；。：「」（），؛।")
_MAX_BAG: Final = 2**16
"""Bytes up to which the words of a text are gathered."""
_PIECE: Final = 2**10
_MAX_COMPOSED: Final = 2**20
"""Characters that are brought into one form at a time, and altogether."""
_MAX_PIECED: Final = 2**15
"""Characters and lines between which a text is cut into sentences; one with many lines shows itself by them."""
_MEDIA: Final = frozenset({Kind.IMAGE, Kind.AUDIO, Kind.DOCUMENT})
JSON_KEY: Final = b'":'
JSON_OPENS: Final = frozenset("{[")
_ECHOED: Final = frozenset({"id", "status", "annotations", "logprobs", "index"})
"""Fields of answers that come and go when an answer is sent back."""

Hashed = Callable[[bytes], int]


class Detail(NamedTuple):
    """Process-local hashes of one segment, eight bytes a line (keyed ones in a snapshot)."""

    blanks: int
    """Of the text without blanks; for pictures and files, of what stands in front of a URL's query."""
    digits: int
    """Of the text without digits: 9:59 and 10:00 are then alike."""
    lines: array[int]
    """Of each line with the field it stands in, in wire order."""
    endings: int = 0
    """Of the text with one kind of line ending; of a text in a block with more fields, the text's own."""
    folded: int = 0
    """Of the text without blanks, in one normal form, with plain quotes and dashes."""
    words: int = 0
    """Of the text without words: what is left is punctuation and blanks."""
    figures: int = 0
    """Of its digits alone: equal where letters changed, and no time, count or random token did."""
    values: int = 0
    """Of the leaves, whatever their fields and order; 0 for a text."""
    parsed: int = 0
    """Of the JSON it is, whatever its spelling; 0 where it is none."""
    sorted: int = 0
    """The same, whatever the order of keys."""
    slim: int = 0
    """The same without fields that say nothing and with one-text lists as the text."""
    bag: int = 0
    """Of the words, whatever their order; 0 where it is not made."""
    size: int = 0
    """Characters."""
    pieces: frozenset[int] = frozenset()
    """Of the sentences of a text that has hardly any lines, and of long lines: enough to see that two texts are
    versions of one, and which sentence changed."""
    truncated: bool = False
    """Whether there was more than is looked at."""
    hints: tuple[tuple[Cause, tuple[int, ...]], ...] | None = None
    """Lines by what changes in them of itself, for a text that will not be at hand; None: search the text."""


def detail(segment: Segment, hashed: Hashed = hash) -> Detail | None:
    """The loose and line hashes of a segment, None where nothing is to be compared."""
    if segment.kind is Kind.HELD:
        return None
    text = plain_text(segment)
    if text is not None:
        return _of_text(segment, text, hashed)
    found, more = leaves(segment)
    if segment.kind in _MEDIA and not _is_text(segment.value):
        return _of_media(found, more, hashed)
    return _of_structure(segment, found, more, hashed)


def _of_text(segment: Segment, text: str, hashed: Hashed) -> Detail:
    size, truncated = len(text), len(text) > MAX_DETAIL
    if truncated:
        text = text[:MAX_DETAIL]
    data = text.encode("utf-8", "surrogatepass")
    lines, more = _lines(data, hashed)
    endings = hashed(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data)
    loose = _loose(text, data, hashed)
    parsed = _json(text, hashed) if text[:1] in JSON_OPENS else (0, 0, 0)
    return Detail(
        loose[0],
        loose[1],
        array("q", lines),
        endings,
        *loose[2:],
        0,
        parsed[0],
        parsed[1],
        parsed[2] or endings,
        _bag(data, segment.section, hashed),
        size,
        _pieces(text, len(lines), segment.section, hashed),
        truncated or more,
    )


def _pieces(text: str, lines: int, section: Section, hashed: Hashed) -> frozenset[int]:
    """Of a text with hardly any lines, and of the lines of another in which more than one sentence stands."""
    long = LONG if section is Section.MESSAGES else STATUS_LINE
    if len(text) < long:
        return frozenset()
    if lines > FEW_LINES or len(text) < LONG:
        text = "\n".join(line for line in text.split("\n") if len(line) > long)
    return frozenset(sentence_hash(piece.text, hashed) for piece in sentences(text)) if text else frozenset()


class Piece(NamedTuple):
    """A sentence, a clause of a long one, or two words that follow one another in what has no marks."""

    text: str
    pair: bool = False


def sentences(text: str) -> list[Piece]:
    """The sentences of a text, as far as it is cut into them; what has no marks, into pairs of words: a word alone, a
    number above all, stands elsewhere too."""
    found: list[Piece] = []
    for sentence in _SENTENCE.split(text[:_MAX_PIECED]):
        for clause in _CLAUSE.split(sentence) if len(sentence) > _UNCUT else (sentence,):
            if len(clause) > _UNCUT:
                words = clause.split()
                found += [Piece(f"{one} {other}", pair=True) for one, other in itertools.pairwise([*words, ""])]
            else:
                found.append(Piece(clause))
    return found


def _bag(data: bytes, section: Section, hashed: Hashed) -> int:
    """Of the words of what an application wrote, whatever their order, with each key of JSON and its value as one.

    None is made of what is said in a conversation and has no JSON in it, of what is too long, and where hashes are made
    with a key: it would take longer than all others together.
    """
    if hashed is not hash or len(data) > _MAX_BAG or (section is Section.MESSAGES and JSON_KEY not in data):
        return 0
    if not data.isascii():
        for sign in _WIDE_MARKS:
            data = data.replace(sign, b" ")
    if JSON_KEY in data:
        data = data.replace(JSON_KEY + b" ", JSON_KEY)
    return sum(map(hash, data.translate(_MARKS_AS_BLANKS).split())) & 0x7FFF_FFFF_FFFF_FFFF


def sentence_hash(sentence: str, hashed: Hashed = hash) -> int:
    return hashed(sentence.strip().encode("utf-8", "surrogatepass"))


def _lines(data: bytes, hashed: Hashed) -> tuple[list[int], bool]:
    if data.count(b"\n") < MAX_LINES:
        return list(map(hashed, data.split(b"\n"))), False
    return list(map(hashed, data.split(b"\n", MAX_LINES)[:MAX_LINES])), True


def _loose(text: str, data: bytes, hashed: Hashed) -> tuple[int, int, int, int, int]:
    """The hashes without blanks, without digits, in one form, without words, of digits alone."""
    figured = data if data.isascii() else plain_digits(text).encode("utf-8", "surrogatepass")
    digits, words = hashed(figured.translate(None, DIGITS)), hashed(figured.translate(None, WORDS))
    figures = hashed(figured.translate(None, NO_DIGITS))
    bare = data.translate(None, BLANKS)
    if data.isascii():
        # A plain text is its own normal form, but for the one sign that stands for another.
        blanks = hashed(bare)
        return blanks, digits, hashed(bare.replace(b"`", b"'")) if b"`" in bare else blanks, words, figures
    dense = without_wide_blanks(text)
    blanks = hashed(bare if dense is text else dense.encode("utf-8", "surrogatepass").translate(None, BLANKS))
    plain = _composed(alike(dense))
    return blanks, digits, hashed(plain.encode("utf-8", "surrogatepass").translate(None, BLANKS)), words, figures


def _composed(text: str) -> str:
    """A text in compatibility form, as far as that is cheap. A sign may become eighteen, and marks in a row are sorted
    at a cost that grows with their square: so it is done in pieces, and no more where the text grows by it."""
    if len(text) <= _PIECE:
        return compatible(text)
    found: list[str] = []
    start = made = 0
    while start < len(text) and start < _MAX_COMPOSED and made <= 2 * start + _PIECE:
        end = max(text.rfind(" ", start, start + _PIECE), text.rfind("\n", start, start + _PIECE)) + 1
        piece = compatible(text[start : end or start + _PIECE])  # no sign is composed over a blank
        found.append(piece)
        made += len(piece)
        start = end or start + _PIECE
    return "".join([*found, text[start:]])


def _of_structure(segment: Segment, found: Sequence[Leaf], more: bool, hashed: Hashed) -> Detail:  # noqa: FBT001
    value = segment.value
    hashes: list[int] = []
    whole: list[str] = []
    values, size = 0, 0
    for field, text in found:
        if size > MAX_DETAIL or len(hashes) >= MAX_LINES:
            more = True
            break
        path = written(field) + b"\0"
        whole.append(text)
        size += len(text)
        data = text.encode("utf-8", "surrogatepass")
        hashes += [hashed(path + line) for line in data.split(b"\n")] if b"\n" in data else [hashed(path + data)]
        values = (values + hashed(data)) & 0x7FFF_FFFF_FFFF_FFFF
    laid_out = "\n".join(whole)
    data = laid_out.encode("utf-8", "surrogatepass")
    loose = _loose(laid_out, data, hashed)
    parsed = (0, 0, 0) if more else _digests(unmarked(value) if type(value) is dict else value, hashed)
    # Where nothing but a text is left, its hash is the one that the text alone has.
    return Detail(
        loose[0],
        loose[1],
        array("q", hashes),
        hashed(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data),
        *loose[2:],
        values,
        *parsed,
        _bag(data, segment.section, hashed),
        size,
        _pieces(laid_out, len(hashes), segment.section, hashed)
        if segment.kind in (Kind.TOOL, Kind.TEXT)
        else frozenset(),
        truncated=more,
    )


def _of_media(found: Sequence[Leaf], more: bool, hashed: Hashed) -> Detail:  # noqa: FBT001
    """A picture, a sound, a file: its fields; the loose hash leaves out what signs a URL."""
    texts = [(written(field) + b"\0", text) for field, text in found]
    hashes = array("q", [hashed(path + text.encode("utf-8", "surrogatepass")) for path, text in texts])
    bare = hashed(b"\0".join(path + _unsigned(text).encode("utf-8", "surrogatepass") for path, text in texts))
    return Detail(bare, bare, hashes, truncated=more)


def _unsigned(text: str) -> str:
    return text.partition("?")[0] if text.startswith(("http://", "https://")) else text


def _is_text(value: object) -> bool:
    """Whether a document is a text in a block, and no file."""
    source = value.get("source") if type(value) is dict else None
    return type(source) is dict and source.get("type") in ("text", "content")


# --- The JSON it is -----------------------------------------------------------------------------------------


def _json(text: str, hashed: Hashed) -> tuple[int, int, int]:
    value = parsed(text)
    return (0, 0, 0) if value is None else _digests(value, hashed)


def parsed(text: str) -> Any:
    """The JSON object or array that a text is, else None."""
    if len(text) > _MAX_JSON or text[:1] not in JSON_OPENS or text.rstrip()[-1:] not in ("}", "]"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _digests(value: Any, hashed: Hashed) -> tuple[int, int, int]:
    """Hashes of a JSON value: as it is, with keys sorted, and without what says nothing."""
    try:
        value = _expanded(value, 8)
        light = _slim(value, 24)
        own = hashed(light.encode("utf-8", "surrogatepass")) if type(light) is str else hashed(_dumped(light))
        return hashed(json.dumps(value).encode()), hashed(_dumped(value)), own
    except (TypeError, ValueError, RecursionError):
        return 0, 0, 0


def _dumped(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _expanded(value: Any, depth: int) -> Any:
    """With the JSON that stands in strings in place of them: arguments of calls, results of tools."""
    if type(value) is dict and depth:
        return {key: _expanded(item, depth - 1) for key, item in value.items()}
    if type(value) is list and depth:
        return [_expanded(item, depth - 1) for item in value]
    if type(value) is str and value[:1] in JSON_OPENS:
        found = parsed(value)
        return value if found is None else found
    return value


def _slim(value: Any, depth: int) -> Any:
    if type(value) is dict and depth:
        if value.get("type") in _TEXT_TYPES and type(value.get("text")) is str and not _says_more(value):
            return value["text"]
        kept = {key: _slim(item, depth - 1) for key, item in value.items() if key not in _ECHOED}
        return {key: item for key, item in kept.items() if not _empty(item)}
    if type(value) is list and depth:
        items = [_slim(item, depth - 1) for item in value]
        return items[0] if len(items) == 1 and type(items[0]) is str else items
    return int(value) if type(value) is float and value.is_integer() else value


_TEXT_TYPES: Final = frozenset({"text", "input_text", "output_text"})


def _empty(item: Any) -> bool:
    """Whether a field that holds this says what the field left out says."""
    return item is None or item is False or item in ("", [], {})


def _says_more(block: Mapping[str, Any]) -> bool:
    return any(key not in ("type", "text", *_ECHOED) and not _empty(item) for key, item in block.items())
