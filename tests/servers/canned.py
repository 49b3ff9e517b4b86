"""Answers without a network, for the SDKs of any version."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import anthropic


def http_library(sdk: str = "anthropic") -> Any:
    """The HTTP library that an SDK uses: older versions have httpx, newer ones its successor."""
    base = sys.modules[f"{sdk}._base_client"]
    return importlib.import_module(next(name for name in ("httpx2", "httpx") if hasattr(base, name)))


def transport(sdk: str, respond: Callable[[Any], Any]) -> Any:
    """A transport for an SDK's clients that has all answers from ``respond``, of whichever library they are."""
    http = http_library(sdk)

    class Body(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            yield from self._stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self._stream:
                yield piece

    def own(request: Any) -> Any:
        found = respond(request)
        if isinstance(found, http.Response):
            return found
        return http.Response(found.status_code, headers=found.headers.raw, stream=Body(found.stream))

    return http.MockTransport(own)


def always(usage: Mapping[str, Any], *, model: str, headers: Mapping[str, str] | None = None) -> anthropic.Anthropic:
    """Messages with this usage, by this model, under these headers."""
    http = http_library()
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    client = anthropic.DefaultHttpxClient(
        transport=http.MockTransport(lambda _: http.Response(200, headers=headers, json=body))
    )
    return anthropic.Anthropic(api_key="k", max_retries=0, http_client=client)
