"""Anthropic Messages on the wire: Message objects, event streams, message threads, errors.

Shapes follow the types of anthropic 2.12 and platform.claude.com/docs/en/api/messages (2026-09).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from otel_promptcache.emulator import diagnostics
from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.exchange import Event, Exchange, ProviderError, Turn, pieces
from otel_promptcache.emulator.wire import _usage
from otel_promptcache.model import Kind, Prompt, Segment
from otel_promptcache.providers import Dialect
from otel_promptcache.providers import anthropic as adapter
from otel_promptcache.providers._wire import as_list, mapping, marker, string, unmarked
from otel_promptcache.providers.rules import HOUR, MINUTE, TTL_NAMES, TTL_SECONDS, rules_for

dialect: Final[Dialect] = adapter
path: Final = "/v1/messages"
end: Final = b""
max_body: Final = 32 * 2**20
max_batch: Final = 256 * 2**20

_LIFETIMES: Final = (5 * MINUTE, HOUR)
_LIFETIME_NAMES: Final = [TTL_NAMES[ttl] for ttl in _LIFETIMES]
_CREATE_ONLY: Final = ("system", "tools")
"""Request fields that a message thread keeps from the request that created it."""


def credential(headers: Mapping[str, str]) -> str:
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not key:
        raise ProviderError(401, "authentication_error", "x-api-key header is required")
    if not headers.get("anthropic-version"):
        raise invalid("anthropic-version: header is required")
    return key


def invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message)


# --- Requests -----------------------------------------------------------------------------------------------


def check(body: Mapping[str, Any], prompt: Prompt) -> None:
    check_prompt(body, prompt)
    limit = body.get("max_tokens")
    if limit is None:
        raise invalid("max_tokens: Field required")
    if type(limit) is not int or limit < 0:
        raise invalid("max_tokens: Input should be a valid integer, greater than or equal to 0")
    if limit == 0:
        _check_prewarm(body)


def check_prompt(body: Mapping[str, Any], prompt: Prompt) -> None:
    """What holds for a call and for a token count alike."""
    for name in ("model", "messages"):
        if body.get(name) is None:
            raise invalid(f"{name}: Field required")
    if not isinstance(body["messages"], list):
        raise invalid("messages: Input should be a valid array")
    if not body["messages"] and not previous(body):
        raise invalid("messages: at least one message is required")
    if previous(body) and any(field in body for field in _CREATE_ONLY):
        raise invalid("thread: system and tools are taken from the thread and must not be sent again")
    _check_markers(body, prompt)


def _check_markers(body: Mapping[str, Any], prompt: Prompt) -> None:
    """platform.claude.com/docs/en/build-with-claude/prompt-caching: at most four; 1 hour before 5 minutes; neither
    reasoning nor empty text can be marked."""
    most = rules_for(adapter.provider, prompt.model).max_breakpoints
    marks = prompt.breakpoints
    if len(marks) > most:
        raise invalid(f"A maximum of {most} blocks with cache_control may be provided. Found {len(marks)}.")
    for place, control in _controls(body):
        if not isinstance(control, dict) or control.get("type", "ephemeral") != "ephemeral":
            raise invalid(f"{place}.type: Input should be 'ephemeral'")
        if control.get("ttl", "5m") not in _LIFETIME_NAMES:
            raise invalid(f"{place}.ttl: Input should be '5m' or '1h'")
    for mark in marks:
        segment = prompt.segments[mark.length - 1]
        place = _dotted(segment)
        if segment.kind is Kind.REASONING:
            raise invalid(f"{place}.thinking.cache_control: Extra inputs are not permitted")
        if segment.value == "":
            raise invalid(f"{place}.text: cache_control cannot be set for empty text blocks")
    for before, after in itertools.pairwise(marks):
        if after.ttl > before.ttl:
            raise invalid(
                f"{_dotted(prompt.segments[after.length - 1])}.cache_control.ttl: a ttl='{TTL_NAMES[after.ttl]}' "
                f"cache_control block must not come after a ttl='{TTL_NAMES[before.ttl]}' cache_control block. "
                "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
            )
    if prompt.automatic and all(mark.explicit for mark in marks) and marks:
        # The automatic marker falls on a block that has one of its own.
        ttl = TTL_SECONDS.get(string(mapping(body.get("cache_control")).get("ttl")), 5 * MINUTE)
        if ttl != marks[-1].ttl:
            raise invalid("cache_control: ttl differs from the marker on the last block")


def _controls(body: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """(place, value) of each ``cache_control`` in a request."""
    if (automatic := body.get("cache_control")) is not None:
        yield "cache_control", automatic
    blocks = [(f"tools.{n}", tool) for n, tool in enumerate(as_list(body.get("tools")))]
    blocks += [(f"system.{n}", block) for n, block in enumerate(as_list(body.get("system")))]
    for index, message in enumerate(as_list(body.get("messages"))):
        content = mapping(message).get("content")
        if isinstance(content, list):
            blocks += [(f"messages.{index}.content.{n}", block) for n, block in enumerate(content)]
    for place, block in blocks:
        if (control := marker(block, "cache_control")) is not None:
            yield f"{place}.cache_control", control


def _dotted(segment: Segment) -> str:
    """A place in the API's own notation: ``messages.0.content.1``."""
    return adapter.path(segment).replace("[", ".").replace("]", "")


