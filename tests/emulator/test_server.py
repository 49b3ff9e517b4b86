"""The emulator over real HTTP, spoken to by the unmodified SDKs: every call shape, sync and async, and every fault."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import anthropic
import httpx2
import openai
import openai.types.responses.response_input_item_param as input_items
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from servers import until
from servers.ports import free_ports

from otel_promptcache.emulator import Clock, Emulator, Fault, Reply, app, emulator, engine
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.emulator.faults import HEADER
from otel_promptcache.emulator.reply import default, instance
from otel_promptcache.emulator.wire import BY_DIALECT, FORMATS, Wire
from otel_promptcache.semconv import Reason, Status

CLAUDE = "claude-opus-5"
SYSTEM = [{"type": "text", "text": "s" * 8000, "cache_control": {"type": "ephemeral"}}]
QUESTION = [{"role": "user", "content": "What is new?"}]
ASK: dict[str, Any] = {"model": CLAUDE, "max_tokens": 100, "system": SYSTEM, "messages": QUESTION}
CHAT: dict[str, Any] = {
    "model": "gpt-5.6",
    "messages": [{"role": "developer", "content": "s" * 8000}, {"role": "user", "content": "What is new?"}],
}
RESPOND: dict[str, Any] = {"model": "gpt-5.6", "instructions": "s" * 8000, "input": "What is new?"}
TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Weather(BaseModel):
    """What ``parse()`` is to give back."""

    city: str
    degrees: float
    days: list[str]
    wind: str | None


def faulty(fault: str) -> dict[str, Any]:
    return {"extra_headers": {HEADER: fault}}


class TestAnthropic:
    """Messages, through the Anthropic SDK."""

    def test_usage_in_the_wire_shape(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """2,000 tokens up to the mark, 3 behind it, first written and then read."""
        cold, warm = (claude.messages.create(**ASK).usage for _ in range(2))
        assert cold.to_dict() == {
            "input_tokens": 3,
            "cache_creation_input_tokens": 2000,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 6,
            "service_tier": "standard",
            "inference_geo": "global",
            "speed": "standard",
        }
        assert (warm.input_tokens, warm.cache_creation_input_tokens, warm.cache_read_input_tokens) == (3, 0, 2000)

    def test_raw_stream(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The first event has the lifetimes and one output token, the last the totals without lifetimes."""
        events = list(claude.messages.create(**ASK, stream=True))
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        started, ended = events[0].message.usage, events[-2].usage
        assert (started.output_tokens, started.cache_creation.ephemeral_5m_input_tokens) == (1, 2000)
        assert ended.to_dict() == {
            "input_tokens": 3,
            "cache_creation_input_tokens": 2000,
            "cache_read_input_tokens": 0,
            "output_tokens": 6,
        }

    def test_stream_helper(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The pieces make up the answer."""
        with claude.messages.stream(**ASK) as stream:
            said = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert said == final.content[0].text
        assert final.usage.cache_creation_input_tokens == 2000

    def test_raw_and_streamed_responses(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """With headers, and unread."""
        raw = claude.messages.with_raw_response.create(**ASK)
        assert raw.headers["request-id"].startswith("req_")
        assert raw.parse().usage.cache_creation_input_tokens == 2000
        with claude.messages.with_streaming_response.create(**ASK) as response:
            assert json.loads(b"".join(response.iter_bytes()))["usage"]["cache_read_input_tokens"] == 2000

    def test_parse(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The answer fits the schema, also on the beta endpoint and in a stream."""
        wanted = Weather(city="ok", degrees=0, days=[], wind="ok")
        plain = {"model": CLAUDE, "max_tokens": 100, "messages": QUESTION, "output_format": Weather}
        assert claude.messages.parse(**plain).parsed_output == wanted
        assert claude.beta.messages.parse(**plain).parsed_output == wanted
        with claude.messages.stream(**plain) as stream:
            assert stream.get_final_message().parsed_output == wanted

    def test_beta_messages_share_the_cache(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """``?beta=true`` is the same endpoint."""
        claude.messages.create(**ASK)
        assert claude.beta.messages.create(**ASK).usage.cache_read_input_tokens == 2000

    def test_count_tokens(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """What a call would be charged for, without touching the cache."""
        counted = claude.messages.count_tokens(model=CLAUDE, system=SYSTEM, messages=QUESTION)
        assert counted.input_tokens == 2003
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 0

    @pytest.mark.parametrize("streamed", [False, True])
    def test_tool_use(self, provider: Emulator, claude: anthropic.Anthropic, streamed: bool) -> None:
        """The stand-in model calls a tool, with words before it."""
        provider.answer = lambda body: Reply("Let me look.", [("weather", {"city": "Rome", "n": 2})])
        tools = [{"name": "weather", "input_schema": TOOL}]
        if streamed:
            with claude.messages.stream(**ASK, tools=tools) as stream:
                message = stream.get_final_message()
        else:
            message = claude.messages.create(**ASK, tools=tools)
        said, call = message.content
        assert (message.stop_reason, said.text) == ("tool_use", "Let me look.")
        assert (call.name, call.input) == ("weather", {"city": "Rome", "n": 2})
        assert call.id.startswith("toolu_")

    @pytest.mark.parametrize("threading_", [{}, {"thread": False}])
    def test_tool_runner(self, provider: Emulator, claude: anthropic.Anthropic, threading_: dict[str, Any]) -> None:
        """The loop reads its own prefix, whether the server holds the history or the client resends it."""

        @anthropic.beta_tool
        def weather(city: str) -> str:
            """The weather in a city."""
            return f"Sunny in {city}"

        def model(body: Any) -> Reply:
            asked = isinstance(body["messages"][-1]["content"], str)
            return Reply("", [("weather", {"city": "Rome"})]) if asked else Reply("It is sunny.")

        provider.answer = model
        runner = claude.beta.messages.tool_runner(
            **{**ASK, "system": "s" * 8000}, cache_control={"type": "ephemeral"}, tools=[weather], **threading_
        )
        first, second = (message.usage for message in runner)
        assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 2000
        held = [request.body.get("thread", {}).get("type") for request in provider.requests]
        assert held == ([None, None] if threading_ else ["create", "continue"])

    def test_an_unknown_thread_is_replayed_by_the_sdk(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """After a restart of the server the SDK sends the whole history again."""
        thread = claude.beta.messages.thread(model=CLAUDE, max_tokens=100)
        thread.send(*QUESTION)
        provider.reset()
        assert thread.send(*QUESTION).stop_reason == "end_turn"
        assert [request.status for request in provider.requests] == [404, 200]

    def test_marks_in_a_held_conversation_do_not_add_up(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Every turn may mark its own message; the earlier ones hold no marks any more."""
        thread = claude.beta.messages.thread(model=CLAUDE, max_tokens=100, system=SYSTEM)
        usages = [thread.send({"role": "user", "content": SYSTEM}).usage for _ in range(6)]
        assert [usage.cache_read_input_tokens for usage in usages] == [0, 4000, 6006, 8012, 10018, 12024]

    def test_warming_up(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """max_tokens 0 writes the entry and says nothing."""
        message = claude.messages.create(**{**ASK, "max_tokens": 0})
        assert (message.content, message.stop_reason, message.usage.output_tokens) == ([], "max_tokens", 0)
        assert message.usage.cache_creation_input_tokens == 2000
        with pytest.raises(anthropic.BadRequestError, match="stream: not supported"):
            claude.messages.create(**{**ASK, "max_tokens": 0}, stream=True)

    def test_output_limit(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """A longer answer is cut, one that just fits is not."""
        assert claude.messages.create(**{**ASK, "max_tokens": 6}).stop_reason == "end_turn"
        message = claude.messages.create(**{**ASK, "max_tokens": 3})
        assert (message.stop_reason, message.usage.output_tokens, len(message.content[0].text)) == ("max_tokens", 3, 12)

    async def test_async(self, provider: Emulator, async_claude: anthropic.AsyncAnthropic) -> None:
        """Create, raw stream, helper, parse and raw response."""
        message = await async_claude.messages.create(**ASK)
        assert message.usage.cache_creation_input_tokens == 2000
        events = [event.type async for event in await async_claude.messages.create(**ASK, stream=True)]
        assert events[-1] == "message_stop"
        async with async_claude.messages.stream(**ASK) as stream:
            assert (await stream.get_final_message()).usage.cache_read_input_tokens == 2000
        parsed = await async_claude.messages.parse(**ASK, output_format=Weather)
        assert parsed.parsed_output is not None
        raw = await async_claude.messages.with_raw_response.create(**ASK)
        assert (await raw.parse()).id.startswith("msg_")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"messages": None}, "messages: Field required"),
            ({"model": None}, "model: Field required"),
            ({"max_tokens": None}, "max_tokens: Field required"),
            ({"messages": []}, "messages: at least one message is required"),
            ({"system": SYSTEM * 5}, "A maximum of 4 blocks with cache_control may be provided. Found 5."),
            ({"system": SYSTEM * 4, "cache_control": {"type": "ephemeral"}}, "A maximum of 4 blocks"),
            (
                {"messages": [{"role": "user", "content": [{**SYSTEM[0], "cache_control": {"ttl": "1h"}}]}]},
                r"messages\.0\.content\.0\.cache_control\.ttl: a ttl='1h' cache_control block must not come after",
            ),
            ({"system": [{**SYSTEM[0], "text": ""}]}, "cannot be set for empty text blocks"),
            (
                {
                    "messages": [{"role": "user", "content": SYSTEM}],
                    "cache_control": {"type": "ephemeral", "ttl": "1h"},
                },
                "ttl differs from the marker on the last block",
            ),
        ],
    )
    def test_refusals(
        self, provider: Emulator, claude: anthropic.Anthropic, change: dict[str, Any], message: str
    ) -> None:
        """What the API refuses, the emulator refuses, in the API's words."""
        body = {name: value for name, value in {**ASK, **change}.items() if value is not None}
        with pytest.raises(anthropic.BadRequestError, match=message) as refusal:
            claude.post("/v1/messages", body=body, cast_to=object)
        assert refusal.value.body["error"]["type"] == "invalid_request_error"


class TestChat:
    """Chat Completions, through the OpenAI SDK."""

    def test_usage_in_the_wire_shape(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Read and written tokens lie inside the total."""
        cold, warm = (gpt.chat.completions.create(**CHAT).usage for _ in range(2))
        assert (cold.prompt_tokens, cold.completion_tokens, cold.total_tokens) == (2003, 6, 2009)
        assert cold.prompt_tokens_details.to_dict() == {
            "cached_tokens": 0,
            "cache_write_tokens": 2003,
            "audio_tokens": 0,
        }
        assert warm.prompt_tokens_details.cached_tokens == 2003

    def test_an_earlier_model_reports_no_writes(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Granules of 128."""
        for read in (0, 1920):
            details = gpt.chat.completions.create(**{**CHAT, "model": "gpt-4.1"}).usage.prompt_tokens_details
            assert (details.cached_tokens, details.cache_write_tokens) == (read, 0)

    @pytest.mark.parametrize("asked", [False, True])
    def test_stream_usage_comes_only_when_asked_for(self, provider: Emulator, gpt: openai.OpenAI, asked: bool) -> None:
        """In a last chunk without choices."""
        options = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = list(gpt.chat.completions.create(**CHAT, stream=True, **options))
        assert [chunk.usage.prompt_tokens for chunk in chunks if chunk.usage] == ([2003] if asked else [])
        assert bool(chunks[-1].choices) is not asked
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).startswith("This is answer")

    def test_stream_helper_and_parse(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """The answer fits the schema."""
        parsed = gpt.chat.completions.parse(**CHAT, response_format=Weather).choices[0].message.parsed
        assert parsed == Weather(city="ok", degrees=0, days=[], wind="ok")
        with gpt.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as stream:
            assert stream.get_final_completion().usage.prompt_tokens_details.cached_tokens == 0
        raw = gpt.chat.completions.with_raw_response.create(**CHAT)
        assert raw.parse().id.startswith("chatcmpl-")

    @pytest.mark.parametrize("streamed", [False, True])
    def test_tool_calls(self, provider: Emulator, gpt: openai.OpenAI, streamed: bool) -> None:
        """Two in one answer."""
        provider.answer = lambda body: Reply("", [("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})])
        if streamed:
            with gpt.chat.completions.stream(**CHAT) as stream:
                choice = stream.get_final_completion().choices[0]
        else:
            choice = gpt.chat.completions.create(**CHAT).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert [json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls] == ["Rome", "Oslo"]
        assert len({call.id for call in choice.message.tool_calls}) == 2

    async def test_async(self, provider: Emulator, async_gpt: openai.AsyncOpenAI) -> None:
        """Create, stream and parse."""
        await async_gpt.chat.completions.create(**CHAT)
        chunks = [chunk async for chunk in await async_gpt.chat.completions.create(**CHAT, stream=True)]
        assert chunks[-1].choices[0].finish_reason == "stop"
        parsed = await async_gpt.chat.completions.parse(**CHAT, response_format=Weather)
        assert parsed.usage.prompt_tokens_details.cached_tokens == 0  # the format belongs to the prefix

    def test_refusals(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """In the API's shape."""
        with pytest.raises(openai.BadRequestError) as refusal:
            gpt.post("/chat/completions", body={"model": "gpt-5.6"}, cast_to=object)
        assert (refusal.value.param, refusal.value.code) == ("messages", "missing_required_parameter")
        with pytest.raises(openai.BadRequestError, match="you must provide a model parameter"):
            gpt.post("/chat/completions", body={"messages": []}, cast_to=object)

    def test_warming_up(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """``prewarm`` writes and says nothing."""
        body = {**CHAT, "prompt_cache_options": {"prewarm": True}}
        usage = gpt.post("/chat/completions", body=body, cast_to=dict[str, Any])["usage"]
        assert (usage["prompt_tokens_details"]["cache_write_tokens"], usage["completion_tokens"]) == (2003, 0)


class TestResponses:
    """Responses, through the OpenAI SDK, and the history that the server holds."""

    def test_usage_in_the_wire_shape(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Written tokens by lifetime."""
        response = gpt.responses.create(**RESPOND)
        assert response.usage.input_tokens_details.to_dict() == {
            "cached_tokens": 0,
            "cache_write_tokens": 2003,
            "cache_write_tokens_details": {"ttl_30m_tokens": 2003, "ttl_12h_tokens": 0},
        }
        assert response.prompt_cache_options.to_dict() == {"mode": "implicit", "ttl": "30m"}

    def test_a_held_conversation_reads_as_if_it_were_resent(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Held by the server or sent by the client: the same prompt, the same tokens."""
        first = gpt.responses.create(**RESPOND)
        second = gpt.responses.create(**{**RESPOND, "input": "More."}, previous_response_id=first.id)
        assert second.usage.input_tokens == 2003 + 6 + 2
        assert second.usage.input_tokens_details.cached_tokens == 2003
        third = gpt.responses.create(**{**RESPOND, "input": "And?"}, previous_response_id=second.id)
        history = [
            {"role": "user", "content": "What is new?"},
            *first.output,
            {"role": "user", "content": "More."},
            *second.output,
            {"role": "user", "content": "And?"},
        ]
        resent = gpt.responses.create(**{**RESPOND, "input": history})
        assert resent.usage.input_tokens == third.usage.input_tokens
        assert resent.usage.input_tokens_details.cached_tokens == third.usage.input_tokens

    def test_what_is_not_stored_cannot_be_continued(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """``store=False``, an unknown id, another account."""
        unstored = gpt.responses.create(**RESPOND, store=False).id
        stored = gpt.responses.create(**RESPOND).id
        for client, previous in ((gpt, unstored), (gpt, "resp_none"), (gpt.with_options(api_key="other"), stored)):
            with pytest.raises(openai.BadRequestError) as refusal:
                client.responses.create(model="gpt-5.6", input="More.", previous_response_id=previous)
            assert refusal.value.code == "previous_response_not_found"

    def test_stream(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Numbered events around the text, the Response object at both ends."""
        events = list(gpt.responses.create(**RESPOND, stream=True))
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].response.usage is None
        assert events[-1].response.usage.input_tokens == 2003

    @pytest.mark.parametrize("streamed", [False, True])
    def test_function_calls(self, provider: Emulator, gpt: openai.OpenAI, streamed: bool) -> None:
        """The stand-in model calls a function; its result continues the held conversation."""
        provider.answer = lambda body: Reply("Let me look.", [("weather", {"city": "Rome"})])
        if streamed:
            with gpt.responses.stream(**RESPOND) as stream:
                response = stream.get_final_response()
        else:
            response = gpt.responses.create(**RESPOND)
        call = response.output[1]
        assert (call.type, json.loads(call.arguments)) == ("function_call", {"city": "Rome"})
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
        after = gpt.responses.create(**{**RESPOND, "input": [result]}, previous_response_id=response.id)
        assert after.usage.input_tokens_details.cached_tokens == 2003

    def test_parse_and_raw(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """The answer fits the schema."""
        assert gpt.responses.parse(**RESPOND, text_format=Weather).output_parsed is not None
        assert gpt.responses.with_raw_response.create(**RESPOND).parse().id.startswith("resp_")

    def test_output_limit(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """A longer answer is incomplete."""
        response = gpt.responses.create(**RESPOND, max_output_tokens=2)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    async def test_async(self, provider: Emulator, async_gpt: openai.AsyncOpenAI) -> None:
        """Create, stream and parse."""
        first = await async_gpt.responses.create(**RESPOND)
        async with async_gpt.responses.stream(**RESPOND, previous_response_id=first.id) as stream:
            assert (await stream.get_final_response()).usage.input_tokens_details.cached_tokens == 2003
        assert (await async_gpt.responses.parse(**RESPOND, text_format=Weather)).output_parsed is not None

    def test_conversations_are_not_known(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """There is no Conversations API here, so there is no such conversation."""
        with pytest.raises(openai.NotFoundError, match="Conversation with id 'conv_1' not found"):
            gpt.responses.create(**RESPOND, conversation="conv_1")


class TestErrors:
    """Errors come in the shape of the provider that is spoken to."""

    def test_bad_json(self, provider: Emulator) -> None:
        """Not JSON, and JSON that is no object."""
        for sent in (b"{", b"[]", b"[" * 100_000):
            answer = httpx2.post(provider.url + "/v1/responses", content=sent, headers={"authorization": "Bearer k"})
            assert answer.status_code == 400
            assert answer.json()["error"]["type"] == "invalid_request_error"

    def test_no_key(self, provider: Emulator) -> None:
        """401 in either shape."""
        answer = httpx2.post(provider.url + "/v1/messages", json=ASK)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
        answer = httpx2.post(provider.url + "/v1/responses", json=RESPOND)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error")

    def test_unknown_paths(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """404 in either shape."""
        with pytest.raises(anthropic.NotFoundError) as refusal:
            claude.models.list()
        assert refusal.value.body["error"]["type"] == "not_found_error"
        with pytest.raises(openai.NotFoundError, match="Invalid URL"):
            gpt.models.list()


class TestFaults:
    """Failures on demand."""

    @pytest.mark.parametrize(
        ("fault", "error"),
        [("429", "RateLimitError"), ("500", "InternalServerError"), ("529", "InternalServerError")],
    )
    def test_outages(
        self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI, fault: str, error: str
    ) -> None:
        """By header; nothing reaches the cache."""
        with pytest.raises(anthropic.APIStatusError) as first:
            claude.messages.create(**ASK, **faulty(fault))
        with pytest.raises(openai.APIStatusError) as second:
            gpt.chat.completions.create(**CHAT, **faulty(fault))
        assert {first.value.status_code, second.value.status_code} == {int(fault)}
        assert type(second.value).__name__ == error
        assert provider.state()["entries"] == []

    def test_by_model_name(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """For applications whose headers one cannot reach."""
        with pytest.raises(openai.RateLimitError) as refusal:
            gpt.responses.create(**{**RESPOND, "model": "gpt-5.6-fault-429"})
        assert refusal.value.response.headers["retry-after"] == "1"

    def test_retries(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The first two attempts fail, the third answers."""
        provider.retry_after = 0.01
        patient = claude.with_options(max_retries=3)
        assert patient.messages.create(**ASK, **faulty("429*2")).usage.cache_creation_input_tokens == 2000
        assert [request.status for request in provider.requests] == [429, 429, 200]

    def test_unknown_names(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """A slip of the pen is told, with what there is."""
        with pytest.raises(anthropic.BadRequestError, match="unknown fault 'slow'; known are 429, 500"):
            claude.messages.create(**ASK, **faulty("slow"))

    @pytest.mark.parametrize(("fault", "status"), [("html", 200), ("html_502", 502)])
    def test_a_proxy_answers(self, provider: Emulator, gpt: openai.OpenAI, fault: str, status: int) -> None:
        """A page instead of JSON."""
        raw = httpx2.post(
            provider.url + "/v1/responses", json=RESPOND, headers={"authorization": "Bearer k", HEADER: fault}
        )
        assert (raw.status_code, raw.headers["content-type"]) == (status, "text/html; charset=utf-8")

    def test_truncated_streams(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """They begin, and have no end event."""
        events = [event.type for event in claude.messages.create(**ASK, stream=True, **faulty("truncate"))]
        assert events[0] == "message_start"
        assert "message_stop" not in events
        events = [event.type for event in gpt.responses.create(**RESPOND, stream=True, **faulty("truncate"))]
        assert events[0] == "response.created"
        assert "response.completed" not in events

    def test_error_events(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """After the first events, the SDKs raise."""
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            list(claude.messages.create(**ASK, stream=True, **faulty("error_event")))
        with pytest.raises(openai.APIError, match="server had an error"):
            list(gpt.chat.completions.create(**CHAT, stream=True, **faulty("error_event")))
        events = [event.type for event in gpt.responses.create(**RESPOND, stream=True, **faulty("error_event"))]
        assert events[-1] == "error"

    @pytest.mark.parametrize("fault", ["truncate", "malformed"])
    def test_broken_bodies(self, provider: Emulator, gpt: openai.OpenAI, fault: str) -> None:
        """200, and not JSON."""
        raw = gpt.responses.with_raw_response.create(**RESPOND, **faulty(fault))
        with pytest.raises(json.JSONDecodeError):
            json.loads(raw.content)

    def test_broken_events(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """One event in the middle is not JSON, the others are."""
        with claude.messages.with_streaming_response.create(**ASK, stream=True, **faulty("malformed")) as response:
            data = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
        broken = [one for one in data if one == '{"type": ']
        assert (len(broken), json.loads(data[-1])["type"]) == (1, "message_stop")

    @pytest.mark.parametrize(("fault", "expected"), [("no_usage", "absent"), ("null_usage", None)])
    def test_usage_is_missing(
        self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI, fault: str, expected: str | None
    ) -> None:
        """Left out, or null, in bodies and in streams."""
        raw = claude.messages.with_raw_response.create(**ASK, **faulty(fault))
        assert json.loads(raw.read()).get("usage", "absent") == expected
        with gpt.responses.with_streaming_response.create(**RESPOND, stream=True, **faulty(fault)) as response:
            data = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
        assert data[-1]["response"].get("usage", "absent") == expected
        with claude.messages.with_streaming_response.create(**ASK, stream=True, **faulty(fault)) as response:
            data = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
        assert data[0]["message"].get("usage", "absent") == data[-2].get("usage", "absent") == expected

    def test_silence(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Longer than the client waits: before a body, in the middle of a stream."""
        provider.stall = 600
        hasty = claude.with_options(timeout=1)
        with pytest.raises(anthropic.APITimeoutError):
            hasty.messages.create(**ASK, **faulty("stall"))
        hasty = hasty.with_options(max_retries=20)  # on a busy machine even the beginning may take a second
        seen = []
        with pytest.raises(httpx2.ReadTimeout):
            seen.extend(event.type for event in hasty.messages.create(**ASK, stream=True, **faulty("stall")))
        provider.stall = 0.01
        events = list(claude.messages.create(**ASK, stream=True, **faulty("stall")))
        assert events[-1].type == "message_stop"

    def test_compressed(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """gzip, for bodies and for streams, which arrive event by event all the same."""
        raw = claude.messages.with_raw_response.create(**ASK, **faulty("gzip"))
        assert raw.headers["content-encoding"] == "gzip"
        assert raw.parse().usage.cache_creation_input_tokens == 2000
        assert list(gpt.responses.create(**RESPOND, stream=True, **faulty("gzip")))[-1].response.usage is not None
        headers = {"authorization": "Bearer k", HEADER: "gzip"}
        with httpx2.stream(
            "POST", provider.url + "/v1/responses", json={**RESPOND, "stream": True}, headers=headers
        ) as response:
            assert gzip.decompress(b"".join(response.iter_raw())).startswith(b"event: response.created")

    def test_slow_headers(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Not even the status of a stream comes in time; after the wait all is well."""
        provider.stall = 600
        with pytest.raises(anthropic.APITimeoutError):
            claude.with_options(timeout=0.1).messages.create(**ASK, stream=True, **faulty("slow_headers"))
        provider.stall = 0.01
        events = list(claude.messages.create(**ASK, stream=True, **faulty("slow_headers")))
        assert events[-1].type == "message_stop"

    def test_eviction(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """A living entry is gone, which no rule explains; it is written anew."""
        claude.messages.create(**ASK)
        assert claude.messages.create(**ASK, **faulty("evict")).usage.cache_read_input_tokens == 0
        assert provider.last.accounting.reason is Reason.UNKNOWN
        assert provider.last.why == "a prefix could not be read; it was evicted"
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 2000
        provider.evict()
        assert [entry["alive"] for entry in provider.state()["entries"]] == [False]

    def test_a_cold_machine(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """It has nothing, and what is left there nobody finds again; the first machine keeps what it has."""
        reads = []
        for headers in ({}, faulty("cold"), faulty("cold"), {}):
            usage = gpt.chat.completions.create(**CHAT, **headers).usage
            reads.append(usage.prompt_tokens_details.cached_tokens)
        assert reads == [0, 0, 0, 2003]
        missed = provider.requests[1]
        assert (missed.accounting.status, missed.accounting.reason) == (Status.MISS, Reason.UNKNOWN)
        assert "2003 tokens are cached on another machine" in missed.why

    def test_cold_machines_by_chance(self) -> None:
        """The option says how many; the seed says which."""

        def reads(share: float, seed: str) -> list[int]:
            with (
                emulator(cold=share, seed=seed) as fresh,
                openai.OpenAI(base_url=fresh.url + "/v1", api_key="k") as gpt,
            ):
                usages = [gpt.chat.completions.create(**CHAT).usage for _ in range(14)]
                return [usage.prompt_tokens_details.cached_tokens for usage in usages]

        assert reads(0.0, "a") == [0, *[2003] * 13]
        assert reads(1.0, "a") == [0] * 14
        half = reads(0.5, "a")
        assert half == reads(0.5, "a") != reads(0.5, "b")
        assert 3 <= half.count(2003) <= 11

    def test_faults_that_are_ordered(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """For the next requests, whoever sends them: in process and over HTTP."""
        provider.fail("429", times=2)
        for ask in (lambda: claude.messages.create(**ASK), lambda: gpt.chat.completions.create(**CHAT)):
            with pytest.raises((anthropic.RateLimitError, openai.RateLimitError)):
                ask()
        assert claude.messages.create(**ASK).stop_reason == "end_turn"
        door = provider.url + "/_emulator/faults"
        assert httpx2.post(door, json={"fault": "500"}).json() == {"fault": "500", "times": 1}
        with pytest.raises(anthropic.InternalServerError):
            claude.messages.create(**ASK)
        assert httpx2.post(door, json={"fault": "slow"}).status_code == 400
        with pytest.raises(ValueError, match="slow"):
            provider.fail("slow")

    def test_every_fault_is_tried(self) -> None:
        """The list of this class, so that a new fault gets a test."""
        assert {fault.value for fault in Fault} == {
            *("429", "500", "529", "html", "html_502", "truncate", "malformed"),
            *("no_usage", "null_usage", "stall", "error_event", "gzip"),
            *("slow_headers", "evict", "cold"),
        }


RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{**SYSTEM[0], "text": f"part {n}"} for n in range(5)]}
AT = "prompt_cache_breakpoint"


def said(content: Any, role: Any = "user") -> list[Any]:
    return [{"role": role, "content": content}]


class TestMalformed:
    """What no provider would take, with the place that is wrong."""

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"messages": said("?", "robot")}, "messages.0.role: Input should be"),
            ({"messages": said("?", 5)}, "messages.0.role"),
            ({"messages": ["?"]}, "messages.0: Input should be a valid object"),
            ({"messages": [*QUESTION, {"role": "user"}]}, "messages.1.content: Field required"),
            ({"messages": said(None)}, "messages.0.content: Input should be a valid string or array"),
            ({"messages": said([{"type": "poem"}])}, "messages.0.content.0.type"),
            ({"messages": said([{"type": ["text"]}])}, "messages.0.content.0.type"),
            ({"messages": said([{**RESULT, "content": [{"type": "poem"}]}])}, "messages.0.content.0.content.0.type"),
            ({"messages": said(["?"])}, "messages.0.content.0: Input should be"),
            ({"system": 5}, "system: Input should be a valid string or array"),
            ({"system": [{"type": "image"}]}, "system.0.type: Input should be 'text'"),
            ({"tools": "x"}, "tools: Input should be a valid array"),
            ({"tools": ["x"]}, "tools.0"),
            ({"model": 5}, "model: Input should be a valid string"),
            ({"system": "s", "messages": said([RESULT])}, "A maximum of 4 blocks with cache_control .* Found 5"),
        ],
    )
    def test_messages(self, provider: Emulator, claude: anthropic.Anthropic, change: Any, place: str) -> None:
        """Anthropic's, in a call and in a token count."""
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            with pytest.raises(anthropic.BadRequestError, match=place) as refusal:
                claude.post(path, body={**ASK, **change}, cast_to=object)
            assert refusal.value.body["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        ("change", "param", "code"),
        [
            ({"messages": said("?", "robot")}, "messages[0].role", "invalid_value"),
            ({"messages": ["?"]}, "messages[0]", "invalid_type"),
            ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
            ({"messages": said(None)}, "messages[0].content", "invalid_type"),
            ({"messages": said([{"type": "poem"}])}, "messages[0].content[0].type", "invalid_value"),
            ({"tools": "x"}, "tools", "invalid_type"),
            ({"model": 5}, "model", "invalid_type"),
            ({"prompt_cache_options": "x"}, "prompt_cache_options", "invalid_type"),
            (
                {"messages": said([{"type": "text", "text": "?", AT: {"mode": "implicit"}}])},
                f"messages[0].content[0].{AT}.mode",
                "invalid_value",
            ),
            (
                {"messages": said([{"type": "text", "text": "?", AT: {"mode": "explicit", "ttl": "5m"}}])},
                f"messages[0].content[0].{AT}.ttl",
                "invalid_value",
            ),
            (
                {"messages": said([{"type": "text", "text": "?", AT: "explicit"}])},
                f"messages[0].content[0].{AT}",
                "invalid_type",
            ),
        ],
    )
    def test_chat_and_responses(
        self, provider: Emulator, gpt: openai.OpenAI, change: Any, param: str, code: str
    ) -> None:
        """OpenAI's, with the parameter and a code; the input of Responses like the messages of Chat Completions."""
        plain = {"model": "gpt-5.6", "messages": QUESTION}
        for path, field, text in (("/chat/completions", "messages", "text"), ("/responses", "input", "input_text")):
            body = json.loads(json.dumps({**plain, **change}).replace('"type": "text"', f'"type": "{text}"'))
            body[field] = body.pop("messages")
            with pytest.raises(openai.BadRequestError) as refusal:
                gpt.post(path, body=body, cast_to=object)
            assert (refusal.value.param, refusal.value.code) == (param.replace("messages", field), code)

    def test_a_part_of_a_result_has_no_name_for_its_type(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Whether a picture is in it is looked for all the same."""
        result = {"type": "function_call_output", "call_id": "c", "output": [{"type": ["input_image"]}]}
        answer = gpt.post("/responses", body={"model": "gpt-5.6", "input": [result]}, cast_to=httpx2.Response)
        assert answer.status_code == 200

    def test_what_the_sdks_can_send_is_taken(self) -> None:
        """Every type of a block, message or item that their own types name."""

        def kinds(union: Any, name: str = "type") -> set[str]:
            hints = [one.__annotations__.get(name) for one in members(union)]
            return {value for hint in hints for value in re.findall(r"""["']([a-z_]+)["']""", repr(hint))}

        def members(union: Any) -> list[Any]:
            """Of a union in a union also those."""
            return [x for one in get_args(union) for x in ([one] if isinstance(one, type) else members(one))]

        blocks = kinds(anthropic.types.ContentBlockParam) | kinds(anthropic.types.beta.BetaContentBlockParam)
        assert len(blocks) > 20
        items = kinds(input_items.ResponseInputItemParam)
        parts = kinds(openai.types.chat.ChatCompletionContentPartParam)
        roles = kinds(openai.types.chat.ChatCompletionMessageParam, "role")
        inputs = kinds(openai.types.responses.ResponseInputContentParam)
        sent = [
            *(("anthropic", {"messages": said([{"type": one}])}) for one in blocks),
            *(("openai_chat", {"messages": said([{"type": one}])}) for one in parts),
            *(("openai_chat", {"messages": said("?", one)}) for one in roles),
            *(("openai_responses", {"input": said([{"type": one}])}) for one in inputs),
            *(("openai_responses", {"input": [{"type": one}]}) for one in items),
        ]
        for name, body in sent:
            wire = BY_DIALECT[name]
            full = {"model": "gpt-5.6", "max_tokens": 9, **body}
            wire.check(full, wire.dialect.prompt(full))


class TestClockAndState:
    """The doors for demos and tests."""

    def test_time_can_be_moved(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """In process and over HTTP."""
        before = provider.clock.now()
        claude.messages.create(**ASK)
        provider.clock.advance(200)
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 2000
        now = httpx2.post(provider.url + "/_emulator/clock", json={"advance": 360}).json()["now"]
        assert now >= before + 560
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 0

    @pytest.mark.parametrize("sent", [{}, {"advance": -1}, {"advance": "soon"}, [], {"advance": 1e300}, {"set": 1e300}])
    def test_time_does_not_go_back(self, provider: Emulator, sent: Any) -> None:
        """Nor anywhere else than forward."""
        before = provider.clock.now()
        assert httpx2.post(provider.url + "/_emulator/clock", json=sent).status_code == 400
        assert provider.clock.now() - before < 60

    def test_state(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """Entries with owner, tokens and expiry; requests with what they read and why not more; no key, no text."""
        claude.messages.create(**ASK)
        provider.clock.advance(301)
        claude.messages.create(**ASK)
        with pytest.raises(openai.BadRequestError):
            gpt.chat.completions.create(model="gpt-5.6", messages=[])
        shown = httpx2.get(provider.url + "/_emulator/state").text
        state = json.loads(shown)
        assert "sss" not in shown
        assert '"key"' not in shown
        (entry,) = state["entries"]
        assert (entry["tokens"], entry["ttl"], entry["model"], entry["reads"]) == (2000, 300, CLAUDE, 0)
        assert 200 < entry["expires_in"] <= 300
        cold, expired, refused = state["requests"]
        assert (cold["cache"], cold["reason"], cold["written"]) == ("cold", None, 2000)
        assert (expired["cache"], expired["reason"]) == ("miss", "ttl_expired")
        assert (refused["status"], refused["error"][:18]) == (400, "Invalid 'messages'")

    def test_requests_as_they_came(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Body, headers, accounting, and where the read ended."""
        claude.messages.create(**ASK)
        message = claude.messages.create(**ASK)
        request = provider.requests[-1]
        assert request.body["messages"] == QUESTION
        assert "key" in (request.headers.get("x-api-key"), request.headers.get("authorization", "")[7:])
        assert (request.response_id, request.read_to) == (message.id, "system[0]")
        assert (request.accounting.read, request.accounting.status) == (2000, Status.HIT)

    @pytest.mark.parametrize("times", [0, -1, 10_001, 10**12, "2", 1.5, None])
    def test_faults_are_ordered_in_reason(self, provider: Emulator, times: Any) -> None:
        """From one to ten thousand."""
        answer = httpx2.post(provider.url + "/_emulator/faults", json={"fault": "429", "times": times})
        assert (answer.status_code, provider.next_fault()) == (400, None)

    def test_the_doors_are_closed_to_other_names(self, provider: Emulator) -> None:
        """A page in a browser can have its own name lead to loopback, and needs no key here."""
        for door in ("state", "clock"):
            url = f"{provider.url}/_emulator/{door}"
            assert httpx2.get(url, headers={"host": "rebound.example"}).status_code == 403
            for name in ("localhost:1", "127.0.0.1", "[::1]:8788"):
                assert httpx2.get(url, headers={"host": name}).status_code == 200

    def test_half_a_character_in_an_error(self, provider: Emulator) -> None:
        """It is quoted as it came, and the error is the provider's, not a failure of the emulator."""
        sent = b'{"model": "gpt-5.6", "messages": [{"role": "\\ud800", "content": "?"}]}'
        headers = {"authorization": "Bearer k"}
        answer = httpx2.post(provider.url + "/v1/chat/completions", content=sent, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages[0].role")

    def test_what_is_kept_is_bounded(
        self, provider: Emulator, claude: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the number of requests and by the characters of their bodies; a served emulator keeps no body at all."""
        monkeypatch.setattr(engine, "MAX_CHARACTERS", 20_000)
        for _ in range(4):
            claude.messages.create(**ASK)
        assert len(provider.requests) == 2
        monkeypatch.setattr(provider, "keeps_bodies", False)
        claude.messages.create(**ASK)
        assert (provider.last.body, provider.last.summary()["model"]) == (None, CLAUDE)

    @pytest.mark.parametrize("changed", ["batches.keep", "batches.delete", "contents.create"])
    def test_what_the_state_shows_is_changed_under_its_lock(
        self, provider: Emulator, changed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A test may look while the server's thread works."""
        holder, _, method = changed.partition(".")
        kind = type(getattr(provider, holder))
        original, free = getattr(kind, method), []

        def watched(self: Any, *given: Any) -> Any:
            with ThreadPoolExecutor(1) as other:
                free.append(other.submit(provider.lock.acquire, blocking=False).result())
            return original(self, *given)

        monkeypatch.setattr(kind, method, watched)
        url, headers = provider.url, {"x-api-key": "k", "anthropic-version": "2023-06-01", "x-goog-api-key": "k"}
        if holder == "batches":
            body = {"requests": [{"custom_id": "a", "params": ASK}]}
            made = httpx2.post(f"{url}/v1/messages/batches", json=body, headers=headers).json()["id"]
            httpx2.delete(f"{url}/v1/messages/batches/{made}", headers=headers).raise_for_status()
        else:
            body = {
                "model": "models/gemini-2.5-flash",
                "contents": [{"role": "user", "parts": [{"text": "s" * 40_000}]}],
            }
            httpx2.post(f"{url}/v1beta/cachedContents", json=body, headers=headers).raise_for_status()
        assert free == [False]

    def test_neither_key_nor_prompt_is_shown(
        self, provider: Emulator, claude: anthropic.Anthropic, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in the repr that a failing assertion prints, nor in state or log when the stand-in model chokes on it."""

        def choke(body: Any) -> Any:
            raise ValueError(body["messages"][0]["content"])

        provider.answer = choke
        with pytest.raises(anthropic.InternalServerError) as failure:
            claude.with_options(api_key="sk-secret").messages.create(
                **{**ASK, "messages": [{"role": "user", "content": "my secret"}]}
            )
        shown = [repr(provider.requests), httpx2.get(provider.url + "/_emulator/state").text, caplog.text]
        assert not any("secret" in text for text in [*shown, str(failure.value.body)])
        assert provider.last.error == "ValueError"
        assert "in choke" in caplog.text

    def test_reset(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Forgets everything but the ids it has given."""
        first = claude.messages.create(**ASK).id
        assert httpx2.post(provider.url + "/_emulator/reset").json() == {"reset": True}
        assert provider.requests == []
        again = claude.messages.create(**ASK)
        assert (again.usage.cache_read_input_tokens, again.id == first) == (0, False)

    @pytest.mark.slow
    def test_concurrent_requests_all_write(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Three that start before the first answer begins; a fourth after it reads."""
        everybody = threading.Barrier(3, timeout=300)
        provider.latency = lambda uncached, output: 10.0  # no answer begins before all three are there

        def ask(_: int) -> Any:
            everybody.wait()
            return claude.messages.create(**ASK).usage

        with ThreadPoolExecutor(3) as pool:
            usages = list(pool.map(ask, range(3)))
        assert [usage.cache_creation_input_tokens for usage in usages] == [2000] * 3
        reasons = Counter(request.accounting.reason for request in provider.requests)
        assert reasons == {None: 1, Reason.CONCURRENT_WRITE: 2}
        provider.latency = lambda uncached, output: 0.0
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 2000

    def test_a_model_that_fails_leaves_nothing(
        self, provider: Emulator, claude: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exception in the stand-in model or in its latency is a 500, and no entry."""
        for name in ("answer", "latency"):
            monkeypatch.setattr(provider, name, lambda *_: 1 / 0)
            with pytest.raises(anthropic.InternalServerError, match="ZeroDivisionError"):
                claude.messages.create(**ASK)
            monkeypatch.undo()
        claude.messages.create(**ASK)
        assert provider.requests[-1].accounting.reason is None

    def test_latency_follows_the_cache(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """A function of the tokens that were not read, and of the output."""
        asked: list[tuple[int, int]] = []
        provider.latency = lambda uncached, output: float(asked.append((uncached, output)) or 0)
        for _ in range(2):
            claude.messages.create(**ASK)
        assert asked == [(2003, 6), (3, 6)]


class TestRunning:
    """Starting, stopping, embedding."""

    def test_it_starts_and_stops(self) -> None:
        """On a loopback port; afterwards the port is closed and the thread gone."""

        def threads() -> set[threading.Thread]:
            return {thread for thread in threading.enumerate() if thread.name == "emulator"}

        before = threads()
        with emulator(*free_ports(1)) as provider:
            assert provider.url.startswith("http://127.0.0.1:")
            assert httpx2.get(provider.url + "/_emulator/state").status_code == 200
            assert len(threads() - before) == 1
        until(lambda: threads() <= before)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(provider.url)

    def test_it_stops_in_the_middle_of_an_answer(self) -> None:
        """A stalled answer does not hold it up."""
        with emulator(stall=600) as provider, httpx2.Client(timeout=60) as client:
            headers = {"authorization": "Bearer k", HEADER: "stall"}
            body = {**RESPOND, "stream": True}
            with client.stream("POST", provider.url + "/v1/responses", json=body, headers=headers) as response:
                next(response.iter_raw())
                began = time.monotonic()
        assert time.monotonic() - began < 60

    def test_ids_depend_on_the_seed(self) -> None:
        """Two runs with one seed give the same ids, in order; another seed gives others."""

        async def ids(seed: str) -> list[str]:
            transport = httpx2.ASGITransport(app=app(seed=seed, clock=Clock(lambda: 0.0)))
            async with httpx2.AsyncClient(transport=transport, base_url="http://emulator") as client:
                headers = {"authorization": "Bearer k"}
                answers = [await client.post("/v1/responses", json=RESPOND, headers=headers) for _ in range(3)]
                return [answer.json()["id"] for answer in answers]

        first, again, other = (asyncio.run(ids(seed)) for seed in ("a", "a", "b"))
        assert first == again
        assert len({*first, *other}) == 6


class TestReplies:
    """What the stand-in model says by default."""

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": "ok"}),
            ({"type": "string", "enum": ["red", "green"]}, "red"),
            ({"const": 7}, 7),
            ({"type": ["integer", "null"], "minimum": 3}, 3),
            ({"type": "number", "exclusiveMinimum": 3}, 4),
            ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
            ({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, "2026-01-01"),
            ({"type": "string", "minLength": 4}, "ok.."),
            ({"type": "string", "format": "uuid", "maxLength": 8}, "00000000"),
            ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "null"}}}, None),
            (
                {
                    "allOf": [
                        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                        {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
                    ]
                },
                {"a": "ok", "b": 0},
            ),
        ],
    )
    def test_the_plainest_value(self, schema: dict[str, Any], value: Any) -> None:
        """That fits a schema."""
        assert instance(schema) == value

    @pytest.mark.parametrize("schema", [{"anyOf": True}, {"type": "array", "minItems": "many"}, {"minLength": 10**9}])
    def test_what_is_no_schema_is_refused(self, provider: Emulator, gpt: openai.OpenAI, schema: dict[str, Any]) -> None:
        """With 400, as the APIs do."""
        text = {"format": {"type": "json_schema", "name": "a", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match="Invalid schema"):
            gpt.responses.create(**RESPOND, text=text)

    def test_a_schema_without_end(self) -> None:
        """Comes to an end all the same."""
        node: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
        assert "next" in instance(node)

    @pytest.mark.parametrize(
        "body",
        [
            {"tool_choice": {"type": "tool", "name": "find"}, "tools": [{"name": "find", "input_schema": TOOL}]},
            {"tool_choice": {"type": "any"}, "tools": [{"name": "find", "input_schema": TOOL}]},
            {
                "tool_choice": {"type": "function", "function": {"name": "find"}},
                "tools": [{"type": "function", "function": {"name": "find", "parameters": TOOL}}],
            },
            {"tool_choice": "required", "tools": [{"type": "function", "name": "find", "parameters": TOOL}]},
        ],
    )
    def test_a_forced_tool_is_called(self, body: dict[str, Any]) -> None:
        """In every dialect's notation, with arguments that fit."""
        assert default(body) == Reply(tool_calls=(("find", {"city": "ok"}),))

    def test_equal_requests_have_equal_answers(self) -> None:
        """And others have others."""
        first, again, other = (default({"messages": [{"role": "user", "content": text}]}) for text in "aab")
        assert first == again != other


json_values = st.recursive(
    st.sampled_from([None, True, 0, -1, 2.5, "", "user", "text", "tool_result", "1h", "x" * 5000, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "cache_control", "ttl", "name", "format", "schema", "output"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


class TestAnyRequest:
    """Nothing that is JSON makes the emulator stumble."""

    @settings(deadline=None, max_examples=150)
    @given(
        st.sampled_from(FORMATS),
        st.sampled_from(["claude-opus-5", "gpt-5.6", "gpt-4.1"]),
        st.dictionaries(
            st.sampled_from(["messages", "input", "system", "tools", "instructions", "thread", "text", "tool_choice"]),
            json_values,
        ),
    )
    def test_it_is_answered_or_refused(self, wire: Wire, model: str, fields: dict[str, Any]) -> None:
        """With an answer that is JSON, in one piece and as a stream."""
        provider = Emulator()
        body = {"max_tokens": 9, "messages": QUESTION, "input": "?", **fields, "model": model}
        try:
            call = provider.open(wire, body, "key", provider.received(wire.path, {}))
        except ProviderError:
            return
        provider.begin(call)
        counts = call.exchange.accounting
        assert counts.read + counts.write + counts.fresh == counts.total
        assert json.dumps(wire.document(call.exchange))
        assert json.dumps(list(wire.events(call.exchange)))
