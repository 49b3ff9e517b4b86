"""The support agent of a web shop, as its team might have written it, on both SDKs.

``otel-promptcache demo`` runs it under ``opentelemetry-instrument``. Two names of ``otel_promptcache`` are all it
knows of being observed, and without them it would be observed as well. ``SHOP_FAULTS`` says which of three mistakes
it makes; beside each stands how it is done right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict

import anthropic
import openai

from otel_promptcache import attribute, route
from otel_promptcache.demo import manual, script
from otel_promptcache.demo.script import FAULTS_VARIABLE, Fault

Block = dict[str, Any]
"""A content block of the Messages API."""


class Message(TypedDict):
    """A message of the Messages API, as it goes over the wire."""

    role: str
    content: Sequence[Block]


Ask = Callable[[str, Sequence[Any], Sequence[Any]], anthropic.types.Message]
"""A way to ask the model: system prompt, tools, messages."""

if TYPE_CHECKING:
    from anthropic.types import TextBlockParam

ANSWERING: Final = "claude-sonnet-5-5"
SORTING: Final = "gpt-5.4-mini"
TIMEOUT: Final = 60.0
"""Seconds in which the local provider has to answer."""


class Clock:
    """The shop's time of day. Every look at it is 41 seconds later, because the demo talks faster than people do."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 27, 9, 14, 3)  # noqa: DTZ001 - a clock on a wall

    def read(self) -> str:
        self._now += timedelta(seconds=41)
        return self._now.isoformat(" ")


@dataclass(frozen=True)
class Desk:
    """An agent that talks to shoppers: tools and a manual in front of the conversation, marked for caching."""

    ask: Ask
    tools: Sequence[Block]
    system: Callable[[], str]
    said: Callable[[str], str] = str
    """What a shopper said, as the model is told."""
    recalled: Callable[[Sequence[Message]], Sequence[Message]] = list
    """The conversation so far, as it is sent again."""

    def serve(self, questions: Iterable[str]) -> None:
        """A whole conversation with one shopper."""
        history: Sequence[Message] = []
        for question in questions:
            history = self._turn(history, question)

    def _turn(self, history: Sequence[Message], question: str) -> Sequence[Message]:
        """A question, the tool calls it takes, and the answer."""
        messages = list(self.recalled(history))
        messages.append({"role": "user", "content": [{"type": "text", "text": self.said(question)}]})
        while True:
            blocks = spoken(self.ask(self.system(), self.tools, [*messages[:-1], marked(messages[-1])]))
            messages.append({"role": "assistant", "content": blocks})
            results = [looked_up(block) for block in blocks if block["type"] == "tool_use"]
            if not results:
                return messages
            messages.append({"role": "user", "content": results})


def support(client: anthropic.Anthropic, faults: frozenset[Fault]) -> Desk:
    """Answers questions about orders and products, while the shopper watches."""
    clock = Clock()
    opening = f"You are the support agent of {manual.SHOP}, a web shop for lamps and small furniture.\n"
    opening += "Answer shoppers from the manual below and from what your tools say, and from nothing else.\n"
    tools = toolbox(manual.SUPPORT_TOOLS)
    if Fault.TIMESTAMP in faults:
        return Desk(streamed(client), tools, lambda: f"{opening}Now: {clock.read()}\n\n{manual.support()}")
    # Right: what changes from request to request stands in the newest message, behind all that does not.
    system = f"{opening}\n{manual.support()}"
    return Desk(streamed(client), tools, lambda: system, lambda question: f"{question}\n(Now: {clock.read()})")


def returns(client: anthropic.Anthropic, faults: frozenset[Fault]) -> Desk:
    """Takes things back."""
    desk = Desk(whole(client), toolbox(manual.RETURN_TOOLS), manual.returns)
    # Right: what was sent stays as it was sent, to the last blank.
    return replace(desk, recalled=tidied) if Fault.HISTORY in faults else desk


