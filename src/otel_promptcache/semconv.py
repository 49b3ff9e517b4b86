"""Every name this package puts on the wire, once: attributes, metrics, events, units, enum values.

The reference and privacy pages under ``docs/`` are generated from the tables here
(``otel-promptcache reference``), so a name, its meaning and its privacy class cannot drift apart.

Names that OpenTelemetry's GenAI conventions define are used as they stand
(repository ``open-telemetry/semantic-conventions-genai``, read 2026-11); everything else is ``promptcache.*``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from otel_promptcache.vocabulary import *  # noqa: F403

SCOPE: Final = "otel_promptcache"
"""Instrumentation scope of every span, metric and log record of ours."""

SCHEMA: Final = 1
"""Version of the meaning of our own attributes; readers accept this one and the one before."""


class Content(StrEnum):
    """Whether a field derives from prompt text."""

    NONE = "no"
    """A count, a code, an identifier."""
    HASH = "keyed hash"
    """A keyed digest: comparable, not reversible without the key."""


class Lookup(StrEnum):
    """What became of a look-up in the shared history."""

    ANSWERED = "answered"
    LATE = "late"
    """It took longer than a call waits for it."""
    FAILED = "failed"
    """No connection, or an error."""
    SKIPPED = "skipped"
    """Not asked: the server had not answered before, or too many calls were waiting."""


class Field(NamedTuple):
    """One attribute: what it means, where it appears, how many values it takes, whether it shows content."""

    name: str
    type: str
    meaning: str
    signals: str
    cardinality: str
    content: Content


FIELDS: Final[dict[str, Field]] = {}


def _field(
    name: str,
    kind: str,
    meaning: str,
    signals: str = "span, ledger",
    cardinality: str = "high",
    content: Content = Content.NONE,
) -> str:
    FIELDS[name] = Field(name, kind, meaning, signals, cardinality, content)
    return name


# --- Names that the GenAI, server and error conventions define -------------------------------------------------

OPERATION: Final = _field(
    "gen_ai.operation.name",
    "string",
    "What was asked for: `chat`, `text_completion`; `count_tokens`, `create_batch`, "
    "`fetch_response`, which are not calls; reading a batch has the sums of its items.",
    "span, metric",
    "low",
)
PROVIDER: Final = _field(
    "gen_ai.provider.name", "string", "Who answered, by the conventions.", "span, metric, ledger", "low"
)
REQUEST_MODEL: Final = _field("gen_ai.request.model", "string", "Model asked for.", "span, metric, ledger", "bounded")
RESPONSE_MODEL: Final = _field(
    "gen_ai.response.model", "string", "Model that answered.", "span, metric, ledger", "bounded"
)
RESPONSE_ID: Final = _field("gen_ai.response.id", "string", "The provider's id of the response.")
CONVERSATION_ID: Final = _field(
    "gen_ai.conversation.id", "string", "Conversation named by application, framework or request."
)
PROMPT_NAME: Final = _field("gen_ai.prompt.name", "string", "Template name from `prompt()`.", cardinality="bounded")
PROMPT_VERSION: Final = _field(
    "gen_ai.prompt.version", "string", "Template version from `prompt()`.", cardinality="bounded"
)
REQUEST_STREAM: Final = _field("gen_ai.request.stream", "boolean", "Whether a stream was asked for.", "span", "low")
REQUEST_MAX_TOKENS: Final = _field("gen_ai.request.max_tokens", "int", "Output limit asked for.", "span")
FINISH_REASONS: Final = _field("gen_ai.response.finish_reasons", "string[]", "Why the model stopped.", "span", "low")
INPUT_TOKENS: Final = _field("gen_ai.usage.input_tokens", "int", "All input tokens, cache read and write included.")
OUTPUT_TOKENS: Final = _field("gen_ai.usage.output_tokens", "int", "Output tokens, reasoning included.")
CACHE_READ_TOKENS: Final = _field(
    "gen_ai.usage.cache_read.input_tokens", "int", "Input tokens read from the provider's cache."
)
CACHE_WRITE_TOKENS: Final = _field(
    "gen_ai.usage.cache_write.input_tokens", "int", "Input tokens written to the provider's cache."
)
REASONING_TOKENS: Final = _field("gen_ai.usage.reasoning.output_tokens", "int", "Output tokens spent on reasoning.")
TIME_TO_FIRST_CHUNK: Final = _field(
    "gen_ai.response.time_to_first_chunk",
    "double",
    "Seconds from the request to the first chunk of a stream.",
)
TOKEN_MODALITY: Final = _field(
    "gen_ai.token.modality", "string", "`text`, or `unknown` for mixed prompts.", "metric", "low"
)
TOKEN_TYPE: Final = _field(
    "gen_ai.token.type", "string", "`input` or `output`, on the older histogram.", "metric", "low"
)
SERVER_ADDRESS: Final = _field("server.address", "string", "Host of the endpoint.", "span", "bounded")
SERVER_PORT: Final = _field("server.port", "int", "Port of the endpoint.", "span", "low")
ERROR_TYPE: Final = _field(
    "error.type",
    "string",
    "The provider's error type, else the exception class.",
    "span, metric, ledger",
    "low",
)
SERVICE_VERSION: Final = "service.version"
"""Of the resource; the journal says which one changed a prefix."""
EVENT_NAME: Final = "event.name"
"""Where APIs before 1.35 have the name of an event, which later ones have as a field of the log record."""
RESEND_COUNT: Final = _field("http.request.resend_count", "int", "Attempts after the first.", cardinality="low")

# --- Ours: verdict ------------------------------------------------------------------------------------------

STATUS: Final = _field("promptcache.status", "string", "What the cache did; see Status.", "span, metric, ledger", "low")
REASON: Final = _field("promptcache.reason", "string", "Why it missed; see Reason.", "span, metric, ledger", "low")
CAUSE: Final = _field("promptcache.cause", "string", "What kind of change did it; see Cause.", cardinality="low")
PATH: Final = _field(
    "promptcache.path",
    "string",
    "Place in the request body where the prompts part: positions and field names of the API.",
)
LINE: Final = _field("promptcache.line", "int", "First differing line within the text at the path, 1-based.")
LOST_TOKENS: Final = _field(
    "promptcache.lost.tokens", "int", "Tokens a stable application would have read in this call and did not."
)
LOST_USD: Final = _field("promptcache.lost.usd", "double", "Those tokens at (paid - read price).")
EXPECTED_TOKENS: Final = _field("promptcache.expected_tokens", "int", "Tokens a stable application would have read.")
HIT_RATIO: Final = _field("promptcache.hit_ratio", "double", "Cache read / all input tokens of this call.", "span")
HIT_DEPTH: Final = _field(
    "promptcache.hit_depth", "double", "Estimate: share of message elements wholly inside the read prefix."
)
PREDECESSOR: Final = _field(
    "promptcache.predecessor",
    "string",
    "The request that it should have matched, `traceid-spanid`: what the span links to, for readers that cannot "
    "ask for links.",
    "span",
)
EXPLANATION: Final = _field(
    "promptcache.explanation",
    "string",
    "What happened, how it is known and what to do, in one line; of a ledger's record `explain` makes it.",
    "span",
)
CONFIDENCE: Final = _field("promptcache.confidence", "string", "How sure reason and cause are.", cardinality="low")
ACTIONABILITY: Final = _field(
    "promptcache.actionability",
    "string",
    "Who can act on the reason: `application`, `configuration`, `provider`, `none`.",
    "span",
    "low",
)
ALSO: Final = _field(
    "promptcache.also", "string", "What would have kept it from being read too, comma separated.", "ledger", "low"
)
EVIDENCE: Final = _field(
    "promptcache.evidence",
    "string",
    "What the verdict rests on, `equal=3/9;gap=310.5;ttl=300`: leading segments that equal the earlier request's, of "
    "all; where no change explains it, seconds between the two and that entries live; `;truncated` where only the "
    "beginning of the prompt was compared, `;alone` where the shared history did not answer in time.",
    "ledger",
)
# --- Ours: money --------------------------------------------------------------------------------------------

COST_TOTAL: Final = _field("promptcache.cost.total", "double", "USD of the call. Absent when the price is unknown.")
COST_READ: Final = _field("promptcache.cost.read", "double", "USD of cache reads.")
COST_WRITE: Final = _field("promptcache.cost.write", "double", "USD of cache writes.")
COST_UNCACHED: Final = _field("promptcache.cost.uncached", "double", "USD of input neither read nor written.")
COST_OUTPUT: Final = _field("promptcache.cost.output", "double", "USD of output, tool fees included.")
COST_WITHOUT_CACHE: Final = _field("promptcache.cost.without_cache", "double", "USD had nothing been cached.")
COST_SAVING: Final = _field(
    "promptcache.cost.saving", "double", "without_cache - total; negative on a cold write.", "span"
)
COST_ESTIMATED: Final = _field("promptcache.cost.estimated", "boolean", "True when a token class had to be assumed.")
COST_CLASS: Final = _field("promptcache.cost.class", "string", "read, write, uncached or output.", "metric", "low")
PRICE_VERSION: Final = _field("promptcache.price.version", "string", "Source of the prices.", cardinality="low")
PRICE_CONTEXT: Final = _field(
    "promptcache.price",
    "string",
    "Prefix of what the price depends on, where it is not the ordinary: `.tier`, `.speed`, `.geo`, `.processing`, "
    "`.upstream` (who answered behind a gateway), `.account`; `.ttls`, the lifetimes in seconds that the request asked "
    "for, where the response names none for all that was written; `.parts`, JSON of what was billed beside or instead "
    "of the sums: model, input, read, write, output, written by lifetime.",
    "ledger",
    "low",
)
WEB_SEARCHES: Final = _field("promptcache.web_searches", "int", "Searches at the provider, which have a fee.", "ledger")
USAGE_AVAILABLE: Final = _field(
    "promptcache.usage.available", "boolean", "False when the provider reported no usage.", cardinality="low"
)
# --- Ours: identity -----------------------------------------------------------------------------------------

PREFIX_ID: Final = _field(
    "promptcache.prefix.id",
    "string",
    "Keyed digest of everything in front of the messages.",
    cardinality="bounded by prompt versions",
    content=Content.HASH,
)
FINGERPRINT: Final = _field(
    "promptcache.fingerprint",
    "string",
    "`section:digest` for each section, comma separated; then `truncated`, where the prompt was beyond our limits.",
    content=Content.HASH,
)
KEY_ID: Final = _field(
    "promptcache.key.id",
    "string",
    "Names the hash key; fingerprints compare only under one. As a label only where OTEL_PROMPTCACHE_HASH_KEY is set.",
    "span, metric, ledger, prompt map",
    "low",
)
LINEAGE_ID: Final = _field("promptcache.lineage.id", "string", "Conversation inferred from shared prefixes.")
ROUTE: Final = _field(
    "promptcache.route", "string", "Part of the application that asked.", "span, metric, ledger", "bounded"
)
STRATEGY: Final = _field(
    "promptcache.strategy", "string", "Caching strategy named by the application.", cardinality="low"
)
ATTRIBUTION: Final = _field(
    "promptcache.attr",
    "string",
    "Prefix of attribution: `promptcache.attr.team` and so on; `user` is hashed.",
)
NATIVE: Final = _field(
    "promptcache.native",
    "string",
    "Prefix of the provider's own verdict, verbatim: `.type`, `.reason`, `.missed_tokens`, `.reusable_tokens`; "
    "type `null`: it was asked and saw no difference.",
)
NATIVE_ASKED_BY: Final = _field(
    "promptcache.native.asked_by",
    "string",
    "Who asked for that verdict: `application`, or `instrumentation` (OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS).",
    cardinality="low",
)
NATIVE_AGREEMENT: Final = _field(
    "promptcache.native.agreement",
    "string",
    "How it goes with ours; see Agreement.",
    "span, metric, ledger",
    "low",
)
NATIVE_DISCOUNT: Final = _field(
    "promptcache.native.cache_discount", "double", "USD that the cache saved, as OpenRouter itself says."
)
NATIVE_VERDICT: Final = _field(
    "promptcache.native.verdict",
    "string",
    "The provider's verdict as one word: its reason, else its type.",
    "metric",
    "low",
)
BATCH_ID: Final = _field(
    "promptcache.batch.id",
    "string",
    "Id of the batch, or of the file of its results: of an item, and of submitting or reading it.",
)
BATCH_REQUESTS: Final = _field("promptcache.batch.requests", "int", "Requests that a batch was submitted with.", "span")
BATCH_ITEMS: Final = _field(
    "promptcache.batch.items", "int", "Items of a batch whose cost was counted in this reading of its results.", "span"
)
COUNTED_TOKENS: Final = _field(
    "promptcache.counted.tokens", "int", "What a request to count tokens was answered; nothing was used.", "span"
)
SCHEMA_VERSION: Final = _field(
    "promptcache.schema",
    "int",
    "Version of these meanings, on every record; of metrics an attribute of their scope.",
    "span, metric, ledger, prompt map, journal, advice",
    "low",
)
PACKAGE_VERSION: Final = _field("promptcache.version", "string", "Version of this package.", "metric", "low")

# --- Ours: metric labels and event fields -------------------------------------------------------------------

ENGINE: Final = _field("promptcache.engine", "string", "Self-hosted engine: vllm, sglang, llama_cpp.", "metric", "low")
LIMIT_KIND: Final = _field(
    "promptcache.ratelimit.kind",
    "string",
    "What is limited: `requests`, `tokens`, `input_tokens`, `output_tokens`, or `priority_` or `fast_` ones.",
    "metric",
    "low",
)
TTL: Final = _field(
    "promptcache.ttl", "string", "Lifetime of a write: `5m`, `1h`, `30m`, `12h`.", "metric, ledger", "low"
)
WHERE: Final = _field("promptcache.where", "string", "Room in which an error of ours happened.", "metric", "low")
PHASE: Final = _field("promptcache.phase", "string", "`request` or `response`.", "metric", "low")
LOOKUP: Final = _field(
    "promptcache.history.outcome", "string", "`answered`, `late`, `failed` or `skipped`.", "metric", "low"
)
CALL_ID: Final = _field(
    "promptcache.call.id", "string", "Identifies a call across retried exports.", "ledger, prompt map"
)
WRITE_TOKENS_BY_TTL: Final = _field(
    "promptcache.write.tokens",
    "int",
    "Prefix: written tokens by TTL class, `.5m`, `.1h` and so on.",
    "ledger",
)
UNCACHED_TOKENS: Final = _field("promptcache.uncached_tokens", "int", "Input neither read nor written.", "ledger")
PREFIX_CHAIN: Final = _field(
    "promptcache.prefix.chain",
    "string",
    "Keyed digest of the whole prompt.",
    "ledger, prompt map",
    content=Content.HASH,
)
DURATION: Final = _field("promptcache.duration", "double", "Seconds from request to last byte.", "ledger")
MAP_SEGMENTS: Final = _field(
    "promptcache.map",
    "string",
    "Base64 of 11 bytes a segment: 6 of digest, 3 of length in bytes, 1 of section and kind, 1 of breakpoint.",
    "prompt map",
    content=Content.HASH,
)
MAP_BASE: Final = _field(
    "promptcache.map.base",
    "string",
    "Chain digest of the whole prompt that the map is a delta to.",
    "prompt map",
    content=Content.HASH,
)
MAP_SHARED: Final = _field(
    "promptcache.map.shared", "int", "Leading segments, breakpoints included, taken over from the base.", "prompt map"
)
MAP_TRUNCATED: Final = _field(
    "promptcache.map.truncated", "boolean", "True when 8 KiB did not suffice.", "prompt map", "low"
)


# --- Ours: the change journal ---------------------------------------------------------------------------------

_CHANGED: Final = "journal"
CHANGE_PATTERN: Final = _field("promptcache.change.pattern", "string", "See Pattern.", _CHANGED, "low")
CHANGE_SECTION: Final = _field(
    "promptcache.change.section", "string", "`tools`, `system` or `parameters`.", _CHANGED, "low"
)
CHANGE_OLD: Final = _field(
    "promptcache.change.old.fingerprint",
    "string",
    "`section:digest` of the prefix as it was.",
    _CHANGED,
    content=Content.HASH,
)
CHANGE_NEW: Final = _field(
    "promptcache.change.new.fingerprint", "string", "The same, as it is now.", _CHANGED, content=Content.HASH
)
CHANGE_OLD_SERVICE: Final = _field(
    "promptcache.change.old.service.version",
    "string",
    "`service.version` of the process that first sent the old prefix.",
    _CHANGED,
    "bounded",
)
CHANGE_NEW_SERVICE: Final = _field(
    "promptcache.change.new.service.version", "string", "The same of the new one.", _CHANGED, "bounded"
)
CHANGE_OLD_PROMPT: Final = _field(
    "promptcache.change.old.prompt.version", "string", "Version from `prompt()` of the old prefix.", _CHANGED, "bounded"
)
CHANGE_NEW_PROMPT: Final = _field(
    "promptcache.change.new.prompt.version", "string", "The same of the new one.", _CHANGED, "bounded"
)
CHANGE_RATE: Final = _field(
    "promptcache.change.calls_per_hour",
    "int",
    "Calls with this prompt in an hour: those that the change affects.",
    _CHANGED,
)

# --- Ours: advice -------------------------------------------------------------------------------------------

_ADVICE: Final = "advice"
ADVICE: Final = _field("promptcache.advice.kind", "string", "See Advice.", _ADVICE, "low")
ADVICE_TEXT: Final = _field("promptcache.advice.text", "string", "The same as a sentence, with the fix.", _ADVICE)
ADVICE_TTL: Final = _field("promptcache.advice.ttl", "string", "The lifetime to use instead.", _ADVICE, "low")
ADVICE_CALLS: Final = _field("promptcache.advice.calls", "int", "Writes, or gaps, that it rests on.", _ADVICE)
ADVICE_USD: Final = _field("promptcache.advice.usd", "double", "What it would have saved so far.", _ADVICE)
GAP_MEDIAN: Final = _field(
    "promptcache.advice.gap.median", "double", "Seconds between calls that share a prefix: half of them.", _ADVICE
)
GAP_HIGH: Final = _field("promptcache.advice.gap.p90", "double", "The same: nine in ten.", _ADVICE)


# --- Metrics ------------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """One instrument: name, UCUM unit, meaning, and the labels it has beside the common ones."""

    name: str
    unit: str
    meaning: str
    kind: str = "counter"
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()
    """Of a histogram's buckets; the default ones are made for milliseconds."""


