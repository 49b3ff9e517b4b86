"""Snapshots of stable prefixes: what stands in front of the messages, as hashes in a file under version control.

A snapshot has a key of its own, in the file: its digests compare on every machine, and nowhere else. The digests that
production knows a prefix by are beside them, under the deployment's key, which is never in the file.

No text, and line hashes of nothing but tools and system prompt. Whoever has the file can test a guess at a whole
line; it belongs beside the code that holds the prompts.
"""

from __future__ import annotations

import itertools
import json
import secrets
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_promptcache import diagnosis, fingerprint
from otel_promptcache.fingerprint import SHORT, Detail, Digest, HashKey
from otel_promptcache.fingerprint.detail import Hashed
from otel_promptcache.history.info import Info, traits
from otel_promptcache.model import Kind, Prompt, Section, Segment
from otel_promptcache.providers import BY_NAME
from otel_promptcache.semconv import Cause, Reason

FORMAT: Final = 1
DEFAULT_NAME: Final = "promptcache.snapshot.json"


_LOOSE: Final = (
    "blanks",
    "digits",
    "endings",
    "folded",
    "words",
    "figures",
    "values",
    "parsed",
    "sorted",
    "slim",
    "size",
)
"""Loose hashes of a segment, in the order in which the file has them."""


class SnapshotError(ValueError):
    """A file that is no snapshot, or two that do not compare; the message says what to do."""


class Part(NamedTuple):
    """One segment of a prefix. ``size`` in bytes; ``ttl`` in seconds of the breakpoint behind it, 0 for none."""

    section: Section
    kind: Kind
    element: int
    item: int
    label: str
    """The name of a parameter, else empty."""
    digest: str
    size: int
    detail: Detail | None
    ttl: int


class Production(NamedTuple):
    """How the ledger names a prefix: digests by section, under the key with this id."""

    key_id: str
    sections: tuple[str, ...]


class Prefix(NamedTuple):
    """Everything in front of the messages of a call. Equal prefixes are equal up to ``production``."""

    dialect: str
    provider: str
    model: str
    parts: tuple[Part, ...]
    production: Production | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)

    @property
    def marks(self) -> tuple[int, ...]:
        """The lifetime of the breakpoint behind each part, 0 for none."""
        return tuple(part.ttl for part in self.parts)

    def same_text(self, other: Prefix) -> bool:
        """Whether a provider would take the one for the other, wherever their breakpoints are."""
        return self[:3] == other[:3] and [part.digest for part in self.parts] == [part.digest for part in other.parts]

    def same_as(self, other: Prefix) -> bool:
        """Whether a provider would take the one for the other, and keep the same entries of both."""
        return self.same_text(other) and self.marks == other.marks


class Difference(NamedTuple):
    """Where two prefixes part."""

    reason: Reason
    path: str
    cause: Cause | None = None
    line: int | None = None
    before: int = 0
    """Parts in front of it, which are the same."""
    section: Section = Section.PARAMETERS
    marker: bool = False
    """Whether it is a breakpoint, not the text in front of it."""

    def __str__(self) -> str:
        line = f" line {self.line}" if self.line else ""
        return f"`{self.path}`{line}" + (f" ({self.cause})" if self.cause else "")


# --- Making and comparing -----------------------------------------------------------------------------------


def take(prompt: Prompt, provider: str, key: HashKey, deployment: HashKey | None = None) -> Prefix:
    """The prefix of a request. Nothing is said yet of what changes of itself in it, see ``searched``."""
    leading = _leading(prompt)
    marks = {place.length: place.ttl for place in prompt.breakpoints if place.explicit}
    parts = tuple(_part(segment, key, marks.get(length, 0)) for length, segment in enumerate(leading, 1))
    return Prefix(prompt.dialect, provider, prompt.model, parts, _production(leading, deployment))


def searched(prefix: Prefix, prompt: Prompt, known: Collection[int] = ()) -> Prefix:
    """The same, with the lines that would change of themselves: a later comparison has no text to look at. Lines that
    are ``known`` by their hashes are passed over: to search a line takes longer than all else that is done with it."""
    parts = tuple(_searched(part, segment, known) for part, segment in zip(prefix.parts, _leading(prompt), strict=True))
    return prefix._replace(parts=parts)


