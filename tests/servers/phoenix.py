"""Arize Phoenix, in a network namespace of its own: its gRPC port listens on every interface that there is."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from servers import HOST, _missing, built, process

PORT, GRPC = 6006, 4317
SECONDS = 300
"""It imports for twenty seconds, on a busy machine for longer."""
WAYS = (("unshare", "--net"), ("unshare", "--map-root-user", "--net"))
"""As root, and as anybody where the system lets them."""


@cache
def namespace() -> tuple[str, ...]:
    """The command that runs another in a new network namespace; empty where none can be made."""
    for way in WAYS:
        try:
            if subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
                return way
        except OSError:
            break
    return ()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("phoenix", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Phoenix:
    """A running Phoenix."""

    path: Path

    def request(self, method: str, url: str, body: bytes | None = None, kind: str = "") -> bytes:
        """What it answers; an answer that is no success is an error."""
        connection = _Connection(self.path)
        try:
            connection.request(method, url, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            said = response.read()
            assert response.status < 300, (response.status, said[:500])
            return said
        finally:
            connection.close()

    def post(self, otlp: bytes) -> None:
        """Sends spans as an exporter does."""
        self.request("POST", "/v1/traces", otlp, "application/x-protobuf")

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        said = json.loads(self.request("POST", "/graphql", body, "application/json"))
        assert not said.get("errors"), said["errors"]
        found: dict[str, Any] = said["data"]
        return found

    def up(self) -> bool:
        try:
            return bool(self.request("GET", "/healthz")) or True
        except (OSError, AssertionError, http.client.HTTPException):
            return False


@contextmanager
def phoenix(folder: Path) -> Iterator[Phoenix]:
    """An empty Phoenix, its data in memory."""
    program = Path(built("phoenix")) / "bin" / "python"
    way = namespace() or _missing("No network namespace can be made here (unshare --net).")
    path = folder / "phoenix.socket"
    environment: Mapping[str, str] = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_SQL_DATABASE_URL": "sqlite:///:memory:",
        "PHOENIX_HOST": HOST,
        "PHOENIX_PORT": str(PORT),
        "PHOENIX_GRPC_PORT": str(GRPC),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PYTHONPATH": "",
    }
    relay = [sys.executable, str(Path(__file__).with_name("namespaced.py")), str(path), str(PORT)]
    command = [*way, *relay, str(program), "-m", "phoenix.server.main", "serve"]
    running = Phoenix(path)
    with process(command, folder / "phoenix.log", running.up, environment, SECONDS):
        yield running
