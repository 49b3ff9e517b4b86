"""Reading the ledger: OTLP JSON lines as the Collector's file exporter writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.analysis.ledger import LedgerCall, Reading, before, calls, events, unknown_for_its_key, verdict
from otel_promptcache.diagnosis import actor, explanation
from otel_promptcache.semconv import SCHEMA


def pair(key: str, value: Any) -> dict[str, Any]:
    kind = {str: "stringValue", int: "intValue", float: "doubleValue", bool: "boolValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def line(*records: dict[str, Any], at: int = 1_763_733_600, name: str = "promptcache.call") -> str:
    """An export of these records, a line of the file."""
    logs = [
        {
            "timeUnixNano": str((at + index) * 10**9),
            "severityNumber": 9,
            "body": {},
            "attributes": [pair(*item) for item in record.items()],
            "eventName": name,
        }
        for index, record in enumerate(records)
    ]
    scope = {"scope": {"name": "otel_promptcache", "version": "0.1.0"}, "logRecords": logs}
    return json.dumps({"resourceLogs": [{"resource": {}, "scopeLogs": [scope]}]}) + "\n"


CALL: dict[str, Any] = {
    "promptcache.call.id": "one",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-6",
    "gen_ai.response.model": "claude-sonnet-4-6-20260115",
    "gen_ai.usage.input_tokens": 3100,
    "gen_ai.usage.cache_read.input_tokens": 2000,
    "gen_ai.usage.cache_write.input_tokens": 1000,
    "promptcache.uncached_tokens": 100,
    "promptcache.cost.read": 0.0006,
    "promptcache.cost.write": 0.00375,
    "promptcache.cost.uncached": 0.0003,
    "promptcache.route": "/chat",
    "promptcache.lineage.id": "lineage",
    "promptcache.key.id": "0123abcd",
    "promptcache.fingerprint": "tools:aaaaaaaaaaaa,system:bbbbbbbbbbbb,messages:cccccccccccc",
}


def read(*lines: str) -> tuple[list[LedgerCall], Reading]:
    reading = Reading()
    return list(calls(lines, reading)), reading


def test_a_call() -> None:
    """Everything that is asked of it, and no more."""
    (found,), _ = read(line(CALL))
    assert found == LedgerCall(
        identity="one",
        at=1_763_733_600,
        provider="anthropic",
        model="claude-sonnet-4-6",
        route="/chat",
        conversation="lineage",
        key_id="0123abcd",
        sections=("tools:aaaaaaaaaaaa", "system:bbbbbbbbbbbb"),
        read=2000,
        write=1000,
        uncached=100,
        cost_read=0.0006,
        cost_write=0.00375,
        cost_uncached=0.0003,
    )


def test_a_call_of_which_little_is_known() -> None:
    """A failed one has no counts, and no price is not the price 0."""
    (found,), _ = read(line({"promptcache.call.id": "one", "error.type": "api_error"}))
    assert (found.read, found.sections, found.cost_read) == (0, (), None)


def test_each_call_once() -> None:
    """An export whose answer was lost is sent again."""
    found, reading = read(line(CALL, CALL | {"promptcache.call.id": "two"}), line(CALL))
    assert [call.identity for call in found] == ["one", "two"]
    assert reading.repeated == 1


@pytest.mark.parametrize(("schema", "read_it"), [(SCHEMA - 1, True), (SCHEMA, True), (SCHEMA + 1, False)])
def test_two_versions_in_one_ledger(schema: int, read_it: bool) -> None:
    """This one's words and those of the one before are known; what is newer is counted, and not guessed at."""
    found, reading = read(line(CALL), line(CALL | {"promptcache.call.id": "two", "promptcache.schema": schema}))
    assert len(found) == 1 + read_it
    assert reading.of_another_schema == (not read_it)


def test_the_name_of_older_exporters() -> None:
    """An attribute, where the field of its own did not exist yet."""
    found, _ = read(line(CALL | {"event.name": "promptcache.call"}, name=""))
    assert len(found) == 1


def test_other_events() -> None:
    """Of ours and of anybody are passed over."""
    found, reading = read(line(CALL, name="promptcache.prompt"), line({"said": "promptcache.call"}, name=""), "\n")
    assert found == []
    assert reading.unreadable == 0


