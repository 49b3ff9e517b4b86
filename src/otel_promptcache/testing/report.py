"""What a failed assertion says: which call, the first differing place, what kind of difference, what to do.

The sentences are those of the diagnosis and its tables, so that they grow with it. No text of a prompt: a test's log
is read by more people than its prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final

from otel_promptcache.semconv import CAUSE_MEANING, REASON_INFO, STATUS_MEANING, Cause, Reason, Status
from otel_promptcache.snapshot import Difference, Mismatch
from otel_promptcache.testing.calls import Call

NOTHING_RECORDED: Final = (
    "no call was recorded. Recorded are calls of the anthropic and openai SDKs in this process, from the moment the "
    "fixture promptcache (or recording()) is set up; a client that replaces the SDK's own request method is not seen"
)
_MAX_ROWS: Final = 20
_MAX_DETAILS: Final = 5
_COLUMNS: Final = ("call", "status", "read", "written", "input", "USD", "lost USD", "what")


def hit_ratio(calls: Iterable[Call]) -> float | None:
    """Sum of tokens read / sum of input tokens; calls without usage leave both. None when none has any."""
    usages = [call.usage for call in calls if call.usage is not None]
    total = sum(usage.input_total or 0 for usage in usages)
    return sum(usage.read or 0 for usage in usages) / total if total else None


# --- One message an assertion -------------------------------------------------------------------------------


def low_ratio(calls: Sequence[Call], ratio: float | None, wanted: float) -> str:
    if ratio is None and all(call.error for call in calls):
        title = f"the hit ratio is unknown, not {wanted:g}: all of {_calls(len(calls))} failed"
        return _message(title, _details(calls, verdict_lines), calls)
    if ratio is None:
        title = f"the hit ratio is unknown, not {wanted:g}: none of {_calls(len(calls))} reported token counts"
        return _message(title, [REASON_INFO[Reason.USAGE_NOT_REPORTED].fix], calls)
    usages = [call.usage for call in calls if call.usage is not None]
    read, total = sum(one.read or 0 for one in usages), sum(one.input_total or 0 for one in usages)
    silent = len(calls) - len(usages)
    title = (
        f"hit ratio {ratio:.3f} is below {wanted:g}: {read:,} of {total:,} input tokens were read from cache in "
        f"{_calls(len(usages))}" + (f"; {_calls(silent)} reported no token counts" if silent else "")
    )
    missed = [call for call in calls if call.status not in (Status.HIT, Status.COLD)]
    return _message(title, _details(missed, verdict_lines), calls)


def unstable(calls: Sequence[Call]) -> str:
    changed = [call for call in calls if call.change is not None]
    unread = [call for call in calls if call.prefix is None]
    details = _details(changed, change_lines)
    if unread:
        numbers = ", ".join(str(call.number) for call in unread)
        details.append(f"the prompt of call {numbers} could not be read: it is empty, or otel-promptcache has failed")
    if not changed:
        return _message("whether the prefix is stable is unknown", details, calls)
    return _message(f"the prefix is not stable: {len(changed)} of {_calls(len(calls))} changed it", details, calls)


def unread(calls: Sequence[Call], total: Decimal, allowed: float, unpriced: Sequence[Call]) -> str:
    details = []
    for call in calls:
        if call.unread_usd:
            tokens = (call.usage.write if call.usage is not None else None) or 0
            details.append(f"call {call.number}: {tokens:,} tokens written for {_usd(call.unread_usd)} extra, not read")
            details += [f"  {line}" for later in calls if later.earlier == call.number for line in verdict_lines(later)]
    if unpriced:
        models = ", ".join(sorted({call.model for call in unpriced}))
        details.append(f"no price is known for {models}: what was written cannot be judged in USD")
    if total <= Decimal(str(allowed)):
        return _message("whether writes were paid for nothing is unknown", details, calls)
    return _message(
        f"{_usd(total)} were paid for cache writes that no later call has read; allowed are {allowed:g} USD",
        details,
        calls,
    )


def not_cached(calls: Sequence[Call], call: Call) -> str:
    if call.status is Status.HIT:
        return _message(f"call {call.number} read no token from cache: less was expected than is cached", [], calls)
    title = f"call {call.number} was not read from cache: {call.status}. {STATUS_MEANING[call.status]}"
    return _message(title, verdict_lines(call) if call.reason or call.error else [], calls)


def not_as_snapshot(test: str, file: str, found: Sequence[Mismatch]) -> str:
    """A test whose prefixes are not those of its snapshot."""
    lines = [f"the stable prefix of {test} is not the one in {file}"]
    for one in found[:_MAX_DETAILS]:
        if one.difference is not None:
            at = one.difference
            lines.append(f"  prefix {one.number} differs at {at}" + ("" if at.marker else f": {_cause(at.cause)}"))
            lines += [f"    {line}" for line in _consequence(at)]
        elif one.old is None and one.new is not None:
            lines.append(f"  prefix {one.number} is sent in addition, to {one.new.model}")
        else:
            lines.append(f"  prefix {one.number} is sent no longer")
    lines.append("If this is meant, renew the snapshot and commit it: pytest --promptcache-update")
    return "\n".join(lines)


def _consequence(at: Difference) -> list[str]:
    """What a difference does to the cache."""
    if at.reason is Reason.BREAKPOINT_MISSING:
        return [
            f"{at.reason}: no entry ends here any more; what calls read up to this place they pay in full, every time",
            "otel-promptcache ci has the price",
        ]
    if at.marker:
        return [f"{at.reason}: the text is the same; where entries end, or how long they live, is not"]
    return [
        f"{at.reason}: every cached entry behind this place is written again, once",
        "or with every request, if it varies: otel-promptcache ci has the price of either",
    ]


# --- Parts of a message -------------------------------------------------------------------------------------


def verdict_lines(call: Call) -> list[str]:
    """What the diagnosis says of a call that was no hit."""
    if call.error:
        return [f"call {call.number} failed: {call.error}"]
    if call.reason is None:
        return [f"call {call.number}: {call.status}. {STATUS_MEANING[call.status]}"]
    lost = call.verdict.lost
    money = f", {_usd(call.seen.lost_usd)}" if call.seen.lost_usd is not None else ""
    cost = [f"lost: {lost:,} tokens that were in the cache{money}"] if lost else []
    return _place(call, call.earlier, call.reason, call.cause, call.path, call.line) + [f"  {one}" for one in cost]


def change_lines(call: Call) -> list[str]:
    """How a call's prompt differs from the one it should have continued."""
    change = call.change
    if change is None:
        return []
    return _place(call, change.earlier, change.reason, change.cause, change.path, change.line)


