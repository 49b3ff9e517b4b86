"""The doors for demos and tests: state, clock, faults, eviction, reset. They belong to no provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.faults import Fault

if TYPE_CHECKING:
    from starlette.requests import Request


def _of(request: Request) -> Emulator:
    emulator = request.app.state.emulator
    assert isinstance(emulator, Emulator)
    return emulator


async def _sent(request: Request) -> Any:
    """The body; nothing is an empty object."""
    return await request.json() if await request.body() else {}


def _refused(message: str) -> Response:
    return JSONResponse({"error": message}, 400)


async def _state(request: Request) -> Response:
    return JSONResponse(_of(request).state())


async def _last(request: Request) -> Response:
    try:
        return JSONResponse(_of(request).last.summary())
    except LookupError as error:
        return JSONResponse({"error": str(error)}, 404)


async def _now(request: Request) -> Response:
    return JSONResponse({"now": _of(request).clock.now()})


async def _clock(request: Request) -> Response:
    clock = _of(request).clock
    try:
        body = await _sent(request)
        now = clock.set(float(body["set"])) if "set" in body else clock.advance(float(body["advance"]))
    except (ValueError, TypeError, KeyError) as error:
        return _refused(f'POST {{"advance": seconds}} with seconds >= 0, or {{"set": time}} not in the past: {error!r}')
    return JSONResponse({"now": now})


async def _faults(request: Request) -> Response:
    try:
        body = await _sent(request)
        _of(request).fail(Fault(str(body["fault"])), int(body.get("times", 1)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return _refused(f'POST {{"fault": name, "times": 1}} with a name of {", ".join(Fault)}: {error!r}')
    return JSONResponse({"fault": body["fault"], "times": int(body.get("times", 1))})


async def _evict(request: Request) -> Response:
    _of(request).evict()
    return JSONResponse({"evicted": True})


async def _reset(request: Request) -> Response:
    _of(request).reset()
    return JSONResponse({"reset": True})


ROUTES: Final = (
    Route("/_emulator/state", _state, methods=["GET"]),
    Route("/_emulator/last", _last, methods=["GET"]),
    Route("/_emulator/clock", _now, methods=["GET"]),
    Route("/_emulator/clock", _clock, methods=["POST"]),
    Route("/_emulator/faults", _faults, methods=["POST"]),
    Route("/_emulator/evict", _evict, methods=["POST"]),
    Route("/_emulator/reset", _reset, methods=["POST"]),
)
