"""What the cache did, how sure we are, and which part of the prefix rule was broken: one row a reason."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Status(StrEnum):
    """What the cache did in one call."""

    HIT = "hit"
    PARTIAL = "partial"
    MISS = "miss"
    COLD = "cold"
    UNCACHEABLE = "uncacheable"
    UNKNOWN = "unknown"


STATUS_MEANING: Final[dict[Status, str]] = {
    Status.HIT: "Read what history and rules led us to expect, within one granule or 5 %.",
    Status.PARTIAL: "Read something, but less than expected by more than that.",
    Status.MISS: "Read nothing although something was expected.",
    Status.COLD: "Nothing was expected: a first request.",
    Status.UNCACHEABLE: "The provider's rules forbid a hit: too short, or nothing marked.",
    Status.UNKNOWN: "No verdict: the response carried no usage, or the shared history did not answer in time.",
}


class Confidence(StrEnum):
    """How sure a diagnosis is of its reason and cause."""

    CERTAIN = "certain"
    """Digests, times and rules show it."""
    LIKELY = "likely"
    """The place is certain; the cause is what the new text looks like."""
    POSSIBLE = "possible"
    """The request that this one should have matched is inferred from what they share."""


class Reason(StrEnum):
    """Which part of the prefix rule was broken."""

    MODEL_CHANGED = "model_changed"
    TOOLS_CHANGED = "tools_changed"
    SYSTEM_CHANGED = "system_changed"
    MESSAGES_CHANGED = "messages_changed"
    HISTORY_TRUNCATED = "history_truncated"
    HISTORY_COMPACTED = "history_compacted"
    CONTEXT_CHANGED = "context_changed"
    PARAMETERS_CHANGED = "parameters_changed"
    CACHE_KEY_CHANGED = "cache_key_changed"
    SCOPE_CHANGED = "scope_changed"
    BREAKPOINT_MISSING = "breakpoint_missing"
    MARKER_LOST = "marker_lost"
    BREAKPOINT_MOVED = "breakpoint_moved"
    BREAKPOINT_MISPLACED = "breakpoint_misplaced"
    BREAKPOINT_FROZEN = "breakpoint_frozen"
    BREAKPOINT_LIMIT = "breakpoint_limit"
    LOOKBACK_EXCEEDED = "lookback_exceeded"
    TTL_CHANGED = "ttl_changed"
    TTL_EXPIRED = "ttl_expired"
    CONCURRENT_WRITE = "concurrent_write"
    WRITE_NOT_VISIBLE = "write_not_visible"
    BELOW_MINIMUM = "below_minimum"
    NEAR_MINIMUM = "near_minimum"
    PROVIDER_EVICTED = "provider_evicted"
    ROUTING_OVERFLOW = "routing_overflow"
    IMPLICIT_UNRELIABLE = "implicit_unreliable"
    UNSUPPORTED = "unsupported"
    USAGE_NOT_REPORTED = "usage_not_reported"
    KEY_MISMATCH = "key_mismatch"
    UNKNOWN = "unknown"


_PROMPT_UNCHANGED: Final = frozenset(
    {
        Reason.TTL_EXPIRED,
        Reason.BELOW_MINIMUM,
        Reason.BREAKPOINT_MISSING,
        Reason.LOOKBACK_EXCEEDED,
        Reason.CONCURRENT_WRITE,
        Reason.BREAKPOINT_MOVED,
        Reason.BREAKPOINT_MISPLACED,
        Reason.BREAKPOINT_FROZEN,
        Reason.BREAKPOINT_LIMIT,
        Reason.MARKER_LOST,
        Reason.TTL_CHANGED,
        Reason.WRITE_NOT_VISIBLE,
        Reason.NEAR_MINIMUM,
        Reason.PROVIDER_EVICTED,
        Reason.ROUTING_OVERFLOW,
        Reason.IMPLICIT_UNRELIABLE,
        Reason.UNSUPPORTED,
        Reason.USAGE_NOT_REPORTED,
        Reason.KEY_MISMATCH,
        Reason.UNKNOWN,
    }
)
"""Reasons that leave the prompt as it was. Any other, also one that is yet to be found, is a change of it."""
PROMPT_CHANGED: Final = frozenset(Reason) - _PROMPT_UNCHANGED
"""Reasons that say that the prompt, or what belongs to it, is not what it was."""


class ReasonInfo(NamedTuple):
    """A row of the table the docs and the advice are made from."""

    meaning: str
    evidence: str
    actor: str
    """Who can act: `application`, `configuration`, `provider` or `none`."""
    fix: str


REASON_INFO: Final[dict[Reason, ReasonInfo]] = {
    Reason.MODEL_CHANGED: ReasonInfo(
        "The same conversation was sent to, or answered by, another model.",
        "It continues a prompt sent to another model, or an equal prompt was answered under another name.",
        "application",
        "Keep a conversation on one model; switch between conversations, and pin what a router may serve.",
    ),
    Reason.TOOLS_CHANGED: ReasonInfo(
        "The tool definitions differ from the earlier request's.",
        "First differing segment lies in the tools, which come first in the cached prefix.",
        "application",
        "Send the same tools in the same order; keep changing values out of descriptions.",
    ),
    Reason.SYSTEM_CHANGED: ReasonInfo(
        "The system prompt differs from the earlier request's.",
        "Tools are equal; first differing segment lies in the system prompt.",
        "application",
        "Move what changes behind the stable text: into the last user message, or after the last breakpoint.",
    ),
    Reason.MESSAGES_CHANGED: ReasonInfo(
        "Earlier messages of the conversation were rewritten.",
        "Tools and system are equal; an element of the shared history differs.",
        "application",
        "Append only: never edit, reorder or reformat what was already sent.",
    ),
    Reason.HISTORY_TRUNCATED: ReasonInfo(
        "The oldest messages of the conversation were dropped.",
        "Tools and system are equal; what follows the dropped messages is the earlier history, word for word.",
        "application",
        "Drop many messages rarely rather than a few with every turn: each cut rewrites all that follows it.",
    ),
    Reason.HISTORY_COMPACTED: ReasonInfo(
        "Earlier messages were replaced by a summary.",
        "Tools and system are equal; several messages gave way to fewer new ones, with the newest history behind them.",
        "application",
        "Compact rarely, and at a moment when the cache has run out anyway; keep the summary unchanged afterwards.",
    ),
    Reason.CONTEXT_CHANGED: ReasonInfo(
        "The history that the server holds is not the one that was cached.",
        "What the request resends is equal; it asks the server to edit the context, or continues another response.",
        "application",
        "Continue from the newest response, and let the server edit the context rarely.",
    ),
    Reason.PARAMETERS_CHANGED: ReasonInfo(
        "A request parameter that is part of the cache key differs.",
        "Text is equal; tool_choice, thinking, effort, output format or the like is not.",
        "application",
        "Keep such parameters constant within a conversation.",
    ),
    Reason.CACHE_KEY_CHANGED: ReasonInfo(
        "The prompt_cache_key differs from the earlier request's.",
        "The same prompt was sent under another cache key.",
        "application",
        "Derive the key from what is shared (the agent or the conversation), never from the request.",
    ),
    Reason.SCOPE_CHANGED: ReasonInfo(
        "The same conversation went to another endpoint, or under another credential.",
        "Prompt, model and cache key are equal; host or credential is not, and caches are kept per account.",
        "configuration",
        "Keep a conversation on one account, region and endpoint.",
    ),
    Reason.BREAKPOINT_MISSING: ReasonInfo(
        "Nothing marks the end of the shared part, and the provider does not store it by itself.",
        "The prefix is equal to an earlier request's; neither left an entry in it, for want of a marker or because "
        "the request turns caching off.",
        "application",
        "Mark the end of the stable part: cache_control, cachePoint, or an explicit prompt_cache_breakpoint.",
    ),
    Reason.MARKER_LOST: ReasonInfo(
        "The application marked a breakpoint, and the request that the provider saw has it not.",
        "The call's arguments mark a place and the body does not; or the same call site marked the same blocks before; "
        "or a marked prompt was neither read nor written, where others were.",
        "configuration",
        "Look for what rewrites requests on their way (extra_body, a middleware, a gateway) and drops markers.",
    ),
    Reason.BREAKPOINT_MOVED: ReasonInfo(
        "The last breakpoint stands in front of the entry that an earlier request left.",
        "An entry is alive at the old place; this request looks only at or in front of its own breakpoints.",
        "application",
        "Leave a breakpoint where the last request had one, and add the new one behind it.",
    ),
    Reason.BREAKPOINT_MISPLACED: ReasonInfo(
        "The only breakpoints stand on text that never comes again.",
        "The shared prefix is long enough to be cached; every breakpoint lies behind the point where requests part.",
        "application",
        "Put a breakpoint on the last block that all requests share, in front of what differs.",
    ),
    Reason.BREAKPOINT_FROZEN: ReasonInfo(
        "The breakpoint stays where it was while the conversation grows behind it.",
        "Three requests in a row end their cached part at the same message; what follows is paid in full each time.",
        "application",
        "Move the last breakpoint to the newest message of each turn, and keep the one before it.",
    ),
    Reason.BREAKPOINT_LIMIT: ReasonInfo(
        "More places are marked than the provider stores, or all marks are used up.",
        "The request carries the greatest number of breakpoints, and the newest history has none.",
        "application",
        "Keep two for the stable part and let the others roll with the conversation.",
    ),
    Reason.LOOKBACK_EXCEEDED: ReasonInfo(
        "The cached prefix ends too far in front of the breakpoint.",
        "An entry is alive, but more positions back than the provider searches (20 on Anthropic).",
        "application",
        "Add a breakpoint at least every 20 blocks, for example on the last tool result of each turn.",
    ),
    Reason.TTL_CHANGED: ReasonInfo(
        "The breakpoint asks for another lifetime than the earlier request's.",
        "The prefix is equal; it would be alive, or was written, under the lifetime asked for before.",
        "application",
        "Ask for one lifetime at one place, in every request.",
    ),
    Reason.TTL_EXPIRED: ReasonInfo(
        "The cached prefix had expired.",
        "Prompt unchanged; the last use lies further back than the entry's lifetime.",
        "application",
        "Use the longer lifetime for the stable part, or keep it alive where the gap is just over the limit.",
    ),
    Reason.CONCURRENT_WRITE: ReasonInfo(
        "A request with the same prefix was still on its way.",
        "The entry becomes readable when the writer's response begins; this request was sent earlier.",
        "application",
        "Send one request first, and fan out when its response has begun.",
    ),
    Reason.WRITE_NOT_VISIBLE: ReasonInfo(
        "The entry had been written a moment ago and could not be read yet.",
        "Prefix equal and alive; the writer's response had begun less than two seconds before this request was sent.",
        "application",
        "Wait a moment after the first answer has begun before you send the next request with the same prefix.",
    ),
    Reason.BELOW_MINIMUM: ReasonInfo(
        "The prompt is shorter than the model's minimum cacheable length.",
        "Marked or automatic prefix has fewer tokens than the table says; nothing read or written.",
        "none",
        "Nothing to do: short prompts are not cached. Drop the marker, or cache a longer shared part.",
    ),
    Reason.NEAR_MINIMUM: ReasonInfo(
        "The prompt is hardly longer than the minimum cacheable length, and was not stored.",
        "Marked prefix between the documented minimum and twice that; nothing read or written.",
        "application",
        "Make the shared part longer, or count on no caching for it.",
    ),
    Reason.PROVIDER_EVICTED: ReasonInfo(
        "The provider no longer held a prefix that should have been alive.",
        "Prefix, scope and parameters are equal, and the gap is within the lifetime; nothing was read.",
        "provider",
        "Nothing in your requests did this. Watch how often it happens, and show the provider the response ids.",
    ),
    Reason.ROUTING_OVERFLOW: ReasonInfo(
        "More requests a minute carried one cache key than one machine serves.",
        "Prefix equal and alive; over 15 requests in the minute before under this key (OpenAI).",
        "configuration",
        "Spread the traffic over several values of prompt_cache_key, each below 15 requests a minute.",
    ),
    Reason.IMPLICIT_UNRELIABLE: ReasonInfo(
        "The provider caches by itself, and promises no hit.",
        "Prefix equal and recent; the provider's implicit cache gives no guarantee.",
        "provider",
        "Use the provider's explicit cache for what must be read, or count on the measured share of hits.",
    ),
    Reason.UNSUPPORTED: ReasonInfo(
        "The endpoint neither stored nor read anything, though the request asked for it.",
        "Marked prefix over twice the minimum; token classes reported, read and written are 0.",
        "configuration",
        "Check that this endpoint, platform and model support caching, and that a gateway passes the markers on.",
    ),
    Reason.USAGE_NOT_REPORTED: ReasonInfo(
        "The response carried no token counts.",
        "No usage object, or null, in the response.",
        "application",
        "Ask for usage: stream_options={'include_usage': True} on Chat Completions streams.",
    ),
    Reason.KEY_MISMATCH: ReasonInfo(
        "The earlier request was fingerprinted under another key, and compares with none of ours.",
        "Same conversation and model; `promptcache.key.id` differs, so that no digest of the one is in the other.",
        "configuration",
        "Set OTEL_PROMPTCACHE_HASH_KEY to one secret for all processes; without it each makes a key of its own.",
    ),
    Reason.UNKNOWN: ReasonInfo(
        "The prefix is unchanged as far as it can be seen, and still was not read.",
        "Nothing visible in the request explains it, and not enough is visible to blame the provider.",
        "none",
        "Nothing in the request explains this miss. Compare with the provider's own diagnostics.",
    ),
}
