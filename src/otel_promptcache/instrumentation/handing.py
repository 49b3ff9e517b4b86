"""What was said of a call goes along where the work is handed over: to threads, executors, Celery tasks.

Context variables follow tasks of asyncio and ``asyncio.to_thread`` by themselves, but stay behind where a thread starts
or a function is submitted. Only what this package keeps in them is taken along; the application's own stay its own
business.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import Token
from functools import partial
from typing import Any, Final

import wrapt

from otel_promptcache import attribution
from otel_promptcache.attribution import Handed, Hashed, current, hold, let_go
from otel_promptcache.model import Attribution
from otel_promptcache.telemetry.context import entered, entry_route

HEADER: Final = "otel_promptcache"
"""Of Celery's messages, whose headers become attributes of the request."""
_MOST: Final = 4096
"""Characters of a header that is sent or read."""
_POOLS: Final = ("concurrent.", "multiprocessing.", "billiard.", "opentelemetry.", "otel_promptcache.")
"""Where threads live on that serve everybody; they are told with each piece of work whom it is for."""

_enabled = False
_watching = False
_hashed: Callable[[str], str] = str
_running: Final[dict[str, Token[Any]]] = {}
"""By task id."""


def watch(hashed: Callable[[str], str]) -> None:
    """Takes it along from now on; ``hashed`` is what a user is called outside of the process."""
    global _enabled, _watching, _hashed
    _enabled, _hashed = True, hashed
    if not _watching:
        _watching = True
        for module, hook in _HOOKS.items():
            wrapt.register_post_import_hook(hook, module)


def ignore() -> None:
    """No longer. Wrappers that others may have wrapped since stay, and pass through."""
    global _enabled
    _enabled = False


def _wrap(owner: Any, attribute: str, wrapper: Callable[..., Any]) -> None:
    wrapt.wrap_function_wrapper(owner, attribute, wrapper)


def _nothing_said() -> bool:
    """Quickly, for everybody's threads and executors: whether nothing holds here, nor ever has."""
    return attribution.unsaid() and not entered()


def _said() -> Attribution:
    """What holds here, with the route that a surrounding span gives."""
    said = current()
    return said if said.route else said._replace(around=entry_route() or said.around)


# --- Threads and executors ----------------------------------------------------------------------------------


def _threading(module: Any) -> None:
    _wrap(module, "Thread.start", _start)


def _threads(module: Any) -> None:
    _wrap(module, "ThreadPoolExecutor.submit", partial(_submit, getattr(sys.flags, "thread_inherit_context", False)))


def _processes(module: Any) -> None:
    _wrap(module, "ProcessPoolExecutor.submit", partial(_submit, True))


def _start(wrapped: Callable[..., Any], thread: threading.Thread, args: Any, kwargs: Any) -> Any:
    if not _enabled or _nothing_said():
        return wrapped(*args, **kwargs)
    with contextlib.suppress(Exception):
        said = _said()
        if said != attribution.NOTHING and not _serves_everybody(thread):
            thread.run = partial(_run, thread, Handed(thread.run, said))  # type: ignore[method-assign]
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        vars(thread).pop("run", None)  # nobody will run it
        raise


def _serves_everybody(thread: threading.Thread) -> bool:
    work: Any = next(kind for kind in type(thread).__mro__ if "run" in vars(kind))
    if work is threading.Thread:
        work = getattr(thread, "_target", None)
    return str(getattr(work, "__module__", "")).startswith(_POOLS)


def _run(thread: threading.Thread, handed: Handed, *_: Any) -> None:
    """Whoever replaces ``run`` (Sentry does) may take it for a function of the class, and pass the thread once more."""
    vars(thread).pop("run", None)  # it refers to the thread, which would live until a collection of garbage
    handed()


def _submit(begun_anywhere: bool, wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:  # noqa: FBT001
    """``begun_anywhere``: what works may have begun in the middle of a statement, and is told of its end too."""
    if _enabled and args and (begun_anywhere or not _nothing_said()):
        with contextlib.suppress(Exception):
            said = _said()
            if begun_anywhere or said != attribution.NOTHING:
                args = (Handed(args[0], said), *args[1:])
    return wrapped(*args, **kwargs)


# --- Celery -------------------------------------------------------------------------------------------------


def _celery(signals: Any) -> None:
    for signal, receiver in (
        (signals.before_task_publish, _publish),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"{__name__}.{receiver.__name__}")


def _publish(*_: Any, headers: Any = None, **__: Any) -> None:
    if _enabled and isinstance(headers, dict):
        with contextlib.suppress(Exception):
            written = as_header(current(), _hashed)
            if written:
                headers[HEADER] = written


def _begin(*_: Any, task_id: str = "", task: Any = None, **__: Any) -> None:
    if _enabled:
        with contextlib.suppress(Exception):
            said = from_header(getattr(task.request, HEADER, None))
            if said is not None:
                _running[task_id] = hold(said)


def _end(*_: Any, task_id: str = "", **__: Any) -> None:
    token = _running.pop(task_id, None)
    if token is not None:
        let_go(token)


_FIELDS: Final = ("route", "conversation", "strategy", "prompt_name", "prompt_version")


def as_header(said: Attribution, hashed: Callable[[str], str]) -> str:
    """What was said as JSON, a user hashed; nothing when nothing was said, or too much."""
    found: dict[str, Any] = {name: getattr(said, name) for name in _FIELDS if getattr(said, name)}
    keys = dict(said.keys)
    if "user" in keys and not isinstance(keys["user"], Hashed):
        keys["user"] = hashed(keys["user"])
    if keys:
        found["keys"] = keys
    written = json.dumps(found, separators=(",", ":")) if found else ""
    return written if len(written) <= _MOST else ""


def from_header(written: object) -> Attribution | None:
    """What a header says; None where there is none, or nothing that we could have written."""
    if not isinstance(written, str) or len(written) > _MOST:
        return None
    try:
        found = json.loads(written)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    fields = {name: str(found[name]) for name in _FIELDS if name in found}
    said = found.get("keys")
    keys = {str(name): str(value) for name, value in said.items()} if isinstance(said, Mapping) else {}
    if "user" in keys:
        keys["user"] = Hashed(keys["user"])
    return Attribution(**fields, keys=tuple(sorted(keys.items())))


_HOOKS: Final[dict[str, Callable[[Any], None]]] = {
    "threading": _threading,
    "concurrent.futures.thread": _threads,
    "concurrent.futures.process": _processes,
    "celery.signals": _celery,
}
