"""Prompts that were built to confuse: bounded in time and memory, and the diagnosis says what it did not look at."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from otel_promptcache import diagnosis, providers
from otel_promptcache.analysis import exchanges, replay
from otel_promptcache.analysis.documents import parsed
from otel_promptcache.diagnosis import explanation
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Diagnosis, Prompt, Scope, Usage
from otel_promptcache.observer.reckoning import fingerprint_of
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.semconv import Cause, Reason, Status

Body = dict[str, Any]

MARK = {"type": "ephemeral"}
KIND = "Be kind to whoever asks, and say where a rule can be read. " * 40


def asked(content: Any, system: Any = KIND, **more: Any) -> Body:
    if isinstance(system, str):
        system = [{"type": "text", "text": system, "cache_control": MARK}]
    messages = [{"role": "user", "content": content}, {"role": "user", "content": "Well?"}]
    return {"model": "claude-opus-5", "max_tokens": 9, "system": system, "messages": messages, **more}


def called(value: Any, mark: str) -> Body:
    """A conversation in which a tool was called with this."""
    block = {"type": "tool_use", "id": "t", "name": "look", "input": {"value": value, "mark": mark}}
    return asked([block])


def nested(depth: int, *, mapping: bool = False) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


def blocks(count: int, text: str = "") -> list[Body]:
    return [{"type": "text", "text": text} for _ in range(count)]


Make = Callable[[str], Body]
MILLION = 1_000_000
PLAIN: Make = lambda mark: asked("a plain line of text\n" * 480_000 + mark)  # noqa: E731
"""Ten million characters of what everybody sends."""

HOSTILE: dict[str, Make] = {
    # Each is another prompt with another mark.
    "a million empty blocks": lambda mark: asked([*blocks(MILLION), {"type": "text", "text": mark}]),
    "a million blocks of nothing": lambda mark: asked([*({} for _ in range(MILLION)), {"type": "text", "text": mark}]),
    "a million system blocks": lambda mark: asked("Hi", [*blocks(MILLION), {"type": "text", "text": mark}]),
    "a million tools": lambda mark: asked("Hi", tools=[*({} for _ in range(MILLION)), {"name": mark}]),
    "a million parts of a result": lambda mark: asked(
        [{"type": "tool_result", "tool_use_id": "t", "content": [*blocks(MILLION), *blocks(1, mark)]}]
    ),
    "a million keys": lambda mark: called({f"k{number}": number for number in range(MILLION)}, mark),
    "a million numbers": lambda mark: called(list(range(MILLION)), mark),
    "a hundred thousand marks": lambda mark: asked(
        [{"type": "text", "text": "a", "cache_control": MARK} for _ in range(100_000)] + blocks(1, mark)
    ),
    "ten megabytes in one line": lambda mark: asked("Hi", f"{mark} " + "word and word " * 700_000),
    "ten megabytes of sentences": lambda mark: asked("Hi", f"{mark} " + "a. " * 3_300_000),
    "ten megabytes of line ends": lambda mark: asked("Hi", mark + "\n" * 10_000_000),
    "nested lists": lambda mark: called(nested(10_000), mark),
    "nested objects": lambda mark: called(nested(10_000, mapping=True), mark),
    "a nested schema": lambda mark: asked("Hi", tools=[{"name": mark, "input_schema": nested(10_000, mapping=True)}]),
    "nested JSON in a text": lambda mark: asked("[" * 100_000 + mark + "]" * 100_000),
    "NUL": lambda mark: asked("Hi", "\0" * 3_000_000 + mark),
    "lone surrogates": lambda mark: asked("Hi", "\ud800" * 3_000_000 + mark),
    "marks upon marks": lambda mark: asked("Hi", "a" + "\u0315\u0300" * 1_500_000 + mark),
    "a sign that becomes eighteen": lambda mark: asked("Hi", "\ufdfa" * 3_000_000 + mark),
    "a number of four thousand digits": lambda mark: called(10**20_000, mark),
}


class World:
    """One application; CPU seconds of the caller's part and of the rest."""

    def __init__(self) -> None:
        self.memory = Memory(HashKey("bad"), 200_000)
        self.now = 1_000.0

    def send(self, body: Body) -> tuple[Prompt, Sight, Diagnosis]:
        self.now += 10
        prompt = providers.BY_NAME["anthropic"].prompt(body)
        scope = Scope("anthropic", "h", "c", prompt.model, "")
        sight = self.memory.sent(prompt, scope, now=self.now, route="r", conversation="", link=None)
        self.caller = thread_time()
        self.memory.describe(prompt, sight)
        self.memory.begun(sight, self.now)
        usage = Usage(input_total=100_000, read=0, write=90_000, output=9)
        said = diagnosis.diagnose(prompt, sight, usage, rules_for("anthropic", prompt.model))
        self.memory.ended(sight, usage, "", None)
        return prompt, sight, said


