"""History that is tidied up between two turns.

A web form leaves a line break at the end of what people paste; the table it is kept in, or the code that loads it,
takes it off. The next turn then resends a history that was never sent.
"""

from __future__ import annotations

from anthropic import Anthropic

from otel_promptcache.emulator import Clock

SDK = Anthropic
MODEL = "claude-opus-5-5"
HANDBOOK = "\n".join(
    f"{rule}. Refunds above 50 EUR are looked at by a person, and nobody is promised one." for rule in range(99)
)
PASTED = (
    "My order arrived broken, here is the mail that I got about it:\n\tDear customer, we are sorry to hear that.\n",
    "And what about the postage?\n",
    "Thank you. Where do I send it?\n",
)  # fmt: skip


def broken(client: Anthropic, clock: Clock) -> None:
    history: list[dict[str, str]] = []
    for text in PASTED:
        history = [{"role": turn["role"], "content": turn["content"].strip()} for turn in history]
        history.append({"role": "user", "content": text})
        history.append({"role": "assistant", "content": _asked(client, history)})
        clock.advance(30)


def fixed(client: Anthropic, clock: Clock) -> None:
    history: list[dict[str, str]] = []
    for text in PASTED:
        history.append({"role": "user", "content": text.strip()})  # once, in front of the first time it is sent
        history.append({"role": "assistant", "content": _asked(client, history)})
        clock.advance(30)


def _asked(client: Anthropic, history: list[dict[str, str]]) -> str:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        cache_control={"type": "ephemeral"},
        system=HANDBOOK,
        messages=history,  # type: ignore[arg-type]
    )
    return "".join(block.text for block in answer.content if block.type == "text")
