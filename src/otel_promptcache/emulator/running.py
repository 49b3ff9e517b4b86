"""An emulator that serves itself with uvicorn: in a thread of this process, or as all that the process does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Unpack

import uvicorn

from otel_promptcache.emulator.engine import Emulator, Options
from otel_promptcache.emulator.server import application

HOST: Final = "127.0.0.1"

_BACKLOG: Final = 2048

_PATIENCE: Final = 5.0
"""Seconds in which a server has to start or stop; answers under way are given a fifth of them to end."""


@contextmanager
def emulator(port: int = 0, **options: Unpack[Options]) -> Iterator[Emulator]:
    """Runs an emulator on ``port`` of the loopback interface, 0 for a free one, while the block lasts.

    For example::

        with emulator() as provider:
            client = anthropic.Anthropic(base_url=provider.url, api_key="any")
            provider.clock.advance(301)
    """
    running = Emulator(**options)
    listener = bound(HOST, port)
    running.url = url_of(listener)
    server = _server(running)
    thread = threading.Thread(target=server.run, args=([listener],), name="emulator", daemon=True)
    thread.start()
    try:
        _await_start(server, thread)
        yield running
    finally:
        server.should_exit = True
        thread.join(_PATIENCE / 5)
        server.force_exit = True
        thread.join(_PATIENCE)
        listener.close()


def serve(running: Emulator, listener: socket.socket) -> None:
    """Serves in the foreground until SIGINT or SIGTERM, which it passes on when it has ended."""
    running.url = url_of(listener)
    with listener:
        _server(running).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A listening socket, at which connections wait until they are served. ``OSError`` when the address is taken."""
    # With the protocol left open asyncio would not set TCP_NODELAY, and every answer would wait 40 ms for an
    # acknowledgement of its head.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Base URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(running: Emulator) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            application(running),
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="error",
            timeout_keep_alive=60,
        )
    )


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the emulator did not start within {_PATIENCE:g} s")
        time.sleep(0.002)
