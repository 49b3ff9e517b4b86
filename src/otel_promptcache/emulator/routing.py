"""Which machine a request lands on. A cache lives on one machine; requests beyond its rate go to the next.

Requests are routed by the beginning of the prompt and the cache key; from about 15 a minute on they overflow
(developers.openai.com/api/docs/guides/prompt-caching, 2026-09-23). Real overflow is a matter of chance, this one is
not: the requests of any 60 seconds fill one machine after the other.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from typing import Final

from otel_promptcache.emulator.tokens import Tokenizer, piece
from otel_promptcache.model import Prompt, Scope

BEGINNING: Final = 256
"""Tokens of a prompt that a request is routed by."""

MINUTE: Final = 60.0
MAX_ROUTES: Final = 10_000


class Routes:
    """The requests of the last minute, by what they are routed by. Not thread-safe."""

    def __init__(self) -> None:
        self._recent: OrderedDict[bytes, deque[float]] = OrderedDict()

    def machine(self, prompt: Prompt, scope: Scope, rate: int, now: float, tokenizer: Tokenizer) -> int:
        """The number of the machine for a request that starts now, 0 for the first; notes the request."""
        key = _route(prompt, scope, tokenizer)
        recent = self._recent.setdefault(key, deque())
        self._recent.move_to_end(key)
        while recent and recent[0] <= now - MINUTE:
            recent.popleft()
        number = len(recent) // rate
        recent.append(now)
        if len(self._recent) > MAX_ROUTES:
            self._recent.popitem(last=False)
        return number


def _route(prompt: Prompt, scope: Scope, tokenizer: Tokenizer) -> bytes:
    state = hashlib.blake2b(repr(scope).encode("utf-8", "backslashreplace"), digest_size=16)
    tokens = 0
    for segment in prompt.segments:
        one = piece(segment, tokenizer)
        # Four characters a token, more or less: routing need not be exact.
        state.update(one.text[: 4 * (BEGINNING - tokens)].encode("utf-8", "surrogatepass") + b"\xff")
        tokens += one.tokens
        if tokens >= BEGINNING:
            break
    return state.digest()
