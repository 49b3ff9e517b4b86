"""Real servers on loopback, on ports that are free, each stopped by its process id.

``prometheus()``, ``alertmanager()``, ``collector()`` and ``jaeger()`` run the program with a configuration while the
block lasts. Where a program is missing the test is skipped with the reason, but not in CI: there it is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import yaml

from servers.ports import HOST, free_ports

T = TypeVar("T")
NO_ANSWER = (OSError, HTTPException)
"""What a request raises to which no answer has come, or an error: a trace that Jaeger does not have yet is a 404."""

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
PROMETHEUS = DEPLOY / "prometheus"
PATIENCE = 180.0
"""Seconds in which a server has to be ready, and what it does has to be seen. Machines are busy at times."""


# --- Programs -----------------------------------------------------------------------------------------------


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} In CI it has to be there.")
    pytest.skip(reason)


@cache
def _debian(name: str) -> str:
    found = shutil.which(name)
    return found or ""


def debian(name: str) -> str:
    """The path of a program that scripts/debian-packages.sh installs."""
    return _debian(name) or _missing(f"{name} is not installed (scripts/debian-packages.sh installs it).")


@cache
def _built(name: str) -> tuple[str, str]:
    """Path of a program that a script builds, else what is wrong. The script runs in CI only: it takes minutes."""
    script = ROOT / "scripts" / f"build-{name}.sh"
    if os.environ.get("CI") == "true":
        done = subprocess.run([script], capture_output=True, text=True, check=False)
        return done.stdout.strip(), done.stderr.strip()
    text = script.read_text()
    version = re.search(r"^version=(\S+)", text, re.MULTILINE)
    target = re.search(r'^target="\$tools/([\w-]+)-\$version"', text, re.MULTILINE)
    assert version, f"{script.name} names no version"
    assert target, f"{script.name} names no target"
    cache_folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    tools = Path(os.environ.get("OTEL_PROMPTCACHE_TOOLS") or Path(cache_folder) / "otel-promptcache" / "tools")
    path = tools / f"{target[1]}-{version[1]}"
    return (str(path), "") if os.access(path, os.X_OK) else ("", f"scripts/{script.name} has not built it yet.")


def built(name: str) -> str:
    """The path of a program that scripts/build-NAME.sh builds."""
    path, problem = _built(name)
    return path or _missing(f"{name} is missing: {problem}")


# --- Running them -------------------------------------------------------------------------------------------


def get(url: str, **parameters: str) -> Any:
    """The JSON document at a URL."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(url + query, timeout=60) as response:
        return json.load(response)


