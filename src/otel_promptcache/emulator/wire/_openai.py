"""What both OpenAI formats share: keys, errors, cache classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.model import Prompt
from otel_promptcache.providers import _openai as adapter
from otel_promptcache.providers._wire import as_list, mapping
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


MAX_BODY: Final = 50 * 2**20
"""Bytes of a request, as for files in one; the page names no other limit."""

MAX_STRING: Final = 10 * 2**20
MAX_CACHE_KEY: Final = 64
_MODES: Final = ("implicit", "explicit")


def check_caching(body: Mapping[str, Any], prompt: Prompt, lifetimes: tuple[str, ...]) -> None:
    """The options of caching: who may use them, and their values. ``lifetimes`` are those of the endpoint.

    Types of openai 3.54: the options and breakpoints from GPT-5.6 on, and of the older retention only ``24h`` from
    GPT-5.5 on.
    """
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and len(key) > MAX_CACHE_KEY:
        raise too_long_string("prompt_cache_key", MAX_CACHE_KEY, len(key))
    rules = rules_for(adapter.provider, prompt.model)
    options = body.get("prompt_cache_options")
    if options is not None and rules.known:
        if not rules.implicit_mark:
            message = "Unsupported parameter: 'prompt_cache_options' is not supported with this model."
            raise invalid(message, "prompt_cache_options", "unsupported_parameter")
        check_one_of(adapter.options(body), "prompt_cache_options.", "mode", _MODES)
        check_one_of(adapter.options(body), "prompt_cache_options.", "ttl", lifetimes)
    if rules.known and not rules.implicit_mark and any(mark.explicit for mark in prompt.breakpoints):
        message = "Unsupported parameter: 'prompt_cache_breakpoint' is not supported with this model."
        raise invalid(message, "prompt_cache_breakpoint", "unsupported_parameter")
    only_long = rules.implicit_mark or rules.granule > OLDER_GRANULE
    check_one_of(body, "", "prompt_cache_retention", ("24h",) if only_long else ("in_memory", "24h"))


OLDER_GRANULE: Final = 128


def check_one_of(fields: Mapping[str, Any], place: str, name: str, allowed: tuple[str, ...]) -> None:
    value = fields.get(name)
    if value is not None and value not in allowed:
        supported = " and ".join(f"'{one}'" for one in allowed)
        message = f"Invalid value: '{value}'. Supported values are: {supported}."
        raise invalid(message, f"{place}{name}", "invalid_value")


def check_strings(field: str, items: object) -> None:
    """No text of a message may be longer than ``MAX_STRING`` characters."""
    texts: list[tuple[str, object]] = [(field, items)]
    if not isinstance(items, str):
        texts = [(f"{field}[{n}].content", mapping(item).get("content")) for n, item in enumerate(as_list(items))]
    for place, text in texts:
        if isinstance(text, str) and len(text) > MAX_STRING:
            raise too_long_string(place, MAX_STRING, len(text))


def too_long_string(place: str, most: int, length: int) -> ProviderError:
    message = f"Invalid '{place}': string too long. Expected a string with maximum length {most}, "
    return invalid(f"{message}but got a string with length {length} instead.", place, "string_above_max_length")


def too_long(total: int, limit: int) -> ProviderError:
    message = f"This model's maximum context length is {limit} tokens. However, your messages resulted in {total} "
    return invalid(f"{message}tokens. Please reduce the length of the messages.", "messages", "context_length_exceeded")


def too_large() -> ProviderError:
    return ProviderError(413, "invalid_request_error", f"Request body is larger than {MAX_BODY} bytes.")


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
