"""Puts the rooms together, once a process, however often and by whomever we are started."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any

from otel_promptcache._collection import ignore_collections, watch_collections
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.memory import Memory
from otel_promptcache.instrumentation import endings, handing, hooks
from otel_promptcache.observer import Observer
from otel_promptcache.settings import REMEMBERED_BYTES, Live, Remember, Settings
from otel_promptcache.telemetry import Telemetry
from otel_promptcache.telemetry.identity import chosen

if TYPE_CHECKING:
    from otel_promptcache.observer.shared import Sharing

log = logging.getLogger("otel_promptcache")

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
            memory = Memory(key, settings.history_segments, remembered)
            observer = Observer(live, key, memory, telemetry)
            observer.sharing = sharing = _sharing(settings, key, memory, telemetry, observer)
            telemetry.book.sweep = observer.sweep
            telemetry.book.pending.later = observer.worker.submit
            telemetry.before_first_call.append(observer.worker.flush_last)
            if sharing is not None:
                telemetry.before_first_call.append(sharing.flush_last)
            watch_collections()
            hooks.set_observer(observer)
            observer.load_prices()
            if settings.carry:
                handing.watch(key.token)
            if settings.flush_at_end:
                endings.watch(flush_last, sigterm=settings.flush_on_sigterm)
            _running = Runtime(live, telemetry, observer)
        return _running


def _sharing(
    settings: Settings, key: HashKey, memory: Memory, telemetry: Telemetry, observer: Observer
) -> Sharing | None:
    """The shared history, where one is named and can be used; else a warning that says what is missing."""
    if not settings.history_url:
        return None
    if not settings.hash_key:
        log.warning(
            "otel-promptcache: OTEL_PROMPTCACHE_HISTORY_URL is left alone without OTEL_PROMPTCACHE_HASH_KEY: what "
            "workers send compares under one key only"
        )
        return None
    if find_spec("redis") is None:
        log.warning(
            "otel-promptcache: OTEL_PROMPTCACHE_HISTORY_URL needs the redis library: pip install "
            "'otel-promptcache[redis]'"
        )
        return None
    from otel_promptcache.history.redis import TIMEOUT, Server
    from otel_promptcache.observer.shared import Sharing

    keys = [key, *([HashKey(settings.hash_key_before)] if settings.hash_key_before else [])]
    server = Server(settings.history_url, max(TIMEOUT, settings.history_wait_ms / 1000))
    sharing = Sharing(
        server,
        keys,
        memory,
        observer.trouble,
        telemetry,
        lines=settings.history_lines,
        name=lambda: chosen(telemetry.providers()[1]),
    )
    sharing.start()
    return sharing


def flush(seconds: float = endings.SECONDS) -> bool:
    """Has everything exported that was observed so far. False when time ran out first."""
    runtime = _running
    if runtime is None:
        return True
    deadline = monotonic() + seconds
    written = runtime.observer.worker.flush(seconds)
    return runtime.telemetry.flush(max(0.1, deadline - monotonic())) and written


def flush_last() -> None:
    """Before the end of a process that has observed something. One that has not is none of our business: a forked one
    would say what it has inherited of its parent's metrics, too."""
    runtime = _running
    if runtime is not None and runtime.telemetry.used:
        runtime.telemetry.leave_connections()
        flush()


def stop() -> None:
    """Stops us: hooks pass through, instruments fall silent, queued records are written."""
    global _running
    with _lock:
        runtime, _running = _running, None
    if runtime is not None:
        hooks.set_observer(None)
        handing.ignore()
        endings.ignore()
        ignore_collections()
        runtime.observer.sweep()
        runtime.observer.worker.stop()
        if runtime.observer.sharing is not None:
            runtime.observer.sharing.stop()
        runtime.telemetry.deactivate()
