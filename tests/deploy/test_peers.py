"""What arrives behind another implementation of OTLP is what arrives without it: gRPC and HTTP, compressed and not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import anthropic
import grpc
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from servers import HOST, Collector, built, collector, free_ports, jaeger, listens, process, until, whole_lines
from servers.application import Clients, Observed, message, observed, provider, text
from servers.rotel import rotel
from servers.tap import tap

from otel_promptcache import attribute, route, semconv

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("peers")]
SIGNALS = {"traces": "spans", "metrics": "metrics", "logs": "logRecords"}


class Way(NamedTuple):
    """How one leg is sent."""

    protocol: str
    gzip: bool

    @property
    def name(self) -> str:
        return f"{self.protocol}-{'gzip' if self.gzip else 'plain'}"


WAYS = [Way(protocol, gzip) for protocol in ("grpc", "http") for gzip in (False, True)]
OTHER = {"grpc": "http", "http": "grpc"}
"""How rotel sends on what it was sent by one protocol."""
DIRECT, THROUGH = ([f"{who}-{way.name}" for way in WAYS] for who in ("direct", "rotel"))
ROUTES = [*DIRECT, *THROUGH]


# --- One application, and eight routes to one Collector ---------------------------------------------------


def configuration(folder: Path, ports: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """A Collector that has a door for each route, and writes what comes through it to files of its own."""
    doors = {
        f"otlp/{name}": {
            "protocols": {"grpc": {"endpoint": f"{HOST}:{grpc_port}"}, "http": {"endpoint": f"{HOST}:{http_port}"}}
        }
        for name, (grpc_port, http_port) in ports.items()
    }
    named = [(name, signal) for name in ports for signal in SIGNALS]
    return {
        "receivers": doors,
        "exporters": {
            f"file/{name}-{signal}": {"path": str(folder / f"{name}-{signal}.jsonl"), "flush_interval": "100ms"}
            for name, signal in named
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                f"{signal}/{name}": {"receivers": [f"otlp/{name}"], "exporters": [f"file/{name}-{signal}"]}
                for name, signal in named
            },
        },
    }


@dataclass
class Sender:
    """The SDK's exporters of all signals for one way to one address."""

    spans: Any
    metrics: Any
    logs: Any

    @classmethod
    def to(cls, port: int, way: Way) -> Sender:
        if way.protocol == "grpc":
            compression = grpc.Compression.Gzip if way.gzip else grpc.Compression.NoCompression
            there: dict[str, Any] = {"endpoint": f"http://{HOST}:{port}", "insecure": True, "timeout": 60}
            return cls(*(made(**there, compression=compression) for made in (GrpcSpans, GrpcMetrics, GrpcLogs)))
        how = {"compression": Compression.Gzip if way.gzip else Compression.NoCompression, "timeout": 60}
        urls = {signal: f"http://{HOST}:{port}/v1/{signal}" for signal in SIGNALS}
        made = ((HttpSpans, "traces"), (HttpMetrics, "metrics"), (HttpLogs, "logs"))
        return cls(*(exporter(endpoint=urls[signal], **how) for exporter, signal in made))

    def send(self, said: Said) -> None:
        results = [self.spans.export(said.spans), self.metrics.export(said.metrics), self.logs.export(said.logs)]
        assert [result.name for result in results] == ["SUCCESS"] * 3
        for exporter in (self.spans, self.metrics, self.logs):
            exporter.shutdown()


class Said(NamedTuple):
    """Everything that an application has recorded. Metrics are collected once: they have the time of that in them."""

    spans: Sequence[Any]
    metrics: Any
    logs: Sequence[Any]

    @classmethod
    def by(cls, seen: Observed) -> Said:
        seen.settle()
        spans, logs = seen.exporter.get_finished_spans(), seen.records.get_finished_logs()
        return cls(spans, seen.reader.get_metrics_data(), logs)


