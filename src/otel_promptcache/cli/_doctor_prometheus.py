"""How many values each label has by now, asked of a Prometheus that has our metrics."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from otel_promptcache import semconv
from otel_promptcache.cli._doctor_report import Finding, note, ok, problem
from otel_promptcache.settings import PREFIX
from otel_promptcache.telemetry.counters import MAX_LABEL_VALUES
from otel_promptcache.telemetry.identity import INSTANCE

_FAMILY: Final = '__name__=~"promptcache[._].+"'
_CALLS: Final = '{__name__=~"promptcache[._]calls(_total)?"}'
_NEAR: Final = 0.8
_RESTARTS: Final = 5
"""Times that a process may begin anew within an hour before it is taken for several."""


class _PrometheusError(Exception):
    """A Prometheus that gives no result; the message says why."""


def findings(url: str, labels: Sequence[str], timeout: float) -> list[Finding]:
    """Values of each label, and which label is at its limit."""
    try:
        return list(_findings(url.rstrip("/"), labels, timeout))
    except _PrometheusError as error:
        return [problem("Prometheus", f"{_shown(url)}: {error}", "--prometheus takes its address, http://host:9090")]


def _findings(url: str, labels: Sequence[str], timeout: float) -> Iterator[Finding]:
    def ask(query: str) -> list[dict[str, Any]]:
        return _query(url, query, timeout)

    series = {row["metric"]["__name__"]: int(row["value"][1]) for row in ask(f"count by (__name__) ({{{_FAMILY}}})")}
    if not series:
        yield note("Prometheus", f"{_shown(url)} has no metric of ours", "is it the one the Collector writes to?")
        return
    largest = max(series, key=lambda name: series[name])
    yield ok("Prometheus", f"{sum(series.values()):,} series of ours, most of them ({series[largest]:,}) in {largest}")
    dotted = any("." in name for name in series)
    yield from _instances(ask, dotted)
    for label in labels:
        name = json.dumps(label) if dotted else label.replace(".", "_")
        values = _number(ask(f"count(count by ({name}) ({{{_FAMILY},{name}!=''}}))"))
        others = _number(ask(f'count({{{_FAMILY},{name}="{semconv.OVERFLOW}"}})'))
        yield _label(label, values, others)


def _instances(ask: Callable[[str], list[dict[str, Any]]], dotted: bool) -> Iterator[Finding]:  # noqa: FBT001
    """A counter falls once when its process begins anew. Where it keeps falling, several take turns."""
    names = (INSTANCE,) if dotted else ("service_instance_id", "exported_instance", "instance")
    by = ", ".join(map(json.dumps, names)) if dotted else ", ".join(names)
    rows = ask(f"max by ({by}) (resets({_CALLS}[1h])) > {_RESTARTS}")
    for row in rows:
        name = next((row["metric"][one] for one in names if row["metric"].get(one)), "none")
        yield problem(
            INSTANCE,
            f"{name}: a counter fell {float(row['value'][1]):.0f} times in an hour, for several processes have it",
            "leave it to the SDK, or name each process differently (docs/workers.md)",
        )
    if not rows:
        yield ok(INSTANCE, "no counter keeps falling: no two processes have the same")


def _label(label: str, values: int, others: int) -> Finding:
    if others:
        advice = (
            "name fewer routes, with otel_promptcache.route()"
            if label == semconv.ROUTE
            else f"leave it out of {PREFIX}METRIC_KEYS, or give it fewer values"
        )
        return problem(label, f"at its limit: {others:,} series hold everything else as {semconv.OVERFLOW}", advice)
    if values >= _NEAR * MAX_LABEL_VALUES:
        return note(label, f"{values} values; a process keeps {MAX_LABEL_VALUES} apart")
    return ok(label, f"{values} value{'' if values == 1 else 's'}")


def _number(rows: Sequence[dict[str, Any]]) -> int:
    return int(rows[0]["value"][1]) if rows else 0


def _query(url: str, query: str, timeout: float) -> list[dict[str, Any]]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise _PrometheusError("the address has to begin with http:// or https://")
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?query={quote(query)}", timeout=timeout) as response:  # noqa: S310
            document = json.load(response)
        rows: list[dict[str, Any]] = document["data"]["result"]
    except urllib.error.HTTPError as error:
        raise _PrometheusError(f"answers HTTP {error.code}") from None
    except OSError as error:
        raise _PrometheusError(f"does not answer ({getattr(error, 'reason', error)})") from None
    except (ValueError, KeyError, TypeError):
        raise _PrometheusError("answers, but not as a Prometheus does") from None
    return rows


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
