"""Servers and pools with many processes, started as their users do: nothing is lost, nothing counts twice.

Real SDK calls to an emulated provider; spans in Jaeger, the ledger in the Collector's file, counters in Prometheus.
All of them run side by side, because they spend their time on starting processes. Between two exports of metrics is a
minute, so that what is seen has been sent by the end of a process.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from servers import (
    HOST,
    ROOT,
    Collector,
    Jaeger,
    Prometheus,
    collector,
    free_ports,
    jaeger,
    listens,
    prometheus,
    prometheus_config,
    until,
    until_is,
)
from servers.application import provider
from servers.valkey import valkey

from otel_promptcache.cli import _doctor_prometheus
from otel_promptcache.cli._doctor_report import Finding, Level
from otel_promptcache.emulator import linear

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("workers")]

PATIENCE = 300.0
"""Seconds for some twenty interpreters to start on a busy machine."""
ASKED = 24
TASKS = 4
FROM_ZERO = "created-timestamp-zero-ingestion,promql-extended-range-selectors"
"""What makes an ``increase`` of Prometheus's begin where a counter began, and end where it ended."""
POOLED = 13
"""Calls of examples/workers/pool.py."""


@dataclass
class Site:
    """Where everything runs."""

    folder: Path
    provider: str
    collector: Collector
    jaeger: Jaeger
    prometheus: Prometheus
    broker: str
    calls: dict[str, int] = field(default_factory=dict)
    """Made, by service."""
    codes: dict[str, int] = field(default_factory=dict)
    """With what they ended."""

    def start(self, service: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """``opentelemetry-instrument`` with a program of this environment."""
        scripts = Path(sys.executable).parent
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ANTHROPIC_BASE_URL": self.provider,
            "ANTHROPIC_API_KEY": "sk-test",
            "ANTHROPIC_OPEN_TELEMETRY": "false",
            "CELERY_BROKER_URL": self.broker,
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.http,
            "OTEL_PROMPTCACHE_LEDGER": "true",
            **more,
        }
        with self.log(service).open("ab") as log:
            return subprocess.Popen(
                ["opentelemetry-instrument", *command], env=environment, cwd=ROOT, stdout=log, stderr=log
            )

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def ledger(self, service: str) -> list[dict[str, Any]]:
        """Once there is a row for each call."""

        def rows() -> list[dict[str, Any]]:
            return [event for event in self.collector.ledger_events() if event["service.name"] == service]

        until(lambda: len(rows()) >= self.calls[service])
        return rows()

    def spans(self, service: str) -> list[Any]:
        return [span for span in self.jaeger.find(service) if "promptcache.status" in span.tags]

    def counted(self, metric: str, service: str) -> dict[str, float]:
        """By process. Those that are gone are there, however long the others took."""
        last = f'max_over_time({metric}{{service_name="{service}"}}[1h])'
        found = self.prometheus.query(f"sum by (service_instance_id) ({last})")
        return {labels["service_instance_id"]: value for labels, value in found}

    # --- what is run ----------------------------------------------------------------------------------------

    def serve(self, service: str, *command: str, **more: str) -> None:
        """A web server that is asked and then told to end."""
        (port,) = free_ports(1)
        bind = ["--port", str(port)] if command[0] == "uvicorn" else ["--bind", f"{HOST}:{port}"]
        server = self.start(service, command[0], *bind, *command[1:], **more)
        try:
            until(lambda: listens(port), PATIENCE)
            if command[0] == "uvicorn":
                until(lambda: self.log(service).read_bytes().count(b"startup complete") >= 4, PATIENCE)
            else:
                until(lambda: self.log(service).read_bytes().count(b"Booting worker") >= 2, PATIENCE)
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda number: ask(f"http://{HOST}:{port}/q{number}"), range(ASKED)))
        finally:
            self.end(service, server)
        self.calls[service] = ASKED

    def end(self, service: str, server: subprocess.Popen[bytes]) -> None:
        server.send_signal(signal.SIGTERM)
        try:
            self.codes[service] = server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            raise

    def work(self, service: str) -> None:
        """A Celery worker, whose tasks are sent by another process in the name of somebody."""
        command = ("celery", "--app", "examples.workers.tasks", "worker", "--loglevel", "INFO")
        worker = self.start(service, *command, "--concurrency", "2", "--max-tasks-per-child", "1")
        try:
            until(lambda: b" ready." in self.log(service).read_bytes(), PATIENCE)
            sent = self.start(f"{service}-web", "python", "-c", SENDING, str(TASKS))
            assert sent.wait(PATIENCE) == 0, self.log(f"{service}-web").read_text()
            until(lambda: self.log(service).read_bytes().count(b"succeeded in") == TASKS, PATIENCE)
        finally:
            self.end(service, worker)
        self.calls[service] = TASKS

    def pool(self, method: str, **more: str) -> None:
        self.codes[method] = self.start(method, "python", "examples/workers/pool.py", method, **more).wait(PATIENCE)
        self.calls[method] = POOLED


