"""The neutral values that everything right of the provider adapters works on.

Nothing here knows a provider's field names, and nothing here knows OpenTelemetry. Values are named tuples:
immutable, and made in a fraction of the time that a frozen dataclass takes, which counts because every call makes a
dozen of them and a long conversation hundreds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple, overload

from otel_promptcache.semconv import Agreement, Cause, Confidence, Reason, Status


class Section(IntEnum):
    """Parts of a prompt, in the order in which every provider renders them; parameters may stand anywhere."""

    PARAMETERS = 0
    TOOLS = 1
    SYSTEM = 2
    HELD = 3
    """History that the server holds; only its id is on the wire."""
    MESSAGES = 4


class Kind(IntEnum):
    """What one segment is."""

    TEXT = 0
    TOOL = 1
    TOOL_USE = 2
    TOOL_RESULT = 3
    REASONING = 4
    IMAGE = 5
    DOCUMENT = 6
    AUDIO = 7
    PARAMETER = 8
    HELD = 9
    OTHER = 10
    SPEAKER = 11
    """Who speaks: the name or the call id in front of a content. Never a segment of its own, only a place."""


class Segment(NamedTuple):
    """One element of the prompt, in the provider's own cache order.

    ``key`` is the fast process-local hash of ``(role, canonical value)``; equal content has equal keys in one
    process. ``value`` is the wire value itself (cache marker included) and lives no longer than the call.
    ``element`` counts within the section (tool, system block, message), ``item`` within the element
    (-1: the element is not a list of parts).
    """

    key: int
    section: Section
    kind: Kind
    element: int
    item: int
    role: str
    value: object


class Run(NamedTuple):
    """Messages in a row that are a role and a text and nothing else."""

    start: int
    """Segments in front of the first."""
    first: int
    """Its place among the messages."""
    roles: list[str]
    texts: list[str]


class Segments(Sequence[Segment]):
    """A prompt's segments, in order. Those of a run are made when somebody looks at them: a conversation resends
    hundreds of messages, and nobody looks at what is the same as last time."""

    __slots__ = ("__weakref__", "_made", "runs")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._made: list[Segment | None] = list(segments)
        self.runs: list[Run] = []

    def append(self, segment: Segment) -> None:
        self._made.append(segment)

    def insert(self, at: int, segment: Segment) -> None:
        """Puts a segment in front of another one that is not within a run."""
        self._made.insert(at, segment)
        self.runs = [run._replace(start=run.start + 1) if run.start >= at else run for run in self.runs]

    def add_run(self, first: int, roles: list[str], texts: list[str]) -> None:
        self.runs.append(Run(len(self._made), first, roles, texts))
        self._made += [None] * len(texts)

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, at: int) -> Segment: ...
    @overload
    def __getitem__(self, at: slice) -> list[Segment]: ...
    def __getitem__(self, at: int | slice) -> Segment | list[Segment]:
        if isinstance(at, slice):
            places = range(*at.indices(len(self._made)))
            if places:
                self._make(min(places[0], places[-1]), max(places[0], places[-1]) + 1)
            return self._made[at]  # type: ignore[return-value]
        found = self._made[at]
        if found is None:
            at %= len(self._made)
            self._make(at, at + 1)
            found = self._made[at]
            assert found is not None
        return found

    def _make(self, start: int, stop: int) -> None:
        """Makes the segments between two places that lie in runs and have not been looked at."""
        made = self._made
        for run in self.runs[max(0, bisect_right(self.runs, start, key=_start_of_run) - 1) :]:
            if run.start >= stop:
                break
            offset = run.first - run.start
            for at in range(max(start, run.start), min(stop, run.start + len(run.texts))):
                if made[at] is None:
                    role, text = run.roles[at - run.start], run.texts[at - run.start]
                    made[at] = text_segment(Section.MESSAGES, at + offset, role, text)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, Segments) else other)

    def __repr__(self) -> str:
        return f"<{len(self)} segments>"  # their text is nobody's business


def text_segment(
    section: Section, element: int, role: str, text: str, item: int = -1, kind: Kind = Kind.TEXT
) -> Segment:
    """A segment that is text and nothing else, made in half the time that calling the class takes."""
    return tuple.__new__(Segment, (hash((role, text)), section, kind, element, item, role, text))


def _start_of_run(run: Run) -> int:
    return run.start


class Breakpoint(NamedTuple):
    """A place where the provider stores an entry: after ``length`` segments, for ``ttl`` seconds."""

    length: int
    ttl: int
    explicit: bool


class Scope(NamedTuple):
    """What must be equal for two requests to share cache entries at all."""

    provider: str
    endpoint: str
    credential: str
    model: str
    cache_key: str
    tenant: str = ""
    """Whose requests must know nothing of other tenants', where the application keeps them apart."""


