"""What Chat Completions and Responses share: breakpoints, options, endpoints, write classes.

Source: developers.openai.com/api/docs/guides/prompt-caching (2026-09-23) and the types of openai 3.54.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_promptcache.model import Breakpoint, Section, Segment
from otel_promptcache.providers._wire import MAX_MARKS, Builder, count, mapping, marker, string
from otel_promptcache.providers.rules import DAY, HOUR, MINUTE, TTL_SECONDS, rules_for

provider: Final = "openai"
credentials: Final = ("authorization", "api-key")
headers: Final[tuple[tuple[str, str], ...]] = ()

INSTRUCTION_ROLES: Final = frozenset({"system", "developer"})
_RETENTION: Final[dict[str, int]] = {"in_memory": 10 * MINUTE, "24h": DAY}
_WRITE_CLASSES: Final = ((30 * MINUTE, "ttl_30m_tokens"), (12 * HOUR, "ttl_12h_tokens"))


def parameter(built: Builder, path: str, value: object, default: object = None) -> None:
    """Adds a parameter of the cache key unless it is left out or the documented default."""
    if value is not None and value != default:
        built.parameter(path, value)


def mark(built: Builder, marks: list[Breakpoint], part: object) -> None:
    """Notes an explicit breakpoint behind the segment just added; lifetime 0 is the request's, see ``breakpoints``."""
    found = None if built.truncated else marker(part, "prompt_cache_breakpoint")
    if found is not None:
        marks.append(Breakpoint(len(built.segments), TTL_SECONDS.get(string(mapping(found).get("ttl")), 0), True))


def options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(body.get("prompt_cache_options"))


def retention(body: Mapping[str, Any]) -> int | None:
    """Lifetime the whole request asks for: the newer option, else the deprecated field."""
    return TTL_SECONDS.get(string(options(body).get("ttl"))) or _RETENTION.get(
        string(body.get("prompt_cache_retention"))
    )


def automatic(body: Mapping[str, Any]) -> bool:
    return options(body).get("mode") != "explicit"


def breakpoints(
    body: Mapping[str, Any], segments: Sequence[Segment], marks: list[Breakpoint], eligible: int
) -> tuple[Breakpoint, ...]:
    """Explicit marks, and the implicit one after ``eligible`` segments where the model places one."""
    # Of breakpoints only: the deprecated prompt_cache_retention is independent of it (types of openai 3.54).
    lifetime = TTL_SECONDS.get(string(options(body).get("ttl")), 30 * MINUTE)
    marks = [place if place.ttl else place._replace(ttl=lifetime) for place in marks[-MAX_MARKS:]]
    implied = eligible and automatic(body) and rules_for(provider, string(body.get("model"))).implicit_mark
    if implied and not any(place.length == eligible for place in marks):
        marks = [*marks, Breakpoint(eligible, lifetime, False)]
    return tuple(place for place in marks if place.length <= len(segments))


def write_classes(details: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    split = mapping(details.get("cache_write_tokens_details"))
    return tuple((ttl, tokens) for ttl, field in _WRITE_CLASSES if (tokens := count(split.get(field))) is not None)


def message_path(segment: Segment, field: str) -> str:
    """Wire place of a segment of ``messages`` or ``input``; item -2 and below are tool calls."""
    place = f"{field}[{segment.element}]"
    if segment.item < -1:
        return f"{place}.tool_calls[{-2 - segment.item}]"
    return f"{place}.content" if segment.item < 0 else f"{place}.content[{segment.item}]"


def leading_instructions(messages: list[Any]) -> int:
    """How many messages at the start are instructions: they are the system prompt of these dialects."""
    for index, message in enumerate(messages):
        if string(mapping(message).get("role")) not in INSTRUCTION_ROLES:
            return index
    return len(messages)


def section(index: int, leading: int) -> Section:
    return Section.SYSTEM if index < leading else Section.MESSAGES