METRICS: Final[list[Metric]] = []


def _metric(
    name: str,
    unit: str,
    meaning: str,
    kind: str = "counter",
    labels: tuple[str, ...] = (),
    boundaries: tuple[float, ...] = (),
) -> Metric:
    metric = Metric(name, unit, meaning, kind, labels, boundaries)
    METRICS.append(metric)
    return metric


COMMON_LABELS: Final = (PROVIDER, REQUEST_MODEL, ROUTE)
"""On every counter, with the keys of OTEL_PROMPTCACHE_METRIC_KEYS."""

_USAGE_LABELS: Final = (OPERATION, TOKEN_MODALITY)
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_OWN_SECONDS: Final = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
"""Bucket boundaries: the first two are those that the conventions ask for."""
M_INPUT: Final = _metric(
    "gen_ai.client.inference.usage.input_tokens",
    "{token}",
    "Input tokens, cached ones included.",
    labels=_USAGE_LABELS,
)
M_OUTPUT: Final = _metric(
    "gen_ai.client.inference.usage.output_tokens", "{token}", "Output tokens.", labels=_USAGE_LABELS
)
M_READ: Final = _metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "{token}",
    "Tokens read from cache.",
    labels=_USAGE_LABELS,
)
M_WRITE: Final = _metric(
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "{token}",
    "Tokens written to cache.",
    labels=_USAGE_LABELS,
)
M_CALLS: Final = _metric("promptcache.calls", "{call}", "Calls by outcome.", labels=(STATUS, REASON))
M_COST: Final = _metric("promptcache.cost", "USD", "Money paid, by token class.", labels=(COST_CLASS,))
M_COST_WITHOUT: Final = _metric("promptcache.cost.without_cache", "USD", "Money, had nothing been cached.")
M_LOST_TOKENS: Final = _metric(
    "promptcache.lost.tokens", "{token}", "Tokens not read that should be.", labels=(REASON,)
)
M_LOST_COST: Final = _metric("promptcache.lost.cost", "USD", "Money lost to misses.", labels=(REASON,))
M_UNREAD: Final = _metric(
    "promptcache.write.unread.cost", "USD", "Premium of writes that expired unread.", labels=(TTL,)
)
M_NATIVE: Final = _metric(
    "promptcache.native.calls",
    "{call}",
    "Calls with a verdict of the provider's own, beside ours.",
    labels=(REASON, NATIVE_VERDICT, NATIVE_AGREEMENT),
)
M_UNPRICED: Final = _metric("promptcache.unpriced.calls", "{call}", "Calls whose model has no known price.")
M_NO_USAGE: Final = _metric("promptcache.usage_missing.calls", "{call}", "Calls without usage in the response.")
M_ERRORS: Final = _metric("promptcache.internal.errors", "{error}", "Errors of ours, contained.", labels=(WHERE,))
M_LOOKUPS: Final = _metric(
    "promptcache.history.lookups", "{call}", "Look-ups in the shared history; without other labels.", labels=(LOOKUP,)
)
M_KEY_MISMATCH: Final = _metric(
    "promptcache.key.mismatch", "{worker}", "Kinds of workers with another hash key, as each worker saw them."
)
_LIMIT_LABELS: Final = "; of the common labels provider and model only"
M_LIMIT: Final = _metric(
    "promptcache.ratelimit.limit",
    "{item}",
    f"A rate limit, as response headers say{_LIMIT_LABELS}.",
    "gauge",
    (LIMIT_KIND,),
)
M_LIMIT_LEFT: Final = _metric(
    "promptcache.ratelimit.remaining",
    "{item}",
    f"What is left of it, for two minutes after it was said{_LIMIT_LABELS}.",
    "gauge",
    (LIMIT_KIND,),
)
M_RETRY_AFTER: Final = _metric(
    "promptcache.ratelimit.retry_after",
    "s",
    f"The wait that was asked for last, for two minutes{_LIMIT_LABELS}.",
    "gauge",
)
M_REFUSED: Final = _metric(
    "promptcache.ratelimit.refused",
    "{response}",
    "Responses 429, retried ones too; status is that of the call in the end.",
    labels=(STATUS,),
)
M_LIMIT_LOST: Final = _metric(
    "promptcache.ratelimit.lost.tokens",
    "{token}",
    "Lost tokens that counted against a limit on input tokens, where reading them would not have.",
)
M_LIMIT_MALFORMED: Final = _metric(
    "promptcache.ratelimit.malformed",
    "{header}",
    f"Rate-limit headers that say no number{_LIMIT_LABELS}.",
)
M_DURATION: Final = _metric(
    "gen_ai.client.operation.duration",
    "s",
    "Duration of calls.",
    "histogram",
    (OPERATION, STATUS, ERROR_TYPE),
    _SECONDS,
)
M_FIRST_CHUNK: Final = _metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "Time to the first chunk of streams.",
    "histogram",
    (OPERATION, STATUS),
    _SECONDS,
)
M_OVERHEAD: Final = _metric(
    "promptcache.overhead", "s", "Our own time on the caller's thread.", "histogram", (PHASE,), _OWN_SECONDS
)
M_TOKEN_USAGE: Final = _metric(
    "gen_ai.client.token.usage",
    "{token}",
    "The older histogram; opt in.",
    "histogram",
    (OPERATION, TOKEN_TYPE),
    _TOKENS,
)
M_INFO: Final = _metric(
    "promptcache.info",
    "{process}",
    "1 for each process; without the common labels.",
    "gauge",
    (PACKAGE_VERSION, SCHEMA_VERSION, KEY_ID),
)

