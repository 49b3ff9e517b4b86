"""Anthropic Messages: wire request to ``Prompt``, wire response to ``Answer``.

Cache order is tools, system, messages (platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-09).
Parameters stand where a change of theirs cuts the prefix, by the invalidation table of the same page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_promptcache.model import (
    Answer,
    Breakpoint,
    Kind,
    Part,
    Prompt,
    Section,
    Segment,
    Segments,
    Usage,
)
from otel_promptcache.providers._wire import (
    MAX_MARKS,
    Builder,
    as_list,
    count,
    in_context,
    mapping,
    marker,
    parameter,
    string,
    text_of,
    written_by_lifetime,
)
from otel_promptcache.providers.endpoints import provider_by, provider_by_id
from otel_promptcache.providers.rules import MINUTE, TTL_SECONDS

name: Final = "anthropic"
provider: Final = "anthropic"
operation: Final = "chat"
credentials: Final = ("x-api-key", "authorization")
headers: Final = (("anthropic-beta", "betas"),)

_TEXT: Final = frozenset({"text"})
_KINDS: Final[dict[str, Kind]] = {
    "text": Kind.TEXT,
    "tool_use": Kind.TOOL_USE,
    "server_tool_use": Kind.TOOL_USE,
    "tool_result": Kind.TOOL_RESULT,
    "thinking": Kind.REASONING,
    "redacted_thinking": Kind.REASONING,
    "image": Kind.IMAGE,
    "document": Kind.DOCUMENT,
}
_DEFAULTS: Final[dict[str, object]] = {
    # An explicit default is the same request as the field left out.
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "disabled"},
    "speed": "standard",
}

_BEFORE_MESSAGES: Final = frozenset({"tool_choice", "thinking", "output_config", "output_format"})


def handles(path: str) -> bool:
    """Whether a request path is a Messages call (and not ``/count_tokens`` or ``/batches``)."""
    return path.endswith("/v1/messages")


def prompt(body: Mapping[str, Any]) -> Prompt:
    """The request body as a prompt. Never modifies it; whatever it does not know becomes an opaque segment."""
    built = Builder()
    marks: list[Breakpoint] = []

    def mark(block: object) -> None:
        if not built.truncated and (control := marker(block, "cache_control")) is not None:
            marks.append(Breakpoint(len(built.segments), _ttl(control), True))

    for index, tool in _in_cache_order(built.limited(body.get("tools"))):
        built.block(Section.TOOLS, index, -1, "tool", tool, Kind.TOOL)
        mark(tool)
    if "speed" in body:
        _parameter(built, "speed", body["speed"])
    betas = body.get("betas") or body.get("anthropic_beta")  # a header's values, or what stands for it on Bedrock
    if betas:
        _parameter(built, "betas", sorted({str(one) for one in as_list(betas)}))
    before_system = len(built.segments)

    system = body.get("system")
    if type(system) is str:
        built.text(Section.SYSTEM, -1, -1, "system", system)
    else:
        for index, block in enumerate(built.limited(system)):
            _content(built, Section.SYSTEM, index, -1, "system", block)
            mark(block)

    if not _BEFORE_MESSAGES.isdisjoint(body):
        _parameter(built, "tool_choice", body.get("tool_choice"))
        _parameter(built, "thinking", body.get("thinking"))
        output = mapping(body.get("output_config"))
        _parameter(built, "output_config.effort", output.get("effort"))
        _parameter(built, "output_config.format", output.get("format") or body.get("output_format"))
    before_messages = len(built.segments)
    previous = string(mapping(body["thread"]).get("previous_message_id")) if "thread" in body else ""
    if previous:
        built.held(previous)

    messages = built.limited(body.get("messages"))
    index = 0
    while index < len(messages) and not built.full:
        index = built.plain_messages(messages, index)
        if index < len(messages):
            message = mapping(messages[index])
            role = string(message.get("role"))
            for item, block in enumerate(built.limited(message.get("content"))):
                _content(built, Section.MESSAGES, index, item, role, block)
                mark(block)
            index += 1

    built.truncated = built.truncated or index < len(messages)
    segments = built.segments
    del marks[:-MAX_MARKS]
    if not built.text_only:
        _toggles(segments, marks, before_system, before_messages)
    automatic = body.get("cache_control") is not None
    if automatic:
        end = _last_cacheable(segments)
        if end and not any(place.length == end for place in marks):
            marks.append(Breakpoint(end, _ttl(body["cache_control"]), False))
    return Prompt(
        dialect=name,
        model=string(body.get("model")),
        segments=segments,
        breakpoints=tuple(marks),
        automatic=automatic,
        previous_id=previous,
        stream=body.get("stream") is True,
        max_tokens=count(body.get("max_tokens")),
        text_only=built.text_only,
        truncated=built.truncated,
    )


def _content(built: Builder, section: Section, element: int, item: int, role: str, block: object) -> None:
    text = text_of(block, _TEXT)
    if text is not None:
        built.text(section, element, item, role, text)
    else:
        kind = _KINDS.get(string(mapping(block).get("type")), Kind.OTHER)
        built.block(section, element, item, role, block, kind)


def _in_cache_order(tools: list[Any]) -> list[tuple[int, Any]]:
    """The tools with their numbers; web search last, for switching it on or off leaves the other tools cached."""
    numbered = list(enumerate(tools))
    if any(_searches(tool) for tool in tools):
        numbered.sort(key=lambda pair: _searches(pair[1]))
    return numbered


def _searches(tool: object) -> bool:
    return type(tool) is dict and string(tool.get("type")).startswith("web_search")


def _toggles(segments: Segments, marks: list[Breakpoint], before_system: int, before_messages: int) -> None:
    """Adds what pictures and citations anywhere in the prompt change in front of it: the first picture cuts the
    messages, the first document with citations the system prompt as well."""
    found = {
        "citations": (before_system, any(_cites(segment) for segment in segments)),
        "images": (before_messages, any(segment.kind is Kind.IMAGE for segment in segments)),
    }
    for name, (place, present) in reversed(found.items()):
        if present:
            segments.insert(place, parameter(name, True))
            marks[:] = [mark._replace(length=mark.length + (mark.length > place)) for mark in marks]


def _cites(segment: Segment) -> bool:
    return segment.kind is Kind.DOCUMENT and mapping(mapping(segment.value).get("citations")).get("enabled") is True


def _parameter(built: Builder, path: str, value: object) -> None:
    if value is not None and value != _DEFAULTS.get(path):
        built.parameter(path, value)


def _ttl(control: object) -> int:
    return TTL_SECONDS.get(string(mapping(control).get("ttl")), 5 * MINUTE)


def _last_cacheable(segments: Sequence[Segment]) -> int:
    """Length up to the last block that can carry a marker: reasoning and empty text cannot."""
    for length in range(len(segments), 0, -1):
        segment = segments[length - 1]
        if segment.section in (Section.PARAMETERS, Section.HELD) or segment.kind is Kind.REASONING:
            continue
        if segment.value != "":
            return length
    return 0


def path(segment: Segment) -> str:
    """Where a segment stands in the request body."""
    match segment.section:
        case Section.PARAMETERS:
            return segment.role
        case Section.HELD:
            return "thread.previous_message_id"
        case Section.TOOLS:
            return f"tools[{segment.element}]"
        case Section.SYSTEM:
            return "system" if segment.element < 0 else f"system[{segment.element}]"
        case Section.MESSAGES:
            content = f"messages[{segment.element}].content"
            return content if segment.item < 0 else f"{content}[{segment.item}]"


def usage(raw: object) -> Usage | None:
    """Token classes of a ``usage`` object; None when there is none.

    ``input_tokens`` counts only what follows the last breakpoint, so the total is the sum of three fields.
    """
    fields = mapping(raw)
    fresh = count(fields.get("input_tokens"))
    if fresh is None:
        return None
    read = count(fields.get("cache_read_input_tokens"))
    write = count(fields.get("cache_creation_input_tokens"))
    by_ttl: tuple[tuple[int, int], ...] = ()
    if "cache_creation" in fields:
        by_ttl = written_by_lifetime(mapping(fields["cache_creation"]))
    if write is None and by_ttl:
        write = sum(tokens for _, tokens in by_ttl)
    tools = mapping(fields["server_tool_use"]) if "server_tool_use" in fields else {}
    found = Usage(
        input_total=fresh + (read or 0) + (write or 0),
        read=read,
        write=write,
        output=count(fields.get("output_tokens")),
        reasoning=count(mapping(fields.get("output_tokens_details")).get("thinking_tokens")),
        write_by_ttl=by_ttl,
        tier=string(fields.get("service_tier")),
        speed=string(fields.get("speed")),
        geo=string(fields.get("inference_geo")),
        processing="batch" if fields.get("service_tier") == "batch" else "",
        server_tools=sum([count(uses) or 0 for uses in tools.values()]),
        web_searches=count(tools.get("web_search_requests")) or 0,
    )
    return _itemised(found, fields["iterations"]) if fields.get("iterations") else found


_INSIDE: Final = frozenset({"message", "fallback_message"})
"""Types of iterations whose tokens are in the sums of the whole call. Compaction is in none of them, and what an
advising model used is billed at that model's price (types of anthropic 2.12; platform.claude.com, compaction)."""