def _place(call: Call, earlier: int, reason: Reason, cause: Cause | None, path: str, line: int | None) -> list[str]:
    info = REASON_INFO[reason]
    against = f" differs from call {earlier}" if earlier and path else ""
    where = f" at `{path}`" + (f", line {line}" if line else "") if path else ""
    kind = f": {_cause(cause)}" if cause is not None else ""
    return [
        f"call {call.number} ({call.route}){against}{where}{kind}",
        f"  {reason}: {info.meaning}",
        f"  fix: {info.fix}",
    ]


def _cause(cause: Cause | None) -> str:
    return f"{cause}. {CAUSE_MEANING[cause]}" if cause is not None else "not the same"


def _details(calls: Iterable[Call], lines_of: Callable[[Call], list[str]]) -> list[str]:
    """Each distinct problem once, with the calls that met it again."""
    groups: dict[tuple[object, ...], list[Call]] = {}
    for call in calls:
        at = call.change or call
        key = (call.status, call.error, at.reason, at.cause, at.path, at.line)
        groups.setdefault(key, []).append(call)
    found = []
    for first, *others in list(groups.values())[:_MAX_DETAILS]:
        found += lines_of(first)
        if others:
            numbers = ", ".join(str(call.number) for call in others[:_MAX_ROWS])
            found.append(f"  and likewise: call {numbers}" + (", ..." if len(others) > _MAX_ROWS else ""))
    rest = len(groups) - _MAX_DETAILS
    return [*found, f"and {rest} more places"] if rest > 0 else found


def _message(title: str, details: Sequence[str], calls: Sequence[Call]) -> str:
    lines = [title, *(f"  {line}" for line in details), *_table(calls)]
    return "\n".join(lines)


def _table(calls: Sequence[Call]) -> list[str]:
    rows = [_COLUMNS, *(_row(call) for call in calls[:_MAX_ROWS])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rest = len(calls) - _MAX_ROWS
    return [line.rstrip() for line in lines] + ([f"  and {_calls(rest)} more"] if rest > 0 else [])


def _row(call: Call) -> tuple[str, ...]:
    usage = call.usage
    counts = [None] * 3 if usage is None else [usage.read, usage.write, usage.input_total]
    place = f"{call.path} line {call.line}" if call.line else call.path
    words = [call.error, call.reason or "", call.cause or "", place]
    return (
        str(call.number),
        str(call.status),
        *("-" if one is None else f"{one:,}" for one in counts),
        f"{call.cost.total:.6f}" if call.cost is not None else "-",
        f"{call.seen.lost_usd:.6f}" if call.seen.lost_usd is not None else "-",
        " ".join(word for word in words if word),
    )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _usd(value: Decimal | None) -> str:
    return "unknown USD" if value is None else f"{value:.6f} USD"
