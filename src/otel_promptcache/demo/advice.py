"""What a problem is called, and what to do about it: the tables of ``semconv``, and more where the cause says more."""

from __future__ import annotations

from typing import Final

from otel_promptcache.demo.story import Problem
from otel_promptcache.semconv import CAUSE_MEANING, REASON_INFO, Cause, Reason

_FIXES: Final[dict[tuple[Reason, Cause], str]] = {
    (
        Reason.SYSTEM_CHANGED,
        Cause.TIMESTAMP,
    ): "Put the time into the last user message, behind all that stays the same.",
    (Reason.TOOLS_CHANGED, Cause.REORDERED): "Sort the tools by name; a set or a registry gives an order of its own.",
    (
        Reason.MESSAGES_CHANGED,
        Cause.WHITESPACE,
    ): "Send the history again as it was sent, blanks and line breaks included.",
}


def why(problem: Problem) -> list[str]:
    """Reason and cause, a sentence each."""
    meaning = REASON_INFO[problem.reason].meaning
    return [meaning] if problem.cause is None else [meaning, CAUSE_MEANING[problem.cause]]


def fix(problem: Problem) -> str:
    """What to do about it."""
    general = REASON_INFO[problem.reason].fix
    return general if problem.cause is None else _FIXES.get((problem.reason, problem.cause), general)