def ask(url: str) -> None:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.status == 200


SENDING = """
import sys
from examples.workers.tasks import summarize
from otel_promptcache import attribute, conversation, route
with route("/letters"), conversation("c1"), attribute(team="mail", tenant="acme", user="bob@example.com"):
    for number in range(int(sys.argv[1])):
        summarize.delay(f"letter {number}")
"""

SERVICES: dict[str, Callable[[Site], None]] = {
    "gunicorn": lambda site: site.serve(
        "gunicorn", "gunicorn", "--preload", "--workers", "2", "examples.workers.wsgi:app"
    ),
    "gthread": lambda site: site.serve(
        # Workers are replaced after five requests each.
        *("gthread", "gunicorn", "--preload", "--workers", "2", "--threads", "2", "--max-requests", "5"),
        "examples.workers.wsgi:app",
    ),
    "uvicorn": lambda site: site.serve(
        *("uvicorn", "uvicorn", "--workers", "4", "--timeout-worker-healthcheck", "60", "examples.workers.asgi:app"),
        OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod-7",
    ),
    "celery": lambda site: site.work("celery"),
    "fork": lambda site: site.pool("fork"),
    "spawn": lambda site: site.pool("spawn", OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod-7"),
}
PROCESSES = {"gunicorn": 2, "gthread": 3, "uvicorn": 2, "celery": TASKS, "fork": 3, "spawn": 3}
"""That make a call, at least."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """After everything has run and ended."""
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as running:
        tracing = running.enter_context(jaeger(folder))
        collecting = running.enter_context(collector(folder, tracing.endpoint, "processors::batch::timeout: 50ms"))
        scraped = prometheus_config([collecting.metrics])
        scraping = running.enter_context(prometheus(scraped, folder, FROM_ZERO))
        emulated = running.enter_context(provider())
        emulated.limits.enforced = False
        emulated.latency = linear(0.1)  # so that one process cannot do it all before another has begun
        broker = running.enter_context(valkey())
        found = Site(folder, emulated.url, collecting, tracing, scraping, broker.url)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:  # more at once would not be faster
            for done in [pool.submit(one, found) for one in SERVICES.values()]:
                done.result()
        print(f"{sum(found.calls.values())} calls in {len(SERVICES)} services: {time.monotonic() - began:.0f} s")
        yield found


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_nothing_is_lost(site: Site, service: str) -> None:
    """A span, a row of the ledger and a count for each call, and the money of both is the same."""
    made = site.calls[service]
    until(lambda: sum(site.counted("promptcache_calls_total", service).values()) >= made)
    until(lambda: len(site.spans(service)) >= made)
    ledger, calls = site.ledger(service), site.counted("promptcache_calls_total", service)
    assert (len(ledger), len(site.spans(service)), sum(calls.values())) == (made, made, made)
    assert len({event["promptcache.call.id"] for event in ledger}) == made
    usd = sum(event["promptcache.cost.total"] for event in ledger)
    costs = partial(site.counted, "promptcache_cost_USD_total", service)
    until_is(lambda: sum(costs().values()), pytest.approx(usd, rel=1e-6))
    print(f"{service}: {made} calls, {len(calls)} processes, USD {usd:.6f}")


@pytest.mark.verifies("costs that increased as the ledger says")
def test_what_increased_in_prometheus_is_what_the_ledger_says(site: Site, service: str) -> None:
    """Of processes that were scraped but once, too."""
    cost = f'promptcache_cost_USD_total{{service_name="{service}"}}'
    usd = sum(event["promptcache.cost.total"] for event in site.ledger(service))
    increased = f"sum(increase({cost}[1h] anchored))"
    until_is(lambda: site.prometheus.value(increased), pytest.approx(usd, rel=1e-6))


def test_each_process_counts_under_its_own_name(site: Site, service: str) -> None:
    """Also those that are started with one name for all, which they keep the beginning of."""
    until(lambda: sum(site.counted("promptcache_calls_total", service).values()) >= site.calls[service])
    names = site.counted("promptcache_calls_total", service).keys()
    assert len(names) >= PROCESSES[service]
    if service in ("uvicorn", "spawn"):
        assert all(name.startswith("pod-7/") for name in names)
    assert {event["service.instance.id"] for event in site.ledger(service)} == names


def test_they_end_as_ever(site: Site, service: str) -> None:
    assert site.codes[service] == 0
    said = site.log(service).read_text()
    assert "Traceback" not in said
    assert "otel-promptcache" not in said


def test_tasks_know_whom_they_are_for(site: Site) -> None:
    """What was said where a task was sent holds where it is done; of a user, no more than a hash leaves the sender."""
    for event in site.ledger("celery"):
        assert event["promptcache.route"] == "/letters"
        assert event["gen_ai.conversation.id"] == "c1"
        assert (event["promptcache.attr.team"], event["promptcache.attr.tenant"]) == ("mail", "acme")
        assert re.fullmatch("[0-9a-f]{16}", event["promptcache.attr.user"])
    assert len({event["promptcache.attr.user"] for event in site.ledger("celery")}) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_executors_know_whom_they_work_for(site: Site, method: str) -> None:
    """Call by call, whoever came first when a process began; a pool of multiprocessing does not."""
    teams = Counter(event.get("promptcache.attr.team") for event in site.ledger(method))
    assert teams == {"mail": 3, "legal": 3, None: 7}


def test_doctor_names_an_id_that_two_processes_have(site: Site) -> None:
    """Each of two counts for itself, and what is scraped is now the one's and now the other's."""
    exporter = partial(OTLPMetricExporter, endpoint=f"{site.collector.http}/v1/metrics", timeout=60)
    resource = Resource({"service.name": "twins", "service.instance.id": "pod-8"})
    twins = [MeterProvider([PeriodicExportingMetricReader(exporter())], resource=resource) for _ in range(2)]
    counters = [twin.get_meter("otel_promptcache").create_counter("promptcache.calls") for twin in twins]
    counters[0].add(10)
    turns = itertools.cycle(zip(twins, counters, strict=True))
    resets = 'resets(promptcache_calls_total{service_name="twins"}[1h])'

    def fallen() -> bool:
        twin, counter = next(turns)
        counter.add(1)
        twin.force_flush()
        time.sleep(0.6)
        return any(value > 5 for _, value in site.prometheus.query(resets))

    until(fallen, PATIENCE)
    for twin in twins:
        twin.shutdown()

    def named() -> list[Finding]:
        found = _doctor_prometheus.findings(site.prometheus.url, (), 60)
        return [one for one in found if (one.level, one.subject) == (Level.PROBLEM, "service.instance.id")]

    (said,) = until(named)
    assert said.text.startswith("pod-8: ")
