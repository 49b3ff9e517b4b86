"""The core alone, on the caller's thread: wire body to prompt, look-up, fingerprint, diagnosis.

    python benchmarks/core.py

One conversation of 1,200 messages and about 400 KB. CPU time of this thread, medians. The worker's part (line and
loose hashes, after the request has been sent) is measured apart.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from otel_promptcache import diagnosis, fingerprint
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Scope, Usage
from otel_promptcache.providers import anthropic
from otel_promptcache.providers.rules import rules_for

MESSAGES, WORDS = 1200, 56
MODEL = "claude-opus-5-5"


def conversation(tag: str, messages: int = MESSAGES) -> dict[str, Any]:
    """A body whose text has not been seen before when the tag has not."""
    turns: list[dict[str, Any]] = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"{tag} turn {n} " + "lorem " * WORDS}
        for n in range(messages)
    ]
    last = turns[-1]
    turns[-1] = {
        "role": last["role"],
        "content": [{"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}],
    }
    return {"model": MODEL, "max_tokens": 64, "system": "You are a support agent. " * 40, "messages": turns}


def look(history: Memory, body: dict[str, Any], now: float) -> Any:
    """What a call costs before it is sent."""
    prompt = anthropic.prompt(body)
    scope = Scope("anthropic", "api.anthropic.com", "k", prompt.model, prompt.cache_key)
    return prompt, history.sent(prompt, scope, now=now, route="bench", conversation="", link=None)


def measured(run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, times: int = 15) -> float:
    """Median CPU milliseconds."""
    samples = []
    for _ in range(times):
        prepare()
        begun = time.thread_time_ns()
        run()
        samples.append((time.thread_time_ns() - begun) / 1e6)
    return statistics.median(samples)


def main() -> None:
    gc.freeze()
    history = Memory(fingerprint.HashKey("benchmark"), 5_000_000)
    state: dict[str, Any] = {"n": 0, "now": 0.0}

    def fresh() -> None:
        state["n"] += 1
        state["body"] = conversation(f"#{state['n']}")

    def first() -> None:
        state["seen"] = look(history, state["body"], state["now"])

    def append() -> None:
        state["n"] += 1
        body = state["body"]
        body["messages"] = [
            *body["messages"],
            {"role": "assistant", "content": f"answer {state['n']}"},
            {"role": "user", "content": f"question {state['n']}"},
        ]

    def copied() -> None:
        """Equal text in fresh strings, as from a database: their hashes are not cached yet."""
        body = state["body"]
        body["messages"] = [
            {"role": m["role"], "content": (m["content"] + ".")[:-1] if isinstance(m["content"], str) else m["content"]}
            for m in body["messages"]
        ]

    rules = rules_for("anthropic", MODEL)
    usage = Usage(input_total=100_000, read=99_000, write=900, output=10)

    def verdict() -> None:
        diagnosis.diagnose(state["seen"][0], state["seen"][1], usage, rules)

    def details() -> None:
        for info, segment in state["seen"][1].fresh:
            info.detail = fingerprint.detail(segment)

    rows = [
        ("first sight", measured(first, fresh)),
        ("lines and loose hashes of the same, on the worker", measured(details, lambda: (fresh(), first()))),
        ("the same again", measured(first)),
        ("the same again, fresh equal strings", measured(first, copied)),
        ("a turn appended", measured(first, append)),
        ("diagnosis of the last", measured(verdict)),
    ]
    size = sum(len(str(m["content"])) for m in state["body"]["messages"]) / 1024
    print(f"| {MESSAGES} messages, {size:.0f} KB | CPU ms |\n|---|---|")
    for name, milliseconds in rows:
        print(f"| {name} | {milliseconds:.2f} |")


if __name__ == "__main__":
    main()
