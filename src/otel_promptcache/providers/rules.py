"""Caching rules of the providers, as data. Each row names its source and the day it was read.

The diagnosis and the emulator work from the same rows, so that a rule is corrected in one place.
The first row that fits provider and model holds; the last row fits everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
UNTIL_EVICTED: Final = 10_000 * DAY
"""The lifetime of an entry that only leaves when its room is needed."""


class Matching(StrEnum):
    """What part of an earlier prompt a request can read."""

    BREAKPOINT = "breakpoint"
    """Only up to a place where an earlier request wrote an entry."""
    PREFIX = "prefix"
    """Any common prefix, in granules."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One row. ``minimum`` and ``granule`` in tokens, ``ttl`` in seconds since the last use."""

    provider: str
    models: str
    """Regular expression searched in the model's name."""
    matching: Matching
    minimum: int
    source: str
    read_on: str
    granule: int = 1
    largest_granule: int = 0
    """What a deployment may set its granule to, where that is a setting of the server's; 0 where it is none."""
    ttl: int = 5 * MINUTE
    ttl_certain: bool = True
    """False where the provider gives a range: an idle prefix may be gone from ``ttl`` on."""
    max_age: int = 0
    """Seconds after which an entry ends however often it was read, 0 for none. Holds for lifetimes up to it: a longer
    one that the request asks for is not cut. The emulator keeps to it; the history does not look so far back."""
    lookback: int = 0
    """Positions searched backwards from a breakpoint, itself the first; 0 is no limit."""
    max_breakpoints: int = 0
    needs_marker: bool = False
    """Nothing is cached unless the request says so."""
    implicit_mark: bool = False
    """Without a marker the provider marks the end of the newest eligible message."""
    reliable: bool = True
    """False where the provider promises no hit even for an unchanged, living prefix."""
    known: bool = True
    """False in a row for models that nobody has named to us: the rules are assumed."""
    per_account: bool = True
    """False where everybody who reaches the server shares its cache."""
    machine_rate: int = 0
    """Requests a minute with one prefix and cache key that stay on one machine; more go to machines that do not
    share its cache. 0 where nothing is documented."""
    explicit_minimum: int = 0
    """Tokens that a cache resource made by the client must have, where the provider offers such resources."""
    whole_units: bool = False
    """A read ends, rounded down to a granule, where an earlier prompt or answer ended, or where earlier prompts were
    seen to part; never in the middle of what they share."""
    keeps_output: bool = False
    """The answer is stored behind the prompt, for the next turn to read."""
    reports_writes: bool = False
    """Stored tokens are reported although they cost nothing."""
    recomputed: int = 0
    """Tokens at the end of a prompt that are computed anew even when all of it is stored."""
    slots: int = 0
    """Prompts kept at a time, one in each slot; 0 is no such limit."""
    can_be_off: bool = False
    """A request may turn caching off for itself (`cache_prompt: false`)."""
    lifetime_stated: bool = True
    """False where not even a lifetime is stated: whether anything is held is luck, and nobody's fault."""


_ANTHROPIC_PAGE: Final = "platform.claude.com/docs/en/build-with-claude/prompt-caching"
_OPENAI_PAGE: Final = "developers.openai.com/api/docs/guides/prompt-caching"
_GEMINI_PAGE: Final = "ai.google.dev/gemini-api/docs/caching"
_OPENAI_MACHINE_RATE: Final = 15


def _anthropic(models: str, minimum: int, source: str = _ANTHROPIC_PAGE, *, known: bool = True) -> Rules:
    return Rules(
        "anthropic",
        models,
        Matching.BREAKPOINT,
        minimum,
        source,
        "2026-09",
        ttl=5 * MINUTE,
        lookback=20,
        max_breakpoints=4,
        needs_marker=True,
        known=known,
    )


def _openai_earlier(models: str, *, known: bool = True) -> Rules:
    return Rules(
        "openai",
        models,
        Matching.PREFIX,
        1024,
        _OPENAI_PAGE,
        "2026-09-23",
        granule=128,
        ttl=10 * MINUTE,
        ttl_certain=False,
        max_age=HOUR,  # in memory: 5 to 10 minutes idle, at most an hour (the guide)
        reliable=False,
        known=known,
        machine_rate=_OPENAI_MACHINE_RATE,
    )


def _gemini(models: str, minimum: int, explicit_minimum: int, *, known: bool = True) -> Rules:
    """Implicit caching; the page names neither a granule nor a lifetime, and recorded reads follow no granule."""
    return Rules(
        "gcp.gemini",
        models,
        Matching.PREFIX,
        minimum,
        _GEMINI_PAGE,
        "2026-10-13",
        ttl=5 * MINUTE,
        ttl_certain=False,
        reliable=False,
        known=known,
        explicit_minimum=explicit_minimum,
    )


def _automatic(provider: str, source: str, *, granule: int = 1) -> Rules:
    """A hosted provider that reads any common prefix where it can and states neither a minimum nor a lifetime. The
    granule is that of recorded answers."""
    return Rules(
        provider,
        r"",
        Matching.PREFIX,
        0,
        source,
        "2026-11",
        granule=granule,
        ttl=5 * MINUTE,
        ttl_certain=False,
        reliable=False,
        lifetime_stated=False,
    )


