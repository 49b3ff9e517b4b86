"""Stability as the recordings ask for it: the diagnosis, as if everything were cached for ever."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.model import Scope
from otel_promptcache.providers import BY_NAME
from otel_promptcache.semconv import PROMPT_CHANGED, Reason
from otel_promptcache.testing.calls import Change
from otel_promptcache.testing.stability import Stability

LINES = some.lists(some.text("abcdef ghi", min_size=20, max_size=40), min_size=2, max_size=6, unique=True)
TURNS = some.lists(some.text("lmnopqr stu", min_size=60, max_size=90), min_size=1, max_size=6, unique=True)


def body(system: list[str], turns: list[str]) -> dict[str, Any]:
    said = [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
    return {"model": "claude-sonnet-4-6", "system": "\n".join(system), "messages": said}


def changes(*bodies: dict[str, Any]) -> list[Change | None]:
    """What changed with each of these requests, sent one after the other."""
    stability, dialect = Stability(100_000), BY_NAME["anthropic"]
    return [
        stability.sent(
            dialect.prompt(one), Scope("anthropic", "host", "key", one["model"], ""), dialect,
            number=number, route="test", conversation="",
        )[1]
        for number, one in enumerate(bodies, 1)
    ]  # fmt: skip


@given(LINES, TURNS)
def test_appending_is_no_change(system: list[str], turns: list[str]) -> None:
    """A conversation that only grows is stable, whatever is said in it."""
    grown = [body(system, turns[:length]) for length in range(1, len(turns) + 1)]
    assert changes(*grown) == [None] * len(turns)


@given(LINES, TURNS, some.integers(min_value=0))
def test_an_edited_line_is_found(system: list[str], turns: list[str], at: int) -> None:
    """In the system prompt of a conversation that otherwise goes on."""
    at %= len(system)
    edited = [*system[:at], system[at] + "!", *system[at + 1 :]]
    *_, found = changes(body(system, turns), body(edited, [*turns, "yes"]))
    assert found is not None
    assert (found.reason, found.path, found.line, found.earlier) == (Reason.SYSTEM_CHANGED, "system", at + 1, 1)


@given(LINES, TURNS)
def test_a_rewritten_history_is_found(system: list[str], turns: list[str]) -> None:
    """Behind an unchanged system prompt."""
    rewritten = [f"{turns[0]}  ", *turns[1:], "yes", "more"]
    *_, found = changes(body(system, [*turns, "yes"]), body(system, rewritten))
    assert found is not None
    assert (found.reason, found.path) == (Reason.MESSAGES_CHANGED, "messages[0].content")


def test_a_marker_that_is_lost_on_the_way() -> None:
    """The conversation goes on, and nothing of it is cached any more. A request that has only the system prompt in
    common is another one, which may do without."""

    def marked(*turns: str, mark: bool = True) -> dict[str, Any]:
        control = {"cache_control": {"type": "ephemeral"}} if mark else {}
        return body([], list(turns)) | {"system": [{"type": "text", "text": "words " * 20, **control}]}

    found = changes(marked("one"), marked("one", "yes", "two", mark=False), marked("another", mark=False))
    assert [(one.reason, one.earlier) if one else None for one in found] == [
        None,
        (Reason.BREAKPOINT_MISSING, 1),
        None,
    ]
    assert changes(marked("one", mark=False), marked("one", "yes", "two")) == [None, None]


def test_every_reason_is_a_change_unless_it_says_otherwise() -> None:
    """One that is yet to be found counts as a change of the prompt without being named here."""
    assert {
        Reason.MODEL_CHANGED,
        Reason.TOOLS_CHANGED,
        Reason.SYSTEM_CHANGED,
        Reason.MESSAGES_CHANGED,
        Reason.PARAMETERS_CHANGED,
        Reason.CACHE_KEY_CHANGED,
        Reason.SCOPE_CHANGED,
    } <= PROMPT_CHANGED
