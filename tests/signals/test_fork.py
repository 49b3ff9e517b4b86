"""A process that forks: what happened before is the parent's, and everything works in the child.

Every scenario is a function of this file that runs in an interpreter of its own, because forking a process with the
threads of a test runner in it would test the test runner.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")]

TEMPORALITIES: dict[str, dict[type, AggregationTemporality]] = {
    "cumulative": {},
    "delta": {ObservableCounter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA},
}
CALLS, TOKENS, COST = "promptcache.calls", "gen_ai.client.inference.usage.input_tokens", "promptcache.cost"
DURATION = "gen_ai.client.operation.duration"


# --- In the other interpreter -------------------------------------------------------------------------------


class Kept(MetricExporter):
    """What a backend would hold: deltas summed, else the last values; of counters and of the counts of histograms."""

    def __init__(self, temporality: dict[type, AggregationTemporality]) -> None:
        super().__init__(preferred_temporality=temporality)
        self.adds = bool(temporality)
        self.sums: dict[str, float] = {}

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._add(metric)
        return MetricExportResult.SUCCESS

    def _add(self, metric: Any) -> None:
        if metric.name in (CALLS, TOKENS, COST, DURATION):
            points = metric.data.data_points
            total = sum(point.count if metric.name == DURATION else point.value for point in points)
            self.sums[metric.name] = total + (self.sums.get(metric.name, 0) if self.adds else 0)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            said = json.dumps(work())
        except BaseException as error:
            said = json.dumps(f"{type(error).__name__}: {error}")
        with os.fdopen(writer, "w") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def forked() -> Any:
    """Two calls before two forks, of which one is collected; two calls in each child; then one more in the parent.

    The children repeat a prompt of the parent, and send another version of it.
    """
    from servers.application import Clients, message, observed, provider, text

    kept = {name: Kept(temporality) for name, temporality in TEMPORALITIES.items()}
    readers: dict[str, MetricReader] = {
        name: PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
        for name, exporter in kept.items()
    }
    for name, temporality in TEMPORALITIES.items():
        kept[f"{name}, by hand"] = Kept(temporality)
        readers[f"{name}, by hand"] = InMemoryMetricReader(temporality)

    with (
        provider() as emulated,
        observed(readers=list(readers.values()), ledger="true", prompt_map="true") as seen,
    ):

        def ask(first: str) -> None:
            client = Clients(emulated.url).anthropic
            client.messages.create(**message(f"{first}\n" + text(1999), text(10)))
            client.close()

        def collect() -> dict[str, Any]:
            seen.settle()
            for name, reader in readers.items():
                if isinstance(reader, InMemoryMetricReader):
                    data = reader.get_metrics_data()
                    assert data is not None
                    kept[name].export(data)
                else:
                    reader.force_flush()
            return {name: one.sums for name, one in kept.items()}

        def child(another: str) -> Callable[[], Any]:
            def work() -> Any:
                for one in kept.values():
                    one.sums.clear()  # another process: what it seems to have exported is the parent's
                seen.records.clear()
                seen.exporter.clear()
                ask("one")
                ask(another)
                return {
                    "metrics": collect(),
                    "statuses": [call["promptcache.status"] for call in seen.ledger],
                    "ids": [call["promptcache.call.id"] for call in seen.ledger],
                    "lines": [call.get("promptcache.line") for call in seen.ledger],
                    "lineages": [call["promptcache.lineage.id"] for call in seen.ledger],
                    "maps": [one["promptcache.map.shared"] for one in seen.maps],
                }

            return work

        ask("one")
        collect()
        ask("one")
        seen.settle()
        children = [in_child(child("two")), in_child(child("six"))]
        ask("one")
        return {
            "metrics": collect(),
            "ids": [call["promptcache.call.id"] for call in seen.ledger],
            "lineages": [call["promptcache.lineage.id"] for call in seen.ledger],
            "children": children,
        }


def while_prices_are_loading() -> Any:
    """A server that imports the application, instruments it and forks its workers at once."""
    from opentelemetry.sdk.metrics import MeterProvider
    from servers.application import Clients, message, provider, text

    import otel_promptcache
    from otel_promptcache import pricing
    from otel_promptcache.instrumentation import runtime
    from otel_promptcache.pricing import prices

    look_up, begun, seen = prices._listed, threading.Event(), threading.Event()

    def slowly(*asked: Any) -> Any:
        begun.set()
        seen.wait(60)
        time.sleep(0.5)
        return look_up(*asked)

    prices._listed = slowly  # type: ignore[assignment]
    with provider() as emulated:
        otel_promptcache.instrument(meter_provider=MeterProvider([]))
        assert begun.wait(60)
        loading = not pricing.ready()
        seen.set()

        def work() -> Any:
            Clients(emulated.url).anthropic.messages.create(**message(text(2000), text(10)))
            running = runtime.running()
            assert running is not None
            return running.observer.worker.flush(60)

        return {"loading": loading, "settled": in_child(work)}


class Busy(Kept):
    """In the middle of an export, in the process that made it."""

    def __init__(self) -> None:
        super().__init__({})
        self.begun = threading.Event()
        self.made = os.getpid()

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        if os.getpid() == self.made:
            self.begun.set()
            time.sleep(60)
        return super().export(metrics_data)


def while_metrics_are_exported() -> Any:
    """A server that forks another worker while its own metrics wait for a slow collector."""
    from opentelemetry.sdk.metrics import MeterProvider
    from servers.application import Clients, message, provider, text

    import otel_promptcache

    busy = Busy()
    reader = PeriodicExportingMetricReader(busy, export_interval_millis=3_600_000)
    with provider() as emulated:
        otel_promptcache.instrument(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
        Clients(emulated.url).anthropic.messages.create(**message(text(2000), text(10)))
        threading.Thread(target=reader.force_flush, daemon=True).start()
        assert busy.begun.wait(30)

        def work() -> Any:
            Clients(emulated.url).anthropic.messages.create(**message(text(2000), text(10)))
            return [otel_promptcache.flush(60), busy.sums[CALLS]]

        return in_child(work)


def instances() -> Any:
    """The ids under which a process and two that it forks count, where somebody has chosen one."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from servers.application import Clients, message, provider, text

    import otel_promptcache

    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], resource=Resource.create({"service.instance.id": "pod-7"}))

    def instance() -> Any:
        Clients(emulated.url).anthropic.messages.create(**message(text(2000), text(10)))
        (resource,) = reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        return resource.resource.attributes["service.instance.id"]

    with provider() as emulated:
        otel_promptcache.instrument(meter_provider=meters)
        return [instance(), in_child(instance), in_child(instance)]