def _itemised(found: Usage, iterations: object) -> Usage:
    """The usage with the inner requests that are billed, where they are not simply its sums."""
    inside: list[Part] = []
    beside: list[Part] = []
    for entry in as_list(iterations):
        fields = mapping(entry)
        one = usage({name: value for name, value in fields.items() if name != "iterations"})
        if one is not None:
            kind = string(fields.get("type"))
            (inside if kind in _INSIDE else beside).append(Part(string(fields.get("model")), one))
    told = [sum(counts) for counts in zip(*(_counts(part.usage) for part in inside), strict=True)]
    if tuple(told) != _counts(found):
        inside = [Part("", found)]  # they do not add up: the sums are what the provider stands by
    if not beside and len(inside) == 1 and not inside[0].model:
        return found
    return in_context(found._replace(parts=(*inside, *beside)))


def _counts(one: Usage) -> tuple[int, ...]:
    return one.input_total or 0, one.read or 0, one.write or 0, one.output or 0


def answer(document: Mapping[str, Any]) -> Answer:
    """A whole response body (a Message, or an error)."""
    if document.get("type") == "error":
        return Answer(None, error_type=string(mapping(document.get("error")).get("type")) or "error")
    return Answer(
        usage(document.get("usage")),
        string(document.get("id")),
        string(document.get("model")),
        _native(document),
        finish_reasons=(stop,) if (stop := string(document.get("stop_reason"))) else (),
        provider=provider_by(document),
        guessed=provider_by_id(document),
    )


