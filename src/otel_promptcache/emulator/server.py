"""The emulator over HTTP: routes, errors in the provider's shape, streams, and the doors for demos and tests."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_promptcache.emulator import faults
from otel_promptcache.emulator.engine import Call, Emulator, Received
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.emulator.faults import Fault
from otel_promptcache.emulator.wire import FORMATS, Wire, anthropic, openai_chat

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
        Route("/_emulator/state", _state, methods=["GET"]),
        Route("/_emulator/clock", _clock, methods=["POST"]),
        Route("/_emulator/reset", _reset, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_endpoint})
    app.state.emulator = emulator
    return app


# --- The provider's endpoints -------------------------------------------------------------------------------

Work = Callable[[Emulator, Wire, dict[str, Any], str, Received], Awaitable[Response]]


def _endpoint(emulator: Emulator, wire: Wire, work: Work) -> Handler:
    """An endpoint that does ``work`` on a request that has a key, a JSON object and no outage in its way."""

    async def handle(request: Request) -> Response:
        note = emulator.received(request.url.path, dict(request.headers))
        try:
            key = wire.credential(request.headers)
            note.body = body = _parsed(await request.body())
            note.fault = _fault(wire, note) or ""
            response = await work(emulator, wire, body, key, note)
        except ProviderError as error:
            note.error = error.message
            response = _error(wire, error, emulator.retry_after)
        except Exception as error:
            # Most likely in the application's own answer or latency: it should see where.
            log.exception("The emulator could not answer %s", wire.path)
            note.error = repr(error)
            response = _error(wire, ProviderError(500, "api_error", f"The emulator failed: {error!r}"), 0)
        note.status = response.status_code
        return response

    return handle


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


def _fault(wire: Wire, note: Received) -> Fault | None:
    """The fault that this request is to meet; raises at once where that is an outage."""
    try:
        fault = faults.requested(note.headers, str(note.body.get("model")))
    except ValueError as error:
        raise _invalid(str(error)) from None
    if fault in faults.OUTAGES:
        note.fault = fault
        raise wire.outage(int(fault))
    return fault


async def _count(emulator: Emulator, wire: Wire, body: dict[str, Any], key: str, _note: Received) -> Response:
    prompt = emulator.read(wire, body, key)
    anthropic.check_prompt(body, prompt)
    return JSONResponse({"input_tokens": emulator.count(prompt)})


async def _answer(emulator: Emulator, wire: Wire, body: dict[str, Any], key: str, note: Received) -> Response:
    fault = Fault(note.fault) if note.fault else None
    if fault in faults.PAGES:
        return Response(faults.PAGE, faults.PAGES[fault], media_type="text/html")
    call = emulator.open(wire, body, key, note)
    try:
        await asyncio.sleep(emulator.delay(call))
    except BaseException:
        emulator.abandon(call)
        raise
    emulator.begin(call)
    headers = _request_id(call.exchange.identity("req_"))
    if fault is Fault.GZIP:
        headers["content-encoding"] = "gzip"
    if call.exchange.prompt.stream:
        return StreamingResponse(_stream(emulator, call, fault), media_type=_SSE, headers=headers)
    if fault is Fault.STALL:
        await asyncio.sleep(emulator.stall)
    return Response(_document(call, fault), media_type="application/json", headers=headers)


def _document(call: Call, fault: Fault | None) -> bytes:
    wire, exchange = call.wire, call.exchange
    if fault is Fault.ERROR_EVENT:
        document = wire.error(wire.outage(500), exchange.identity("req_"))
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
    return JSONResponse(wire.error(error, _REFUSED), error.status, headers)


def _request_id(identity: str) -> dict[str, str]:
    """The header by which support finds a request, in either provider's spelling."""
    return {"request-id": identity, "x-request-id": identity}


async def _no_such_endpoint(request: Request, failure: Exception) -> Response:
    """Unknown paths and methods, in the shape of whoever the client seems to speak to."""
    status = failure.status_code if isinstance(failure, HTTPException) else 404
    if "anthropic-version" in request.headers or "x-api-key" in request.headers:
        return _error(anthropic, ProviderError(status, "not_found_error", f"Not found: {request.url.path}"), 0)
    message = f"Invalid URL ({request.method} {request.url.path})"
    return _error(openai_chat, ProviderError(status, "invalid_request_error", message), 0)


# --- Doors for demos and tests ------------------------------------------------------------------------------


def _of(request: Request) -> Emulator:
    emulator = request.app.state.emulator
    assert isinstance(emulator, Emulator)
    return emulator


async def _state(request: Request) -> Response:
    return JSONResponse(_of(request).state())


async def _clock(request: Request) -> Response:
    try:
        now = _of(request).clock.advance(float((await request.json())["advance"]))
    except (ValueError, TypeError, KeyError) as error:
        message = f'POST {{"advance": seconds}} with seconds >= 0: {error!r}'
        return JSONResponse({"error": message}, 400)
    return JSONResponse({"now": now})


async def _reset(request: Request) -> Response:
    _of(request).reset()
    return JSONResponse({"reset": True})
