"""Servers that people run themselves: blocks, templates, slots, and a switch."""

from __future__ import annotations

from typing import Any

import pytest
from test_diagnosis import TALK, Body, prose, turns

from otel_promptcache import diagnosis, providers
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Scope, Usage
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Reason, Status


class Server:
    """One engine under one address, whatever API it is asked by."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.memory = Memory(HashKey("engine"), 10_000)
        self.now = 1_800_000_000.0

    def asked(
        self, body: Body, total: int, read: int | None, dialect: str = "openai_chat"
    ) -> tuple[Status, Reason | None]:
        self.now += 10
        prompt = providers.BY_NAME[dialect].prompt(body)
        scope = Scope(self.provider, "localhost", "", prompt.model, prompt.cache_key)
        sight = self.memory.sent(prompt, scope, now=self.now, route="", conversation="", link=None)
        self.memory.describe(prompt, sight)
        self.memory.begun(sight, self.now)
        usage = Usage(input_total=total, read=read, output=9)
        said = diagnosis.diagnose(prompt, sight, usage, rules_for(self.provider, prompt.model))
        self.memory.ended(sight, usage, "", None)
        return said.status, said.reason


def body(system: str, *texts: str, **more: Any) -> Body:
    return {"model": "m", "messages": [{"role": "system", "content": system}, *turns(*texts)], **more}


RULES = prose("rentals", 30)


@pytest.mark.parametrize(
    ("total", "read", "status"),
    [
        (300, 256, Status.HIT),  # two blocks of 128
        (300, 288, Status.HIT),  # 18 blocks of 16
        (1000, 960, Status.HIT),  # 15 blocks of 64, or 30 of 32
        (1000, 816, Status.PARTIAL),  # 51 blocks of 16, and no multiple of a larger one: a block more would have fit
        (1000, 512, Status.PARTIAL),  # no block is so large
        (1000, 0, Status.MISS),
        (100, 0, Status.COLD),  # not a whole block of a server with large ones
    ],
)
def test_blocks_of_any_size_that_a_server_may_have(total: int, read: int, status: Status) -> None:
    server = Server("vllm")
    server.asked(body(RULES, TALK[0]), total, 0)
    assert server.asked(body(RULES, TALK[0]), total, read)[0] is status


@pytest.mark.parametrize(("read", "status"), [(27, Status.COLD), (0, Status.COLD), (900, Status.HIT)])
def test_the_chat_template_is_no_hit(read: int, status: Status) -> None:
    """What every prompt begins with is read on the first request too; a prompt that another process sent is not it."""
    assert Server("sglang").asked(body(RULES, TALK[0]), 1500, read) == (status, None)


def test_another_api_is_another_program() -> None:
    """Prompts for two shops that one author wrote are alike; the edit of one of them is told all the same."""
    chat = Server("sglang")
    assert chat.asked(body(f"You sell bicycles. {RULES}", TALK[0]), 1500, 0) == (Status.COLD, None)
    other = {"model": "m", "max_tokens": 9, "system": f"You sell guitars. {RULES}", "messages": turns(TALK[0])}
    assert chat.asked(other, 1500, 20, "anthropic") == (Status.COLD, None)
    edited = other | {"system": f"You sell guitars, too. {RULES}"}
    assert chat.asked(edited, 1500, 20, "anthropic") == (Status.PARTIAL, Reason.SYSTEM_CHANGED)


def test_an_equal_prompt_is_read_whatever_the_api() -> None:
    server = Server("vllm")
    server.asked(body(RULES, TALK[0]), 1500, 0)
    same = {"model": "m", "instructions": RULES, "input": turns(TALK[0])}
    assert server.asked(same, 1500, 1488, "openai_responses") == (Status.HIT, None)
    assert server.asked(same, 1500, 16, "openai_responses") == (Status.PARTIAL, Reason.PROVIDER_EVICTED)


def test_a_prompt_that_had_to_leave_its_slot() -> None:
    """The system prompt is the same and long; that far less of it was read is no error of an estimate."""
    server = Server("llama_cpp")
    server.asked(body(RULES, TALK[0]), 1500, 0)
    assert server.asked(body(RULES, TALK[2]), 1510, 300) == (Status.PARTIAL, Reason.PROVIDER_EVICTED)


def test_nearly_what_was_estimated_blames_nobody() -> None:
    server = Server("llama_cpp")
    server.asked(body(RULES, TALK[0]), 1500, 0)
    assert server.asked(body(RULES, TALK[2]), 1510, 1100) == (Status.PARTIAL, Reason.UNKNOWN)


@pytest.mark.parametrize("provider", ["llama_cpp", "vllm"])
def test_a_request_that_turns_caching_off(provider: str) -> None:
    """llama.cpp knows the field; to another server it says nothing."""
    server = Server(provider)
    for _ in range(2):
        off = server.asked(body(RULES, TALK[0], cache_prompt=False), 1500, 0)
    known = provider == "llama_cpp"
    assert off == ((Status.UNCACHEABLE, Reason.BREAKPOINT_MISSING) if known else (Status.MISS, Reason.PROVIDER_EVICTED))
    server.asked(body(RULES, TALK[0]), 1500, 0)
    assert server.asked(body(RULES, TALK[0]), 1500, 1499) == (Status.HIT, None)


def test_counts_that_are_left_out_are_not_zero() -> None:
    server = Server("vllm")
    server.asked(body(RULES, TALK[0]), 1500, None)
    assert server.asked(body(RULES, TALK[0]), 1500, None) == (Status.UNKNOWN, Reason.USAGE_NOT_REPORTED)


@pytest.mark.parametrize(
    ("provider", "model", "maker"),
    [
        ("azure.ai.openai", "gpt-4.1", "openai"),
        ("aws.bedrock", "us.anthropic.claude-opus-5-v1:0", "anthropic"),
        ("gcp.vertex_ai", "claude-opus-5@20260901", "anthropic"),
        ("gcp.vertex_ai", "gemini-3.5-flash", "gcp.gemini"),
        ("aws.bedrock", "amazon.nova-pro-v1:0", ""),
    ],
)
def test_a_model_keeps_its_makers_rules_on_a_platform(provider: str, model: str, maker: str) -> None:
    """Claude on Bedrock reads what was marked, and nothing else: an unmarked request is no miss there either."""
    assert rules_for(provider, model).provider == maker