def _check_prewarm(body: Mapping[str, Any]) -> None:
    """A request that only fills the cache takes nothing that concerns output."""
    refused = (
        ("stream", body.get("stream") is True),
        ("thinking", mapping(body.get("thinking")).get("type") == "enabled"),
        ("output_config.format", mapping(body.get("output_config")).get("format") is not None),
        ("tool_choice", mapping(body.get("tool_choice")).get("type") in ("tool", "any")),
    )
    for name, given in refused:
        if given:
            raise invalid(f"{name}: not supported with max_tokens: 0")


def speechless(body: Mapping[str, Any]) -> bool:
    return body.get("max_tokens") == 0


def compared(body: Mapping[str, Any]) -> str:
    return string(mapping(body.get("diagnostics")).get("previous_message_id"))


def verdict(
    body: Mapping[str, Any], _prompt: Prompt, counts: Accounting, difference: diagnostics.Difference | None
) -> Mapping[str, Any] | None:
    """The object in the request is the opt-in; without an earlier message there is nothing to compare with."""
    return diagnostics.anthropic(difference, counts) if compared(body) else None


def answered(exchange: Exchange) -> Mapping[str, Any]:
    said = {"role": "assistant", "content": _content(exchange)}
    return {**exchange.body, "messages": [*as_list(exchange.body.get("messages")), said]}


def previous(body: Mapping[str, Any]) -> str:
    return string(mapping(body.get("thread")).get("previous_message_id"))


def lost(previous: str) -> ProviderError:
    return ProviderError(
        404,
        "not_found_error",
        f"thread: no message {previous} is held",
        details={"error_code": "thread_not_found"},
    )