def until(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Looks until there is something to see, for so many seconds at most. Who gives no answer, or an error, is asked
    again."""
    seen = _looked(look, bool, seconds)
    assert seen, f"nothing to be seen within {seconds:g} s"
    return seen


def until_is(look: Callable[[], T], wanted: T, seconds: float = PATIENCE) -> None:
    """Looks until it is so; who waits in vain is shown the difference."""
    seen = _looked(look, lambda seen: seen == wanted, seconds)
    assert seen == wanted


def until_empty(left: Callable[[], Collection[object]], seconds: float = PATIENCE) -> None:
    """Looks until nothing is left; who waits in vain is told what was."""
    if last := _looked(left, lambda last: not last, seconds):
        pytest.fail(f"left after {seconds:g} s: {last}")


def _looked(look: Callable[[], T], enough: Callable[[T], bool], seconds: float) -> T:
    """What is seen once it is enough, else what is seen last."""
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline
        try:
            seen = look()
        except NO_ANSWER:
            if late:
                raise
        else:
            if late or enough(seen):
                return seen
        time.sleep(0.05)


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file that somebody writes, without one that has just begun."""
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def answers(url: str) -> bool:
    """Whether a server answers at a URL with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status < 300)
    except OSError:
        return False


def listens(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
    grace: float = 5,
) -> Iterator[int]:
    """The id of a server process, from when it is ready to the end of the block. It has ``patience`` seconds to be
    ready, and ``grace`` seconds to end."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    try:
        deadline = time.monotonic() + patience
        while not ready():
            if running.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{Path(command[0]).name} is not ready; its log ends with\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(grace)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


# --- Prometheus ---------------------------------------------------------------------------------------------

Sample = tuple[dict[str, str], float]


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """(labels, value) of every series that an expression gives at an instant."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        try:
            data = get(f"{self.url}/api/v1/query", query=expression, **moment)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 400:  # no PromQL: it will not be any later either
                pytest.fail(f"{expression}: {error.read().decode()}")
            raise
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def value(self, expression: str, at: float | None = None) -> float:
        """The value of an expression that gives exactly one series, as soon as there is one: a scrape that came late
        leaves a gap."""
        ((_, value),) = until(lambda: self.query(expression, at))
        return value

    def samples(self, selector: str) -> list[tuple[float, float]]:
        """(time, value) of everything stored for a selector of one series."""
        (series,) = get(f"{self.url}/api/v1/query", query=f"{selector}[1h]")["data"]["result"]
        return [(moment, float(value)) for moment, value in series["values"]]

    def exemplars(self, expression: str) -> list[dict[str, str]]:
        """The labels of every exemplar of the last hour."""
        now = time.time()
        span = {"start": f"{now - 3600:.3f}", "end": f"{now:.3f}"}
        data = get(f"{self.url}/api/v1/query_exemplars", query=expression, **span)["data"]
        return [one["labels"] for series in data for one in series["exemplars"]]

    def reload(self) -> None:
        """Has the configuration and the rules read again."""
        request = urllib.request.Request(f"{self.url}/-/reload", method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200

    def rules(self) -> dict[str, dict[str, Any]]:
        """Every rule by name: its health, its last error."""
        groups = get(f"{self.url}/api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


def prometheus_config(targets: Sequence[str], interval: str = "500ms", rules: str = "") -> dict[str, Any]:
    """The shipped configuration, with other targets, without the wait, and without anybody to alert. ``interval``: of
    scrapes, and of rules where those have none of their own."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    del config["alerting"]
    between = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": rules or interval}
    config["global"] = between
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": list(targets)}]
    return config


EXEMPLARS = "exemplar-storage"


@contextmanager
def prometheus(config: Mapping[str, Any], folder: Path, features: str = "") -> Iterator[Prometheus]:
    """A Prometheus with a configuration, its data in a folder: Debian's, which is old; with ``features``, as
    ``--enable-feature`` takes them, one that knows all of them."""
    program = built("prometheus") if features else debian("prometheus")
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(dict(config)))
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
        f"--web.external-url={url}",
        "--web.enable-lifecycle",
        f"--enable-feature={features or EXEMPLARS}",
    ]
    with process(command, folder / "prometheus.log", lambda: answers(f"{url}/-/ready")):
        yield Prometheus(url)


