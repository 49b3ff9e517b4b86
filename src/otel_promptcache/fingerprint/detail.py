"""What is remembered of a segment's text: hashes of its lines, and loose digests that forgive one kind of difference.

Made once for each distinct segment, on the worker's thread. Equal loose and unequal exact digests tell the kind of a
change without keeping the text.
"""

from __future__ import annotations

import json
import re
import string
import struct
import unicodedata
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_promptcache.fingerprint.fields import Leaf, leaves, plain_text, written
from otel_promptcache.model import Kind, Segment
from otel_promptcache.providers._wire import unmarked
from otel_promptcache.semconv import Cause

MAX_DETAIL: Final = 4 * 2**20
"""Bytes of one segment beyond which only its beginning is looked at."""
MAX_LINES: Final = 200_000
_MAX_JSON: Final = 2**18
"""Characters of a text up to which it is tried as JSON."""

_BLANKS: Final = b" \t\r\n\v\f"
_WIDE_BLANKS: Final = (
    # No-break, fixed-width, zero-width and ideographic spaces, line and paragraph separators, byte order mark.
    "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b"
    "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
_NO_BLANKS: Final = dict.fromkeys(map(ord, _WIDE_BLANKS))
_DIGITS: Final = string.digits.encode()
_WORDS: Final = (string.ascii_letters + string.digits + "_-").encode() + bytes(range(128, 256))
_ZEROS: Final = (
    # The first of ten digits in a row: Arabic, Persian, the scripts of India, Thai, Lao, Tibetan, Burmese, Khmer, wide.
    "\u0660\u06f0\u07c0\u0966\u09e6\u0a66\u0ae6\u0b66\u0be6\u0c66\u0ce6\u0d66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810\uff10"
)
_ALL_DIGITS: Final = {ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)}
_NO_DIGITS: Final = bytes(set(range(256)) - set(_DIGITS))
_LOOK_ALIKES: Final = str.maketrans(
    # What editors and keyboards put in place of the plain sign, after compatibility normalisation.
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2022\u00b7\u2219", "*"),
        **dict.fromkeys(_WIDE_BLANKS + "\u200c\u200d\u00ad", None),
    }
)
# Looked for first: to translate a text takes ten times as long as to see that there is no need.
_FOREIGN_DIGIT: Final = re.compile("[" + "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in _ZEROS) + "]")
_WIDE_BLANK: Final = re.compile(f"[{_WIDE_BLANKS}]")
_LOOK_ALIKE: Final = re.compile("[" + "".join(re.escape(chr(code)) for code in _LOOK_ALIKES) + "]")
_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s|[。！？；]")
_LONG: Final = 600
_FEW_LINES: Final = 8
_PIECE: Final = 2**10
_MAX_COMPOSED: Final = 2**20
"""Characters that are brought into one form at a time, and altogether."""
_MAX_PIECED: Final = 2**15
"""Characters and lines between which a text is cut into sentences; one with many lines shows itself by them."""
_MEDIA: Final = frozenset({Kind.IMAGE, Kind.AUDIO, Kind.DOCUMENT})
_JSON_OPENS: Final = frozenset("{[")
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
    size: int = 0
    """Characters."""
    pieces: frozenset[int] = frozenset()
    """Of the sentences of a long text that has hardly any lines: enough to see that two texts are versions of one."""
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
        return _of_text(text, hashed)
    found, more = leaves(segment)
    if segment.kind in _MEDIA and not _is_text(segment.value):
        return _of_media(found, more, hashed)
    return _of_structure(segment.value, found, more, hashed)


def _of_text(text: str, hashed: Hashed) -> Detail:
    size, truncated = len(text), len(text) > MAX_DETAIL
    if truncated:
        text = text[:MAX_DETAIL]
    data = text.encode("utf-8", "surrogatepass")
    lines, more = _lines(data, hashed)
    endings = hashed(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data)
    loose = _loose(text, data, hashed)
    parsed = _json(text, hashed) if text[:1] in _JSON_OPENS else (0, 0, 0)
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
        size,
        _pieces(text, hashed) if size >= _LONG and len(lines) <= _FEW_LINES else frozenset(),
        truncated or more,
    )


def _pieces(text: str, hashed: Hashed) -> frozenset[int]:
    return frozenset(sentence_hash(piece, hashed) for piece in sentences(text))


def sentences(text: str) -> list[str]:
    """The sentences of a text, as far as it is cut into them."""
    return _SENTENCE.split(text[:_MAX_PIECED])


def sentence_hash(sentence: str, hashed: Hashed = hash) -> int:
    return hashed(sentence.strip().encode("utf-8", "surrogatepass"))


def _lines(data: bytes, hashed: Hashed) -> tuple[list[int], bool]:
    if data.count(b"\n") < MAX_LINES:
        return list(map(hashed, data.split(b"\n"))), False
    return list(map(hashed, data.split(b"\n", MAX_LINES)[:MAX_LINES])), True


