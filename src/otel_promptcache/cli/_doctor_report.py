"""What ``doctor`` says: findings in sections, for a person or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

_WIDEST: Final = 120
_LEVEL_WIDTH: Final = 9
_SUBJECT_WIDTH: Final = 38
_FEW: Final = 5

NAMES_OF_THEIR_OWN: Final = "leave it to the SDK, or name each process differently (docs/workers.md)"
"""Advice wherever two processes have one ``service.instance.id``."""


class Level(StrEnum):
    """How much a finding matters; only a problem makes ``doctor`` exit with 1."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One thing looked at: what, what was seen, and what to do where something is to be done."""

    level: Level
    subject: str
    text: str
    advice: str = ""


class Section(NamedTuple):
    """Findings that belong together."""

    title: str
    findings: Sequence[Finding]


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding(Level.NOTE, subject, text, advice)


def problem(subject: str, text: str, advice: str = "") -> Finding:
    """Costs telemetry, or makes it wrong."""
    return Finding(Level.PROBLEM, subject, text, advice)


def some(names: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    shown = sorted(map(str, names))
    return ", ".join(shown[:_FEW]) + (f" and {len(shown) - _FEW} more" if len(shown) > _FEW else "")


def found_problem(sections: Sequence[Section]) -> bool:
    """Whether anything is a problem."""
    return any(finding.level is Level.PROBLEM for section in sections for finding in section.findings)


def as_text(sections: Sequence[Section]) -> str:
    """For a person: aligned, one finding a line, advice indented below it."""
    width = min(_WIDEST, max(60, shutil.get_terminal_size((_WIDEST, 0)).columns))
    lines: list[str] = []
    for section in sections:
        lines += [section.title, *_lines(section.findings, width), ""]
    return "\n".join([*lines, _summary(sections)]) + "\n"


def _lines(findings: Sequence[Finding], width: int) -> Iterator[str]:
    longest = max((len(finding.subject) for finding in findings), default=0)
    column = 2 + _LEVEL_WIDTH + min(longest, _SUBJECT_WIDTH) + 2
    for finding in findings:
        head = f"  {finding.level:<{_LEVEL_WIDTH}}{finding.subject}"
        if len(head) + 2 > column:  # a subject too long for its column has a line of its own
            yield head
            head = ""
        yield from _wrapped(finding.text, head.ljust(column), column, width)
        yield from _wrapped(finding.advice, " " * column + "> ", column + 2, width)


def _wrapped(text: str, head: str, column: int, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(sections: Sequence[Section]) -> str:
    counted = Counter(finding.level for section in sections for finding in section.findings)
    said = [
        f"{counted[level]} {level}{'' if counted[level] == 1 else 's'}"
        for level in (Level.PROBLEM, Level.NOTE)
        if counted[level]
    ]
    return (", ".join(said) if said else "Everything is as it should be") + "."


def as_json(sections: Sequence[Section]) -> str:
    """For a program: ``ok``, and the sections with the findings as objects."""
    document = {
        "ok": not found_problem(sections),
        "sections": [
            {"title": section.title, "findings": [finding._asdict() for finding in section.findings]}
            for section in sections
        ],
    }
    return json.dumps(document, indent=2) + "\n"
