"""Responses as real providers sent them: every count is read, and the pieces they arrive in make no difference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.instrumentation.reading import Reader
from otel_promptcache.model import Answer, Usage
from otel_promptcache.providers import Dialect, dialect_for

Body = dict[str, Any]

READ = ("cache_read_input_tokens", "cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens")
WRITE = ("cache_creation_input_tokens", "cache_write_tokens")


class Listener:
    """Stands for the call that a response belongs to, and remembers what it was told."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.observer = self
        self.answers: list[Answer] = []
        self.completed = 0
        self.closed = 0

    def begun(self, *, streaming: bool) -> None:
        self.streaming = streaming

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    def complete(self) -> None:
        self.completed += 1

    def finished(self) -> None:
        self.closed += 1

    def trouble(self, where: str, error: Exception) -> None:
        raise error

    @property
    def usage(self) -> Usage | None:
        return next((answer.usage for answer in reversed(self.answers) if answer.usage is not None), None)


def listened(dialect: Dialect, response: Body, size: int) -> Listener:
    """Passes a response in chunks of so many bytes; 0 is all at once."""
    streamed = "sse" in response
    body = response["sse"].encode() if streamed else json.dumps(response["body"]).encode()
    call = Listener(dialect)
    reader = Reader(call, "text/event-stream; charset=utf-8" if streamed else "application/json", "")  # type: ignore[arg-type]
    for start in range(0, len(body), size or len(body)):
        reader.feed(body[start : start + (size or len(body))])
    reader.complete()
    assert (call.completed, call.closed, call.streaming) == (1, 1, streamed)
    return call


@pytest.fixture(scope="session")
def exchanges(recorded: Path) -> list[tuple[str, Dialect, Body]]:
    """(name, dialect, exchange) of everything recorded that speaks one of ours."""
    found = []
    for file in sorted([*(recorded / "cassettes").glob("*.json"), *(recorded / "selfhosted").glob("*.json")]):
        for number, exchange in enumerate(json.loads(file.read_text(encoding="utf-8"))["sequence"]):
            dialect = dialect_for(exchange["endpoint"])
            if dialect is not None:
                found.append((f"{file.stem}[{number}]", dialect, exchange))
    return found


def first(usage: Body, names: tuple[str, ...]) -> int | None:
    return next((usage[name] for name in names if name in usage), None)


def expected(usage: Body) -> tuple[int | None, int | None, dict[int, int]]:
    """Read, written, and written by lifetime, of the fields that were found in a recorded response."""
    lifetimes = {300: "ephemeral_5m_input_tokens", 3600: "ephemeral_1h_input_tokens"}
    split = {ttl: usage[name] for ttl, name in lifetimes.items() if name in usage}
    return first(usage, READ), first(usage, WRITE), split


def of(exchanges: list[tuple[str, Dialect, Body]], *providers: str) -> Iterator[tuple[str, Dialect, Body]]:
    return (one for one in exchanges if one[2]["provider"] in providers)


