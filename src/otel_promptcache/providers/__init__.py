"""Provider dialects: wire JSON to the neutral values of ``model``. Pure functions; no SDK, no OpenTelemetry.

A dialect is a module with the functions of ``Dialect``. To add one, write the module and name it in ``DIALECTS``:
those are observed. ``gemini`` is not yet; the emulator speaks it, and ``price`` reads its usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from otel_promptcache.model import Answer, Prompt, Segment, Usage
from otel_promptcache.providers import anthropic, openai_chat, openai_responses


class Dialect(Protocol):
    """What a dialect module offers."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str:
        """Provider to assume where the endpoint does not tell (``gen_ai.provider.name``)."""
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


DIALECTS: Final[tuple[Dialect, ...]] = (anthropic, openai_chat, openai_responses)
BY_NAME: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in DIALECTS}

_HOSTS: Final[tuple[tuple[str, str], ...]] = (
    # Values of gen_ai.provider.name by the end of the endpoint's host name.
    ("api.anthropic.com", "anthropic"),
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "x_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("openrouter.ai", "openrouter"),
    (".amazonaws.com", "aws.bedrock"),
    ("-aiplatform.googleapis.com", "gcp.vertex_ai"),
)


def dialect_for(path: str) -> Dialect | None:
    """The dialect of a request path, None for requests that carry no prompt."""
    path = path.partition("?")[0].rstrip("/")
    for dialect in DIALECTS:
        if dialect.handles(path):
            return dialect
    return None


@lru_cache(maxsize=512)
def _provider_at(host: str) -> str | None:
    return next((provider for suffix, provider in _HOSTS if host.endswith(suffix)), None)


def provider_for(host: str, dialect: Dialect) -> str:
    """``gen_ai.provider.name``: who answers at this host, else who made the dialect."""
    return _provider_at(host) or dialect.provider
