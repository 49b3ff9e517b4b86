"""The emulator over HTTP: routes, errors in the provider's shape, streams."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_promptcache.emulator import doors, faults, resources
from otel_promptcache.emulator.engine import Call, Emulator, Received
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.emulator.faults import Fault
from otel_promptcache.emulator.personality import ROWS, Personality, spoken_by
from otel_promptcache.emulator.wire import BY_DIALECT, FORMATS, Wire, anthropic, gemini, openai_chat
from otel_promptcache.providers._wire import string

log = logging.getLogger(__name__)

_REFUSED: Final = "req_refused"
"""Request id of every request that got no response id."""

_SSE: Final = "text/event-stream; charset=utf-8"

Handler = Callable[[Request], Awaitable[Response]]


def application(emulator: Emulator) -> Starlette:
    """The Starlette application of an emulator, to be served anywhere; ``app.state.emulator`` leads back to it."""
    routes = [Route(wire.path, _endpoint(emulator, wire, _answer), methods=["POST"]) for wire in FORMATS]
    routes += [
        Route(anthropic.path + "/count_tokens", _endpoint(emulator, anthropic, _count), methods=["POST"]),
        Route(gemini.stream_path, _endpoint(emulator, gemini, _answer), methods=["POST"]),
        Route(gemini.count_path, _endpoint(emulator, gemini, resources.count), methods=["POST"]),
        *(
            Route(one.path, _endpoint(emulator, one.wire, one.work, body_limit=one.max_body), methods=[one.method])
            for one in resources.ENDPOINTS
        ),
        *(route for who in ROWS for route in _of_personality(emulator, who)),
        *doors.ROUTES,
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_endpoint})
    app.state.emulator = emulator
    return app


def _of_personality(emulator: Emulator, who: Personality) -> list[Route]:
    """The paths below a personality's name, with and without ``/v1``: base URLs have it or do not."""
    wires = [BY_DIALECT[name] for name in who.dialects if name != gemini.dialect.name]
    return [
        Route(f"/{who.name}{path}", _endpoint(emulator, wire, _answer, who), methods=["POST"])
        for wire in wires
        for path in (wire.path, wire.path.removeprefix("/v1"))
    ]


# --- The provider's endpoints -------------------------------------------------------------------------------


def _endpoint(
    emulator: Emulator,
    wire: Wire,
    work: resources.Work,
    who: Personality | None = None,
    body_limit: int = 0,
) -> Handler:
    """An endpoint that does ``work`` on a request that has a key, a JSON object and no outage in its way."""
    names_resource = work not in (_answer, _count)

    async def handle(request: Request) -> Response:
        headers = dict(request.headers)
        if "key" in request.query_params:
            headers.setdefault("x-goog-api-key", request.query_params["key"])
        note = emulator.received(request.url.path, headers)
        try:
            key = _key(wire, headers, who or emulator.personality)
            raw = await _body(request, body_limit or wire.max_body, wire)
            # What names a resource needs no body; every other request is nothing without.
            note.body = body = {} if not raw and names_resource else _parsed(raw)
            if "model" in request.path_params:
                body["model"] = request.path_params["model"]
                body["stream"] = request.url.path.endswith(":streamGenerateContent")
            note.model = string(body.get("model"))
            note.fault = _fault(emulator, wire, note) or ""
            response = await work(resources.Asked(emulator, wire, request, body, key, note, who))
        except ProviderError as error:
            note.error = error.message
            response = _error(wire, error, emulator.retry_after)
            if error.status == 429:
                response.headers.update(emulator.limits.headers(*_whose(emulator, wire, who, key, note)))
        except Exception as error:
            # Most likely in the application's own answer or latency: it should see where. What the exception says
            # may be what the prompt says, and is told to nobody.
            note.error = type(error).__name__
            places = "".join(traceback.format_tb(error.__traceback__))
            log.error("The emulator could not answer %s: %s\n%s", wire.path, note.error, places)  # noqa: TRY400
            response = _error(wire, ProviderError(500, "api_error", f"The emulator failed: {note.error}"), 0)
        note.status = response.status_code
        emulator.handled(note)
        return response

    return handle


def _whose(emulator: Emulator, wire: Wire, who: Personality | None, key: str, note: Received) -> tuple[str, str, str]:
    """Whose rate limits hold for a request: those of a provider, a key or workspace, and a model."""
    provider = who or spoken_by(emulator.personality, wire.dialect.name)
    return provider.name, emulator.owner(key, note.headers), note.model


def _key(wire: Wire, headers: dict[str, str], who: Personality) -> str:
    """The API key. Engines that people run themselves take requests without."""
    try:
        return wire.credential(headers)
    except ProviderError:
        if who.needs_key or wire.dialect.name not in who.dialects:
            raise
        return ""


