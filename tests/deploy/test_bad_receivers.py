"""A receiver that refuses, throttles, hangs or babbles is the SDK's trouble: calls are what they are without it."""

from __future__ import annotations

import gc
import logging
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from servers.application import Clients, Observed, message, observed, provider, text
from servers.otlp import OUT_OF_MEMORY, Manner, full_queue, receiver, troubled_collector

CALLS = 20
BAD = {
    **dict.fromkeys((Manner.REFUSES, Manner.THROTTLES, Manner.BUSY, Manner.HANGS, Manner.CLOSES), ("grpc", "http")),
    **dict.fromkeys((Manner.DENIES, Manner.REJECTS), ("grpc", "http")),
    **dict.fromkeys((Manner.BREAKS_OFF, Manner.BABBLES), ("http",)),
}
TIMEOUT = 0.5
"""Seconds that an exporter gives a receiver."""
HELD_UP = 0.8 * TIMEOUT
"""Seconds from which on a call has waited for the receiver. One that has not is over in some hundredths, in a tenth or
two on a busy machine."""


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with provider() as emulated:
        emulated.limits.enforced = False
        made = Clients(emulated.url)
        yield made
        made.close()


@dataclass
class Made:
    """What an application has had of its calls, and what was recorded of them."""

    answers: list[Any] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    recorded: list[Any] = field(default_factory=list)
    counted: float = 0


def exporting(url: str, protocol: str, *, seconds: float = TIMEOUT, queue: int = 2048) -> dict[str, Any]:
    """All three signals on their way there, again and again while calls are made."""
    there: list[Any]
    if protocol == "grpc":
        there = [made(endpoint=url, insecure=True, timeout=seconds) for made in (GrpcSpans, GrpcMetrics, GrpcLogs)]
    else:
        made_of = ((HttpSpans, "traces"), (HttpMetrics, "metrics"), (HttpLogs, "logs"))
        there = [made(endpoint=f"{url}/v1/{signal}", timeout=seconds) for made, signal in made_of]
    batches: dict[str, Any] = {
        "schedule_delay_millis": 10,
        "max_queue_size": queue,
        "max_export_batch_size": min(queue, 512),
    }
    return {
        "span_processors": [BatchSpanProcessor(there[0], **batches)],
        "readers": [PeriodicExportingMetricReader(there[1], 20, 200)],
        "log_processors": [BatchLogRecordProcessor(there[2], **batches)],
    }


def application(clients: Clients, seen: Observed, calls: int, made: Made) -> None:
    """Turns that hit and miss by turns."""
    for number in range(calls):
        begun = time.perf_counter()
        answer = clients.anthropic.messages.create(**message(text(1500, f"s{number % 3:02}"), text(10)))
        made.seconds.append(time.perf_counter() - begun)
        made.answers.append((answer.content, answer.stop_reason, answer.usage.output_tokens))
    seen.settle()
    made.counted += seen.total("promptcache.calls")
    wanted = ("gen_ai.request.model", "promptcache.route", "gen_ai.usage.output_tokens", "promptcache.schema")
    made.recorded += [{name: event.get(name) for name in wanted} for event in seen.ledger]
    assert len(seen.calls) == calls


