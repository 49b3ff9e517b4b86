"""A client whose every request has the same answer, without a network."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import anthropic


def http_library() -> Any:
    """The HTTP library that the SDKs use: older versions have httpx, newer ones its successor."""
    base = sys.modules["anthropic._base_client"]
    return importlib.import_module(next(name for name in ("httpx2", "httpx") if hasattr(base, name)))


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
    transport = http.MockTransport(lambda _: http.Response(200, headers=headers, json=body))
    return anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=anthropic.DefaultHttpxClient(transport=transport)
    )