ROWS: Final[tuple[Rules, ...]] = (
    # Anthropic: minimum cacheable length differs by model; everything else is alike.
    _anthropic(r"(opus|sonnet|haiku)-5-5|fable-5-2", 512, "litellm model map 1.109.1 (third party)"),
    _anthropic(r"(fable|mythos)-5|opus-5", 512),
    _anthropic(r"mythos-preview|opus-4-7|3-5-haiku|haiku-3-5", 2048),
    _anthropic(r"opus-4-(5|6)|haiku-4-5", 4096),
    _anthropic(r"(opus|sonnet)-(4|5)|claude-3", 1024),
    _anthropic(r"", 1024, known=False),
    # OpenAI from GPT-5.6 on: entries only at breakpoints, one of them implicit; exact counts; writes are charged.
    Rules(
        "openai",
        r"gpt-(5\.(6|7|8|9)|[6-9])",
        Matching.BREAKPOINT,
        1024,
        _OPENAI_PAGE,
        "2026-09-23",
        ttl=30 * MINUTE,
        lookback=21,  # the implicit mark, and "up to 20 earlier message ends" (the guide)
        max_breakpoints=4,
        implicit_mark=True,
        machine_rate=_OPENAI_MACHINE_RATE,
    ),
    Rules(
        "openai",
        r"gpt-5\.5",
        Matching.PREFIX,
        1024,
        _OPENAI_PAGE,
        "2026-09-23",
        granule=2048,
        ttl=DAY,
        reliable=False,
        machine_rate=_OPENAI_MACHINE_RATE,
    ),
    _openai_earlier(r"gpt-[345]|^o[134]|chatgpt|codex"),
    _openai_earlier(r"", known=False),
    # 2.5 Flash takes a cache resource of 1,024 tokens, as its error says; of implicit reads the page says 2,048.
    _gemini(r"gemini-2\.5", 2048, 1024),
    _gemini(r"gemini-4-argon", 4096, 0),  # implicit only
    _gemini(r"gemini-(3|4)", 4096, 4096),
    _gemini(r"", 4096, 4096, known=False),
    Rules(
        "deepseek",
        r"",
        Matching.PREFIX,
        128,
        "api-docs.deepseek.com/guides/kv_cache; the granule from recorded sessions",
        "2026-11",
        granule=128,
        ttl=DAY,
        ttl_certain=False,
        reliable=False,
        whole_units=True,
        keeps_output=True,
        lifetime_stated=False,
    ),
    Rules(
        "groq",
        r"",
        Matching.PREFIX,
        128,
        "console.groq.com/docs/prompt-caching",
        "2026-11",
        granule=128,
        ttl=2 * HOUR,
        reliable=False,
    ),
    _automatic("x_ai", "docs.x.ai/developers/advanced-api-usage/prompt-caching"),
    _automatic("mistral_ai", "docs.mistral.ai/inference/conversations/advanced/prompt-caching", granule=16),
    _automatic("zai", "recorded answers of api.z.ai"),
    # Self-hosted engines: one cache for everybody, and no lifetime but the room there is.
    Rules(
        "vllm",
        r"",
        Matching.PREFIX,
        0,
        "docs.vllm.ai/en/latest/design/prefix_caching",
        "2026-11",
        granule=16,
        largest_granule=128,  # --block-size
        ttl=UNTIL_EVICTED,
        per_account=False,
        reports_writes=True,
        recomputed=1,
    ),
    Rules(
        "sglang",
        r"",
        Matching.PREFIX,
        0,
        "docs.sglang.io, production metrics; recorded answers of SGLang 0.5.23",
        "2026-11",
        ttl=UNTIL_EVICTED,
        per_account=False,
        keeps_output=True,
        recomputed=1,
    ),
    Rules(
        "llama_cpp",
        r"",
        Matching.PREFIX,
        0,
        "github.com/ggml-org/llama.cpp, tools/server/README.md; recorded answers of its server",
        "2026-11",
        ttl=UNTIL_EVICTED,
        per_account=False,
        keeps_output=True,
        recomputed=1,
        slots=4,
        can_be_off=True,
    ),
    # Anything that speaks one of the dialects and is not known: a common prefix, soon forgotten, nothing promised.
    Rules(
        "",
        r"",
        Matching.PREFIX,
        0,
        "docs.vllm.ai/en/latest/design/prefix_caching",
        "2026-11",
        granule=16,
        ttl=5 * MINUTE,
        ttl_certain=False,
        reliable=False,
        lifetime_stated=False,
    ),
)


_PLATFORMS: Final[dict[str, str]] = {
    # Who hosts the models of others, and whose rules hold where the model's name tells nothing: a deployment on Azure
    # may have any name.
    "azure.ai.openai": "openai",
    "aws.bedrock": "",
    "gcp.vertex_ai": "",
    "openrouter": "",
}
_FAMILIES: Final = (
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini"), "gcp.gemini"),
    (re.compile(r"deepseek"), "deepseek"),
    (re.compile(r"grok"), "x_ai"),
    (re.compile(r"gpt-\d|chatgpt|codex|(^|[/.])o[134]\b"), "openai"),
)


def _maker(provider: str, model: str) -> str:
    """Whose rules a provider's models follow: on a platform those of the model's maker."""
    if provider not in _PLATFORMS:
        return provider
    return next((maker for name, maker in _FAMILIES if name.search(model)), _PLATFORMS[provider])


@lru_cache(maxsize=512)
def rules_for(provider: str, model: str) -> Rules:
    """The row for a provider (``gen_ai.provider.name``) and model name; never fails."""
    provider = _maker(provider, model)
    for row in ROWS:
        if row.provider in ("", provider) and re.search(row.models, model):
            return row
    return ROWS[-1]


TTL_NAMES: Final[dict[int, str]] = {
    5 * MINUTE: "5m",
    10 * MINUTE: "10m",
    30 * MINUTE: "30m",
    HOUR: "1h",
    12 * HOUR: "12h",
    DAY: "24h",
}
TTL_SECONDS: Final[dict[str, int]] = {name: seconds for seconds, name in TTL_NAMES.items()}
