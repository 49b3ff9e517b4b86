"""A port in front of another one that remembers what went through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from servers import HOST


@contextmanager
def tap(port: int) -> Iterator[tuple[int, bytearray]]:
    """A loopback port that passes on to ``port``, and all that clients have sent to it."""
    heard = bytearray()
    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=_accept, args=(listening, port, heard), daemon=True).start()
        yield listening.getsockname()[1], heard
        listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, port: int, heard: bytearray) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=(client, port, heard), daemon=True).start()


def _serve(client: socket.socket, port: int, heard: bytearray) -> None:
    with suppress(OSError), client, socket.create_connection((HOST, port)) as server:
        threading.Thread(target=_pass_on, args=(server, client, bytearray()), daemon=True).start()
        _pass_on(client, server, heard)


def _pass_on(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            heard += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
