"""``otel-promptcache ci``: the price tag of a pull request, from the snapshots before and after it and the ledger."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_promptcache import snapshot
from otel_promptcache.analysis import ledger, pricetag
from otel_promptcache.analysis.pricetag import Comparison, PriceTag, Window
from otel_promptcache.analysis.repricing import Repricing, repriced
from otel_promptcache.cli import _offline
from otel_promptcache.cli._files import newer, opened
from otel_promptcache.pricing import LISTED, PriceFileError
from otel_promptcache.snapshot import Snapshot, SnapshotError

MARK: Final = "<!-- otel-promptcache ci -->"
"""First line of the comment, by which a workflow finds the one it wrote before."""
TITLE: Final = "### What this change does to the prompt cache"

_BASES: Final = (
    # Where a pipeline says what the change is to be merged into, and how that is written as a revision.
    ("GITHUB_BASE_REF", "origin/{}"),
    ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "{}"),
    ("BITBUCKET_PR_DESTINATION_BRANCH", "origin/{}"),
)
_MAX_TESTS: Final = 5
_MAX_ROUTES: Final = 3


class CannotError(Exception):
    """A call that cannot be carried out; the message says what to do."""


class Limit(NamedTuple):
    """A limit in USD, and what is held against it."""

    option: str
    limit: float
    found: float
    complete: bool
    """Whether ``found`` is all there is; else something has no price, or was not compared."""

    @property
    def exceeded(self) -> bool:
        return self.found > self.limit

    @property
    def judged(self) -> bool:
        return self.exceeded or self.complete


class Result(NamedTuple):
    """All that is to be said."""

    comparison: Comparison
    tags: Sequence[PriceTag]
    window: Window
    reading: ledger.Reading
    no_base: str
    """Why there is nothing to compare with; empty where there is."""

    @property
    def unjudged(self) -> list[str]:
        """Why the sum of the prices is not the price of the change."""
        found = [f"{tag.change.difference}: {tag.unknown}" for tag in self.tags if tag.unknown]
        if self.comparison.gone:
            found.append(f"could not be compared: {_named(self.comparison.gone)} only in the base")
        return [*found, self.no_base] if self.no_base else found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ledger",
        required=True,
        nargs="+",
        metavar="FILE",
        help="promptcache.call log events as OTLP JSON lines, plain or .gz, - for standard input",
    )
    parser.add_argument(
        "--snapshot",
        default=snapshot.DEFAULT_NAME,
        metavar="FILE",
        help=f"the snapshot with the change (default {snapshot.DEFAULT_NAME})",
    )
    parser.add_argument(
        "--base",
        metavar="FILE|REVISION",
        help="the snapshot without the change, or the git revision that has it (default: where the change branched "
        "off, by the variables of the pipeline, else from origin/HEAD)",
    )
    parser.add_argument(
        "--days", type=_positive, metavar="N", help="days that the ledger covers (default: from first to last call)"
    )
    parser.add_argument(
        "--max-usd-once",
        type=_limit,
        metavar="USD",
        help="fail when one rewrite of all changes costs more; a lost breakpoint counts with one day",
    )
    parser.add_argument(
        "--max-usd-per-day",
        type=_limit,
        metavar="USD",
        help="fail when the changes would cost more a day if they varied on every request; a lost breakpoint does",
    )
    _offline.prices_argument(parser, "what OTEL_PROMPTCACHE_PRICE_FILE names, else the costs as the ledger has them")
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown", help="for people, for programs")


def _positive(text: str) -> float:
    number = _number_in(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number of days, more than 0, not {text!r}")
    return number


def _limit(text: str) -> float:
    number = _number_in(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"takes USD, 0 or more, not {text!r}")
    return number


def _number_in(text: str) -> float:
    """NaN, which is within no bounds, for what is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def run(options: argparse.Namespace) -> int:
    """0 when the limits hold, 1 when one does not or cannot be judged, 2 when something is missing."""
    try:
        head = _head(options)
        base, no_base = _base(options)
        comparison = pricetag.changes(base, head)
        reading = ledger.Reading()
        prices = _offline.price_table(options.prices)
        with opened(options.ledger) as lines:
            if prices is not LISTED:
                lines = (line for line, _ in repriced(lines, prices, Repricing()))  # noqa: PLW2901
            tags, window = pricetag.tags(comparison.changed, ledger.calls(lines, reading), options.days)
    except BrokenPipeError:
        raise
    except (CannotError, SnapshotError, PriceFileError) as error:
        return _complain(str(error))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        return _complain(f"{getattr(error, 'filename', None) or 'ledger'}: {getattr(error, 'strerror', None) or error}")
    if not window.calls:
        return _complain(
            f"no promptcache.call event in {', '.join(options.ledger)} ({reading.lines} lines)"
            f"{newer(reading)}; "
            "OTEL_PROMPTCACHE_LEDGER=true with OTEL_LOGS_EXPORTER=otlp sends them"
        )
    result = Result(comparison, tags, window, reading, no_base)
    limits = _limits(options, result)
    show = {"markdown": _markdown, "json": _json}[options.format]
    print("\n".join(show(result, limits)))
    return _judged(result, limits)