# --- The tests ----------------------------------------------------------------------------------------------


def run(scenario: str) -> Any:
    """The result of a scenario in an interpreter of its own."""
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(here), scenario],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found() -> Any:
    return run("forked")


@pytest.mark.parametrize("reading", ["cumulative", "delta", "cumulative, by hand", "delta, by hand"])
def test_a_call_before_the_fork_counts_once(found: Any, reading: str) -> None:
    """Three calls of the parent and two of each child are seven, in counters and histograms, collected or not."""
    cold = 2000 * 3.75e-6 + 10 * 3e-6 + 50 * 15e-6
    hit = 2000 * 0.3e-6 + 10 * 3e-6 + 50 * 15e-6
    assert found["metrics"][reading] == pytest.approx({CALLS: 3, DURATION: 3, TOKENS: 3 * 2010, COST: cold + 2 * hit})
    for child in found["children"]:
        assert child["metrics"][reading] == pytest.approx({CALLS: 2, DURATION: 2, TOKENS: 2 * 2010, COST: cold + hit})


def test_the_history_goes_on_in_the_child(found: Any) -> None:
    """What the parent sent is known: a hit of the same conversation, and a miss where another version is sent."""
    for child in found["children"]:
        assert child["statuses"] == ["hit", "miss"]
        assert child["lineages"][0] == found["lineages"][0]


def test_the_worker_goes_on_in_the_child(found: Any) -> None:
    """The differing line is known because a worker hashed lines, and prompt maps are written on its thread."""
    for child in found["children"]:
        assert child["lines"] == [None, 1]
        assert child["maps"] == [2, 0]


def test_call_ids_differ(found: Any) -> None:
    ids = [*found["ids"], *found["children"][0]["ids"], *found["children"][1]["ids"]]
    assert len(ids) == 7
    assert len(set(ids)) == 7


def test_a_fork_while_prices_are_being_loaded() -> None:
    """The fork waits for them, and the child's calls are settled."""
    assert run("while_prices_are_loading") == {"loading": True, "settled": True}


def test_a_fork_while_metrics_are_exported() -> None:
    """The child does not wait for an export that only its parent can end."""
    assert run("while_metrics_are_exported") == [True, 1]


def test_every_process_counts_under_its_own_name() -> None:
    first, *forked = run("instances")
    assert first == "pod-7"
    assert len({first, *forked}) == 3


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
