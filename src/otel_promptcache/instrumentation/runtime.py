"""Puts the rooms together, once a process, however often and by whomever we are started."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from otel_promptcache._collection import ignore_collections, watch_collections
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.memory import Memory
from otel_promptcache.instrumentation import hooks
from otel_promptcache.observer import Observer
from otel_promptcache.settings import REMEMBERED_BYTES, Live, Remember
from otel_promptcache.telemetry import Telemetry

_lock = threading.RLock()
_running: Runtime | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What is running."""

    live: Live
    telemetry: Telemetry
    observer: Observer


def running() -> Runtime | None:
    """The runtime of this process, None when we are not started."""
    return _running


def start(tracer_provider: Any = None, meter_provider: Any = None, logger_provider: Any = None, **_: Any) -> Runtime:
    """Starts us; the first start wins. Providers left out are the global ones, also when those are set later."""
    global _running
    with _lock:
        if _running is None:
            live = Live()
            settings = live.value
            key = HashKey(settings.hash_key)
            telemetry = Telemetry(live, key, tracer_provider, meter_provider, logger_provider)
            remembered = REMEMBERED_BYTES if settings.remember_text is Remember.MEMORY else 0
            observer = Observer(live, key, Memory(key, settings.history_segments, remembered), telemetry)
            telemetry.book.sweep = observer.sweep
            telemetry.book.pending.later = observer.worker.submit
            telemetry.before_first_call.append(observer.worker.flush_last)
            watch_collections()
            hooks.set_observer(observer)
            observer.load_prices()
            _running = Runtime(live, telemetry, observer)
        return _running


def stop() -> None:
    """Stops us: hooks pass through, instruments fall silent, queued records are written."""
    global _running
    with _lock:
        runtime, _running = _running, None
    if runtime is not None:
        hooks.set_observer(None)
        ignore_collections()
        runtime.observer.worker.stop()
        runtime.telemetry.deactivate()