class Prompt(NamedTuple):
    """A request as ordered segments. ``dialect`` names the adapter that made it."""

    dialect: str
    model: str
    segments: Segments
    breakpoints: tuple[Breakpoint, ...]
    automatic: bool
    """Whether this request asks for, or the provider applies, caching without explicit markers."""
    cache_key: str = ""
    retention: int | None = None
    """Lifetime in seconds that the request asks for, where it does."""
    previous_id: str = ""
    """Response that the server continues from (its history is not on the wire)."""
    conversation_id: str = ""
    stream: bool = False
    max_tokens: int | None = None
    text_only: bool = True
    truncated: bool = False
    """True when the prompt was beyond our limits and the fingerprint covers only its beginning."""
    marks_lost: bool = False
    """Whether the application marked places, and the body that went out marks none."""


class Usage(NamedTuple):
    """Token classes of one call. ``None`` is *not reported*, which is not zero.

    ``input_total`` includes read and write on every provider. ``write_by_ttl`` maps a lifetime in seconds to the
    tokens written for it; ``write`` is the total by the last cumulative report, so that the difference is the
    part whose lifetime the provider did not name.
    """

    input_total: int | None = None
    read: int | None = None
    write: int | None = None
    output: int | None = None
    reasoning: int | None = None
    write_by_ttl: tuple[tuple[int, int], ...] = ()
    tier: str = ""
    speed: str = ""
    geo: str = ""
    processing: str = ""
    upstream: str = ""
    """Who answered behind a gateway, where the gateway says so."""
    web_searches: int = 0
    server_tools: int = 0
    """Uses of tools that run at the provider: counts then add up several inner requests."""
    parts: tuple[Part, ...] = ()
    """What is billed instead of the sums, where the response itemises its inner requests: not all are in the sums."""

    @property
    def available(self) -> bool:
        return self.input_total is not None

    @property
    def uncached(self) -> int:
        """Input neither read nor written, never negative."""
        return max(0, (self.input_total or 0) - (self.read or 0) - (self.write or 0))


class Part(NamedTuple):
    """One inner request of a call. An empty ``model`` is the call's own."""

    model: str
    usage: Usage


class Answer(NamedTuple):
    """What a response says about itself, beside its usage."""

    usage: Usage | None
    response_id: str = ""
    model: str = ""
    native: tuple[tuple[str, str | int], ...] = ()
    """The provider's own cache verdict, verbatim, as (field, value)."""
    error_type: str = ""
    """Set when the body is an error although the HTTP status is not."""
    finish_reasons: tuple[str, ...] = ()
    provider: str = ""
    """Who it looks like it is from, where the endpoint's host does not tell."""
    guessed: str = ""
    """Who its id looks like, where nothing surer tells."""
    discount: float | None = None
    """USD that the cache saved, as the provider itself says."""
    pending: bool = False
    """Whether the provider is still at it."""


class Cost(NamedTuple):
    """USD of one call, by token class, exact."""

    read: Decimal
    write: Decimal
    uncached: Decimal
    output: Decimal
    without_cache: Decimal
    version: str
    estimated: bool = False
    read_price: Decimal = Decimal(0)
    """USD a read token at this call's size, tier and date."""
    fresh_price: Decimal = Decimal(0)
    """USD an uncached token."""
    write_price: Decimal = Decimal(0)
    """USD a written token, on average; at the shortest lifetime where nothing was written."""

    @property
    def total(self) -> Decimal:
        return self.read + self.write + self.uncached + self.output

    @property
    def saving(self) -> Decimal:
        return self.without_cache - self.total


