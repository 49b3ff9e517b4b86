"""Ends of a process at which its exit handlers do not run, and with them no provider's last export.

========================  ===================================================================================
multiprocessing           a forked child leaves by ``os._exit``, but runs its finalizers before; those of a
                          ``Pool`` are killed at the end of its block, though they have nothing left to do
Celery                    a child leaves by ``os._exit`` in the middle of what it runs; Celery tells of it before
uvicorn                   when it has shut down, it sends itself the signal that told it to, once more
SIGTERM                   where nobody handles it, the process is gone. Only if asked for: a handler in Python waits
                          for the main thread to come back from whatever it is in, and the default action does not
========================  ===================================================================================

In each of them everything is exported first, within ``SECONDS``; then the process ends as it would have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from time import monotonic, sleep
from typing import Any, Final

import wrapt

SECONDS: Final = 3.0
"""What an end may take longer because of us: an endpoint that does not answer must not hold up a shutdown."""
_LAST: Final = -1000
"""Priority among the finalizers of multiprocessing: those of the application may still make calls."""

_flush: Callable[[], object] | None = None
_watching = False
_masks = threading.local()


def watch(flush: Callable[[], object], *, sigterm: bool) -> None:
    """Has ``flush`` called before such an end, from now on."""
    global _flush, _watching
    _flush = flush
    if sigterm and _may_handle() and not _is_child() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
        _handle_forks()
    if not _watching:
        _watching = True
        for module, hook in _HOOKS.items():
            wrapt.register_post_import_hook(hook, module)


def ignore() -> None:
    """No longer. What stands in other modules does nothing any more."""
    global _flush
    _flush = None
    _handle_no_more()


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


async def _last_words_aside() -> None:
    """Without the loop's executor, in which the application's own work may be stuck."""
    import asyncio

    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        _last_words()
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="otel-promptcache-aside", daemon=True).start()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(done.wait(), SECONDS + 1)


# --- SIGTERM ------------------------------------------------------------------------------------------------


def _may_handle() -> bool:
    return os.name == "posix" and threading.current_thread() is threading.main_thread()


def _handle_no_more() -> None:
    if _may_handle() and signal.getsignal(signal.SIGTERM) is _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@cache
def _handle_forks() -> None:
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_let_through)


def _hold_back() -> None:
    """The interpreter forgets what comes to a child before it has come to itself; the system does not."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


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


def _is_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _multiprocessing(util: Any) -> None:
    """A child begins with an empty list of finalizers. It gives the signal back: one that comes just as it begins to
    wait for work would be noticed when there is some, and who has sent it waits for the end."""

    def begin(_: object) -> None:
        _handle_no_more()
        util.Finalize(None, _last_words, exitpriority=_LAST)

    util.register_after_fork(_kept, begin)
    if _is_child():
        begin(None)


def _pool(module: Any) -> None:
    def terminate(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
        try:
            if _flush is not None and not isinstance(pool, module.ThreadPool):
                with contextlib.suppress(Exception):
                    _let_go_home(pool)
        finally:  # also where it was interrupted
            wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "Pool.terminate", terminate)


def _let_go_home(pool: Any) -> None:
    """Has processes that have nothing left to do end by themselves. What they have to do is to be broken off."""
    if pool._cache:
        return
    pool.close()
    deadline = monotonic() + SECONDS
    while monotonic() < deadline and any(process.exitcode is None for process in list(pool._pool)):
        sleep(0.005)


def _celery(signals: Any) -> None:
    signals.worker_process_shutdown.connect(_last_words, weak=False, dispatch_uid=__name__)


def _uvicorn(server: Any) -> None:
    async def shutdown(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            with contextlib.suppress(Exception):  # no more threads in this process
                await _last_words_aside()

    wrapt.wrap_function_wrapper(server, "Server.shutdown", shutdown)


_HOOKS: Final[dict[str, Callable[[Any], None]]] = {
    "multiprocessing.util": _multiprocessing,
    "multiprocessing.pool": _pool,
    "celery.signals": _celery,
    "uvicorn.server": _uvicorn,
}
