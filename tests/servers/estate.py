"""An estate as deploy/collector has it: agents, gateways behind them, and ClickHouse behind those."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from servers import DEPLOY, HOST, answers, built, free_ports, process

CONFIGURATIONS = DEPLOY / "collector"
SCHEMA = DEPLOY / "clickhouse" / "schema.sql"


@dataclass
class ClickHouse:
    """ClickHouse's engine behind its HTTP interface."""

    url: str

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a statement as dictionaries; a ``RuntimeError`` is what the engine has against it."""
        request = urllib.request.Request(f"{self.url}/?default_format=JSON", sql.encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                said = response.read()
        except HTTPError as error:
            raise RuntimeError(error.read().decode()) from error
        return list(json.loads(said)["data"]) if said else []


def statements(text: str) -> list[str]:
    """The statements of a file of SQL, one by one."""
    return [one for one in re.sub(r"(?m)^--.*$", "", text).split(";\n") if one.strip()]


def question(file: Path, **chosen: str) -> str:
    """A dashboard's question as Grafana asks it: of all time, by the hour, every filter at *All* but those chosen."""
    text = file.read_text().replace("$__timeFilter(timestamp)", "timestamp > '2000-01-01'")
    text = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 1 HOUR)", text)
    return re.sub(r"\$\{(\w+)(?::regex)?\}", lambda one: chosen.get(one[1], ".*"), text)


@contextmanager
def empty_clickhouse(folder: Path, port: int | None = None) -> Iterator[ClickHouse]:
    """A ClickHouse without tables, on a port that others may know before it runs."""
    port = port or free_ports(1)[0]
    url = f"http://{HOST}:{port}"
    program = [sys.executable, str(Path(__file__).with_name("clickhouse_http.py")), str(port)]
    with process(program, folder / "clickhouse.log", lambda: answers(url)):
        yield ClickHouse(url)


@contextmanager
def clickhouse_server(folder: Path, port: int | None = None) -> Iterator[ClickHouse]:
    """A ClickHouse with the shipped tables, which are empty."""
    with empty_clickhouse(folder, port) as server:
        for statement in statements(SCHEMA.read_text()):
            server.ask(statement)
        yield server


@dataclass
class Tier:
    """A running Collector of the estate."""

    grpc: str
    http: str
    metrics: str
    """``host:port`` that Prometheus scrapes; of a gateway only."""
    counted: str
    """Likewise, for what the gateway counts itself."""
    telemetry: str
    """``host:port`` of what it counts about itself."""
    pid: int

    @property
    def address(self) -> str:
        """``host:port`` for OTLP over gRPC."""
        return self.grpc.removeprefix("http://")


@contextmanager
def _running(configuration: str, folder: Path, name: str, changes: Sequence[str], **environment: str) -> Iterator[Tier]:
    grpc, http, metrics, counted, health, telemetry = free_ports(6)
    variables = {
        "OTLP_GRPC_ENDPOINT": f"{HOST}:{grpc}",
        "OTLP_HTTP_ENDPOINT": f"{HOST}:{http}",
        "METRICS_ENDPOINT": f"{HOST}:{metrics}",
        "METRICS_COUNTED_ENDPOINT": f"{HOST}:{counted}",
        "HEALTH_ENDPOINT": f"{HOST}:{health}",
        "TELEMETRY_PORT": str(telemetry),
        "COLLECTOR_DIRECTORY": str(CONFIGURATIONS),
        "QUEUE_DIRECTORY": str(folder / f"{name}-queue"),
        **environment,
    }
    command = [built("collector"), f"--config={CONFIGURATIONS / configuration}"]
    command += [f"--config=yaml:{change}" for change in changes]
    with process(command, folder / f"{name}.log", lambda: answers(f"http://{HOST}:{health}"), variables) as pid:
        otlp = f"http://{variables['OTLP_GRPC_ENDPOINT']}", f"http://{HOST}:{http}"
        yield Tier(*otlp, *(f"{HOST}:{port}" for port in (metrics, counted, telemetry)), pid)


@contextmanager
def gateway(folder: Path, name: str = "gateway", *changes: str, **environment: str) -> Iterator[Tier]:
    """A gateway as it is shipped; ``changes`` are laid over its configuration."""
    uncompressed = "exporters::clickhouse::compress: none"  # what stands in for the server reads no other
    with _running("gateway.yaml", folder, name, (uncompressed, *changes), **environment) as running:
        yield running


def listed(addresses: Sequence[str]) -> str:
    """Addresses as a variable of a Collector's configuration takes them."""
    return f"[{', '.join(addresses)}]"


@contextmanager
def agent(folder: Path, gateways: Sequence[Tier | str]) -> Iterator[Tier]:
    """An agent as it is shipped, with these gateways behind it, or what will be one at an address."""
    behind = [one if isinstance(one, str) else one.address for one in gateways]
    with _running("agent.yaml", folder, "agent", (), GATEWAYS=listed(behind)) as running:
        yield running
