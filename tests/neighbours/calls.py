"""The calls that are made beside every other instrumentation: sync, async, streamed and raw, of each API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import openai

AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
}
OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
RM: dict[str, Any] = {"model": "gpt-5.6", "input": "hi"}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}

CALLS: dict[str, Callable[[Any], Any]] = {}


class Clients:
    """A client a kind, and the loop of the async ones."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self.url, self.runner = url, runner
        more: dict[str, Any] = {"api_key": "sk-test", "max_retries": 0}
        self.anthropic = anthropic.Anthropic(base_url=url, **more)
        self.async_anthropic = anthropic.AsyncAnthropic(base_url=url, **more)
        self.openai = openai.OpenAI(base_url=url + "/v1", **more)
        self.async_openai = openai.AsyncOpenAI(base_url=url + "/v1", **more)


def call(function: Callable[[Clients], Any]) -> Callable[[Clients], Any]:
    CALLS[function.__name__] = function
    return function


@call
def messages_sync(c: Clients) -> Any:
    return c.anthropic.messages.create(**AM).usage.output_tokens


@call
async def messages_async(c: Clients) -> Any:
    return (await c.async_anthropic.messages.create(**AM)).usage.output_tokens


@call
def messages_stream(c: Clients) -> Any:
    return [event.type for event in c.anthropic.messages.create(stream=True, **AM)]


@call
async def messages_async_stream(c: Clients) -> Any:
    stream = await c.async_anthropic.messages.create(stream=True, **AM)
    return [event.type async for event in stream]


@call
def messages_helper(c: Clients) -> Any:
    with c.anthropic.messages.stream(**AM) as stream:
        return "".join(stream.text_stream), stream.get_final_message().usage.output_tokens


@call
def messages_raw(c: Clients) -> Any:
    return c.anthropic.messages.with_raw_response.create(**AM).parse().usage.output_tokens


@call
def messages_streaming_raw(c: Clients) -> Any:
    with c.anthropic.messages.with_streaming_response.create(**AM) as response:
        return response.parse().usage.output_tokens


@call
def chat_sync(c: Clients) -> Any:
    return c.openai.chat.completions.create(**OM).usage.prompt_tokens


@call
async def chat_async(c: Clients) -> Any:
    return (await c.async_openai.chat.completions.create(**OM)).usage.prompt_tokens


@call
def chat_stream(c: Clients) -> Any:
    return len(list(c.openai.chat.completions.create(stream=True, **USAGE, **OM)))


@call
async def chat_async_stream(c: Clients) -> Any:
    stream = await c.async_openai.chat.completions.create(stream=True, **USAGE, **OM)
    return len([chunk async for chunk in stream])


@call
def chat_raw(c: Clients) -> Any:
    return c.openai.chat.completions.with_raw_response.create(**OM).parse().usage.prompt_tokens


@call
def chat_streaming_raw(c: Clients) -> Any:
    with c.openai.chat.completions.with_streaming_response.create(**OM) as response:
        return response.parse().usage.prompt_tokens


@call
def responses_sync(c: Clients) -> Any:
    return c.openai.responses.create(**RM).usage.input_tokens


@call
async def responses_async(c: Clients) -> Any:
    return (await c.async_openai.responses.create(**RM)).usage.input_tokens


@call
def responses_stream(c: Clients) -> Any:
    return [event.type for event in c.openai.responses.create(stream=True, **RM)]


@call
def responses_raw(c: Clients) -> Any:
    return c.openai.responses.with_raw_response.create(**RM).parse().usage.input_tokens
