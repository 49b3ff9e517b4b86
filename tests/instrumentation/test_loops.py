"""Loops of the SDKs' own: tool runners and message threads make several calls, and each is one."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

TOKENS = "gen_ai.usage.input_tokens"
AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6+tool",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
}


def tools(decorate: Any) -> list[Any]:
    @decorate
    def weather(city: str) -> str:
        """Gives the weather.

        Args:
            city: Where.
        """
        return f"sunny in {city}"

    return [weather]


def async_tools() -> list[Any]:
    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """Gives the weather.

        Args:
            city: Where.
        """
        return f"sunny in {city}"

    return [weather]


def runner(c: Any, **more: Any) -> Any:
    made = c.anthropic.beta.messages.tool_runner(tools=tools(anthropic.beta_tool), **AM, **more)
    return made.until_done()


def streaming_runner(c: Any) -> Any:
    with_tools = c.anthropic.beta.messages.tool_runner(tools=tools(anthropic.beta_tool), stream=True, **AM)
    return [stream.get_final_message() for stream in with_tools][-1]


async def async_runner(c: Any) -> Any:
    return await c.async_anthropic.beta.messages.tool_runner(tools=async_tools(), **AM).until_done()


def runner_without_threads(c: Any) -> Any:
    try:
        return runner(c, thread=False)
    except TypeError:
        pytest.skip("this anthropic SDK has no threads")


WAYS = [runner, streaming_runner, async_runner, runner_without_threads]


@pytest.mark.parametrize("native", [True, False], ids=["native", "alone"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_tool_runner(way, native, connect, observe, run):
    """Two calls, one that asks for the tool and one that has its result; the answer is the same as without us."""
    if not hasattr(anthropic, "beta_tool"):
        pytest.skip("this anthropic SDK has no tool runner")

    def answer(tracer_provider=None):
        clients = connect(tracer_provider=tracer_provider)

        async def whole():
            try:
                return await way(clients)
            finally:
                await clients.aclose()

        return asyncio.run(whole()) if asyncio.iscoroutinefunction(way) else way(clients)

    without_us = answer().content[0].text
    telemetry = observe()
    assert answer(telemetry.tracer_provider if native else None).content[0].text == without_us
    assert [span.attributes[TOKENS] for span in telemetry.token_spans] == [5100, 5100]
    assert telemetry.total("promptcache.calls") == 2
    assert telemetry.total("promptcache.cost") == pytest.approx(2 * 0.010575)
    assert telemetry.total("promptcache.internal.errors") == 0


def test_a_thread(connect, provider, observe):
    """Only new messages are on the wire, and each turn is a call of one conversation."""
    clients = connect()
    if not hasattr(clients.anthropic.beta.messages, "thread"):
        pytest.skip("this anthropic SDK has no threads")
    telemetry = observe()
    thread = clients.anthropic.beta.messages.thread(
        model="claude-sonnet-4-6", max_tokens=64, messages=[{"role": "user", "content": "hi"}]
    )
    thread.send()
    with thread.stream({"role": "user", "content": "and now?"}) as stream:
        stream.get_final_message()
    assert len(provider.asked) == 2
    assert provider.asked[1].body["thread"]["previous_message_id"].startswith("msg_")
    first, second = telemetry.token_spans
    assert first.attributes["promptcache.lineage.id"] == second.attributes["promptcache.lineage.id"]
    assert telemetry.total("promptcache.calls") == 2
