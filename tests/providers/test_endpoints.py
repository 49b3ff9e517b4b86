"""Who answers: by the host, by what the application says of it, by what the answer looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.providers import dialect_for, openai_chat, provider_for
from otel_promptcache.providers.endpoints import provider_at, provider_by, provider_by_id

HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "shop.openai.azure.com": "azure.ai.openai",
    "shop.cognitiveservices.azure.com": "azure.ai.openai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.mistral.ai": "mistral_ai",
    "openrouter.ai": "openrouter",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.z.ai": "zai",
    "api.perplexity.ai": "perplexity",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "us-east5-aiplatform.googleapis.com": "gcp.vertex_ai",
    "aiplatform.us.rep.googleapis.com": "gcp.vertex_ai",
    "bedrock-runtime.us-east-1.amazonaws.com": "aws.bedrock",
    "bedrock-mantle.us-east-1.api.aws": "aws.bedrock",
    "bedrock-runtime-fips.us-gov-west-1.amazonaws.com": "aws.bedrock",
    "vpce-0a1b.bedrock-runtime.us-east-1.vpce.amazonaws.com": "aws.bedrock",
    "internal-vllm-123.us-east-1.elb.amazonaws.com": "",
    "abc.execute-api.us-east-1.amazonaws.com": "",
    "llm.internal": "",
    "127.0.0.1": "",
    "": "",
}


@pytest.mark.parametrize(("host", "provider"), HOSTS.items())
def test_hosts(host: str, provider: str) -> None:
    """By the end of the name; the dialect's maker where nobody knows."""
    assert provider_at(host) == provider
    assert provider_for(host, openai_chat) == (provider or "openai")


def test_private_hosts() -> None:
    """The application knows best; a port tells engines on one machine apart."""
    private = (("llm.internal", "vllm"), ("localhost:30000", "sglang"), ("api.openai.com", "gateway"))
    told = [("llm.internal", 443), ("localhost", 30000), ("localhost", 8000), ("api.openai.com", 443)]
    assert [provider_at(host, port, private) for host, port in told] == ["vllm", "sglang", "", "gateway"]


ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"system_fingerprint": "vllm-0.32.0-8c2d89a8"}, "vllm"),
    ({"system_fingerprint": "b10499-6d05498"}, "llama_cpp"),
    ({"system_fingerprint": "fp_8b330d02d0"}, ""),
    ({"timings": {"cache_n": 1, "prompt_n": 2}}, "llama_cpp"),
    ({"x_groq": {"id": "req_1"}}, "groq"),
    ({"prompt_filter_results": []}, "azure.ai.openai"),
    ({"usage": {"cost_details": {}}}, "openrouter"),
    ({"cache_discount": 0.1}, "openrouter"),
    ({"usage": {"cost_in_usd_ticks": 1}}, "x_ai"),
    ({"usage": {"prompt_cache_hit_tokens": 0}}, "deepseek"),
    ({"usage": {"num_cached_tokens": 0}}, "mistral_ai"),
    ({"usage": {"prompt_tokens_details": {"created_cache_tokens": 0}}}, "vllm"),
    ({"usage": {"prompt_tokens_details": None}}, ""),
    ({"metadata": {"weight_version": "default"}}, "sglang"),
    ({"choices": [{"matched_stop": None}]}, "sglang"),
    ({"id": "chatcmpl-90a68bcf289a094c"}, "vllm"),
    ({"id": "msg_487e61d0063a49aaafffe90ad4aac234"}, "sglang"),
    ({"id": "chatcmpl-q5WrXXsjVl3VfC9HDJnMkdV3RDH307N5"}, "llama_cpp"),
    ({"id": "chatcmpl-E1mBQt42vYTsKNd5wnyJlT0db7v9S"}, ""),  # OpenAI
    ({"id": "msg_01AGcJaUoaQe4VfWUjnSBrXg"}, ""),  # Anthropic
    ({"id": "26b38141895b478fae9ca96c4587dcc2"}, ""),  # Mistral
    ({"id": "chatcmpl-3e07ab841333408298e7e6fe"}, ""),
    ({"id": 5, "system_fingerprint": [], "usage": "x", "choices": [None, 5], "metadata": 7}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("document", "provider"), ANSWERS)
def test_answers(document: dict[str, Any], provider: str) -> None:
    """What only one of them says."""
    assert (provider_by(document) or provider_by_id(document)) == provider


def test_recorded_engines(recorded: Path) -> None:
    """Every whole answer of the three engines tells which it is, in each of the dialects they speak, and none of a
    hosted provider's is taken for one of them."""
    for file in (recorded / "selfhosted").glob("*.json"):
        for exchange in json.loads(file.read_text(encoding="utf-8"))["sequence"]:
            dialect = dialect_for(exchange["endpoint"])
            assert dialect is not None
            if "body" in exchange["response"]:
                answer = dialect.answer(exchange["response"]["body"])
                assert (answer.provider or answer.guessed) == exchange["provider"], exchange["case"]
    hosted = {"anthropic": "", "openai": "", "deepseek": "deepseek", "openrouter": "openrouter", "groq": "groq"}
    for file in (recorded / "cassettes").glob("*.json"):
        for exchange in json.loads(file.read_text(encoding="utf-8"))["sequence"]:
            body = exchange["response"].get("body")
            if exchange["provider"] in hosted and isinstance(body, dict):
                assert (provider_by(body) or provider_by_id(body)) in ("", hosted[exchange["provider"]]), file.name
