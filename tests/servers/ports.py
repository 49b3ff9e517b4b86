"""Ports for servers of tests."""

from __future__ import annotations

import os
import random
import re
import socket

HOST = "127.0.0.1"
RANGE = range(16_000, 32_000)
"""Below what systems give to connections: one of those could take a port before its server does, or while its server is
away. Above what anything listens on that is configured by nobody."""
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
"""Processes of this run, each with ports of its own: what is free now could be taken by another one before its server
listens."""
_worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0"
_chance = random.SystemRandom()  # tests may seed the other one
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different; none of them is given to another test of this run."""
    found: list[int] = []
    while len(found) < count:
        port = _chance.choice(RANGE[int(_worker) % WORKERS :: WORKERS])
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            found.append(port)
    return found
