"""Who else instruments, and whether tokens are counted twice: found out by calls, not by a list of names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Any, Final

from otel_promptcache import semconv
from otel_promptcache.cli import _doctor_child as child
from otel_promptcache.cli._doctor_provider import CALLS, Scripted
from otel_promptcache.cli._doctor_report import Finding, Section, note, ok, problem
from otel_promptcache.cli._doctor_versions import installed
from otel_promptcache.settings import PREFIX

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
NATIVE_SWITCH: Final = "ANTHROPIC_OPEN_TELEMETRY"
_TITLE: Final = "Who else instruments, and are tokens counted twice"
_OURS: Final = "otel_promptcache"
_GROUP: Final = "opentelemetry_instrumentor"
_MOST_TRIALS: Final = 6
_ONCE: Final = (
    # Histograms that several instrumentations record, and whether only streamed calls have a record.
    (semconv.M_DURATION.name, "call", False),
    (semconv.M_FIRST_CHUNK.name, "streamed call", True),
)

Span = Mapping[str, Any]
Result = Mapping[str, Any]
Switch = tuple[str, str]


def section() -> Section:
    """The experiment and what follows from it."""
    if not installed("opentelemetry-sdk") or not child.present():
        return Section(_TITLE, [note("experiment", "not made: it needs opentelemetry-sdk, and anthropic or openai")])
    try:
        found = child.run("calls", child.present())
    except child.ExperimentError as error:
        return Section(_TITLE, [*_entry_points(), problem("experiment", f"came to no result: {error}")])
    seen = [*_entry_points(), *_loading(found)]
    if found["failed"] and not _ours(found):
        return Section(_TITLE, seen)  # what follows from it needs no saying call by call
    return Section(_TITLE, [*seen, *_calls(found), *_metrics(found), *_remedies(found)])


# --- who is there -------------------------------------------------------------------------------------------


def _entry_points() -> Iterator[Finding]:
    """Names that several packages use: the launcher's switch then turns all of them off at once."""
    points = entry_points(group=_GROUP)
    for name, count in Counter(point.name for point in points).items():
        if count > 1:
            values = ", ".join(point.value.partition(":")[0] for point in points if point.name == name)
            yield note(
                f"entry point {name}", f"{count} instrumentors share it: {values}", f"{DISABLED}={name} disables all"
            )


def _ours(found: Result) -> list[str]:
    return [name for name, module in found["loaded"] if module.startswith(_OURS)]


def _loading(found: Result) -> Iterator[Finding]:
    ours = _ours(found)
    loaded = [name for name, _ in found["loaded"] if name not in ours]
    yield ok("loaded by opentelemetry-instrument", ", ".join([*ours, *loaded]) or "nothing")
    off = [name.strip() for name in os.environ.get(DISABLED, "").split(",")]
    rest = {point.name for point in entry_points(group=_GROUP)} - set(ours) - set(loaded) - set(off)
    if rest and "*" not in off and not found["failed"]:
        yield note("not loaded", f"{', '.join(sorted(rest))}: the library is missing, or of a version not supported")
    if found["failed"]:
        name, error = found["failed"]
        yield problem(
            f"instrumentor {name} fails" if name else "opentelemetry-instrument",
            f"{error}. It stops there and loads none of the other instrumentors",
            f"{DISABLED}={name}" if name else "pip install -U opentelemetry-instrumentation opentelemetry-distro",
        )
    elif not ours and not _off():
        yield problem("ours", "not loaded by opentelemetry-instrument", f"look at {DISABLED}")


# --- what came out ------------------------------------------------------------------------------------------


def _off() -> bool:
    return os.environ.get(PREFIX + "MODE", "").strip().lower() == "off"


def _scripted(name: str) -> Scripted:
    return next(scripted for scripted in CALLS if scripted.name == name)


def carriers(spans: Sequence[Span]) -> list[Span]:
    """The spans that say how many input tokens a call had."""
    return [span for span in spans if semconv.INPUT_TOKENS in span["tokens"]]


def total(spans: Sequence[Span]) -> int:
    """What a query that sums input tokens over the trace finds."""
    return int(sum(span["tokens"][semconv.INPUT_TOKENS] for span in carriers(spans)))


def _calls(found: Result) -> Iterator[Finding]:
    for call in found["calls"]:
        yield _judged(_scripted(call["name"]), call["spans"], call["error"])


