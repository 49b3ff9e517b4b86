"""A local stand-in for the model providers: the real caching rules, real HTTP, and a clock that can be moved.

It reads requests with the same adapters and works by the same rule tables as the diagnosis, and answers in the
providers' own shapes, so the unmodified SDKs talk to it. Needs the extra ``emulator``.

``emulator()`` runs one in this process, ``serve()`` in the foreground; ``app()`` gives the ASGI application alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

try:
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"the emulator needs {missing.name}: pip install 'otel-promptcache[emulator]'", name=missing.name
    ) from missing

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.faults import Fault
from otel_promptcache.emulator.inspection import Received
from otel_promptcache.emulator.options import TOKENIZERS, Latency, Options, linear
from otel_promptcache.emulator.personality import ROWS as PERSONALITIES
from otel_promptcache.emulator.personality import Personality
from otel_promptcache.emulator.reply import Reply
from otel_promptcache.emulator.running import PortInUseError, emulator, serve
from otel_promptcache.emulator.server import application

if TYPE_CHECKING:
    from starlette.applications import Starlette


def app(**options: Unpack[Options]) -> Starlette:
    """The application of a new emulator; ``app.state.emulator`` is the emulator."""
    return application(Emulator(**options))


__all__ = [
    "PERSONALITIES",
    "TOKENIZERS",
    "Accounting",
    "Clock",
    "Emulator",
    "Fault",
    "Latency",
    "Options",
    "Personality",
    "PortInUseError",
    "Received",
    "Reply",
    "app",
    "emulator",
    "linear",
    "serve",
]
