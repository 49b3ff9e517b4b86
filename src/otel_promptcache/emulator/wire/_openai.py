"""What both OpenAI formats share: keys, errors, cache classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.model import Prompt
from otel_promptcache.providers import _openai as adapter
from otel_promptcache.providers.rules import rules_for

_OUTAGES: Final[dict[int, tuple[str, str | None, str]]] = {
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    529: (
        "server_error",
        "server_is_overloaded",
        "Our servers are currently overloaded. Please try again later.",
    ),
}


def credential(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        raise ProviderError(401, "invalid_request_error", message)
    return key.strip()


def invalid(message: str, param: str | None = None, code: str | None = None) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, param, code)


def require(body: Mapping[str, Any], name: str) -> None:
    if body.get(name) is None:
        raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def require_model(body: Mapping[str, Any]) -> None:
    if not body.get("model"):
        raise invalid("you must provide a model parameter")


def speechless(body: Mapping[str, Any]) -> bool:
    return adapter.options(body).get("prewarm") is True


def reports_writes(prompt: Prompt) -> bool:
    """Whether the model has cache breakpoints, reports writes and charges for them: GPT-5.6 and later."""
    return rules_for(adapter.provider, prompt.model).implicit_mark


def error(error: ProviderError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def outage(status: int) -> ProviderError:
    kind, code, message = _OUTAGES[status]
    return ProviderError(status, kind, message, code=code)