def _searched(part: Part, segment: Segment, known: Collection[int]) -> Part:
    if part.detail is None:
        return part
    new = [number for number, line in enumerate(part.detail.lines, 1) if line not in known]
    return part._replace(detail=part.detail._replace(hints=fingerprint.volatile_lines(segment, new)))


def _leading(prompt: Prompt) -> list[Segment]:
    return list(itertools.takewhile(lambda segment: segment.section <= Section.SYSTEM, prompt.segments))


def _part(segment: Segment, key: HashKey, ttl: int) -> Part:
    data = fingerprint.canonical(segment)
    detail = fingerprint.detail(segment, _line_hash(key))
    if detail is not None:
        detail = detail._replace(hints=(), pieces=frozenset(), truncated=False)
    label = segment.role if segment.section is Section.PARAMETERS else ""
    digest = key.digest(segment.role, data)[:SHORT].hex()
    return Part(segment.section, segment.kind, segment.element, segment.item, label, digest, len(data), detail, ttl)


def _line_hash(key: HashKey) -> Callable[[bytes], int]:
    return lambda line: int.from_bytes(key.digest("line", line)[:SHORT], "big")


def _production(leading: Sequence[Segment], key: HashKey | None) -> Production | None:
    if key is None:
        return None
    digests: list[tuple[Section, Digest]] = [
        (segment.section, key.digest(segment.role, fingerprint.canonical(segment))) for segment in leading
    ]
    return Production(key.id, fingerprint.identity(digests))


def difference(old: Prefix, new: Prefix) -> Difference | None:
    """The first place where ``new`` is not what ``old`` was, by the rules of the diagnosis; None where equal."""
    if old.same_as(new):
        return None
    if (old.dialect, old.provider, old.model) != (new.dialect, new.provider, new.model):
        return Difference(Reason.MODEL_CHANGED, "model")
    if old.same_text(new):
        return _other_marks(old, new)
    known: dict[tuple[str, str], Info] = {}
    # What follows a prefix is the messages, whose own digests are not kept.
    before, after = ([_info(part, known) for part in (*one.parts, _END)] for one in (old, new))
    segments = [_segment(part) for part in (*new.parts, _END)]
    at = diagnosis.parting(before, after)
    assert at is not None
    found = diagnosis.change(segments, after, at, before)
    reason = diagnosis.REASON_OF_SECTION[found.place.section]
    path = BY_NAME[new.dialect].path(found.place)
    return Difference(reason, path, found.cause, found.line, at, found.place.section)


def differences(old: Prefix, new: Prefix) -> list[Difference]:
    """The first difference and, where the text is another and no part is marked any more, the lost breakpoint too: a
    changed text is written again once, without a breakpoint it is never read."""
    first = difference(old, new)
    if first is None:
        return []
    lost = any(old.marks) and not any(new.marks) and not first.marker and first.reason is not Reason.MODEL_CHANGED
    return [first, _lost_mark(old, max(at for at, ttl in enumerate(old.marks) if ttl))] if lost else [first]


def _other_marks(old: Prefix, new: Prefix) -> Difference:
    """Where two prefixes of the same text differ in their breakpoints: the first that is gone, else the first."""
    changed = [at for at, (before, after) in enumerate(zip(old.marks, new.marks, strict=True)) if before != after]
    gone = next((at for at in changed if not new.marks[at]), None)
    if gone is not None:
        return _lost_mark(old, gone)
    at = changed[0]
    path, section = _marker_path(old, at), old.parts[at].section
    if old.marks[at]:
        return Difference(Reason.PARAMETERS_CHANGED, f"{path}.ttl", None, None, at, section, marker=True)
    return Difference(Reason.PARAMETERS_CHANGED, path, Cause.ADDED, None, at, section, marker=True)


