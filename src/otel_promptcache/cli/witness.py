"""``otel-promptcache witness``: who was right, we or the provider, from a ledger of calls that were asked about."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from otel_promptcache import semconv
from otel_promptcache.analysis import ledger
from otel_promptcache.analysis.truth import Row, Truth, truth
from otel_promptcache.cli._files import newer, opened
from otel_promptcache.semconv import Agreement

_COLUMNS = (
    ("both say so", Agreement.AGREE),
    ("ours right", Agreement.OURS),
    ("theirs", Agreement.THEIRS),
    ("undecided", Agreement.UNDECIDED),
    ("silent", Agreement.SILENT),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ledger", nargs="+", help="OTLP JSON lines, plain or .gz, - for standard input")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    """0 when there is anything to compare, 2 when there is not."""
    reading = ledger.Reading()
    try:
        with opened(options.ledger) as lines:
            found = truth(ledger.events(lines, reading, semconv.EVENT_CALL))
    except BrokenPipeError:
        raise
    except (OSError, EOFError) as error:
        return _complain(f"{getattr(error, 'filename', None) or 'ledger'}: {getattr(error, 'strerror', None) or error}")
    if not found.rows:
        return _complain(
            f"{found.calls} calls in {reading.lines} lines{newer(reading)}, none with the provider's own verdict; "
            "OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS=0.01 with OTEL_PROMPTCACHE_LEDGER=true asks for it"
        )
    rows = sorted(found.rows.values(), key=lambda row: (-row.calls.total(), row.ours, row.theirs))
    if reading.of_another_schema:
        print(f"otel-promptcache witness: left out{newer(reading)}", file=sys.stderr)
    print("\n".join(_text(found, rows) if options.format == "text" else _json(found, rows)))
    return 0


def _complain(message: str) -> int:
    print(f"otel-promptcache witness: {message}", file=sys.stderr)
    return 2


def _text(found: Truth, rows: Sequence[Row]) -> Iterator[str]:
    asked = found.asked
    share = found.agreement
    yield f"{asked.total():,} of {found.calls:,} calls have a verdict of the provider's own. " + (
        f"Where both have one they agree in {share:.1%}." if share is not None else "It is silent on all of them."
    )
    yield ""
    head = ("ours", "theirs", *(title for title, _ in _COLUMNS))
    body = [(row.ours, row.theirs, *(f"{row.calls[one]:,}" for _, one in _COLUMNS)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for line, row in zip((head, *body), (None, *rows), strict=True):
        sized = [f"{text:{'<' if n < 2 else '>'}{widths[n]}}" for n, text in enumerate(line)]
        yield "  ".join([*sized, "traces" if row is None else " ".join(row.traces)]).rstrip()


def _json(found: Truth, rows: Sequence[Row]) -> Iterator[str]:
    yield json.dumps(
        {
            "calls": found.calls,
            "asked": found.asked.total(),
            "agreement": found.agreement,
            "rows": [
                {"ours": row.ours, "theirs": row.theirs}
                | {one.value: row.calls[one] for _, one in _COLUMNS}
                | {"traces": row.traces}
                for row in rows
            ],
        },
        indent=2,
    )
