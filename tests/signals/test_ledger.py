"""Log records: the ledger, one event a call whatever a sampler says, and the prompt map."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anthropic
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from servers.application import MODEL, Clients, message, observed, text

from otel_promptcache import attribute, conversation, prompt, route, strategy
from otel_promptcache.emulator import Emulator
from otel_promptcache.semconv import FIELDS


@route("/chat")
@conversation("conversation-1")
@strategy("long-ttl")
@prompt("answer", "v3")
@attribute(team="search", feature="summary", tenant="acme", user="alice")
def two_versions(clients: Clients) -> None:
    """A cold call and a miss, with every attribution there is."""
    for first in ("one", "two"):
        clients.anthropic.messages.create(**message(f"{first}\n" + text(1999), text(10)))


# --- The ledger: one event a call ---------------------------------------------------------------------------


def test_exactly_the_documented_fields(clients: Clients) -> None:
    """Ids, attribution, token classes, money, verdict, digests; nothing is left out because there is much to say."""
    with observed(ledger="true") as seen:
        two_versions(clients)
        missed = seen.ledger[1]
    assert sorted(missed) == [
        "gen_ai.conversation.id",
        "gen_ai.prompt.name",
        "gen_ai.prompt.version",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "promptcache.attr.feature",
        "promptcache.attr.team",
        "promptcache.attr.tenant",
        "promptcache.attr.user",
        "promptcache.call.id",
        "promptcache.cause",
        "promptcache.confidence",
        "promptcache.cost.output",
        "promptcache.cost.read",
        "promptcache.cost.total",
        "promptcache.cost.uncached",
        "promptcache.cost.without_cache",
        "promptcache.cost.write",
        "promptcache.duration",
        "promptcache.evidence",
        "promptcache.expected_tokens",
        "promptcache.fingerprint",
        "promptcache.hit_depth",
        "promptcache.key.id",
        "promptcache.line",
        "promptcache.lineage.id",
        "promptcache.lost.tokens",
        "promptcache.lost.usd",
        "promptcache.path",
        "promptcache.prefix.chain",
        "promptcache.prefix.id",
        "promptcache.price.version",
        "promptcache.reason",
        "promptcache.route",
        "promptcache.schema",
        "promptcache.status",
        "promptcache.strategy",
        "promptcache.uncached_tokens",
        "promptcache.write.tokens.5m",
    ]


def test_what_they_say(clients: Clients) -> None:
    """A miss of 2000 tokens, because the first of two lines of the system prompt was rewritten."""
    with observed(ledger="true") as seen:
        two_versions(clients)
        missed = seen.ledger[1]
    expected = {
        "gen_ai.conversation.id": "conversation-1",
        "gen_ai.prompt.name": "answer",
        "gen_ai.prompt.version": "v3",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_write.input_tokens": 2000,
        "gen_ai.usage.input_tokens": 2010,
        "gen_ai.usage.output_tokens": 50,
        "promptcache.attr.feature": "summary",
        "promptcache.attr.team": "search",
        "promptcache.attr.tenant": "acme",
        "promptcache.cause": "edited",
        "promptcache.confidence": "likely",
        "promptcache.evidence": "equal=0/2",
        "promptcache.expected_tokens": 2000,
        "promptcache.line": 1,
        "promptcache.lost.tokens": 2000,
        "promptcache.path": "system[0]",
        "promptcache.reason": "system_changed",
        "promptcache.route": "/chat",
        "promptcache.schema": 1,
        "promptcache.status": "miss",
        "promptcache.strategy": "long-ttl",
        "promptcache.uncached_tokens": 10,
        "promptcache.write.tokens.5m": 2000,
    }
    assert {name: missed[name] for name in expected} == expected
    money = {
        "promptcache.cost.read": 0,
        "promptcache.cost.write": 2000 * 3.75e-6,
        "promptcache.cost.uncached": 10 * 3e-6,
        "promptcache.cost.output": 50 * 15e-6,
        "promptcache.cost.total": 2000 * 3.75e-6 + 10 * 3e-6 + 50 * 15e-6,
        "promptcache.cost.without_cache": 2010 * 3e-6 + 50 * 15e-6,
        "promptcache.lost.usd": 2000 * (3.75e-6 - 0.3e-6),
    }
    assert {name: missed[name] for name in money} == pytest.approx(money)


def test_calls_of_every_kind_have_documented_fields_only(clients: Clients) -> None:
    """One event each, failed ones too, and no field that the reference does not list for the ledger."""
    create = clients.anthropic.messages.create
    with observed(ledger="true") as seen:
        two_versions(clients)
        for _ in create(**message(text(2000), text(10), stream=True)):
            pass
        create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "no_usage"})
        with pytest.raises(anthropic.APIStatusError):
            for _ in create(
                **message(text(2000), text(10), stream=True), extra_headers={"x-emulator-fault": "error_event"}
            ):
                pass
        with pytest.raises(anthropic.InternalServerError):
            create(**message(text(2000), text(10)), extra_headers={"x-emulator-fault": "500"})
        create(**message(text(2000), text(10), ttl="1h"))
        create(**message(text(2000), text(10), model="claude-of-tomorrow"))
        events = seen.ledger
    assert len(events) == 8
    documented = {name for name, field in FIELDS.items() if "ledger" in field.signals.split(", ")}
    prefixes = ("promptcache.attr.", "promptcache.price.", "promptcache.write.tokens.")
    for event in events:
        assert {name for name in event if not name.startswith(prefixes)} <= documented
    assert [event.get("error.type") for event in events] == [None] * 4 + ["overloaded_error", "api_error"] + [None] * 2
    assert "gen_ai.response.time_to_first_chunk" in events[2]
    assert events[3]["promptcache.usage.available"] is False
    assert "promptcache.cost.total" not in events[7]


def test_a_record_is_small(clients: Clients) -> None:
    """At most 1.5 KB of serialised OTLP for a miss, beside what the application itself has said of it."""
    said = ("gen_ai.conversation.id", "gen_ai.prompt", "promptcache.attr", "promptcache.strategy", "promptcache.route")
    with observed(ledger="true") as seen:
        two_versions(clients)
        seen.settle()
        (resource,) = encode_logs(seen.records.get_finished_logs()).resource_logs
        (scope,) = resource.scope_logs
        _, missed = scope.log_records
    named = [pair for pair in missed.attributes if pair.key == "event.name"]  # by APIs before 1.35
    assert (getattr(missed, "event_name", "") or named[0].value.string_value) == "promptcache.call"
    assert missed.ByteSize() <= 2048
    kept = [attribute for attribute in missed.attributes if not attribute.key.startswith(said)]
    assert len(missed.attributes) - len(kept) == 9
    del missed.attributes[:]
    missed.attributes.extend(kept)
    assert missed.ByteSize() <= 1536


def test_no_text_leaves_the_process(clients: Clients) -> None:
    """Not of the prompt, not of tools, not of the answer, in neither event."""
    with observed(ledger="true", prompt_map="true") as seen:
        for first in ("one", "two"):
            clients.anthropic.messages.create(
                **message(f"{first}\nsystem-words " + text(2000), "question-words " + text(20)),
                tools=[{"name": "tool_name", "description": "tool-words", "input_schema": {"type": "object"}}],
            )
        seen.settle()
        written = encode_logs(seen.records.get_finished_logs()).SerializeToString()
        assert len(seen.ledger) == len(seen.maps) == 2
    for words in (b"system-words", b"question-words", b"tool_name", b"tool-words", b"abc abc", b"out out"):
        assert words not in written


def test_a_user_is_hashed(clients: Clients) -> None:
    """The same user has the same token under one key, another under another key."""

    def user(key: str) -> str:
        with observed(ledger="true", hash_key=key) as seen, attribute(user="alice"):
            clients.anthropic.messages.create(**message(text(10), text(10)))
            (event,) = seen.ledger
            return str(event["promptcache.attr.user"])

    assert user("secret") == user("secret") != user("other")
    assert "alice" not in user("secret")


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_trace_and_span_are_those_of_the_call(emulated: Emulator, sampler: Sampler) -> None:
    """The ids are the ones that are current while the request is on its way, whether or not the span is exported."""
    current: list[trace.SpanContext] = []

    def note(_: object) -> None:
        current.append(trace.get_current_span().get_span_context())

    client = anthropic.Anthropic(
        base_url=emulated.url,
        api_key="sk-test",
        http_client=anthropic.DefaultHttpxClient(event_hooks={"request": [note]}),
    )
    with observed(ledger="true", sampler=sampler) as seen:
        with seen.tracer_provider.get_tracer("app").start_as_current_span("parent") as parent:
            client.messages.create(**message(text(10), text(10)))
        client.close()
        (record,) = seen.events("promptcache.call")
        exported = {span.context.span_id for span in seen.calls}
    (sent,) = current
    assert (record.trace_id, record.span_id) == (sent.trace_id, sent.span_id)
    assert record.trace_id == parent.get_span_context().trace_id
    assert record.span_id not in (0, parent.get_span_context().span_id)
    assert exported == ({record.span_id} if sampler is ALWAYS_ON else set())


def test_nothing_when_off(clients: Clients) -> None:
    with observed() as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        seen.settle()
        assert seen.records.get_finished_logs() == ()


# --- The prompt map -----------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """One segment of a prompt map: 11 bytes, as the reference documents them."""

    digest: bytes
    length: int
    section: int
    kind: int
    minutes: int
    """Lifetime of the breakpoint behind it, 0 without one."""


TOOLS, SYSTEM, MESSAGES = 1, 2, 4
TEXT, TOOL = 0, 1


def decoded(packed: str) -> list[Segment]:
    raw = base64.b64decode(packed, validate=True)
    assert len(raw) % 11 == 0
    found = []
    for start in range(0, len(raw), 11):
        part = raw[start : start + 11]
        found.append(Segment(part[:6], int.from_bytes(part[6:9], "big"), part[9] >> 4, part[9] & 15, part[10]))
    return found


def reconstructed(maps: Sequence[Mapping[str, Any]]) -> list[list[Segment]]:
    """The whole prompt behind each map, from the deltas alone."""
    known: dict[str, list[Segment]] = {}
    prompts = []
    for one in maps:
        base = known[one["promptcache.map.base"]] if "promptcache.map.base" in one else []
        shared = base[: one["promptcache.map.shared"]]
        assert len(shared) == one["promptcache.map.shared"]
        whole = shared + decoded(one["promptcache.map"])
        known[one["promptcache.prefix.chain"]] = whole
        prompts.append(whole)
    return prompts


def shapes(segments: Sequence[Segment]) -> list[tuple[int, int, int, int]]:
    return [tuple(segment[1:]) for segment in segments]  # type: ignore[misc]


def conversation_of(clients: Clients, turns: Sequence[str], tools: Sequence[Any] = ()) -> None:
    """One call, its breakpoints behind the system prompt and behind the last turn: the one that moves."""
    asked = message(text(1500), *turns, ttl="1h")
    asked["messages"][-1]["content"] = [
        {"type": "text", "text": turns[-1], "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    ]
    clients.anthropic.messages.create(**asked, **({"tools": list(tools)} if tools else {}))


def test_a_first_request_is_mapped_whole(clients: Clients) -> None:
    """Tools, system, messages in cache order, each with its length in bytes and the breakpoint behind it."""
    with observed(prompt_map="true") as seen:
        tool = {"name": "look", "description": "x" * 100, "input_schema": {"type": "object"}}
        conversation_of(clients, [text(20)], [tool])
        (found,) = seen.maps
    assert sorted(found) == [
        "promptcache.call.id",
        "promptcache.key.id",
        "promptcache.map",
        "promptcache.map.shared",
        "promptcache.prefix.chain",
        "promptcache.schema",
    ]
    assert found["promptcache.map.shared"] == 0
    segments = decoded(found["promptcache.map"])
    assert [segment[2:] for segment in segments] == [(TOOLS, TOOL, 0), (SYSTEM, TEXT, 60), (MESSAGES, TEXT, 5)]
    assert segments[0].length > 100
    assert [segment.length for segment in segments[1:]] == [6000, 80]


def test_a_conversation_from_its_deltas(clients: Clients) -> None:
    """Each map repeats nothing but the turn whose breakpoint has moved on; together they give every whole prompt."""
    turns = [text(20, word) for word in ("one", "two", "six", "ten", "yes")]
    with observed(prompt_map="true", hash_key="secret") as seen:
        for count in (1, 3, 5):
            conversation_of(clients, turns[:count])
        maps = seen.maps
    assert [one["promptcache.map.shared"] for one in maps] == [0, 1, 3]
    first, second, third = reconstructed(maps)
    system = (6000, SYSTEM, TEXT, 60)
    said, marked = (80, MESSAGES, TEXT, 0), (80, MESSAGES, TEXT, 5)
    assert shapes(first) == [system, marked]
    assert shapes(second) == [system, said, said, marked]
    assert shapes(third) == [system, said, said, said, said, marked]
    assert [one.digest for one in second] == [one.digest for one in third[:4]]
    assert len({one.digest for one in third}) == 6


def test_a_rewritten_turn(clients: Clients) -> None:
    """The base is a whole earlier prompt, of which the delta takes over what stands in front of the change."""
    turns = [text(20, word) for word in ("one", "two", "six", "ten", "yes")]
    with observed(prompt_map="true") as seen:
        conversation_of(clients, turns)
        conversation_of(clients, [turns[0], text(30, "new"), *turns[2:]])
        maps = seen.maps
    assert maps[1]["promptcache.map.base"] == maps[0]["promptcache.prefix.chain"]
    assert maps[1]["promptcache.map.shared"] == 2
    before, after = reconstructed(maps)
    assert [segment.length for segment in after] == [6000, 80, 120, 80, 80, 80]
    assert [one.digest == other.digest for one, other in zip(before, after, strict=True)] == [
        *(True, True, False),
        *(True, True, True),
    ]


def test_a_repeated_request_says_only_so(clients: Clients) -> None:
    with observed(prompt_map="true") as seen:
        for _ in range(2):
            conversation_of(clients, [text(20)])
        first, second = seen.maps
    assert second["promptcache.map"] == ""
    assert second["promptcache.map.shared"] == 2
    assert second["promptcache.map.base"] == second["promptcache.prefix.chain"] == first["promptcache.prefix.chain"]


def test_a_long_prompt_is_cut_and_says_so(clients: Clients) -> None:
    """1001 segments do not fit into 8 KiB: the first 558 do. Two more turns fit again."""
    turns = [f"turn {number}" for number in range(1003)]
    with observed(prompt_map="true") as seen:
        for count in (999, 1003):
            clients.anthropic.messages.create(**message(text(1500), *turns[:count]))
        first, second = seen.maps
    assert len(first["promptcache.map"]) <= 8192
    assert len(decoded(first["promptcache.map"])) == 558
    assert first["promptcache.map.truncated"] is True
    assert len(decoded(second["promptcache.map"])) == 4
    assert "promptcache.map.truncated" not in second


def test_the_map_belongs_to_a_call(clients: Clients) -> None:
    """Ledger and map name the same call."""
    with observed(ledger="true", prompt_map="true") as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        (call,), (found,) = seen.ledger, seen.maps
    for name in ("promptcache.call.id", "promptcache.prefix.chain", "promptcache.key.id"):
        assert call[name] == found[name]


def test_no_map_unless_asked_for(clients: Clients) -> None:
    with observed(ledger="true") as seen:
        clients.anthropic.messages.create(**message(text(2000), text(10)))
        assert seen.maps == []
