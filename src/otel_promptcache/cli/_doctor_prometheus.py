"""What a Prometheus that has our metrics tells of a fleet: versions, keys, values of labels, and what was lost."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from otel_promptcache import semconv
from otel_promptcache._version import __version__
from otel_promptcache.cli._doctor_report import NAMES_OF_THEIR_OWN, Finding, note, ok, problem, some
from otel_promptcache.settings import PREFIX
from otel_promptcache.telemetry.counters import MAX_LABEL_VALUES
from otel_promptcache.telemetry.identity import INSTANCE

_FAMILY: Final = '__name__=~"promptcache[._].+"'
_CALLS: Final = '{__name__=~"promptcache[._]calls(_total)?"}'
_NEAR: Final = 0.8
_RESTARTS: Final = 5
"""Times that a process may begin anew within an hour before it is taken for several."""


class _Loss(NamedTuple):
    """Counters of others that tell of telemetry that did not arrive."""

    subject: str
    metric: str
    """Of its name, what OpenTelemetry has written with dots or, in Prometheus, with underscores."""
    where: str
    by: str
    """The label that says whose it is."""
    text: str
    advice: str


_LOSSES: Final = (
    _Loss(
        "dropped in a process",
        "otel[._]sdk[._]processor[._](span|log)[._]processed([._]total)?",
        'error_type="queue_full"',
        "service_name",
        "spans and events in the last hour, because its queue was full",
        "what it exports to is too slow or hangs: doctor there says which; OTEL_BSP_MAX_QUEUE_SIZE and "
        "OTEL_BLRP_MAX_QUEUE_SIZE hold more",
    ),
    _Loss(
        "not exported by a process",
        "otel[._]sdk[._]exporter[._](span|log|metric[._]data[._]point)[._]exported([._]total)?",
        'error_type!=""',
        "error_type",
        "spans, events and points in the last hour, given up by the SDK",
        "doctor in the environment of the service says what is wrong with its endpoint",
    ),
    _Loss(
        "refused by a Collector",
        "otelcol_receiver_refused_(spans|metric_points|log_records)(_total)?",
        "",
        "receiver",
        "records in the last hour: a limit of memory, or a full queue",
        "give it more memory (memory_limiter), or find out what is behind it; senders try again for a while",
    ),
    _Loss(
        "no room in a Collector's queue",
        "otelcol_exporter_enqueue_failed_(spans|metric_points|log_records)(_total)?",
        "",
        "exporter",
        "records in the last hour",
        "what this exporter sends to is too slow or down; sending_queue::queue_size holds more",
    ),
    _Loss(
        "not delivered by a Collector",
        "otelcol_exporter_send_failed_(spans|metric_points|log_records)(_total)?",
        "",
        "exporter",
        "records in the last hour",
        "the Collector's log says why; retry_on_failure::max_elapsed_time: 0s tries without end",
    ),
)


Ask = Callable[[str], list[dict[str, Any]]]


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
    yield from _workers(ask)
    yield from _losses(ask)
    largest = max(series, key=lambda name: series[name])
    yield ok("Prometheus", f"{sum(series.values()):,} series of ours, most of them ({series[largest]:,}) in {largest}")
    dotted = any("." in name for name in series)
    yield from _instances(ask, dotted)
    for label in labels:
        name = json.dumps(label) if dotted else label.replace(".", "_")
        values = _number(ask(f"count(count by ({name}) ({{{_FAMILY},{name}!=''}}))"))
        others = _number(ask(f'count({{{_FAMILY},{name}="{semconv.OVERFLOW}"}})'))
        yield _label(label, values, others)


def _workers(ask: Ask) -> Iterator[Finding]:
    """Versions, schemas and keys of the processes of each service, as ``promptcache.info`` has them."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in ask('{__name__=~"promptcache[._]info"}'):
        labels = {name.replace(".", "_"): value for name, value in row["metric"].items()}
        own = found.setdefault(labels.get("service_name") or labels.get("job", ""), {})
        for name in _OF_INFO:
            if value := labels.get(name.replace(".", "_")):
                own.setdefault(name, set()).add(value)
    schemas = {schema for own in found.values() for schema in own.get(semconv.SCHEMA_VERSION, ())}
    far = {schema for schema in schemas if not schema.isdecimal() or abs(int(schema) - semconv.SCHEMA) > 1}
    if far:
        text = f"{some(far)} beside {semconv.SCHEMA}: what reads the one cannot read the other"
        yield problem("schema", text, "bring them to one version, readers first")
    elif schemas - {str(semconv.SCHEMA)}:
        others = some(schemas - {str(semconv.SCHEMA)})
        yield note("schema", f"{others} beside {semconv.SCHEMA}: the newer version reads both, the older one its own")
    versions = {version for own in found.values() for version in own.get(semconv.PACKAGE_VERSION, ())}
    if versions:
        say = ok if versions == {__version__} else note
        yield say("versions", f"{some(versions)} of otel-promptcache in {len(found)} services; here {__version__}")
    for service, own in sorted(found.items()):
        if len(own.get(semconv.KEY_ID, ())) > 1:
            text = f"{len(own[semconv.KEY_ID])} in the processes of {service}: {some(own[semconv.KEY_ID])}"
            yield problem("keys", text, f"{PREFIX}HASH_KEY is one secret for all")


_OF_INFO: Final = (semconv.PACKAGE_VERSION, semconv.SCHEMA_VERSION, semconv.KEY_ID)


def _losses(ask: Ask) -> Iterator[Finding]:
    """What was lost in the last hour, by those who lost it. A counter that has begun since then has all of it."""
    for loss in _LOSSES:
        matched = f'__name__=~"{loss.metric}"' + (f",{loss.where}" if loss.where else "")
        now, before = (f"sum by ({loss.by}) ({{{matched}}}{earlier})" for earlier in ("", " offset 1h"))
        rows = ask(f"({now} - {before} >= 0) or {now}")
        lost = {row["metric"].get(loss.by, ""): float(row["value"][1]) for row in rows}
        if total := sum(lost.values()):
            whose = some({name for name, count in lost.items() if count and name})
            by = f" ({whose})" if whose else ""
            yield problem(loss.subject, f"{total:,.0f} {loss.text}{by}", loss.advice)


def _instances(ask: Ask, dotted: bool) -> Iterator[Finding]:  # noqa: FBT001
    """A counter falls once when its process begins anew. Where it keeps falling, several take turns."""
    names = (INSTANCE,) if dotted else ("service_instance_id", "exported_instance", "instance")
    by = ", ".join(map(json.dumps, names)) if dotted else ", ".join(names)
    rows = ask(f"max by ({by}) (resets({_CALLS}[1h])) > {_RESTARTS}")
    for row in rows:
        name = next((row["metric"][one] for one in names if row["metric"].get(one)), "none")
        yield problem(
            INSTANCE,
            f"{name}: a counter fell {float(row['value'][1]):.0f} times in an hour, for several processes have it",
            NAMES_OF_THEIR_OWN,
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
