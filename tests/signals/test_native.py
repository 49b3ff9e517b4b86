"""The provider's own verdict beside ours: recorded as it came, compared, counted."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest
from servers.application import HAS_NATIVE, Clients, Observed, message, observed, text

from otel_promptcache.model import Diagnosis
from otel_promptcache.observer import witness
from otel_promptcache.semconv import Agreement, Cause, Reason, Status

TOOLS = [{"name": "find", "description": "Finds things in a store of things.", "input_schema": {"type": "object"}}]
SAID = {"type", "reason", "missed_tokens", "reusable_tokens", "asked_by", "agreement"}
TURN = text(10, "one")


def native(attributes: Any) -> dict[str, Any]:
    """The provider's verdict on one call, without its prefix."""
    found = {name.rpartition(".")[2]: value for name, value in attributes.items() if ".native." in name}
    assert found.keys() <= SAID
    return found


def spoken(seen: Observed) -> list[dict[str, Any]]:
    """The provider's verdict on each call, by the ledger; the span of a call has the same."""
    told = [native(event) for event in seen.ledger]
    assert told == [native(span.attributes or {}) for span in seen.calls]
    return told


QUIETLY: dict[str, Any] = {"open_telemetry": False} if HAS_NATIVE else {}
BY_US = {"asked_by": "instrumentation"}
ANTHROPIC: list[tuple[str, dict[str, Any], dict[str, Any], Reason | None]] = [
    ("same", {}, {"type": "null", "agreement": "agree"}, None),
    (
        "tools",
        {"tools": TOOLS},
        {"type": "tools_changed", "missed_tokens": 2000, "agreement": "agree"},
        Reason.TOOLS_CHANGED,
    ),
    (
        "model",
        {"model": "claude-sonnet-4-5"},
        {"type": "model_changed", "missed_tokens": 2000, "agreement": "silent"},
        None,
    ),
    (
        "system",
        {"system": [{"type": "text", "text": "now\n" + text(1999), "cache_control": {"type": "ephemeral"}}]},
        {"type": "system_changed", "missed_tokens": 2000, "agreement": "agree"},
        Reason.SYSTEM_CHANGED,
    ),
]


@pytest.mark.parametrize("case", ANTHROPIC, ids=[case[0] for case in ANTHROPIC])
@pytest.mark.parametrize("way", ["create", "stream", "async"])
def test_anthropic(way: str, case: Any, clients: Clients) -> None:
    """Each word as it came, with who asked and how it goes with ours; nothing on the first call, which only opts in."""
    _, changes, expected, reason = case
    first = message("one\n" + text(1999), TURN)
    with observed(ledger="true", native_diagnostics="true") as seen:
        for body in (first, {**first, **changes}):
            if way == "create":
                clients.anthropic.messages.create(**body)
            elif way == "stream":
                list(clients.anthropic.messages.create(stream=True, **body))
            else:
                asyncio.run(_once(clients, body))
            assert seen.observer.worker.flush(60)  # what the verdict of the next call is found by
        assert spoken(seen) == [{}, {**BY_US, **expected}]
        assert seen.ledger[1].get("promptcache.reason") == (reason.value if reason else None)


async def _once(clients: Clients, body: Any) -> None:
    asking = clients.anthropic
    async with anthropic.AsyncAnthropic(base_url=asking.base_url, api_key=asking.api_key, **QUIETLY) as client:
        await client.messages.create(**body)


OPENAI = [
    ({}, {"type": "cache_hit", "agreement": "agree"}),
    ({"instructions": "now\n" + text(1999)}, {"type": "cache_miss", "reason": "input_changed"}),
    ({"text": {"verbosity": "low"}}, {"type": "cache_miss", "reason": "verbosity_changed"}),
]


@pytest.mark.parametrize(("changes", "expected"), OPENAI)
@pytest.mark.parametrize("stream", [False, True])
def test_openai(stream: bool, changes: Any, expected: dict[str, Any], clients: Clients) -> None:
    """With the tokens that both prompts begin with; in a stream it comes with the end."""
    turns = [{"role": role, "content": text(200, role[:3])} for role in ("user", "assistant", "user")]
    first = {"model": "gpt-5.6", "instructions": "one\n" + text(1999), "input": turns, "prompt_cache_key": "k"}
    with observed(ledger="true", native_diagnostics="true") as seen:
        for body in (first, {**first, **changes}):
            made = clients.openai.responses.create(**body, stream=stream)
            assert stream is False or len(list(made)) > 3
            assert seen.observer.worker.flush(60)
        nothing, found = spoken(seen)
        assert nothing == {}
        assert {name: found[name] for name in expected} == expected
        assert found["agreement"] == "agree"
        assert seen.ledger[1]["promptcache.status"] == ("miss" if changes else "hit")


def test_the_application_asks_itself(clients: Clients) -> None:
    """Its verdict is recorded and compared without any setting; a null is one only where an answer was asked for."""
    body = message("one\n" + text(1999), TURN)
    with observed(ledger="true") as seen:
        opted = clients.anthropic.messages.create(**body, extra_body={"diagnostics": {"previous_message_id": None}})
        asking = {"diagnostics": {"previous_message_id": opted.id}}
        clients.anthropic.messages.create(**body, extra_body=asking)
        clients.anthropic.messages.create(**body, tools=TOOLS, extra_body=asking)
        clients.anthropic.messages.create(**body)
        mine = {"asked_by": "application"}
        changed = {"type": "tools_changed", "missed_tokens": 2000, "agreement": "agree"}
        assert spoken(seen) == [{}, {**mine, "type": "null", "agreement": "agree"}, {**mine, **changed}, {}]