def judge(clients: Clients, url: str, protocol: str, **more: Any) -> None:
    """Calls with nothing exported and with everything exported there, by turns: the same answers, none of them kept
    waiting, and the same in our own account of them."""
    alone, beside = Made(), Made()
    for _ in range(2):
        with observed(ledger="true") as seen:
            application(clients, seen, CALLS // 2, alone)
        with observed(**exporting(url, protocol, **more), ledger="true") as seen:
            application(clients, seen, CALLS // 2, beside)
    assert beside.answers == alone.answers
    assert beside.recorded == alone.recorded
    assert beside.counted == alone.counted == CALLS
    assert statistics.median(beside.seconds) < HELD_UP


@pytest.mark.parametrize(
    ("manner", "protocol"), [(manner, protocol) for manner, protocols in BAD.items() for protocol in protocols]
)
def test_calls_are_as_they_are_without_it(
    clients: Clients, manner: Manner, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do we say a word of it: that is for the exporter to do, and for `doctor`."""
    with caplog.at_level(logging.INFO), receiver(manner, protocol) as there:
        judge(clients, there.url, protocol)
    assert [record for record in caplog.records if "promptcache" in record.name] == []


def test_calls_while_the_queue_in_the_process_is_full(clients: Clients) -> None:
    """A queue of four, and nobody who takes anything: spans and events are lost on their way, no count is."""
    with receiver(Manner.HANGS, "http") as there:
        judge(clients, there.url, "http", queue=4)


@pytest.mark.server
@pytest.mark.parametrize("trouble", ["memory", "queue"])
def test_calls_beside_a_real_collector_in_trouble(clients: Clients, trouble: str, tmp_path: Path) -> None:
    """At its limit of memory, and with its queue full because what is behind it hangs."""
    with receiver(Manner.HANGS, "grpc") as behind:
        how: dict[str, Any] = (
            {"processors": OUT_OF_MEMORY} if trouble == "memory" else {"exporters": full_queue(behind)}
        )
        with troubled_collector(tmp_path, **how) as there:
            for protocol, url in there.items():
                judge(clients, url, protocol)


# --- Memory -------------------------------------------------------------------------------------------------


def grown(clients: Clients, **wires: Any) -> int:
    """Bytes that 40 calls have left behind, after 10 others."""
    with observed(**wires, ledger="true") as seen:

        def after(calls: int) -> int:
            application(clients, seen, calls, Made())
            for kept in (seen.exporter, seen.records):
                kept.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        before = after(10)
        return after(40) - before


def test_memory_is_bounded_by_the_queues(clients: Clients) -> None:
    """What calls leave behind beside a receiver that hangs is what they leave behind without one, and two queues."""
    tracemalloc.start()
    try:
        alone = grown(clients)
        with receiver(Manner.HANGS, "http") as there:
            beside = grown(clients, **exporting(there.url, "http", queue=10))
    finally:
        tracemalloc.stop()
    print(f"bytes left behind by 40 calls: {alone:,} alone, {beside:,} beside a receiver that hangs")
    assert beside - alone < 20 * 20_000  # both queues, at more than a record has


# --- The end of a process -----------------------------------------------------------------------------------

SCRIPT = """
import sys, time, anthropic
from opentelemetry import _logs, metrics, trace
trace.get_tracer("app").start_span("own").end()
metrics.get_meter("app").create_counter("own").add(1)
_logs.get_logger("app").emit(_logs.LogRecord(body="own"))
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="k", max_retries=0)
for number in range(30):
    client.messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "hi"}])
print("over", time.time(), flush=True)
"""
LAUNCHER = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"
OURS = "promptcache-anthropic,promptcache-openai"


class Running:
    """An application started as a user starts it, with us or without; what it says, and how long its end takes."""

    def __init__(self, file: Path, provider_at: str, url: str, protocol: str, *, ours: bool) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment = inherited | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_PROMPTCACHE_LEDGER": "true",
            "NO_PROXY": "*",
            **({} if ours else {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": OURS}),
        }
        self._process = subprocess.Popen(
            [str(LAUNCHER), sys.executable, str(file), provider_at],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self) -> tuple[float, list[str]]:
        """Seconds from its last line of code to its end, and what it has written."""
        said, _ = self._process.communicate(timeout=300)
        ended = time.time()
        assert self._process.returncode == 0, said
        (over,) = (line for line in said.splitlines() if line.startswith("over "))
        return ended - float(over.split()[1]), [line for line in said.splitlines() if line != over]


@pytest.mark.slow
def test_the_end_of_a_process_is_held_up_by_the_sdk_only(tmp_path: Path) -> None:
    """By its exporters' timeout, a signal after the other, and no longer with us than without; and nobody has said
    something for each call."""
    file = tmp_path / "app.py"
    file.write_text(SCRIPT)
    with provider() as emulated, receiver(Manner.HANGS, "http") as there, ThreadPoolExecutor(2) as pool:
        for _ in range(3):  # a machine that stands still holds up one of the two
            pair = [Running(file, emulated.url, there.url, "http", ours=ours) for ours in (True, False)]
            (with_us, said), (without, theirs) = pool.map(Running.ended, pair)
            if with_us < 2 * without + 2:
                break
    print(f"{with_us:.2f} s with us, {without:.2f} s without; {len(said)} and {len(theirs)} lines")
    assert with_us < 2 * without + 2
    assert not [line for line in said if "promptcache" in line]
    assert theirs
    assert len(said) < CALLS
