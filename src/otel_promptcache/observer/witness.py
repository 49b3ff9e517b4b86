"""The second witness: asking the provider for its own verdict, and setting it beside ours.

Asked is about whole conversations, not single calls: a provider may compare only with a response whose own request
asked. A host that refuses the question is remembered and not asked again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from otel_promptcache.history import Sent, Sight
from otel_promptcache.model import Diagnosis, Observation, Scope, Section
from otel_promptcache.providers import native
from otel_promptcache.semconv import OVERFLOW, PROMPT_CHANGED, Agreement, Cause, Reason, Status
from otel_promptcache.settings import Settings

log = logging.getLogger("otel_promptcache")

MAX_RECORDS: Final = 10_000
MAX_HOSTS: Final = 1_000


_Server = tuple[str, str, int]
"""Dialect, host and port: on one machine may be many servers."""


class Question(NamedTuple):
    """What is added to a request. ``previous_id`` is empty where the request only opts in."""

    asking: native.Asking
    dialect: str
    host: str
    previous_id: str = ""
    header: str = ""
    """A value of ``anthropic-beta``, or empty."""
    untried: bool = False
    """Whether the host has never answered a request with the question in it: any refusal may then be for it."""
    port: int = 0

    @property
    def server(self) -> _Server:
        return self.dialect, self.host, self.port

    @property
    def for_usage(self) -> bool:
        """Whether the question is for the usage of a stream, and not for a verdict."""
        return self.asking is native.STREAM_USAGE

    @property
    def value(self) -> str | bool | None:
        """What the field is set to."""
        return True if self.for_usage else self.previous_id or None


class _Stage(IntEnum):
    """How a host is asked."""

    PLAIN = 0
    WITH_HEADER = 1
    NOT = 2


class Witness:
    """What is known of the providers' willingness. Lives as long as the process; each step is one operation on a
    dictionary, so threads may share it."""

    def __init__(self) -> None:
        self._stages: dict[_Server, _Stage] = {}
        self._recorded: OrderedDict[str, None] = OrderedDict()
        """Ids of responses whose requests asked."""
        self._taken: set[_Server] = set()
        """Servers that have answered a request with a question in it."""

    def question(self, seen: Observation, sight: Sight, settings: Settings) -> Question | None:
        """What to ask about a request; None where nothing is to be asked, or nobody is there to ask."""
        share, dialect = settings.native_diagnostics, seen.dialect
        if not share or not _chosen(sight.sent.lineage, share):
            return None
        if not native.takes(dialect, seen.endpoint, seen.provider, seen.model, settings.native_hosts):
            return None
        server = (dialect, seen.endpoint, seen.port)
        stage = self._stages.get(server, _Stage.PLAIN)
        if stage is _Stage.NOT:
            return None
        asking = native.ASKING[dialect]
        earlier = predecessor(sight)
        previous_id = earlier.response_id if earlier is not None else ""
        if asking.opts_in and previous_id not in self._recorded:
            previous_id = ""
        if not previous_id and not asking.opts_in:
            return None
        header = asking.beta if stage is _Stage.WITH_HEADER else ""
        return Question(
            asking, dialect, seen.endpoint, previous_id, header, untried=server not in self._taken, port=seen.port
        )

    def usage_question(self, seen: Observation, body: Mapping[str, Any]) -> Question | None:
        """How to ask a stream for its usage; None where it comes anyway, or the host has refused."""
        server = dialect, host, port = seen.dialect, seen.endpoint, seen.port
        if not native.lacks_usage(dialect, seen.provider, body) or server in self._stages:
            return None
        return Question(native.STREAM_USAGE, dialect, host, untried=server not in self._taken, port=port)

    def took(self, question: Question) -> None:
        """A host answered a request with a question in it."""
        if len(self._taken) < MAX_HOSTS:
            self._taken.add(question.server)

    def recorded(self, response_id: str) -> None:
        """Notes a response that later ones can be compared with."""
        self._recorded[response_id] = None
        if len(self._recorded) > MAX_RECORDS:
            self._recorded.popitem(last=False)

    def refused(self, question: Question) -> None:
        """A host did not take a question. Where a beta header may be what it missed, it is asked once more with it."""
        if len(self._stages) < MAX_HOSTS:
            untried = question.asking.beta and not question.header
            self._stages[question.server] = _Stage.WITH_HEADER if untried else _Stage.NOT
            if not untried:
                log.info("otel-promptcache: %s refuses to give its own verdict; it is not asked again", question.host)


def _chosen(lineage: str, share: float) -> bool:
    """Whether a conversation is among the share that is asked about: the same answer for each of its calls."""
    return int(lineage or "0", 16) < share * 16.0 ** len(lineage)


def predecessor(sight: Sight) -> Sent | None:
    """The earlier request that this one should have matched, as far as that can be told before the answer is there."""
    previous = sight.previous
    likeliest: list[Sent | None] = [sight.holder]
    if sight.shared and sight.infos[sight.shared - 1].section is Section.MESSAGES:
        likeliest.append(previous)
    likeliest += [sight.relative, previous, *sight.kin, *sight.sites]
    return next((one for one in likeliest if one is not None and _same_account(one.scope, sight.sent.scope)), None)


def _same_account(one: Scope, other: Scope) -> bool:
    """Whether a response of the one may be named to the other: ids of one account are no other's business."""
    return (one.provider, one.endpoint, one.credential) == (other.provider, other.endpoint, other.credential)


