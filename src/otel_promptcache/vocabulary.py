"""The words of a verdict: status, reason, cause, each with its row of meaning, evidence, actor and remedy.

Open-ended for readers, closed for us. The documentation and every piece of advice are made from the tables here.
"""

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
    Status.UNKNOWN: "The response carried no usage.",
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
    UNKNOWN = "unknown"


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
        "The prefix is equal to an earlier request's; neither left an entry in it, for want of a marker.",
        "application",
        "Mark the end of the stable part: cache_control, cachePoint, or an explicit prompt_cache_breakpoint.",
    ),
    Reason.MARKER_LOST: ReasonInfo(
        "An earlier request of the conversation was marked; this one has no marker left.",
        "The same prefix, marked before; no marker in the body that went out.",
        "configuration",
        "Look for what rewrites requests on their way (a gateway, a middleware) and drops markers.",
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
    Reason.UNKNOWN: ReasonInfo(
        "The prefix is unchanged as far as it can be seen, and still was not read.",
        "Nothing visible in the request explains it, and not enough is visible to blame the provider.",
        "none",
        "Nothing in the request explains this miss. Compare with the provider's own diagnostics.",
    ),
}


class Cause(StrEnum):
    """What kind of difference broke the prefix."""

    TIMESTAMP = "timestamp"
    DATE_ROLLOVER = "date_rollover"
    IDENTIFIER = "identifier"
    COUNTER = "counter"
    USER_DATA = "user_data"
    ENVIRONMENT = "environment"
    CLIENT_HEADER = "client_header"
    URL_SIGNATURE = "url_signature"
    WHITESPACE = "whitespace"
    LINE_ENDINGS = "line_endings"
    UNICODE = "unicode"
    KEY_ORDER = "key_order"
    FIELD_ORDER = "field_order"
    RESERIALIZED = "reserialized"
    REORDERED = "reordered"
    ADDED = "added"
    REMOVED = "removed"
    EDITED = "edited"
    REPLACED = "replaced"
    RECURRENT_EDIT = "recurrent_edit"
    IMAGE = "image"
    DOCUMENT = "document"
    REASONING_DROPPED = "reasoning_dropped"
    TOOL_CHOICE = "tool_choice"
    THINKING = "thinking"
    REASONING_EFFORT = "reasoning_effort"
    VERBOSITY = "verbosity"
    RESPONSE_FORMAT = "response_format"
    SERVICE_TIER = "service_tier"
    SPEED = "speed"
    BETA_FEATURES = "beta_features"
    SERVER_TOOLS = "server_tools"
    LORA = "lora"
    CACHE_SALT = "cache_salt"
    CHAT_TEMPLATE = "chat_template"


class CauseInfo(NamedTuple):
    """A row of the table of causes."""

    meaning: str
    evidence: str
    fix: str


