"""Whatever goes in and whatever comes back: the application sees what it sees without us, and we count."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from time import process_time
from typing import Any

import pytest
from openai.resources.responses import Responses

AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hi"}],
}
OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
HAS_COMPACT = hasattr(Responses, "compact")
TM: dict[str, Any] = {"model": "gpt-5.6"}
RM: dict[str, Any] = {"model": "gpt-5.6", "input": "hi"}
INPUT = "gen_ai.client.inference.usage.input_tokens"


def under(body, words):
    return {**body, "model": f"{body['model']}+{words}"}


def saying(content):
    return {**AM, "messages": [{"role": "user", "content": content}]}


def seen(value):
    if hasattr(value, "model_dump"):
        return type(value).__qualname__, value.model_dump(warnings=False)
    if isinstance(value, list):
        return [seen(item) for item in value]
    return value


def outcome(call, clients):
    """What the application gets: an object, or an exception with its text."""

    async def whole():
        try:
            return await call(clients)
        finally:
            await clients.aclose()

    try:
        return seen(asyncio.run(whole()) if inspect.iscoroutinefunction(call) else call(clients))
    except Exception as error:
        return type(error).__qualname__, str(error)


def same(call, connect, observe, **options):
    """Makes the call without us and with us, sees no difference, and gives what telemetry says of it."""
    without_us = outcome(call, connect(**options))
    telemetry = observe(ledger="true", prompt_map="true")
    assert outcome(call, connect(**options)) == without_us
    assert telemetry.total("promptcache.internal.errors") == 0
    return telemetry


# --- What goes in -----------------------------------------------------------------------------------------

DEEP: Any = "bottom"
for _ in range(400):
    DEEP = [DEEP]

BODIES = {
    "no messages": {**AM, "messages": []},
    "messages null": {**AM, "messages": None},
    "messages a string": {**AM, "messages": "hi"},
    "messages of anything": {**AM, "messages": [None, 5, "hi", [], {}, {"role": 5}, {"content": "x"}]},
    "messages a tuple": {**AM, "messages": ({"role": "user", "content": "hi"},)},
    "content null": saying(None),
    "content a number": saying(5),
    "content empty": saying([]),
    "content of anything": saying([None, 5, "hi", {}, {"type": None}, {"type": 5, "text": 5}, {"type": []}]),
    "unknown blocks": saying([{"type": "crystal_ball", "vision": {"cloudy": True}}]),
    "nested deep": saying([{"type": "tool_result", "content": DEEP}]),
    "nul": saying("a\0b"),
    "control characters": saying("\x01\x1b[31m\u2028\ufeff"),
    "every plane": saying("\N{SNOWMAN} \N{PILE OF POO} \U0010ffff"),
    "lone surrogate": saying("half a \ud83d pair"),
    "lone surrogate in a key": saying([{"type": "text", "\ud83d": 1}]),
    "a number beyond all": saying([{"type": "x", "value": 10**400}]),
    "not a number": saying([{"type": "x", "value": float("nan")}]),
    "bytes": saying(b"hi"),
    "a set": saying({"hi"}),
    "an object": saying(object()),
    "system null": {**AM, "system": None},
    "system a number": {**AM, "system": 5},
    "system of anything": {**AM, "system": [None, 5, {"type": "text"}, {"cache_control": 5}]},
    "tools of anything": {**AM, "tools": [None, 5, {}, {"name": 5, "cache_control": {"ttl": []}}]},
    "cache_control of anything": {**AM, "cache_control": [1]},
    "parameters of anything": {**AM, "thinking": 5, "tool_choice": [], "output_config": "x", "speed": {}},
    "thread of anything": {**AM, "extra_body": {"thread": {"previous_message_id": 5}}},
    "extra body": {**AM, "extra_body": {"vision": [1], "system": "from the extra body"}},
    "extra body with another model": {**AM, "extra_body": {"model": "claude-opus-4-6"}},
    "model null": {**AM, "model": None},
    "model a number": {**AM, "model": 5},
    "model long": {**AM, "model": "claude-" + "x" * 10_000},
    "model strange": {**AM, "model": "claude\n\0\N{SNOWMAN}"},
    "max_tokens a string": {**AM, "max_tokens": "many"},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_request_bodies(body, connect, observe, provider, quiet):
    """Any body reaches the provider as it would without us, or fails in the SDK's own words."""
    telemetry = same(lambda clients: clients.anthropic.messages.create(**body), connect, observe)
    assert telemetry.total("promptcache.calls") <= 1
    if provider.asked:
        first, second = provider.asked
        assert first.raw == second.raw
        assert telemetry.total("promptcache.calls") == 1