def application(clients: Clients) -> None:
    """A hit, a miss that links to it, a stream, an error, a change of the prompt, a team beyond ASCII."""
    create = clients.anthropic.messages.create
    with route("/chat"), attribute(team="Gäste 会", tenant="acme"):
        for _ in range(2):
            create(**message(text(2000), text(10)))
        for _ in range(3):
            create(**message("now\n" + text(2000), text(10)))
        for _ in create(**message(text(2000), text(10)), stream=True):
            pass
        with pytest.raises(anthropic.InternalServerError):
            create(**message("", "hi"), extra_headers={"x-emulator-fault": "500"})
    clients.openai.responses.create(model="gpt-5.6", input=text(2000))


@dataclass
class Arrived:
    """What is in the Collector's files, by route, and what was heard on the way there."""

    folder: Path
    heard: dict[str, bytearray] = field(default_factory=dict)

    def records(self, route_name: str, signal: str) -> list[str]:
        """Every record with its resource and its scope, as JSON in one form, sorted."""
        file = self.folder / f"{route_name}-{signal}.jsonl"
        found = []
        for line in whole_lines(file):
            for resource in json.loads(line)[f"resource{signal[:-1].title()}s".replace("Traces", "Spans")]:
                for scope in resource[f"scope{signal[:-1].title()}s".replace("Traces", "Spans")]:
                    for record in scope[SIGNALS[signal]]:
                        whole = (resource["resource"], resource.get("schemaUrl"), scope.get("scope"), record)
                        found.append(json.dumps(whole, sort_keys=True))
        return sorted(found)


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrived]:
    folder = tmp_path_factory.mktemp("peers")
    numbers = iter(free_ports(2 * len(ROUTES)))
    doors = {name: (next(numbers), next(numbers)) for name in ROUTES}
    file = folder / "collector.yaml"
    file.write_text(yaml.safe_dump(configuration(folder, doors)))
    found = Arrived(folder)

    def ready() -> bool:
        return all(listens(port) for pair in doors.values() for port in pair)

    with ExitStack() as running:
        running.enter_context(process([built("collector"), f"--config={file}"], folder / "collector.log", ready))

        def tapped(name: str, port: int) -> int:
            taken, found.heard[name] = running.enter_context(tap(port))
            return taken

        targets = []
        for way in WAYS:
            onward, name = OTHER[way.protocol], f"rotel-{way.name}"
            behind = f"http://{HOST}:{doors[name][onward == 'http']}"
            one = running.enter_context(rotel(folder, name, behind, protocol=onward))
            targets.append((f"direct-{way.name}", doors[f"direct-{way.name}"][way.protocol == "http"], way))
            targets.append((name, int((one.http if way.protocol == "http" else one.grpc).rpartition(":")[2]), way))
        clients = Clients(running.enter_context(provider()).url)
        with observed(ledger="true", prompt_map="true", hash_key="key") as seen:
            application(clients)
            said = Said.by(seen)
            for name, port, way in targets:
                Sender.to(tapped(name, port), way).send(said)
        clients.close()
        for signal in SIGNALS:
            until(lambda signal=signal: found.records("direct-grpc-plain", signal))
            expected = len(found.records("direct-grpc-plain", signal))
            until(
                lambda signal=signal, expected=expected: all(len(found.records(r, signal)) >= expected for r in ROUTES)
            )
        yield found


@pytest.mark.verifies("signals by other ways and behind rotel, equal")
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", ROUTES[1:])
def test_what_arrives_is_the_same_by_every_route(arrived: Arrived, name: str, signal: str) -> None:
    """To the last attribute: times, ids, links, exemplars, event names."""
    assert arrived.records(name, signal) == arrived.records(ROUTES[0], signal)


@pytest.mark.parametrize("leg", ROUTES)
def test_a_leg_is_compressed_where_it_was_asked_for(arrived: Arrived, leg: str) -> None:
    """Heard on the wire: no name of ours can be read where it is, all can where it is not."""
    heard = arrived.heard[leg]
    assert heard
    assert (b"promptcache.status" in heard) == leg.endswith("plain")