def _lost_mark(old: Prefix, at: int) -> Difference:
    section = old.parts[at].section
    path = _marker_path(old, at)
    return Difference(Reason.BREAKPOINT_MISSING, path, Cause.REMOVED, None, at, section, marker=True)


def _marker_path(prefix: Prefix, at: int) -> str:
    marker = "cache_control" if prefix.dialect == "anthropic" else "prompt_cache_breakpoint"
    return f"{BY_NAME[prefix.dialect].path(_segment(prefix.parts[at]))}.{marker}"


_END: Final = Part(Section.MESSAGES, Kind.TEXT, 0, -1, "", "", 0, None, 0)


def _segment(part: Part) -> Segment:
    """A segment without its text, which nothing of what is asked here needs."""
    return Segment(0, part.section, part.kind, part.element, part.item, part.label, "")


class _Told(Info):
    """What a snapshot says of a segment."""

    __slots__ = ("_detail",)

    def __init__(self, part: Part) -> None:
        super().__init__(0, part.size, traits(_segment(part)))
        self._detail = part.detail

    @property
    def detail(self) -> Detail | None:
        return self._detail

    def detailed(self, _: Segment, hashed: Hashed = hash) -> Detail | None:  # noqa: ARG002
        return self._detail


def _info(part: Part, known: dict[tuple[str, str], Info]) -> Info:
    info = known.get((part.label, part.digest))
    if info is None:
        info = known[part.label, part.digest] = _Told(part)
    return info


class Mismatch(NamedTuple):
    """A prefix that a test sends and its snapshot does not have as it is. ``difference`` None: sent no longer, or
    sent in addition."""

    number: int
    """Among the prefixes that the test sends, from 1; among those of its snapshot where it is sent no longer."""
    difference: Difference | None
    old: Prefix | None
    new: Prefix | None


def compare(old: Sequence[Prefix], new: Sequence[Prefix]) -> list[Mismatch]:
    """What became of each prefix of a test; empty when all are as they were. Their order says nothing: calls that run
    at once come in any. What is the same belongs together, then what has the same text, then the rest as it comes."""
    before, after = dict(enumerate(old, 1)), dict(enumerate(new, 1))
    found = []
    for alike in (Prefix.same_as, Prefix.same_text):
        for number, one in list(before.items()):
            match = next((at for at, other in after.items() if alike(one, other)), 0)
            if match:
                del before[number]
                other = after.pop(match)
                if not one.same_as(other):
                    found.append(Mismatch(match, difference(one, other), one, other))
    for was, at in itertools.zip_longest(before, after, fillvalue=0):
        old_one, new_one = before.get(was), after.get(at)
        parted = difference(old_one, new_one) if old_one is not None and new_one is not None else None
        found.append(Mismatch(at or was, parted, old_one, new_one))
    return sorted(found, key=lambda one: one.number)


# --- The file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A whole file: its key, and the distinct prefixes of each test in the order in which they were first sent."""

    key: str = field(default_factory=lambda: secrets.token_hex(16))
    tests: Mapping[str, Sequence[Prefix]] = field(default_factory=dict)

    def updated(self, changed: Mapping[str, Sequence[Prefix]], gone: Iterable[str] = ()) -> Snapshot:
        """With new prefixes of some tests and without others. What production calls a prefix is kept when the new
        recording does not know it."""
        tests = {name: prefixes for name, prefixes in self.tests.items() if name not in set(gone)}
        for name, prefixes in changed.items():
            tests[name] = [_with_production(prefix, self.tests.get(name, ())) for prefix in prefixes]
        return Snapshot(self.key, tests)


def _with_production(prefix: Prefix, old: Sequence[Prefix]) -> Prefix:
    if prefix.production is not None:
        return prefix
    same = (one.production for one in old if one.production is not None and one.same_text(prefix))
    return prefix._replace(production=next(same, None))