def event(document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:
    """One event of a stream; ``state`` is this stream's own. None when it says nothing of interest.

    ``message_start`` has the TTL split; the usage of ``message_delta`` is cumulative and lacks it, so the later
    fields are laid over the earlier ones.
    """
    kind = document.get("type")
    if kind == "message_start":
        message = mapping(document.get("message"))
        state.update(message)
        state["usage"] = dict(mapping(message.get("usage")))
        # The first event counts the tokens of an answer that has not begun.
        state["usage"].pop("output_tokens", None)
    elif kind == "message_delta":
        delta = mapping(document.get("usage"))
        state["usage"] = {**mapping(state.get("usage")), **{k: v for k, v in delta.items() if v is not None}}
        state["stop_reason"] = mapping(document.get("delta")).get("stop_reason")
    elif kind != "error":
        return None
    return answer(document if kind == "error" else state)


def _native(document: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    """The provider's cache diagnosis: absent, pending (a null reason), or a reason with missed tokens."""
    diagnostics = document.get("diagnostics")
    if not isinstance(diagnostics, dict):
        return ()
    reason = diagnostics.get("cache_miss_reason")
    if not isinstance(reason, dict):
        return (("type", "pending"),)
    missed = count(reason.get("cache_missed_input_tokens"))
    verdict: tuple[tuple[str, str | int], ...] = (("type", string(reason.get("type"))),)
    return verdict if missed is None else (*verdict, ("missed_tokens", missed))