def test_the_providers_memory_is_short(clients: Clients) -> None:
    """A response that it does not know (any more) is silence, not a verdict."""
    body = message("one\n" + text(1999), TURN)
    with observed(ledger="true") as seen:
        asking = {"diagnostics": {"previous_message_id": "msg_gone"}}
        clients.anthropic.messages.create(**body, extra_body=asking)
        assert spoken(seen) == [
            {"asked_by": "application", "type": "previous_message_not_found", "agreement": "silent"}
        ]


def test_without_diagnosis(clients: Clients) -> None:
    """Mode ``tokens`` asks nothing and has nothing to compare with, and records what an application asked for."""
    body = message("one\n" + text(1999), TURN)
    with observed(ledger="true", native_diagnostics="true", mode="tokens") as seen:
        first = clients.anthropic.messages.create(**body)
        asking = {"diagnostics": {"previous_message_id": first.id}}
        clients.anthropic.messages.create(**body, extra_body=asking)
        assert [native(event) for event in seen.ledger] == [{}, {"type": "null", "asked_by": "application"}]
        assert seen.total("promptcache.native.calls") == 0


def test_what_is_counted(clients: Clients) -> None:
    """Ours, theirs, and how they go together; nothing for calls that were not asked about."""
    body = message("one\n" + text(1999), TURN)
    with observed(native_diagnostics="true") as seen:
        for changes in ({}, {}, {}, {"tools": TOOLS}):
            clients.anthropic.messages.create(**{**body, **changes})
        counted = {
            tuple(
                dict(labels).get(f"promptcache.{name}") for name in ("reason", "native.verdict", "native.agreement")
            ): n
            for labels, n in seen.points("promptcache.native.calls").items()
        }
        assert counted == {(None, "null", "agree"): 2, ("tools_changed", "tools_changed", "agree"): 1}


# --- Who is right -------------------------------------------------------------------------------------------

MISS, HIT, COLD = Status.MISS, Status.HIT, Status.COLD
JUDGED = [
    # What the provider says, our status, reason and cause, and the outcome.
    ("null", HIT, None, None, Agreement.AGREE),
    ("null", COLD, None, None, Agreement.SILENT),
    ("null", MISS, Reason.TTL_EXPIRED, None, Agreement.AGREE),  # it compares prompts, not lifetimes
    ("null", MISS, Reason.UNKNOWN, None, Agreement.AGREE),
    ("null", MISS, Reason.SYSTEM_CHANGED, Cause.EDITED, Agreement.UNDECIDED),
    ("cache_hit", HIT, None, None, Agreement.AGREE),
    ("cache_hit", MISS, Reason.TOOLS_CHANGED, None, Agreement.OURS),
    ("cache_hit", MISS, Reason.TTL_EXPIRED, None, Agreement.OURS),
    ("cache_hit", Status.PARTIAL, Reason.MESSAGES_CHANGED, None, Agreement.UNDECIDED),
    ("system_changed", MISS, Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, Agreement.AGREE),
    ("system_changed", MISS, Reason.TOOLS_CHANGED, None, Agreement.UNDECIDED),
    ("system_changed", MISS, Reason.UNKNOWN, None, Agreement.THEIRS),
    ("system_changed", HIT, None, None, Agreement.OURS),
    ("system_changed", COLD, None, None, Agreement.SILENT),
    ("tools_changed", MISS, Reason.TTL_EXPIRED, None, Agreement.UNDECIDED),
    ("model_changed", MISS, Reason.PARAMETERS_CHANGED, Cause.SPEED, Agreement.AGREE),
    ("input_changed", MISS, Reason.SYSTEM_CHANGED, None, Agreement.AGREE),
    ("input_changed", MISS, Reason.MESSAGES_CHANGED, None, Agreement.AGREE),
    ("reasoning_effort_changed", MISS, Reason.PARAMETERS_CHANGED, Cause.REASONING_EFFORT, Agreement.AGREE),
    ("reasoning_effort_changed", MISS, Reason.PARAMETERS_CHANGED, Cause.VERBOSITY, Agreement.UNDECIDED),
    ("prompt_cache_key_changed", MISS, Reason.CACHE_KEY_CHANGED, None, Agreement.AGREE),
    ("prefix_changed", MISS, Reason.TOOLS_CHANGED, None, Agreement.AGREE),
    ("pending", MISS, Reason.TOOLS_CHANGED, None, Agreement.SILENT),
    ("unavailable", MISS, Reason.PARAMETERS_CHANGED, Cause.THINKING, Agreement.SILENT),
    ("previous_message_not_found", HIT, None, None, Agreement.SILENT),
    ("a_word_of_tomorrow", MISS, Reason.TOOLS_CHANGED, None, Agreement.SILENT),
    ("tools_changed", Status.UNKNOWN, Reason.USAGE_NOT_REPORTED, None, Agreement.SILENT),
]


@pytest.mark.parametrize(("theirs", "status", "reason", "cause", "outcome"), JUDGED)
def test_agreement(theirs: str, status: Status, reason: Any, cause: Any, outcome: Agreement) -> None:
    """The same place is agreement; else the token counts judge, and what they do not settle is undecided."""
    assert witness.agreement(theirs, Diagnosis(status, reason, cause)) is outcome


@pytest.mark.parametrize(
    ("said", "word", "label"),
    [
        ((("type", "tools_changed"), ("missed_tokens", 5)), "tools_changed", "tools_changed"),
        ((("type", "cache_miss"), ("reason", "input_changed")), "input_changed", "input_changed"),
        ((("type", "pending"),), "pending", "pending"),
        ((("type", "a_word_of_tomorrow"),), "a_word_of_tomorrow", "__other__"),
    ],
)
def test_words(said: Any, word: str, label: str) -> None:
    """The most telling one; as a label, documented ones only."""
    assert (witness.word(said), witness.label(said)) == (word, label)
