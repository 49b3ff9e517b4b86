"""HTTP clients that the application brings: whichever carries the request, it is observed and its answer untouched."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest

AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hi"}],
}
OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
INPUT = "gen_ai.client.inference.usage.input_tokens"


def library(name: str) -> Any:
    return pytest.importorskip(name)


def aiohttp(sdk: Any) -> Any:
    try:
        return sdk.DefaultAioHttpClient()
    except RuntimeError as error:  # the SDK's extra is not installed
        pytest.skip(str(error))


SYNC = {
    "httpx": lambda sdk: library("httpx").Client(),
    "httpx2": lambda sdk: library("httpx2").Client(),
    "of the SDK": lambda sdk: sdk.DefaultHttpxClient(),
}
ASYNC = {
    "httpx": lambda sdk: library("httpx").AsyncClient(),
    "httpx2": lambda sdk: library("httpx2").AsyncClient(),
    "of the SDK": lambda sdk: sdk.DefaultAsyncHttpxClient(),
    "aiohttp": aiohttp,
}


def made(kind: str, made_with: Any, sdk: Any, url: str) -> Any:
    """A client of an SDK over this HTTP client; skips where the SDK takes no such one."""
    options = {"api_key": "k", "max_retries": 0, "http_client": made_with(sdk)}
    if sdk is anthropic and hasattr(anthropic, "AnthropicFoundry") and "open_telemetry" in _options(anthropic):
        options["open_telemetry"] = False
    try:
        return getattr(sdk, kind)(base_url=url, **options)
    except TypeError as error:
        pytest.skip(str(error))


def _options(sdk: Any) -> Any:
    import inspect

    return inspect.signature(sdk.Anthropic).parameters


CALLS = {
    "anthropic": (anthropic, "Anthropic", "", lambda c, **more: c.messages.create(**AM, **more), 5100),
    "openai": (openai, "OpenAI", "/v1", lambda c, **more: c.chat.completions.create(**OM, **more), 5000),
}
STREAMED = {"anthropic": {"stream": True}, "openai": {"stream": True, "stream_options": {"include_usage": True}}}


@pytest.mark.parametrize("sdk", CALLS)
@pytest.mark.parametrize("name", SYNC)
def test_clients(name, sdk, provider, observe, quiet):
    """Whole and streamed."""
    module, kind, path, call, tokens = CALLS[sdk]

    def outcomes():
        client = made(kind, SYNC[name], module, provider.url + path)
        with client:
            return call(client), list(call(client, **STREAMED[sdk]))

    without_us = outcomes()
    telemetry = observe()
    assert outcomes() == without_us
    check(telemetry, tokens)


@pytest.mark.parametrize("sdk", CALLS)
@pytest.mark.parametrize("name", ASYNC)
def test_asynchronous_clients(name, sdk, provider, observe):
    """The same of the others."""
    module, kind, path, call, tokens = CALLS[sdk]

    async def outcomes():
        client = made("Async" + kind, ASYNC[name], module, provider.url + path)
        async with client:
            return await call(client), [event async for event in await call(client, **STREAMED[sdk])]

    without_us = asyncio.run(outcomes())
    telemetry = observe()
    assert asyncio.run(outcomes()) == without_us
    check(telemetry, tokens)


def check(telemetry: Any, tokens: int) -> None:
    assert telemetry.total("promptcache.calls") == 2
    assert telemetry.total(INPUT) == 2 * tokens
    assert len(telemetry.token_spans) == 2
    assert telemetry.total("promptcache.internal.errors") == 0


def test_asked_for_usage_over_aiohttp(provider, observe):
    """The chunk that we asked for is taken out of its stream too."""

    async def outcome():
        async with made("AsyncOpenAI", aiohttp, openai, provider.url + "/v1") as client:
            stream = await client.chat.completions.create(stream=True, **OM)
            return [chunk.choices[0].delta.content async for chunk in stream]

    without_us = asyncio.run(outcome())
    telemetry = observe(stream_usage="true")
    assert asyncio.run(outcome()) == without_us
    assert telemetry.total(INPUT) == 5000
