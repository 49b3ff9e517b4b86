"""A support agent: one conversation a customer, one system prompt for all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import anthropic

POLICY = """You answer customers of a lamp shop. Be brief and kind.
Returns are free within thirty days, whatever the reason.
""" + "\n".join(f"Article {number}: a lamp, held in stock, shipped within two days." for number in range(1, 400))


def fixed() -> str:
    """The same instructions for everybody, at any time."""
    return POLICY


def with_the_time() -> str:
    """The mistake: the third line moves with every minute, and takes everything behind it out of the cache."""
    first, second, rest = POLICY.split("\n", 2)
    return "\n".join((first, second, f"It is {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}.", rest))


class Conversation:
    """A conversation with one customer."""

    def __init__(self, instructions: Callable[[], str] = fixed) -> None:
        self._client = anthropic.Anthropic()
        self._instructions = instructions
        self._messages: list[anthropic.types.MessageParam] = []

    def ask(self, question: str) -> anthropic.types.Message:
        self._messages.append({"role": "user", "content": question})
        answer = self._client.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=200,
            system=[{"type": "text", "text": self._instructions(), "cache_control": {"type": "ephemeral"}}],
            messages=self._messages,
        )
        text = "".join(block.text for block in answer.content if block.type == "text")
        self._messages.append({"role": "assistant", "content": text})
        return answer
