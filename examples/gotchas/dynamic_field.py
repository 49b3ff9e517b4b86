"""A value that changes, inside the part that should not.

The time of day in front of ten pages of instructions: each minute is another prompt, and none of the ten pages is ever
read from cache.
"""

from __future__ import annotations

from datetime import UTC, datetime

from openai import OpenAI

from otel_promptcache.emulator import Clock

SDK = OpenAI
MODEL = "gpt-5.4"
HANDBOOK = "\n".join(
    f"{rule}. Tickets of customers on the trial plan are answered on working days." for rule in range(199)
)
QUESTIONS = ("Is my ticket still open?", "When will somebody look at it?", "Whom may I call?", "May I attach a file?")


def broken(client: OpenAI, clock: Clock) -> None:
    for question in QUESTIONS:
        client.responses.create(
            model=MODEL,
            instructions=f"It is {_time(clock)}.\n{HANDBOOK}",
            input=question,
        )
        clock.advance(60)


def fixed(client: OpenAI, clock: Clock) -> None:
    for question in QUESTIONS:
        client.responses.create(
            model=MODEL,
            instructions=HANDBOOK,
            input=f"It is {_time(clock)}.\n\n{question}",  # behind all that stays the same
        )
        clock.advance(60)


def _time(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).strftime("%A, %H:%M")
