"""OpenAI Responses on the wire, held conversations included. Shapes follow the types of openai 3.54."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from otel_promptcache.emulator import diagnostics
from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.exchange import Event, Exchange, ProviderError, Turn, pieces
from otel_promptcache.emulator.wire import _openai, _usage
from otel_promptcache.model import Prompt
from otel_promptcache.providers import Dialect
from otel_promptcache.providers import _openai as dialect_options
from otel_promptcache.providers import openai_responses as adapter
from otel_promptcache.providers._wire import as_list, mapping, string

dialect: Final[Dialect] = adapter
path: Final = "/v1/responses"
end: Final = b""

credential = _openai.credential
speechless = _openai.speechless
outage = _openai.outage
too_long = _openai.too_long
too_large = _openai.too_large
max_body: Final = _openai.MAX_BODY
usage = _usage.responses

_LIFETIMES: Final = ("30m", "12h")

# --- Requests -----------------------------------------------------------------------------------------------


def check(body: Mapping[str, Any], prompt: Prompt) -> None:
    _openai.require_model(body)
    if not previous(body):
        _openai.require(body, "input")
    if not isinstance(body.get("input", []), str | list):
        message = "Invalid type for 'input': expected a string or an array of input items."
        raise _openai.invalid(message, "input", "invalid_type")
    if prompt.conversation_id:
        message = f"Conversation with id '{prompt.conversation_id}' not found."
        raise ProviderError(404, "invalid_request_error", message, "conversation")
    _openai.check_strings("input", body.get("input"))
    _openai.check_caching(body, prompt, _LIFETIMES)


def compared(body: Mapping[str, Any]) -> str:
    return string(dialect_options.options(body).get("comparison_response_id"))


def verdict(
    body: Mapping[str, Any], prompt: Prompt, counts: Accounting, difference: diagnostics.Difference | None
) -> Mapping[str, Any] | None:
    """GPT-5.6 and later only."""
    if not compared(body):
        return None
    return diagnostics.openai(difference, counts) if _openai.reports_writes(prompt) else {"type": "unavailable"}


def answered(exchange: Exchange) -> Mapping[str, Any]:
    return {**exchange.body, "input": [*_input(exchange.body), *_output(exchange, "completed")]}


def previous(body: Mapping[str, Any]) -> str:
    return string(body.get("previous_response_id"))


def lost(previous: str) -> ProviderError:
    message = f"Previous response with id '{previous}' not found."
    return _openai.invalid(message, "previous_response_id", "previous_response_not_found")


def resumed(
    body: Mapping[str, Any],
    items: Sequence[Any],
    _settings: Mapping[str, Any],
) -> Mapping[str, Any]:
    """The earlier turns in front of the new input. Instructions and tools are not carried over."""
    alone = {name: value for name, value in body.items() if name != "previous_response_id"}
    return {**alone, "input": [*items, *_input(body)]}


def turn(exchange: Exchange) -> Turn | None:
    if exchange.body.get("store") is False:
        return None
    return Turn([*_input(exchange.body), *_output(exchange, "completed")])


def _input(body: Mapping[str, Any]) -> list[Any]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else as_list(given)


# --- Responses ----------------------------------------------------------------------------------------------


def response_id(exchange: Exchange) -> str:
    return exchange.identity("resp_")


def document(exchange: Exchange) -> dict[str, Any]:
    status = "incomplete" if exchange.truncated else "completed"
    return {
        **_response(exchange, status, _output(exchange, status), usage(exchange)),
        "completed_at": int(exchange.created),
        "incomplete_details": {"reason": "max_output_tokens"} if exchange.truncated else None,
    }


def _response(
    exchange: Exchange, status: str, output: list[dict[str, Any]], counts: dict[str, Any] | None
) -> dict[str, Any]:
    """A Response object: what the request asked for is repeated, as the API does."""
    body = exchange.body
    options: dict[str, Any] = {}
    if _openai.reports_writes(exchange.prompt):
        asked = dialect_options.options(body)
        options["prompt_cache_options"] = {
            "mode": asked.get("mode", "implicit"),
            "ttl": asked.get("ttl", "30m"),
        }
        if compared(body):
            options["prompt_cache_options"]["comparison_response_id"] = compared(body)
            options["prompt_cache_diagnostics"] = None if counts is None else exchange.diagnostics
    return {
        "id": response_id(exchange),
        "object": "response",
        "created_at": int(exchange.created),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": exchange.prompt.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        **options,
        "reasoning": {"effort": None, "summary": None, **mapping(body.get("reasoning"))},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **mapping(body.get("text"))},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": as_list(body.get("tools")),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": counts,
        "user": body.get("user"),
    }


def _output(exchange: Exchange, status: str) -> list[dict[str, Any]]:
    reply = exchange.reply
    items: list[dict[str, Any]] = []
    if reply.text:
        items.append(
            {
                "id": exchange.identity("msg_", 1),
                "type": "message",
                "role": "assistant",
                "status": status,
                "content": [_text_part(reply.text)],
            }
        )
    for number, (name, arguments) in enumerate(reply.tool_calls, 2):
        items.append(
            {
                "id": exchange.identity("fc_", number),
                "type": "function_call",
                "status": status,
                "call_id": exchange.identity("call_", number),
                "name": name,
                "arguments": json.dumps(arguments),
            }
        )
    return items


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def events(exchange: Exchange) -> Iterator[Event]:
    number = itertools.count()

    def event(name: str, /, **fields: Any) -> Event:
        return name, {"type": name, "sequence_number": next(number), **fields}

    opened = _response(exchange, "in_progress", [], None)
    yield event("response.created", response=opened)
    yield event("response.in_progress", response=opened)
    final = document(exchange)
    for index, item in enumerate(final["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        unfinished = {**item, "status": "in_progress"}
        if item["type"] == "message":
            text = item["content"][0]["text"]
            inside = {**place, "content_index": 0}
            yield event("response.output_item.added", output_index=index, item={**unfinished, "content": []})
            yield event("response.content_part.added", **inside, part=_text_part(""))
            for piece in pieces(text):
                yield event("response.output_text.delta", **inside, delta=piece, logprobs=[])
            yield event("response.output_text.done", **inside, text=text, logprobs=[])
            yield event("response.content_part.done", **inside, part=_text_part(text))
        else:
            arguments = item["arguments"]
            yield event("response.output_item.added", output_index=index, item={**unfinished, "arguments": ""})
            for piece in pieces(arguments):
                yield event("response.function_call_arguments.delta", **place, delta=piece)
            yield event("response.function_call_arguments.done", **place, name=item["name"], arguments=arguments)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{final['status']}", response=final)


# --- Errors -------------------------------------------------------------------------------------------------


def error(error: ProviderError, _request_id: str) -> dict[str, Any]:
    return _openai.error(error)


def error_event() -> Event:
    failure = _openai.outage(500)
    fields = {"code": "server_error", "message": failure.message, "param": None, "sequence_number": 0}
    return "error", {"type": "error", **fields}
