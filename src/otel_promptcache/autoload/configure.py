"""An OpenTelemetry SDK from ``OTEL_*``, for applications that have configured none."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import trace

log = logging.getLogger("otel_promptcache")


def configure_sdk() -> None:
    """Sets up tracer, meter and logger provider with OTLP exporters, as ``opentelemetry-instrument`` would.

    Does nothing when a provider is set. Called at the first call, so that an application that configures its own
    SDK while it starts is not overtaken.
    """
    if type(trace.get_tracer_provider()).__name__ != "ProxyTracerProvider":
        return
    try:
        from opentelemetry.distro import OpenTelemetryConfigurator, OpenTelemetryDistro
    except ImportError:
        return  # said by the check that follows the first call
    try:
        OpenTelemetryDistro().configure()
        configurator: Any = OpenTelemetryConfigurator
        configurator().configure()
    except Exception as error:
        log.warning(
            "otel-promptcache: the OpenTelemetry SDK could not be configured from OTEL_* (%s: %s)",
            type(error).__name__,
            error,
        )