def cost(make: Make) -> tuple[float, float]:
    """CPU seconds until a request can be sent, and in all: the cheapest of three first looks."""
    found: list[tuple[float, float]] = []
    for _ in range(3):
        world, body = World(), make("Now 14:05.")
        gc.collect()
        begun = thread_time()
        world.send(body)
        found.append((world.caller - begun, thread_time() - begun))
    return min(one for one, _ in found), min(one for _, one in found)


@pytest.fixture
def plain() -> float:
    """CPU seconds that a plain prompt costs in all, just now: a machine is not always as fast."""
    _, altogether = cost(PLAIN)
    return altogether


@pytest.mark.slow
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_no_prompt_costs_much_more_than_a_plain_one(make: Make, plain: float) -> None:
    """Of the order of a plain prompt of ten megabytes: before sending at most what that one costs in all, and in all
    ten times as much. The bounds leave room beside that, for the processor is not ours alone."""
    before_sending, altogether = cost(make)
    assert before_sending < 3 * plain
    assert altogether < 25 * plain


@pytest.mark.slow
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_no_prompt_is_kept_at_much_more_memory_than_a_plain_one(make: Make) -> None:
    """What is left of a prompt once it is gone: hashes, in bounded number."""

    def kept(made: Make) -> int:
        world, body = World(), made("Now 14:05.")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        world.send(body)[1].fresh = ()
        del body
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return left

    lines = 480_000 * 8  # eight bytes a line: what the plain prompt needs
    assert kept(make) < 3 * lines


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_what_was_not_looked_at_is_said(make: Make) -> None:
    """Two prompts that differ: either they are known as two, or the fingerprint and the verdict say how far we saw, and
    nobody is blamed for the rest."""
    world = World()
    world.send(make("Now 14:05."))
    prompt, sight, said = world.send(make("Now 14:06."))
    print_ = fingerprint_of(HashKey("bad"), prompt, sight)
    whole = not prompt.truncated
    assert print_.sections.endswith(",truncated") is not whole
    if whole:
        assert sight.shared < len(prompt.segments)
    else:
        assert said.reason not in (Reason.PROVIDER_EVICTED, Reason.IMPLICIT_UNRELIABLE, Reason.WRITE_NOT_VISIBLE)
    if not whole and said.status in (Status.MISS, Status.PARTIAL):
        assert said.evidence is not None
        assert said.evidence.truncated
        assert "Only the beginning of the prompt was looked at." in explanation(said)


def test_a_difference_beyond_what_is_looked_at_of_a_text() -> None:
    """Behind four megabytes of one line the place is not known, and so no cause is named."""
    world = World()

    def long(mark: str) -> Body:
        body = asked("Hi", "word and word " * 400_000 + mark)
        body["messages"] = [{"role": "user", "content": KIND}, *body["messages"]]
        return body

    world.send(long("the end"))
    said = world.send(long("the finish"))[2]
    assert (said.reason, said.cause) == (Reason.SYSTEM_CHANGED, None)
    assert said.evidence is not None
    assert said.evidence.truncated


