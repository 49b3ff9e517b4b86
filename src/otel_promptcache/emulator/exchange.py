"""One request and its answer, as the wire formats need them; errors as the providers give them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.personality import Personality
from otel_promptcache.emulator.reply import Reply
from otel_promptcache.model import Prompt

Event = tuple[str, dict[str, Any]]
"""Name and data of one server-sent event; the name is empty where the format has none."""

_PIECE: Final = re.compile(r"(?:\S+\s*|\s+){1,3}")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything a response is written from."""

    body: Mapping[str, Any]
    prompt: Prompt
    accounting: Accounting
    reply: Reply
    output: int
    """Tokens of the reply."""
    truncated: bool
    """The reply was cut at the request's token limit."""
    created: float
    """Seconds since the epoch."""
    serial: str
    """Hexadecimal digits that all ids of this response are made of."""
    personality: Personality
    diagnostics: Mapping[str, Any] | None = None
    """The provider's own verdict on the cache, where the request asks for one and there is something to say."""
    tier: str = "standard"
    """``batch`` for a request out of a batch."""

    def identity(self, prefix: str, number: int = 0) -> str:
        """An id of this response or of one of its parts: unique, and equal in every run with the same seed."""
        return f"{prefix}{self.serial}{number:02x}" if number else f"{prefix}{self.serial}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What the server holds of one response, for later requests that continue from it."""

    items: Sequence[Any]
    """Input and output of the turn, in wire form."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Request fields that stay in force for the whole conversation."""


@dataclass(eq=False)
class ProviderError(Exception):
    """A request that a provider would refuse. Each wire format words it in its own shape."""

    status: int
    kind: str
    """The provider's error type."""
    message: str
    param: str | None = None
    code: str | None = None
    details: Mapping[str, Any] | None = None


def pieces(text: str) -> Iterator[str]:
    """A text in the portions it is streamed in, three words each."""
    return iter(_PIECE.findall(text))
