"""Gemini ``generateContent`` on the wire. Shapes follow the types of google-genai 3.4 and recorded answers.

Version, model, method and ``alt`` stand in the URL; the server puts ``model`` and ``stream`` into the body it hands on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_promptcache.emulator.contents import invalid
from otel_promptcache.emulator.exchange import Event, Exchange, ProviderError, pieces
from otel_promptcache.emulator.wire import _silent
from otel_promptcache.model import Prompt
from otel_promptcache.providers import Dialect
from otel_promptcache.providers import gemini as adapter
from otel_promptcache.providers._wire import as_list
from otel_promptcache.providers.rules import rules_for

dialect: Final[Dialect] = adapter
path: Final = "/{version}/models/{model}:generateContent"
stream_path: Final = "/{version}/models/{model}:streamGenerateContent"
count_path: Final = "/{version}/models/{model}:countTokens"
contents_path: Final = "/{version}/cachedContents"
end: Final = b""
max_body: Final = 20 * 2**20

_ANONYMOUS: Final = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
    "form of API consumer identity to call this API."
)


def credential(headers: Mapping[str, str]) -> str:
    key = headers.get("x-goog-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not key:
        raise ProviderError(403, "PERMISSION_DENIED", _ANONYMOUS)
    return key


# --- Requests -----------------------------------------------------------------------------------------------


def check(body: Mapping[str, Any], prompt: Prompt) -> None:
    if not prompt.model:
        raise invalid("* GenerateContentRequest.model: unexpected model name format")
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise invalid("* GenerateContentRequest.contents: contents is not specified")
    for number, content in enumerate(contents):
        parts = content.get("parts") if isinstance(content, dict) else None
        if not as_list(parts):
            raise invalid(f"* GenerateContentRequest.contents[{number}].parts: contents.parts must not be empty.")


def check_cache(model: str, tokens: int) -> None:
    """What holds for a cache resource: a model that has them, and enough in it."""
    minimum = rules_for(adapter.provider, model).explicit_minimum
    if not minimum:
        message = f"models/{model} is not found for API version v1beta, or is not supported for createCachedContent."
        raise ProviderError(404, "NOT_FOUND", message)
    if tokens < minimum:
        message = f"Cached content is too small. total_token_count={tokens}, min_total_token_count={minimum}"
        raise invalid(message)


def speechless(_body: Mapping[str, Any]) -> bool:
    return False


compared, verdict = _silent.compared, _silent.verdict


def answered(exchange: Exchange) -> Mapping[str, Any]:
    said = {"role": "model", "parts": _parts(exchange)}
    return {**exchange.body, "contents": [*as_list(exchange.body.get("contents")), said]}


# --- Responses ----------------------------------------------------------------------------------------------


def response_id(exchange: Exchange) -> str:
    return exchange.identity("")


def usage(exchange: Exchange) -> dict[str, Any]:
    """Cached tokens lie inside the prompt's; where nothing was read the fields are absent."""
    counts = exchange.accounting
    cached = {}
    if counts.read:
        cached = {"cachedContentTokenCount": counts.read, "cacheTokensDetails": _text_only(counts.read)}
    return {
        "promptTokenCount": counts.total,
        "candidatesTokenCount": exchange.output,
        "totalTokenCount": counts.total + exchange.output,
        **cached,
        "promptTokensDetails": _text_only(counts.total),
        "serviceTier": "standard",
    }


def _text_only(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": tokens}]


def _parts(exchange: Exchange) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"text": exchange.reply.text}] if exchange.reply.text else []
    for name, arguments in exchange.reply.tool_calls:
        said.append({"functionCall": {"name": name, "args": dict(arguments)}})
    return said


def _chunk(exchange: Exchange, parts: list[dict[str, Any]], finish_reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish_reason:
        candidate["finishReason"] = finish_reason
    return {
        "candidates": [candidate],
        "usageMetadata": usage(exchange),
        "modelVersion": exchange.prompt.model,
        "responseId": response_id(exchange),
    }


def _finish_reason(exchange: Exchange) -> str:
    return "MAX_TOKENS" if exchange.truncated else "STOP"


def document(exchange: Exchange) -> dict[str, Any]:
    return _chunk(exchange, _parts(exchange), _finish_reason(exchange))


def events(exchange: Exchange) -> Iterator[Event]:
    """Usage is in every chunk, the reason for the end in the last."""
    portions = [[{"text": piece}] for piece in pieces(exchange.reply.text)]
    portions += [[part] for part in _parts(exchange) if "functionCall" in part]
    portions = portions or [[]]
    for number, parts in enumerate(portions, 1):
        yield "", _chunk(exchange, parts, _finish_reason(exchange) if number == len(portions) else None)


# --- Errors -------------------------------------------------------------------------------------------------


def error(error: ProviderError, _request_id: str) -> dict[str, Any]:
    kind = error.kind if error.kind.isupper() else _KINDS.get(error.status, "INTERNAL")
    return {"error": {"code": error.status, "message": error.message, "status": kind}}


def error_event() -> Event:
    return "", error(outage(500), "")


_KINDS: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    529: "UNAVAILABLE",
}
_OUTAGES: Final[dict[int, str]] = {
    429: "Resource has been exhausted (e.g. check quota).",
    500: "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
    529: "The model is overloaded. Please try again later.",
}


def outage(status: int) -> ProviderError:
    """Google has no 529: an overload is a 503."""
    return ProviderError(503 if status == 529 else status, _KINDS[status], _OUTAGES[status])


def too_long(total: int, limit: int) -> ProviderError:
    return invalid(f"The input token count ({total}) exceeds the maximum number of tokens allowed ({limit}).")


def too_large() -> ProviderError:
    return invalid(f"Request payload size exceeds the limit: {max_body} bytes.")
