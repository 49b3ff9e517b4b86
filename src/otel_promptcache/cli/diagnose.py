"""``otel-promptcache diagnose``: recorded traffic in; what the cache missed, why, where, and what to do, out."""

from __future__ import annotations

import argparse
import json
import os
import sys

from otel_promptcache.analysis import exchanges, findings, replay
from otel_promptcache.analysis.exchanges import Reading
from otel_promptcache.cli import _diagnose_page, _diagnose_screen, _offline
from otel_promptcache.demo.terminal import terminal
from otel_promptcache.settings import Live


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="request logs as JSON lines, Claude Code transcripts, cassettes (JSON, YAML), HAR files, a labelled "
        "corpus; plain or .gz, - for standard input",
    )
    parser.add_argument(
        "--format", choices=("text", "jsonl"), default="text", help="text for people, jsonl for programs: a call a line"
    )
    parser.add_argument("--html", metavar="PAGE", help="also write one self-contained page with the prompt maps")
    parser.add_argument(
        "--hashes-only",
        action="store_true",
        help="use only what live traffic keeps of earlier prompts: the line without the character, never any text",
    )
    _offline.prices_argument(parser, "what OTEL_PROMPTCACHE_PRICE_FILE names")
    _offline.privacy_argument(parser)


def run(options: argparse.Namespace) -> int:
    """0 when the files were read, whatever was found in them."""
    return _offline.complaining("diagnose", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    prices, account = _offline.price_table(options.prices), Live().value.account
    reading = exchanges.read(options.files)
    shown = _offline.shown(options)
    judged = list(replay.every(reading.cases(), texts=not options.hashes_only, prices=prices, account=account))
    if options.html:
        page = _diagnose_page.page(findings.summary(judged), shown, options.files)
        with open(options.html, "w", encoding="utf-8", errors="backslashreplace") as handle:
            handle.write(page)
    if options.format == "jsonl":
        for call in judged:
            print(json.dumps(findings.row(call, shown)))
    else:
        for line in _diagnose_screen.lines(findings.summary(judged), shown, terminal(sys.stdout)):
            _offline.say(line)
        if options.html:
            print(f"\n  The same as a page: {os.path.abspath(options.html)}")
    _passed_over(reading)
    return 0


def _passed_over(reading: Reading) -> None:
    """What was not diagnosed, so that nobody takes silence for health."""
    for what, count in reading.skipped.most_common():
        print(f"otel-promptcache diagnose: passed over {count:,} of: {what}", file=sys.stderr)
    untimed = sum(not exchange.timed for exchange in reading.exchanges)
    if untimed:
        print(
            f"otel-promptcache diagnose: {untimed:,} requests have no time; nothing is said of lifetimes, evictions "
            "or requests at once",
            file=sys.stderr,
        )
