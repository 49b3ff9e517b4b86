"""``otel-promptcache price --reprice``: what the calls of a ledger cost by other prices."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import IO, Any, cast

from otel_promptcache.analysis.repricing import Change, Repricing, repriced
from otel_promptcache.cli._files import opened
from otel_promptcache.pricing import Prices


def run(options: argparse.Namespace, prices: Prices) -> int:
    """0 when there are calls to price, 2 when there are not."""
    found = Repricing()
    try:
        with ExitStack() as stack:
            lines = stack.enter_context(opened([options.file]))
            copy = stack.enter_context(_created(options.write)) if options.write else None
            for line, changes in repriced(lines, prices, found):
                if copy is not None:
                    copy.write(line)
                if options.format == "json":
                    for change in changes:
                        print(json.dumps(_row(change)))
    except BrokenPipeError:
        raise
    except (OSError, EOFError, UnicodeDecodeError) as error:
        name = getattr(error, "filename", None) or options.file
        return _complain(f"{name}: {getattr(error, 'strerror', None) or error}")
    if not found.calls:
        return _complain(f"{options.file}: no promptcache.call in {found.reading.lines} lines; is it a ledger?")
    told = "\n".join((*_text(found), *_remarks(found)))
    print(told, file=sys.stderr if options.format == "json" else sys.stdout)
    return 0


def _created(path: str) -> IO[str]:
    """A new file; one that is there is not written over: it may be the ledger."""
    if path.endswith(".gz"):
        return cast("IO[str]", gzip.open(path, "xt", encoding="utf-8"))
    return open(path, "x", encoding="utf-8")


def _complain(message: str) -> int:
    print(f"otel-promptcache price: {message}", file=sys.stderr)
    return 2


def _row(change: Change) -> dict[str, Any]:
    return {
        "id": change.call,
        "provider": change.provider,
        "model": change.model,
        "before_usd": None if change.before is None else float(change.before),
        "after_usd": float(change.after),
        "price_version_before": change.version_before,
        "price_version": change.version,
    }


def _text(found: Repricing) -> Iterator[str]:
    groups = sorted(found.groups.items(), key=lambda item: (-abs(item[1].after - item[1].before), item[0]))
    before = sum((group.before for _, group in groups), Decimal(0))
    after = sum((group.after for _, group in groups), Decimal(0))
    calls, changed = sum(group.calls for _, group in groups), sum(group.changed for _, group in groups)
    head = ("provider", "model", "calls", "changed", "before USD", "after USD", "change USD")
    body = [
        (*name, f"{group.calls:,}", f"{group.changed:,}", *_money(group.before, group.after)) for name, group in groups
    ]
    body.append(("all", "", f"{calls:,}", f"{changed:,}", *_money(before, after)))
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for row in (head, *body):
        yield "  ".join(f"{text:{'<' if n < 2 else '>'}{widths[n]}}" for n, text in enumerate(row)).rstrip()
    yield ""
    yield from (f"{calls:,} calls by {version}" for version, calls in found.versions.most_common())


def _money(before: Decimal, after: Decimal) -> tuple[str, str, str]:
    return f"{before:,.6f}", f"{after:,.6f}", f"{after - before:+,.6f}"


def _remarks(found: Repricing) -> Iterator[str]:
    """What stands in no row of the table."""
    if found.newly_priced:
        yield f"{found.newly_priced:,} calls had no cost and have one now: {found.after_newly:,.6f} USD"
    for (provider, model), calls in found.unpriced.most_common():
        yield f"{calls:,} calls of {model or 'no model'} by {provider or 'nobody'} have no price and stay as they are"
    for number, what in (
        (found.without_usage, "calls have no token counts"),
        (found.reading.of_another_schema, "calls are of another schema than this version reads"),
        (found.reading.repeated, "records came before, and count once"),
        (found.reading.unreadable, "lines or records cannot be read"),
    ):
        if number:
            yield f"{number:,} {what}"
