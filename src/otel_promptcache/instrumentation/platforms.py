"""The SDKs' own clients for platforms that host the models: Bedrock, Vertex AI, Azure and the like."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

_MODULES: Final[tuple[tuple[str, str], ...]] = (
    # Where the SDKs keep them, and gen_ai.provider.name as the anthropic SDK has it in its own spans: the platform's,
    # or Anthropic's own for Foundry, Google Cloud and AWS, whose clients speak to the Claude API itself.
    ("anthropic.lib.bedrock.", "aws.bedrock"),
    ("anthropic.lib.vertex.", "gcp.vertex_ai"),
    ("anthropic.lib.", "anthropic"),
    ("openai.lib.azure", "azure.ai.openai"),
    ("openai.lib.bedrock", "aws.bedrock"),
)
_RUNTIMES: Final[dict[str, str]] = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}
"""The same for ``OpenAI(provider=...)``, by the provider's name."""


@lru_cache(maxsize=256)
def _of_class(client: type) -> str:
    for base in client.__mro__:
        for module, provider in _MODULES:
            if base.__module__.startswith(module):
                return provider
    return ""


def platform_of(client: Any) -> str:
    """``gen_ai.provider.name`` of a client that is made for a platform, empty for one that speaks to any host."""
    kind: type = type(client)
    found = _of_class(kind)
    if found:
        return found
    runtime = getattr(client, "_provider_runtime", None)
    return _RUNTIMES.get(getattr(runtime, "name", ""), "") if runtime is not None else ""