def toolbox(tools: Iterable[manual.Tool]) -> list[Block]:
    return [{"name": tool[0], "description": tool[1], "input_schema": manual.schema(tool)} for tool in tools]


def streamed(client: anthropic.Anthropic) -> Ask:
    def ask(system: str, tools: Sequence[Any], messages: Sequence[Any]) -> anthropic.types.Message:
        with client.messages.stream(
            model=ANSWERING, max_tokens=500, system=[cached(system)], tools=tools, messages=messages
        ) as stream:
            return stream.get_final_message()

    return ask


def whole(client: anthropic.Anthropic) -> Ask:
    def ask(system: str, tools: Sequence[Any], messages: Sequence[Any]) -> anthropic.types.Message:
        return client.messages.create(
            model=ANSWERING, max_tokens=500, system=[cached(system)], tools=tools, messages=messages
        )

    return ask


def cached(text: str) -> TextBlockParam:
    """A block at whose end the provider keeps the prompt so far."""
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def tidied(history: Sequence[Message]) -> Sequence[Message]:
    """A conversation as it comes back from a store that cleans up blanks: the mistake of ``Fault.HISTORY``."""
    return [{"role": message["role"], "content": [_tidy(block) for block in message["content"]]} for message in history]


def _tidy(block: Block) -> Block:
    if block["type"] != "text":
        return block
    lines = (" ".join(line.split()) for line in block["text"].splitlines())
    return {"type": "text", "text": "\n".join(line for line in lines if line)}


def spoken(message: anthropic.types.Message) -> list[Block]:
    """What the model said, to be sent back with the next question."""
    blocks: list[Block] = []
    for block in message.content:
        if block.type == "text":
            blocks.append({"type": "text", "text": block.text})
        elif block.type == "tool_use":
            blocks.append({"type": "tool_use", "id": block.id, "name": block.name, "input": block.input})
    return blocks


def looked_up(call: Block) -> Block:
    return {"type": "tool_result", "tool_use_id": call["id"], "content": script.result(call["name"])}


def marked(message: Message) -> Message:
    """The newest message with a breakpoint at its end, so that the next turn reads all that came before."""
    *before, last = message["content"]
    return {"role": message["role"], "content": [*before, {**last, "cache_control": {"type": "ephemeral"}}]}


def classify(client: openai.OpenAI, tickets: Iterable[str], faults: frozenset[Fault]) -> None:
    """Sorts tickets into queues, each by a request of its own."""
    tools: list[Any] = [
        {
            "type": "function",
            "name": tool[0],
            "description": tool[1],
            "parameters": manual.schema(tool),
            "strict": False,
        }
        for tool in manual.TRIAGE_TOOLS
    ]
    # Wrong: a set, or whoever answers first, gives an order of its own each time. Here the tools move up by one, so
    # that the demo shows the same whenever it runs. Right: one order for ever, as they are written down or by name.
    step = 1 if Fault.TOOLS in faults else 0
    for ticket in tickets:
        tools = tools[step:] + tools[:step]
        client.responses.create(
            model=SORTING, instructions=manual.triage(), tools=tools, input=[{"role": "user", "content": ticket}]
        )


def main() -> None:
    faults = frozenset(Fault(name) for name in os.environ.get(FAULTS_VARIABLE, "").split(",") if name)
    claude = anthropic.Anthropic(timeout=TIMEOUT)
    with route("/support/answer"), attribute(team="support", feature="answer"):
        desk = support(claude, faults)
        for questions in script.CHATS:
            desk.serve(questions)
    with route("/support/returns"), attribute(team="support", feature="returns"):
        returns(claude, faults).serve(script.RETURN)
    with route("/support/classify"), attribute(team="operations", feature="triage"):
        classify(openai.OpenAI(timeout=TIMEOUT), script.TICKETS, faults)


if __name__ == "__main__":
    main()
