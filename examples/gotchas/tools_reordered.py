"""Tools in the order in which their servers happened to answer.

Tools stand in front of everything else. Two of them in another order, and nothing of the prompt is read.
"""

from __future__ import annotations

import random
from typing import Any

from openai import OpenAI

from otel_promptcache.emulator import Clock

SDK = OpenAI
MODEL = "gpt-5.4"
NAMES = (
    "search_orders",
    "search_docs",
    "open_ticket",
    "close_ticket",
    "refund",
    "send_mail",
    "check_stock",
    "translate",
)
QUESTIONS = ("Is the blue lamp in stock?", "And the green one?", "Please order two.", "Cancel one of them.")


def broken(client: OpenAI, clock: Clock) -> None:
    for turn, question in enumerate(QUESTIONS):
        tools = _gathered(turn)
        _ask(client, tools, question)
        clock.advance(20)


def fixed(client: OpenAI, clock: Clock) -> None:
    for turn, question in enumerate(QUESTIONS):
        tools = sorted(_gathered(turn), key=lambda tool: tool["function"]["name"])
        _ask(client, tools, question)
        clock.advance(20)


def _ask(client: OpenAI, tools: list[Any], question: str) -> None:
    client.chat.completions.create(model=MODEL, tools=tools, messages=[{"role": "user", "content": question}])


def _gathered(turn: int) -> list[Any]:
    """All tools, the quickest server's first: another order after each reconnect."""
    arrived = list(NAMES)
    random.Random(turn).shuffle(arrived)
    return [_tool(name) for name in arrived]


def _tool(name: str) -> Any:
    described = f"{name}: " + "reads and writes the records of the shop, within the rights of whoever asks. " * 9
    schema = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    return {"type": "function", "function": {"name": name, "description": described, "parameters": schema}}
