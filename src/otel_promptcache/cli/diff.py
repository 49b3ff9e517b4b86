"""``otel-promptcache diff``: where two request bodies part, and what kind of change it is."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from typing import Final

from otel_promptcache.analysis import comparison, exchanges, redaction
from otel_promptcache.analysis.comparison import Comparison, Difference
from otel_promptcache.analysis.findings import Shown
from otel_promptcache.cli import _offline
from otel_promptcache.demo.terminal import Terminal, terminal
from otel_promptcache.semconv import CAUSE_INFO, CAUSE_MEANING, REASON_INFO

_INDENT: Final = "  "
_KEY: Final = 6
_MOST: Final = 20
"""Further differences that are listed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="A.json", help="the earlier request body, bare or in a log line; plain or .gz")
    parser.add_argument("new", metavar="B.json", help="the later one, which should begin as the earlier one did")
    parser.add_argument("--dialect", choices=comparison.DIALECTS, help="where the bodies do not show it")
    _offline.privacy_argument(parser)


def run(options: argparse.Namespace) -> int:
    """0 when the later one continues the earlier one, 1 when they part, 2 when they cannot be read."""
    return _offline.complaining("diff", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    found = comparison.compare(exchanges.body_of(options.old), exchanges.body_of(options.new), options.dialect or "")
    shown, screen = _offline.shown(options), terminal(sys.stdout)
    for line in _lines(found, shown, screen):
        _offline.say(line)
    return 1 if found.differences else 0


def _lines(found: Comparison, shown: Shown, screen: Terminal) -> Iterator[str]:
    yield ""
    share = f"{found.shared:,} of {found.segments:,} segments, {found.shared_share:.0%} of the later prompt's bytes"
    if not found.differences:
        yield f"{_INDENT}The later request continues the earlier one: {share} are the same, the rest is new."
        return
    yield f"{_INDENT}The same up to the first difference: {share}."
    first, *rest = found.differences
    yield ""
    title = first.reason.value if first.cause is None else f"{first.reason.value}: {first.cause.value}"
    yield _INDENT + screen.paint(title, "bold")
    yield from _explained(first, shown, screen)
    if rest:
        yield ""
        yield _INDENT + screen.paint("Further on, which would break it next:", "dim")
        for one in rest[:_MOST]:
            cause = f": {one.cause.value}" if one.cause is not None else ""
            yield f"{_INDENT * 2}{comparison.where(one, shown)}  {screen.paint(one.reason.value + cause, 'dim')}"
        if len(rest) > _MOST:
            yield f"{_INDENT * 2}and {len(rest) - _MOST:,} more"


def _fix(one: Difference) -> str:
    return REASON_INFO[one.reason].fix if one.cause is None else CAUSE_INFO[one.cause].fix


def _explained(one: Difference, shown: Shown, screen: Terminal) -> Iterator[str]:
    width = screen.width - len(_INDENT) * 2 - _KEY
    text = redaction.snippet(one.place, one.cause, shown.privacy)
    why = [REASON_INFO[one.reason].meaning, *([CAUSE_MEANING[one.cause]] if one.cause is not None else [])]
    parts = (
        ("why", [line for sentence in why for line in textwrap.wrap(sentence, width)]),
        ("at", [comparison.where(one, shown)]),
        ("text", [f"was {text.old}", f"now {text.new}"] if text is not None else []),
        ("fix", textwrap.wrap(_fix(one), width)),
    )
    for key, lines in parts:
        for number, line in enumerate(lines):
            yield f"{_INDENT * 2}{screen.paint(('' if number else key).ljust(_KEY), 'cyan')}{line}"
