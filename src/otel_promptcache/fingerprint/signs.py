"""Signs that look alike or are not seen, in all scripts: what digests forgive, and what patterns need not know."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Final

WIDE_BLANKS: Final = (
    # No-break, fixed-width, zero-width and ideographic spaces, line and paragraph separators, byte order mark.
    "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b"
    "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
_ZEROS: Final = (
    # The first of ten digits in a row: Arabic, Persian, the scripts of India, Thai, Lao, Tibetan, Burmese, Khmer, wide.
    "\u0660\u06f0\u07c0\u0966\u09e6\u0a66\u0ae6\u0b66\u0be6\u0c66\u0ce6\u0d66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810\uff10"
)
_UNSEEN: Final = (
    # Soft hyphen, joiners, marks of direction, invisible operators, tags, and what chooses between forms of a sign.
    *(0x00AD, 0x034F, 0x0640, 0x061C, 0x180B, 0x180C, 0x180D, 0x180E, 0x180F, 0xFEFF),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF9, 0xFFFC),
    *range(0xE0001, 0xE01F0),
)
_ALL_DIGITS: Final = {ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)}
_LOOK_ALIKES: Final[dict[int, str | None]] = str.maketrans(
    # What editors and keyboards put in place of the plain sign, after compatibility normalisation.
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u301c\u223c\u223d", "~"),
        **dict.fromkeys("\u2022\u00b7\u2219", "*"),
        # The Arabic and the Persian letter, on one keyboard each.
        "\u06cc": "\u064a",
        "\u0649": "\u064a",
        "\u06a9": "\u0643",
        **dict.fromkeys(WIDE_BLANKS, None),
        **dict.fromkeys(_UNSEEN, None),
    }
)


def _any_of(codes: list[int]) -> re.Pattern[str]:
    """A pattern of one sign out of many, written as ranges."""
    found: list[list[int]] = []
    for code in sorted(codes):
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return re.compile("[" + "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in found) + "]")


# Looked for first: to translate a text takes ten times as long as to see that there is no need.
_FOREIGN_DIGIT: Final = _any_of(list(_ALL_DIGITS))
_WIDE_BLANK: Final = re.compile(f"[{WIDE_BLANKS}]")
_LOOK_ALIKE: Final = _any_of(list(_LOOK_ALIKES))
_NO_BLANKS: Final = dict.fromkeys(map(ord, WIDE_BLANKS))
_SPACED: Final[dict[int, str | None]] = {ord(sign): " " for sign in WIDE_BLANKS} | dict.fromkeys(_UNSEEN)
DIGITS: Final = string.digits.encode()
WORDS: Final = (string.ascii_letters + string.digits + "_-").encode() + bytes(range(128, 256))
NO_DIGITS: Final = bytes(set(range(256)) - set(DIGITS))


def plain_digits(text: str) -> str:
    """A text with ASCII digits; itself, if it has no others."""
    return text.translate(_ALL_DIGITS) if _FOREIGN_DIGIT.search(text) else text


def without_wide_blanks(text: str) -> str:
    return text.translate(_NO_BLANKS) if _WIDE_BLANK.search(text) else text


def alike(text: str) -> str:
    """With the plain sign in place of each that looks like it, and without what is not seen."""
    return text.translate(_LOOK_ALIKES) if _LOOK_ALIKE.search(text) else text


def compatible(text: str) -> str:
    """A text in one normal form."""
    return text if unicodedata.is_normalized("NFKC", text) else alike(unicodedata.normalize("NFKC", text))


def readable(text: str) -> str:
    """A line as patterns read it: wide and foreign signs are plain ones, unseen ones are gone; letters stay."""
    if text.isascii():
        return text
    return plain_digits(unicodedata.normalize("NFKC", text.translate(_SPACED)))
