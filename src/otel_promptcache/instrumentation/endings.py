"""Ends of a process at which its exit handlers do not run, and with them no provider's last export.

========================  ===================================================================================
SIGTERM                   where nobody handles it: the process is gone. uvicorn, when it has shut down, sends it to
                          itself once more; ``multiprocessing.Pool`` sends it to its processes
multiprocessing           a forked child leaves by ``os._exit``, but runs its finalizers before
Celery                    a child leaves by ``os._exit`` in the middle of what it runs; Celery tells of it before
========================  ===================================================================================

In each of them everything is exported first, within ``SECONDS``; then the process ends as it would have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import wrapt

SECONDS: Final = 3.0
"""What an end may take longer because of us: an endpoint that does not answer must not hold up a shutdown."""
_LAST: Final = -1000
"""Priority among the finalizers of multiprocessing: those of the application may still make calls."""

_flush: Callable[[], object] | None = None
_watching = False


def watch(flush: Callable[[], object]) -> None:
    """Has ``flush`` called before such an end, from now on."""
    global _flush, _watching
    _flush = flush
    _await_signal()
    if not _watching:
        _watching = True
        for module, hook in _HOOKS.items():
            wrapt.register_post_import_hook(hook, module)


def ignore() -> None:
    """No longer. What stands in other modules does nothing any more."""
    global _flush
    _flush = None
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _last_words(*_: Any, **__: Any) -> None:
    flush = _flush
    if flush is None:
        return
    # On another thread: this one may have been interrupted with any lock held.
    thread = threading.Thread(target=flush, name="otel-promptcache-last", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads in this process
        return
    thread.join(SECONDS)


# --- SIGTERM ------------------------------------------------------------------------------------------------


def _await_signal(*_: Any, **__: Any) -> None:
    """Where the signal's default action holds, and this thread may change it."""
    if os.name == "posix" and threading.current_thread() is threading.main_thread():  # noqa: SIM102
        if _flush is not None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, _: Any) -> None:
    if signal.getsignal(number) is not _terminated:  # somebody has handled it since, and passes it on
        _last_words()
        return
    signal.signal(number, signal.SIG_DFL)  # a second one does not wait
    _last_words()
    os.kill(os.getpid(), number)
    signal.signal(number, _terminated)  # still here: process 1 of a container, which the default action spares


# --- Those who end processes --------------------------------------------------------------------------------


class _Kept:
    """What multiprocessing's registry refers to, weakly."""


_kept: Final = _Kept()


def _multiprocessing(util: Any) -> None:
    """A child begins with an empty list of finalizers."""

    def remember(_: object) -> None:
        util.Finalize(None, _last_words, exitpriority=_LAST)

    util.register_after_fork(_kept, remember)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        remember(None)  # in a child already


def _celery(signals: Any) -> None:
    """A child takes all signals back before it says that it has begun."""
    signals.worker_process_init.connect(_await_signal, weak=False, dispatch_uid=f"{__name__}.begun")
    signals.worker_process_shutdown.connect(_last_words, weak=False, dispatch_uid=f"{__name__}.ends")


def _uvicorn(server: Any) -> None:
    """Under a master that has given its workers the default action of all signals (``UvicornWorker``) too."""

    async def shutdown(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        import asyncio

        try:
            return await wrapped(*args, **kwargs)
        finally:
            await asyncio.to_thread(_last_words)

    wrapt.wrap_function_wrapper(server, "Server.shutdown", shutdown)


_HOOKS: Final[dict[str, Callable[[Any], None]]] = {
    "multiprocessing.util": _multiprocessing,
    "celery.signals": _celery,
    "uvicorn.server": _uvicorn,
}
