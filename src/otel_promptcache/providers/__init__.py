"""Provider dialects: wire JSON to the neutral values of ``model``. Pure functions; no SDK, no OpenTelemetry.

A dialect is a module with the functions of ``Dialect``. To add one, write the module and name it in ``DIALECTS``:
those are observed. ``gemini`` is not yet; the emulator speaks it, and ``price`` reads its usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from otel_promptcache.model import Answer, Prompt, Segment, Usage
from otel_promptcache.providers import anthropic, openai_chat, openai_completions, openai_responses
from otel_promptcache.providers.endpoints import provider_at


class Dialect(Protocol):
    """What a dialect module offers."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str:
        """Provider to assume where the endpoint does not tell (``gen_ai.provider.name``)."""
        ...

    @property
    def operation(self) -> str:
        """``gen_ai.operation.name`` of its calls."""
        ...

    @property
    def credentials(self) -> tuple[str, ...]:
        """Request headers that may say whose account it is, the likeliest first."""
        ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """(header, field): request headers with a list that the body could have as this field."""
        ...

    def handles(self, path: str) -> bool:
        """Whether requests to this URL path speak the dialect."""
        ...

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        """The request as an ordered prompt."""
        ...

    def path(self, segment: Segment) -> str:
        """Where a segment stands in the request body, in wire terms."""
        ...

    def usage(self, raw: object) -> Usage | None:
        """Token classes of a usage object, None when there is none."""
        ...

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """A whole response body."""
        ...

    def event(self, document: Mapping[str, Any], state: dict[str, Any]) -> Answer | None:
        """One event of a streamed response; ``state`` belongs to the stream."""
        ...


DIALECTS: Final[tuple[Dialect, ...]] = (anthropic, openai_chat, openai_responses, openai_completions)
BY_NAME: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in DIALECTS}


def dialect_for(path: str) -> Dialect | None:
    """The dialect of a request path, None for requests that carry no prompt."""
    path = path.partition("?")[0].rstrip("/")
    for dialect in DIALECTS:
        if dialect.handles(path):
            return dialect
    return None


def provider_for(host: str, dialect: Dialect, port: int = 0, private: tuple[tuple[str, str], ...] = ()) -> str:
    """``gen_ai.provider.name``: who answers at this host, else who made the dialect."""
    return provider_at(host, port, private) or dialect.provider