# --- Theirs beside ours -------------------------------------------------------------------------------------

_HISTORY: Final = frozenset(
    {Reason.MESSAGES_CHANGED, Reason.HISTORY_TRUNCATED, Reason.HISTORY_COMPACTED, Reason.CONTEXT_CHANGED}
)
_REQUEST_CHANGED: Final = PROMPT_CHANGED - {Reason.SCOPE_CHANGED}
"""Our reasons that say that the request differs from the earlier one."""

_SAME: Final[dict[str, frozenset[Reason]]] = {
    # The provider's word for a change, and which of ours mean the same.
    "model_changed": frozenset({Reason.MODEL_CHANGED}),
    "tools_changed": frozenset({Reason.TOOLS_CHANGED}),
    "system_changed": frozenset({Reason.SYSTEM_CHANGED}),
    "messages_changed": _HISTORY,
    "prompt_cache_key_changed": frozenset({Reason.CACHE_KEY_CHANGED}),
    "text_format_changed": frozenset({Reason.PARAMETERS_CHANGED}),
    "reasoning_effort_changed": frozenset({Reason.PARAMETERS_CHANGED}),
    "verbosity_changed": frozenset({Reason.PARAMETERS_CHANGED}),
    "service_tier_changed": frozenset({Reason.PARAMETERS_CHANGED}),
    "context_compacted": _HISTORY | {Reason.PARAMETERS_CHANGED},
    "input_changed": _HISTORY | {Reason.SYSTEM_CHANGED},
    "prefix_changed": _REQUEST_CHANGED,
}
_CAUSES: Final[dict[str, Cause]] = {
    # Where their word names a parameter, ours must be the same one.
    "text_format_changed": Cause.RESPONSE_FORMAT,
    "reasoning_effort_changed": Cause.REASONING_EFFORT,
    "verbosity_changed": Cause.VERBOSITY,
    "service_tier_changed": Cause.SERVICE_TIER,
}
_UNCHANGED: Final = frozenset({native.UNCHANGED, "cache_hit"})
_NO_VERDICT: Final = frozenset(
    {"pending", "unavailable", "previous_message_not_found", "comparison_response_not_found"}
)
_NOTHING_EXPECTED: Final = frozenset({Status.COLD, Status.UNCACHEABLE, Status.UNKNOWN})


def word(said: tuple[tuple[str, str | int], ...]) -> str:
    """The provider's verdict as one word: its reason where it gives one, else the type of its answer."""
    told = dict(said)
    return str(told.get("reason") or told.get("type") or "")


def label(said: tuple[tuple[str, str | int], ...]) -> str:
    """The same as a metric label: words that are not documented are one value, for anything may come over the wire."""
    found = word(said)
    return found if found in _SAME or found in _UNCHANGED or found in _NO_VERDICT else OVERFLOW


def agreement(theirs: str, verdict: Diagnosis) -> Agreement:
    """How the provider's word and our verdict go together. Where they do not, the token counts are the judge; what
    they do not settle is undecided. Words that are no verdict (pending, not found, one we do not know) are silence, and
    so is a request of which we expected nothing: the provider was given what may well be another conversation's."""
    status, reason, cause = verdict.status, verdict.reason, verdict.cause
    if status in _NOTHING_EXPECTED or theirs not in _SAME.keys() | _UNCHANGED:
        return Agreement.SILENT
    if theirs == "cache_hit" and status is Status.MISS:
        return Agreement.OURS  # the counts say that nothing was read
    if theirs in _UNCHANGED:
        return Agreement.UNDECIDED if reason in _REQUEST_CHANGED else Agreement.AGREE
    if _same(theirs, reason, cause):
        return Agreement.AGREE
    if status is Status.HIT:
        return Agreement.OURS  # everything was read that could have been
    return Agreement.THEIRS if reason is Reason.UNKNOWN else Agreement.UNDECIDED


def _same(theirs: str, reason: Reason | None, cause: Cause | None) -> bool:
    if theirs == "model_changed" and cause is Cause.SPEED:
        return True  # their word for both
    return reason in _SAME[theirs] and _CAUSES.get(theirs, cause) == cause
