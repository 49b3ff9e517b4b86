"""Every reason and every cause: one case in which it is said, and one, much like it, in which it is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from test_diagnosis import (
    EPHEMERAL,
    SYSTEM,
    TALK,
    Body,
    Client,
    anthropic_body,
    chat_body,
    counted,
    prose,
    rewrite_system,
    tool,
    turns,
    wire_usage,
)
from test_reasons import LONG, marked, talk

from otel_promptcache.analysis.ledger import Event, unknown_for_its_key
from otel_promptcache.semconv import KEY_ID, STATUS, Cause, Reason

Case = Callable[[], Reason | None]


def second(
    first: Body, then: Body, usage: Any = ..., *, dialect: str = "anthropic", before: Any = ..., **how: Any
) -> Reason | None:
    """The reason of the second of two requests."""
    client = Client(dialect)
    client.send(first, before)
    return client.send(then, usage, **how).reason


def with_tools(*names: str, length: int = 3) -> Body:
    return anthropic_body(length) | {"tools": [tool(name) for name in names]}


def system(length: int, change: Callable[[str], str]) -> Body:
    body = anthropic_body(length)
    rewrite_system(body, change)
    return body


def held(total: int, read: int) -> Body:
    return wire_usage("openai_responses", total, read, 0)


def gpt(length: int, model: str = "gpt-4.1", **more: Any) -> Body:
    return chat_body(length) | {"model": model, **more}


def answers(body: Body, edits: Any = None) -> Body:
    return body | ({"context_management": edits} if edits else {})


def rolled(*places: int, length: int) -> Body:
    return marked(talk(*LONG[:length]), *(("messages", place) for place in places))


def frozen(last: int) -> Reason | None:
    client = Client()
    reasons = [client.send(rolled(0, min(last, n - 1), length=n)).reason for n in (3, 9, 13, 17)]
    return reasons[-1]


def limit(places: int) -> Reason | None:
    client = Client()
    others = [("tools", n) for n in range(places - 1)]
    reasons = [client.send(marked(talk(*LONG[:n]), *others, ("system", 1))).reason for n in (3, 9, 13, 17)]
    return reasons[-1]


def looked_back(blocks: int) -> Reason | None:
    content = [{"type": "text", "text": f"Point {n}: {prose(f'p{n}', 2)}"} for n in range(blocks)]
    later = anthropic_body(1) | {"messages": [*turns(*TALK[:2]), {"role": "user", "content": content}]}
    return second(anthropic_body(1), later)


def together(begun: bool) -> Reason | None:
    client = Client()
    call = client.start(anthropic_body(1))
    if begun:
        client.finish(call)
        return client.send(anthropic_body(3)).reason
    other = client.start(anthropic_body(1), after=1.0)
    client.finish(call, wire_usage("anthropic", 5000, 0, 4990))
    return client.finish(other, wire_usage("anthropic", 5000, 0, 4990)).reason


def minimum(lines: int, write: int) -> Reason | None:
    body = {"model": "claude-opus-5", "cache_control": EPHEMERAL, "system": prose("x", lines), "messages": turns("Hi")}
    return Client().send(body, wire_usage("anthropic", len(str(body)) // 4, 0, write)).reason


def evicted(read_all: bool) -> Reason | None:
    usage = ... if read_all else wire_usage("anthropic", 5000, 0, 4990)
    return second(anthropic_body(1), anthropic_body(3), usage)


def overflow(requests: int) -> Reason | None:
    client = Client("openai_chat")
    for number in range(requests):
        client.send(gpt(1), counted(3000, 2944 if number else 0, 0, "openai_chat"), after=1.0)
    return client.send(gpt(1), counted(3000, 0, 0, "openai_chat"), after=1.0).reason


def of_a_gateway(read: int) -> Reason | None:
    """A host that nobody knows and that promises nothing."""
    client = Client("openai_chat")
    client.send(gpt(1, "deepseek-v4"), counted(3000, 0, 0, "openai_chat"), host="api.deepseek.com")
    usage = counted(3000, read, 0, "openai_chat")
    return client.send(gpt(1, "deepseek-v4"), usage, host="api.deepseek.com").reason


def unexplained(server_tools: bool) -> Reason | None:
    """A search at the provider makes of one request several: counts then tell no lengths."""
    usage = wire_usage("anthropic", 5000, 0, 4990) | (
        {"server_tool_use": {"web_search_requests": 1}} if server_tools else {}
    )
    return second(anthropic_body(1), anthropic_body(3), usage)


def other_key(same: bool) -> Reason | None:
    events = [Event("promptcache.call", {KEY_ID: key, STATUS: "cold"}, at, "") for at, key in ((1, "a"), (2, "b"))]
    mismatch = unknown_for_its_key(events[1], events[1] if same else events[0])
    return Reason.KEY_MISMATCH if mismatch else None


def context(edits: Any) -> Reason | None:
    client = Client("openai_responses")
    first = {"model": "gpt-5.4", "instructions": SYSTEM, "input": "Hello there, this is the question."}
    client.send(answers(first, edits), held(3000, 0), response_id="r1")
    later = answers(first | {"previous_response_id": "r1", "input": "And then?"}, edits)
    return client.send(later, held(3100, 0)).reason


def compacted(summary: list[str]) -> Reason | None:
    texts = LONG[:11]
    return second(talk(*texts), talk(*summary, *texts[8:], "And then what happened to it?", "Nothing.", "Really?"))


def ttl(first: str, then: str) -> Reason | None:
    bodies = [
        marked(talk(*LONG[:n]), ("system", 1), ("messages", n - 1), ttl=life) for n, life in ((3, first), (5, then))
    ]
    return second(bodies[0], bodies[1], counted(4000, 0, 3900, "anthropic"), after=400)


REASONS: dict[Reason, tuple[Case, Case]] = {
    Reason.MODEL_CHANGED: (
        lambda: second(anthropic_body(3), anthropic_body(5) | {"model": "claude-sonnet-5"}),
        lambda: second(anthropic_body(3), anthropic_body(3) | {"model": "claude-sonnet-5"}),  # asked of both
    ),
    Reason.TOOLS_CHANGED: (
        lambda: second(with_tools("a", "b"), with_tools("b", "a", length=5)),
        lambda: second(with_tools("a", "b"), with_tools("a", "b", length=5)),
    ),
    Reason.SYSTEM_CHANGED: (
        lambda: second(anthropic_body(3), system(5, lambda text: text.replace("Rule 3", "Law 3"))),
        lambda: second(anthropic_body(3), system(1, lambda _: prose("another agent"))),
    ),
    Reason.MESSAGES_CHANGED: (
        lambda: second(talk(*LONG[:5]), talk(LONG[0] + "!", *LONG[1:7])),
        lambda: second(talk(*LONG[:5]), talk(*LONG[:4], "Something else")),  # the last turn, once more
    ),
    Reason.HISTORY_TRUNCATED: (
        lambda: second(talk(*LONG[:9]), talk(*LONG[4:11])),
        lambda: second(talk(*LONG[:9]), talk(*LONG[:5])),  # a rewind
    ),
    Reason.HISTORY_COMPACTED: (
        lambda: compacted(["So far: " + prose("summary", 12), "I see."]),
        lambda: compacted(LONG[:8]),
    ),
    Reason.CONTEXT_CHANGED: (
        lambda: context([{"type": "compaction"}]),
        lambda: context(None),
    ),
    Reason.PARAMETERS_CHANGED: (
        lambda: second(anthropic_body(3), anthropic_body(5) | {"tool_choice": {"type": "any"}}),
        lambda: second(anthropic_body(3), anthropic_body(5) | {"tool_choice": {"type": "auto"}}),  # the default
    ),
    Reason.CACHE_KEY_CHANGED: (
        lambda: second(gpt(3), gpt(5, prompt_cache_key="k"), dialect="openai_chat"),
        lambda: second(gpt(3, prompt_cache_key="k"), gpt(5, prompt_cache_key="k"), dialect="openai_chat"),
    ),
    Reason.SCOPE_CHANGED: (
        lambda: second(anthropic_body(3), anthropic_body(5), credential="theirs"),
        lambda: second(anthropic_body(3), anthropic_body(5), route="/elsewhere"),
    ),
    Reason.BREAKPOINT_MISSING: (
        lambda: second(marked(talk(*LONG[:3])), marked(talk(*LONG[:5]))),
        lambda: second(marked(talk(*LONG[:3]), ("system", 1)), marked(talk(*LONG[:5]), ("system", 1))),
    ),
    Reason.MARKER_LOST: (
        lambda: second(marked(talk(*LONG[:3]), ("system", 1)), marked(talk(*LONG[:5]))),
        lambda: second(marked(talk(*LONG[:3]), ("system", 1)), marked(talk(*LONG[:5])), route="/export"),
    ),
    Reason.BREAKPOINT_MOVED: (
        lambda: second(rolled(4, length=5), marked(talk(*LONG[:7]), ("tools", 2))),
        lambda: second(rolled(4, length=5), rolled(4, 6, length=7)),
    ),
    Reason.BREAKPOINT_MISPLACED: (
        lambda: second(rolled(0, length=1), marked(talk(LONG[6]), ("messages", 0))),
        lambda: second(
            marked(talk(LONG[0]), ("system", 1), ("messages", 0)), marked(talk(LONG[6]), ("system", 1), ("messages", 0))
        ),
    ),
    Reason.BREAKPOINT_FROZEN: (lambda: frozen(2), lambda: frozen(99)),
    Reason.BREAKPOINT_LIMIT: (lambda: limit(4), lambda: limit(2)),
    Reason.LOOKBACK_EXCEEDED: (lambda: looked_back(30), lambda: looked_back(5)),
    Reason.TTL_CHANGED: (lambda: ttl("1h", "5m"), lambda: ttl("1h", "1h")),
    Reason.TTL_EXPIRED: (
        lambda: second(anthropic_body(1), anthropic_body(3), after=301),
        lambda: second(anthropic_body(1), anthropic_body(3), after=299),
    ),
    Reason.CONCURRENT_WRITE: (lambda: together(begun=False), lambda: together(begun=True)),
    Reason.WRITE_NOT_VISIBLE: (
        lambda: second(anthropic_body(1), anthropic_body(3), wire_usage("anthropic", 5000, 0, 4990), after=1),
        lambda: second(anthropic_body(1), anthropic_body(3), wire_usage("anthropic", 5000, 0, 4990), after=9),
    ),
    Reason.BELOW_MINIMUM: (lambda: minimum(4, 0), lambda: minimum(110, 1900)),
    Reason.NEAR_MINIMUM: (lambda: minimum(60, 0), lambda: minimum(60, 700)),
    Reason.PROVIDER_EVICTED: (lambda: evicted(read_all=False), lambda: evicted(read_all=True)),
    Reason.ROUTING_OVERFLOW: (lambda: overflow(20), lambda: overflow(5)),
    Reason.IMPLICIT_UNRELIABLE: (lambda: of_a_gateway(0), lambda: of_a_gateway(2944)),
    Reason.UNSUPPORTED: (lambda: minimum(110, 0), lambda: minimum(110, 1900)),
    Reason.USAGE_NOT_REPORTED: (
        lambda: second(anthropic_body(1), anthropic_body(3), None),
        lambda: second(anthropic_body(1), anthropic_body(3), wire_usage("anthropic", 9, 0, 0)),  # zero is reported
    ),
    Reason.KEY_MISMATCH: (lambda: other_key(same=False), lambda: other_key(same=True)),
    Reason.UNKNOWN: (lambda: unexplained(server_tools=True), lambda: unexplained(server_tools=False)),
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_where_it_belongs_and_nowhere_else(reason: Reason) -> None:
    said, not_said = REASONS[reason]
    assert said() is reason
    assert not_said() is not reason


# --- Causes -------------------------------------------------------------------------------------------------

Edit = Callable[[Body], object]


def line(text: str) -> Edit:
    """Line 40 of the system prompt becomes this."""

    def edit(body: Body) -> None:
        rewrite_system(body, lambda old: "\n".join([*old.split("\n")[:39], text, *old.split("\n")[40:]]))

    return edit


def text(old: str, new: str) -> Edit:
    return lambda body: rewrite_system(body, lambda whole: whole.replace(old, new))


def field(name: str, value: Any) -> Edit:
    return lambda body: body.update({name: value})


def described(index: int, change: Callable[[Body], Body]) -> Edit:
    def edit(body: Body) -> None:
        body["tools"][index] = change(body["tools"][index])

    return edit


def sent(index: int, content: Any) -> Edit:
    """A message of the history has this content."""
    return lambda body: body["messages"][index].update(content=content)


def cause(before: Edit, after: Edit, *, dialect: str = "anthropic") -> Cause | None:
    """What is said of the second turn of a conversation, whose requests were made by these."""
    client, make = Client(dialect), {"anthropic": anthropic_body, "openai_chat": chat_body}[dialect]
    for length, edit in ((3, before), (5, after)):
        body = copy.deepcopy(make(length))
        edit(body)
        said = client.send(body)
    return said.cause


def picture(data: str) -> list[Body]:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]


def paper(data: str) -> list[Body]:
    return [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}]


def thought(*kinds: str) -> list[Body]:
    thinking = {"type": "thinking", "thinking": prose("thought", 6), "signature": "s"}
    answer = {"type": "text", "text": prose("said", 6)}
    return [thinking, answer] if kinds else [answer]


def passages(*topics: str) -> Edit:
    found = "\n".join(f"[doc {topic}]\n{prose(topic, 6)}" for topic in topics)
    return lambda body: rewrite_system(body, lambda whole: f"Answer from these.\n{found}\n{whole}")


def signed(signature: str, host: str = "a") -> list[Body]:
    url = f"https://{host}.example/plan.png?X-Amz-Date=2026&X-Amz-Signature={signature}"
    return [{"type": "text", "text": "Look."}, {"type": "image", "source": {"type": "url", "url": url}}]


def recurrent(turns_in_a_row: int) -> Cause | None:
    client, texts = Client(), list(LONG[:9])
    client.send(talk(*texts))
    for number in range(turns_in_a_row):
        texts[number] = texts[number].replace("Rule", "Old rule")
        texts += [f"Then {number}: {prose(f'then {number}', 3)}", f"So {number}: {prose(f'so {number}', 3)}"]
        said = client.send(talk(*texts))
    return said.cause


def parameter(name: str, one: Any, other: Any, dialect: str = "openai_chat") -> tuple[Callable[[], Cause | None], ...]:
    """A parameter that differs, and one that does not."""
    return (
        lambda: cause(field(name, one), field(name, other), dialect=dialect),
        lambda: cause(field(name, one), field(name, one), dialect=dialect),
    )


def pair(before: Edit, after: Edit, unlike: Edit) -> tuple[Callable[[], Cause | None], ...]:
    """An edit that is the cause, and one that is not."""
    return (lambda: cause(before, after), lambda: cause(before, unlike))


KEPT: Edit = bool
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}, "query": {"type": "string"}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}

CAUSES: dict[Cause, tuple[Callable[[], Cause | None], ...]] = {
    Cause.TIMESTAMP: pair(line("It is 9:05."), line("It is 9:06."), line("It is late.")),
    Cause.DATE_ROLLOVER: pair(line("Heute: 30.11.2026"), line("Heute: 1.12.2026"), line("Heute: Ruhetag")),
    Cause.IDENTIFIER: pair(line("Trace 4bf92f3577b34da6"), line("Trace 00f067aa0ba902b7"), line("Trace every step")),
    Cause.COUNTER: pair(line("Versuch 3 von 9"), line("Versuch 4 von 9"), line("Viele Versuche")),
    Cause.USER_DATA: pair(line("Kundin: Ana Sousa"), line("Kundin: Li Wei"), line("Wer fragt, bekommt Antwort")),
    Cause.ENVIRONMENT: pair(line("cwd: /srv/a"), line("cwd: /srv/bb"), line("Work where you are")),
    Cause.CLIENT_HEADER: pair(line("x-build: aa; cch=1f;"), line("x-build: bc; cch=2e;"), line("Mind the headers")),
    Cause.URL_SIGNATURE: (
        lambda: cause(sent(0, signed("aa")), sent(0, signed("bb"))),
        lambda: cause(sent(0, signed("aa")), sent(0, signed("aa", host="b"))),
    ),
    Cause.WHITESPACE: pair(KEPT, text("Rule 9 on", "Rule 9  on"), text("Rule 9 on", "Rule 9, on")),
    Cause.LINE_ENDINGS: pair(KEPT, text("\n", "\r\n"), text("\n", "\n\n")),
    Cause.UNICODE: pair(line("Café “ouvert”"), line('Cafe\u0301 "ouvert"'), line("Cafe ouvert")),
    Cause.KEY_ORDER: pair(
        KEPT,
        described(1, lambda one: one | {"input_schema": SCHEMA}),
        described(1, lambda one: one | {"input_schema": {"type": "object"}}),
    ),
    Cause.FIELD_ORDER: pair(
        KEPT,
        described(1, lambda one: dict(reversed(one.items()))),
        described(1, lambda one: one | {"input_schema": SCHEMA}),
    ),
    Cause.RESERIALIZED: pair(
        sent(1, [{"type": "tool_use", "id": "t", "name": "n", "input": {"a": '{"b": 1}'}}]),
        sent(1, [{"type": "tool_use", "id": "t", "name": "n", "input": {"a": '{"b":1}'}}]),
        sent(1, [{"type": "tool_use", "id": "t", "name": "n", "input": {"a": '{"b": 2}'}}]),
    ),
    Cause.REORDERED: pair(KEPT, lambda body: body["tools"].reverse(), lambda body: body["tools"].append(tool("more"))),
    Cause.ADDED: pair(
        KEPT, lambda body: body["tools"].insert(1, tool("more")), described(1, lambda one: tool("other"))
    ),
    Cause.REMOVED: pair(KEPT, lambda body: body["tools"].pop(1), described(1, lambda one: tool("other"))),
    Cause.EDITED: pair(KEPT, line("Never lend what is not yours."), text("Rule 9 on", "Rule 9  on")),
    Cause.REPLACED: pair(passages("ants", "bees"), passages("cats", "dogs"), passages("bees", "ants")),
    Cause.RECURRENT_EDIT: (lambda: recurrent(2), lambda: recurrent(1)),
    Cause.IMAGE: pair(
        sent(0, picture("aGVsbG8=")),
        sent(0, picture("d29ybGQ=")),
        sent(0, [{"type": "text", "text": "What is that?"}, *picture("aGVsbG8=")[1:]]),
    ),
    Cause.DOCUMENT: pair(sent(0, paper("aGVsbG8=")), sent(0, paper("d29ybGQ=")), sent(0, paper("aGVsbG8="))),
    Cause.REASONING_DROPPED: pair(sent(1, thought("kept")), sent(1, thought()), sent(1, thought("kept"))),
    Cause.TOOL_CHOICE: parameter("tool_choice", {"type": "any"}, {"type": "auto"}, "anthropic"),
    Cause.THINKING: parameter(
        "thinking", {"type": "enabled", "budget_tokens": 2000}, {"type": "disabled"}, "anthropic"
    ),
    Cause.REASONING_EFFORT: parameter("reasoning_effort", "high", "low"),
    Cause.VERBOSITY: parameter("verbosity", "high", "low"),
    Cause.RESPONSE_FORMAT: parameter("response_format", {"type": "json_object"}, {"type": "text"}),
    Cause.SERVICE_TIER: parameter("service_tier", "flex", "priority"),
    Cause.SPEED: parameter("speed", "fast", "standard", "anthropic"),
    Cause.BETA_FEATURES: parameter("betas", ["a-2026-01-01"], ["b-2026-01-01"], "anthropic"),
    Cause.SERVER_TOOLS: pair(
        KEPT, lambda body: body["tools"].append(SEARCH), lambda body: body["tools"].append(tool("more"))
    ),
    Cause.LORA: parameter("lora_path", "one", "two"),
    Cause.CACHE_SALT: parameter("cache_salt", "one", "two"),
    Cause.CHAT_TEMPLATE: parameter("chat_template", "{{ a }}", "{{ b }}"),
}


@pytest.mark.parametrize("what", Cause)
def test_every_cause_where_it_belongs_and_nowhere_else(what: Cause) -> None:
    said, not_said = CAUSES[what]
    assert said() is what
    assert not_said() is not what
