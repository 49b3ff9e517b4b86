"""What recorded traffic lost and why: equal problems together, the dearest first, each in words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_promptcache import paths
from otel_promptcache.analysis.places import Place
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.diagnosis import words
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.model import Section, Segment
from otel_promptcache.providers._wire import mapping, string
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import CAUSE_INFO, REASON_INFO, Cause, Reason, Status
from otel_promptcache.settings import Privacy


class Problem(NamedTuple):
    """What makes two calls the same: one explanation and one fix do for both."""

    reason: Reason
    cause: Cause | None
    place: str
    """The path without the numbers of messages, which grow with the conversation."""


@dataclass
class Finding:
    """A problem and the calls that have it."""

    problem: Problem
    calls: list[Judged] = field(default_factory=list)

    @property
    def lost_tokens(self) -> int:
        return sum(call.diagnosis.lost for call in self.calls)

    @property
    def lost_usd(self) -> float | None:
        """None when no call has a known price."""
        return _sum_usd(self.calls)

    @property
    def example(self) -> Judged:
        """The call that lost most."""
        return max(self.calls, key=lambda call: call.diagnosis.lost)


@dataclass(frozen=True)
class Summary:
    """All of it in figures. ``hit_rate`` is None where no call reported its tokens."""

    calls: int
    statuses: Mapping[Status, int]
    input: int
    read: int
    lost_tokens: int
    lost_usd: float | None
    unpriced: int
    findings: Sequence[Finding]

    @property
    def hit_rate(self) -> float | None:
        return self.read / self.input if self.input else None


def summary(judged: Iterable[Judged]) -> Summary:
    """The figures and findings of some calls."""
    calls = list(judged)
    found: dict[Problem, Finding] = {}
    for call in calls:
        problem = _problem(call)
        if problem is not None:
            found.setdefault(problem, Finding(problem)).calls.append(call)
    known = [call.usage for call in calls if call.usage.available]
    return Summary(
        calls=len(calls),
        statuses=Counter(call.diagnosis.status for call in calls),
        input=sum(usage.input_total or 0 for usage in known),
        read=sum(usage.read or 0 for usage in known),
        lost_tokens=sum(call.diagnosis.lost for call in calls),
        lost_usd=_sum_usd(calls),
        unpriced=sum(call.cost is None and call.usage.available for call in calls),
        findings=sorted(found.values(), key=lambda one: (-(one.lost_usd or 0), -one.lost_tokens, -len(one.calls))),
    )


def _sum_usd(calls: Iterable[Judged]) -> float | None:
    known = [float(call.lost_usd) for call in calls if call.lost_usd is not None]
    return math.fsum(known) if known else None


def _problem(call: Judged) -> Problem | None:
    reason = call.diagnosis.reason
    if reason is None:
        return None
    place = call.diagnosis.place
    path = call.exchange.dialect.path(place) if place is not None else ""
    return Problem(reason, call.diagnosis.cause, re.sub(r"^(messages|input|contents)\[\d+\]", r"\1[*]", path))


# --- In words -----------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """How much may be said: the step of the privacy ladder, and the key of what is hashed."""

    privacy: Privacy
    key: HashKey

    def path(self, path: paths.Path) -> str:
        return paths.shown(path, self.privacy, self.key)

    def name(self, name: str) -> str:
        return paths.shown_name(name, self.privacy, self.key)


def path(call: Judged, shown: Shown) -> str:
    """Where it differs: to the field, from both texts where they are at hand, else from hashes."""
    place, verdict = call.place, call.diagnosis
    if place is not None:
        return shown.path(place.path)
    if verdict.place is None:
        return ""
    return paths.at(call.exchange.dialect, verdict.place, verdict.field, shown.privacy, shown.key)


def line(call: Judged) -> int | None:
    """The first differing line of the text at ``path``, from 1."""
    return call.place.line if call.place is not None and call.place.line is not None else call.diagnosis.line


def where(call: Judged, shown: Shown) -> str:
    """Path, line and column for people, counted from 1 as editors do; empty for no place."""
    said, place = path(call, shown), call.place
    number = line(call)
    if not said or number is None:
        return said
    return f"{said}, line {number}" + (f", column {_column(place)}" if place is not None and place.line else "")


def _column(place: Place) -> int:
    assert isinstance(place.new, str)
    assert place.offset is not None
    return place.offset - (place.new.rfind("\n", 0, place.offset) + 1) + 1


def happened(call: Judged, shown: Shown) -> list[str]:
    """What happened, a sentence each: the rule that was broken, the kind of change, and the particulars."""
    reason, cause = call.diagnosis.reason, call.diagnosis.cause
    if reason is None:
        return []
    if reason is Reason.UNKNOWN and not call.exchange.whole:
        return ["A transcript does not show why: tools, system prompt, parameters and cache markers are not in it."]
    if reason is Reason.UNKNOWN and not call.exchange.timed:
        return ["The prompt explains nothing, and the file does not say when it was sent."]
    said = [REASON_INFO[reason].meaning]
    if cause is not None:
        said.append(words.cause(cause, call.diagnosis.confidence))
    if call.diagnosis.also:
        said.append(f"Behind it also: {', '.join(call.diagnosis.also)}.")
    particulars = _tools(call, cause, shown) if call.diagnosis.place is not None else _circumstances(call)
    return [*said, particulars] if particulars else said


def fix(call: Judged) -> str:
    """What to do about it."""
    reason = call.diagnosis.reason
    if reason is Reason.UNKNOWN and not call.exchange.whole:
        return "Record the requests themselves: live traffic, or a log of request bodies, shows more."
    if reason is None:
        return ""
    cause = call.diagnosis.cause
    return REASON_INFO[reason].fix if cause is None else CAUSE_INFO[cause].fix


def pieces(call: Judged) -> tuple[list[tuple[Section, int]], int]:
    """(section, bytes) of each piece of the prompt, and how many of them stand in front of the first difference. The
    segment that differs is cut where it does. Parameters cut a prefix, but are no text."""
    sizes = [(section, 0 if section is Section.PARAMETERS else size) for section, size in call.sizes]
    at, place = call.shared, call.place
    if place is None or not isinstance(place.new, str) or not place.offset or at >= len(sizes):
        return sizes, at
    section, size = sizes[at]
    front = size * place.offset // max(1, len(place.new))
    return [*sizes[:at], (section, front), (section, size - front), *sizes[at + 1 :]], at + 1


def figures(call: Judged) -> str:
    """What was expected and what was read."""
    verdict, usage = call.diagnosis, call.usage
    if not usage.available:
        return "no token counts in the file"
    expected = "" if verdict.expected is None else f" of {min(verdict.expected, usage.input_total or 0):,} expected"
    return f"read {usage.read or 0:,}{expected}, {usage.input_total:,} sent"


def _tools(call: Judged, cause: Cause | None, shown: Shown) -> str:
    """Which tool it was, where tools came, went or changed places."""
    place = call.diagnosis.place
    assert place is not None
    if place.section is not Section.TOOLS:
        return ""
    new, old = tool_name(place), tool_name(call.old) if call.old is not None else ""
    new, old = (shown.name(name) if name else "" for name in (new, old))
    position = place.element + 1
    match cause:
        case Cause.ADDED:
            return f"`{new}` was added at position {position}." if new else ""
        case Cause.REMOVED:
            return f"`{old}` was removed from position {position}." if old else ""
        case Cause.REORDERED:
            return f"Position {position} held `{old}` and holds `{new}`." if old and new else ""
    return f"The tool is `{new}`, at position {position}." if new else ""


def tool_name(segment: Segment) -> str:
    """The name of a tool, however its API writes it; empty for none."""
    fields = mapping(segment.value)
    return string(fields.get("name")) or string(mapping(fields.get("function")).get("name"))


def _circumstances(call: Judged) -> str:
    """What was not in the prompt: time, model, endpoint."""
    earlier, exchange = call.earlier, call.exchange
    if call.diagnosis.reason is Reason.BELOW_MINIMUM:
        least = rules_for(exchange.provider, call.prompt.model).minimum
        return f"{call.usage.input_total:,} tokens were sent; {call.prompt.model} caches from {least:,} on."
    if earlier is None:
        return ""
    gap = exchange.at - earlier.at
    match call.diagnosis.reason:
        case Reason.TTL_EXPIRED:
            lives = max((place.ttl for place in call.prompt.breakpoints), default=0) or call.prompt.retention
            lives = lives or rules_for(exchange.provider, call.prompt.model).ttl
            return f"{_time(gap)} had passed; an entry lives {_time(lives)}."
        case Reason.CONCURRENT_WRITE:
            return (
                f"It was sent {_time(gap)} after the other, whose answer began {_time(earlier.begun - earlier.at)} on."
            )
        case Reason.MODEL_CHANGED:
            before = string(earlier.body.get("model"))
            return f"It went from {before} to {call.prompt.model}." if before != call.prompt.model else ""
    return ""


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def _time(seconds: float) -> str:
    for size, name in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds * 1000:.0f} ms"


# --- For programs -------------------------------------------------------------------------------------------


def row(call: Judged, shown: Shown) -> dict[str, Any]:
    """One line of ``--format jsonl``. ``line`` counts from 1, ``offset`` characters from 0; null is not known."""
    verdict, usage = call.diagnosis, call.usage
    return {
        "id": call.exchange.name,
        "request_index": call.exchange.number,
        "status": verdict.status,
        "reason": verdict.reason,
        "cause": verdict.cause,
        "also": list(verdict.also),
        "confidence": verdict.confidence,
        "actor": words.actor(verdict),
        "evidence": verdict.evidence._asdict() if verdict.evidence is not None else None,
        "explanation": words.explanation(verdict._replace(line=line(call)), path(call, shown)),
        "path": path(call, shown) or None,
        "line": line(call),
        "offset": call.place.offset if call.place is not None else None,
        "input_tokens": usage.input_total,
        "read_tokens": usage.read,
        "written_tokens": usage.write,
        "expected_tokens": verdict.expected,
        "lost_tokens": verdict.lost,
        "lost_usd": float(call.lost_usd) if call.lost_usd is not None else None,
        "earlier_index": call.earlier.number if call.earlier is not None else None,
    }
