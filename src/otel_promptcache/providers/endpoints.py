"""Who answers a request (``gen_ai.provider.name``): by the endpoint's host, else by what its answers look like.

The names are those of OpenTelemetry's GenAI conventions where they have one, else those of the price data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from otel_promptcache.providers._wire import as_list, mapping, string

_HOSTS: Final[tuple[tuple[str, str], ...]] = (
    # By the end of the host's name.
    ("api.anthropic.com", "anthropic"),
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "x_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("openrouter.ai", "openrouter"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.z.ai", "zai"),
    ("open.bigmodel.cn", "zhipuai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.cerebras.ai", "cerebras"),
    ("api.fireworks.ai", "fireworks"),
    ("api.together.xyz", "together"),
    ("api.doubleword.ai", "doubleword"),
    ("api.avian.io", "avian"),
    ("api.venice.ai", "venice"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".rep.googleapis.com", "gcp.vertex_ai"),
)
_BEDROCK: Final = re.compile(r"bedrock-mantle\.|(?:[\w-]+\.)?bedrock[\w-]*\.[\w.-]*amazonaws\.com(?:\.cn)?$")
"""Anybody's load balancer is in the same domain."""


@lru_cache(maxsize=512)
def provider_at(host: str, port: int = 0, private: tuple[tuple[str, str], ...] = ()) -> str:
    """Who answers at a host; empty where nobody knows. ``private``: what the application says of its own hosts,
    ``host`` or ``host:port`` and a name, the likeliest to be true."""
    for name in (f"{host}:{port}", host):
        for told, provider in private:
            if told == name:
                return provider
    if _BEDROCK.match(host):
        return "aws.bedrock"
    return next((provider for end, provider in _HOSTS if host.endswith(end)), "")


# What only one of them says, read off recorded answers: of vLLM 0.32, SGLang 0.5.23 and llama.cpp's server 0.6, and of
# the hosted ones. ``provider_by`` looks at the surest first.
_SERVERS: Final = re.compile(r"(?P<vllm>vllm-)|(?P<llama_cpp>b\d+-)")
_FIELDS: Final[dict[str, str]] = {
    "timings": "llama_cpp",
    "x_groq": "groq",
    "prompt_filter_results": "azure.ai.openai",
    "cache_discount": "openrouter",
    "kv_transfer_params": "vllm",
}
_COUNTS: Final[dict[str, str]] = {
    "cost_details": "openrouter",
    "cache_discount": "openrouter",
    "cost_in_usd_ticks": "x_ai",
    "prompt_cache_hit_tokens": "deepseek",
    "num_cached_tokens": "mistral_ai",
}
_IDS: Final = re.compile(
    r"(?P<vllm>(chatcmpl-|cmpl-|resp_)[0-9a-f]{16})"
    r"|(?P<sglang>(msg|resp)_[0-9a-f]{32})"
    r"|(?P<llama_cpp>(chatcmpl-|resp_)(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{32})"
)


def provider_by(document: Mapping[str, Any]) -> str:
    """Who an answer looks like it is from; empty where it could be from anybody."""
    server = _SERVERS.match(string(document.get("system_fingerprint")))
    if server is not None:
        return server.lastgroup or ""
    for field in _FIELDS.keys() & document.keys():
        return _FIELDS[field]
    usage = document.get("usage")
    if type(usage) is dict:
        for field in _COUNTS.keys() & usage.keys():
            return _COUNTS[field]
        if "created_cache_tokens" in mapping(usage.get("prompt_tokens_details")):
            return "vllm"
    if "weight_version" in mapping(document.get("metadata")):
        return "sglang"
    if any("matched_stop" in mapping(choice) for choice in as_list(document.get("choices"))):
        return "sglang"
    return ""


def provider_by_id(document: Mapping[str, Any]) -> str:
    """Who makes ids like an answer's. Gateways do as well, so this is no more than a guess."""
    named = _IDS.fullmatch(string(document.get("id")))
    return named.lastgroup or "" if named is not None else ""