CAUSE_INFO: Final[dict[Cause, CauseInfo]] = {
    Cause.TIMESTAMP: CauseInfo(
        "A time stands in the text and moved.",
        "The differing line holds a time of day or a moment in seconds.",
        "Leave the time out, or send it in the newest user message.",
    ),
    Cause.DATE_ROLLOVER: CauseInfo(
        "A date stands in the text, and the day has changed.",
        "The differing line holds a date and no time of day.",
        "Send the date in the newest user message, or accept one rewrite a day.",
    ),
    Cause.IDENTIFIER: CauseInfo(
        "An identifier made for each request or session stands in the text.",
        "The differing line holds a UUID, a random token or a labelled id.",
        "Keep ids in metadata or headers; the model does not need them.",
    ),
    Cause.COUNTER: CauseInfo(
        "A number that counts on stands in the text.",
        "Only digits differ, in a line that counts turns, attempts or the like.",
        "Leave the count out, or put it behind the stable text.",
    ),
    Cause.USER_DATA: CauseInfo(
        "A person's name or data stands in the shared text.",
        "The differing line names or addresses a user.",
        "Put the user's data in the first user message, behind what all users share.",
    ),
    Cause.ENVIRONMENT: CauseInfo(
        "The machine's surroundings stand in the text: directory, host, platform, branch.",
        "The differing line holds a path, a host or a labelled place.",
        "Send the surroundings in a message behind the stable part, or as a tool's result.",
    ),
    Cause.CLIENT_HEADER: CauseInfo(
        "A client wrote its own header into the prompt.",
        "The differing line is a header (`x-…:`, `cch=`) in the text.",
        "Turn the injected header off, or strip it before sending.",
    ),
    Cause.URL_SIGNATURE: CauseInfo(
        "A signed URL was signed anew.",
        "The URL in front of the query is equal, or the differing line holds a signed URL.",
        "Send the bytes or a file id, or sign once for the life of the conversation.",
    ),
    Cause.WHITESPACE: CauseInfo(
        "Only blanks, tabs or line breaks differ, no-break spaces included.",
        "Equal without blanks.",
        "Build the text in one place, and do not trim or pad it on the way.",
    ),
    Cause.LINE_ENDINGS: CauseInfo(
        "Only the kind of line ending differs.",
        "Equal with one kind of line ending.",
        "Read templates in one mode; normalise to \\n before sending.",
    ),
    Cause.UNICODE: CauseInfo(
        "Only the form of characters differs: normal form, or look-alike quotes and dashes.",
        "Equal in one normal form with plain punctuation.",
        "Normalise to NFC once, where text enters.",
    ),
    Cause.KEY_ORDER: CauseInfo(
        "The same JSON with its keys in another order.",
        "Equal with sorted keys.",
        "Serialise with a fixed key order; do not rebuild schemas and arguments from unordered maps.",
    ),
    Cause.FIELD_ORDER: CauseInfo(
        "The fields of a block that the API defines stand in another order.",
        "Equal with sorted keys; inner objects are in order.",
        "Build the block in one place.",
    ),
    Cause.RESERIALIZED: CauseInfo(
        "The same data written in another way: string or list, optional fields, spacing or escapes in JSON.",
        "Equal once it is parsed and what says nothing is left out.",
        "Store what was sent, and send that again, rather than building it anew.",
    ),
    Cause.REORDERED: CauseInfo(
        "The same elements in another order.",
        "The multiset of digests is equal, the order is not.",
        "Sort before sending: tools by name, documents by id, results by the order of their calls.",
    ),
    Cause.ADDED: CauseInfo(
        "An element was inserted.",
        "What stood at the place comes right behind it.",
        "Add at the end, or from the first request on.",
    ),
    Cause.REMOVED: CauseInfo(
        "An element was taken out.",
        "What comes at the place stood right behind it.",
        "Keep it, or leave it out from the first request on.",
    ),
    Cause.EDITED: CauseInfo(
        "Text was rewritten.",
        "The lines differ, and nothing shows that it changed of itself.",
        "Send the earlier text as it was, and say what is new behind it.",
    ),
    Cause.REPLACED: CauseInfo(
        "Retrieved text stands in front of stable text, and other text was retrieved.",
        "Several lines gave way to new ones in front of lines that stayed.",
        "Put retrieved text behind the stable instructions, in the newest user message.",
    ),
    Cause.RECURRENT_EDIT: CauseInfo(
        "Some earlier message is edited with every turn.",
        "The second turn in a row whose history was rewritten.",
        "Edit many old messages at once and rarely, rather than one with every turn.",
    ),
    Cause.IMAGE: CauseInfo(
        "An image was added, removed or replaced.",
        "The differing segment is an image.",
        "Send the same bytes each time; encode once.",
    ),
    Cause.DOCUMENT: CauseInfo(
        "A document, file or recording was added, removed or replaced.",
        "The differing segment is a file.",
        "Upload once, and send the same file id or the same bytes.",
    ),
    Cause.REASONING_DROPPED: CauseInfo(
        "Reasoning of an earlier turn was left out.",
        "A reasoning block stood at the place; what followed it is there.",
        "Send reasoning blocks back as they came.",
    ),
    Cause.TOOL_CHOICE: CauseInfo(
        "tool_choice differs.",
        "The parameter differs.",
        "Keep tool_choice constant; steer by a message.",
    ),
    Cause.THINKING: CauseInfo(
        "The thinking configuration differs.",
        "The parameter differs.",
        "Decide on thinking once a conversation.",
    ),
    Cause.REASONING_EFFORT: CauseInfo(
        "The reasoning effort differs.",
        "The parameter differs.",
        "Decide on the effort once a conversation.",
    ),
    Cause.VERBOSITY: CauseInfo(
        "The verbosity differs.",
        "The parameter differs.",
        "Keep verbosity constant; ask for length in a message.",
    ),
    Cause.RESPONSE_FORMAT: CauseInfo(
        "The output format differs.",
        "The parameter differs.",
        "Keep one schema, or ask for the final form in a separate call.",
    ),
    Cause.SERVICE_TIER: CauseInfo(
        "The service tier differs.",
        "The parameter differs.",
        "Keep a conversation on one tier.",
    ),
    Cause.SPEED: CauseInfo(
        "The speed differs.",
        "The parameter differs.",
        "Keep a conversation at one speed.",
    ),
    Cause.BETA_FEATURES: CauseInfo(
        "The set of beta features differs.",
        "The parameter differs.",
        "Send the same beta features in every request.",
    ),
    Cause.SERVER_TOOLS: CauseInfo(
        "A tool that runs at the provider was turned on or off.",
        "The differing tool has a type of the provider's own.",
        "Declare server tools from the first request on.",
    ),
    Cause.LORA: CauseInfo(
        "Another adapter was asked for.",
        "The parameter differs.",
        "Keep a conversation on one adapter.",
    ),
    Cause.CACHE_SALT: CauseInfo(
        "The cache salt differs.",
        "The parameter differs.",
        "Derive the salt from the tenant, never from the request.",
    ),
    Cause.CHAT_TEMPLATE: CauseInfo(
        "The chat template or its arguments differ.",
        "The parameter differs.",
        "Keep template and arguments constant.",
    ),
}

CAUSE_MEANING: Final[dict[Cause, str]] = {cause: info.meaning for cause, info in CAUSE_INFO.items()}