async def _body(request: Request, limit: int, wire: Wire) -> bytes:
    """The body, read no farther than the provider would."""
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise wire.too_large()
    return b"".join(parts)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise _invalid("The request body is not valid JSON: expected an object")
    return body


def _invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message)


def _fault(emulator: Emulator, wire: Wire, note: Received) -> Fault | None:
    """The fault that this request is to meet; raises at once where that is an outage."""
    try:
        fault = faults.requested(note.headers, str(note.body.get("model"))) or emulator.next_fault()
    except ValueError as error:
        raise _invalid(str(error)) from None
    if fault in faults.OUTAGES:
        note.fault = fault
        raise wire.outage(int(fault))
    return fault


async def _count(asked: resources.Asked) -> Response:
    prompt = asked.emulator.read(asked.wire, asked.body, asked.owner)
    anthropic.check_prompt(asked.body, prompt)
    return JSONResponse({"input_tokens": asked.emulator.count(prompt)})


async def _answer(asked: resources.Asked) -> Response:
    emulator, note = asked.emulator, asked.note
    fault = Fault(note.fault) if note.fault else None
    if fault in faults.PAGES:
        return Response(faults.PAGE, faults.PAGES[fault], media_type="text/html")
    if emulator.limits.exhausted(*_whose(emulator, asked.wire, asked.who, asked.key, note)):
        raise asked.wire.outage(429)
    call = emulator.open(asked.wire, asked.body, asked.key, note, asked.who)
    try:
        await asyncio.sleep(emulator.delay(call) + (emulator.stall if fault is Fault.SLOW_HEADERS else 0))
    except BaseException:
        emulator.abandon(call)
        raise
    emulator.begin(call)
    exchange = call.exchange
    whose = exchange.personality.name, call.owner, exchange.prompt.model
    emulator.limits.take(*whose, exchange.accounting, exchange.output)
    headers = _request_id(exchange.identity("req_")) | dict(emulator.limits.headers(*whose))
    if fault is Fault.GZIP:
        headers["content-encoding"] = "gzip"
    if call.exchange.prompt.stream and not _wants_array(asked):
        return StreamingResponse(_stream(emulator, call, fault), media_type=_SSE, headers=headers)
    if fault is Fault.STALL:
        await asyncio.sleep(emulator.stall)
    return Response(_document(call, fault), media_type="application/json", headers=headers)


def _wants_array(asked: resources.Asked) -> bool:
    """Gemini streams a JSON array unless it is asked for server-sent events."""
    return asked.wire.dialect is gemini.dialect and asked.request.query_params.get("alt") != "sse"


def _document(call: Call, fault: Fault | None) -> bytes:
    wire, exchange = call.wire, call.exchange
    document: Any
    if fault is Fault.ERROR_EVENT:
        document = wire.error(wire.outage(500), exchange.identity("req_"))
    elif exchange.prompt.stream:
        document = [faults.on_document(fault, data) for _, data in wire.events(exchange)]
    else:
        document = faults.on_document(fault, wire.document(exchange))
    return faults.on_body(fault, json.dumps(document).encode())


async def _stream(emulator: Emulator, call: Call, fault: Fault | None) -> AsyncIterator[bytes]:
    wire = call.wire
    frames = [_frame(name, faults.on_document(fault, data)) for name, data in wire.events(call.exchange)]
    if wire.end:
        frames.append(wire.end)
    frames = faults.on_stream(fault, frames, _frame(*wire.error_event()))
    for index, frame in enumerate(frames):
        if fault is Fault.STALL and index == len(frames) // 2:
            await asyncio.sleep(emulator.stall)
        yield frame


def _frame(name: str, data: dict[str, Any]) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _error(wire: Wire, error: ProviderError, retry_after: float) -> Response:
    headers = _request_id(_REFUSED)
    if error.status == 429:
        headers["retry-after"] = f"{retry_after:g}"
    # Escaped, for a message may quote half of a surrogate pair, which no UTF-8 can carry.
    body = json.dumps(wire.error(error, _REFUSED))
    return Response(body, error.status, headers, media_type="application/json")


def _request_id(identity: str) -> dict[str, str]:
    """The header by which support finds a request, in either provider's spelling."""
    return {"request-id": identity, "x-request-id": identity}


async def _no_such_endpoint(request: Request, failure: Exception) -> Response:
    """Unknown paths and methods, in the shape of whoever the client seems to speak to."""
    status = failure.status_code if isinstance(failure, HTTPException) else 404
    if "anthropic-version" in request.headers or "x-api-key" in request.headers:
        return _error(anthropic, ProviderError(status, "not_found_error", f"Not found: {request.url.path}"), 0)
    if "x-goog-api-key" in request.headers:
        return _error(gemini, ProviderError(status, "NOT_FOUND", f"Not found: {request.url.path}"), 0)
    message = f"Invalid URL ({request.method} {request.url.path})"
    return _error(openai_chat, ProviderError(status, "invalid_request_error", message), 0)