def _loose(text: str, data: bytes, hashed: Hashed) -> tuple[int, int, int, int, int]:
    """The hashes without blanks, without digits, in one form, without words, of digits alone."""
    foreign = not data.isascii() and _FOREIGN_DIGIT.search(text)
    plain_digits = text.translate(_ALL_DIGITS).encode("utf-8", "surrogatepass") if foreign else data
    digits, words = hashed(plain_digits.translate(None, _DIGITS)), hashed(plain_digits.translate(None, _WORDS))
    figures = hashed(plain_digits.translate(None, _NO_DIGITS))
    bare = data.translate(None, _BLANKS)
    if data.isascii():
        # A plain text is its own normal form, but for the one sign that stands for another.
        blanks = hashed(bare)
        return blanks, digits, hashed(bare.replace(b"`", b"'")) if b"`" in bare else blanks, words, figures
    dense = text.translate(_NO_BLANKS) if _WIDE_BLANK.search(text) else text
    blanks = hashed(bare if dense is text else dense.encode("utf-8", "surrogatepass").translate(None, _BLANKS))
    plain = _composed(dense.translate(_LOOK_ALIKES) if _LOOK_ALIKE.search(dense) else dense)
    return blanks, digits, hashed(plain.encode("utf-8", "surrogatepass").translate(None, _BLANKS)), words, figures


def _composed(text: str) -> str:
    """A text in compatibility form, as far as that is cheap. A sign may become eighteen, and marks in a row are sorted
    at a cost that grows with their square: so it is done in pieces, and no more where the text grows by it."""
    if len(text) <= _PIECE:
        return _compatible(text)
    found: list[str] = []
    start = made = 0
    while start < len(text) and start < _MAX_COMPOSED and made <= 2 * start + _PIECE:
        end = max(text.rfind(" ", start, start + _PIECE), text.rfind("\n", start, start + _PIECE)) + 1
        piece = _compatible(text[start : end or start + _PIECE])  # no sign is composed over a blank
        found.append(piece)
        made += len(piece)
        start = end or start + _PIECE
    return "".join([*found, text[start:]])


def _compatible(text: str) -> str:
    if unicodedata.is_normalized("NFKC", text):
        return text
    return unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)


def _of_structure(value: Any, found: Sequence[Leaf], more: bool, hashed: Hashed) -> Detail:  # noqa: FBT001
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
        size,
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
    if len(text) > _MAX_JSON or text[:1] not in _JSON_OPENS or text.rstrip()[-1:] not in ("}", "]"):
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
    if type(value) is str and value[:1] in _JSON_OPENS:
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


# --- As bytes -----------------------------------------------------------------------------------------------

_LOOSE: Final = ("blanks", "digits", "endings", "folded", "words", "figures", "values", "parsed", "sorted", "slim")
_HEAD: Final = struct.Struct("<HHI")
_PIECES, _CUT = 1 << 14, 1 << 15


_OWN, _OWN_ENDINGS = 0b110011, 0b000100
"""Flags of the hashes that a plain text has of its own: blanks, digits, words, figures; endings where it has lines."""
_LINE: Final = struct.Struct("<HHIqqqqq")


def packed(segment: Segment) -> bytes:
    """The packed detail of a segment. What most are, a plain text of ASCII, is packed without making a detail of it
    first, which takes a third of the time."""
    text = segment.value
    if type(text) is not str or segment.kind is Kind.HELD:
        return pack(detail(segment))
    if not text.isascii() or text[:1] in _JSON_OPENS or len(text) > MAX_DETAIL:
        return pack(detail(segment))
    data = text.encode()
    count = data.count(b"\n")
    if b"\r" in data or b"`" in data or count >= MAX_LINES or (len(text) >= _LONG and count < _FEW_LINES):
        return pack(detail(segment))
    blanks, digits = hash(data.translate(None, _BLANKS)), hash(data.translate(None, _DIGITS))
    words, figures = hash(data.translate(None, _WORDS)), hash(data.translate(None, _NO_DIGITS))
    if not count:
        return _LINE.pack(_OWN, 0, len(text), blanks, digits, words, figures, hash(data))
    numbers = array("q", [blanks, digits, hash(data), words, figures])
    numbers.extend(map(hash, data.split(b"\n")))
    return _HEAD.pack(_OWN | _OWN_ENDINGS, 0, len(text)) + numbers.tobytes()


def pack(detail: Detail | None) -> bytes:
    """A detail in few bytes, for keeping: 8, and 8 for each hash that is not what it usually is. Hints are left out."""
    if detail is None:
        return b""
    lines = detail.lines
    usual = _usual(detail.blanks, detail.endings, lines)
    told = detail[0], detail[1], *detail[3:11]
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
    blanks, digits, endings, folded, words, figures, values, parsed_, sorted_, slim = found
    return Detail(
        blanks,
        digits,
        lines,
        endings,
        folded,
        words,
        figures,
        values,
        parsed_,
        sorted_,
        slim,
        size,
        frozenset(numbers[loose : loose + count]),
        bool(flags & _CUT),
    )


def _usual(blanks: int, endings: int, lines: array[int]) -> tuple[int, ...]:
    """What the loose hashes are of a line of plain text."""
    return 0, 0, lines[0] if len(lines) == 1 else 0, blanks, 0, 0, 0, 0, 0, endings
