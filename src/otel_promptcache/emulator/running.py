"""An emulator that serves itself: uvicorn in a thread of this process, or in the foreground for a command."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Unpack

import uvicorn

from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.options import Options
from otel_promptcache.emulator.server import application

HOST: Final = "127.0.0.1"

_BACKLOG: Final = 2048

_START: Final = 60.0
"""Seconds in which a server has to start. It takes milliseconds, unless the machine stands still."""
_PATIENCE: Final = 5.0
"""Seconds in which a server has to stop; answers under way are given a fifth of them to end."""


class PortInUseError(OSError):
    """Somebody else listens there."""


@contextmanager
def emulator(port: int = 0, **options: Unpack[Options]) -> Iterator[Emulator]:
    """Runs an emulator on ``port`` of the loopback interface, 0 for a free one, while the block lasts.

    For example::

        with emulator() as provider:
            client = anthropic.Anthropic(base_url=provider.url, api_key="any")
            provider.clock.advance(301)
    """
    running = Emulator(**options)
    listener = _listener(HOST, port)
    running.url = _url(listener)
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


def serve(running: Emulator, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serves an emulator from the main thread until it is interrupted (SIGINT, SIGTERM). Bodies are not kept.

    ``started`` gets the URL as soon as the port is open. Raises ``PortInUseError`` before anything is served.
    """
    running.keeps_bodies = False
    listener = _listener(host, port)
    try:
        listener.listen()  # from here on a client is let in, if not yet answered
        running.url = _url(listener)
        started(running.url)
        _server(running).run([listener])
    finally:
        listener.close()


def _server(running: Emulator) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            application(running),
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="error",
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listener(host: str, port: int) -> socket.socket:
    # With the protocol left open asyncio would not set TCP_NODELAY, and every answer would wait 40 ms for an
    # acknowledgement of its head.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # from here on connections wait, though nobody serves them yet
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"port {port} of {host} is in use: choose another one, or 0 for any that is free"
        raise PortInUseError(error.errno, message) from error
    return listener


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the emulator ended before it had started")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the emulator did not start within {_START:g} s")
        time.sleep(0.002)