def test_there_is_something_of_every_kind_in_it(arrived: Arrived) -> None:
    """Links, exemplars, the text of another script, and every kind of event: equality of nothing would be cheap."""
    spans, metrics, logs = (" ".join(arrived.records(ROUTES[-1], signal)) for signal in SIGNALS)
    for wanted in ('"links"', json.dumps("Gäste 会"), '"code": 2'):
        assert wanted in spans
    for wanted in ("promptcache.cost", "exemplars", "promptcache.schema", "histogram", "asDouble"):
        assert wanted in metrics
    for wanted in (semconv.EVENT_CALL, semconv.EVENT_PROMPT, semconv.EVENT_CHANGED):
        assert f'"eventName": "{wanted}"' in logs


# --- Started as a user starts it --------------------------------------------------------------------------

SCRIPT = """
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
for word in ("abc ", "abc ", "now abc "):
    client.messages.create(
        model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "hi"}],
        system=[{"type": "text", "text": word + "abc " * 2000, "cache_control": {"type": "ephemeral"}}])
"""
LAUNCHER = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"


def started(environment: Mapping[str, str], file: Path, *arguments: str) -> subprocess.Popen[str]:
    """An application that knows of OpenTelemetry by its environment only."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHONPATH"))}
    command = [str(LAUNCHER), sys.executable, str(file), *arguments]
    return subprocess.Popen(
        command, env={**inherited, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_an_application_that_is_sent_there_by_its_environment(tmp_path: Path) -> None:
    """``opentelemetry-instrument``, to rotel and through it into the shipped Collector: its traces, its metrics and its
    ledger agree on every call."""
    file = tmp_path / "app.py"
    file.write_text(SCRIPT)
    used = (Way("grpc", True), Way("http", False))
    with (
        jaeger(tmp_path) as tracing,
        collector(tmp_path, tracing.endpoint) as collecting,
        rotel(tmp_path, "rotel", collecting.grpc) as peer,
        provider() as emulated,
    ):
        running = [
            started(
                {
                    "OTEL_SERVICE_NAME": way.name,
                    "OTEL_EXPORTER_OTLP_ENDPOINT": peer.http if way.protocol == "http" else peer.grpc,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf" if way.protocol == "http" else "grpc",
                    **({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"} if way.gzip else {}),
                    "OTEL_PROMPTCACHE_LEDGER": "true",
                    "OTEL_PROMPTCACHE_HASH_KEY": "key",
                    "NO_PROXY": "*",
                },
                file,
                emulated.url,
                f"sk-{way.name}",  # an account each, and so a cache each
            )
            for way in used
        ]
        for one in running:
            said, _ = one.communicate(timeout=300)
            assert (one.returncode, said) == (0, "")

        for way in used:
            spans = until(lambda way=way: three(span for span in tracing.find(way.name)))
            events = until(
                lambda way=way: three(one for one in collecting.ledger_events() if one["service.name"] == way.name)
            )
            assert sorted(span.tags["promptcache.status"] for span in spans) == ["cold", "hit", "miss"]
            calls = {event["spanId"]: event for event in events}
            for span in spans:
                event = calls[span.span_id]
                both = {name: value for name, value in event.items() if name in span.tags}
                assert len(both) > 20
                assert {name: span.tags[name] for name in both} == both
            page = until(lambda way=way: counted(collecting, way.name))
            assert page["promptcache_calls_total"] == 3
            assert page["promptcache_cost_USD_total"] == pytest.approx(
                sum(one["promptcache.cost.total"] for one in events)
            )


def three(found: Iterable[Any]) -> list[Any]:
    """All of them, once they are three."""
    listed = list(found)
    return listed if len(listed) == 3 else []


def counted(collecting: Collector, service: str) -> dict[str, float]:
    """The sum of each series of a service on the page that Prometheus scrapes."""
    found: dict[str, float] = {}
    with urlopen(f"http://{collecting.metrics}/metrics", timeout=60) as page:
        for line in page.read().decode().splitlines():
            series, _, value = line.partition(" # ")[0].rpartition(" ")
            if f'job="{service}"' in series:
                name = series.partition("{")[0]
                found[name] = found.get(name, 0) + float(value)
    return found
