"""Log events, also by the older APIs, whose log records have neither an event's name nor a context; and what those of
the journal and of advice say."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs, trace

from otel_promptcache import semconv
from otel_promptcache._version import __version__
from otel_promptcache.advice import Finding, sentence
from otel_promptcache.journal import Change
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.telemetry.counters import label_attributes

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


def change_attributes(change: Change) -> dict[str, Any]:
    """A change of a stable prefix as the fields of its event; what is not known is absent."""
    old, new, parted = change.old, change.new, change.difference
    found: dict[str, Any] = {
        semconv.ROUTE: change.where.route,
        semconv.PROVIDER: change.where.provider,
        semconv.REQUEST_MODEL: change.where.model,
        semconv.CHANGE_PATTERN: change.pattern.value,
        semconv.CHANGE_RATE: change.calls_per_hour,
        semconv.CHANGE_OLD: old.digest,
        semconv.CHANGE_NEW: new.digest,
        semconv.CHANGE_OLD_SERVICE: old.service,
        semconv.CHANGE_NEW_SERVICE: new.service,
        semconv.CHANGE_OLD_PROMPT: old.prompt_version,
        semconv.CHANGE_NEW_PROMPT: new.prompt_version,
        semconv.PROMPT_NAME: new.prompt_name,
        semconv.SCHEMA_VERSION: semconv.SCHEMA,
    }
    if parted is not None:
        found |= {
            semconv.REASON: parted.reason.value,
            semconv.CAUSE: parted.cause.value if parted.cause is not None else "",
            semconv.PATH: parted.path,
            semconv.CHANGE_SECTION: parted.section.name.lower(),
        }
        if parted.line is not None:
            found[semconv.LINE] = parted.line
    return {name: value for name, value in found.items() if value != ""}


def advice_attributes(found: Finding) -> dict[str, Any]:
    """Advice as the fields of its event."""
    told: dict[str, Any] = label_attributes(found.labels) | {
        semconv.ADVICE: found.advice.value,
        semconv.ADVICE_TEXT: sentence(found),
        semconv.ADVICE_CALLS: found.calls,
        semconv.ADVICE_USD: round(found.usd, 6),
        semconv.TTL: TTL_NAMES.get(found.ttl, f"{found.ttl}s"),
        semconv.SCHEMA_VERSION: semconv.SCHEMA,
    }
    if found.better is not None:
        told[semconv.ADVICE_TTL] = TTL_NAMES.get(found.better, f"{found.better}s")
    if found.gaps is not None:
        told[semconv.GAP_MEDIAN], told[semconv.GAP_HIGH] = found.gaps
    return told