def _complain(message: str) -> int:
    print(f"otel-promptcache ci: {message}", file=sys.stderr)
    return 2


def _limits(options: argparse.Namespace, result: Result) -> list[Limit]:
    # What is lost every day is not over with one rewrite: its first day is what can be held against a sum.
    once = sum((tag.usd_a_day if tag.change.lasting else tag.usd_once) or 0.0 for tag in result.tags)
    rows = (
        ("--max-usd-once", options.max_usd_once, once),
        ("--max-usd-per-day", options.max_usd_per_day, sum(tag.usd_a_day or 0.0 for tag in result.tags)),
    )
    complete = not result.unjudged
    return [Limit(option, limit, found, complete) for option, limit, found in rows if limit is not None]


def _judged(result: Result, limits: Sequence[Limit]) -> int:
    status = 0
    for one in limits:
        if one.exceeded:
            status = 1
            print(f"otel-promptcache ci: {_usd(one.found)} are more than {one.option} {one.limit:g}", file=sys.stderr)
    for reason in result.unjudged if limits else ():
        status = 1
        print(f"otel-promptcache ci: not judged: {reason}", file=sys.stderr)
    return status


# --- Files --------------------------------------------------------------------------------------------------


def _head(options: argparse.Namespace) -> Snapshot:
    try:
        text = Path(options.snapshot).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CannotError(
            f"{options.snapshot} does not exist; promptcache.assert_matches_snapshot() in a test and "
            "pytest --promptcache-update make it"
        ) from None
    return snapshot.loaded(text, options.snapshot)


def _base(options: argparse.Namespace) -> tuple[Snapshot, str]:
    """The snapshot without the change; an empty one, and why, where the revision has none yet. Raises CannotError."""
    given = options.base
    if given is not None and Path(given).is_file():
        return snapshot.loaded(Path(given).read_text(encoding="utf-8"), given), ""
    path = Path(options.snapshot)
    revision = _revision(given, path.parent)
    try:
        if not _git("ls-tree", "--name-only", revision, "--", path.name, folder=path.parent).strip():
            return Snapshot(), f"the base has no snapshot: {revision[:12]} does not have {options.snapshot}"
        shown = _git("show", f"{revision}:./{path.name}", folder=path.parent)
    except CannotError as error:
        raise CannotError(f"the snapshot of the base, {revision[:12]}, cannot be read: {error}") from None
    return snapshot.loaded(shown, f"{revision}:{options.snapshot}"), ""


def _revision(given: str | None, folder: Path) -> str:
    """The commit whose snapshot is the one before the change. Raises CannotError."""
    if given is not None:
        try:
            return _git("rev-parse", "--verify", f"{given}^{{commit}}", folder=folder).strip()
        except CannotError as error:
            raise CannotError(f"--base {given}: no such file, and no revision that git knows here ({error})") from None
    pipeline = [form.format(os.environ[name]) for name, form in _BASES if os.environ.get(name)]
    said = ""
    for target in (*pipeline, "origin/HEAD"):
        try:
            return _git("merge-base", "HEAD", target, folder=folder).strip()
        except CannotError as error:
            said = said or str(error)
    raise CannotError(
        f"cannot tell what the change is to be compared with ({said}): give --base a file or a git revision, and have "
        "the pipeline fetch it (actions/checkout with fetch-depth: 0)"
    )


