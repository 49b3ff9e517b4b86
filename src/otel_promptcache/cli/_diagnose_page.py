"""Findings as one self-contained page: no script, nothing loaded from anywhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from otel_promptcache.analysis import explanations, findings, redaction
from otel_promptcache.analysis.findings import Finding, Shown, Summary
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.model import Section
from otel_promptcache.semconv import Status

_COLOURS: Final = {
    Section.PARAMETERS: "held",
    Section.TOOLS: "tools",
    Section.SYSTEM: "system",
    Section.HELD: "held",
    Section.MESSAGES: "messages",
}
_MOST_PIECES: Final = 400
"""Segments drawn one by one; of longer prompts those that follow are drawn as one."""
_MOST_CALLS: Final = 200
"""Calls listed under one finding."""


def page(summary: Summary, shown: Shown, names: Sequence[str]) -> str:
    """The page. ``names`` are the files it was made from."""
    style = files(__package__).joinpath("_diagnose_page.css").read_text(encoding="utf-8")
    body = "".join(_body(summary, shown, names))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Prompt cache: {summary.calls:,} calls</title><style>{style}</style>{body}</html>\n"
    )


def _body(summary: Summary, shown: Shown, names: Sequence[str]) -> Iterator[str]:
    yield f"<h1>What the prompt cache missed, and why</h1><p class=dim>{escape(', '.join(names))}</p>"
    rate = "-" if summary.hit_rate is None else f"{summary.hit_rate:.1%}"
    usd = "" if summary.lost_usd is None else f" · ${summary.lost_usd:,.4f}"
    yield "<div class=figures>"
    yield _figure(f"{summary.calls:,}", "calls")
    yield _figure(rate, f"of {summary.input:,} input tokens read")
    yield _figure(f"{summary.lost_tokens:,}", f"tokens lost{usd}")
    yield "</div><p class=dim>"
    yield ", ".join(f"{summary.statuses[one]:,} {one.value}" for one in Status if summary.statuses.get(one))
    yield "</p>"
    yield _legend()
    for number, finding in enumerate(summary.findings, 1):
        yield from _finding(number, finding, shown)
    if not summary.findings:
        yield "<div class=card>Nothing was lost that the cache could have held.</div>"


def _figure(value: str, meaning: str) -> str:
    return f"<div><b>{escape(value)}</b><span class=dim>{escape(meaning)}</span></div>"


def _legend() -> str:
    named = (
        ("tools", "tools"), ("system", "system"), ("messages", "messages"), ("read", "read from cache"),
        ("paid", "paid again"), ("new", "new"), ("mark", "first difference"),
    )  # fmt: skip
    cells = (f'<span><i style="background:var(--{colour})"></i>{text}</span>' for colour, text in named)
    return f"<div class=legend>{''.join(cells)}</div>"


def _finding(number: int, finding: Finding, shown: Shown) -> Iterator[str]:
    reason, cause, _ = finding.problem
    call = finding.example
    title = reason.value if cause is None else f"{reason.value}: {cause.value}"
    usd = "" if finding.lost_usd is None else f" (${finding.lost_usd:,.4f})"
    lost = f", {finding.lost_tokens:,} tokens lost{usd}" if finding.lost_tokens else ""
    count = f"{len(finding.calls):,} call{'s' if len(finding.calls) > 1 else ''}"
    yield f"<section class=card><div class=head><h2>{number}. {escape(title)}</h2>"
    yield f"<span class=dim>{escape(count + lost)}</span></div>"
    yield from _map(call, shown)
    yield "<dl>"
    yield _row("why", escape(" ".join(findings.happened(call, shown))))
    if where := findings.where(call, shown):
        yield _row("at", f"<code>{escape(where)}</code>")
    text = redaction.snippet(call.place, call.diagnosis.cause, shown.privacy)
    if text is not None:
        yield _row("was", f"<pre><del>{escape(text.old)}</del></pre>")
        yield _row("now", f"<pre><ins>{escape(text.new)}</ins></pre>")
    yield _row("fix", escape(findings.fix(call)))
    yield "</dl>"
    yield from _how(finding)
    yield from _calls(finding, shown)
    yield "</section>"


def _row(name: str, content: str) -> str:
    return f"<dt>{name}</dt><dd>{content}</dd>"


def _map(call: Judged, shown: Shown) -> Iterator[str]:
    """The prompt to scale: its segments, and below them what was read, paid again and new."""
    usage = call.usage
    sizes, shared = findings.pieces(call)
    total = sum(size for _, size in sizes)
    if not usage.input_total or not total or not call.exchange.whole:
        return
    yield "<div class=map><div class=strip>"
    for section, size in _drawn(sizes):
        if size:
            name = section.name.lower()
            yield (
                f'<i style="width:{size / total:.4%};background:var(--{_COLOURS[section]})" '
                f'title="{name}, {size:,} bytes"></i>'
            )
    yield "</div><div class=strip>"
    read = usage.read or 0
    expected = max(read, min(call.diagnosis.expected or 0, usage.input_total))
    parts = (("read", read), ("paid", expected - read), ("new", usage.input_total - expected))
    for colour, tokens in parts:
        if tokens:
            share = tokens / usage.input_total
            yield f'<i style="width:{share:.4%};background:var(--{colour})" title="{tokens:,} tokens"></i>'
    yield "</div>"
    if call.diagnosis.place is not None:
        at = sum(size for _, size in sizes[:shared]) / total
        late = " late" if at > 0.6 else ""
        yield f'<div class="mark{late}" style="left:{at:.4%}"><span>{escape(findings.path(call, shown))}</span></div>'
    yield f"</div><p class=dim>{escape(findings.figures(call))}</p>"


def _drawn(sizes: Sequence[tuple[Section, int]]) -> Iterator[tuple[Section, int]]:
    yield from sizes[:_MOST_PIECES]
    rest = sizes[_MOST_PIECES:]
    if rest:
        yield rest[-1][0], sum(size for _, size in rest)


def _how(finding: Finding) -> Iterator[str]:
    """How to fix it in code, by the same table as the documentation."""
    told = explanations.of(finding.problem.cause or finding.problem.reason)
    yield "<details><summary>How to fix it in code</summary><dl>"
    yield _row("known", escape(told.known))
    if told.before:
        yield _row("before", f"<pre>{escape(told.before)}</pre>")
    if told.after:
        yield _row("after", f"<pre>{escape(told.after)}</pre>")
    yield _row("verify", escape(told.verify))
    yield "</dl></details>"


def _calls(finding: Finding, shown: Shown) -> Iterator[str]:
    rows = finding.calls[:_MOST_CALLS]
    more = len(finding.calls) - len(rows)
    yield f"<details><summary>The call{'s' if len(finding.calls) > 1 else ''}</summary><table>"
    yield "<tr><th>file<th class=n>request<th>at<th class=n>read<th class=n>lost</tr>"
    for call in rows:
        yield (
            f"<tr><td>{escape(call.exchange.name)}<td class=n>{call.exchange.number + 1}"
            f"<td><code>{escape(findings.where(call, shown))}</code><td class=n>{call.usage.read or 0:,}"
            f"<td class=n>{call.diagnosis.lost:,}</tr>"
        )
    yield "</table>"
    yield f"<p class=dim>and {more:,} more</p>" if more else ""
    yield "</details>"
