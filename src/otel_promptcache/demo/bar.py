"""A prompt as a bar, to scale: what was read from cache, what was paid again, what is new, and where it broke."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from otel_promptcache.demo.promptmap import PromptMap
from otel_promptcache.demo.terminal import Terminal


class Call(Protocol):
    """What the bar needs of a call: tokens, and the place of the first difference."""

    @property
    def input(self) -> int: ...
    @property
    def read(self) -> int: ...
    @property
    def expected(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def line(self) -> int | None: ...


_NEAR: Final = 0.05
"""Share of a prompt by which the end of a segment in bytes may miss what was read in tokens."""


def bar(call: Call, prompt: PromptMap, width: int, terminal: Terminal) -> list[str]:
    """Three lines: the place of the first difference, the bar, the names of the sections."""
    column = _scale(call, prompt, width)
    return [
        _mark(call, column(prompt.shared_size), width, terminal),
        _zones(call, width, terminal),
        terminal.paint(_names(prompt, column, width, terminal.glyphs.begin), "dim"),
    ]


def _scale(call: Call, prompt: PromptMap, width: int) -> Callable[[int], int]:
    """Bytes to columns. The map knows bytes and the bar shows tokens, which agree at the ends of the prompt, and at
    the segment up to which the provider read.
    """
    read = call.read / max(1, call.input)
    known, size = 0, max(1, prompt.size)
    for end in prompt.ends():
        if abs(end / size - read) < min(_NEAR, abs(known / size - read)):
            known = end
    share = read if known else 0.0

    def column(place: int) -> int:
        if place <= known:
            at = share * place / max(1, known)
        else:
            at = share + (1 - share) * (place - known) / max(1, size - known)
        return min(round(at * width), width - 1)

    return column


def legend(terminal: Terminal) -> str:
    """What the bar is made of, in one line."""
    glyphs, paint = terminal.glyphs, terminal.paint
    return "   ".join(
        (
            f"{paint(glyphs.read, 'green')} read from cache",
            f"{paint(glyphs.paid, 'red')} paid again",
            f"{paint(glyphs.new, 'dim')} new",
            f"{paint(glyphs.mark, 'yellow')} first difference",
        )
    )


def _cells(part: float, whole: float, width: int) -> int:
    """Cells that a part takes, at least one where there is any of it."""
    return max(round(part / whole * width), 1) if part and whole else 0


def _zones(call: Call, width: int, terminal: Terminal) -> str:
    glyphs, paint = terminal.glyphs, terminal.paint
    expected = max(call.read, min(call.expected, call.input))
    read = _cells(call.read, call.input, width)
    new = min(_cells(call.input - expected, call.input, width), width - read)
    paid = width - read - new
    return paint(glyphs.read * read, "green") + paint(glyphs.paid * paid, "red") + paint(glyphs.new * new, "dim")


def _mark(call: Call, place: int, width: int, terminal: Terminal) -> str:
    """The mark above the first cell that differs, with the place named on the side where there is room."""
    said = located(call)
    mark = terminal.paint(terminal.glyphs.mark, "yellow")
    if place + 2 + len(said) <= width:
        return f"{' ' * place}{mark} {said}"
    return f"{said} ".rjust(place) + mark


def located(call: Call) -> str:
    """Path and line of the first difference."""
    return call.path if call.line is None else f"{call.path}, line {call.line}"


def _names(prompt: PromptMap, column: Callable[[int], int], width: int, tick: str) -> str:
    """Each section's name behind a tick where the section begins; in front of it where there is no room behind."""
    starts = []
    passed = 0
    for name, size in prompt.sections():
        starts.append((column(passed), name))
        passed += size
    line, limit = " " * width, width
    for start, name in reversed(starts):
        behind = start + 1 + len(name) <= limit
        at, said = (start, f"{tick}{name}") if behind else (max(0, start - len(name)), f"{name}{tick}")
        line = line[:at] + said + line[at + len(said) :]
        limit = at - 1
    return line.rstrip()