def dumped(snapshot: Snapshot) -> str:
    """The file's text: JSON, sorted, a segment a line, so that a review shows which of them changed."""
    tests = [
        f"  {json.dumps(name, ensure_ascii=False)}: [\n" + ",\n".join(map(prefix_out, prefixes)) + "\n  ]"
        for name, prefixes in sorted(snapshot.tests.items())
    ]
    held = "{\n" + ",\n".join(tests) + "\n }" if tests else "{}"
    return f'{{\n "format": {FORMAT},\n "key": {json.dumps(snapshot.key)},\n "tests": {held}\n}}\n'


def loaded(text: str, name: str = DEFAULT_NAME) -> Snapshot:
    """The snapshot in a file's text. Raises SnapshotError."""
    try:
        document = json.loads(text)
        _check_format(document["format"], name)
        tests = {str(test): [prefix_in(one) for one in prefixes] for test, prefixes in document["tests"].items()}
        return Snapshot(str(document["key"]), tests)
    except SnapshotError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise SnapshotError(
            f"{name} is no snapshot ({type(error).__name__}). After a merge with conflicts take either side and run "
            "pytest --promptcache-update"
        ) from None


def _check_format(found: object, name: str) -> None:
    if found != FORMAT:
        raise SnapshotError(f"{name} has format {found!r}, and this version reads format {FORMAT} only")


def prefix_out(prefix: Prefix) -> str:
    """A prefix as JSON, a segment a line."""
    found: dict[str, Any] = {"dialect": prefix.dialect, "provider": prefix.provider, "model": prefix.model}
    if prefix.production is not None:
        found["production"] = {"key": prefix.production.key_id, "fingerprint": ",".join(prefix.production.sections)}
    path = BY_NAME[prefix.dialect].path
    parts = [f"    {json.dumps({'path': path(_segment(part)), **_part_out(part)})}" for part in prefix.parts]
    return f'   {json.dumps(found)[:-1]}, "parts": [\n' + ",\n".join(parts) + "\n   ]}"


def _part_out(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {
        "section": part.section.name.lower(),
        "kind": part.kind.name.lower(),
        "element": part.element,
        "item": part.item,
        "bytes": part.size,
        "digest": part.digest,
    }
    if part.label:
        found["label"] = part.label
    if part.ttl:
        found["breakpoint"] = part.ttl
    if part.detail is not None:
        found["loose"] = " ".join(_hex(getattr(part.detail, name)) for name in _LOOSE)
        found["lines"] = " ".join(map(_hex, part.detail.lines))
        if part.detail.hints:
            found["volatile"] = {cause.value: list(lines) for cause, lines in part.detail.hints}
    return found


def _hex(value: int) -> str:
    return f"{value:0{2 * SHORT}x}" if value else "0"


def prefix_in(raw: Mapping[str, Any]) -> Prefix:
    """What ``prefix_out`` has written, parsed. Raises SnapshotError, or what a document of another shape raises."""
    production = raw.get("production")
    named = None if production is None else Production(production["key"], tuple(production["fingerprint"].split(",")))
    dialect = str(raw["dialect"])
    if dialect not in BY_NAME:
        raise SnapshotError(f"the snapshot has a dialect that this version does not know: {dialect!r}")
    return Prefix(dialect, str(raw["provider"]), str(raw["model"]), tuple(map(_part_in, raw["parts"])), named)


def _part_in(raw: Mapping[str, Any]) -> Part:
    detail = None
    if "lines" in raw:
        loose = dict(zip(_LOOSE, (int(one, 16) for one in raw["loose"].split()), strict=True))
        lines = array("q", (int(one, 16) for one in raw["lines"].split()))
        volatile = tuple((Cause(cause), tuple(numbers)) for cause, numbers in raw.get("volatile", {}).items())
        detail = Detail(loose.pop("blanks"), loose.pop("digits"), lines, **loose, hints=volatile)  # type: ignore[arg-type]
    return Part(
        Section[raw["section"].upper()],
        Kind[raw["kind"].upper()],
        int(raw["element"]),
        int(raw["item"]),
        str(raw.get("label", "")),
        str(bytes.fromhex(raw["digest"]).hex()),
        int(raw["bytes"]),
        detail,
        int(raw.get("breakpoint", 0)),
    )
