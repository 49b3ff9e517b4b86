"""What the ledger says of a call: what a span says, and all that its price depends on, to be worked out again."""

from __future__ import annotations

import json
from typing import Final

from otel_promptcache import semconv
from otel_promptcache.model import Observation, Usage
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.telemetry.spans import Attributes, all_attributes, convention_attributes, evidence_attributes

_SPAN_ONLY: Final = (
    semconv.HIT_RATIO,
    semconv.COST_SAVING,
    semconv.ACTIONABILITY,
    semconv.PREDECESSOR,
    semconv.FINISH_REASONS,
    semconv.REQUEST_MAX_TOKENS,
)
"""Left out of the ledger, whose records are to be small: what follows from others, and what spans need."""
_CONTEXT: Final = ("tier", "speed", "geo", "processing", "upstream")
_ORDINARY: Final = frozenset({"", "standard", "default", "auto", "global", "not_available"})
"""Values of these that change no price."""
MAX_NAME: Final = 64
MAX_PARTS: Final = 16


def ledger_attributes(seen: Observation) -> Attributes:
    """The attributes of the log record of one call."""
    found = all_attributes(seen) | convention_attributes(seen)
    for name in _SPAN_ONLY:
        found.pop(name, None)
    found |= {
        semconv.CALL_ID: seen.call_id,
        semconv.PROVIDER: seen.provider,
        semconv.REQUEST_MODEL: seen.model,
    }
    if seen.diagnosis is not None:
        found |= evidence_attributes(seen.diagnosis)
    if seen.fingerprint is not None:
        found[semconv.PREFIX_CHAIN] = seen.fingerprint.chain
    if seen.duration is not None:
        found[semconv.DURATION] = seen.duration
    if seen.usage is not None and seen.usage.available:
        found |= _usage(seen, seen.usage)
    return found


def _usage(seen: Observation, usage: Usage) -> Attributes:
    found: Attributes = {semconv.UNCACHED_TOKENS: usage.uncached}
    for ttl, tokens in usage.write_by_ttl:
        if tokens:
            found[f"{semconv.WRITE_TOKENS_BY_TTL}.{TTL_NAMES.get(ttl, ttl)}"] = tokens
    for name in _CONTEXT:
        value: str = getattr(usage, name)
        if value not in _ORDINARY:
            found[f"{semconv.PRICE_CONTEXT}.{name}"] = value[:MAX_NAME]
    if seen.account:
        found[f"{semconv.PRICE_CONTEXT}.account"] = seen.account[:MAX_NAME]
    if usage.web_searches:
        found[semconv.WEB_SEARCHES] = usage.web_searches
    if seen.write_ttls and any(_unassigned(one) for one in (usage, *(part.usage for part in usage.parts))):
        found[f"{semconv.PRICE_CONTEXT}.ttls"] = ",".join(map(str, sorted(set(seen.write_ttls))))
    if usage.parts:
        parts = [
            (model[:MAX_NAME], one.input_total, one.read, one.write, one.output, one.write_by_ttl)
            for model, one in usage.parts[:MAX_PARTS]
        ]
        # Cut off, they would be a wrong bill; an empty list says that nobody can tell.
        found[f"{semconv.PRICE_CONTEXT}.parts"] = json.dumps(parts if len(usage.parts) <= MAX_PARTS else [])
    return found


def _unassigned(usage: Usage) -> bool:
    """Whether something was written for a lifetime that the response does not name."""
    return (usage.write or 0) > sum(tokens for _, tokens in usage.write_by_ttl)