def test_there_is_enough_to_read(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """An empty folder must not pass for a good one."""
    counted = Counter((dialect.name, exchange["stream"]) for _, dialect, exchange in exchanges)
    assert min(counted.values()) >= 5
    assert sorted(counted) == [
        (name, stream) for name in ("anthropic", "openai_chat", "openai_responses") for stream in (False, True)
    ]
    assert sum(1 for _ in of(exchanges, "anthropic")) >= 30
    assert sum(1 for _ in of(exchanges, "openai")) >= 15


def test_every_count_is_read(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """Exactly the fields that are there: what is not reported is not zero."""
    wrong = []
    for name, dialect, exchange in exchanges:
        if "cache_usage" in exchange:
            usage = listened(dialect, exchange["response"], 0).usage
            found = (usage.read, usage.write, dict(usage.write_by_ttl)) if usage else (None, None, {})
            if found != expected(exchange["cache_usage"]):
                wrong.append((name, found, exchange["cache_usage"]))
    assert wrong == []


ENGINES = {
    # What each engine said in the cases that are alike for all of them: input, read, written, output.
    ("vllm", "cold"): (1556, 0, 1536, 6),
    ("vllm", "repeat"): (1556, 1536, 0, 6),
    ("vllm", "whitespace_drift"): (1557, 256, 1280, 6),
    ("vllm", "stream_usage"): (1556, 1536, 0, 6),
    ("vllm", "responses"): (1556, 1536, 0, 6),
    ("vllm", "responses_stream"): (1556, 1536, 0, 6),
    ("vllm", "anthropic_cold"): (1556, 0, 1536, 6),
    ("vllm", "anthropic_stream"): (1556, 1536, 0, 6),
    ("sglang", "cold"): (1556, 0, None, 6),
    ("sglang", "repeat"): (1556, 1555, None, 6),
    ("sglang", "stream_usage"): (1556, 1555, None, 6),
    ("sglang", "responses_stream"): (1556, 1555, 0, 4),
    ("sglang", "anthropic_cold"): (1556, 27, None, 6),
    ("sglang", "anthropic_stream"): (1556, 1555, None, 6),
    ("llama_cpp", "cold"): (1556, 1527, None, 6),
    ("llama_cpp", "stream_usage"): (1556, 1534, None, 6),
    ("llama_cpp", "stream_no_usage"): (1556, 1555, None, 6),  # by its timings
    ("llama_cpp", "responses_stream"): (1556, 1555, None, 6),
    ("llama_cpp", "anthropic_cold"): (1556, 1527, None, 6),
    ("llama_cpp", "anthropic_stream"): (1556, 1555, None, 6),
    ("vllm", "stream_no_usage"): None,
    ("sglang", "stream_no_usage"): None,
}


@pytest.mark.parametrize(("engine", "case"), ENGINES)
def test_self_hosted_engines(exchanges: list[tuple[str, Dialect, Body]], engine: str, case: str) -> None:
    """The same counts in each dialect they speak: Messages leaves what was read out of the input, the others do not."""
    (found,) = [one for one in exchanges if (one[2]["provider"], one[2].get("case")) == (engine, case)]
    usage = listened(found[1], found[2]["response"], 0).usage
    assert (usage and (usage.input_total, usage.read, usage.write, usage.output)) == ENGINES[engine, case]


def test_totals_contain_what_was_read_and_written(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """On every provider, however it counts."""
    for name, dialect, exchange in exchanges:
        usage = listened(dialect, exchange["response"], 0).usage
        if usage is not None:
            assert usage.input_total is not None, name
            assert (usage.read or 0) + (usage.write or 0) <= usage.input_total, name


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_chunks_make_no_difference(exchanges: list[tuple[str, Dialect, Body]], size: int) -> None:
    """A response is the same in single bytes and all at once: usage, id, model, reasons, errors."""
    for name, dialect, exchange in exchanges:
        whole = listened(dialect, exchange["response"], 0)
        pieces = listened(dialect, exchange["response"], size)
        assert pieces.usage == whole.usage, name
        assert pieces.answers[-1:] == whole.answers[-1:], name


def test_streams_name_their_response(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """Id and model are told by the first event already, before there is any usage."""
    for name, dialect, exchange in exchanges:
        if exchange["stream"]:
            answers = listened(dialect, exchange["response"], 0).answers
            assert answers[0].response_id, name
            assert answers[0].model or exchange["provider"] == "llama_cpp", name  # in Responses it says so later
            assert answers[-1].model, name


def test_refusals_are_errors(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """And nothing else is."""
    for name, dialect, exchange in exchanges:
        answers = listened(dialect, exchange["response"], 0).answers
        failed = any(answer.error_type for answer in answers)
        assert failed is str(exchange["response"]["status"]).startswith(("4", "5")), name


def test_every_request_has_a_prompt(exchanges: list[tuple[str, Dialect, Body]]) -> None:
    """Whatever was sent: something of it is prompt, and every part has its place."""
    for name, dialect, exchange in exchanges:
        prompt = dialect.prompt(exchange["request_body"])
        assert prompt.segments, name
        assert not prompt.truncated, name
        assert prompt.model == exchange["request_body"]["model"], name
        paths = [dialect.path(segment) for segment in prompt.segments]
        assert len(set(paths)) == len(paths), name
