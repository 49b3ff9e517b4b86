"""A process of an application, run by test_alerts: it makes calls of the kind that it was told last on standard input,
until that is closed. What it says of them goes wherever its environment says."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable

import anthropic

from otel_promptcache import attribute, route
from otel_promptcache.instrumentation import runtime

MODEL = "claude-opus-4-1"
"""15 USD a million input tokens, 18.75 written: at 1100 tokens a write has a premium of 0.004 USD."""
PROMPT = "abc " * 1100
PAUSE = 0.02

count = itertools.count()


def ask(
    client: anthropic.Anthropic, system: str, question: str = "What is it?", model: str = MODEL, fault: str = ""
) -> None:
    client.messages.create(
        model=model,
        max_tokens=500,
        system=[{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": question}],
        extra_headers={"x-emulator-fault": fault} if fault else {},
    )


def steady(client: anthropic.Anthropic) -> None:
    """The same prompt each time."""
    with route("/chat"):
        ask(client, PROMPT)


def broken(client: anthropic.Anthropic) -> None:
    """Something in front of the prompt that is another each time; now and then a model without a price, an answer
    without usage, and a prompt so large that looking at it takes long."""
    hurry()
    number = next(count)
    with route("/chat"):
        ask(client, f"{number}\n{PROMPT}")
        if number % 3 == 0:
            ask(client, PROMPT, model="claude-of-tomorrow")
    with route("/summary"):
        if number % 3 == 1:
            ask(client, PROMPT, fault="no_usage")
    if number % 20 == 0:
        with route("/large"):
            blocks = [{"type": "text", "text": f"{number} {place}"} for place in range(4000)]
            client.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": blocks}])


def idle(_: anthropic.Anthropic) -> None:
    time.sleep(0.1)


def hurry(factor: float = 60) -> None:
    """Has the observer's clock run faster, so that five minutes are over in five seconds."""
    running = runtime.running()
    assert running is not None
    if running.observer.clock is time.time:
        begun = time.time()
        running.observer.clock = lambda: begun + factor * (time.time() - begun)


KINDS: dict[str, Callable[[anthropic.Anthropic], None]] = {"steady": steady, "broken": broken, "idle": idle}


def main() -> None:
    client = anthropic.Anthropic(base_url=sys.argv[1], api_key="sk-test", max_retries=0)
    told = ["idle"]

    def listen() -> None:
        told.extend(line.strip() for line in sys.stdin)
        told.append("")

    threading.Thread(target=listen, daemon=True).start()
    with attribute(team=sys.argv[2]):
        while told[-1]:
            KINDS[told[-1]](client)
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
