"""``otel-promptcache explain``: a reason, a cause, or one call of a ledger: how we know, how to fix it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_promptcache import semconv
from otel_promptcache.analysis import explanations, ledger
from otel_promptcache.cli import _offline
from otel_promptcache.cli._diagnose_screen import Drawn
from otel_promptcache.cli._files import newer, opened
from otel_promptcache.demo.bar import bar, legend
from otel_promptcache.demo.promptmap import PromptMap, maps
from otel_promptcache.demo.terminal import Terminal, terminal
from otel_promptcache.diagnosis import words
from otel_promptcache.semconv import CAUSE_INFO, CAUSE_MEANING, REASON_INFO, Cause, Reason

_INDENT: Final = "  "
_FACTS: Final = (
    # What is told of a call, in this order, as far as its record has it.
    ("model", semconv.REQUEST_MODEL), ("route", semconv.ROUTE), ("conversation", semconv.CONVERSATION_ID),
    ("status", semconv.STATUS), ("reason", semconv.REASON), ("cause", semconv.CAUSE), ("place", semconv.PATH),
    ("line", semconv.LINE), ("input tokens", semconv.INPUT_TOKENS), ("expected", semconv.EXPECTED_TOKENS),
    ("read", semconv.CACHE_READ_TOKENS), ("written", semconv.CACHE_WRITE_TOKENS), ("lost tokens", semconv.LOST_TOKENS),
    ("lost USD", semconv.LOST_USD), ("confidence", semconv.CONFIDENCE), ("also", semconv.ALSO),
    ("response", semconv.RESPONSE_ID),
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", help="a reason, a cause, a trace id or a response id; nothing lists reasons and causes"
    )
    parser.add_argument(
        "--ledger", metavar="FILE", help="ledger of production: OTLP JSON lines, plain or .gz; needed for ids"
    )


def run(options: argparse.Namespace) -> int:
    """0 when there was something to explain, 2 when not."""
    return _offline.complaining("explain", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    screen = terminal(sys.stdout)
    what: str = options.what or ""
    if not what:
        _print(_index(screen))
    elif what in set(Reason):
        _print(_entry(Reason(what), screen))
    elif what in set(Cause):
        _print(_entry(Cause(what), screen))
    elif options.ledger:
        return _calls(what, options.ledger, screen)
    else:
        print(
            f"otel-promptcache explain: {what!r} is no reason and no cause. For a trace id or a response id name the "
            "ledger with --ledger FILE; without an argument all reasons and causes are listed",
            file=sys.stderr,
        )
        return 2
    return 0


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        _offline.say(line)


def _index(screen: Terminal) -> Iterator[str]:
    width = max(map(len, (*Reason, *Cause)))
    for title, rows in (
        ("Reasons: which part of the prefix rule was broken", {one: info.meaning for one, info in REASON_INFO.items()}),
        ("Causes: what kind of change did it", CAUSE_MEANING),
    ):
        yield ""
        yield _INDENT + screen.paint(title, "bold")
        for name, meaning in rows.items():
            yield f"{_INDENT}{screen.paint(name.ljust(width), 'cyan')}  {meaning}"


def _entry(what: Reason | Cause, screen: Terminal) -> Iterator[str]:
    told = explanations.of(what)
    yield ""
    yield _INDENT + screen.paint(what.value, "bold")
    actor = REASON_INFO[what].actor if isinstance(what, Reason) else ""
    rows = (
        ("what happened", told.happened),
        ("how we know", told.known),
        ("who can act", actor),
        ("what to do", REASON_INFO[what].fix if isinstance(what, Reason) else CAUSE_INFO[what].fix),
    )
    for name, text in rows:
        if text:
            yield ""
            yield _INDENT + screen.paint(name, "cyan")
            yield from _wrapped(text, screen)
    for name, code, style in (("before", told.before, "red"), ("after", told.after, "green")):
        if code:
            yield ""
            yield _INDENT + screen.paint(name, "cyan")
            yield from (f"{_INDENT * 2}{screen.paint(line, style)}" for line in code.splitlines())
    yield ""
    yield _INDENT + screen.paint("how to verify", "cyan")
    yield from _wrapped(told.verify, screen)
    yield ""


def _wrapped(text: str, screen: Terminal) -> list[str]:
    indent = _INDENT * 2
    return textwrap.wrap(text, screen.width, initial_indent=indent, subsequent_indent=indent)


# --- One call of a ledger -----------------------------------------------------------------------------------


def _calls(identity: str, name: str, screen: Terminal) -> int:
    with opened([name]) as lines:
        reading = ledger.Reading()
        events = list(ledger.events(lines, reading, semconv.EVENT_CALL, semconv.EVENT_PROMPT))
    named = ledger.named(events, identity)
    found = [
        {**one.attributes, semconv.REASON: Reason.KEY_MISMATCH.value}
        if ledger.unknown_for_its_key(one, ledger.before(events, one))
        else one.attributes
        for one in named
    ]
    if not found:
        print(
            f"otel-promptcache explain: no call with trace or response id {identity!r} in {name}{newer(reading)}. "
            "The ledger is written with OTEL_PROMPTCACHE_LEDGER=true",
            file=sys.stderr,
        )
        return 2
    drawn = maps(events)
    for record in found:
        _print(_call(record, screen))
        _print(_map(record, drawn.get(str(record.get(semconv.CALL_ID))), screen))
    for reason in dict.fromkeys(record.get(semconv.REASON) for record in found):
        if reason in set(Reason):
            _print(_entry(Reason(reason), screen))
    for cause in dict.fromkeys(record.get(semconv.CAUSE) for record in found):
        if cause in set(Cause):
            _print(_entry(Cause(cause), screen))
    return 0


def _map(record: Mapping[str, Any], prompt: PromptMap | None, screen: Terminal) -> Iterator[str]:
    """The prompt to scale, where its map is in the file too (``OTEL_PROMPTCACHE_PROMPT_MAP=true``)."""
    sent, read = record.get(semconv.INPUT_TOKENS), record.get(semconv.CACHE_READ_TOKENS)
    if prompt is None or not prompt.size or not sent or read is None:
        return
    path = str(record.get(semconv.PATH, ""))
    known = Drawn(sent, read, record.get(semconv.EXPECTED_TOKENS) or 0, path, record.get(semconv.LINE))
    drawing = bar(known, prompt, screen.width - len(_INDENT) * 2, screen)
    yield ""
    yield from (f"{_INDENT}{line}" for line in (drawing if path else drawing[1:]))
    yield f"{_INDENT}{legend(screen)}"


def _call(record: Mapping[str, Any], screen: Terminal) -> Iterator[str]:
    known = [(name, record[field]) for name, field in _FACTS if record.get(field) not in (None, "")]
    width = max((len(name) for name, _ in known), default=0)
    yield ""
    for name, value in known:
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        yield f"{_INDENT}{screen.paint(name.ljust(width), 'cyan')}  {shown}"
    verdict = ledger.verdict(record)
    if verdict is not None and verdict.reason is not None:
        yield ""
        yield from _wrapped(words.explanation(verdict, str(record.get(semconv.PATH) or "")), screen)
    if not record.get(semconv.REASON):
        yield ""
        yield f"{_INDENT}The cache did what it should: there is nothing to explain."
