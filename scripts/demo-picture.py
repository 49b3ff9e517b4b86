#!/usr/bin/env python3
"""Draw the demo's real output as docs/images/demo.svg, from the colours it has on a terminal.

Run with the project's interpreter: .venv/bin/python scripts/demo-picture.py [--text FILE]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.svg"
COLUMNS = 98

LAST = r"\n.*3  Your own application"  # from here on the README speaks for itself
CELL = 8.4  # width of a character in pixels, at the font size below
LINE = 18.5
FONT_SIZE = 14
MARGIN = 18.0
BAR = 38.0  # height of the window's title bar

GROUND, BORDER, TEXT = "#12161c", "#2b333d", "#d5dbe3"
COLOURS = {"31": "#f2777a", "32": "#6cc77b", "33": "#e8c062", "34": "#79b0f2", "36": "#63c5cf"}
DIM = "#8490a0"
BLOCKS = {"█": 1.0, "▓": 0.85, "░": 0.3}
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


class Piece(NamedTuple):
    """Characters of one style, from a column on."""

    column: int
    text: str
    colour: str
    bold: bool


def pieces(line: str) -> Iterator[Piece]:
    """A line with escape codes, as pieces."""
    codes: set[str] = set()
    column = 0
    for part in re.split(r"(\x1b\[[\d;]*m)", line):
        if part.startswith("\x1b["):
            new = set(part[2:-1].split(";"))
            codes = set() if new <= {"0", ""} else codes | new
        elif part:
            colour = next((COLOURS[code] for code in codes if code in COLOURS), DIM if "2" in codes else TEXT)
            yield Piece(column, part, colour, "1" in codes)
            column += len(part)


def drawn(line: str, top: float) -> Iterator[str]:
    """One line of output: runs of blocks as rectangles, which have no gaps in any font, the rest as text."""
    for piece in pieces(line):
        for match in re.finditer(r"([█▓░])\1*|[^█▓░\s]+(?: [^█▓░\s]+)*", piece.text):
            left = MARGIN + (piece.column + match.start()) * CELL
            width = len(match[0]) * CELL
            if match[0][0] in BLOCKS:
                yield (
                    f'<rect x="{left:.1f}" y="{top + 3:.1f}" width="{width:.1f}" height="{LINE - 6:.1f}" '
                    f'fill="{piece.colour}" fill-opacity="{BLOCKS[match[0][0]]}"/>'
                )
            else:
                bold = ' font-weight="600"' if piece.bold else ""
                yield (
                    f'<text x="{left:.1f}" y="{top + LINE - 5:.1f}" fill="{piece.colour}"{bold} '
                    f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs">{escape(match[0])}</text>'
                )


def picture(output: str) -> str:
    """The output as an SVG of a terminal window."""
    lines = re.split(LAST, output, maxsplit=1)[0].strip("\n").splitlines()
    width = COLUMNS * CELL + 2 * MARGIN
    height = BAR + len(lines) * LINE + MARGIN
    dots = "".join(f'<circle cx="{20 + 18 * n}" cy="{BAR / 2}" r="5.5" fill="{BORDER}"/>' for n in range(3))
    body = "\n".join(part for number, line in enumerate(lines) for part in drawn(line, BAR + number * LINE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONTS}" font-size="{FONT_SIZE}" '
        'xml:space="preserve" role="img" aria-label="Output of otel-promptcache demo">\n'
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="9" '
        f'fill="{GROUND}" stroke="{BORDER}"/>\n'
        f'{dots}<text x="{width / 2:.0f}" y="{BAR / 2 + 5}" fill="{DIM}" text-anchor="middle">make demo</text>\n'
        f"{body}\n</svg>\n"
    )


def output() -> str:
    """What the demo prints on a terminal with colours."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "otel_promptcache", "demo"], env=environment, capture_output=True, check=True
    )
    return done.stdout.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", help="a file of output that was kept, in place of a run")
    options = parser.parse_args()
    shown = Path(options.text).read_text(encoding="utf-8") if options.text else output()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(picture(shown), encoding="utf-8")


if __name__ == "__main__":
    main()
