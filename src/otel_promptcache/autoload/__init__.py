"""Starting by environment: no code, no launcher.

``OTEL_PROMPTCACHE_AUTO=1`` starts us with the interpreter, when either ``PYTHONPATH`` names the directory that
``otel-promptcache auto path`` prints, or ``otel-promptcache auto enable`` has written a ``.pth`` file. Starting is
a look at the environment and one entry in ``sys.meta_path``: everything else waits until an SDK is imported, and
an OpenTelemetry SDK is configured only at the first call, and only if nobody has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SWITCH = "OTEL_PROMPTCACHE_AUTO"
_TRIGGERS = frozenset({"anthropic._base_client", "openai._base_client"})
_LAUNCHER = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")

_begun = False


def start() -> None:
    """Arms the import hook, if the environment asks for it and nothing else will start us. Never raises."""
    if os.environ.get(SWITCH, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    if _launched() or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())


def _launched() -> bool:
    """Whether ``opentelemetry-instrument`` started this interpreter: it finds our entry points itself."""
    path = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    return any(_LAUNCHER in entry for entry in path.split(os.pathsep))


class _Finder:
    """Notices the import of an SDK's base client, and lets the ordinary finders do it."""

    def __init__(self) -> None:
        self._looking: set[str] = set()

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name not in _TRIGGERS or name in self._looking or _begun:
            return None
        self._looking.add(name)
        try:
            from importlib.util import find_spec

            spec = find_spec(name)
        finally:
            self._looking.discard(name)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            loader: Any = spec.loader
            try:
                loader.exec_module = _then(loader.exec_module, _begin)
            except Exception:
                return spec  # a loader that cannot be changed: not observed, but imported
        return spec


def _then(execute: Callable[[ModuleType], Any], after: Callable[[], None]) -> Callable[[ModuleType], Any]:
    def run(module: ModuleType) -> Any:
        result = execute(module)
        if module.__name__ in _TRIGGERS:  # the loader of an archive serves other modules too
            after()
        return result

    return run


def _begin() -> None:
    """An SDK has been imported: start, once. Whatever is missing costs the telemetry, never the import."""
    global _begun
    if _begun:
        return
    _begun = True
    try:
        from otel_promptcache import instrument
        from otel_promptcache.autoload.configure import before_first_call
        from otel_promptcache.instrumentation import runtime

        instrument()
        running = runtime.running()
        if running is not None:
            before_first_call(running)
    except Exception as error:
        import logging

        what = str(error) if isinstance(error, ImportError) else type(error).__name__
        logging.getLogger("otel_promptcache").warning(
            "otel-promptcache: %s=1 is set, but starting failed (%s); the application runs without it", SWITCH, what
        )
