"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

HOST = "127.0.0.1"
RANGE = range(16_000, 32_000)
"""Below what systems give to connections: one of those could take a port before its server does, or while its server is
away. Above what anything listens on that is configured by nobody."""
_chance = random.SystemRandom()  # several processes look at a time, and tests may seed the other one


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = _chance.choice(RANGE)
            listener = held.enter_context(socket.socket())
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            found.append(port)
    return found