@contextmanager
def alertmanager(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """An Alertmanager with a configuration: its ``host:port``."""
    program = debian("prometheus-alertmanager")
    (port,) = free_ports(1)
    file = folder / "alertmanager.yaml"
    file.write_text(yaml.safe_dump(dict(config)))
    command = [
        program,
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
    ]
    url = f"http://{HOST}:{port}"
    with process(command, folder / "alertmanager.log", lambda: answers(f"{url}/-/ready")):
        yield f"{HOST}:{port}"


# --- OpenTelemetry Collector --------------------------------------------------------------------------------


@dataclass
class Collector:
    """A running Collector."""

    grpc: str
    http: str
    metrics: str
    """``host:port`` that Prometheus scrapes."""
    ledger: Path
    """The file that the ledger goes to."""

    def ledger_events(self) -> list[dict[str, Any]]:
        """Every record in the ledger file, its attributes and those of its resource as a plain dictionary, with time,
        ids and event name."""
        found = []
        for line in whole_lines(self.ledger):
            for resource in json.loads(line)["resourceLogs"]:
                for scope in resource["scopeLogs"]:
                    found += [_record(record, resource["resource"]) for record in scope["logRecords"]]
        return found


def _record(record: Mapping[str, Any], resource: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Callable[[Any], Any]] = {"intValue": int, "doubleValue": float}
    flat = {name: record.get(name, "") for name in ("eventName", "traceId", "spanId", "timeUnixNano")}
    for attribute in (*resource["attributes"], *record["attributes"]):
        ((kind, value),) = attribute["value"].items()
        flat[attribute["key"]] = kinds.get(kind, lambda plain: plain)(value)
    return flat


@contextmanager
def collector(folder: Path, jaeger_endpoint: str = "", *changes: str) -> Iterator[Collector]:
    """The Collector with the shipped configuration, which takes its endpoints from the environment. ``changes`` are
    laid over it: ``exporters::prometheus::metric_expiration: 4s``."""
    program = built("collector")
    grpc, http, metrics, nobody = free_ports(4)
    environment = {
        "OTLP_GRPC_ENDPOINT": f"{HOST}:{grpc}",
        "OTLP_HTTP_ENDPOINT": f"{HOST}:{http}",
        "METRICS_ENDPOINT": f"{HOST}:{metrics}",
        "JAEGER_ENDPOINT": jaeger_endpoint or f"{HOST}:{nobody}",
        "LEDGER_DIRECTORY": str(folder / "ledger"),
    }
    command = [program, f"--config={COMPOSE / 'otel-collector.yaml'}", *(f"--config=yaml:{one}" for one in changes)]
    with process(command, folder / "collector.log", lambda: all(map(listens, (grpc, http, metrics))), environment):
        yield Collector(
            f"http://{HOST}:{grpc}",
            f"http://{HOST}:{http}",
            f"{HOST}:{metrics}",
            folder / "ledger" / "calls.jsonl",
        )


# --- Jaeger -------------------------------------------------------------------------------------------------


@dataclass
class Span:
    """One span as Jaeger's query API shows it."""

    name: str
    trace_id: str
    span_id: str
    tags: dict[str, Any]
    references: list[tuple[str, str, str]] = field(default_factory=list)
    """(kind, trace id, span id): the parent, and links."""


@dataclass
class Jaeger:
    """A running Jaeger."""

    endpoint: str
    """``host:port`` for OTLP over gRPC."""
    url: str

    def find(self, service: str, **tags: str) -> list[Span]:
        """The spans of every trace that has a span with these tags; dots are written as ``__``."""
        wanted = {name.replace("__", "."): value for name, value in tags.items()}
        try:
            found = get(f"{self.url}/api/traces", service=service, tags=json.dumps(wanted), limit="100")
        except urllib.error.HTTPError:
            return []  # a service that it has not heard of yet
        return [
            Span(
                span["operationName"],
                span["traceID"],
                span["spanID"],
                {tag["key"]: tag["value"] for tag in span["tags"]},
                [(ref["refType"], ref["traceID"], ref["spanID"]) for ref in span["references"]],
            )
            for trace in found["data"]
            for span in trace["spans"]
        ]

    def trace(self, trace_id: str) -> list[str]:
        """The names of the spans of a trace."""
        found = get(f"{self.url}/api/traces/{trace_id}")["data"]
        return [span["operationName"] for trace in found for span in trace["spans"]]


@contextmanager
def jaeger(folder: Path) -> Iterator[Jaeger]:
    """Jaeger with the shipped configuration: OTLP in, query API out, traces in memory."""
    program = built("jaeger")
    otlp, http, grpc = free_ports(3)
    environment = {
        "JAEGER_OTLP_ENDPOINT": f"{HOST}:{otlp}",
        "JAEGER_HTTP_ENDPOINT": f"{HOST}:{http}",
        "JAEGER_GRPC_ENDPOINT": f"{HOST}:{grpc}",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    url = f"http://{HOST}:{http}"
    command = [program, f"--config={COMPOSE / 'jaeger.yaml'}"]
    with process(command, folder / "jaeger.log", lambda: listens(otlp) and answers(f"{url}/api/services"), environment):
        yield Jaeger(f"{HOST}:{otlp}", url)


# --- ClickHouse ---------------------------------------------------------------------------------------------


@contextmanager
def clickhouse() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """ClickHouse's engine in this process, with an empty database: asks SQL, and has rows as dictionaries."""
    try:
        from chdb import session
    except ImportError:
        _missing("chdb is not installed (pip install --group clickhouse).")
    with session.Session() as database:

        def query(sql: str) -> list[dict[str, Any]]:
            said = database.query(sql, "JSON").bytes()
            return list(json.loads(said)["data"]) if said else []

        yield query