@pytest.mark.parametrize("spoilt", [line(CALL)[:200], line(CALL)[:-20], '{"resourceLogs": "promptcache.call"}'])
def test_a_line_that_cannot_be_read(spoilt: str) -> None:
    """Is counted; the others are read."""
    found, reading = read(spoilt, line(CALL))
    assert len(found) == 1
    assert (reading.lines, reading.unreadable) == (2, 1)


@given(some.text(max_size=80))
def test_no_line_raises(text: str) -> None:
    """Whatever stands in the file."""
    read(text, text + "promptcache.call", json.dumps({"resourceLogs": [text, "promptcache.call"]}))


TALK = {"gen_ai.conversation.id": "talk", "promptcache.status": "cold"}


@pytest.mark.parametrize(
    ("first", "second", "mismatch"),
    [
        ({}, {"promptcache.key.id": "ffff0000"}, True),
        ({}, {}, False),  # the same key: its digests compare, and there are none
        ({}, {"promptcache.key.id": "ffff0000", "promptcache.status": "hit"}, False),
        ({}, {"promptcache.key.id": "ffff0000", "gen_ai.conversation.id": "another talk"}, False),
        ({}, {"promptcache.key.id": "ffff0000", "gen_ai.conversation.id": ""}, False),
        ({}, {"promptcache.key.id": "ffff0000", "gen_ai.request.model": "claude-opus-5"}, False),
        ({"promptcache.key.id": ""}, {"promptcache.key.id": "ffff0000"}, False),  # of the first nothing was taken
    ],
    ids=["another key", "the same key", "a hit", "another conversation", "none", "another model", "no key"],
)
def test_a_call_whose_predecessor_has_another_key(
    first: dict[str, Any], second: dict[str, Any], mismatch: bool
) -> None:
    """Two processes without a common key take turns in one conversation."""
    records = (CALL | TALK | first, CALL | TALK | second | {"promptcache.call.id": "two"})
    found = list(events([line(*records)], Reading(), "promptcache.call"))
    assert before(found, found[0]) is None
    assert unknown_for_its_key(found[1], before(found, found[1])) is mismatch


MISS = CALL | {
    "promptcache.status": "miss",
    "promptcache.reason": "ttl_expired",
    "promptcache.confidence": "certain",
    "promptcache.also": "system_changed",
    "promptcache.evidence": "equal=7/9;gap=310.5;ttl=300",
}


def test_the_verdict_of_a_record_can_be_said_again() -> None:
    """What the ledger leaves out, the tables have: the sentence, who can act, the rule and its source."""
    found = verdict(MISS)
    assert found is not None
    assert (found.status, found.reason, found.confidence) == ("miss", "ttl_expired", "certain")
    assert found.evidence is not None
    assert found.evidence[:5] == (7, 9, 310.5, 300, 1024)
    assert found.evidence.source.startswith("platform.claude.com")
    said = explanation(found)
    assert said.startswith("The cached prefix had expired. 7 of 9 segments are equal, 310.5 s lie between")
    assert actor(found) == "application"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"promptcache.evidence": "equal=7/9"}, (7, 9, None, None)),
        ({"promptcache.evidence": "equal=7/9;truncated"}, (7, 9, None, None)),
        ({"promptcache.evidence": "equal=many"}, None),
        ({"promptcache.evidence": 5}, None),
    ],
    ids=str,
)
def test_evidence_of_any_form(fields: dict[str, Any], told: tuple[Any, ...] | None) -> None:
    found = verdict(MISS | fields)
    assert found is not None
    assert (found.evidence and found.evidence[:2] + found.evidence[2:4]) == told
    assert (found.evidence is not None and found.evidence.truncated) is ("truncated" in str(fields))


@pytest.mark.parametrize("fields", [{"promptcache.status": "splendid"}, {"promptcache.reason": "the_moon"}], ids=str)
def test_words_of_a_later_version_are_no_verdict(fields: dict[str, Any]) -> None:
    assert verdict(MISS | fields) is None
    assert verdict({}) is None
