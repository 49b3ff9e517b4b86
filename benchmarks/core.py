"""The core alone, on the caller's thread: wire body to prompt, look-up, fingerprint, diagnosis.

    python benchmarks/core.py

One conversation of 1,200 messages and about 400 KB. CPU time of this thread, medians. The worker's part (line and
loose hashes, after the request has been sent) is measured apart, and so is what is remembered of a segment.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from otel_promptcache import diagnosis, fingerprint
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Scope, Usage
from otel_promptcache.providers import anthropic
from otel_promptcache.providers.rules import rules_for

MESSAGES, WORDS = 1200, 56
MODEL = "claude-opus-5-5"


def marked(turn: dict[str, Any]) -> dict[str, Any]:
    """A message with a breakpoint at its end."""
    return {
        "role": turn["role"],
        "content": [{"type": "text", "text": turn["content"], "cache_control": {"type": "ephemeral"}}],
    }


def unmarked(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn["content"]
    return turn if isinstance(content, str) else {"role": turn["role"], "content": content[0]["text"]}


def conversation(tag: str, messages: int = MESSAGES) -> dict[str, Any]:
    """A body whose text has not been seen before when the tag has not."""
    turns: list[dict[str, Any]] = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"{tag} turn {n} " + "lorem " * WORDS}
        for n in range(messages)
    ]
    turns[-1] = marked(turns[-1])
    return {"model": MODEL, "max_tokens": 64, "system": "You are a support agent. " * 40, "messages": turns}


def look(history: Memory, body: dict[str, Any], now: float) -> Any:
    """What a call costs before it is sent."""
    prompt = anthropic.prompt(body)
    scope = Scope("anthropic", "api.anthropic.com", "k", prompt.model, prompt.cache_key)
    return prompt, history.sent(prompt, scope, now=now, route="bench", conversation="", link=None)


def remembered(messages: int) -> tuple[float, float]:
    """Bytes that are kept of a segment of a conversation: sent once as a whole, and sent again with every turn."""
    found = []
    for step in (messages, 2):
        history = Memory(fingerprint.HashKey("benchmark"), 5_000_000)
        look(history, conversation("first", 10), 0.0)
        bodies = [conversation(f"#{number}", messages) for number in range(10)]
        before, known = tracemalloc_start(), len(history)
        for body in bodies:
            for end in range(step, messages + 1, step):
                seen = look(history, body | {"messages": body["messages"][:end]}, 0.0)
                history.describe(*seen)
                del seen
        found.append((tracemalloc_stop() - before) / (len(history) - known))
    return found[0], found[1]


def tracemalloc_start() -> int:
    gc.collect()
    tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


def tracemalloc_stop() -> int:
    gc.collect()
    found = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return found


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
        history.begun(state["seen"][1])
        body = state["body"]
        body["messages"] = [
            *map(unmarked, body["messages"]),
            {"role": "assistant", "content": f"answer {state['n']}"},
            marked({"role": "user", "content": f"question {state['n']}"}),
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
        history.describe(*state["seen"])

    def short() -> None:
        state["body"] = conversation("short", 100)

    rows = [
        ("first sight", measured(first, fresh)),
        ("digests, lines and loose hashes of the same, on the worker", measured(details, lambda: (fresh(), first()))),
        ("the same again", measured(first)),
        ("the same again, fresh equal strings", measured(first, copied)),
        ("a turn appended", measured(first, append)),
        ("diagnosis of the last", measured(verdict)),
    ]
    size = sum(len(str(m["content"])) for m in state["body"]["messages"]) / 1024
    short()
    first()
    rows.append(("a turn appended to 100 messages", measured(first, append)))
    print(f"| {MESSAGES} messages, {size:.0f} KB | CPU ms |\n|---|---|")
    for name, milliseconds in rows:
        print(f"| {name} | {milliseconds:.2f} |")
    whole, grown = remembered(200)
    print("\n| remembered of a segment of one line | bytes |\n|---|---|")
    print(f"| of a conversation sent once | {whole:.0f} |\n| of one sent again with every turn | {grown:.0f} |")


if __name__ == "__main__":
    main()
