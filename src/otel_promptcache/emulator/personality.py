"""Who answers: the rules, the usage fields and the manners of one provider, in a wire format that several share.

A client picks one by the beginning of the path: ``/deepseek/v1/chat/completions``. Without one ``/v1/messages`` is
Anthropic, ``/v1beta/models/...`` Gemini, and the OpenAI paths belong to the option ``personality``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHAT: Final = "openai_chat"
RESPONSES: Final = "openai_responses"
MESSAGES: Final = "anthropic"
GENERATE: Final = "gemini"
_OPENAI: Final = (CHAT, RESPONSES)
_EVERYTHING: Final = (CHAT, RESPONSES, MESSAGES)


@dataclass(frozen=True, slots=True)
class Personality:
    """One provider, or one engine that people run themselves."""

    name: str
    """As in the path and in the option."""
    provider: str
    """``gen_ai.provider.name``: the rows of ``providers.rules`` that hold."""
    dialects: tuple[str, ...]
    """Names of the wire formats it speaks."""
    needs_key: bool = True
    meaning: str = ""


ROWS: Final[tuple[Personality, ...]] = (
    Personality("anthropic", "anthropic", (MESSAGES,), meaning="Anthropic"),
    Personality("openai", "openai", _OPENAI, meaning="OpenAI"),
    Personality("gemini", "gcp.gemini", (GENERATE,), meaning="Gemini, implicit and explicit caches"),
    Personality("deepseek", "deepseek", _OPENAI, meaning="DeepSeek: whole units, hit and miss tokens"),
    Personality("groq", "groq", _OPENAI, meaning="Groq: granules of 128, two idle hours"),
    Personality("vllm", "vllm", _EVERYTHING, needs_key=False, meaning="vLLM 0.32: blocks, created_cache_tokens"),
    Personality("vllm-0.10", "vllm", _OPENAI, needs_key=False, meaning="older vLLM: details are null on a miss"),
    Personality("sglang", "sglang", _EVERYTHING, needs_key=False, meaning="SGLang: radix tree, answers kept"),
    Personality("llamacpp", "llama_cpp", _EVERYTHING, needs_key=False, meaning="llama.cpp: slots, timings"),
    Personality("generic", "", _OPENAI, needs_key=False, meaning="any other OpenAI-compatible server"),
)
BY_NAME: Final[dict[str, Personality]] = {row.name: row for row in ROWS}
NAMESAKES: Final[dict[str, Personality]] = {
    MESSAGES: BY_NAME["anthropic"],
    GENERATE: BY_NAME["gemini"],
    CHAT: BY_NAME["openai"],
    RESPONSES: BY_NAME["openai"],
}
"""Who made a wire format."""


def named(name: str) -> Personality:
    """The personality of a name; ``ValueError`` names those there are."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise ValueError(f"unknown personality {name!r}; known are {', '.join(BY_NAME)}") from None


def spoken_by(default: Personality, dialect: str) -> Personality:
    """Who answers in a wire format where the path names nobody."""
    return default if dialect in default.dialects else NAMESAKES[dialect]
