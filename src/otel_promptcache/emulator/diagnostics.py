"""The verdicts that Anthropic and OpenAI return on request: how a prompt differs from that of an earlier response.

They compare requests and know nothing of lifetimes, minimum lengths or breakpoints
(types of anthropic 2.12, ``Diagnostics``, and of openai 3.54, ``PromptCacheDiagnostics``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.tokens import Tokenizer, piece
from otel_promptcache.model import Prompt, Section, Segment

MAX_RECORDS: Final = 1_000
"""Responses that can be compared with; the providers promise "a limited time"."""


class _Record(NamedTuple):
    """What is kept of a request: no text."""

    model: str
    cache_key: str
    marks: Sequence[tuple[Section, str, int]]
    """Section, role and key of each segment."""
    cached: int
    """Tokens that stood in the cache after it."""


class Difference(NamedTuple):
    """How a prompt differs from an earlier one: in what, and how many tokens they share."""

    kind: str
    """``model``, ``cache_key``, the name of a parameter, ``tools``, ``system``, ``messages``, or empty for none."""
    shared: int
    cached: int
    """Tokens that the earlier request had in the cache."""


class Records:
    """Earlier requests by account and response id. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def keep(self, owner: str, response_id: str, prompt: Prompt, accounting: Accounting) -> None:
        marks = [(one.section, one.role, one.key) for one in prompt.segments]
        record = _Record(prompt.model, prompt.cache_key, marks, accounting.read + accounting.write)
        self._kept[owner, response_id] = record
        if len(self._kept) > MAX_RECORDS:
            self._kept.popitem(last=False)

    def compare(self, owner: str, response_id: str, prompt: Prompt, tokenizer: Tokenizer) -> Difference | None:
        """How a prompt differs from that of an earlier response; None where no such response is kept."""
        record = self._kept.get((owner, response_id))
        if record is None:
            return None
        marks = [(one.section, one.role, one.key) for one in prompt.segments]
        pairs = zip(marks, record.marks, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        shared = sum(piece(one, tokenizer).tokens for one in prompt.segments[:same])
        if prompt.model != record.model:
            return Difference("model", 0, record.cached)
        if prompt.cache_key != record.cache_key:
            return Difference("cache_key", 0, record.cached)
        if same == len(record.marks):
            return Difference("", shared, record.cached)
        return Difference(_kind(record.marks[same], prompt.segments, same), shared, record.cached)


_SECTIONS: Final = {Section.TOOLS: "tools", Section.SYSTEM: "system"}


def _kind(gone: tuple[Section, str, int], segments: Sequence[Segment], place: int) -> str:
    """The earlier of the two sections that meet where the prompts part, or the parameter that one of them has."""
    section, role, _ = gone
    if place < len(segments):
        here = segments[place]
        if here.section is Section.PARAMETERS:
            return here.role
        if section is not Section.PARAMETERS:
            section = min(section, here.section)
    return role if section is Section.PARAMETERS else _SECTIONS.get(section, "messages")


# --- In the providers' words --------------------------------------------------------------------------------


def anthropic(difference: Difference | None, accounting: Accounting) -> Mapping[str, Any] | None:
    """``Message.diagnostics``; None where nothing differs. Of parameters the API names only ``speed``."""
    if difference is None:
        return {"cache_miss_reason": {"type": "previous_message_not_found"}}
    kind = "model" if difference.kind == "speed" else difference.kind
    if not kind:
        return None
    if kind not in ("model", "tools", "system", "messages"):
        return {"cache_miss_reason": {"type": "unavailable"}}
    missed = max(0, difference.cached - accounting.read)
    return {"cache_miss_reason": {"type": f"{kind}_changed", "cache_missed_input_tokens": missed}}


_OPENAI: Final[dict[str, str]] = {
    "model": "model_changed",
    "cache_key": "prompt_cache_key_changed",
    "tools": "tools_changed",
    "text.format": "text_format_changed",
    "reasoning.effort": "reasoning_effort_changed",
    "text.verbosity": "verbosity_changed",
    "context_management": "context_compacted",
    "service_tier": "service_tier_changed",
    "system": "input_changed",
    "messages": "input_changed",
}


def openai(difference: Difference | None, accounting: Accounting) -> Mapping[str, Any]:
    """``Response.prompt_cache_diagnostics``. Where nothing differs and nothing was read, the API has no word for it."""
    if difference is None:
        return {"type": "comparison_response_not_found"}
    if not difference.kind:
        return {"type": "cache_hit" if accounting.read else "unavailable"}
    if difference.kind not in _OPENAI:
        return {"type": "unavailable"}
    return {
        "type": "cache_miss",
        "reason": _OPENAI[difference.kind],
        "cache_missed_tokens": accounting.total - difference.shared,
        "comparison_reusable_tokens": difference.shared,
    }
