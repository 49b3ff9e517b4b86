"""A diagnosis as an engineer would say it. Made when somebody reads it, never while a caller waits."""

from __future__ import annotations

from typing import Final

from otel_promptcache.model import Diagnosis, Evidence
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.semconv import CAUSE_INFO, REASON_INFO, STATUS_MEANING, Cause, Confidence, Reason

_TIMED: Final = frozenset(
    {Reason.TTL_EXPIRED, Reason.TTL_CHANGED, Reason.PROVIDER_EVICTED, Reason.WRITE_NOT_VISIBLE, Reason.CONCURRENT_WRITE}
)
"""Reasons that are about the gap between two requests."""
_ALONE: Final = (
    "The shared history did not answer in time, and what this worker sent itself does not show {}. "
    "Fix: `promptcache.history.lookups` says how often that is; a nearer server, or OTEL_PROMPTCACHE_HISTORY_WAIT_MS."
)


def explanation(found: Diagnosis, path: str = "") -> str:
    """What happened, where, how we know, and what to do, in one line. ``path`` is the wire path of ``place``."""
    if found.evidence is not None and found.evidence.alone:
        return _ALONE.format("why" if found.reason is not None else "whether anything could have been read")
    if found.reason is None:
        return STATUS_MEANING[found.status]
    info = REASON_INFO[found.reason]
    parts = [info.meaning.rstrip(".") + _where(found, path) + "."]
    if found.cause is not None:
        parts.append(cause(found.cause, found.confidence))
    if found.evidence is not None:
        parts.append(basis(found.evidence, found.reason))
        parts.append("Only the beginning of the prompt was looked at." if found.evidence.truncated else "")
    fix = CAUSE_INFO[found.cause].fix if found.cause is not None else info.fix
    return " ".join([*filter(None, parts), f"Fix: {fix}"])


def actor(found: Diagnosis) -> str:
    """Who can act: `application`, `configuration`, `provider` or `none`."""
    return REASON_INFO[found.reason].actor if found.reason is not None else "none"


def _where(found: Diagnosis, path: str) -> str:
    if not path:
        return ""
    line = f", line {found.line}" if found.line else ""
    character = f", character {found.offset + 1}" if found.offset is not None else ""
    return f" (`{path}`{line}{character})"


def cause(what: Cause, confidence: Confidence | None) -> str:
    """What kind of change it was, as far as that is certain."""
    info = CAUSE_INFO[what]
    if confidence is Confidence.CERTAIN:
        return info.meaning
    return f"By the look of it: {info.meaning[:1].lower()}{info.meaning[1:]}"


def basis(evidence: Evidence, reason: Reason) -> str:
    """How it is known: what is equal; where the reason is about time, the gap, the lifetime and whose rule it is."""
    equal = f"{evidence.equal} of {evidence.of} segments are equal"
    if reason not in _TIMED or evidence.gap is None or evidence.ttl is None:
        return f"{equal}."
    lifetime = TTL_NAMES.get(evidence.ttl, f"{evidence.ttl} s")
    return (
        f"{equal}, {evidence.gap:.4g} s lie between the requests, and the lifetime is {lifetime} ({evidence.source})."
    )
