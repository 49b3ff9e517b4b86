"""The proof against reality: recorded requests go through the emulator, and what it bills is held against the record.

Given to it: the requests in order, their times where recorded, and a tokenizer calibrated by the reported counts
(``calibration``). Predicted: for each request whether it reads and up to which place, and what it writes for which
lifetime. The record's own reads and writes are never handed through; they only say how many tokens a place is.

A provider that keeps its promises has to be met exactly. Of one that promises nothing the emulator knows the most
that can be read; any whole number of granules up to that, and nothing, is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.calibration import Calibration, text_of
from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.emulator.personality import Personality
from otel_promptcache.emulator.recording import Sequence, Step
from otel_promptcache.emulator.wire import Wire, anthropic, gemini
from otel_promptcache.model import Prompt, Usage
from otel_promptcache.providers.rules import Matching, Rules, rules_for

_KEY: Final = "recorded"
_APART: Final = 1.0
"""Seconds between the end of an earlier run and the recorded one."""


class Start(StrEnum):
    """What the cache holds when a recording begins."""

    EMPTY = "empty"
    RERUN = "rerun"
    """As the same requests left it when they were sent just before: many recordings are repeated until they fit."""


class Verdict(StrEnum):
    """How one request, or a whole sequence, compares."""

    AGREES = "agrees"
    EXPLAINED = "explained"
    DISAGREES = "disagrees"
    NOT_COMPARED = "not compared"


class Outcome(NamedTuple):
    """One request: what was recorded and what the emulator says."""

    number: int
    verdict: Verdict
    promised: bool
    """Whether the provider's rules promise the hit, so that the record is to be met exactly."""
    recorded: Usage | None
    predicted: Accounting | None
    why: str = ""

    @property
    def to_the_token(self) -> bool:
        """Whether the read is the very one that the emulator gives."""
        return (
            self.recorded is not None
            and self.predicted is not None
            and (self.recorded.read or 0) == self.predicted.read
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One sequence."""

    sequence: Sequence
    start: Start
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its requests."""
        found = {outcome.verdict for outcome in self.outcomes}
        for verdict in (Verdict.DISAGREES, Verdict.EXPLAINED, Verdict.AGREES):
            if verdict in found:
                return verdict
        return Verdict.NOT_COMPARED

    @property
    def promised(self) -> bool:
        """Whether any of its requests is to be met exactly."""
        return any(outcome.promised for outcome in self.outcomes)

    @property
    def compared(self) -> int:
        """Requests that were held against the record."""
        return sum(outcome.verdict is not Verdict.NOT_COMPARED for outcome in self.outcomes)

    @property
    def why(self) -> str:
        """The reasons for its verdict, each with the numbers of the requests that it holds for."""
        if self.sequence.left_out:
            return self.sequence.left_out
        reasons: dict[str, list[str]] = {}
        for one in self.outcomes:
            if one.why and one.verdict in (Verdict.EXPLAINED, Verdict.DISAGREES):
                reasons.setdefault(one.why, []).append(str(one.number))
        return "; ".join(f"{', '.join(numbers)}: {reason}" for reason, numbers in reasons.items())


def verify(sequence: Sequence) -> Finding:
    """Replays a recording from an empty cache and, if that does not fit, as a rerun; the better fit counts."""
    if not sequence.steps:
        return Finding(sequence, Start.EMPTY, ())
    calibration = calibrated(sequence.steps)
    found = [Finding(sequence, start, _outcomes(sequence.steps, calibration, start)) for start in Start]
    return min(found, key=_misfit)


def _misfit(finding: Finding) -> tuple[int, int]:
    found = [outcome.verdict for outcome in finding.outcomes]
    return found.count(Verdict.DISAGREES), found.count(Verdict.EXPLAINED)


def _outcomes(steps: Many[Step], calibration: Calibration, start: Start) -> tuple[Outcome, ...]:
    replay = _Replay(steps, calibration)
    if start is Start.RERUN:
        list(replay.run(steps[0].at - steps[-1].at - _APART))
    return tuple(_compared(steps, index, found, calibration) for index, found in enumerate(replay.run(0.0)))


# --- What the record says about token counts ----------------------------------------------------------------


def calibrated(steps: Many[Step]) -> Calibration:
    """A tokenizer for the prompts of a recording."""
    calibration = Calibration([text_of(step.prompt) for step in steps])
    for index, step in enumerate(steps):
        if step.usage is not None and step.usage.input_total is not None:
            calibration.pin(index, len(calibration.texts[index].whole), step.usage.input_total)
    for index, step in enumerate(steps):
        if step.usage is not None:
            rules = rules_for(step.provider, step.prompt.model)
            pin = _pin_marks if rules.matching is Matching.BREAKPOINT else _pin_parting
            pin(calibration, steps, index, step.usage, rules)
    return calibration


def _pin_marks(calibration: Calibration, steps: Many[Step], index: int, usage: Usage, _rules: Rules) -> None:
    """Up to the last mark everything is read or written; up to the last one of the longer lifetime likewise."""
    marks, ends = steps[index].prompt.breakpoints, calibration.texts[index].ends
    read, write = usage.read or 0, usage.write or 0
    if not marks or not read + write:
        return
    calibration.pin(index, ends[marks[-1].length - 1], read + write)
    written = [(ttl, tokens) for ttl, tokens in usage.write_by_ttl if tokens]
    if len(written) > 1:
        ttl, tokens = max(written)
        longer = [mark for mark in marks if mark.ttl == ttl]
        if longer:
            calibration.pin(index, ends[longer[-1].length - 1], read + tokens)


def _pin_parting(calibration: Calibration, steps: Many[Step], index: int, usage: Usage, rules: Rules) -> None:
    if rules.reliable and usage.read:
        calibration.pin_parting(index, steps[index].block or rules.granule, rules.recomputed, usage.read)


# --- The replay ---------------------------------------------------------------------------------------------


class _Replay:
    """An emulator and the requests that go through it."""

    def __init__(self, steps: Many[Step], calibration: Calibration) -> None:
        self._now = 0.0
        block = next((step.block for step in steps if step.block), None)
        self._emulator = Emulator(clock=Clock(lambda: self._now), tokenizer=len, block=block)
        self._steps = steps
        self._prompts = [calibration.calibrated(index, step.prompt) for index, step in enumerate(steps)]

    def run(self, shift: float) -> Iterator[Accounting | ProviderError]:
        """What each request is billed, with all times moved by so many seconds."""
        for step, prompt in zip(self._steps, self._prompts, strict=True):
            self._now = step.at + shift
            try:
                yield self._created(step, prompt) if step.creates else self._answered(step, prompt)
            except ProviderError as error:
                yield error

    def _answered(self, step: Step, prompt: Prompt) -> Accounting:
        request = self._emulator.received(step.wire.path, {})
        wire = cast("Wire", _Calibrated(step.wire, prompt))
        who = Personality(step.provider, step.provider, (step.wire.dialect.name,))
        call = self._emulator.open(wire, step.body, _KEY, request, who)
        self._emulator.begin(call)
        return call.ticket.accounting

    def _created(self, step: Step, prompt: Prompt) -> Accounting:
        tokens = self._emulator.count(prompt)
        gemini.check_cache(prompt.model, tokens)
        owner = self._emulator.owner(_KEY, {})
        name = step.creates.removeprefix("cachedContents/")
        self._emulator.contents.create(owner, step.body, (tokens, len(prompt.segments)), name, self._now)
        return Accounting(tokens)


class _Calibrated:
    """A wire format whose dialect reads one prompt, in calibrated tokens."""

    def __init__(self, wire: Wire, prompt: Prompt) -> None:
        self._wire = wire
        self._prompt = prompt

    @property
    def dialect(self) -> _Calibrated:
        return self

    @property
    def name(self) -> str:
        return self._wire.dialect.name

    def path(self, segment: Any) -> str:
        return self._wire.dialect.path(segment)

    def check(self, _body: Mapping[str, Any], _prompt: Prompt) -> None:
        """The provider has taken it."""

    def prompt(self, _body: Mapping[str, Any]) -> Prompt:
        return self._prompt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


# --- The comparison -----------------------------------------------------------------------------------------


def _compared(steps: Many[Step], index: int, found: Accounting | ProviderError, calibration: Calibration) -> Outcome:
    step = steps[index]
    usage = step.usage
    rules = rules_for(step.provider, step.prompt.model)
    promised = rules.reliable or step.reads_resource
    if isinstance(found, ProviderError):
        return Outcome(step.number, Verdict.DISAGREES, promised, usage, None, f"refused: {found.message}")
    if step.creates:
        return Outcome(step.number, Verdict.NOT_COMPARED, promised, usage, found, "makes a cache resource")
    if usage is None or usage.input_total is None:
        return Outcome(step.number, Verdict.NOT_COMPARED, promised, usage, found, "no usage was reported")
    if _exact(usage, found) if promised else _possible(usage.read or 0, found.read, rules):
        return Outcome(step.number, Verdict.AGREES, promised, usage, found)
    explanation = next((one for one in EXPLANATIONS if one.holds(steps, index, found, calibration)), None)
    verdict = Verdict.EXPLAINED if explanation else Verdict.DISAGREES
    return Outcome(step.number, verdict, promised, usage, found, explanation.reason if explanation else "")


def _exact(usage: Usage, found: Accounting) -> bool:
    """Every count that was reported is the same; a read that is left out is none."""
    if (usage.read or 0) != found.read or (usage.write is not None and usage.write != found.write):
        return False
    by_ttl = dict(found.writes)
    return all(by_ttl.get(ttl, 0) == tokens for ttl, tokens in usage.write_by_ttl)


def _possible(read: int, most: int, rules: Rules) -> bool:
    """Nothing, or whole granules up to what an unchanged, living cache on the same machine would give."""
    return not read or (read <= most and read % rules.granule == 0 and read >= rules.minimum)


# --- What is explained --------------------------------------------------------------------------------------


class Explanation(NamedTuple):
    """Why a record cannot be met, with the evidence for it; nothing else is explained."""

    reason: str
    holds: Callable[[Many[Step], int, Accounting, Calibration], bool]
    """Whether it does for one request of a recording, given what the emulator said."""


def _below_minimum(steps: Many[Step], index: int, found: Accounting, _calibration: Calibration) -> bool:
    """Evidence: the reported total and the documented minimum."""
    step = steps[index]
    read = step.usage is not None and bool(step.usage.read)
    return read and found.total < rules_for(step.provider, step.prompt.model).minimum


def _from_before(steps: Many[Step], index: int, _found: Accounting, calibration: Calibration) -> bool:
    """Evidence: the record alone."""
    usage = steps[index].usage
    shared = [calibration.shared(index, earlier) for earlier in range(index)]
    return usage is not None and (usage.read or 0) > max(shared, default=0)


def _slots_from_before(steps: Many[Step], index: int, found: Accounting, calibration: Calibration) -> bool:
    """Evidence: an earlier request that read from before. What is sent twice in a row is in a slot all the same."""
    rules = rules_for(steps[index].provider, steps[index].prompt.model)
    again = index > 0 and calibration.shared(index, index - 1) == found.total
    return rules.slots > 0 and not again and any(_from_before(steps, one, found, calibration) for one in range(index))


def _translated(steps: Many[Step], index: int, _found: Accounting, _calibration: Calibration) -> bool:
    """Evidence: marks in the other provider's form, which this API does not have."""
    step = steps[index]
    return step.provider == anthropic.dialect.provider and step.wire.dialect.name != anthropic.dialect.name


def _no_rules(steps: Many[Step], index: int, found: Accounting, calibration: Calibration) -> bool:
    """Evidence: no row names the provider, and the read is no longer than what an earlier request shares."""
    usage = steps[index].usage
    assumed = not rules_for(steps[index].provider, steps[index].prompt.model).provider
    shared = max((calibration.shared(index, earlier) for earlier in range(index)), default=0)
    return assumed and usage is not None and (usage.read or 0) <= max(shared, found.total if found.read else 0)


EXPLANATIONS: Final = (
    Explanation(
        "it is shorter than the minimum that the provider documents, and was read all the same", _below_minimum
    ),
    Explanation(
        "it reads more than any earlier request of the recording has in common with it, and a rerun does not fit "
        "either: the cache held other prompts from before the recording",
        _from_before,
    ),
    Explanation(
        "what the engine's slots, and its store of prompts that had to leave one, held when the recording began is not "
        "known, and so not which prompt made room for which",
        _slots_from_before,
    ),
    Explanation(
        "a router turned the request into another API, with marks of its own",
        _translated,
    ),
    Explanation(
        "the provider documents no granule; the assumed one is too coarse for it",
        _no_rules,
    ),
)
"""In order of precedence."""
