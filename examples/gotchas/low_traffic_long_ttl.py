"""A long lifetime for a prefix that hardly anybody asks for.

A write that lives for an hour costs twice the input price. With a question every seventy minutes each call pays it, and
none reads. Gathered, the questions need one write for five minutes; what cannot wait is cheaper without a marker.
"""

from __future__ import annotations

from anthropic import Anthropic

from otel_promptcache.emulator import Clock

SDK = Anthropic
MODEL = "claude-opus-5-5"
CONTRACT = "\n".join(
    f"§ {number} The supplier answers for defects that show within two years." for number in range(120)
)
QUESTIONS = ("Who answers for defects?", "For how long?", "Who pays the postage?", "Which court decides?")


def broken(client: Anthropic, clock: Clock) -> None:
    for question in QUESTIONS:
        _ask(client, question, ttl="1h")
        clock.advance(70 * 60)  # until somebody asks again


def fixed(client: Anthropic, clock: Clock) -> None:
    clock.advance(len(QUESTIONS) * 70 * 60)  # the questions of the day are gathered
    for question in QUESTIONS:
        _ask(client, question, ttl="5m")
        clock.advance(10)


def _ask(client: Anthropic, question: str, ttl: str) -> None:
    client.messages.create(
        model=MODEL,
        max_tokens=100,
        system=[{"type": "text", "text": CONTRACT, "cache_control": {"type": "ephemeral", "ttl": ttl}}],  # type: ignore[typeddict-item]
        messages=[{"role": "user", "content": question}],
    )
