"""OpenAI Responses: wire request to ``Prompt``, wire response to ``Answer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.model import Answer, Breakpoint, Kind, Prompt, Section, Segment, Usage
from otel_promptcache.providers import _openai
from otel_promptcache.providers._wire import Builder, count, mapping, string, text_of
from otel_promptcache.providers.endpoints import provider_by, provider_by_id

name: Final = "openai_responses"
provider: Final = _openai.provider
operation: Final = "chat"
credentials: Final = _openai.credentials
headers: Final = _openai.headers

_TEXT: Final = frozenset({"input_text", "output_text", "text"})
_KINDS: Final[dict[str, Kind]] = {
    "input_image": Kind.IMAGE,
    "input_file": Kind.DOCUMENT,
    "input_audio": Kind.AUDIO,
    "function_call": Kind.TOOL_USE,
    "custom_tool_call": Kind.TOOL_USE,
    "function_call_output": Kind.TOOL_RESULT,
    "custom_tool_call_output": Kind.TOOL_RESULT,
    "reasoning": Kind.REASONING,
}
_EPHEMERAL: Final = frozenset({"id", "status"})
"""Fields of output items that are no part of the prompt when an item is sent back."""


def handles(path: str) -> bool:
    """Whether a request path creates a response or compacts a conversation (and not ``/responses/{id}``)."""
    return path.endswith(("/responses", "/responses/compact"))


def prompt(body: Mapping[str, Any]) -> Prompt:
    """The request body as a prompt. ``instructions`` and leading developer items are the system section."""
    built = Builder()
    marks: list[Breakpoint] = []
    text = mapping(body.get("text"))
    reasoning = mapping(body.get("reasoning"))
    _openai.parameter(built, "parallel_tool_calls", body.get("parallel_tool_calls"), True)
    _openai.parameter(built, "text.format", text.get("format"), {"type": "text"})
    _openai.parameter(built, "text.verbosity", text.get("verbosity"), "medium")
    _openai.parameter(built, "reasoning.effort", reasoning.get("effort"))
    _openai.parameter(built, "tool_choice", body.get("tool_choice"), "auto")
    _openai.parameter(built, "service_tier", body.get("service_tier"), "auto")
    _openai.parameter(built, "context_management", body.get("context_management"))
    for index, tool in enumerate(built.limited(body.get("tools"))):
        built.block(Section.TOOLS, index, -1, "tool", tool, Kind.TOOL)
    instructions = body.get("instructions")
    if type(instructions) is str:
        built.text(Section.SYSTEM, -1, -1, "system", instructions)

    previous = string(body.get("previous_response_id"))
    conversation = body.get("conversation")
    conversation_id = conversation if type(conversation) is str else string(mapping(conversation).get("id"))
    if previous or conversation_id:
        built.held(previous or conversation_id)

    source = body.get("input")
    items = [{"role": "user", "content": source}] if type(source) is str else built.limited(source)
    leading = _openai.leading_instructions(items)
    eligible = len(built.segments) if type(instructions) is str and instructions else 0
    for index, item in enumerate(items):
        if _item(built, marks, index, mapping(item), leading) or index == leading - 1:
            eligible = len(built.segments)

    segments = built.segments
    return Prompt(
        dialect=name,
        model=string(body.get("model")),
        segments=segments,
        breakpoints=_openai.breakpoints(body, segments, marks, eligible),
        automatic=_openai.automatic(body),
        cache_key=string(body.get("prompt_cache_key")),
        retention=_openai.retention(body),
        previous_id=previous,
        conversation_id=conversation_id,
        stream=body.get("stream") is True,
        max_tokens=count(body.get("max_output_tokens")),
        text_only=built.text_only,
        truncated=built.truncated,
    )


def _item(built: Builder, marks: list[Breakpoint], index: int, item: Mapping[str, Any], leading: int) -> bool:
    """Adds one input item; True when a breakpoint may be implied at its end."""
    role = string(item.get("role"))
    kind = string(item.get("type"))
    section = _openai.section(index, leading)
    if not role:
        plain = {field: value for field, value in item.items() if field not in _EPHEMERAL}
        built.block(section, index, -1, kind, plain, _KINDS.get(kind, Kind.OTHER))
        _openai.mark(built, marks, plain)
        return kind.endswith("_output")
    content = item.get("content")
    if type(content) is str:
        built.text(section, index, -1, role, content)
    else:
        for number, part in enumerate(built.limited(content)):
            text = text_of(_without_annotations(part), _TEXT)
            if text is not None:
                built.text(section, index, number, role, text)
            else:
                built.block(
                    section,
                    index,
                    number,
                    role,
                    part,
                    _KINDS.get(string(mapping(part).get("type")), Kind.OTHER),
                )
            _openai.mark(built, marks, part)
    return role == "user"


def _without_annotations(part: object) -> object:
    """Output text comes back with annotations and log probabilities that the model never reads."""
    if type(part) is dict and ("annotations" in part or "logprobs" in part):
        return {field: value for field, value in part.items() if field not in ("annotations", "logprobs")}
    return part


def path(segment: Segment) -> str:
    """Where a segment stands in the request body."""
    match segment.section:
        case Section.PARAMETERS:
            return segment.role
        case Section.HELD:
            return "previous_response_id"
        case Section.TOOLS:
            return f"tools[{segment.element}]"
        case _ if segment.element < 0:
            return "instructions"
        case _ if segment.kind in (Kind.TOOL_USE, Kind.TOOL_RESULT, Kind.REASONING, Kind.OTHER) and segment.item < 0:
            return f"input[{segment.element}]"
        case _:
            return _openai.message_path(segment, "input")


def usage(raw: object) -> Usage | None:
    """Token classes of a ``usage`` object; cached and written tokens lie inside ``input_tokens``."""
    fields = mapping(raw)
    total = count(fields.get("input_tokens"))
    if total is None:
        return None
    details = mapping(fields.get("input_tokens_details"))
    return Usage(
        input_total=total,
        read=count(details.get("cached_tokens")),
        write=count(details.get("cache_write_tokens")),
        output=count(fields.get("output_tokens")),
        reasoning=count(mapping(fields.get("output_tokens_details")).get("reasoning_tokens")),
        write_by_ttl=_openai.write_classes(details),
    )


_UNDER_WAY: Final = ("queued", "in_progress")


def answer(document: Mapping[str, Any]) -> Answer:
    """A whole Response object, or an error body."""
    error = document.get("error")
    error_type = ""
    if isinstance(error, dict):
        error_type = string(error.get("type")) or string(error.get("code")) or "error"
    found = usage(document.get("usage"))
    if found is not None and document.get("service_tier"):
        found = found._replace(tier=string(document["service_tier"]))
    status = string(document.get("status"))
    incomplete = string(mapping(document.get("incomplete_details")).get("reason"))
    reasons = (incomplete or status,) if status in ("completed", "incomplete") else ()
    return Answer(
        found,
        string(document.get("id")),
        string(document.get("model")),
        _native(document),
        error_type,
        reasons,
        provider_by(document),
        provider_by_id(document),
        pending=status in _UNDER_WAY,
    )


def event(document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:  # noqa: ARG001
    """One event of a stream: the Response object comes at creation (without usage) and at the end."""
    if document.get("type") == "error":
        return Answer(None, error_type=string(document.get("code")) or "error")
    response = document.get("response")
    return answer(response) if isinstance(response, dict) else None


def _native(document: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    """The provider's cache diagnosis, verbatim; the enumeration is open."""
    found = mapping(document.get("prompt_cache_diagnostics"))
    verdict: list[tuple[str, str | int]] = [
        (field, string(found[field])) for field in ("type", "reason") if string(found.get(field))
    ]
    for field, ours in (
        ("cache_missed_tokens", "missed_tokens"),
        ("comparison_reusable_tokens", "reusable_tokens"),
    ):
        if (tokens := count(found.get(field))) is not None:
            verdict.append((ours, tokens))
    return tuple(verdict)
