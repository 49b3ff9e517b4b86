"""An OpenTelemetry SDK from ``OTEL_*``, for applications that have configured none."""

from __future__ import annotations

import os
import threading
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Final, cast

from opentelemetry import _logs, metrics, trace

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.instrumentation import hooks
from otel_promptcache.instrumentation.runtime import Runtime
from otel_promptcache.observer import Call, Observer
from otel_promptcache.providers import Dialect
from otel_promptcache.settings import Mode

_EXPORTERS: Final = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")


def before_first_call(running: Runtime) -> None:
    """Has the SDK configured at the first call: an application that does it while it starts is not overtaken."""
    hooks.set_observer(cast("Observer", _FirstCall(running)))


class _FirstCall:
    """Stands in front of the observer until a call is made. What it takes is nobody's overhead of observing."""

    def __init__(self, running: Runtime) -> None:
        self._running = running
        self._renew()
        after_fork_in_child(self._renew)
        self._done = False

    def _renew(self) -> None:
        self._lock = threading.Lock()  # in a child, one that no lost thread holds

    def open(self, dialect: Dialect) -> Call | None:
        """Configures the SDK, then is as the observer."""
        observer = self._running.observer
        if observer.live.current().mode is not Mode.OFF:
            with self._lock:  # a second call at the same time waits until there is something to record it
                if not self._done:
                    self._done = True
                    self._configure()
                    hooks.set_observer(observer)
        return observer.open(dialect)

    def trouble(self, where: str, error: Exception) -> None:
        """An error of ours."""
        self._running.observer.trouble(where, error)

    def _configure(self) -> None:
        why = configure_sdk()
        if why:
            # The check at the first call says this once, in place of what it would find by itself.
            self._running.telemetry.check = lambda: why  # type: ignore[method-assign]


def configure_sdk() -> str:
    """Sets up tracer, meter and logger provider with OTLP exporters, as ``opentelemetry-instrument`` would.

    Does nothing when any of them is set, or the SDK is missing. Says what went wrong, else nothing.
    """
    if _configured() or find_spec("opentelemetry.sdk") is None:
        return ""
    try:
        distro = _first("opentelemetry_distro", "OTEL_PYTHON_DISTRO")
        if distro is not None:
            distro.configure()
        for name in _EXPORTERS:
            os.environ.setdefault(name, "otlp")
        (_first("opentelemetry_configurator", "OTEL_PYTHON_CONFIGURATOR") or _sdk_configurator()).configure()
    except Exception as error:
        # The SDK's own refusals name the exporter or the protocol; other errors may quote an address or a header.
        why = f"{type(error).__name__}: {error}" if type(error) is RuntimeError else type(error).__name__
        help_ = "pip install 'otel-promptcache[otlp]'" if "entry point" in why else "see `otel-promptcache doctor`"
        return f"the OpenTelemetry SDK cannot be configured from OTEL_* ({why}); {help_}"
    return ""


def _configured() -> bool:
    """Whether the application has set any provider."""
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    return any("Proxy" not in type(provider).__name__ for provider in providers)


def _first(group: str, variable: str) -> Any:
    """The distribution or configurator that the environment names, else the first that is installed."""
    wanted = os.environ.get(variable)
    for point in entry_points(group=group):
        if wanted in (None, "", point.name):
            return point.load()()
    return None


def _sdk_configurator() -> Any:
    """The SDK's own, which distributions derive from, where none is installed."""
    module: Any = import_module("opentelemetry.sdk._configuration")
    return module._OTelSDKConfigurator()  # noqa: SLF001
