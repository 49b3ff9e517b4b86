"""Log events, also by the older APIs, whose log records have neither an event's name nor a context."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs, trace

from otel_promptcache import semconv
from otel_promptcache._version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context

NAMED: Final = "event_name" in inspect.signature(_logs.LogRecord.__init__).parameters
"""Whether the API (1.35) has events. Before, the conventions had the name as the attribute ``event.name``."""


class Events:
    """Writes events with the logger provider that was given, else the global one."""

    def __init__(self, logger_provider: Any = None) -> None:
        self._provider = logger_provider
        self._logger: Any = None

    @property
    def provider(self) -> Any:
        """The logger provider in force."""
        return self._provider or _logs.get_logger_provider()

    def write(self, name: str, attributes: Mapping[str, Any], where: Context, at: float | None = None) -> None:
        """One event; ``at`` in POSIX seconds, now where it is left out."""
        logger = self._logger
        if logger is None:
            logger = _logs.get_logger(semconv.SCOPE, __version__, logger_provider=self._provider)
        stamp = time_ns() if at is None else int(at * 1e9)
        if NAMED:
            self._logger = logger  # a proxy, where no provider is set yet
            severity = _logs.SeverityNumber.INFO
            record: Any = _logs.LogRecord
            logger.emit(
                record(timestamp=stamp, context=where, severity_number=severity, event_name=name, attributes=attributes)
            )
        elif hasattr(logger, "resource"):  # of an SDK: these APIs have no proxy
            self._logger = logger
            logger.emit(_unnamed(logger, name, attributes, where, stamp))


def _unnamed(logger: Any, name: str, attributes: Mapping[str, Any], where: Context, stamp: int) -> Any:
    """The SDK's own record, whose resource the exporters of that time want."""
    from opentelemetry.sdk import _logs as sdk

    record: Any = sdk.LogRecord  # type: ignore[attr-defined, unused-ignore]
    ids = trace.get_current_span(where).get_span_context()
    return record(
        timestamp=stamp,
        observed_timestamp=time_ns(),
        trace_id=ids.trace_id,
        span_id=ids.span_id,
        trace_flags=ids.trace_flags,
        severity_number=_logs.SeverityNumber.INFO,
        body="",  # without any, encoders of that time fail
        resource=logger.resource,
        attributes={semconv.EVENT_NAME: name, **attributes},
    )
