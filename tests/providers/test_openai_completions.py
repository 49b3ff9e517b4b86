"""Text completions: a prompt in each form it may have, and usage as everywhere behind the OpenAI SDK."""

from __future__ import annotations

from typing import Any

import pytest

from otel_promptcache.providers import openai_completions


@pytest.mark.parametrize(
    ("path", "handled"),
    [("/v1/completions", True), ("/completions", True), ("/v1/chat/completions", False), ("/v1/complete", False)],
)
def test_the_calls_that_carry_a_prompt(path: str, handled: bool) -> None:
    """Chat completions are another dialect."""
    assert openai_completions.handles(path) is handled


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("Once", ["Once"]),
        (["Once", "Twice"], ["Once", "Twice"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([], []),
        (None, []),
        ({"odd": 1}, [{"odd": 1}]),
    ],
)
def test_prompts(source: Any, values: list[Any]) -> None:
    """A text, several, tokens, several of those."""
    prompt = openai_completions.prompt({"model": "m", "prompt": source, "max_tokens": 5, "stream": True})
    assert [segment.value for segment in prompt.segments] == values
    assert [openai_completions.path(segment) for segment in prompt.segments] == [
        f"prompt[{index}]" for index in range(len(values))
    ]
    assert (prompt.model, prompt.max_tokens, prompt.stream, prompt.automatic) == ("m", 5, True, True)


def test_the_cache_salt_is_part_of_the_prefix() -> None:
    """vLLM hashes it with the first block."""
    salted, plain = ({"prompt": "Once", "cache_salt": "a"}, {"prompt": "Once"})
    assert len(openai_completions.prompt(salted).segments) == len(openai_completions.prompt(plain).segments) + 1


def test_usage() -> None:
    """The same object as in Chat Completions."""
    raw = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 96}}
    answer = openai_completions.answer({"id": "cmpl-1", "model": "m", "usage": raw})
    assert answer.usage is not None
    assert (answer.usage.input_total, answer.usage.read, answer.usage.output) == (100, 96, 7)
