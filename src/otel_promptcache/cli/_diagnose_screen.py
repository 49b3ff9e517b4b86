"""Findings on the terminal: what recorded traffic lost, why, where, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final, NamedTuple

from otel_promptcache.analysis import findings, redaction
from otel_promptcache.analysis.findings import Finding, Shown, Summary
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.demo.bar import bar, legend
from otel_promptcache.demo.promptmap import Piece, PromptMap
from otel_promptcache.demo.terminal import Terminal
from otel_promptcache.semconv import Status
from otel_promptcache.settings import Privacy

INDENT: Final = "  "
_KEY: Final = 6
"""Columns of the words why, map, at, text and fix."""
_STYLES: Final = {Status.HIT: "green", Status.COLD: "blue", Status.PARTIAL: "yellow", Status.MISS: "red"}


class Drawn(NamedTuple):
    """A call as the bar draws it."""

    input: int
    read: int
    expected: int
    path: str
    line: int | None


def lines(summary: Summary, shown: Shown, terminal: Terminal) -> Iterator[str]:
    """All of it: the figures, then each finding with its dearest call as the example."""
    yield ""
    yield INDENT + terminal.paint(_figures(summary), "bold")
    counts = (
        terminal.paint(f"{summary.statuses[status]:,} {status.value}", *filter(None, [_STYLES.get(status)]))
        for status in Status
        if summary.statuses.get(status)
    )
    yield INDENT + ", ".join(counts)
    if summary.unpriced:
        yield INDENT + terminal.paint(
            f"{summary.unpriced:,} calls have no known price and count for nothing in USD", "dim"
        )
    if not summary.findings:
        yield ""
        yield INDENT + "Nothing was lost that the cache could have held."
        return
    yield ""
    yield INDENT + legend(terminal)
    for number, finding in enumerate(summary.findings, 1):
        yield ""
        yield from finding_lines(number, finding, shown, terminal)
    if shown.privacy not in (Privacy.REDACTED, Privacy.FULL):
        yield ""
        yield INDENT + terminal.paint("--privacy redacted shows the text that differs, secrets masked.", "dim")


def _figures(summary: Summary) -> str:
    said = [f"{summary.calls:,} calls"]
    if summary.hit_rate is not None:
        said.append(f"{summary.hit_rate:.1%} of {summary.input:,} input tokens read from cache")
    if summary.lost_tokens:
        said.append(f"{summary.lost_tokens:,} tokens lost{_usd(summary.lost_usd)}")
    return ", ".join(said)


def _usd(value: float | None) -> str:
    return "" if value is None else f" (${value:,.4f})"


def finding_lines(number: int, finding: Finding, shown: Shown, terminal: Terminal) -> Iterator[str]:
    """One finding: its heading, and its dearest call explained."""
    reason, cause, _ = finding.problem
    calls = f"{len(finding.calls):,} call{'s' if len(finding.calls) > 1 else ''}"
    lost = f", {finding.lost_tokens:,} tokens lost{_usd(finding.lost_usd)}" if finding.lost_tokens else ""
    title = reason.value if cause is None else f"{reason.value}: {cause.value}"
    yield f"{INDENT}{terminal.paint(f'{number}  {title}', 'bold')}  {terminal.paint(calls + lost, 'dim')}"
    call = finding.example
    yield from explained(call, shown, terminal)


def explained(call: Judged, shown: Shown, terminal: Terminal) -> Iterator[str]:
    """Why, map, place, text and fix of one call."""
    width = terminal.width - len(INDENT) * 2 - _KEY
    text = redaction.snippet(call.place, call.diagnosis.cause, shown.privacy)
    parts = [
        ("why", [line for sentence in findings.happened(call, shown) for line in textwrap.wrap(sentence, width)]),
        ("map", _map(call, shown, width, terminal)),
        ("at", textwrap.wrap(findings.where(call, shown), width)),
        ("text", [f"was {_cut(text.old, width)}", f"now {_cut(text.new, width)}"] if text is not None else []),
        ("call", [terminal.paint(f"{_name(call)}: {call.prompt.model}, {findings.figures(call)}", "dim")]),
        ("fix", textwrap.wrap(findings.fix(call), width)),
    ]
    for key, texts in parts:
        for place, line in enumerate(texts):
            name = terminal.paint(("" if place else key).ljust(_KEY), "cyan")
            yield f"{INDENT * 2}{name}{line}".rstrip()


def _name(call: Judged) -> str:
    """The call as the file has it, counted from 1."""
    name = f"{call.exchange.name} request {call.exchange.number + 1}"
    return name if call.earlier is None else f"{name}, after request {call.earlier.number + 1}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width - 4 else f"{text[: width - 5]}…"


def prompt_map(call: Judged) -> PromptMap:
    """The prompt as the bar and the page draw it."""
    pieces, shared = findings.pieces(call)
    return PromptMap(tuple(Piece(section, size, b"") for section, size in pieces), shared)


def _map(call: Judged, shown: Shown, width: int, terminal: Terminal) -> list[str]:
    usage, drawn = call.usage, prompt_map(call)
    if not usage.input_total or not drawn.size or not call.exchange.whole:
        return []
    place = findings.path(call, shown)
    said = place if len(place) < width - 12 else ""
    known = Drawn(usage.input_total, usage.read or 0, call.diagnosis.expected or 0, said, findings.line(call))
    drawing = bar(known, drawn, width, terminal)
    return drawing if call.diagnosis.place is not None else drawing[1:]
