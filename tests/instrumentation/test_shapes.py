"""Every way to call both SDKs: what the application gets is what it gets without us, and telemetry is right."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

NATIVE_SCOPE = "com.anthropic.sdk.python"
HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters
UNSET, OK, ERROR = StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR


class Out(BaseModel):
    """What ``parse`` is asked for."""

    answer: str


AM: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
}
OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
RM: dict[str, Any] = {"model": "gpt-5.6", "input": "hi"}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


def under(body: dict[str, Any], words: str) -> dict[str, Any]:
    """The request with something that goes wrong."""
    return {**body, "model": f"{body['model']}+{words}"}


@dataclass(frozen=True)
class Expected:
    """What telemetry says of one call: tokens are input, read, write, output."""

    tokens: tuple[int | None, int | None, int | None, int | None] | None
    cost: float | None
    status: str | None
    native: StatusCode = OK
    error: str = ""
    stream: bool = False
    calls: int = 1
    errand: str = ""
    """The operation of a request that is observed, but is no call."""


# claude-sonnet-4-6, USD a million: input 3, read 0.30, 5-minute write 3.75, 1-hour write 6, output 15.
# 3000 x 0.30 + 1500 x 3.75 + 500 x 6 + 100 x 3 + 50 x 15 = 10575
MESSAGE = Expected((5100, 3000, 2000, 50), 0.010575, "hit")
MESSAGES = replace(MESSAGE, stream=True)
# The same without the output that has not come: 10575 - 750
MESSAGE_BEGUN = Expected((5100, 3000, 2000, None), 0.009825, "hit", native=UNSET, stream=True)
# gpt-5.6: input 4, read 0.40, 30-minute write 5, 12-hour write 10, output 20.
# 3000 x 0.40 + 1500 x 5 + 500 x 4 + 50 x 20 = 11700
CHAT = Expected((5000, 3000, 1500, 50), 0.0117, "hit")
CHATS = replace(CHAT, stream=True)
# 3000 x 0.40 + 1000 x 5 + 500 x 10 + 500 x 4 + 50 x 20 = 14200
RESPONSE = Expected((5000, 3000, 1500, 50), 0.0142, "hit")
RESPONSES = replace(RESPONSE, stream=True)
UNKNOWN = Expected(None, None, "unknown", native=UNSET)
UNKNOWN_STREAM = replace(UNKNOWN, stream=True)
REFUSED = Expected(None, None, None, native=ERROR, error="rate_limit_error")
REFUSED_STREAM = replace(REFUSED, stream=True)
COUNTING = Expected(None, None, None, calls=0, errand="count_tokens")
SUBMITTING = Expected(None, None, None, calls=0, errand="create_batch")


@dataclass(frozen=True)
class Shape:
    """One way to call, and what is expected of it."""

    call: Callable[[Any], Any]
    expected: Expected

    @property
    def sdk(self) -> str:
        return "anthropic" if self.call.__name__.startswith("an_") else "openai"


SHAPES: list[Shape] = []


def shape(expected: Expected) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def add(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        SHAPES.append(Shape(call, expected))
        return call

    return add


def seen(value: Any) -> Any:
    """What the application holds, comparable: class and content."""
    if isinstance(value, BaseModel):
        return type(value).__qualname__, value.model_dump(warnings=False)
    if isinstance(value, BaseException):
        return type(value).__qualname__, str(value)
    if isinstance(value, (list, tuple)):
        return [seen(item) for item in value]
    return value


def kinds(stream: Any) -> list[str]:
    """The classes a stream is an instance of, and what it offers."""
    return [
        type(stream).__qualname__,
        *(base.__qualname__ for base in type(stream).__mro__),
        str(hasattr(stream, "response")),
        str(hasattr(stream, "close")),
    ]


def raised(kind: type[BaseException], call: Callable[[], Any]) -> BaseException:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


async def raised_in(kind: type[BaseException], waiting: Any) -> BaseException:
    with pytest.raises(kind) as caught:
        await waiting
    return caught.value


# --- Anthropic: whole answers -------------------------------------------------------------------------------


@shape(MESSAGE)
def an_create(c):
    return c.anthropic.messages.create(**AM)


@shape(MESSAGE)
async def an_async_create(c):
    return await c.async_anthropic.messages.create(**AM)


@shape(MESSAGE)
def an_raw(c):
    raw = c.anthropic.messages.with_raw_response.create(**AM)
    return kinds(raw), raw.headers["content-type"], raw.http_response.content, raw.parse()


@shape(MESSAGE)
def an_raw_unparsed(c):
    return c.anthropic.messages.with_raw_response.create(**AM).status_code


@shape(MESSAGE)
async def an_async_raw(c):
    raw = await c.async_anthropic.messages.with_raw_response.create(**AM)
    message = raw.parse()
    return kinds(raw), (await message) if inspect.isawaitable(message) else message


@shape(MESSAGE)
def an_with_streaming_response(c):
    with c.anthropic.messages.with_streaming_response.create(**AM) as response:
        return kinds(response), response.parse()


@shape(MESSAGE)
def an_with_streaming_response_bytes(c):
    with c.anthropic.messages.with_streaming_response.create(**AM) as response:
        return b"".join(response.iter_bytes())


@shape(UNKNOWN)
def an_with_streaming_response_unread(c):
    with c.anthropic.messages.with_streaming_response.create(**AM) as response:
        return response.status_code


@shape(MESSAGE)
async def an_async_with_streaming_response(c):
    async with c.async_anthropic.messages.with_streaming_response.create(**AM) as response:
        return kinds(response), await response.parse()


@shape(MESSAGE)
def an_beta_create(c):
    return c.anthropic.beta.messages.create(**AM)


@shape(MESSAGE)
async def an_async_beta_create(c):
    return await c.async_anthropic.beta.messages.create(**AM)


@shape(MESSAGE)
def an_parse(c):
    return c.anthropic.messages.parse(output_format=Out, **AM)


@shape(MESSAGE)
async def an_async_parse(c):
    return await c.async_anthropic.messages.parse(output_format=Out, **AM)


@shape(MESSAGE)
def an_beta_parse(c):
    return c.anthropic.beta.messages.parse(output_format=Out, **AM)


# --- Anthropic: streams -------------------------------------------------------------------------------------


@shape(MESSAGES)
def an_stream(c):
    stream = c.anthropic.messages.create(stream=True, **AM)
    return kinds(stream), list(stream)


@shape(MESSAGES)
def an_stream_with(c):
    with c.anthropic.messages.create(stream=True, **AM) as stream:
        return list(stream)


@shape(MESSAGES)
def an_stream_next(c):
    stream = c.anthropic.messages.create(stream=True, **AM)
    events = []
    while (event := next(stream, None)) is not None:
        events.append(event)
    return events


@shape(MESSAGES)
async def an_async_stream(c):
    stream = await c.async_anthropic.messages.create(stream=True, **AM)
    return kinds(stream), [event async for event in stream]


@shape(MESSAGES)
async def an_async_stream_with(c):
    async with await c.async_anthropic.messages.create(stream=True, **AM) as stream:
        return [event async for event in stream]


@shape(MESSAGES)
def an_helper(c):
    with c.anthropic.messages.stream(**AM) as stream:
        text = "".join(stream.text_stream)
        return kinds(stream), text, stream.get_final_message(), stream.request_id


@shape(MESSAGES)
def an_helper_events(c):
    with c.anthropic.messages.stream(**AM) as stream:
        return [event.type for event in stream]


@shape(MESSAGES)
def an_helper_final_only(c):
    with c.anthropic.messages.stream(**AM) as stream:
        return stream.get_final_message()


@shape(MESSAGES)
async def an_async_helper(c):
    async with c.async_anthropic.messages.stream(**AM) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        return kinds(stream), text, await stream.get_final_message()


@shape(MESSAGES)
def an_beta_helper(c):
    with c.anthropic.beta.messages.stream(**AM) as stream:
        return kinds(stream), stream.get_final_message()


@shape(MESSAGES)
async def an_async_beta_helper(c):
    async with c.async_anthropic.beta.messages.stream(**AM) as stream:
        return kinds(stream), await stream.get_final_message()


@shape(MESSAGES)
def an_raw_stream(c):
    raw = c.anthropic.messages.with_raw_response.create(stream=True, **AM)
    stream = raw.parse()
    return kinds(raw), kinds(stream), list(stream)


@shape(MESSAGES)
def an_with_streaming_response_lines(c):
    with c.anthropic.messages.with_streaming_response.create(stream=True, **AM) as response:
        return list(response.iter_lines())


@shape(MESSAGES)
async def an_async_with_streaming_response_lines(c):
    async with c.async_anthropic.messages.with_streaming_response.create(stream=True, **AM) as response:
        return [line async for line in response.iter_lines()]


@shape(MESSAGES)
def an_stream_read_in_another_thread(c):
    stream, found = c.anthropic.messages.create(stream=True, **AM), []
    reading = threading.Thread(target=lambda: found.extend(stream))
    reading.start()
    reading.join()
    return found


# --- Anthropic: streams that are not read to the end --------------------------------------------------------


@shape(MESSAGE_BEGUN)
def an_stream_closed_early(c):
    stream = c.anthropic.messages.create(stream=True, **under(AM, "hold"))
    first = next(iter(stream))
    stream.close()
    return first


@shape(MESSAGE_BEGUN)
def an_stream_break_in_with(c):
    with c.anthropic.messages.create(stream=True, **under(AM, "hold")) as stream:
        for event in stream:
            found = event
            break
    return found


@shape(MESSAGE_BEGUN)
def an_stream_dropped(c):
    stream = c.anthropic.messages.create(stream=True, **under(AM, "hold"))
    first = next(iter(stream))
    del stream
    return first


@shape(UNKNOWN_STREAM)
def an_stream_closed_unread(c):
    c.anthropic.messages.create(stream=True, **under(AM, "hold")).close()


@shape(MESSAGE_BEGUN)
def an_helper_break(c):
    with c.anthropic.messages.stream(**under(AM, "hold")) as stream:
        for event in stream:
            found = event.type
            break
    return found


@shape(MESSAGE_BEGUN)
def an_helper_exception_inside(c):
    def fails():
        with c.anthropic.messages.stream(**under(AM, "hold")) as stream:
            for _ in stream:
                raise ValueError("of the application")

    return raised(ValueError, fails)


@shape(MESSAGE_BEGUN)
async def an_async_stream_closed_early(c):
    stream = await c.async_anthropic.messages.create(stream=True, **under(AM, "hold"))
    async for event in stream:
        first = event
        await stream.close()
        break
    return first


@shape(MESSAGE_BEGUN)
async def an_async_stream_dropped(c):
    stream = await c.async_anthropic.messages.create(stream=True, **under(AM, "hold"))
    first = await anext(aiter(stream))
    del stream
    await asyncio.sleep(0.05)
    return first


@shape(MESSAGE_BEGUN)
async def an_async_helper_exception_inside(c):
    async def fails():
        async with c.async_anthropic.messages.stream(**under(AM, "hold")) as stream:
            async for _ in stream:
                raise ValueError("of the application")

    return await raised_in(ValueError, fails())


@shape(MESSAGE_BEGUN)
async def an_async_helper_cancelled(c):
    began = asyncio.Event()

    async def reads():
        async with c.async_anthropic.messages.stream(**under(AM, "hold")) as stream:
            async for _ in stream:
                began.set()

    task = asyncio.create_task(reads())
    await asyncio.wait_for(began.wait(), 60)
    await asyncio.sleep(0.02)
    task.cancel()
    return type(await raised_in(asyncio.CancelledError, task)).__name__


@shape(UNKNOWN)
async def an_async_create_cancelled(c):
    began = asyncio.Event()

    async def answered(_):
        began.set()

    c.async_anthropic._client.event_hooks["response"].append(answered)
    task = asyncio.create_task(c.async_anthropic.messages.create(**under(AM, "hold")))
    await asyncio.wait_for(began.wait(), 60)
    task.cancel()
    return type(await raised_in(asyncio.CancelledError, task)).__name__


# --- Anthropic: errors --------------------------------------------------------------------------------------


@shape(REFUSED)
def an_error(c):
    return raised(anthropic.RateLimitError, lambda: c.anthropic.messages.create(**under(AM, "429")))


@shape(REFUSED)
async def an_async_error(c):
    return await raised_in(anthropic.RateLimitError, c.async_anthropic.messages.create(**under(AM, "429")))


@shape(REFUSED)
def an_raw_error(c):
    create = c.anthropic.messages.with_raw_response.create
    return raised(anthropic.RateLimitError, lambda: create(**under(AM, "429")))


@shape(REFUSED_STREAM)
def an_stream_refused(c):
    return raised(anthropic.RateLimitError, lambda: c.anthropic.messages.create(stream=True, **under(AM, "429")))


@shape(REFUSED_STREAM)
def an_helper_refused(c):
    def reads():
        with c.anthropic.messages.stream(**under(AM, "429")) as stream:
            stream.get_final_message()

    return raised(anthropic.RateLimitError, reads)


@shape(replace(REFUSED, error="overloaded_error"))
def an_error_529(c):
    return raised(anthropic.APIStatusError, lambda: c.anthropic.messages.create(**under(AM, "529")))


@shape(replace(REFUSED, error="api_error"))
def an_error_500(c):
    return raised(anthropic.InternalServerError, lambda: c.anthropic.messages.create(**under(AM, "500")))


@shape(replace(REFUSED, error="anthropic.APITimeoutError"))
def an_timeout(c):
    client = c.anthropic.with_options(timeout=0.1)
    return raised(anthropic.APITimeoutError, lambda: client.messages.create(**under(AM, "hold")))


@shape(replace(REFUSED, error="anthropic.APIConnectionError"))
def an_no_connection(c):
    client = c.anthropic.with_options(base_url="http://127.0.0.1:9")
    return raised(anthropic.APIConnectionError, lambda: client.messages.create(**AM))


@shape(replace(MESSAGE_BEGUN, native=ERROR, error="overloaded_error"))
def an_error_event(c):
    stream = c.anthropic.messages.create(stream=True, **under(AM, "error"))
    return raised(anthropic.APIStatusError, lambda: list(stream))


@shape(replace(MESSAGE_BEGUN, native=ERROR, error="overloaded_error"))
async def an_async_helper_error_event(c):
    async def reads():
        async with c.async_anthropic.messages.stream(**under(AM, "error")) as stream:
            await stream.get_final_message()

    return await raised_in(anthropic.APIStatusError, reads())


@shape(replace(MESSAGE_BEGUN, native=ERROR, error="RemoteProtocolError"))
def an_stream_cut(c):
    stream = c.anthropic.messages.create(stream=True, **under(AM, "cut"))
    return type(raised(Exception, lambda: list(stream))).__name__


@shape(replace(MESSAGE_BEGUN, native=ERROR, error="ReadTimeout"))
def an_stream_stalls(c):
    # Longer than headers and first event take on a busy machine, shorter than the provider holds the rest.
    stream = c.anthropic.with_options(timeout=3).messages.create(stream=True, **under(AM, "hold"))
    return type(raised(Exception, lambda: list(stream))).__name__


# --- Anthropic: calls that carry no prompt to a model -------------------------------------------------------


@shape(COUNTING)
def an_count_tokens(c):
    return c.anthropic.messages.count_tokens(model=AM["model"], messages=AM["messages"])


@shape(SUBMITTING)
def an_batch(c):
    return c.anthropic.messages.batches.create(requests=[{"custom_id": "a", "params": AM}])


# --- Chat Completions ---------------------------------------------------------------------------------------


@shape(CHAT)
def oa_chat(c):
    return c.openai.chat.completions.create(**OM)


@shape(CHAT)
async def oa_async_chat(c):
    return await c.async_openai.chat.completions.create(**OM)


@shape(CHAT)
def oa_chat_parse(c):
    return c.openai.chat.completions.parse(response_format=Out, **OM)


@shape(CHAT)
async def oa_async_chat_parse(c):
    return await c.async_openai.chat.completions.parse(response_format=Out, **OM)


@shape(CHAT)
def oa_chat_raw(c):
    raw = c.openai.chat.completions.with_raw_response.create(**OM)
    return kinds(raw), raw.headers["content-type"], raw.parse()


@shape(CHAT)
async def oa_async_chat_raw(c):
    raw = await c.async_openai.chat.completions.with_raw_response.create(**OM)
    return kinds(raw), raw.parse()


@shape(CHAT)
def oa_chat_with_streaming_response(c):
    with c.openai.chat.completions.with_streaming_response.create(**OM) as response:
        return kinds(response), response.parse()


@shape(CHAT)
async def oa_async_chat_with_streaming_response(c):
    async with c.async_openai.chat.completions.with_streaming_response.create(**OM) as response:
        return kinds(response), await response.parse()


@shape(UNKNOWN_STREAM)
def oa_chat_stream_without_usage(c):
    stream = c.openai.chat.completions.create(stream=True, **OM)
    return kinds(stream), list(stream)


@shape(CHATS)
def oa_chat_stream(c):
    stream = c.openai.chat.completions.create(stream=True, **USAGE, **OM)
    return kinds(stream), list(stream)


@shape(CHATS)
async def oa_async_chat_stream(c):
    stream = await c.async_openai.chat.completions.create(stream=True, **USAGE, **OM)
    return kinds(stream), [chunk async for chunk in stream]


@shape(CHATS)
def oa_chat_stream_with(c):
    with c.openai.chat.completions.create(stream=True, **USAGE, **OM) as stream:
        return list(stream)


@shape(CHATS)
def oa_chat_raw_stream(c):
    raw = c.openai.chat.completions.with_raw_response.create(stream=True, **USAGE, **OM)
    return list(raw.parse())


@shape(CHATS)
def oa_chat_helper(c):
    with c.openai.chat.completions.stream(**USAGE, **OM) as stream:
        events = [event.type for event in stream]
        return kinds(stream), events, stream.get_final_completion()


@shape(CHATS)
async def oa_async_chat_helper(c):
    async with c.async_openai.chat.completions.stream(**USAGE, **OM) as stream:
        events = [event.type async for event in stream]
        return kinds(stream), events, await stream.get_final_completion()


@shape(UNKNOWN_STREAM)
def oa_chat_stream_closed_early(c):
    stream = c.openai.chat.completions.create(stream=True, **USAGE, **under(OM, "hold"))
    first = next(iter(stream))
    stream.close()
    return first


@shape(UNKNOWN_STREAM)
def oa_chat_stream_dropped(c):
    stream = c.openai.chat.completions.create(stream=True, **USAGE, **under(OM, "hold"))
    first = next(iter(stream))
    del stream
    return first


@shape(UNKNOWN_STREAM)
async def oa_async_chat_stream_cancelled(c):
    began = asyncio.Event()

    async def reads():
        async for _ in await c.async_openai.chat.completions.create(stream=True, **under(OM, "hold")):
            began.set()

    task = asyncio.create_task(reads())
    await asyncio.wait_for(began.wait(), 60)
    task.cancel()
    return type(await raised_in(asyncio.CancelledError, task)).__name__


@shape(UNKNOWN_STREAM)
def oa_chat_exception_inside(c):
    def fails():
        with c.openai.chat.completions.create(stream=True, **under(OM, "hold")) as stream:
            for _ in stream:
                raise ValueError("of the application")

    return raised(ValueError, fails)


@shape(REFUSED)
def oa_chat_error(c):
    return raised(openai.RateLimitError, lambda: c.openai.chat.completions.create(**under(OM, "429")))


@shape(REFUSED)
async def oa_async_chat_error(c):
    return await raised_in(openai.RateLimitError, c.async_openai.chat.completions.create(**under(OM, "429")))


@shape(Expected(None, None, None, error="server_error", stream=True))
def oa_chat_error_event(c):
    stream = c.openai.chat.completions.create(stream=True, **USAGE, **under(OM, "error"))
    return raised(openai.APIError, lambda: list(stream))


# --- Responses ----------------------------------------------------------------------------------------------


@shape(RESPONSE)
def oa_response(c):
    return c.openai.responses.create(**RM)


@shape(RESPONSE)
async def oa_async_response(c):
    return await c.async_openai.responses.create(**RM)


@shape(RESPONSE)
def oa_response_parse(c):
    return c.openai.responses.parse(text_format=Out, **RM)


@shape(RESPONSE)
async def oa_async_response_parse(c):
    return await c.async_openai.responses.parse(text_format=Out, **RM)


@shape(RESPONSE)
def oa_response_raw(c):
    raw = c.openai.responses.with_raw_response.create(**RM)
    return kinds(raw), raw.parse()


@shape(RESPONSE)
def oa_response_with_streaming_response(c):
    with c.openai.responses.with_streaming_response.create(**RM) as response:
        return response.parse()


@shape(RESPONSES)
def oa_response_stream(c):
    stream = c.openai.responses.create(stream=True, **RM)
    return kinds(stream), list(stream)


@shape(RESPONSES)
async def oa_async_response_stream(c):
    stream = await c.async_openai.responses.create(stream=True, **RM)
    return kinds(stream), [event async for event in stream]


@shape(RESPONSES)
def oa_response_stream_with(c):
    with c.openai.responses.create(stream=True, **RM) as stream:
        return list(stream)


@shape(RESPONSES)
def oa_response_helper(c):
    with c.openai.responses.stream(**RM) as stream:
        events = [event.type for event in stream]
        return kinds(stream), events, stream.get_final_response()


@shape(RESPONSES)
async def oa_async_response_helper(c):
    async with c.async_openai.responses.stream(**RM) as stream:
        events = [event.type async for event in stream]
        return kinds(stream), events, await stream.get_final_response()


@shape(UNKNOWN_STREAM)
def oa_response_stream_closed_early(c):
    stream = c.openai.responses.create(stream=True, **under(RM, "hold"))
    first = next(iter(stream))
    stream.close()
    return first


@shape(REFUSED)
def oa_response_error(c):
    return raised(openai.RateLimitError, lambda: c.openai.responses.create(**under(RM, "429")))


@shape(REFUSED)
async def oa_async_response_error(c):
    return await raised_in(openai.RateLimitError, c.async_openai.responses.create(**under(RM, "429")))


@shape(Expected(None, None, None, error="server_error", stream=True))
def oa_response_error_event(c):
    stream = c.openai.responses.create(stream=True, **under(RM, "error"))
    return [event.type for event in stream]


# --- What holds of each -------------------------------------------------------------------------------------

CASES = [
    pytest.param(shape, native, id=f"{shape.call.__name__}-{'native' if native else 'alone'}")
    for shape in SHAPES
    for native in ([True, False] if shape.sdk == "anthropic" and HAS_NATIVE else [False])
]
TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.output_tokens",
)
COUNTERS = (
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
)


def finished(call: Callable[[Any], Any], clients: Any) -> Any:
    """Makes the call, sync or async, and gives what the application holds afterwards."""
    if not inspect.iscoroutinefunction(call):
        return seen(call(clients))

    async def whole():
        try:
            return seen(await call(clients))
        finally:
            await clients.aclose()

    return asyncio.run(whole())


@pytest.mark.parametrize(("shape", "native"), CASES)
def test_call(shape, native, connect, observe, quiet):
    """The application gets the same object, and one span, one count and one price say what it cost."""
    from opentelemetry.sdk.trace import TracerProvider

    without_us = finished(shape.call, connect(TracerProvider() if native else None))
    telemetry = observe()
    with_us = finished(shape.call, connect(telemetry.tracer_provider if native else None))

    assert with_us == without_us
    expected = shape.expected
    if telemetry.total("promptcache.calls") != expected.calls:
        gc.collect()  # some SDKs leave the end of a dropped stream to the garbage collector, which tells the worker
        telemetry.flush()
    check_metrics(telemetry, expected)
    (span,) = telemetry.spans
    if expected.errand:
        check_errand(span, expected.errand, native)
        return
    assert span.kind is SpanKind.CLIENT
    assert tuple(span.attributes.get(name) for name in TOKENS) == (expected.tokens or (None, None, None, None))
    if native:
        assert (span.instrumentation_scope.name, span.name) == (NATIVE_SCOPE, "anthropic.messages.create")
        assert span.status.status_code is expected.native
        if expected.tokens is None:  # the SDK ended its span before anything could be said
            assert [name for name in span.attributes if name.startswith("promptcache.")] == []
            return
    else:
        model = "claude-sonnet-4-6" if shape.sdk == "anthropic" else "gpt-5.6"
        assert span.instrumentation_scope.name == "otel_promptcache"
        assert span.name.partition("+")[0] == f"chat {model}"
        assert span.status.status_code is (ERROR if expected.error else UNSET)
        assert span.attributes.get("error.type", "") == expected.error
        assert span.attributes.get("gen_ai.request.stream", False) == expected.stream
        assert span.attributes["gen_ai.provider.name"] == shape.sdk
    missing = expected.tokens is None and not expected.error
    assert span.attributes.get("promptcache.status") == expected.status
    assert span.attributes.get("promptcache.cost.total") == expected.cost
    assert span.attributes.get("promptcache.usage.available", True) is not missing
    assert span.attributes["promptcache.schema"] == 1


def check_errand(span, operation, native):
    """Observed, not priced: the SDK's own span has what is ours to say, else one of ours."""
    told = span.attributes
    assert [name for name in told if "cost" in name or name.startswith("gen_ai.usage.")] == []
    assert (span.instrumentation_scope.name == NATIVE_SCOPE) is native
    if not native:
        assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == (operation, "anthropic")
    assert told.get("promptcache.counted.tokens") == (5100 if operation == "count_tokens" else None)
    assert told.get("promptcache.batch.id") == ("msgbatch_1" if operation == "create_batch" else None)
    assert told.get("promptcache.batch.requests") == (1 if operation == "create_batch" else None)


