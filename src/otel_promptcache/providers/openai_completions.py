"""OpenAI's older text completions, which self-hosted engines still serve: wire request to ``Prompt``, wire response to
``Answer``. Usage is reported as in Chat Completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.model import Kind, Prompt, Section, Segment
from otel_promptcache.providers import _openai, openai_chat
from otel_promptcache.providers._wire import Builder, as_list, count, string
from otel_promptcache.providers.openai_chat import answer, event, usage

name: Final = "openai_completions"
provider: Final = _openai.provider
operation: Final = "text_completion"
credentials: Final = _openai.credentials
headers: Final = _openai.headers


def handles(path: str) -> bool:
    """Whether a request path is a text completion (and not a chat completion)."""
    return path.endswith("/completions") and not openai_chat.handles(path)


def prompt(body: Mapping[str, Any]) -> Prompt:
    """The request body as a prompt: a text, a list of tokens, or several of either."""
    built = Builder()
    for field in ("cache_salt", "lora_path", "lora_request", "service_tier"):
        if field in body:
            _openai.parameter(built, field, body[field])
    source = body.get("prompt")
    several = as_list(source) if isinstance(source, (list, tuple)) else [source]
    if several and type(several[0]) is int:  # one prompt, as tokens
        several = [several]
    for index, one in enumerate(several):
        if type(one) is str:
            built.text(Section.MESSAGES, index, -1, "user", one)
        elif one is not None:
            built.block(Section.MESSAGES, index, -1, "user", one, Kind.OTHER)
    return Prompt(
        dialect=name,
        model=string(body.get("model")),
        segments=built.segments,
        breakpoints=(),
        automatic=True,
        cache_key=string(body.get("prompt_cache_key")),
        stream=body.get("stream") is True,
        max_tokens=count(body.get("max_tokens")),
        text_only=built.text_only,
        truncated=built.truncated,
    )


def path(segment: Segment) -> str:
    """Where a segment stands in the request body."""
    return segment.role if segment.section is Section.PARAMETERS else f"prompt[{segment.element}]"


__all__ = [
    "answer",
    "credentials",
    "event",
    "handles",
    "headers",
    "name",
    "operation",
    "path",
    "prompt",
    "provider",
    "usage",
]