CHAT_BODIES = {
    "messages null": {**OM, "messages": None},
    "messages of anything": {**OM, "messages": [None, 5, {"role": "tool", "tool_call_id": 5, "tool_calls": [None]}]},
    "parts of anything": {**OM, "messages": [{"role": "user", "content": [None, {"type": 5}, {"type": "text"}]}]},
    "reasoning": {**OM, "messages": [{"role": "assistant", "content": None, "reasoning_content": {"a": 1}}]},
    "tools of anything": {**OM, "tools": [None, {"type": "function", "function": 5}]},
    "options of anything": {**OM, "extra_body": {"prompt_cache_options": 5, "prompt_cache_retention": []}},
    "key a number": {**OM, "prompt_cache_key": 5},
    "lone surrogate": {**OM, "messages": [{"role": "user", "content": "\ud800"}]},
}
COMPLETION_BODIES = {
    "prompt null": {**TM, "prompt": None},
    "prompt of anything": {**TM, "prompt": [None, 5, "hi", {}, []]},
    "prompt of tokens": {**TM, "prompt": [1, 2, 3]},
    "prompt an object": {**TM, "prompt": {"a": 1}},
    "lone surrogate": {**TM, "prompt": "\ud800"},
    "a salt of anything": {**TM, "prompt": "hi", "extra_body": {"cache_salt": [{}]}},
}
RESPONSE_BODIES = {
    "input null": {**RM, "input": None},
    "input a number": {**RM, "input": 5},
    "input of anything": {**RM, "input": [None, 5, {}, {"type": 5}, {"role": "user", "content": [None, 5]}]},
    "instructions a number": {**RM, "instructions": 5},
    "conversation of anything": {**RM, "conversation": {"id": 5}, "previous_response_id": 7},
    "text of anything": {**RM, "text": 5, "reasoning": [], "tool_choice": {}},
    "lone surrogate": {**RM, "input": "\ud800"},
}


@pytest.mark.parametrize("body", CHAT_BODIES.values(), ids=CHAT_BODIES)
def test_chat_bodies(body, connect, observe, provider, quiet):
    """The same for Chat Completions."""
    same(lambda clients: clients.openai.chat.completions.create(**body), connect, observe)
    assert len({ask.raw for ask in provider.asked}) <= 1


@pytest.mark.parametrize("body", RESPONSE_BODIES.values(), ids=RESPONSE_BODIES)
def test_response_bodies(body, connect, observe, provider, quiet):
    """The same for Responses."""
    same(lambda clients: clients.openai.responses.create(**body), connect, observe)
    assert len({ask.raw for ask in provider.asked}) <= 1


@pytest.mark.parametrize("body", COMPLETION_BODIES.values(), ids=COMPLETION_BODIES)
def test_completion_bodies(body, connect, observe, provider, quiet):
    """The same for text completions."""
    same(lambda clients: clients.openai.completions.create(**body), connect, observe)
    assert len({ask.raw for ask in provider.asked}) <= 1


STREAM_OPTIONS = [None, 5, [], "x", {}, {"include_usage": "x"}, {"include_usage": []}, {5: 5}]