def check_metrics(telemetry, expected):
    assert telemetry.total("promptcache.calls") == expected.calls
    assert tuple(telemetry.total(name) for name in COUNTERS) == tuple(n or 0 for n in expected.tokens or (0, 0, 0, 0))
    assert telemetry.total("promptcache.cost") == pytest.approx(expected.cost or 0, abs=1e-12)
    missing = expected.tokens is None and not expected.error
    assert telemetry.total("promptcache.usage_missing.calls") == (expected.calls if missing else 0)
    assert telemetry.total("promptcache.unpriced.calls") == 0
    assert telemetry.total("promptcache.internal.errors") == 0
    durations = telemetry.points("gen_ai.client.operation.duration")
    if expected.errand:
        assert [labels["gen_ai.operation.name"] for labels, _ in durations] == [expected.errand]
        return
    assert sum(point.count for _, point in durations) == expected.calls
    assert [labels.get("error.type", "") for labels, _ in durations] == [expected.error] * expected.calls
    first_chunks = sum(point.count for _, point in telemetry.points("gen_ai.client.operation.time_to_first_chunk"))
    assert first_chunks in ([1] if expected.stream and expected.tokens else [0, 1] if expected.stream else [0])


def test_every_shape_of_the_peers_is_here():
    """No fewer ways to call than the comparison with other instrumentations knows: 24 and 20."""
    assert len([shape for shape in SHAPES if shape.sdk == "anthropic"]) >= 24
    assert len([shape for shape in SHAPES if shape.sdk == "openai"]) >= 20
