"""Usage objects: what each provider and engine reports in the formats that several share.

From the types of the SDKs and, for DeepSeek and the self-hosted engines, from recorded answers of vLLM 0.32,
SGLang 0.5.23, llama.cpp's server and ``deepseek-v4-flash``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from otel_promptcache.emulator.exchange import Exchange
from otel_promptcache.emulator.wire import _openai
from otel_promptcache.providers.rules import HOUR

PROMPT_MS: Final = 1.0
PREDICTED_MS: Final = 10.0
"""Milliseconds a token in the timings of llama.cpp: declared, not measured."""


def chat(exchange: Exchange) -> dict[str, Any]:
    """``usage`` of a chat completion; read and written tokens lie inside ``prompt_tokens``."""
    counts = exchange.accounting
    totals = {
        "prompt_tokens": counts.total,
        "completion_tokens": exchange.output,
        "total_tokens": counts.total + exchange.output,
    }
    return {**totals, **_CHAT.get(exchange.personality.name, _plain)(exchange)}


def _openai_chat(exchange: Exchange) -> dict[str, Any]:
    counts = exchange.accounting
    return {
        "prompt_tokens_details": {
            "cached_tokens": counts.read,
            "cache_write_tokens": counts.write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _plain(exchange: Exchange) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": exchange.accounting.read}}


def _deepseek(exchange: Exchange) -> dict[str, Any]:
    counts = exchange.accounting
    return {
        **_plain(exchange),
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_cache_hit_tokens": counts.read,
        "prompt_cache_miss_tokens": counts.total - counts.read,
    }


def _vllm(exchange: Exchange) -> dict[str, Any]:
    counts = exchange.accounting
    details = {"cached_tokens": counts.read, "created_cache_tokens": counts.write, "multimodal_tokens": None}
    return {"prompt_tokens_details": details, "completion_tokens_details": None}


def _null_on_a_miss(exchange: Exchange) -> dict[str, Any]:
    return _plain(exchange) if exchange.accounting.read else {"prompt_tokens_details": None}


def _sglang(exchange: Exchange) -> dict[str, Any]:
    return {**_null_on_a_miss(exchange), "reasoning_tokens": 0, "completion_tokens_details": None}


_CHAT: Final[dict[str, Callable[[Exchange], dict[str, Any]]]] = {
    "openai": _openai_chat,
    "deepseek": _deepseek,
    "vllm": _vllm,
    "vllm-0.10": _null_on_a_miss,
    "sglang": _sglang,
}


def responses(exchange: Exchange) -> dict[str, Any]:
    """``usage`` of a Response; read and written tokens lie inside ``input_tokens``."""
    counts = exchange.accounting
    details: dict[str, Any] = {"cached_tokens": counts.read}
    if exchange.personality.name == "openai":
        details["cache_write_tokens"] = counts.write
        if _openai.reports_writes(exchange.prompt):
            long = dict(counts.writes).get(12 * HOUR, 0)
            details["cache_write_tokens_details"] = {"ttl_30m_tokens": counts.write - long, "ttl_12h_tokens": long}
    elif exchange.personality.name in ("vllm", "sglang"):
        details["cache_write_tokens"] = 0  # so they report it, whatever they store
    return {
        "input_tokens": counts.total,
        "input_tokens_details": details,
        "output_tokens": exchange.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts.total + exchange.output,
    }


def messages(exchange: Exchange) -> dict[str, int]:
    """Cumulative ``usage`` of a Message: no lifetimes, no tier. ``input_tokens`` is what stands beside read and
    written tokens; of the engines only vLLM reports the latter."""
    counts = exchange.accounting
    written = (
        {} if exchange.personality.name in ("sglang", "llamacpp") else {"cache_creation_input_tokens": counts.write}
    )
    return {
        "input_tokens": counts.fresh,
        **written,
        "cache_read_input_tokens": counts.read,
        "output_tokens": exchange.output,
    }


def timings(exchange: Exchange) -> dict[str, Any]:
    """What llama.cpp adds to a completion, and nobody else."""
    if exchange.personality.name != "llamacpp":
        return {}
    prompt, predicted = exchange.accounting.total - exchange.accounting.read, exchange.output
    return {
        "timings": {
            "cache_n": exchange.accounting.read,
            "prompt_n": prompt,
            "prompt_ms": prompt * PROMPT_MS,
            "prompt_per_token_ms": PROMPT_MS,
            "prompt_per_second": 1000 / PROMPT_MS,
            "predicted_n": predicted,
            "predicted_ms": predicted * PREDICTED_MS,
            "predicted_per_token_ms": PREDICTED_MS,
            "predicted_per_second": 1000 / PREDICTED_MS,
        }
    }