@pytest.mark.parametrize("depth", [10, 100, 1_500, 10_000])
@pytest.mark.parametrize("mapping", [False, True], ids=["lists", "objects"])
def test_depth_hides_nothing(depth: int, mapping: bool) -> None:
    """Two values are one segment only if they are equal, however deep they part."""

    def key(innermost: Any) -> int:
        value = innermost
        for _ in range(depth):
            value = {"a": value} if mapping else [value]
        return providers.BY_NAME["anthropic"].prompt(called(value, ""))[2][1].key

    assert key("one") == key("one")
    found = [key(value) for value in ("one", "other", 1, 1.0, True, "1", None, [], {}, {"a": 1}, {"b": 1}, [1])]
    assert len(set(found)) == len(found)


# --- One value, several spellings ---------------------------------------------------------------------------


def logged(tmp_path: Path, *arguments: str) -> list[Diagnosis]:
    """Verdicts on log lines whose requests carry a tool call with these arguments, as JSON text."""
    text = json.dumps(KIND)
    lines = [
        f'{{"endpoint": "/v1/messages", "t": {10 * number}, "body": {{"model": "claude-opus-5", "system": {text}, '
        f'"cache_control": {{"type": "ephemeral"}}, "messages": [{{"role": "user", "content": "Go"}}, {{"role": '
        f'"assistant", "content": [{{"type": "tool_use", "id": "t", "name": "look", "input": {given}}}]}}, {{"role": '
        f'"user", "content": {text}}}, {{"role": "user", "content": "Well?"}}]}}, "usage": {{"input_tokens": 9, '
        '"cache_read_input_tokens": 0, "cache_creation_input_tokens": 2100}}'
        for number, given in enumerate(arguments)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return [one.diagnosis for one in replay.replay(exchanges.read([str(path)]).exchanges)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"n": 1}', '{"n": 1.0}'),
        ('{"n": 1.0}', '{"n": 1e0}'),
        ('{"n": 1e0}', '{"n": 10e-1}'),
        ('{"n": 1}', '{"n": "1"}'),
        ('{"n": 0.1}', '{"n": 0.10}'),
        ('{"n": 1, "n": 2}', '{"n": 2}'),
        ('{"n": 1, "n": 2}', '{"n": 3, "n": 2}'),
    ],
    ids=lambda text: text.replace('"', ""),
)
def test_spellings_are_told_apart(first: str, second: str, tmp_path: Path) -> None:
    """The provider was sent other bytes: what follows was not read, and it is not to blame."""
    same = logged(tmp_path, first, first)[1]
    assert same.reason not in (Reason.MESSAGES_CHANGED, Reason.PARAMETERS_CHANGED)
    said = logged(tmp_path, first, second)[1]
    assert said.reason is Reason.MESSAGES_CHANGED
    assert said.cause in (Cause.RESERIALIZED, Cause.EDITED, Cause.RECURRENT_EDIT, Cause.COUNTER, Cause.WHITESPACE)


def test_equal_keys_in_a_schema() -> None:
    """The last one counts, as with most readers; the first is not forgotten."""
    once, twice = parsed('{"a": {"type": "string"}}'), parsed('{"a": {"type": "number"}, "a": {"type": "string"}}')
    assert isinstance(twice, dict)
    assert twice["a"] == {"type": "string"}
    assert once != twice
    assert parsed('{"a": 1, "a": 2, "a": 3}') != parsed('{"a": 2, "a": 1, "a": 3}')


@pytest.mark.parametrize(
    "text",
    ['{"body": ' + "[" * 10_000 + "]" * 10_000 + "}", '{"n": ' + "9" * 5_000 + "}", "\0"],
    ids=["too deep", "too long a number", "NUL"],
)
def test_text_that_is_no_traffic(text: str, tmp_path: Path) -> None:
    """It is passed over, and what stands beside it is read."""
    path = tmp_path / "log.jsonl"
    good = json.dumps({"endpoint": "/v1/messages", "body": asked("Hi")})
    path.write_text(f"{good}\n{text}\n{good}", encoding="utf-8")
    assert parsed(text) is None
    assert len(exchanges.read([str(path)]).exchanges) == 2
