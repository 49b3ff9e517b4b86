"""The demo on the terminal: every call, what is wrong and what it costs, then the same agent put right."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from otel_promptcache.demo import advice
from otel_promptcache.demo.bar import bar, legend, located
from otel_promptcache.demo.story import Act, Call, Problem, Totals, a_month, factor
from otel_promptcache.demo.terminal import Terminal
from otel_promptcache.diagnosis import words
from otel_promptcache.semconv import Status

_INDENT: Final = "  "
_KEY: Final = 6
"""Columns of the words why, map and fix."""

_STYLES: Final[Mapping[Status, tuple[str, ...]]] = {
    Status.HIT: ("green",),
    Status.COLD: ("blue",),
    Status.PARTIAL: ("yellow",),
    Status.MISS: ("red",),
}

_INTRODUCTION: Final = (
    "A web shop's support agent on the anthropic and openai SDKs, under opentelemetry-instrument, against a local "
    "provider with the real caching rules. No keys, no network. Every figure has arrived over OTLP."
)

_PUT_RIGHT: Final = "The time in the newest message, the tools in one order, the history as it was sent."

_NEXT: Final = (
    ("pip install 'otel-promptcache[otlp]'", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 \\", ""),
    ("  opentelemetry-instrument python app.py", ""),
    ("otel-promptcache doctor", "what is observed, and where telemetry goes"),
    ("deploy/compose", "a Collector, Jaeger, Prometheus and Grafana to try"),
    ("README.md", "how it works, every signal, every setting"),
)


def introduction(terminal: Terminal) -> list[str]:
    paint = terminal.paint
    return [
        "",
        paint(f"{_INDENT}otel-promptcache demo", "bold"),
        *(paint(line, "dim") for line in _wrapped(_INTRODUCTION, terminal.width)),
    ]


def before(act: Act, calls_a_day: int, terminal: Terminal) -> list[str]:
    """Every call of the first run, with an explanation the first time something goes wrong."""
    lines = _heading("1", "The agent as it was written", terminal)
    lines += [f"{_INDENT}{legend(terminal)}", ""]
    table = _Table(act.calls, terminal)
    lines += table.head()
    route = ""
    for call in act.calls:
        lines += [""] if route not in ("", call.route) and lines[-1] else []
        route = call.route
        lines.append(table.row(call))
        problem = call.problem
        if problem is None:
            continue
        if call.repeats:
            lines.append(_same(call, problem, terminal))
        else:
            worth = a_month(act.lost_usd[problem], act.totals.calls, calls_a_day)
            lines += [*_explanation(call, problem, worth, calls_a_day, terminal), ""]
    return lines


def after(first: Act, second: Act, calls_a_day: int, terminal: Terminal) -> list[str]:
    """The second run by route, and both compared."""
    lines = _heading("2", "The same agent, put right", terminal)
    lines += [*(terminal.paint(line, "dim") for line in _wrapped(_PUT_RIGHT, terminal.width)), ""]
    lines += [*_routes(second, terminal), ""]
    lines += _comparison(first.totals, second.totals, calls_a_day, terminal)
    return lines


def closing(first: Act, second: Act, terminal: Terminal) -> list[str]:
    """What was checked, and where to go from here."""
    calls = first.totals.calls + second.totals.calls
    checked = (
        f"Checked: {calls} calls, {calls} ledger records; counters, prompt maps and the provider's own counts agree. "
        f"{first.lines + second.lines} lines of prompts were looked for in the telemetry: {first.shown + second.shown} "
        "found."
    )
    lines = ["", *(terminal.paint(line, "dim") for line in _wrapped(checked, terminal.width))]
    lines += _heading("3", "Your own application", terminal)
    for command, meaning in _NEXT:
        lines.append(f"{_INDENT}{command.ljust(26) if meaning else command}{terminal.paint(meaning, 'dim')}")
    return [*lines, ""]


# --- Parts --------------------------------------------------------------------------------------------------


def _heading(number: str, title: str, terminal: Terminal) -> list[str]:
    rule = terminal.glyphs.rule * (terminal.width - len(_INDENT) * 2 - len(title) - 4)
    return ["", f"{_INDENT}{terminal.paint(f'{number}  {title}', 'bold')} {terminal.paint(rule, 'dim')}", ""]


def _wrapped(text: str, width: int, indent: str = _INDENT) -> list[str]:
    return textwrap.wrap(text, width - len(_INDENT), initial_indent=indent, subsequent_indent=indent)


def _usd(value: float) -> str:
    return f"${value:,.4f}"


class _Table:
    """One line a call. Columns are as wide as what stands in them, and further apart where there is room."""

    _HEAD: Final = ("route", "model", "status", "read", "write", "fresh", "cost", "lost")
    _NAMES: Final = 3
    """Columns that hold words; the others are numbers."""

    def __init__(self, calls: Sequence[Call], terminal: Terminal) -> None:
        self._terminal = terminal
        rows = [self._HEAD, *(self._cells(call) for call in calls)]
        self._widths = [max(len(row[column]) for row in rows) for column in range(len(self._HEAD))]
        room = terminal.width - len(_INDENT) * 2 - sum(self._widths)
        self._gap = " " * max(1, min(3, room // (len(self._HEAD) - 1)))

    def head(self) -> list[str]:
        words, tokens = self._widths[: self._NAMES], self._widths[self._NAMES : self._NAMES + 3]
        gap = len(self._gap)
        unit = "input tokens".rjust(sum(words) + sum(tokens) + gap * 5)
        return [self._terminal.paint(line, "dim") for line in (_INDENT + unit, self._line(self._HEAD, ()))]

    def row(self, call: Call) -> str:
        return self._line(self._cells(call), _STYLES.get(call.status, ()))

    def _cells(self, call: Call) -> tuple[str, ...]:
        return (
            call.route,
            call.model.removeprefix("claude-"),
            call.status.value,
            f"{call.read:,}",
            f"{call.write:,}",
            f"{call.fresh:,}",
            _usd(call.cost_usd),
            _usd(call.lost_usd) if call.lost_usd else "-",
        )

    def _line(self, cells: Sequence[str], status: Iterable[str]) -> str:
        padded = [
            cell.ljust(width) if column < self._NAMES else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, self._widths, strict=True))
        ]
        for column in (self._NAMES - 1, len(cells) - 1):
            if cells[column] != "-":
                padded[column] = self._terminal.paint(padded[column], *status)
        return _INDENT + self._gap.join(padded)


def _explanation(call: Call, problem: Problem, worth: float, calls_a_day: int, terminal: Terminal) -> list[str]:
    """Why, map and fix, below the call."""
    width = terminal.width - len(_INDENT) * 3 - _KEY
    traffic = f"worth ${worth:,.0f} a month at {calls_a_day:,} calls a day"
    parts = [("why", [line for text in advice.why(problem) for line in textwrap.wrap(text, width)])]
    verdict = call.verdict
    if verdict is not None and verdict.evidence is not None:
        known = f"{words.basis(verdict.evidence, problem.reason)[:-1]}: {verdict.confidence or 'certain'}."
        parts.append(("how", textwrap.wrap(known, width)))
    if call.map is not None:
        parts.append(("map", bar(call, call.map, width, terminal)))
    else:
        parts.append(("at", [located(call)]))
    parts.append(("fix", [*textwrap.wrap(advice.fix(problem), width), terminal.paint(traffic, "bold")]))
    lines = []
    for key, texts in parts:
        for number, text in enumerate(texts):
            name = terminal.paint((key if number == 0 else "").ljust(_KEY), "cyan")
            lines.append(f"{_INDENT * 2}{name}{text}")
    return lines


def _same(call: Call, problem: Problem, terminal: Terminal) -> str:
    place = "" if call.path == problem.place else f", at {located(call)}"
    return terminal.paint(
        f"{_INDENT * 2}{'same'.ljust(_KEY)}as above{place}; {_usd(call.lost_so_far)} lost so far", "dim"
    )


def _routes(act: Act, terminal: Terminal) -> Iterator[str]:
    """How often each route was cold, how often it hit, and how much of its input was read."""
    routes = act.routes()
    width = max(map(len, routes), default=0)
    for route, totals in routes.items():
        counts = ", ".join(
            terminal.paint(f"{totals.statuses[status]} {status.value}", *_STYLES.get(status, ()))
            for status in Status
            if totals.statuses.get(status)
        )
        yield f"{_INDENT}{route.ljust(width)}   {counts}, {totals.hit_rate:.1%} read from cache"


def _comparison(first: Totals, second: Totals, calls_a_day: int, terminal: Terminal) -> list[str]:
    def month(totals: Totals) -> str:
        return f"${a_month(totals.cost_usd, totals.calls, calls_a_day):,.0f}"

    rows = (
        (
            "hit rate",
            f"{first.hit_rate:.1%}",
            f"{second.hit_rate:.1%}",
            _times(second.hit_rate, first.hit_rate, "as high"),
        ),
        (
            "input cost",
            _usd(first.input_usd),
            _usd(second.input_usd),
            _times(first.input_usd, second.input_usd, "less"),
        ),
        ("total cost", _usd(first.cost_usd), _usd(second.cost_usd), _times(first.cost_usd, second.cost_usd, "less")),
        ("lost", _usd(first.lost_usd), _usd(second.lost_usd), ""),
        ("a month", month(first), month(second), f"at {calls_a_day:,} calls a day"),
    )
    arrow, paint = terminal.glyphs.arrow, terminal.paint
    head = f"{_INDENT}{'':<12}{'before':>12} {'':^{len(arrow)}} {'after':>12}"
    lines = [paint(head, "dim")]
    for name, old, new, remark in rows:
        line = f"{name:<12}{old:>12} {paint(arrow, 'dim')} {paint(new.rjust(12), 'bold')}   {paint(remark, 'dim')}"
        lines.append(f"{_INDENT}{line}".rstrip())
    return lines


def _times(larger: float, smaller: float, word: str) -> str:
    """``3.2 times less``; nothing where there is no such number."""
    found = factor(larger, smaller)
    return "" if found is None else f"{found:.1f} times {word}"
