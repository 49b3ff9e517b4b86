"""What a call's span says once more under the keys of single backends, where a setting asks for it.

Beside our own attributes and their bound: with every backend named, at most 25 keys and three kilobytes more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from otel_promptcache.model import Cost, Observation, Usage
from otel_promptcache.vocabulary import backends as keys
from otel_promptcache.vocabulary.backends import DUPLICATES, OPENINFERENCE_PROVIDERS, Backend, Tells

MAX_ATTRIBUTES: Final = 25
MAX_BYTES: Final = 3072
MAX_NAME: Final = 128
"""Bytes of a name, which a backend would take for another were it cut: a longer one is left out."""

ON_OWN_SPANS: Final = frozenset(Tells)
"""On spans of ours, and those of an SDK that say nothing of tokens."""
ON_THE_SDKS_ERRANDS: Final = frozenset({Tells.TOKENS, Tells.USD})
"""On its span of reading a batch: called a model's call, it would be taken for that of the next one."""
ON_OTHERS_SPANS: Final = frozenset({Tells.USD})
"""On a span whose maker counts its tokens: the cost, which its maker does not say."""

Value = str | int | float


class _Told(NamedTuple):
    """A call of which something is known to tell."""

    seen: Observation
    usage: Usage
    cost: Cost | None


def duplicate_attributes(seen: Observation, backends: Sequence[Backend], tells: frozenset[Tells]) -> dict[str, Any]:
    """The keys of these backends, for a span that may say this much; what is not known is absent."""
    told = _Told(seen, seen.usage or Usage(), seen.cost)
    found: dict[str, Any] = {}
    for name, value_of in _wanted(tuple(backends), tells):
        value = value_of(told)
        if value is not None:
            found[name] = value
    return found


@lru_cache(maxsize=64)
def _wanted(backends: tuple[Backend, ...], tells: frozenset[Tells]) -> tuple[tuple[str, Callable[[_Told], Any]], ...]:
    return tuple(
        (name, _VALUES[name])
        for name, key in DUPLICATES.items()
        if key.tells in tells and not set(backends).isdisjoint(key.backends)
    )


def _short(text: str) -> str | None:
    return text if text and len(text.encode("utf-8", "surrogatepass")) <= MAX_NAME else None


def _usd(of: Callable[[Cost], Any]) -> Callable[[_Told], float | None]:
    return lambda told: None if told.cost is None else float(of(told.cost))


def _total(usage: Usage) -> int | None:
    return None if usage.input_total is None or usage.output is None else usage.input_total + usage.output


def _json(parts: dict[str, Any]) -> str | None:
    known = {name: value for name, value in parts.items() if value is not None and value != {}}
    return json.dumps(known, separators=(",", ":")) if known else None


def _langfuse_usage(told: _Told) -> str | None:
    usage = told.usage
    return _json(
        {
            "input": usage.uncached if usage.available else None,
            "input_cached_tokens": usage.read,
            "input_cache_creation": usage.write,
            "output": usage.output,
            "total": _total(usage),
        }
    )


def _langfuse_cost(told: _Told) -> str | None:
    cost = told.cost
    if cost is None:
        return None
    return _json(
        {
            "input": float(cost.uncached),
            "input_cached_tokens": float(cost.read),
            "input_cache_creation": float(cost.write),
            "output": float(cost.output),
            "total": float(cost.total),
        }
    )


def _langsmith_usage(told: _Told) -> str | None:
    usage, cost = told.usage, told.cost
    parts: dict[str, Any] = {
        "input_tokens": usage.input_total,
        "output_tokens": usage.output,
        "total_tokens": _total(usage),
        "input_token_details": _known(cache_read=usage.read, cache_creation=usage.write),
        "output_token_details": _known(reasoning=usage.reasoning),
    }
    if cost is not None:
        parts |= {
            "input_cost": float(cost.read + cost.write + cost.uncached),
            "output_cost": float(cost.output),
            "total_cost": float(cost.total),
            "input_cost_details": {"cache_read": float(cost.read), "cache_creation": float(cost.write)},
        }
    return _json(parts)


def _known(**parts: int | None) -> dict[str, int]:
    return {name: value for name, value in parts.items() if value is not None}


_VALUES: Final[dict[str, Callable[[_Told], Value | None]]] = {
    keys.OI_KIND: lambda _: "LLM",
    keys.OI_MODEL: lambda told: _short(told.seen.response_model or told.seen.model),
    keys.OI_PROVIDER: lambda told: _short(OPENINFERENCE_PROVIDERS.get(told.seen.provider, told.seen.provider)),
    keys.SESSION: lambda told: _short(told.seen.conversation),
    keys.OI_INPUT: lambda told: told.usage.input_total,
    keys.OI_OUTPUT: lambda told: told.usage.output,
    keys.OI_TOTAL: lambda told: _total(told.usage),
    keys.OI_READ: lambda told: told.usage.read,
    keys.OI_WRITE: lambda told: told.usage.write,
    keys.OI_REASONING: lambda told: told.usage.reasoning,
    keys.OI_COST_TOTAL: _usd(lambda cost: cost.total),
    keys.OI_COST_INPUT: _usd(lambda cost: cost.read + cost.write + cost.uncached),
    keys.OI_COST_OUTPUT: _usd(lambda cost: cost.output),
    keys.OI_COST_READ: _usd(lambda cost: cost.read),
    keys.OI_COST_WRITE: _usd(lambda cost: cost.write),
    keys.OI_COST_UNCACHED: _usd(lambda cost: cost.uncached),
    keys.LANGFUSE_USAGE: _langfuse_usage,
    keys.LANGFUSE_COST: _langfuse_cost,
    keys.LANGSMITH_KIND: lambda _: "llm",
    keys.LANGSMITH_THREAD: lambda told: _short(told.seen.conversation),
    keys.LANGSMITH_USAGE: _langsmith_usage,
    keys.SYSTEM: lambda told: _short(told.seen.provider),
    keys.CACHE_CREATION: lambda told: told.usage.write,
    keys.USAGE_COST: _usd(lambda cost: cost.total),
}
