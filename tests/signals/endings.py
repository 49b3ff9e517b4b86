"""Ends of a process, run by test_endings.py in interpreters of their own: ``endings.py SCENARIO FILE``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import otel_promptcache
from otel_promptcache.instrumentation import endings, runtime


class File(SpanExporter):
    """A line for each span."""

    def export(self, spans: Any) -> SpanExportResult:
        with open(sys.argv[2], "a") as file:
            file.writelines(f"{span.name}\n" for span in spans)
        return SpanExportResult.SUCCESS


class Silent(SpanExporter):
    """Somebody who never answers."""

    def export(self, spans: Any) -> SpanExportResult:
        time.sleep(3600)
        return SpanExportResult.SUCCESS


def tracing(exporter: SpanExporter | None = None) -> TracerProvider:
    if exporter is None:  # how long is waited for those who do not answer is another matter
        endings.SECONDS = 30  # type: ignore[misc]
        runtime.flush.__defaults__ = (30.0,)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(exporter or File(), schedule_delay_millis=3_600_000))
    otel_promptcache.instrument(tracer_provider=tracers, meter_provider=MeterProvider([]))
    return tracers


def call(tracers: TracerProvider, name: str) -> None:
    """As if a model had been called."""
    running = runtime.running()
    if running is not None:
        running.telemetry.used = True
    tracers.get_tracer("test").start_span(name).end()


def wait() -> None:
    """For a signal; well behaved, should none come."""
    signal.alarm(60)
    while True:
        time.sleep(0.05)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    wait()


# --- Scenarios ----------------------------------------------------------------------------------------------


def nobody_handles_it() -> None:
    call(tracing(), "call")
    terminate()


def somebody_handles_it() -> None:
    """As gunicorn does; then it ends as that one wants."""
    tracers = tracing()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    call(tracers, "call")
    terminate()


def somebody_passes_it_on() -> None:
    """Who calls what was there before, and goes on, is not killed by it."""
    tracers = tracing()
    before: Any = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: Any) -> None:
        before(number, frame)
        call(tracers, "later")
        tracers.force_flush()
        sys.exit(7)

    signal.signal(signal.SIGTERM, handle)
    call(tracers, "call")
    terminate()


def nobody_answers() -> None:
    call(tracing(Silent()), "call")
    terminate()


def everything_is_locked() -> None:
    """The signal comes in the middle of something that nobody may do twice."""
    tracers = tracing()
    call(tracers, "call")
    running = runtime.running()
    assert running is not None
    with running.observer.worker._starting, running.telemetry.table.lock:
        terminate()


def it_is_left() -> None:
    tracers = tracing()
    otel_promptcache.uninstrument()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    call(tracers, "call")
    terminate()


def on_another_thread() -> None:
    """Which may not change what a signal does."""
    thread = threading.Thread(target=tracing)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    sys.exit(7)


def _child(tracers: TracerProvider, name: str) -> None:
    call(tracers, name)


def forked_child() -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_child, args=(tracing(), "child"))
    process.start()
    process.join()
    sys.exit(process.exitcode)


def idle_child() -> None:
    """One that calls no model: what it has inherited, and what others count, is not ours to export."""
    tracers = tracing()
    call(tracers, "call")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=tracers.get_tracer("test").start_as_current_span("child").__enter__)
    process.start()
    process.join()
    sys.exit(process.exitcode)


def interrupted_pool() -> None:
    """By Ctrl-C, while its processes are let go home: they are gone all the same."""
    tracing()

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    endings._let_go_home = interrupt
    pool = multiprocessing.get_context("fork").Pool(2)
    processes = list(pool._pool)  # type: ignore[attr-defined]
    try:
        pool.terminate()
    except KeyboardInterrupt:
        for process in processes:
            process.join(60)
        sys.exit(any(process.exitcode is None for process in processes))
    sys.exit(9)


def terminated_pool() -> None:
    """As the end of the block does it."""
    tracing()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(_pooled, ["one", "two"], chunksize=1)


def _pooled(name: str) -> None:
    from otel_promptcache.instrumentation import runtime

    running = runtime.running()
    assert running is not None
    call(running.telemetry._provider, name)  # type: ignore[arg-type]


def busy_pool() -> None:
    """Work that is under way is broken off, as its owner wants."""
    tracing()
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    with context.Pool(1, _remember, (begun,)) as pool:
        pool.apply(_pooled, ("lost",))
        pool.apply_async(_work_on)
        assert begun.wait(30)


def _remember(begun: Any) -> None:
    globals()["begun"] = begun


def _work_on() -> None:
    globals()["begun"].set()
    time.sleep(60)


def a_child_is_terminated() -> None:
    """At once, while it waits for what does not come."""
    tracing()
    context = multiprocessing.get_context("fork")
    lock = context.Lock()
    lock.acquire()
    process = context.Process(target=lock.acquire)
    process.start()
    process.terminate()
    process.join()
    assert process.exitcode == -signal.SIGTERM


def in_a_child() -> None:
    """Started where a process of multiprocessing is already at work."""
    process = multiprocessing.get_context("fork").Process(target=lambda: call(tracing(), "child"))
    process.start()
    process.join()
    sys.exit(process.exitcode)


def asked() -> None:
    """Before an end that nobody can know of."""
    tracers = tracing()
    call(tracers, "call")
    assert otel_promptcache.flush(30)
    os._exit(7)


def asked_in_vain() -> None:
    call(tracing(Silent()), "call")
    assert not otel_promptcache.flush(0.2)
    os._exit(7)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
