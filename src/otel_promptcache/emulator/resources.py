"""Endpoints beside the answers: Anthropic's message batches, Gemini's cache resources and token counts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.responses import JSONResponse, Response

from otel_promptcache.emulator import batches
from otel_promptcache.emulator.batches import Batch
from otel_promptcache.emulator.engine import Emulator, Received
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.emulator.personality import Personality
from otel_promptcache.emulator.wire import Wire, anthropic, gemini
from otel_promptcache.providers._wire import mapping

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as every endpoint gets it."""

    emulator: Emulator
    wire: Wire
    request: Request
    body: dict[str, Any]
    key: str
    note: Received
    who: Personality | None

    @property
    def owner(self) -> str:
        return self.emulator.owner(self.key, self.note.headers)

    @property
    def now(self) -> float:
        return self.note.at


Work = Callable[[Asked], Awaitable[Response]]


class Endpoint(NamedTuple):
    """A path with what is done there."""

    method: str
    path: str
    wire: Wire
    work: Work
    max_body: int = 0


# --- Message batches ----------------------------------------------------------------------------------------


async def _create_batch(asked: Asked) -> Response:
    identity = f"msgbatch_01{asked.emulator.serial()}"
    parsed = batches.requests(asked.body)
    results = [{"custom_id": custom_id, "result": _result(asked, params)} for custom_id, params in parsed]
    batch = Batch(identity, asked.owner, results, asked.now, asked.now + asked.emulator.batch_seconds)
    asked.emulator.batches.keep(batch)
    # Nothing has been worked off yet, as far as the client is told.
    return JSONResponse(batch.document(_url(asked), asked.now - 1 if batch.ended(asked.now) else asked.now))


def _result(asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the results. Requests of a batch share the cache with each other and with everybody else's."""
    note = asked.emulator.received(asked.note.path, asked.note.headers)
    note.body = params
    try:
        if params.get("stream"):
            raise anthropic.invalid("stream: not supported in a batch")
        if anthropic.speechless(params):
            raise anthropic.invalid("max_tokens: 0 is not supported in a batch")
        call = asked.emulator.open(anthropic, params, asked.key, note, tier="batch")
    except ProviderError as error:
        note.error, note.status = error.message, error.status
        return {"type": "errored", "error": anthropic.error(error, "req_refused")}
    asked.emulator.begin(call)
    note.status = 200
    return {"type": "succeeded", "message": anthropic.document(call.exchange)}


def _batch(asked: Asked) -> Batch:
    return asked.emulator.batches.find(asked.request.path_params["batch"], asked.owner)


async def _retrieve_batch(asked: Asked) -> Response:
    return JSONResponse(_batch(asked).document(_url(asked), asked.now))


async def _list_batches(asked: Asked) -> Response:
    found = [one.document(_url(asked), asked.now) for one in asked.emulator.batches.of(asked.owner)]
    page = found[: _size(asked, "limit", 20)]
    edges = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return JSONResponse({"data": page, "has_more": len(page) < len(found), **edges})


async def _cancel_batch(asked: Asked) -> Response:
    batch = _batch(asked)
    asked.emulator.batches.cancel(batch, asked.now)
    return JSONResponse(batch.document(_url(asked), asked.now))


async def _delete_batch(asked: Asked) -> Response:
    batch = _batch(asked)
    asked.emulator.batches.delete(batch, asked.now)
    return JSONResponse({"id": batch.identity, "type": "message_batch_deleted"})


async def _results(asked: Asked) -> Response:
    batch = _batch(asked)
    if not batch.ended(asked.now):
        raise ProviderError(404, "not_found_error", f"Message batch {batch.identity} has no available results.")
    lines = "".join(json.dumps(line) + "\n" for line in batch.lines())
    return Response(lines, media_type="application/x-jsonl")


def _url(asked: Asked) -> str:
    return str(asked.request.base_url).rstrip("/")


def _size(asked: Asked, name: str, default: int) -> int:
    given = asked.request.query_params.get(name, "")
    return min(MAX_PAGE, int(given)) if given.isdecimal() and int(given) else default


# --- Cache resources ----------------------------------------------------------------------------------------


async def _create_content(asked: Asked) -> Response:
    body = asked.body
    prompt = gemini.dialect.prompt({**body, "cachedContent": None})
    tokens = asked.emulator.count(prompt)
    gemini.check_cache(prompt.model, tokens)
    size = (tokens, len(prompt.segments))
    content = asked.emulator.contents.create(asked.owner, body, size, asked.emulator.serial(), asked.now)
    return JSONResponse(content.document())


async def _get_content(asked: Asked) -> Response:
    return JSONResponse(_content(asked).document())


async def _list_contents(asked: Asked) -> Response:
    found = asked.emulator.contents.of(asked.owner, asked.now)
    token = asked.request.query_params.get("pageToken", "")
    start = int(token) if token.isdecimal() else 0
    end = start + _size(asked, "pageSize", 100)
    more = {"nextPageToken": str(end)} if end < len(found) else {}
    return JSONResponse({"cachedContents": [one.document() for one in found[start:end]], **more})


async def _update_content(asked: Asked) -> Response:
    content = _content(asked)
    asked.emulator.contents.update(content, asked.body, asked.now)
    return JSONResponse(content.document())


async def _delete_content(asked: Asked) -> Response:
    _content(asked).deleted = asked.now
    return JSONResponse({})


def _content(asked: Asked) -> Any:
    name = f"cachedContents/{asked.request.path_params['content']}"
    return asked.emulator.contents.living(name, asked.owner, asked.now)


async def count(asked: Asked) -> Response:
    """Gemini's token count: of contents alone, or of a whole request."""
    inner = mapping(asked.body.get("generateContentRequest"))
    body = {**inner, "model": asked.body["model"]} if inner else asked.body
    prompt = asked.emulator.read(gemini, body, asked.owner)
    gemini.check(body, prompt)
    total = asked.emulator.count(prompt)
    return JSONResponse({"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]})


_BATCHES: Final = anthropic.path + "/batches"
_BATCH: Final = _BATCHES + "/{batch}"
_CONTENT: Final = gemini.contents_path + "/{content}"
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint("POST", _BATCHES, anthropic, _create_batch, anthropic.max_batch),
    Endpoint("GET", _BATCHES, anthropic, _list_batches),
    Endpoint("GET", _BATCH, anthropic, _retrieve_batch),
    Endpoint("DELETE", _BATCH, anthropic, _delete_batch),
    Endpoint("POST", _BATCH + "/cancel", anthropic, _cancel_batch),
    Endpoint("GET", _BATCH + "/results", anthropic, _results),
    Endpoint("POST", gemini.contents_path, gemini, _create_content),
    Endpoint("GET", gemini.contents_path, gemini, _list_contents),
    Endpoint("GET", _CONTENT, gemini, _get_content),
    Endpoint("PATCH", _CONTENT, gemini, _update_content),
    Endpoint("DELETE", _CONTENT, gemini, _delete_content),
)