def _judged(scripted: Scripted, spans: Sequence[Span], error: str) -> Finding:
    if error:
        return problem(scripted.name, f"the call failed: {error}")
    said, right = total(spans), scripted.usage.input
    scopes = [span["scope"] for span in carriers(spans)]
    if len(scopes) == 1 and said == right:
        ours = next((span["scope"] for span in spans if span["ours"]), "")
        how = ""
        if scopes[0] != _OURS and ours:
            how = ", enriched by us" if ours == scopes[0] else f", with ours beside it on {ours}"
        return ok(scripted.name, f"{_spans(spans)}, {right:,} input tokens counted once by {scopes[0]}{how}")
    if said > right:
        return problem(
            scripted.name,
            f"{_spans(spans)}, tokens counted {len(scopes)} times: {_each(scopes)}. A sum over the trace finds "
            f"{said:,} input tokens where the provider says {right:,}",
        )
    if scopes:
        return problem(
            scripted.name,
            f"{_each(scopes)} says {said:,} input tokens where the provider says {right:,}: cached ones are left out",
        )
    return _uncounted(scripted, spans, right)


def _uncounted(scripted: Scripted, spans: Sequence[Span], right: int) -> Finding:
    """No span has the conventions' attribute."""
    elsewhere = [(name, span["scope"]) for span in spans for name, value in span["tokens"].items() if value == right]
    if elsewhere:
        said = ", ".join(f"{name} of {scope}" for name, scope in elsewhere)
        return note(scripted.name, f"{_spans(spans)}, input tokens only as {said}")
    if os.environ.get(PREFIX + "SPANS", "").strip().lower() == "never" or _off():
        return note(scripted.name, f"{_spans(spans)}, none carries token counts, as the settings want it")
    return problem(
        scripted.name,
        f"{_spans(spans)}, none carries token counts",
        f"unset {PREFIX}SPANS and {DISABLED}, or start us with otel_promptcache.instrument()",
    )


def _spans(spans: Sequence[Span]) -> str:
    return f"{len(spans)} span{'' if len(spans) == 1 else 's'}"


def _each(scopes: Sequence[str]) -> str:
    return ", ".join(f"{scope} ({count}x)" if count > 1 else scope for scope, count in Counter(scopes).items())


def _metrics(found: Result) -> Iterator[Finding]:
    made = [_scripted(call["name"]) for call in found["calls"] if not call["error"]]
    for name, what, streamed in _ONCE:
        recorded = {metric["scope"]: metric["count"] for metric in found["metrics"] if metric["name"] == name}
        expected = sum(scripted.stream or not streamed for scripted in made)
        if sum(recorded.values()) > expected:
            said = ", ".join(f"{count:g} by {scope}" for scope, count in recorded.items())
            yield note(
                name,
                f"{said}, for {expected} {what}s: a sum over all scopes counts some twice",
                "select by otel_scope_name where it is summed",
            )


# --- what helps ---------------------------------------------------------------------------------------------


def doubled(found: Result) -> list[str]:
    """The calls whose tokens are on more than one span."""
    return [call["name"] for call in found["calls"] if total(call["spans"]) > _scripted(call["name"]).usage.input]


def _remedies(found: Result) -> list[Finding]:
    """Each switch that might help, tried: the same calls again, with the switch."""
    wrong = doubled(found)
    if not wrong:
        return []
    sdks = sorted({_scripted(name).sdk for name in wrong})
    switches = _switches(found, wrong)[:_MOST_TRIALS]
    with ThreadPoolExecutor(2) as pool:
        helped = list(pool.map(lambda switch: _helps(switch, sdks), switches))
    tried = [f"{name}={value}" for name, value in switches]
    good = [switch for switch, helps in zip(tried, helped, strict=True) if helps]
    if good:
        return [note("what helps", f"tried, each alone, and every token is counted once: {', or '.join(good)}")]
    said = ", ".join(tried) or "no switch is known"
    return [problem("what helps", f"none of these alone: {said}", "uninstall one of the instrumentations named above")]


def _switches(found: Result, wrong: Sequence[str]) -> list[Switch]:
    """What turns off one of the scopes that count, by what is installed here."""
    scopes = {span["scope"] for call in found["calls"] if call["name"] in wrong for span in carriers(call["spans"])}
    sdks = {_scripted(name).sdk for name in wrong}
    already = [name.strip() for name in os.environ.get(DISABLED, "").split(",") if name.strip()]
    switches: list[Switch] = []
    if "anthropic" in sdks:
        switches.append((NATIVE_SWITCH, "false"))
    for name, module in found["loaded"]:
        related = any(scope.startswith(module) or module.startswith(scope) for scope in scopes if scope)
        if not module.startswith(_OURS) and (related or name in sdks):
            switches.append((DISABLED, ",".join([*already, name])))
    if _OURS in scopes:
        switches.append((PREFIX + "SPANS", "never"))
    return list(dict.fromkeys(switches))


def _helps(switch: Switch, sdks: Sequence[str]) -> bool:
    try:
        found = child.run("calls", sdks, dict([switch]))
    except child.ExperimentError:
        return False
    return all(
        not call["error"] and total(call["spans"]) == _scripted(call["name"]).usage.input for call in found["calls"]
    )
