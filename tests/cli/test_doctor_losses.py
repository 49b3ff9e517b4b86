"""``otel-promptcache doctor --prometheus``: what was lost on the way, versions and keys side by side in a fleet."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from servers import (
    HOST,
    Prometheus,
    built,
    collector,
    free_ports,
    listens,
    process,
    prometheus,
    prometheus_config,
    until,
    until_is,
)
from servers.application import provider
from servers.otlp import OUT_OF_MEMORY, Manner, Receiver, full_queue, receiver

from otel_promptcache import semconv
from otel_promptcache._version import __version__
from otel_promptcache.cli import _doctor_export, _doctor_prometheus
from otel_promptcache.cli._doctor_export import GRPC, Target
from otel_promptcache.cli._doctor_report import Finding, Level
from otel_promptcache.cli._doctor_requests import one

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("losses")]
LAUNCHER = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"
SCRIPT = """
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="k", max_retries=0)
for number in range(60):
    client.messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "hi"}])
print("called", flush=True)
sys.stdin.read()
"""


@contextmanager
def application(folder: Path, provider_at: str, metrics_to: str, hanging: str) -> Iterator[None]:
    """Sends its metrics, and its spans and events to somebody who never answers; its queues are small."""
    file = folder / "app.py"
    file.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": hanging,
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{metrics_to}/v1/metrics",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        **{f"OTEL_{which}_MAX_{what}_SIZE": "4" for which in ("BSP", "BLRP") for what in ("QUEUE", "EXPORT_BATCH")},
        "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
        "OTEL_PROMPTCACHE_LEDGER": "true",
        "NO_PROXY": "*",
    }
    command = [str(LAUNCHER), sys.executable, str(file), provider_at]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == "called\n"
        yield
        running.stdin.close()
        running.wait(60)


@contextmanager
def refusing_collector(folder: Path, behind: Receiver) -> Iterator[str]:
    """Its traces have a full queue, its logs no memory: where it tells about itself."""
    grpc, page = free_ports(2)
    exporters = full_queue(behind)
    pipelines = {
        "traces": {"receivers": ["otlp"], "exporters": list(exporters)},
        "logs": {"receivers": ["otlp"], "processors": list(OUT_OF_MEMORY), "exporters": list(exporters)},
    }
    reader = {"pull": {"exporter": {"prometheus": {"host": HOST, "port": page}}}}
    file = folder / "refusing.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{HOST}:{grpc}"}}}},
                "processors": OUT_OF_MEMORY,
                "exporters": exporters,
                "service": {"telemetry": {"metrics": {"readers": [reader]}}, "pipelines": pipelines},
            }
        )
    )
    command = [built("collector"), f"--config={file}"]
    with process(command, folder / "refusing.log", lambda: listens(grpc) and listens(page), grace=0.2):
        for signal in ("traces", "traces", "traces", "logs"):
            there = Target(signal, GRPC, f"http://{HOST}:{grpc}", False, {}, ("", "", ""))
            _doctor_export.send(there, 60.0, one(signal, b"0" * 16))
        yield f"{HOST}:{page}"


INFO = """# TYPE promptcache_info gauge
promptcache_info{job="bot",promptcache_version="0.9.0",promptcache_schema="%d",promptcache_key_id="aaaa"} 1
promptcache_info{job="bot",promptcache_version="0.9.1",promptcache_schema="%d",promptcache_key_id="bbbb"} 1
"""


@contextmanager
def page(text: str) -> Iterator[str]:
    """``host:port`` of something to be scraped."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"{HOST}:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A service that loses what it sends, a Collector that refuses, and another service with two versions and keys."""
    folder = tmp_path_factory.mktemp("losses")
    with ExitStack() as running:
        silent = running.enter_context(receiver(Manner.HANGS, "grpc"))
        collecting = running.enter_context(collector(folder))
        refusing = running.enter_context(refusing_collector(folder, silent))
        others = running.enter_context(page(INFO % (semconv.SCHEMA, semconv.SCHEMA + 2)))
        emulated = running.enter_context(provider())
        emulated.limits.enforced = False
        running.enter_context(application(folder, emulated.url, collecting.http, silent.url))
        config = prometheus_config([collecting.metrics, refusing, others])
        yield running.enter_context(prometheus(config, folder))


def said(fleet: Prometheus) -> dict[str, Finding]:
    """What is found now. The next look may find less: a scrape that comes late leaves a gap."""
    return {one.subject: one for one in _doctor_prometheus.findings(fleet.url, ("promptcache.route",), 60.0)}


def number(finding: Finding) -> int:
    """How many it says there were."""
    return int(finding.text.split()[0].replace(",", ""))


def test_what_was_lost_is_named(fleet: Prometheus) -> None:
    """In the process and in the Collector, with whose it was and what to do."""
    wanted = {
        "dropped in a process": ("because its queue was full (shop)", "OTEL_BSP_MAX_QUEUE_SIZE"),
        "not exported by a process": ("given up by the SDK (ReadTimeout)", "doctor in the environment"),
        "refused by a Collector": ("a limit of memory, or a full queue (otlp)", "memory_limiter"),
        "no room in a Collector's queue": ("records in the last hour (otlp_grpc)", "sending_queue"),
    }

    def everything() -> dict[str, Finding]:
        found = said(fleet)
        # Spans and events, all but those that waited when the exporter took some away.
        return found if wanted.keys() <= found.keys() and number(found["dropped in a process"]) > 30 else {}

    found = until(everything)
    for subject, (text, advice) in wanted.items():
        assert found[subject].level is Level.PROBLEM
        assert text in found[subject].text
        assert advice in found[subject].advice


def test_versions_and_keys_side_by_side_are_named(fleet: Prometheus) -> None:
    """As soon as both services have been scraped."""
    beside = f"{semconv.SCHEMA + 2} beside {semconv.SCHEMA}"
    versions = f"{__version__}, 0.9.0, 0.9.1 of otel-promptcache in 2 services; here {__version__}"
    wanted = {
        "schema": (Level.PROBLEM, f"{beside}: what reads the one cannot read the other"),
        "versions": (Level.NOTE, versions),
        "keys": (Level.PROBLEM, "2 in the processes of bot: aaaa, bbbb"),
    }

    def found() -> dict[str, tuple[Level, str]]:
        there = said(fleet)
        return {name: (there[name].level, there[name].text) for name in wanted if name in there}

    until_is(found, wanted)
