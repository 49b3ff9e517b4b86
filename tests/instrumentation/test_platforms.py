"""The SDKs' clients for Bedrock, Vertex AI, Azure, Foundry, Google Cloud and AWS: each call is one, by its name."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import anthropic
import openai
import pytest

AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
}
OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
BEDROCK = "us.anthropic.claude-sonnet-4-6-v1:0"
NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters


def credentials() -> Any:
    """Of Google, never refreshed."""
    google = pytest.importorskip("google.oauth2.credentials")
    return google.Credentials("token")


# The client's class, how it is made for a server on loopback, and the provider and the model that it stands for.
CLIENTS: dict[str, tuple[str, Any, str, str]] = {
    "AnthropicBedrock": (
        "anthropic",
        lambda url: {"aws_access_key": "a", "aws_secret_key": "s", "aws_region": "us-east-1", "base_url": url},
        "aws.bedrock",
        BEDROCK,
    ),
    "AnthropicBedrockMantle": (
        "anthropic",
        lambda url: {"api_key": "k", "aws_region": "us-east-1", "base_url": url + "/anthropic"},
        "aws.bedrock",
        "anthropic.claude-sonnet-4-6",
    ),
    "AnthropicVertex": (
        "anthropic",
        lambda url: {"region": "us-east5", "project_id": "p", "access_token": "t", "base_url": url + "/v1"},
        "gcp.vertex_ai",
        "claude-sonnet-4-6",
    ),
    "AnthropicFoundry": (
        "anthropic",
        lambda url: {"api_key": "k", "base_url": url + "/anthropic"},
        "anthropic",
        "claude-sonnet-4-6",
    ),
    "AnthropicGoogleCloud": (
        "anthropic",
        lambda url: {"credentials": credentials(), "project": "p", "workspace_id": "w", "base_url": url},
        "anthropic",
        "claude-sonnet-4-6",
    ),
    "AnthropicAWS": (
        "anthropic",
        lambda url: {"api_key": "k", "aws_region": "us-east-1", "workspace_id": "w", "base_url": url},
        "anthropic",
        "claude-sonnet-4-6",
    ),
    "AzureOpenAI": (
        "openai",
        lambda url: {"api_key": "k", "api_version": "2026-01-01", "azure_endpoint": url},
        "azure.ai.openai",
        "gpt-5.6",
    ),
    "BedrockOpenAI": (
        "openai",
        lambda url: {"api_key": "k", "aws_region": "us-east-1", "base_url": url + "/openai/v1"},
        "aws.bedrock",
        "gpt-5.6",
    ),
}


def made(name: str, url: str, *, asynchronous: bool = False) -> Any:
    sdk, options, _, _ = CLIENTS[name]
    kind = getattr(anthropic if sdk == "anthropic" else openai, ("Async" if asynchronous else "") + name, None)
    if kind is None:
        pytest.skip(f"this {sdk} has no {name}")
    if name == "AnthropicBedrock":
        pytest.importorskip("botocore")
    wanted = options(url)
    taken = inspect.signature(kind).parameters
    wanted = {option: value for option, value in wanted.items() if option in taken}
    if "open_telemetry" in taken:
        wanted["open_telemetry"] = False
    return kind(max_retries=0, **wanted)


def request(name: str) -> dict[str, Any]:
    sdk, _, _, model = CLIENTS[name]
    return {**(AM if sdk == "anthropic" else OM), "model": model}


def create(client: Any, name: str, **options: Any) -> Any:
    body = request(name) | options
    return client.messages.create(**body) if CLIENTS[name][0] == "anthropic" else client.chat.completions.create(**body)


def check(telemetry: Any, name: str, *, stream: bool = False) -> None:
    """One span, one count, the right names."""
    sdk, _, provider, model = CLIENTS[name]
    told = telemetry.span.attributes
    assert told["gen_ai.provider.name"] == provider
    assert told["gen_ai.request.model"] == model
    assert told.get("gen_ai.request.stream", False) is stream
    tokens = (5100, 3000, 2000, 50) if sdk == "anthropic" else (5000, 3000, 1500, 50)
    names = ("input_tokens", "cache_read.input_tokens", "cache_write.input_tokens", "output_tokens")
    assert tuple(told[f"gen_ai.usage.{one}"] for one in names) == tokens
    assert told["promptcache.status"] == "hit"
    assert telemetry.total("promptcache.calls") == 1
    assert telemetry.total("promptcache.internal.errors") == 0
    (labels, _) = telemetry.points("promptcache.calls")[0]
    assert (labels["gen_ai.provider.name"], labels["gen_ai.request.model"]) == (provider, model)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_call(name, provider, observe):
    """The same answer as without us."""
    client = made(name, provider.url)
    without_us = create(client, name)
    telemetry = observe()
    assert create(client, name) == without_us
    check(telemetry, name)


@pytest.mark.parametrize("name", CLIENTS)
def test_an_asynchronous_call(name, provider, observe):
    """The same of the other client."""

    async def call():
        async with made(name, provider.url, asynchronous=True) as client:
            return await create(client, name)

    without_us = asyncio.run(call())
    telemetry = observe()
    assert asyncio.run(call()) == without_us
    check(telemetry, name)


ASKS_FOR_USAGE = {"stream_options": {"include_usage": True}}


def streaming(name: str) -> dict[str, Any]:
    return {"stream": True} if CLIENTS[name][0] == "anthropic" else {"stream": True, **ASKS_FOR_USAGE}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_stream(name, provider, observe):
    """Event by event, in whatever frames it comes."""
    client = made(name, provider.url)
    without_us = list(create(client, name, **streaming(name)))
    telemetry = observe()
    assert list(create(client, name, **streaming(name))) == without_us
    assert len(without_us) > 3
    check(telemetry, name, stream=True)


@pytest.mark.parametrize("name", CLIENTS)
def test_an_asynchronous_stream(name, provider, observe):
    """The same of the other client."""

    async def call():
        async with made(name, provider.url, asynchronous=True) as client:
            return [event async for event in await create(client, name, **streaming(name))]

    without_us = asyncio.run(call())
    telemetry = observe()
    assert asyncio.run(call()) == without_us
    check(telemetry, name, stream=True)


@pytest.mark.parametrize("words", ["split", "burst"])
def test_frames_cut_anywhere(words, provider, observe):
    """Bedrock's binary frames do not keep to the pieces in which they arrive."""
    client = made("AnthropicBedrock", provider.url)
    telemetry = observe()
    list(create(client, "AnthropicBedrock", stream=True, model=f"{BEDROCK}+{words}"))
    assert telemetry.span.attributes["gen_ai.usage.input_tokens"] == 5100


