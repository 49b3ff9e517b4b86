"""What the terminal can do: how wide it is, which characters it prints, whether it has colours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Final, NamedTuple, TextIO

NARROWEST: Final = 80
WIDEST: Final = 104

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class Glyphs(NamedTuple):
    """The characters beyond letters."""

    read: str
    paid: str
    new: str
    mark: str
    begin: str
    arrow: str
    rule: str


_BLOCKS: Final = Glyphs("█", "▓", "░", "▼", "╵", "→", "─")
_PLAIN: Final = Glyphs("#", "x", ".", "v", "|", "->", "-")


class Terminal(NamedTuple):
    """Where the demo is shown."""

    width: int
    colours: bool
    glyphs: Glyphs

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles, where there are colours."""
        if not self.colours or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def terminal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Terminal:
    """What ``stream`` can show. ``NO_COLOR`` and ``FORCE_COLOR`` overrule what it seems to be."""
    if environment.get("NO_COLOR"):
        colours = False
    else:
        colours = environment.get("FORCE_COLOR", "0") not in ("", "0") or (
            stream.isatty() and environment.get("TERM") != "dumb"
        )
    columns = shutil.get_terminal_size((WIDEST, 0)).columns
    return Terminal(min(max(columns, NARROWEST), WIDEST), colours, _glyphs(stream.encoding or "ascii"))


def _glyphs(encoding: str) -> Glyphs:
    try:
        "".join(_BLOCKS).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _PLAIN
    return _BLOCKS
