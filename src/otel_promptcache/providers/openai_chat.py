"""OpenAI Chat Completions, and everybody who speaks it: wire request to ``Prompt``, wire response to ``Answer``."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from otel_promptcache.model import Answer, Breakpoint, Kind, Prompt, Section, Segment, Usage
from otel_promptcache.providers import _openai
from otel_promptcache.providers._wire import Builder, as_list, count, mapping, string, text_of, written_by_lifetime
from otel_promptcache.providers.endpoints import provider_by, provider_by_id

name: Final = "openai_chat"
provider: Final = _openai.provider
operation: Final = "chat"
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
_READS: Final = (
    # Where hits are reported beside, or in place of, ``prompt_tokens_details.cached_tokens``.
    "prompt_cache_hit_tokens",  # DeepSeek (api-docs.deepseek.com/guides/kv_cache)
    "num_cached_tokens",  # Mistral (docs.mistral.ai/inference/conversations/advanced/prompt-caching.md)
    "cached_tokens",  # Moonshot (platform.kimi.ai/docs/api/chat)
    "cache_read_input_tokens",  # gateways that pass Anthropic's field on: OpenRouter, Venice
)
_WRITES: Final = ("cache_write_tokens", "created_cache_tokens")
"""Fields of the details: OpenAI's, and vLLM's (recorded answers of 0.32)."""


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
    """Token classes of a ``usage`` object; cached and written tokens lie inside ``prompt_tokens``.

    What is left out is not reported, which is not zero: Groq leaves ``cached_tokens`` out of a miss, and so did vLLM
    and SGLang; but they do so too where they are not told to report it (``--enable-prompt-tokens-details``,
    ``--enable-cache-report``), and no answer shows which it was.
    """
    fields = mapping(raw)
    total = count(fields.get("prompt_tokens"))
    if total is None:  # DeepSeek's two fields say as much
        hit, miss = count(fields.get("prompt_cache_hit_tokens")), count(fields.get("prompt_cache_miss_tokens"))
        if hit is None or miss is None:
            return None
        total = hit + miss
    details = mapping(fields.get("prompt_tokens_details"))
    read = count(details.get("cached_tokens"))
    if read is None:
        read = _first(fields, _READS)
    write = _first(details, _WRITES)
    if write is None:
        write = count(fields.get("cache_creation_input_tokens"))
    reasoning = count(mapping(fields.get("completion_tokens_details")).get("reasoning_tokens"))
    return Usage(
        input_total=total,
        read=read,
        write=write,
        output=_output(fields, total, reasoning),
        reasoning=reasoning,
        write_by_ttl=_openai.write_classes(details) or written_by_lifetime(mapping(fields.get("cache_creation"))),
    )


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((tokens for field in names if (tokens := count(fields.get(field))) is not None), None)


def _output(fields: Mapping[str, Any], total: int, reasoning: int | None) -> int | None:
    """Tokens of the answer. xAI counts reasoning beside ``completion_tokens``, as its total shows (recorded answers of
    grok-4-fast); everybody else within."""
    output = count(fields.get("completion_tokens"))
    if output is not None and reasoning and count(fields.get("total_tokens")) == total + output + reasoning:
        return output + reasoning
    return output


def _reported(document: Mapping[str, Any]) -> Usage | None:
    """Usage, wherever a response has it."""
    found = usage(document.get("usage"))
    if found is None and "x_groq" in document:  # streams whose caller did not ask
        found = usage(mapping(document["x_groq"]).get("usage"))
    if found is None:  # streams of Moonshot
        for choice in as_list(document.get("choices")):
            found = usage(mapping(choice).get("usage")) or found
    if "timings" in document and (found is None or found.read is None):
        found = _timed(mapping(document["timings"]), found)
    return found


def _timed(timings: Mapping[str, Any], found: Usage | None) -> Usage | None:
    """What llama.cpp's server counts beside its times, in streams whose caller asked for no usage too
    (github.com/ggml-org/llama.cpp, tools/server/README.md)."""
    read, fresh = count(timings.get("cache_n")), count(timings.get("prompt_n"))
    if read is None or fresh is None:
        return found
    if found is not None:
        return found._replace(read=read)
    return Usage(input_total=read + fresh, read=read, output=count(timings.get("predicted_n")))


def answer(document: Mapping[str, Any]) -> Answer:
    """A whole response body, or the last chunk of a stream."""
    error = document.get("error")
    if isinstance(error, dict):
        return Answer(None, error_type=string(error.get("type")) or string(error.get("code")) or "error")
    found = _reported(document)
    if found is not None and ("service_tier" in document or "provider" in document):
        # OpenRouter names the provider that it has chosen.
        found = found._replace(
            tier=string(document.get("service_tier")), upstream=string(document.get("provider"))[:64]
        )
    reasons = tuple(
        reason
        for choice in as_list(document.get("choices"))
        if (reason := string(mapping(choice).get("finish_reason")))
    )
    return Answer(
        found,
        string(document.get("id")),
        string(document.get("model")),
        finish_reasons=reasons,
        provider=provider_by(document),
        guessed=provider_by_id(document),
        discount=_discount(document),
    )


def _discount(document: Mapping[str, Any]) -> float | None:
    """What OpenRouter says the cache saved, in USD; negative where writing cost more
    (openrouter.ai/docs/guides/best-practices/prompt-caching)."""
    told = document.get("cache_discount", mapping(document.get("usage")).get("cache_discount"))
    return float(told) if type(told) in (int, float) and isfinite(told) else None


def event(document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:  # noqa: ARG001
    """One chunk of a stream. Only one chunk has usage, and only where the caller asked for it."""
    return answer(document)