@pytest.mark.parametrize("words", ["error", "cut", "truncated"])
def test_frames_that_break(words, provider, observe):
    """As without us; an exception in a frame is the call's error."""
    client = made("AnthropicBedrock", provider.url)

    def outcome():
        try:
            return [event.type for event in create(client, "AnthropicBedrock", stream=True, model=f"{BEDROCK}+{words}")]
        except Exception as error:
            return type(error).__qualname__

    without_us = outcome()
    telemetry = observe()
    assert outcome() == without_us
    assert telemetry.total("promptcache.calls") == 1
    assert telemetry.total("promptcache.internal.errors") == 0
    assert (
        telemetry.span.attributes.get("error.type", "")
        == {
            "error": "throttlingException",
            "cut": "RemoteProtocolError",
            "truncated": "",
        }[words]
    )


def test_frames_that_nobody_reads_to_the_end(provider, observe):
    """What was counted until then is on the span, which is no error."""
    client = made("AnthropicBedrock", provider.url)
    telemetry = observe()
    stream = create(client, "AnthropicBedrock", stream=True, model=f"{BEDROCK}+hold")
    next(iter(stream))
    stream.close()
    told = telemetry.span.attributes
    assert (told["gen_ai.usage.input_tokens"], "gen_ai.usage.output_tokens" in told) == (5100, False)
    assert "error.type" not in told


def test_bytes_that_are_no_frames(connect, streamed, observe, quiet):
    """Cost the usage, and nothing else."""
    body = [b"\xff" * 100, b"\x00" * 100]
    respond = lambda _: streamed(body, "application/vnd.amazon.eventstream")  # noqa: E731

    def call(clients):
        with clients.anthropic.messages.with_streaming_response.create(**AM) as response:
            return response.read()

    without_us = call(connect(respond=respond))
    telemetry = observe()
    assert call(connect(respond=respond)) == without_us
    assert telemetry.total("promptcache.usage_missing.calls") == 1
    assert telemetry.total("promptcache.internal.errors") == 0


def test_azure_is_asked_for_usage(provider, observe):
    """It takes the question, unlike that for a verdict."""
    telemetry = observe(stream_usage="true", native_diagnostics="true")
    list(create(made("AzureOpenAI", provider.url), "AzureOpenAI", stream=True))
    assert provider.asked[0].body["stream_options"] == {"include_usage": True}
    check(telemetry, "AzureOpenAI", stream=True)


def test_the_rules_of_the_models_maker(provider, observe):
    """A prompt on Bedrock that has no breakpoint is not cacheable there either."""
    provider.will_report({"input_tokens": 5000, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0})
    telemetry = observe()
    create(made("AnthropicBedrock", provider.url), "AnthropicBedrock", system="Be brief.")
    assert telemetry.span.attributes["promptcache.status"] == "uncacheable"