_OF_ENGINES: Final = (ENGINE, REQUEST_MODEL)
E_INPUT: Final = Metric(
    "promptcache.engine.input_tokens", "{token}", "Tokens that an engine looked up in its cache.", labels=_OF_ENGINES
)
E_READ: Final = Metric(
    "promptcache.engine.cache_read.input_tokens", "{token}", "Tokens that it found there.", labels=_OF_ENGINES
)
E_UNCACHED: Final = Metric(
    "promptcache.engine.uncached_tokens",
    "{token}",
    "Tokens that it worked out anew: all that llama.cpp tells.",
    labels=_OF_ENGINES,
)
E_HIT_RATIO: Final = Metric(
    "promptcache.engine.hit_ratio", "1", "The share found, of an engine's last steps: SGLang.", "gauge", _OF_ENGINES
)
E_USAGE: Final = Metric("promptcache.engine.usage_ratio", "1", "Share of the cache in use.", "gauge", _OF_ENGINES)
ENGINE_METRICS: Final = (E_INPUT, E_READ, E_UNCACHED, E_HIT_RATIO, E_USAGE)
"""Not ours: what self-hosted engines say of their caches, as the gateway's Collector renames it (engines.yaml)."""

OVERFLOW: Final = "__other__"
"""The label value of everything past a label's first 100 values."""

EVENT_CALL: Final = "promptcache.call"
"""Ledger: one log record a call, whatever a sampler says."""

EVENT_CHANGED: Final = "promptcache.prefix.changed"
"""Journal: one log record where a route's stable prefix took a new digest. Its trace is that of the first such call."""

EVENT_ADVICE: Final = "promptcache.advice"
"""One log record for a route whose cache writes do not pay, and again after a day."""

EVENT_PROMPT: Final = "promptcache.prompt"
"""Prompt map: one log record a call, opt in."""

DOCTOR: Final = "promptcache.doctor"
"""The span, the metric and the log record that `doctor` sends to see whether they are taken."""