def _git(*words: str, folder: Path) -> str:
    """What git prints. Raises CannotError."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError as error:
        raise CannotError(f"git does not run: {error.strerror}") from None
    if done.returncode:
        raise CannotError(next(iter(done.stderr.strip().splitlines()), f"git {words[0]} ends with {done.returncode}"))
    return done.stdout


# --- What is printed ----------------------------------------------------------------------------------------


def _markdown(result: Result, limits: Sequence[Limit]) -> Iterator[str]:
    tags, comparison, window, reading = result.tags, result.comparison, result.window, result.reading
    yield MARK
    yield TITLE
    yield ""
    if result.no_base:
        yield f"Not known: {result.no_base}."
    elif not (tags or comparison.gone):
        yield "Nothing: the stable prefixes are what they were."
    for tag in tags:
        yield f"- {_sentence(tag)}"
        yield f"  - told by {_named(tag.change.tests)}"
    if comparison.gone:
        yield f"- could not be compared: {_named(comparison.gone)}, with prefixes that are sent no longer"
    if comparison.new and not result.no_base:
        yield f"- could not be compared: {_named(comparison.new)}, with prefixes that are new"
    yield ""
    for limit in limits:
        verdict = "**exceeded**" if limit.exceeded else "held"
        if limit.judged:
            yield f"`{limit.option} {limit.limit:g}`: {_usd(limit.found)}, {verdict}."
        else:
            yield f"`{limit.option} {limit.limit:g}`: **not judged**: {_why_not(result)}."
    left_out = f"; {reading.unreadable:,} lines could not be read" if reading.unreadable else ""
    left_out += f"; left out{newer(reading)}" if reading.of_another_schema else ""
    yield f"<sub>From {window.calls:,} calls in {_days(window.days)} of the ledger{left_out}.</sub>"


def _named(tests: Sequence[str]) -> str:
    more = f" and {len(tests) - _MAX_TESTS} more" if len(tests) > _MAX_TESTS else ""
    return ", ".join(f"`{test}`" for test in tests[:_MAX_TESTS]) + more


def _why_not(result: Result) -> str:
    if result.no_base:
        return "the base has no snapshot"
    return "a price is unknown" if any(tag.unknown for tag in result.tags) else "not everything could be compared"


def _sentence(tag: PriceTag) -> str:
    """``changes `system[0]` line 12; 41,000 calls a day on /chat; one rewrite 31 USD; ...``"""
    words = [f"changes {tag.change.difference}"]
    if tag.calls or not tag.unknown:
        words.append(_traffic(tag))
    if tag.unknown:
        words.append(f"price unknown: {tag.unknown}")
    elif tag.calls and tag.change.lasting:
        words.append(f"what they read up to here they would pay in full: +{_usd(tag.usd_a_day)} a day")
    elif tag.calls:
        words.append(f"one rewrite {_usd(tag.usd_once)}")
        if tag.change.varies:
            words.append(f"it varies between the calls of one test: +{_usd(tag.usd_a_day)} a day")
        else:
            words.append(f"if it varies on every request +{_usd(tag.usd_a_day)} a day")
    return "; ".join(words)


def _traffic(tag: PriceTag) -> str:
    if not tag.calls:
        return "no call of the ledger has this prefix"
    routes = [f"`{route}`" for route, _ in tag.routes[:_MAX_ROUTES] if route]
    more = len(tag.routes) - _MAX_ROUTES
    named = f" on {', '.join(routes)}" + (f" and {more} more" if more > 0 else "") if routes else ""
    return f"{_number(tag.calls_a_day)} calls a day{named}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _usd(value: float | None) -> str:
    value = value or 0.0
    return (
        f"{value:,.0f} USD" if value >= 10 else f"{value:.2f} USD" if value >= 0.01 or not value else f"{value:.2g} USD"
    )


def _days(days: float) -> str:
    return f"{days:.1f} days" if days >= 1 else f"{days * 24:.1f} hours"


def _json(result: Result, limits: Sequence[Limit]) -> Iterator[str]:
    tags, window, reading = result.tags, result.window, result.reading
    document = {
        "changes": [_tag(tag) for tag in tags],
        "usd_once": sum(tag.usd_once or 0.0 for tag in tags),
        "usd_a_day_if_varying": sum(tag.usd_a_day or 0.0 for tag in tags),
        "not_compared": {
            "no_base": result.no_base or None,
            "gone": list(result.comparison.gone),
            "new": list(result.comparison.new),
        },
        "limits": [
            {"option": one.option, "usd": one.limit, "exceeded": one.exceeded, "judged": one.judged} for one in limits
        ],
        "ledger": {
            "calls": window.calls,
            "days": window.days,
            "key_ids": sorted(window.key_ids),
            "unreadable_lines": reading.unreadable,
            "repeated_calls": reading.repeated,
            "calls_of_another_schema": reading.of_another_schema,
        },
    }
    yield json.dumps(document, indent=2)


def _tag(tag: PriceTag) -> dict[str, Any]:
    at = tag.change.difference
    return {
        "path": at.path,
        "line": at.line,
        "reason": at.reason,
        "cause": at.cause,
        "tests": list(tag.change.tests),
        "varies": tag.change.varies,
        "lasting": tag.change.lasting,
        "calls": tag.calls,
        "calls_a_day": tag.calls_a_day,
        "routes": [{"route": route, "calls_a_day": number} for route, number in tag.routes],
        "usd_once": tag.usd_once,
        "usd_a_day_if_varying": tag.usd_a_day,
        "unknown": tag.unknown or None,
    }
