"""OpenAI Chat Completions, and everybody who speaks it: wire request to ``Prompt``, wire response to ``Answer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.model import Answer, Breakpoint, Kind, Prompt, Section, Segment, Usage
from otel_promptcache.providers import _openai
from otel_promptcache.providers._wire import Builder, as_list, count, mapping, string, text_of

name: Final = "openai_chat"
provider: Final = _openai.provider
credentials: Final = _openai.credentials
headers: Final = _openai.headers

_TEXT: Final = frozenset({"text"})
_KINDS: Final[dict[str, Kind]] = {
    "image_url": Kind.IMAGE,
    "input_audio": Kind.AUDIO,
    "file": Kind.DOCUMENT,
    "refusal": Kind.TEXT,
}
_ELIGIBLE: Final = frozenset({"user", "tool", "function"})
_PARAMETERS: Final[tuple[tuple[str, object], ...]] = (
    # Part of the cache key (guide of 2026-09-23), each with the value that is the same as leaving it out.
    ("parallel_tool_calls", True),
    ("response_format", {"type": "text"}),
    ("reasoning_effort", None),
    ("verbosity", "medium"),
    ("tool_choice", "auto"),
    ("service_tier", "auto"),
    # Of self-hosted engines: vLLM (docs.vllm.ai/en/latest/design/prefix_caching) and SGLang hash them too.
    ("cache_salt", None),
    ("chat_template", None),
    ("chat_template_kwargs", None),
    ("lora_path", None),
    ("lora_request", None),
)
_IDENTITY: Final = ("name", "tool_call_id")
_TOP_LEVEL_READS: Final = ("prompt_cache_hit_tokens", "num_cached_tokens")
"""Where DeepSeek and Mistral report hits beside, or in place of, the details."""


def handles(path: str) -> bool:
    """Whether a request path is a chat completion."""
    return path.endswith("/chat/completions")


def prompt(body: Mapping[str, Any]) -> Prompt:
    """The request body as a prompt. Leading system and developer messages are the system section."""
    built = Builder()
    marks: list[Breakpoint] = []
    messages = built.limited(body.get("messages"))
    for field, default in _PARAMETERS:
        if field in body:
            _openai.parameter(built, field, body[field], default)
    for index, tool in enumerate(built.limited(body.get("tools"))):
        built.block(Section.TOOLS, index, -1, "tool", tool, Kind.TOOL)

    leading = _openai.leading_instructions(messages)
    index = 0
    while index < len(messages) and not built.full:
        if index >= leading:
            index = built.plain_messages(messages, index)
        if index < len(messages):
            message = mapping(messages[index])
            _parts(built, marks, _openai.section(index, leading), index, message)
            index += 1

    built.truncated = built.truncated or index < len(messages)
    segments = built.segments
    eligible = next((length for length in range(len(segments), 0, -1) if _eligible(segments[length - 1], leading)), 0)
    return Prompt(
        dialect=name,
        model=string(body.get("model")),
        segments=segments,
        breakpoints=_openai.breakpoints(body, segments, marks, eligible),
        automatic=_openai.automatic(body) and body.get("cache_prompt") is not False,  # llama.cpp's switch
        cache_key=string(body.get("prompt_cache_key")),
        retention=_openai.retention(body),
        stream=body.get("stream") is True,
        max_tokens=count(body.get("max_completion_tokens")) or count(body.get("max_tokens")),
        text_only=built.text_only,
        truncated=built.truncated,
    )


def _eligible(segment: Segment, leading: int) -> bool:
    """Whether a breakpoint may be implied behind this segment."""
    if segment.section is Section.SYSTEM:
        return segment.element == leading - 1
    return segment.section is Section.MESSAGES and segment.role.partition("\0")[0] in _ELIGIBLE


def _parts(built: Builder, marks: list[Breakpoint], section: Section, index: int, message: Mapping[str, Any]) -> None:
    """Segments of one message: its content, its tool calls, its reasoning."""
    role, content = string(message.get("role")), message.get("content")
    who = role
    for field in _IDENTITY:
        if field in message:
            who = f"{who}\0{string(message[field])}"
    kind = Kind.TOOL_RESULT if role in ("tool", "function") else Kind.TEXT
    if type(content) is str:
        built.text(section, index, -1, who, content, kind)
    else:
        for item, part in enumerate(built.limited(content)):
            text = text_of(part, _TEXT)
            if text is not None:
                built.text(section, index, item, who, text, kind)
            else:
                built.block(section, index, item, who, part, _KINDS.get(string(mapping(part).get("type")), Kind.OTHER))
            _openai.mark(built, marks, part)
    for number, call in enumerate(built.limited(message.get("tool_calls"))):
        built.block(section, index, -2 - number, who, call, Kind.TOOL_USE)
    if "reasoning_content" in message and message["reasoning_content"] is not None:
        built.block(section, index, -1, who, message["reasoning_content"], Kind.REASONING)


def path(segment: Segment) -> str:
    """Where a segment stands in the request body."""
    if segment.section is Section.PARAMETERS:
        return segment.role
    if segment.section is Section.TOOLS:
        return f"tools[{segment.element}]"
    if segment.kind is Kind.REASONING:
        return f"messages[{segment.element}].reasoning_content"
    if segment.kind is Kind.SPEAKER:
        field = "tool_call_id" if segment.role.startswith("tool\0") else "name"
        return f"messages[{segment.element}].{field}"
    return _openai.message_path(segment, "messages")


def usage(raw: object) -> Usage | None:
    """Token classes of a ``usage`` object; cached and written tokens lie inside ``prompt_tokens``."""
    fields = mapping(raw)
    total = count(fields.get("prompt_tokens"))
    if total is None:
        return None
    details = mapping(fields.get("prompt_tokens_details"))
    read = count(details.get("cached_tokens"))
    for field in _TOP_LEVEL_READS if read is None else ():
        read = count(fields.get(field)) if read is None else read
    return Usage(
        input_total=total,
        read=read,
        write=count(details.get("cache_write_tokens")),
        output=count(fields.get("completion_tokens")),
        reasoning=count(mapping(fields.get("completion_tokens_details")).get("reasoning_tokens")),
        write_by_ttl=_openai.write_classes(details),
    )


def answer(document: Mapping[str, Any]) -> Answer:
    """A whole response body, or the last chunk of a stream."""
    error = document.get("error")
    if isinstance(error, dict):
        return Answer(None, error_type=string(error.get("type")) or string(error.get("code")) or "error")
    found = usage(document.get("usage"))
    if found is not None and document.get("service_tier"):
        found = found._replace(tier=string(document["service_tier"]))
    reasons = tuple(
        reason
        for choice in as_list(document.get("choices"))
        if (reason := string(mapping(choice).get("finish_reason")))
    )
    return Answer(found, string(document.get("id")), string(document.get("model")), finish_reasons=reasons)


def event(document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:  # noqa: ARG001
    """One chunk of a stream. Only one chunk has usage, and only where the caller asked for it."""
    return answer(document)