@pytest.mark.parametrize("said", STREAM_OPTIONS, ids=repr)
def test_stream_options_of_anything(said, connect, observe, provider, quiet):
    """Where usage is asked for, too."""

    def call(clients):
        chunks = clients.openai.chat.completions.create(stream=True, stream_options=said, **OM)
        return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]

    without_us = outcome(call, connect())
    telemetry = observe(stream_usage="true")
    assert outcome(call, connect()) == without_us
    assert telemetry.total("promptcache.internal.errors") == 0


def test_messages_from_a_generator(connect, observe, provider, quiet):
    """What can be read once is read once, by the SDK."""

    def call(clients):
        messages = ({"role": "user", "content": part} for part in ("one", "two"))
        return clients.anthropic.messages.create(**{**AM, "messages": messages})

    telemetry = same(call, connect, observe)
    assert [message["content"] for message in provider.asked[1].body["messages"]] == ["one", "two"]
    assert telemetry.span.attributes["promptcache.status"] == "hit"


RAW = {"not json": b"\xff\x00 not json", "empty": b"", "a list": b"[1, 2]", "json": json.dumps(AM).encode()}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_body_given_as_bytes(raw, connect, observe, provider, quiet):
    """``client.post(content=...)``: we cannot read the prompt, the provider's counts we can."""

    def call(clients):
        headers = {"content-type": "application/json"}
        return clients.anthropic.post("/v1/messages", cast_to=object, content=raw, options={"headers": headers})

    telemetry = same(call, connect, observe)
    assert {ask.raw for ask in provider.asked} == {raw}
    assert (telemetry.total("promptcache.calls"), telemetry.total(INPUT)) == (1, 5100)


def test_a_request_that_the_sdk_cannot_build(connect, observe, provider, quiet):
    """An error before anything is sent is the application's, and no call."""

    def call(clients):
        return clients.anthropic.messages.create(**saying(object()))

    telemetry = same(call, connect, observe)
    assert provider.asked == []
    assert telemetry.total("promptcache.calls") == 0
    assert telemetry.spans == []


def test_nothing_of_the_request_is_changed(connect, observe, provider, quiet):
    """The application's own objects are as they were, cache markers and all."""
    body = {
        **AM,
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "y"}]}]}
        ],
    }
    kept = json.dumps(body)
    same(lambda clients: clients.anthropic.messages.create(**body), connect, observe)
    assert json.dumps(body) == kept
    assert provider.asked[0].raw == provider.asked[1].raw
    ours = [{k: v for k, v in ask.headers.items() if k != "x-stainless-retry-count"} for ask in provider.asked]
    assert ours[0] == ours[1]


def test_many_messages(connect, observe, quiet):
    """A conversation beyond our limits is observed by its beginning."""
    body = {**AM, "messages": [{"role": "user", "content": f"message {n}"} for n in range(20_500)]}
    telemetry = same(lambda clients: clients.anthropic.messages.create(**body), connect, observe)
    assert telemetry.total(INPUT) == 5100