class Link(NamedTuple):
    """The request this one should have matched, as ids for a span link."""

    trace_id: int
    span_id: int


class Evidence(NamedTuple):
    """What a diagnosis rests on; a sentence is made of it when somebody reads it, not before."""

    equal: int
    """Leading segments that are equal to the earlier request's."""
    of: int
    """Segments of this request."""
    gap: float | None
    """Seconds between the two requests."""
    ttl: int | None
    """Lifetime in seconds that the earlier request's entries had."""
    minimum: int
    source: str
    """Page of the rule, and when it was read."""
    truncated: bool = False
    """Whether the prompt was beyond our limits, and only its beginning was compared."""
    alone: bool = False
    """Whether others share their history with this process, and it was not told of theirs in time."""


class Diagnosis(NamedTuple):
    """What the cache did, and why. ``place`` is the first differing segment (it may be one that is gone)."""

    status: Status
    reason: Reason | None = None
    cause: Cause | None = None
    place: Segment | None = None
    line: int | None = None
    """1-based, within the text of ``field``."""
    expected: int | None = None
    lost: int = 0
    link: Link | None = None
    field: tuple[str | int, ...] = ()
    """Keys and positions from the segment to the text that differs; empty where it is the segment itself."""
    offset: int | None = None
    """0-based characters within the text of ``field``; known where earlier text is remembered."""
    also: tuple[Reason, ...] = ()
    """What would have kept it from being read too, had the first not."""
    confidence: Confidence | None = None
    evidence: Evidence | None = None


class Fingerprint(NamedTuple):
    """Exportable identity of a prompt: hexadecimal keyed digests only."""

    prefix_id: str
    chain: str
    sections: str
    """A short digest of each section, `tools:3f2a…,system:…,messages:…`."""
    key_id: str


class Attribution(NamedTuple):
    """Who the call belongs to, as the application said."""

    route: str = ""
    conversation: str = ""
    strategy: str = ""
    prompt_name: str = ""
    prompt_version: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    around: str = ""
    """Route of the place that handed the work over to another thread or process, where nobody named one."""


class Observation:
    """Everything known about one call, filled in as it goes. What is not known keeps the class's default."""

    usage: Usage | None = None
    cost: Cost | None = None
    diagnosis: Diagnosis | None = None
    fingerprint: Fingerprint | None = None
    attribution: Attribution = Attribution()
    conversation: str = ""
    lineage: str = ""
    path: str = ""
    hit_depth: float | None = None
    lost_usd: Decimal | None = None
    account: str = ""
    """Whose prices hold, where they differ."""
    native: tuple[tuple[str, str | int], ...] = ()
    native_asked_by: str = ""
    """Who asked for the provider's verdict, where it was asked for."""
    agreement: Agreement | None = None
    discount: float | None = None
    """USD that the cache saved, as the provider itself says."""
    operation: str = "chat"
    """``gen_ai.operation.name``."""
    batch: str = ""
    """Id of the batch that it is an item of."""
    pending: bool = False
    """Whether the provider goes on with it in the background: it counts once the answer has been fetched."""
    fetched: bool = False
    """Whether the answer was fetched from the background by another request."""
    response_model: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    error_type: str = ""
    gap: float | None = None
    """Seconds since the last request with as much of the same beginning."""
    first_chunk: float | None = None
    """Seconds from the request to the first bytes of a stream."""
    duration: float | None = None
    """Seconds from the request to the end of the body."""
    attempts: int = 1
    refused: int = 0  # attempts, as too many (429)
    max_tokens: int | None = None
    text_only: bool = True
    write_ttls: tuple[int, ...] | None = None
    """Lifetimes in seconds that the request's breakpoints ask for; None where they were not looked at."""

    def __init__(
        self,
        *,
        call_id: str,
        dialect: str,
        provider: str,
        endpoint: str,
        port: int,
        model: str,
        stream: bool,
        at: float,
    ) -> None:
        self.call_id = call_id
        self.dialect = dialect
        self.provider = provider
        self.endpoint = endpoint
        self.port = port
        self.model = model
        self.stream = stream
        self.at = at
        """POSIX seconds at which the request was made."""
