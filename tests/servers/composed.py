"""deploy/compose without containers: programs of this machine with the commands and the environments that the file has,
in which other services' addresses are ports on loopback and mounted paths are what is mounted.

What cannot be had as a program is stood in for by one that takes the same: Tempo by a second Jaeger (both take OTLP),
ClickHouse by its engine behind its HTTP interface.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from servers import (
    COMPOSE,
    HOST,
    PROMETHEUS,
    ROOT,
    Collector,
    Jaeger,
    Prometheus,
    built,
    free_ports,
    jaeger,
    listens,
    process,
    prometheus,
    prometheus_config,
)
from servers.estate import ClickHouse, clickhouse_server
from servers.valkey import valkey

SERVICES: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
PROFILES = ("minimal", "metrics", "full")


def services(profile: str) -> dict[str, Any]:
    """What starts under a profile."""
    return {name: one for name, one in SERVICES.items() if profile in one.get("profiles", PROFILES)}


def hosts(profile: str) -> dict[str, str]:
    """By which names services reach each other, and which service each is."""
    found = {name: name for name in services(profile)}
    for name, one in services(profile).items():
        for alias in one.get("networks", {}).get("default", {}).get("aliases", ()):
            assert alias not in found, f"{alias} would be two services"
            found[alias] = name
    return found


@dataclass
class Composed:
    """The services of a profile as processes of this machine."""

    profile: str
    folder: Path
    ports: dict[tuple[str, str], int] = field(default_factory=dict)
    """On loopback, by service and port inside of its container."""

    def port(self, service: str, inside: str) -> int:
        if (service, inside) not in self.ports:
            (self.ports[service, inside],) = free_ports(1)
        return self.ports[service, inside]

    def outside(self, service: str, text: str) -> str:
        """A command's or a variable's text with addresses and paths of this machine."""
        for volume in SERVICES[service].get("volumes", ()):
            source, target, *_ = volume.split(":")
            here = (COMPOSE / source).resolve() if source.startswith(".") else self.folder / source
            text = re.sub(rf"(?<![\w/]){re.escape(target)}(?![\w.-])", str(here), text)
        text = re.sub(r"0\.0\.0\.0:(\d+)", lambda found: f"{HOST}:{self.port(service, found[1])}", text)
        for name, reached in hosts(self.profile).items():
            address = rf"(?<![\w.-]){re.escape(name)}:(\d+)"
            text = re.sub(address, lambda found, to=reached: f"{HOST}:{self.port(to, found[1])}", text)
        return text

    def command(self, service: str) -> list[str]:
        return [self.outside(service, str(one)) for one in SERVICES[service]["command"]]

    def environment(self, service: str) -> dict[str, str]:
        given = SERVICES[service].get("environment", {})
        return {name: self.outside(service, str(value)) for name, value in given.items()}

    @contextmanager
    def emulator(self) -> Iterator[None]:
        program, *arguments = self.command("emulator")
        port = self.port("emulator", "8788")
        arguments[arguments.index("--host") + 1] = HOST  # this machine has other interfaces, too
        command = [str(Path(sys.executable).with_name(program)), *arguments, "--port", str(port)]
        with process(command, self.folder / "emulator.log", lambda: listens(port)):
            yield

    @contextmanager
    def collector(self, service: str, *more: str, **changes: str) -> Iterator[None]:
        otlp = self.port(service, "4317")
        health, telemetry = free_ports(2)  # on a loopback that containers do not share
        inside = {"HEALTH_ENDPOINT": f"{HOST}:{health}", "TELEMETRY_PORT": str(telemetry)}
        environment = {**self.environment(service), **inside, **changes}
        command = [built("collector"), *self.command(service), *more]
        with process(command, self.folder / f"{service}.log", lambda: listens(otlp), environment):
            yield

    @contextmanager
    def prometheus(self) -> Iterator[Prometheus]:
        """Looks where the shipped configuration says."""
        shipped = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
        (job,) = shipped["scrape_configs"]
        targets = [self.outside("prometheus", one) for group in job["static_configs"] for one in group["targets"]]
        (features,) = (one for one in self.command("prometheus") if one.startswith("--enable-feature="))
        with prometheus(prometheus_config(targets), self.folder, features.partition("=")[2]) as running:
            yield running

    def work(self, service: str, *arguments: str, **changes: str) -> None:
        """Runs the application, as often side by side as the file says, until it has done what it is asked for."""
        program = [sys.executable, str(ROOT / "examples" / "support_desk.py"), *arguments]
        count = SERVICES[service].get("deploy", {}).get("replicas", 1)
        with ExitStack() as all_of_them:
            started = []
            for number in range(count):
                own = self.folder / f"{service}-{number}"
                own.mkdir()
                given = {name: value.replace("/tmp", str(own)) for name, value in self.environment(service).items()}
                environment = {**os.environ, **given, **changes}
                started.append(all_of_them.enter_context(subprocess.Popen(program, env=environment)))
            all_of_them.callback(lambda: [one.terminate() for one in started if one.poll() is None])
            assert [one.wait(300) for one in started] == [0] * count


@dataclass
class Laptop:
    """A profile, running."""

    composed: Composed
    jaeger: Jaeger
    prometheus: Prometheus
    collector: Collector | None = None
    tempo: Jaeger | None = None
    clickhouse: ClickHouse | None = None

    def ledger(self) -> list[dict[str, Any]]:
        """Every event in the Collector's file."""
        assert self.collector is not None
        return self.collector.ledger_events()


@contextmanager
def metrics(folder: Path) -> Iterator[Laptop]:
    """The profile of the same name, with nobody at work yet."""
    composed = Composed("metrics", folder)
    with jaeger(folder) as tracing, composed.emulator():
        composed.ports["jaeger", "4317"] = int(tracing.endpoint.rpartition(":")[2])
        with composed.collector("otel-collector"), composed.prometheus() as scraping:
            addresses = [f"{HOST}:{composed.port('otel-collector', inside)}" for inside in ("4317", "4318", "8889")]
            ledger = Path(composed.environment("otel-collector")["LEDGER_DIRECTORY"]) / "calls.jsonl"
            yield Laptop(composed, tracing, scraping, Collector(*addresses, ledger))


@contextmanager
def full(folder: Path) -> Iterator[Laptop]:
    """The profile of the same name, with nobody at work yet."""
    composed = Composed("full", folder)
    for name in ("jaeger", "tempo"):
        (folder / name).mkdir()
    with (
        jaeger(folder / "jaeger") as tracing,
        jaeger(folder / "tempo") as tempo,
        clickhouse_server(folder) as ledger,
        valkey() as history,
        composed.emulator(),
    ):
        composed.ports["jaeger", "4317"] = int(tracing.endpoint.rpartition(":")[2])
        composed.ports["tempo", "4317"] = int(tempo.endpoint.rpartition(":")[2])
        composed.ports["valkey", "6379"] = history.port
        uncompressed = "--config=yaml:exporters::clickhouse::compress: none"  # the stand-in reads no other
        with (
            composed.collector("gateway", uncompressed, CLICKHOUSE_ENDPOINT=ledger.url),
            composed.collector("agent"),
            composed.prometheus() as scraping,
        ):
            yield Laptop(composed, tracing, scraping, tempo=tempo, clickhouse=ledger)