def resumed(body: Mapping[str, Any], items: Sequence[Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The thread's messages go in front without their markers: each was set for the turn that sent it.

    System and tools keep theirs. The documents do not say either; the SDK resends a lost thread in this form.
    """
    held = [
        {
            **message,
            "content": [unmarked(block) if isinstance(block, dict) else block for block in message["content"]],
        }
        if isinstance(message.get("content"), list)
        else message
        for message in map(mapping, items)
    ]
    alone = {name: value for name, value in body.items() if name != "thread"}
    return {**settings, **alone, "messages": [*held, *as_list(body.get("messages"))]}


def turn(exchange: Exchange) -> Turn | None:
    body = exchange.body
    if not isinstance(body.get("thread"), dict):
        return None
    answer = {"role": "assistant", "content": _content(exchange)}
    settings = {name: body[name] for name in _CREATE_ONLY if name in body}
    return Turn([*as_list(body.get("messages")), answer], settings)


# --- Responses ----------------------------------------------------------------------------------------------


def response_id(exchange: Exchange) -> str:
    return exchange.identity("msg_01")


def document(exchange: Exchange) -> dict[str, Any]:
    return _message(exchange, _content(exchange), _stop_reason(exchange), usage(exchange))


def _message(
    exchange: Exchange, content: list[dict[str, Any]], stop_reason: str | None, counts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": response_id(exchange),
        "type": "message",
        "role": "assistant",
        "model": exchange.prompt.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": None,
        **({"diagnostics": exchange.diagnostics} if "diagnostics" in exchange.body else {}),
        "usage": counts,
    }


def _content(exchange: Exchange) -> list[dict[str, Any]]:
    reply = exchange.reply
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for number, (name, arguments) in enumerate(reply.tool_calls, 1):
        identity = exchange.identity("toolu_01", number)
        blocks.append({"type": "tool_use", "id": identity, "name": name, "input": dict(arguments)})
    return blocks


def _stop_reason(exchange: Exchange) -> str:
    if exchange.truncated or speechless(exchange.body):
        return "max_tokens"
    return "tool_use" if exchange.reply.tool_calls else "end_turn"


def usage(exchange: Exchange) -> dict[str, Any]:
    """``input_tokens`` is what follows the last breakpoint; read and written tokens stand beside it."""
    if not exchange.personality.needs_key:
        return dict(_usage.messages(exchange))
    by_ttl = dict(exchange.accounting.writes)
    return {
        **_usage.messages(exchange),
        "cache_creation": {f"ephemeral_{TTL_NAMES[ttl]}_input_tokens": by_ttl.get(ttl, 0) for ttl in _LIFETIMES},
        "service_tier": exchange.tier,
        "inference_geo": string(exchange.body.get("inference_geo")) or "global",
        "speed": string(exchange.body.get("speed")) or "standard",
    }


def events(exchange: Exchange) -> Iterator[Event]:
    started = _message(exchange, [], None, {**usage(exchange), "output_tokens": 1})
    yield _event("message_start", message=started)
    for index, block in enumerate(_content(exchange)):
        opened, kind, portions = _streamed(block)
        yield _event("content_block_start", index=index, content_block=opened)
        if not index:
            yield _event("ping")
        for portion in portions:
            yield _event("content_block_delta", index=index, delta={"type": f"{kind}_delta", **portion})
        yield _event("content_block_stop", index=index)
    delta = {"stop_reason": _stop_reason(exchange), "stop_sequence": None, "stop_details": None}
    yield _event("message_delta", delta=delta, usage=_usage.messages(exchange))
    yield _event("message_stop")


def _event(name: str, **fields: Any) -> Event:
    return name, {"type": name, **fields}


def _streamed(block: dict[str, Any]) -> tuple[dict[str, Any], str, list[dict[str, str]]]:
    """A block as it opens, the kind of its deltas, and the deltas."""
    if block["type"] == "text":
        return {**block, "text": ""}, "text", [{"text": piece} for piece in pieces(block["text"])]
    arguments = ["", *pieces(json.dumps(block["input"]))]
    return {**block, "input": {}}, "input_json", [{"partial_json": piece} for piece in arguments]


# --- Errors -------------------------------------------------------------------------------------------------


def error(error: ProviderError, request_id: str) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": error.kind, "message": error.message}
    if error.details is not None:
        inner["details"] = dict(error.details)
    return {"type": "error", "error": inner, "request_id": request_id}


def error_event() -> Event:
    return "error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


_OUTAGES: Final[dict[int, tuple[str, str]]] = {
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}


def outage(status: int) -> ProviderError:
    kind, message = _OUTAGES[status]
    return ProviderError(status, kind, message)


def too_long(total: int, limit: int) -> ProviderError:
    return invalid(f"prompt is too long: {total} tokens > {limit} maximum")


def too_large() -> ProviderError:
    return ProviderError(413, "request_too_large", "Request exceeds the maximum size")
