"""Where a provider looks for entries of earlier requests, and where a request leaves its own.

Pure functions over a prompt and a row of the rules; history and emulator both work by them. Lengths count leading
segments. Windows are walked backwards and lazily: what they cost does not grow with the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from otel_promptcache.model import Breakpoint, Kind, Prompt, Section, Segment
from otel_promptcache.providers.rules import Rules

_RUNS: Final = frozenset({Kind.TOOL_USE, Kind.TOOL_RESULT})
_NO_POSITION: Final = frozenset({Section.PARAMETERS, Section.HELD})


def windows(prompt: Prompt, rules: Rules) -> Iterator[Iterator[int]]:
    """For each search the lengths it looks at, the longest first; the first that holds an entry ends the search."""
    if rules.implicit_mark:
        yield _message_ends(prompt, rules)
        return
    for place in prompt.breakpoints:
        yield _blocks(prompt.segments, place.length, rules.lookback)


def _blocks(segments: Sequence[Segment], start: int, lookback: int) -> Iterator[int]:
    """Lengths from a breakpoint backwards, at most ``lookback`` positions, the breakpoint itself the first.

    A position is a block; a run of tool calls, and a run of their results, is one. Parameters are no blocks
    (platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-09).
    """
    position = 0
    earlier: Kind | None = None
    for length in range(start, 0, -1):
        segment = segments[length - 1]
        if segment.section in _NO_POSITION:
            continue
        if segment.kind is not earlier or segment.kind not in _RUNS:
            position += 1
            if lookback and position > lookback:
                return
        earlier = segment.kind
        yield length


def _message_ends(prompt: Prompt, rules: Rules) -> Iterator[int]:
    """The look-ups of GPT-5.6 and later: every explicit mark; unless the request is explicit only, also the newest
    eligible message ends (the implicit mark and those before it) and the end of the instructions in front.

    developers.openai.com/api/docs/guides/prompt-caching, 2026-09-23. The guide considers the first 2 and the
    latest 50 explicit marks, the API reference the latest 80; below either limit there is no difference.
    """
    lengths = {place.length for place in prompt.breakpoints}
    if prompt.automatic:
        lengths.update(islice(eligible_ends(prompt.segments), rules.lookback))
        lengths.add(_instructions_end(prompt.segments))
    return iter(sorted(lengths - {0}, reverse=True))


def eligible_ends(segments: Sequence[Segment]) -> Iterator[int]:
    """Lengths at which a message ends that an implicit breakpoint may follow, the newest first: a user message, or
    the last of a run of tool results."""
    following: Segment | None = None
    for length in range(len(segments), 0, -1):
        segment = segments[length - 1]
        if segment.section is not Section.MESSAGES:
            return
        ends = following is None or following.element != segment.element
        who = speaker(segment)
        if ends and (who == "user" or (who == "tool" and (following is None or speaker(following) != "tool"))):
            yield length
        following = segment


def speaker(segment: Segment) -> str:
    """Who said it, in one word for all the names that tool results have."""
    role = segment.role.partition("\0")[0]
    return "tool" if role in ("tool", "function") or role.endswith("_output") else role


def _instructions_end(segments: Sequence[Segment]) -> int:
    """Length up to the last instruction in front of the messages, 0 for none."""
    end = 0
    for length, segment in enumerate(segments, 1):
        if segment.section in (Section.MESSAGES, Section.HELD):
            break
        if segment.section is Section.SYSTEM:
            end = length
    return end


def written(prompt: Prompt, rules: Rules, ends: Sequence[int]) -> tuple[Breakpoint, ...]:
    """The breakpoints at which a request stores entries, shortest prefix first; ``ends`` are the tokens of its first
    n segments.

    Prefixes below the minimum are passed over without an error. Of more explicit marks than the provider writes,
    the latest count, after the implicit one (types of openai 3.54, ``PromptCacheOptions.mode``).
    """
    places = sorted(place for place in prompt.breakpoints if ends[place.length] >= rules.minimum)
    implicit = [place for place in places if not place.explicit]
    explicit = [place for place in places if place.explicit]
    if rules.max_breakpoints:
        explicit = explicit[-(rules.max_breakpoints - len(implicit)) :]
    return tuple(sorted(implicit + explicit))
