"""What went wrong with other instrumentations, each as a call that shows it. The judges are in the tests."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
from opentelemetry import trace

from neighbours.calls import AM, OM, USAGE, Clients

INCIDENTS: dict[str, Callable[[Any], Any]] = {}


def incident(function: Callable[[Clients], Any]) -> Callable[[Clients], Any]:
    INCIDENTS[function.__name__] = function
    return function


def under(body: dict[str, Any], word: str) -> dict[str, Any]:
    """The request, with a word to the provider about what is to go wrong."""
    return {**body, "model": f"{body['model']}+{word}"}


@incident
async def beta_async_helper(c: Clients) -> Any:
    async with c.async_anthropic.beta.messages.stream(**AM) as stream:
        return (await stream.get_final_message()).usage.output_tokens


@incident
def helper_keeps_its_methods(c: Clients) -> Any:
    with c.anthropic.messages.stream(**AM) as stream:
        kind, text = type(stream).__name__, stream.get_final_text()
    whole = c.anthropic.messages.create(stream=True, **AM)
    known = isinstance(whole, anthropic.Stream)
    whole.close()
    return kind, text, known


@incident
def stream_output_once(c: Clients) -> Any:
    return len(list(c.anthropic.messages.create(stream=True, **AM)))


@incident
def raw_response(c: Clients) -> Any:
    response = c.anthropic.messages.with_raw_response.create(**AM)
    return response.status_code, response.parse().usage.output_tokens


@incident
def abandoned_streams(c: Clients) -> Any:
    for _ in range(20):
        next(iter(c.anthropic.messages.create(stream=True, **AM)))
        gc.collect()
    return trace.get_current_span().get_span_context().is_valid


@incident
async def stream_of_another_task(c: Clients) -> Any:
    box: dict[str, Any] = {}

    async def opens() -> None:
        box["events"] = aiter(await c.async_anthropic.messages.create(stream=True, **AM))
        await anext(box["events"])

    async def reads() -> int:
        return len([event async for event in box["events"]])

    await asyncio.create_task(opens())
    return await asyncio.create_task(reads())


@incident
def chat_streams_closed_early(c: Clients) -> Any:
    for _ in range(20):
        stream = c.openai.chat.completions.create(stream=True, **OM)
        next(iter(stream))
        stream.close()
    return "closed"


@incident
def one_span_a_stream(c: Clients) -> Any:
    return len(list(c.openai.chat.completions.create(stream=True, **USAGE, **OM)))


@incident
def error_in_streaming_response(c: Clients) -> Any:
    try:
        with c.openai.chat.completions.with_streaming_response.create(stream=True, **under(OM, "error")) as response:
            list(response.parse())
    except openai.APIError:
        return "APIError"
    return "nothing"


@incident
def error_in_a_stream(c: Clients) -> Any:
    try:
        list(c.anthropic.messages.create(stream=True, **under(AM, "error")))
    except anthropic.APIStatusError:
        return "APIStatusError"
    return "nothing"


@incident
def long_conversation(c: Clients) -> Any:
    said = [{"role": ("user", "assistant")[turn % 2], "content": f"turn {turn}"} for turn in range(201)]
    return c.anthropic.messages.create(**{**AM, "messages": said}).usage.output_tokens


@incident
def cached_input_is_input(c: Clients) -> Any:
    return c.anthropic.messages.create(**AM).usage.input_tokens


@incident
def inside_an_agent(c: Clients) -> Any:
    """An agent framework's spans: one of the agent, one of the model call, and then the SDK's."""
    tracer, client = trace.get_tracer("the.framework"), trace.SpanKind.CLIENT
    agent = {"gen_ai.operation.name": "invoke_agent"}
    with tracer.start_as_current_span("invoke_agent", kind=client, attributes=agent):
        return c.openai.chat.completions.create(**OM).usage.prompt_tokens


@contextmanager
def answering(document: dict[str, Any]) -> Iterator[str]:
    """A provider that always says the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def completion(model: str, **usage: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "ok"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, **usage},
    }


@incident
def deepseek(c: Clients) -> Any:
    answer = completion("deepseek-chat", prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36)
    with answering(answer) as url, openai.OpenAI(base_url=url, api_key="sk-test") as client:
        return client.chat.completions.create(**{**OM, "model": "deepseek-chat"}).usage.prompt_tokens


@incident
def openrouter(c: Clients) -> Any:
    answer = completion("anthropic/claude-sonnet-4.6", cache_creation_input_tokens=30, cache_read_input_tokens=60)
    with answering(answer) as url, openai.OpenAI(base_url=url, api_key="sk-test") as client:
        return client.chat.completions.create(**{**OM, "model": "anthropic/claude-sonnet-4.6"}).usage.prompt_tokens


@incident
def manual_span(c: Clients) -> Any:
    """traceAI's article: the application writes the cache's tokens on a span of its own."""
    from fi_instrumentation import FITracer

    tracer = FITracer(trace.get_tracer(__name__))
    with tracer.start_as_current_span("answer", fi_span_kind="llm") as span:
        usage = c.anthropic.messages.create(**AM).usage
        span.set_attribute("cache_read_tokens", usage.cache_read_input_tokens)
        span.set_attribute("cache_write_tokens", usage.cache_creation_input_tokens)
    return usage.cache_read_input_tokens, usage.cache_creation_input_tokens


@incident
def responses_stream_has_a_span(c: Clients) -> Any:
    return len(list(c.openai.responses.create(stream=True, model="gpt-5.6", input="hi")))


@incident
def no_chunk_is_added(c: Clients) -> Any:
    return [bool(chunk.choices) for chunk in c.openai.chat.completions.create(stream=True, **OM)]
