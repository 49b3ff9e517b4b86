"""``otel-promptcache demo``: an agent that wastes its cache, why, what that costs, and the same agent put right.

No keys, no containers, no network: ``agent`` is a real application on both SDKs, started as users start theirs;
``stage`` gives it a local provider and a local OTLP receiver; ``story`` reads what arrived; ``screen`` shows it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_promptcache.demo.story import Act

_NEEDED: Final = (
    # What is imported, and the distribution that a message names.
    ("opentelemetry.sdk", "opentelemetry-sdk"),
    ("opentelemetry.distro", "opentelemetry-distro"),
    ("opentelemetry.exporter.otlp.proto.http", "opentelemetry-exporter-otlp"),
    ("opentelemetry.proto", "opentelemetry-proto"),
    ("anthropic", "anthropic"),
    ("openai", "openai"),
    ("starlette", "starlette"),
    ("uvicorn", "uvicorn"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text for people, json for programs")
    parser.add_argument(
        "--calls-a-day",
        type=_positive,
        default=10_000,
        metavar="N",
        help="traffic that the worth of a fix is worked out for (default 10000)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("takes a whole number from 1 up")
    return number


def run(options: argparse.Namespace) -> int:
    """0 when the story held, 1 when it did not, 2 when something is missing that it needs."""
    missing = [distribution for module, distribution in _NEEDED if not _installed(module)]
    if missing:
        _complain(f"not installed: {', '.join(missing)}. pip install 'otel-promptcache[all]'")
        return 2
    from otel_promptcache.demo.interrupts import ended_by_sigterm
    from otel_promptcache.demo.stage import AgentFailedError

    show = {"text": _as_text, "json": _as_json}[options.format]
    try:
        with ended_by_sigterm():
            problems = show(options.calls_a_day)
    except AgentFailedError as error:
        problems = [str(error)]
    for problem in problems:
        _complain(problem)
    return 1 if problems else 0


def _as_text(calls_a_day: int) -> Sequence[str]:
    from otel_promptcache.demo import screen, verdict
    from otel_promptcache.demo.terminal import terminal

    shown = terminal(sys.stdout)
    _print(screen.introduction(shown))
    with closing(_play()) as acts:
        with _waiting("running the agent ..."):
            first = next(acts)
        _print(screen.before(first, calls_a_day, shown))
        with _waiting("running it again ..."):
            second = next(acts)
    _print(screen.after(first, second, calls_a_day, shown))
    problems = verdict.problems(first, second)
    if not problems:
        _print(screen.closing(first, second, shown))
    return problems


def _as_json(calls_a_day: int) -> Sequence[str]:
    from otel_promptcache.demo import verdict
    from otel_promptcache.demo.document import document

    first, second = _play()
    problems = verdict.problems(first, second)
    print(json.dumps(document(first, second, calls_a_day, problems), indent=2))
    return problems


def _play() -> Generator[Act, None, None]:
    """The run with all faults, then the one without. Both agents start together: starting is what takes long.

    Raises AgentFailedError for a run that did not end well, or has left no record.
    """
    from otel_promptcache.demo.script import Fault
    from otel_promptcache.demo.stage import playing
    from otel_promptcache.demo.story import told

    key = secrets.token_hex(16)
    with playing(tuple(Fault), key) as first, playing((), key) as second:
        yield told(first.finish())
        yield told(second.finish())


@contextmanager
def _waiting(message: str) -> Iterator[None]:
    """Says on a terminal that something is going on, and takes it back."""
    stream = sys.stdout
    if not stream.isatty():
        yield
        return
    print(f"\n  {message}", end="", flush=True)
    try:
        yield
    finally:
        print(f"\r{' ' * (len(message) + 2)}\r", end="", flush=True)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it lies in
        return False


def _print(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


def _complain(message: str) -> None:
    print(f"otel-promptcache demo: {message}", file=sys.stderr)
