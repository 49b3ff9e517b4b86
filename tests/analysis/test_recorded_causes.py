"""What real servers were sent, with one cause of a miss after another, and what is said of each request."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.analysis import exchanges, replay
from otel_promptcache.analysis.comparison import compare
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.semconv import Cause, Reason, Status

ENGINES = ("vllm", "sglang", "llama_cpp")

HIT = (Status.HIT, None, None)
SYSTEM = Reason.SYSTEM_CHANGED
SAID: dict[str, tuple[Status | None, Reason | None, Cause | None]] = {
    # By what was done to the request; a status of None is a miss of which the server read some, little or nothing.
    "cold": (Status.COLD, None, None),
    "repeat": HIT,
    "new_tail": HIT,
    "append_turn": HIT,
    "timestamp_in_front": (None, SYSTEM, Cause.TIMESTAMP),
    "timestamp_in_front_again": (None, SYSTEM, Cause.TIMESTAMP),
    "timestamp_at_end": HIT,
    "whitespace_drift": (None, SYSTEM, Cause.WHITESPACE),
    "edit_middle": (None, SYSTEM, Cause.EDITED),
    "history_truncated": HIT,
    "stream_usage": HIT,
    "stream_no_usage": (Status.UNKNOWN, Reason.USAGE_NOT_REPORTED, None),
    "responses": HIT,
    "responses_stream": HIT,
    "anthropic_cold": (Status.COLD, None, None),
    "anthropic_repeat": HIT,
    "anthropic_stream": HIT,
    "anthropic_append": HIT,
    "anthropic_edited": (None, SYSTEM, Cause.EDITED),
}
READ_ALL_THE_SAME = {
    # This llama.cpp had been running for a while, and held these prompts: the counts say that nothing was lost. The
    # slot that answered the cut history held the edited prompt, and the others had been given to other prompts. What it
    # read it says beside its times, also in a stream that nobody asked for usage.
    "llama_cpp": dict.fromkeys(
        ("cold", "timestamp_in_front", "timestamp_in_front_again", "whitespace_drift", "anthropic_cold",
         "anthropic_edited", "stream_no_usage"),
        HIT,
    ) | {"history_truncated": (Status.PARTIAL, Reason.PROVIDER_EVICTED, None)},
}  # fmt: skip


@pytest.fixture(scope="module", params=ENGINES)
def sequence(request: pytest.FixtureRequest, recorded: Path) -> tuple[str, list[tuple[str, dict[str, Any], Judged]]]:
    """Engine; what was done, the body and the verdict of each request."""
    file = recorded / "selfhosted" / f"{request.param}_live.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["sequence"]
    found = replay.replay(exchanges.read([str(file)]).exchanges)
    assert len(found) == len(rows)
    bodies = [dict(one.exchange.body) for one in found]
    return request.param, list(zip((row["case"] for row in rows), bodies, found, strict=True))


def test_every_labelled_cause(sequence: tuple[str, list[tuple[str, dict[str, Any], Judged]]]) -> None:
    engine, requests = sequence
    for label, _, one in requests:
        status, reason, cause = READ_ALL_THE_SAME.get(engine, {}).get(label, SAID[label])
        said = one.diagnosis
        assert (said.reason, said.cause) == (reason, cause), label
        if status is None:
            assert said.status in (Status.MISS, Status.PARTIAL), label
            assert 2 * (one.usage.read or 0) < one.usage.input_total, label
        else:
            assert said.status is status, label
        if status is Status.HIT:
            assert (one.usage.read or 0) >= 0.85 * (said.expected or 0), label


def test_a_change_is_named_whatever_the_server_held(
    sequence: tuple[str, list[tuple[str, dict[str, Any], Judged]]],
) -> None:
    """Two bodies beside one another: what was done shows, also where the server had seen the second one before."""
    bodies = {label: body for label, body, _ in sequence[1]}
    pairs = {
        "timestamp_in_front": "repeat",
        "timestamp_in_front_again": "timestamp_in_front",
        "whitespace_drift": "repeat",
        "edit_middle": "repeat",
        "anthropic_edited": "anthropic_repeat",
    }
    for label, before in pairs.items():
        first = compare(bodies[before], bodies[label]).differences[0]
        assert (first.reason, first.cause) == SAID[label][1:], label
    for label, before in (("append_turn", "repeat"), ("anthropic_append", "anthropic_repeat")):
        assert not compare(bodies[before], bodies[label]).differences, label


def test_caching_that_the_request_turns_off(recorded: Path) -> None:
    """The third of four equal requests says ``cache_prompt: false``."""
    file = recorded / "cassettes" / "llamacpp_rig_prompt_caching_cache_prompt_disabled.json"
    found = [one.diagnosis for one in replay.replay(exchanges.read([str(file)]).exchanges)]
    assert [said.status for said in found] == [Status.COLD, Status.HIT, Status.UNCACHEABLE, Status.HIT]
    assert found[2].reason is Reason.BREAKPOINT_MISSING


def test_tools_that_were_added_while_the_agent_worked(recorded: Path) -> None:
    file = recorded / "cassettes" / "deepseek_pydantic_ai_test_deepseek_test_deepseek_deferred_capability_with_thinking.json"  # fmt: skip # noqa: E501
    found = [one.diagnosis for one in replay.replay(exchanges.read([str(file)]).exchanges)]
    assert (found[1].reason, found[1].cause) == (Reason.TOOLS_CHANGED, Cause.ADDED)


def test_cassettes_without_a_change_name_none(recorded: Path) -> None:
    """Where only the last message is another one, nothing in the prompt is blamed: what a file does not show, such as
    when it was sent, is unknown."""
    changed = 0
    for file in sorted((recorded / "cassettes").glob("*.json")):
        for case in exchanges.read([str(file)]).cases():
            for before, one in itertools.pairwise(replay.replay(case)):
                said = one.diagnosis
                if said.cause is not None:
                    changed += 1
                    assert compare(before.exchange.body, one.exchange.body).differences, (file.name, said)
                elif said.status in (Status.MISS, Status.PARTIAL):
                    assert said.reason in (Reason.UNKNOWN, Reason.USAGE_NOT_REPORTED), (file.name, said)
    assert changed >= 1
