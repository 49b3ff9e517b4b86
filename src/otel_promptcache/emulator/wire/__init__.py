"""Response formats: what a provider puts on the wire for a request, as JSON and as server-sent events.

A format is a module with the functions of ``Wire``, named in ``FORMATS``. It stands opposite the module of the same
dialect in ``providers``, which reads requests and which the client's side reads responses with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.diagnostics import Difference
from otel_promptcache.emulator.exchange import Event, Exchange, ProviderError, Turn
from otel_promptcache.emulator.wire import anthropic, gemini, openai_chat, openai_responses
from otel_promptcache.model import Prompt
from otel_promptcache.providers import Dialect


class Wire(Protocol):
    """What a format offers."""

    @property
    def dialect(self) -> Dialect:
        """The adapter that turns its requests into prompts."""
        ...

    @property
    def path(self) -> str:
        """URL path of the endpoint."""
        ...

    @property
    def end(self) -> bytes:
        """What closes a stream after its last event."""
        ...

    @property
    def max_body(self) -> int:
        """Bytes that a request may have."""
        ...

    def credential(self, headers: Mapping[str, str], /) -> str:
        """The API key of a request; raises ``ProviderError`` without one."""
        ...

    def check(self, body: Mapping[str, Any], prompt: Prompt, /) -> None:
        """Raises ``ProviderError`` for what the provider would refuse."""
        ...

    def response_id(self, exchange: Exchange, /) -> str:
        """The id of the response."""
        ...

    def speechless(self, body: Mapping[str, Any], /) -> bool:
        """Whether the request only fills the cache and wants no output."""
        ...

    def compared(self, body: Mapping[str, Any], /) -> str:
        """The id of the response that the request wants to be compared with, empty for none."""
        ...

    def verdict(
        self, body: Mapping[str, Any], prompt: Prompt, counts: Accounting, difference: Difference | None, /
    ) -> Mapping[str, Any] | None:
        """The provider's own diagnosis, where the request asks for one and there is something to say."""
        ...

    def answered(self, exchange: Exchange, /) -> Mapping[str, Any]:
        """The request with the answer put behind it, as the next turn would send it."""
        ...

    def document(self, exchange: Exchange, /) -> dict[str, Any]:
        """The response as one JSON object."""
        ...

    def events(self, exchange: Exchange, /) -> Iterator[Event]:
        """The response as a stream."""
        ...

    def error(self, error: ProviderError, request_id: str, /) -> dict[str, Any]:
        """The JSON body of an error."""
        ...

    def error_event(self) -> Event:
        """An error in the middle of a stream."""
        ...

    def outage(self, status: int, /) -> ProviderError:
        """The provider's own 429, 500 or 529."""
        ...

    def too_long(self, total: int, limit: int, /) -> ProviderError:
        """A prompt of more tokens than the context window has."""
        ...

    def too_large(self) -> ProviderError:
        """A request of more than ``max_body`` bytes."""
        ...


class Holder(Protocol):
    """What a format offers beside ``Wire`` when its server holds conversations."""

    def previous(self, body: Mapping[str, Any], /) -> str:
        """The id of the response that a request continues from, empty when it stands alone."""
        ...

    def lost(self, previous: str, /) -> ProviderError:
        """The answer when no such response is held."""
        ...

    def resumed(
        self, body: Mapping[str, Any], items: Sequence[Any], settings: Mapping[str, Any], /
    ) -> Mapping[str, Any]:
        """The request with the conversation the server holds put in front of it."""
        ...

    def turn(self, exchange: Exchange, /) -> Turn | None:
        """What the server holds after this response, None when the request does not ask for it."""
        ...


FORMATS: Final[tuple[Wire, ...]] = (anthropic, openai_chat, openai_responses, gemini)
BY_DIALECT: Final[dict[str, Wire]] = {wire.dialect.name: wire for wire in FORMATS}
HOLDERS: Final[dict[str, Holder]] = {
    anthropic.dialect.name: anthropic,
    openai_responses.dialect.name: openai_responses,
}
"""Formats with server-held conversations, by the name of their dialect."""
