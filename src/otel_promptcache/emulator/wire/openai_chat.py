"""OpenAI Chat Completions on the wire. Shapes follow the types of openai 3.54."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_promptcache.emulator.exchange import Event, Exchange, ProviderError, pieces
from otel_promptcache.emulator.wire import _openai, _shape, _silent, _usage
from otel_promptcache.model import Prompt
from otel_promptcache.providers import Dialect
from otel_promptcache.providers import openai_chat as adapter
from otel_promptcache.providers._wire import as_list, mapping

dialect: Final[Dialect] = adapter
path: Final = "/v1/chat/completions"
end: Final = b"data: [DONE]\n\n"

credential = _openai.credential
speechless = _openai.speechless
outage = _openai.outage
too_long = _openai.too_long
too_large = _openai.too_large
max_body: Final = _openai.MAX_BODY
usage = _usage.chat

_LIFETIMES: Final = ("30m",)
_MESSAGES: Final = _shape.Shape(
    "messages",
    ("developer", "system", "user", "assistant", "tool", "function"),
    frozenset({"text", "image_url", "input_audio", "file", "refusal"}),
    silent=frozenset({"assistant", "function"}),
)


def check(body: Mapping[str, Any], prompt: Prompt) -> None:
    _openai.require_model(body)
    _openai.require(body, "messages")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise _openai.invalid("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    if not messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise _openai.invalid(message, "messages", "empty_array")
    _openai.check_shape(body, {"response_format": (dict,)}, _MESSAGES)
    if body.get("n") not in (None, 1):
        raise _openai.invalid("Unsupported value: 'n' must be 1 with this model.", "n", "unsupported_value")
    _openai.check_strings("messages", messages)
    _openai.check_caching(body, prompt, _LIFETIMES)


compared, verdict = _silent.compared, _silent.verdict


def answered(exchange: Exchange) -> Mapping[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": exchange.reply.text or None}
    if exchange.reply.tool_calls:
        said["tool_calls"] = _tool_calls(exchange)
    return {**exchange.body, "messages": [*as_list(exchange.body.get("messages")), said]}


def response_id(exchange: Exchange) -> str:
    return exchange.identity("chatcmpl-")


def document(exchange: Exchange) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": exchange.reply.text or None,
        "refusal": None,
        "annotations": [],
    }
    if exchange.reply.tool_calls:
        message["tool_calls"] = _tool_calls(exchange)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(exchange)}
    head = _head(exchange, "chat.completion")
    return {**head, "choices": [choice], "usage": usage(exchange), **_usage.timings(exchange)}


def _head(exchange: Exchange, kind: str) -> dict[str, Any]:
    return {
        "id": response_id(exchange),
        "object": kind,
        "created": int(exchange.created),
        "model": exchange.prompt.model,
        "service_tier": "default",
        "system_fingerprint": "fp_emulator",
    }


def _tool_calls(exchange: Exchange) -> list[dict[str, Any]]:
    return [
        {
            "id": exchange.identity("call_", number),
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(exchange.reply.tool_calls, 1)
    ]


def _finish_reason(exchange: Exchange) -> str:
    if exchange.truncated:
        return "length"
    return "tool_calls" if exchange.reply.tool_calls else "stop"


def events(exchange: Exchange) -> Iterator[Event]:
    head = _head(exchange, "chat.completion.chunk")
    counted = mapping(exchange.body.get("stream_options")).get("include_usage") is True
    no_usage = {"usage": None} if counted else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return "", {**head, "choices": [choice], **no_usage}

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in pieces(exchange.reply.text):
        yield chunk({"content": piece})
    for index, call in enumerate(_tool_calls(exchange)):
        arguments = call["function"]["arguments"]
        opened = {**call, "function": {**call["function"], "arguments": ""}}
        yield chunk({"tool_calls": [{"index": index, **opened}]})
        for piece in pieces(arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    _, last = chunk({}, _finish_reason(exchange))
    counts: dict[str, Any] = {"usage": usage(exchange)} if counted else {}
    if counted and exchange.personality.name != "deepseek":  # which puts it into the last chunk of the choice
        yield "", last
        last = {**head, "choices": []}
    yield "", {**last, **counts, **_usage.timings(exchange)}


def error(error: ProviderError, _request_id: str) -> dict[str, Any]:
    return _openai.error(error)


def error_event() -> Event:
    return "", _openai.error(_openai.outage(500))
