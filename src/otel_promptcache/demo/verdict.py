"""Whether the story held: the planted faults were found, named and cured, and every signal said the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_promptcache.demo.advice import why
from otel_promptcache.demo.story import FAILURES, Act
from otel_promptcache.semconv import Cause, Reason

_PLANTED: Final = frozenset(
    {
        ("/support/answer", Reason.SYSTEM_CHANGED, Cause.TIMESTAMP),
        ("/support/returns", Reason.MESSAGES_CHANGED, Cause.WHITESPACE),
        ("/support/classify", Reason.TOOLS_CHANGED, Cause.REORDERED),
    }
)


def problems(first: Act, second: Act) -> list[str]:
    """What is not as it should be, in sentences; empty when the story held."""
    return [*_of_first(first), *_of_second(first, second), *_of_both(first, second)]


def _of_first(act: Act) -> Iterator[str]:
    found = {(problem.route, problem.reason, problem.cause) for problem in act.lost_usd}
    for route, reason, cause in sorted(_PLANTED - found):
        yield f"before: the fault of {route} was not found ({reason}, {cause})"
    for problem in act.lost_usd:
        if (problem.route, problem.reason, problem.cause) not in _PLANTED:
            yield f"before: {problem.route} was blamed for what it does not do: {' '.join(why(problem))}"
    for number, call in enumerate(act.calls, 1):
        if call.status in FAILURES and not (call.reason and call.path):
            yield f"before: call {number} ({call.route}, {call.status}) is not explained"


def _of_second(first: Act, second: Act) -> Iterator[str]:
    for number, call in enumerate(second.calls, 1):
        if call.status in FAILURES:
            yield f"after: call {number} ({call.route}) is a {call.status} ({call.reason}, {call.path})"
    if second.totals.hit_rate <= first.totals.hit_rate:
        yield f"after: the hit rate did not rise ({first.totals.hit_rate:.1%}, {second.totals.hit_rate:.1%})"


def _of_both(first: Act, second: Act) -> Iterator[str]:
    for name, act in (("before", first), ("after", second)):
        for disagreement in act.disagreements:
            yield f"{name}: {disagreement}"
        if act.shown:
            yield f"{name}: {act.shown} lines of prompts were found in the telemetry"
