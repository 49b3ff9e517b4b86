"""The ledger as a file: ``promptcache.call`` log events as OTLP JSON lines, as the Collector's file exporter writes
them. Everything else in the file is passed over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, NamedTuple

from otel_promptcache import semconv
from otel_promptcache.model import Diagnosis, Evidence
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Cause, Confidence, Reason, Status

_MESSAGES: Final = "messages:"
_READABLE: Final = (semconv.SCHEMA, semconv.SCHEMA - 1)


class LedgerCall(NamedTuple):
    """One call of production. Token counts are 0 and money is None where they were not reported."""

    identity: str
    at: float
    """POSIX seconds at which it ended."""
    provider: str
    model: str
    route: str
    conversation: str
    """As the application named it, else as it was inferred; empty for neither."""
    key_id: str
    sections: tuple[str, ...]
    """``section:digest`` of what stands in front of the messages."""
    read: int
    write: int
    uncached: int
    cost_read: float | None
    cost_write: float | None
    cost_uncached: float | None


@dataclass
class Reading:
    """What became of the lines of a ledger."""

    lines: int = 0
    unreadable: int = 0
    repeated: int = 0
    """Events that had come before: an export is retried when its answer is lost."""
    of_another_schema: int = 0
    """Events of a version whose words may mean something else: they are passed over."""


class Event(NamedTuple):
    """A log record of ours, as it stands in the file."""

    name: str
    attributes: dict[str, Any]
    at: int
    """Nanoseconds since the epoch."""
    trace: str
    """Hexadecimal; empty outside of one."""


def events(lines: Iterable[str], reading: Reading, *names: str) -> Iterator[Event]:
    """The events with these names, in the order of the file, and of one name one for each call. Lines that are no
    JSON are counted, not raised: the last line of a file that is being written is cut off."""
    known: set[tuple[str, str]] = set()
    for line in lines:
        reading.lines += 1
        if not any(name in line for name in names):
            reading.unreadable += bool(line.strip()) and not line.rstrip().endswith("}")
            continue
        try:
            found = [event for _, event in records(json.loads(line), *names)]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            reading.unreadable += 1
            continue
        for event in found:
            if not readable(event.attributes):
                reading.of_another_schema += 1
                continue
            call = str(event.attributes.get(semconv.CALL_ID) or "")
            if (event.name, call) in known:
                reading.repeated += 1
                continue
            if call:
                known.add((event.name, call))
            yield event


def readable(said: Mapping[str, Any]) -> bool:
    """Whether an event is of this version of the meanings, or of the one before."""
    return said.get(semconv.SCHEMA_VERSION, semconv.SCHEMA) in _READABLE


def calls(lines: Iterable[str], reading: Reading) -> Iterator[LedgerCall]:
    """The calls in a ledger."""
    for event in events(lines, reading, semconv.EVENT_CALL):
        try:
            yield _call(event.attributes, event.at / 1e9)
        except (ValueError, TypeError):
            reading.unreadable += 1


def named(found: Iterable[Event], identity: str) -> list[Event]:
    """The calls among these events that have this trace id or response id."""
    wanted = identity.lower()
    return [
        event
        for event in found
        if event.name == semconv.EVENT_CALL
        and wanted in (event.trace.lower(), str(event.attributes.get(semconv.RESPONSE_ID, "")).lower())
    ]


def verdict(found: Mapping[str, Any]) -> Diagnosis | None:
    """The diagnosis that a record was made of, as far as a record tells; None where its words are not ours."""
    try:
        status = Status(found[semconv.STATUS])
        reason = Reason(found[semconv.REASON]) if found.get(semconv.REASON) else None
        cause = Cause(found[semconv.CAUSE]) if found.get(semconv.CAUSE) else None
        confidence = Confidence(found[semconv.CONFIDENCE]) if found.get(semconv.CONFIDENCE) else None
    except (KeyError, ValueError):
        return None
    return Diagnosis(
        status, reason, cause, line=found.get(semconv.LINE), confidence=confidence, evidence=_evidence(found)
    )


def _evidence(found: Mapping[str, Any]) -> Evidence | None:
    """What ``semconv.EVIDENCE`` says, with the rule that holds for the model."""
    match = _EVIDENCE.fullmatch(str(found.get(semconv.EVIDENCE) or ""))
    if match is None:
        return None
    equal, segments, gap, ttl, truncated, alone = match.groups()
    rules = rules_for(str(found.get(semconv.PROVIDER) or ""), str(found.get(semconv.REQUEST_MODEL) or ""))
    source = f"{rules.source} ({rules.read_on})"
    seconds, lifetime = float(gap) if gap else None, int(ttl) if ttl else None
    flags = truncated is not None, alone is not None
    return Evidence(int(equal), int(segments), seconds, lifetime, rules.minimum, source, *flags)


_EVIDENCE: Final = re.compile(r"equal=(\d+)/(\d+)(?:;gap=([\d.]+))?(?:;ttl=(\d+))?(;truncated)?(;alone)?")


def before(found: Iterable[Event], one: Event) -> Event | None:
    """The call that another one follows in its conversation, as the application named it, on the same model."""
    same = (semconv.CONVERSATION_ID, semconv.PROVIDER, semconv.REQUEST_MODEL)
    if not one.attributes.get(semconv.CONVERSATION_ID):
        return None
    earlier = (
        other
        for other in found
        if other.name == semconv.EVENT_CALL
        and other.at < one.at
        and all(other.attributes.get(name) == one.attributes.get(name) for name in same)
    )
    return max(earlier, key=lambda other: other.at, default=None)


def unknown_for_its_key(one: Event, earlier: Event | None) -> bool:
    """Whether nothing was expected of a call because the one before was fingerprinted under another key
    (``Reason.KEY_MISMATCH``): by another process, or before a restart."""
    if earlier is None or one.attributes.get(semconv.STATUS) != Status.COLD:
        return False
    keys = [str(event.attributes.get(semconv.KEY_ID) or "") for event in (one, earlier)]
    return all(keys) and keys[0] != keys[1]


def records(document: Mapping[str, Any], *names: str) -> Iterator[tuple[dict[str, Any], Event]]:
    """The log records with these names in a parsed line, as they stand there and as events."""
    for resource in document.get("resourceLogs", ()):
        for scope in resource.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                found = {pair["key"]: _value(pair["value"]) for pair in record.get("attributes", ())}
                # Exporters older than the field of its own send the name as an attribute.
                name = next((one for one in (record.get("eventName"), found.get("event.name")) if one in names), None)
                if name is not None:
                    at = int(record.get("timeUnixNano") or record["observedTimeUnixNano"])
                    yield record, Event(name, found, at, str(record.get("traceId") or ""))


def _value(value: Mapping[str, Any]) -> Any:
    """An attribute's value; 64-bit numbers are strings in OTLP's JSON."""
    for kind, content in value.items():
        return int(content) if kind == "intValue" else content
    return None


def _call(found: Mapping[str, Any], at: float) -> LedgerCall:
    def text(*names: str) -> str:
        """The first that is there. Shared between calls: a ledger says the same few things a million times."""
        return intern(next((str(found[name]) for name in names if found.get(name)), ""))

    sections = str(found.get(semconv.FINGERPRINT) or "").split(",")
    return LedgerCall(
        identity=str(found.get(semconv.CALL_ID) or ""),
        at=at,
        provider=text(semconv.PROVIDER),
        model=text(semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL),
        route=text(semconv.ROUTE),
        conversation=text(semconv.CONVERSATION_ID, semconv.LINEAGE_ID),
        key_id=text(semconv.KEY_ID),
        sections=tuple(intern(one) for one in sections if ":" in one and not one.startswith(_MESSAGES)),
        read=int(found.get(semconv.CACHE_READ_TOKENS) or 0),
        write=int(found.get(semconv.CACHE_WRITE_TOKENS) or 0),
        uncached=int(found.get(semconv.UNCACHED_TOKENS) or 0),
        cost_read=found.get(semconv.COST_READ),
        cost_write=found.get(semconv.COST_WRITE),
        cost_uncached=found.get(semconv.COST_UNCACHED),
    )
