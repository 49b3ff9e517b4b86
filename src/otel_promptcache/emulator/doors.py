"""The doors for demos and tests: state, clock, faults, eviction, reset. They belong to no provider.

They take no key, so they are closed to a page in a browser whose name was made to lead here: the host that a request
names has to be a loopback name, or the address that it arrived at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.faults import Fault

if TYPE_CHECKING:
    from starlette.requests import Request


MAX_TIMES: Final = 10_000
MAX_SECONDS: Final = 100 * 365 * 86_400
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "testserver"})
"""``testserver`` is what in-process clients call an application."""

Handler = Callable[["Request"], Awaitable[Response]]


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


def _time(given: Any, start: float) -> float:
    """What is sent, no farther from ``start`` than a clock is moved."""
    if (seconds := float(given)) > start + MAX_SECONDS:
        raise ValueError(f"at most {MAX_SECONDS} seconds at a time")
    return seconds


def _times(given: Any) -> int:
    if type(given) is not int or not 1 <= given <= MAX_TIMES:
        raise ValueError(f"times is a whole number from 1 to {MAX_TIMES}")
    return given


async def _clock(request: Request) -> Response:
    clock = _of(request).clock
    try:
        body = await _sent(request)
        if "set" in body:
            now = clock.set(_time(body["set"], clock.now()))
        else:
            now = clock.advance(_time(body["advance"], 0.0))
    except (ValueError, TypeError, KeyError) as error:
        return _refused(f'POST {{"advance": seconds}} with seconds >= 0, or {{"set": time}} not in the past: {error!r}')
    return JSONResponse({"now": now})


async def _faults(request: Request) -> Response:
    try:
        body = await _sent(request)
        times = _times(body.get("times", 1))
        _of(request).fail(Fault(str(body["fault"])), times)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return _refused(f'POST {{"fault": name, "times": 1}} with a name of {", ".join(Fault)}: {error!r}')
    return JSONResponse({"fault": body["fault"], "times": times})


async def _evict(request: Request) -> Response:
    _of(request).evict()
    return JSONResponse({"evicted": True})


async def _reset(request: Request) -> Response:
    _of(request).reset()
    return JSONResponse({"reset": True})


def _guarded(door: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        server = request.scope.get("server") or ("",)
        if (request.url.hostname or "") not in _LOOPBACK | {server[0]}:
            return JSONResponse({"error": "this door is open to loopback names and the server's own address only"}, 403)
        return await door(request)

    return handle


_DOORS: Final = (
    ("GET", "state", _state),
    ("GET", "last", _last),
    ("GET", "clock", _now),
    ("POST", "clock", _clock),
    ("POST", "faults", _faults),
    ("POST", "evict", _evict),
    ("POST", "reset", _reset),
)
ROUTES: Final = tuple(Route(f"/_emulator/{name}", _guarded(door), methods=[method]) for method, name, door in _DOORS)
