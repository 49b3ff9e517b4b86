"""Gemini ``generateContent``: wire request to ``Prompt``, wire response to ``Answer``.

Source: ai.google.dev/gemini-api/docs/caching (2026-10-13) and the types of google-genai 3.4. Model and streaming
stand in the URL there, not in the body: whoever reads requests puts them in as ``model`` and ``stream``. Field names
come in two spellings, ``systemInstruction`` and ``system_instruction``; the API takes both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.model import Answer, Kind, Prompt, Section, Segment, Usage
from otel_promptcache.providers._wire import Builder, as_list, count, mapping, string

name: Final = "gemini"
provider: Final = "gcp.gemini"
operation: Final = "generate_content"
credentials: Final = ("x-goog-api-key", "authorization")
headers: Final[tuple[tuple[str, str], ...]] = ()

_CAPITAL: Final = re.compile(r"(?<!^)([A-Z])")
_KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    ("functionCall", Kind.TOOL_USE),
    ("functionResponse", Kind.TOOL_RESULT),
    ("executableCode", Kind.TOOL_USE),
    ("codeExecutionResult", Kind.TOOL_RESULT),
)
_MEDIA: Final[dict[str, Kind]] = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.OTHER}


def handles(path: str) -> bool:
    """Whether a request path generates content (and not ``:countTokens`` or a cache resource)."""
    return path.endswith((":generateContent", ":streamGenerateContent"))


def field(body: Mapping[str, Any], wanted: str) -> Any:
    """A field in either spelling."""
    value = body.get(wanted)
    return body.get(_CAPITAL.sub(r"_\1", wanted).lower()) if value is None else value


def prompt(body: Mapping[str, Any]) -> Prompt:
    """The request body as a prompt: tools, system instruction, contents, as a cache resource holds them."""
    built = Builder()
    cached = string(field(body, "cachedContent"))
    if cached:  # what the server holds stands in front of all that the request brings
        built.held(cached)
    for index, tool in enumerate(built.limited(body.get("tools"))):
        built.block(Section.TOOLS, index, -1, "tool", tool, Kind.TOOL)
    tool_config = field(body, "toolConfig")
    if tool_config:
        built.parameter("toolConfig", tool_config)
    _content(built, Section.SYSTEM, 0, "system", field(body, "systemInstruction"))
    for index, content in enumerate(built.limited(body.get("contents"))):
        role = string(mapping(content).get("role")) or "user"
        _content(built, Section.MESSAGES, index, role, content)
    config = mapping(field(body, "generationConfig"))
    return Prompt(
        dialect=name,
        model=string(body.get("model")).removeprefix("models/"),
        segments=built.segments,
        breakpoints=(),
        automatic=True,
        previous_id=cached,
        stream=body.get("stream") is True,
        max_tokens=count(field(config, "maxOutputTokens")),
        text_only=built.text_only,
        truncated=built.truncated,
    )


def _content(built: Builder, section: Section, element: int, role: str, content: object) -> None:
    """The parts of a content; a string, or a bare part, is a content of one part."""
    parts = mapping(content).get("parts") if isinstance(content, Mapping) and "parts" in content else content
    for item, part in enumerate(built.limited(parts)):
        text = _text(part)
        if text is not None:
            built.text(section, element, item, role, text)
        else:
            built.block(section, element, item, role, part, _kind(mapping(part)))


def _text(part: object) -> str | None:
    """The text of a part that is nothing but text. A null, and a thought that is none, are fields left out."""
    if type(part) is str:
        return part
    if type(part) is dict:
        said = {
            name: value for name, value in part.items() if value is not None and (name, value) != ("thought", False)
        }
        if len(said) == 1 and type(said.get("text")) is str:
            return str(said["text"])
    return None


def _kind(part: Mapping[str, Any]) -> Kind:
    for wanted, kind in _KINDS:
        if field(part, wanted) is not None:
            return kind
    data = mapping(field(part, "inlineData") or field(part, "fileData"))
    if data:
        media = string(field(data, "mimeType")).partition("/")[0]
        return _MEDIA.get(media, Kind.DOCUMENT)
    if part.get("thought") is True:
        return Kind.REASONING
    return Kind.TEXT if type(part.get("text")) is str else Kind.OTHER


def path(segment: Segment) -> str:
    """Where a segment stands in the request body."""
    match segment.section:
        case Section.PARAMETERS:
            return segment.role
        case Section.HELD:
            return "cachedContent"
        case Section.TOOLS:
            return f"tools[{segment.element}]"
        case Section.SYSTEM:
            return f"systemInstruction.parts[{segment.item}]"
        case Section.MESSAGES:
            return f"contents[{segment.element}].parts[{segment.item}]"


def usage(raw: object) -> Usage | None:
    """Token classes of a ``usageMetadata`` object: the prompt count includes cached tokens, the candidates' count
    excludes thoughts, which are billed as output."""
    fields = mapping(raw)
    total = count(fields.get("promptTokenCount"))
    if total is None:
        return None
    answered = count(fields.get("candidatesTokenCount"))
    thoughts = count(fields.get("thoughtsTokenCount"))
    return Usage(
        input_total=total + (count(fields.get("toolUsePromptTokenCount")) or 0),
        read=count(fields.get("cachedContentTokenCount")),
        output=None if answered is None and thoughts is None else (answered or 0) + (thoughts or 0),
        reasoning=thoughts,
    )


def interaction_usage(raw: object) -> Usage | None:
    """Token classes of an interaction's ``usage``: the same classes under other names (types of google-genai 3.4)."""
    fields = mapping(raw)
    total = count(fields.get("total_input_tokens"))
    if total is None:
        return None
    answered = count(fields.get("total_output_tokens"))
    thoughts = count(fields.get("total_thought_tokens"))
    return Usage(
        input_total=total + (count(fields.get("total_tool_use_tokens")) or 0),
        read=count(fields.get("total_cached_tokens")),
        output=None if answered is None and thoughts is None else (answered or 0) + (thoughts or 0),
        reasoning=thoughts,
    )


def answer(document: Mapping[str, Any]) -> Answer:
    """A whole response body, or a chunk of a stream."""
    error = document.get("error")
    if isinstance(error, dict):
        return Answer(None, error_type=string(error.get("status")) or "error")
    reasons = tuple(
        reason
        for candidate in as_list(document.get("candidates"))
        if (reason := string(mapping(candidate).get("finishReason")))
    )
    return Answer(
        usage(document.get("usageMetadata")),
        string(document.get("responseId")),
        string(document.get("modelVersion")),
        finish_reasons=reasons,
    )


def event(document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:  # noqa: ARG001
    """One chunk of a stream. Usage comes with every chunk; the last is the one that counts."""
    return answer(document)
