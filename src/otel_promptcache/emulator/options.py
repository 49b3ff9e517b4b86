"""What an emulator can be given. Everything but the functions can be said in words, as on a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypedDict

from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.reply import Answer
from otel_promptcache.emulator.tokens import Tokenizer, characters, quarter_bytes, words

Latency = Callable[[int, int], float]
"""(input tokens not read from cache, output tokens) to seconds before the first byte."""


class Options(TypedDict, total=False):
    """What an emulator can be given."""

    answer: Answer
    """The stand-in model."""
    tokenizer: Tokenizer
    clock: Clock
    latency: Latency
    seed: str
    """What response ids, and chance, are made from."""
    retry_after: float
    """Seconds that a 429 asks the client to wait."""
    stall: float
    """Seconds of the faults ``stall`` and ``slow_headers``."""
    personality: str
    """Who answers on the OpenAI paths that name nobody."""
    workspaces: Mapping[str, str]
    """API keys that share a cache, each with the name of their workspace. A key that is not named is alone."""
    machine_rate: int
    """Requests a minute with one prefix that stay on one machine where the provider overflows at all; 0: all stay."""
    cold: float
    """Share of requests that land on a cold machine, drawn from the seed: 0 never, 1 always."""
    capacity: int
    """Room of a self-hosted engine in tokens, 0 for no limit."""
    slots: int
    """Slots of llama.cpp."""
    block: int
    """Tokens of a vLLM block."""
    context_window: int
    """Tokens that a prompt may have, 0 for no limit."""
    batch_seconds: float
    """Seconds that a message batch is said to be in progress."""


TOKENIZERS: Final[dict[str, Tokenizer]] = {"bytes": quarter_bytes, "characters": characters, "words": words}
"""By name, for a command line."""


def no_latency(uncached: int, output: int) -> float:  # noqa: ARG001 - the signature of a latency
    """Answers at once."""
    return 0.0


def linear(base: float = 0.0, *, uncached: float = 0.0, output: float = 0.0) -> Latency:
    """A latency of ``base`` seconds, and so many for each token that is not read and for each that is said."""
    if min(base, uncached, output) < 0:
        raise ValueError("a latency is made of seconds >= 0")
    return lambda fresh, said: base + uncached * fresh + output * said
