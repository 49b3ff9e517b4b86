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


def start() -> None:
    """Arms the import hook, if the environment asks for it and nothing else will start us. Never raises."""
    if os.environ.get(SWITCH, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    if any(_LAUNCHER in entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        return  # opentelemetry-instrument finds our entry points itself
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Notices the import of an SDK's base client, and lets the ordinary finders do it."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name not in _TRIGGERS or self._looking:
            return None
        self._looking = True
        try:
            from importlib.util import find_spec

            spec = find_spec(name)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            loader: Any = spec.loader
            loader.exec_module = _then(loader.exec_module, _begin)
        return spec


def _then(execute: Callable[[ModuleType], Any], after: Callable[[], None]) -> Callable[[ModuleType], Any]:
    def run(module: ModuleType) -> Any:
        result = execute(module)
        after()
        return result

    return run


def _begin() -> None:
    """An SDK has been imported: start. Whatever is missing costs the telemetry, never the import."""
    try:
        from otel_promptcache import instrument
        from otel_promptcache.autoload.configure import configure_sdk
        from otel_promptcache.instrumentation import runtime

        instrument()
        running = runtime.running()
        if running is not None:
            running.telemetry.before_first_call.insert(0, configure_sdk)
    except Exception as error:
        import logging

        logging.getLogger("otel_promptcache").warning(
            "otel-promptcache: %s=1 is set, but starting failed with %s; the application runs without it",
            SWITCH,
            type(error).__name__,
        )
