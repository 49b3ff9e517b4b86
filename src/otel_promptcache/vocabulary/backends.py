"""Keys that single backends read beside the conventions' own: written only for those that a setting names.

What each backend documents to read, with sources and dates, is in ``deploy/backends``; ``docs/backends.md`` says what
it shows without these keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Backend(StrEnum):
    """Where spans are looked at."""

    PHOENIX = "phoenix"
    ARIZE = "arize"
    LANGFUSE = "langfuse"
    LANGSMITH = "langsmith"
    DATADOG = "datadog"
    HONEYCOMB = "honeycomb"
    GRAFANA = "grafana"


class Tells(StrEnum):
    """What a key is about, and so on whose spans it may stand."""

    CALL = "call"
    """Only on spans of ours, and the SDK's own."""
    TOKENS = "tokens"
    """Where we count: never on a span whose maker does."""
    USD = "usd"
    """On those too: nobody else says what a call cost."""


class Duplicate(NamedTuple):
    """One such key."""

    name: str
    type: str
    meaning: str
    tells: Tells
    backends: tuple[Backend, ...]


DUPLICATES: Final[dict[str, Duplicate]] = {}


def _duplicate(name: str, kind: str, meaning: str, tells: Tells, *backends: Backend) -> str:
    DUPLICATES[name] = Duplicate(name, kind, meaning, tells, backends)
    return name


# --- OpenInference: Phoenix, and Arize's own service ------------------------------------------------------------

_OPENINFERENCE: Final = (Backend.PHOENIX, Backend.ARIZE)
OI_KIND: Final = _duplicate("openinference.span.kind", "string", "`LLM`.", Tells.CALL, *_OPENINFERENCE)
OI_MODEL: Final = _duplicate(
    "llm.model_name", "string", "Model that answered, else the one asked for.", Tells.CALL, *_OPENINFERENCE
)
OI_PROVIDER: Final = _duplicate(
    "llm.provider", "string", "Who answered, by OpenInference.", Tells.CALL, *_OPENINFERENCE
)
SESSION: Final = _duplicate(
    "session.id", "string", "`gen_ai.conversation.id`.", Tells.CALL, *_OPENINFERENCE, Backend.LANGFUSE
)
OI_INPUT: Final = _duplicate("llm.token_count.prompt", "int", "All input tokens.", Tells.TOKENS, *_OPENINFERENCE)
OI_OUTPUT: Final = _duplicate("llm.token_count.completion", "int", "Output tokens.", Tells.TOKENS, *_OPENINFERENCE)
OI_TOTAL: Final = _duplicate("llm.token_count.total", "int", "Input and output.", Tells.TOKENS, *_OPENINFERENCE)
OI_READ: Final = _duplicate(
    "llm.token_count.prompt_details.cache_read", "int", "Input tokens read from cache.", Tells.TOKENS, *_OPENINFERENCE
)
OI_WRITE: Final = _duplicate(
    "llm.token_count.prompt_details.cache_write", "int", "Input tokens written to it.", Tells.TOKENS, *_OPENINFERENCE
)
OI_REASONING: Final = _duplicate(
    "llm.token_count.completion_details.reasoning",
    "int",
    "Output tokens spent on reasoning.",
    Tells.TOKENS,
    *_OPENINFERENCE,
)
OI_COST_TOTAL: Final = _duplicate("llm.cost.total", "double", "USD of the call.", Tells.USD, *_OPENINFERENCE)
OI_COST_INPUT: Final = _duplicate("llm.cost.prompt", "double", "USD of all input.", Tells.USD, *_OPENINFERENCE)
OI_COST_OUTPUT: Final = _duplicate(
    "llm.cost.completion", "double", "USD of output, tool fees included.", Tells.USD, *_OPENINFERENCE
)
OI_COST_READ: Final = _duplicate(
    "llm.cost.prompt_details.cache_read", "double", "USD of cache reads.", Tells.USD, *_OPENINFERENCE
)
OI_COST_WRITE: Final = _duplicate(
    "llm.cost.prompt_details.cache_write", "double", "USD of cache writes.", Tells.USD, *_OPENINFERENCE
)
OI_COST_UNCACHED: Final = _duplicate(
    "llm.cost.prompt_details.input", "double", "USD of input neither read nor written.", Tells.USD, *_OPENINFERENCE
)

# --- Langfuse, LangSmith: one JSON object each ------------------------------------------------------------------

LANGFUSE_USAGE: Final = _duplicate(
    "langfuse.observation.usage_details",
    "string",
    "JSON of tokens by class, none of them in another: `input`, `input_cached_tokens`, `input_cache_creation`, "
    "`output`, `total`.",
    Tells.TOKENS,
    Backend.LANGFUSE,
)
LANGFUSE_COST: Final = _duplicate(
    "langfuse.observation.cost_details", "string", "JSON of USD by the same classes.", Tells.USD, Backend.LANGFUSE
)
LANGSMITH_KIND: Final = _duplicate("langsmith.span.kind", "string", "`llm`.", Tells.CALL, Backend.LANGSMITH)
LANGSMITH_THREAD: Final = _duplicate(
    "langsmith.metadata.thread_id", "string", "`gen_ai.conversation.id`.", Tells.CALL, Backend.LANGSMITH
)
LANGSMITH_USAGE: Final = _duplicate(
    "langsmith.usage_metadata",
    "string",
    "JSON of tokens with `input_token_details`, and of USD with `input_cost_details`.",
    Tells.TOKENS,
    Backend.LANGSMITH,
)

# --- Older conventions, and what was never one ------------------------------------------------------------------

SYSTEM: Final = _duplicate(
    "gen_ai.system", "string", "Who answered, as it was called before 1.37.", Tells.CALL, Backend.LANGSMITH
)
CACHE_CREATION: Final = _duplicate(
    "gen_ai.usage.cache_creation.input_tokens",
    "int",
    "Input tokens written to cache, as it was called in 1.40 and 1.41.",
    Tells.TOKENS,
    Backend.DATADOG,
    Backend.HONEYCOMB,
    Backend.GRAFANA,
)
USAGE_COST: Final = _duplicate(
    "gen_ai.usage.cost", "double", "USD of the call.", Tells.USD, Backend.LANGFUSE, Backend.GRAFANA
)

OPENINFERENCE_PROVIDERS: Final = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistralai",
    "x_ai": "xai",
}
"""Who answered: the conventions' name, and OpenInference's where that is another
(``OpenInferenceLLMProviderValues``, openinference-semantic-conventions 0.1.42)."""