@pytest.mark.slow
def test_a_prompt_of_100_megabytes(connect, http, observe):
    """It costs what sending it costs, and not a multiple: of the processor, for others may be busy, too."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": []}
    usage = {"input_tokens": 25_000_000, "output_tokens": 1}
    respond = lambda _: http.Response(200, json={**message, "usage": usage})  # noqa: E731
    body = saying("All work and no play. " * 4_766_255)

    def seconds():
        began = process_time()
        connect(respond=respond).anthropic.messages.create(**body)
        return process_time() - began

    without_us = seconds()
    telemetry = observe()
    assert seconds() < without_us + 2
    assert telemetry.total(INPUT) == 25_000_000


# --- What comes back --------------------------------------------------------------------------------------

# What goes wrong, and what is known of the call in the end: whole, as a stream of Anthropic's, of OpenAI's.
ANSWERS = [
    ("nousage", "no usage", "no usage", "no usage"),
    ("nullusage", "no usage", "no usage", "no usage"),
    ("html200", "no usage", "no usage", "no usage"),
    ("html502", "error", "error", "error"),
    ("badjson", "error", "no usage", "no usage"),
    ("empty", "error", "no usage", "no usage"),
    ("unknown", "usage", "usage", "usage"),
    ("truncated", "usage", "usage", "no usage"),
    ("429", "error", "error", "error"),
    ("500", "error", "error", "error"),
    ("529", "error", "error", "error"),
    ("cut", "error", "usage, error", "error"),
]
CALLS = {
    "anthropic": lambda c, words: c.anthropic.messages.create(**under(AM, words)),
    "anthropic stream": lambda c, words: list(c.anthropic.messages.create(stream=True, **under(AM, words))),
    "anthropic helper": lambda c, words: _final(c.anthropic.messages.stream(**under(AM, words))),
    "chat": lambda c, words: c.openai.chat.completions.create(**under(OM, words)),
    "chat stream": lambda c, words: list(
        c.openai.chat.completions.create(stream=True, stream_options={"include_usage": True}, **under(OM, words))
    ),
    "responses": lambda c, words: c.openai.responses.create(**under(RM, words)),
    "responses stream": lambda c, words: list(c.openai.responses.create(stream=True, **under(RM, words))),
    "compact": lambda c, words: c.openai.responses.compact(**under(RM, words)),
    "completion": lambda c, words: c.openai.completions.create(prompt="hi", **under(TM, words)),
    "completion stream": lambda c, words: list(
        c.openai.completions.create(
            prompt="hi", stream=True, stream_options={"include_usage": True}, **under(TM, words)
        )
    ),
}


def _final(manager):
    with manager as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize(("words", "whole", "anthropic", "openai"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_answers(words, whole, anthropic, openai, kind, connect, observe, quiet):
    """Broken, empty, foreign and refused answers: one call and one span each, and what can be known of it."""
    if kind == "compact" and not HAS_COMPACT:
        pytest.skip("this openai SDK cannot compact")
    telemetry = same(lambda clients: CALLS[kind](clients, words), connect, observe)
    expected = whole if " " not in kind else anthropic if kind.startswith("anthropic") else openai
    durations = telemetry.points("gen_ai.client.operation.duration")
    found = {
        "usage": telemetry.total(INPUT) > 0,
        "no usage": telemetry.total("promptcache.usage_missing.calls") == 1,
        "error": any("error.type" in labels for labels, _ in durations),
    }
    assert ", ".join(name for name, holds in found.items() if holds) == expected
    assert (len(telemetry.spans), telemetry.total("promptcache.calls")) == (1, 1)


USAGES = {
    "empty": ({}, None),
    "a list": ([1, 2], None),
    "a string": ("many", None),
    "a number": (5, None),
    "a string within": ({"input_tokens": "12"}, None),
    "negative": ({"input_tokens": -5, "output_tokens": 1}, None),
    "true": ({"input_tokens": True}, None),
    "a fraction": ({"input_tokens": 1.5}, None),
    "not finite": ({"input_tokens": float("inf")}, None),
    "a float": ({"input_tokens": 12.0, "output_tokens": 3.0}, 12),
    "parts of anything": ({"input_tokens": 12, "cache_read_input_tokens": "x", "cache_creation": 5}, 12),
    "read null": ({"input_tokens": 12, "cache_read_input_tokens": None, "output_tokens": None}, 12),
    "more read than there is": ({"input_tokens": 0, "cache_read_input_tokens": 7, "output_tokens": 0}, 7),
    "split beyond the total": (
        {"input_tokens": 1, "cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 50}},
        6,
    ),
    "unknown fields": ({"input_tokens": 12, "output_tokens": 1, "service_tier": 7, "server_tool_use": []}, 12),
}


def anthropic_answer(**more):
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": [], **more}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        *(pytest.param(*row, id=name) for name, row in USAGES.items()),
        pytest.param({"input_tokens": 10**30, "output_tokens": 1}, None, id="beyond 64 bits"),
    ],
)
def test_usage_of_any_form(usage, tokens, stream, connect, http, streamed, observe, quiet):
    """What is no count is not counted; what is, is; and all that we say can be exported."""

    def respond(_):
        message = anthropic_answer(usage=usage)
        if stream:
            start = json.dumps({"type": "message_start", "message": message})
            return streamed([f"event: message_start\ndata: {start}\n\n".encode()])
        body = json.dumps(message).encode()
        return http.Response(200, headers={"content-type": "application/json"}, content=body)

    def call(clients):
        with clients.anthropic.messages.with_streaming_response.create(stream=stream, **AM) as response:
            return response.read()

    telemetry = same(call, connect, observe, respond=respond)
    assert telemetry.total("promptcache.calls") == 1
    assert telemetry.total(INPUT) == (tokens or 0)
    assert telemetry.total("promptcache.usage_missing.calls") == (1 if tokens is None else 0)
    exported(telemetry)


DOCUMENTS = {
    "a list": [],
    "a number": 5,
    "null": None,
    "an empty object": {},
    "an error": {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
    "an error that is none": {"type": "error", "error": None},
    "everything of another type": anthropic_answer(id=5, model=[], stop_reason={}, usage=None, diagnostics="x"),
    "lone surrogates": anthropic_answer(id="\ud800", model="\udfff", stop_reason="\ud800", usage={"input_tokens": 3}),
    "long": anthropic_answer(id="i" * 100_000, model="m" * 100_000, usage={"input_tokens": 3}),
    "diagnostics of anything": anthropic_answer(usage=None, diagnostics={"cache_miss_reason": {"type": 5}}),
    "diagnostics": anthropic_answer(usage=None, diagnostics={"cache_miss_reason": {"type": "x" * 100_000}}),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_answers_of_any_form(document, connect, http, observe, caplog):
    """Any JSON may come back; what we say of it can be exported."""
    body = json.dumps(document).encode()
    headers = {"content-type": "application/json"}

    def call(clients):
        return clients.anthropic.messages.with_raw_response.create(**AM).http_response.content

    telemetry = same(call, connect, observe, respond=lambda _: http.Response(200, headers=headers, content=body))
    assert telemetry.total("promptcache.calls") == 1
    assert [record.getMessage() for record in caplog.records if "no price is known" not in record.getMessage()] == []
    exported(telemetry)


def exported(telemetry):
    """Encodes everything as an OTLP exporter does: what cannot be sent spoils what is sent with it."""
    traces = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    metrics = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.metrics_encoder")
    assert traces.encode_spans(telemetry.spans).ByteSize() < 100_000
    assert metrics.encode_metrics(telemetry.collect()).ByteSize() < 100_000


CONTENT_TYPES = [
    "",
    "text/plain",
    "application/json; charset=latin-1",
    "TEXT/EVENT-STREAM",
    "text/event-stream",
    "\xff",
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_content_types(kind, stream, connect, http, observe, quiet):
    """A content type that is missing, odd or wrong costs the usage at most."""
    body = json.dumps(anthropic_answer(usage={"input_tokens": 3, "output_tokens": 1})).encode()

    def respond(_):
        return http.Response(200, headers=[(b"content-type", kind.encode("latin-1"))] if kind else [], content=body)

    def call(clients):
        created = clients.anthropic.messages.create(stream=stream, **AM)
        return list(created) if stream else created

    telemetry = same(call, connect, observe, respond=respond)
    assert telemetry.total("promptcache.calls") == 1


async def _async_compressed(clients):
    return [event.type async for event in await clients.async_anthropic.messages.create(stream=True, **AM)]


@pytest.mark.parametrize("cut", [1, 10, 40, -1])
def test_a_compressed_body_that_ends_too_early(cut, connect, streamed, observe, quiet):
    """Half a gzip stream: the application reads what it can, and so do we."""
    start = json.dumps({"type": "message_start", "message": anthropic_answer(usage={"input_tokens": 3})})
    body = gzip.compress(f"event: message_start\ndata: {start}\n\n".encode())[:cut]
    telemetry = same(_async_compressed, connect, observe, respond=lambda _: streamed([body], content_encoding="gzip"))
    assert telemetry.total("promptcache.calls") == 1
