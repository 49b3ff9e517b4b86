"""What holds for every prompt: a change is found where it is, another spelling is another prompt, and nothing depends
on the order of our own dictionaries or on chance."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_diagnosis import ANY, BODIES, DIALECTS, TALK, TEXTS, Body, Client, appended, messages, prose, turns

from otel_promptcache import fingerprint, providers
from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.model import Kind, Prompt, Section, Segment
from otel_promptcache.semconv import Cause, Reason, Status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)

Path_ = tuple[str | int, ...]


def places(value: Any, path: Path_ = ()) -> list[Path_]:
    """Where the leaves of a JSON value are."""
    if isinstance(value, dict) and value:
        return [place for key, item in value.items() for place in places(item, (*path, key))]
    if isinstance(value, list) and value:
        return [place for index, item in enumerate(value) for place in places(item, (*path, index))]
    return [path]


def put(value: Any, path: Path_, new: object) -> Any:
    """A copy of the value with something else at this place."""
    if not path:
        return new
    found = copy.copy(value)
    found[path[0]] = put(value[path[0]], path[1:], new)
    return found


ARGUMENTS = st.dictionaries(st.text(alphabet="abcd", min_size=1, max_size=3), JSON, min_size=1, max_size=4)


def with_a_call(dialect: str, arguments: Any, *more: str) -> Body:
    """A conversation in which a tool was called, and whose answer everybody has."""
    body = BODIES[dialect](1)
    answer = prose("what was found", 80)  # what is behind the change is more than a granule, and than a twentieth
    if dialect == "anthropic":
        call = {"type": "tool_use", "id": "t1", "name": "people", "input": arguments}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": answer}
        said = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    elif dialect == "openai_chat":
        call = {"id": "t1", "type": "function", "function": {"name": "people", "arguments": json.dumps(arguments)}}
        said = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": answer},
        ]
    else:
        arguments = json.dumps(arguments)
        said = [
            {"type": "function_call", "call_id": "t1", "name": "people", "arguments": arguments},
            {"type": "function_call_output", "call_id": "t1", "output": answer},
        ]
    messages(body).extend([*said, *turns("", *more)[1:]])
    return body


CALL_PATH = {
    "anthropic": "messages[1].content[0]",
    "openai_chat": "messages[2].tool_calls[0]",
    "openai_responses": "input[1]",
}


@settings(max_examples=60)
@given(st.sampled_from(DIALECTS), ARGUMENTS, st.data())
def test_a_change_deep_in_a_call_is_found_there(dialect: str, arguments: Any, data: st.DataObject) -> None:
    """Any leaf of the arguments, whatever it becomes."""
    place = data.draw(st.sampled_from(places(arguments)))
    new = data.draw(JSON)
    other = put(arguments, place, new)
    client = Client(dialect)
    client.send(with_a_call(dialect, arguments))
    said = client.send(with_a_call(dialect, other, TALK[1], TALK[2]))
    if json.dumps(other) == json.dumps(arguments):
        assert said.status is Status.HIT
    else:
        assert said.status in (Status.MISS, Status.PARTIAL)
        assert (said.reason, said.path) == (Reason.MESSAGES_CHANGED, CALL_PATH[dialect])


@settings(max_examples=60)
@given(st.sampled_from(DIALECTS), ARGUMENTS, st.data())
def test_a_change_deep_in_a_schema_is_found_there(dialect: str, schema: Any, data: st.DataObject) -> None:
    """Any leaf of any tool's schema; which tool it is, is told."""
    number = data.draw(st.integers(0, 2))
    other = put(schema, data.draw(st.sampled_from(places(schema))), data.draw(JSON))

    def body(length: int, properties: Any) -> Body:
        made = BODIES[dialect](length)
        tool = made["tools"][number]
        tool.get("function", tool)["input_schema"] = {"type": "object", "properties": properties}
        return made

    client = Client(dialect)
    client.send(body(1, schema))
    said = client.send(body(3, other))
    if json.dumps(other) == json.dumps(schema):
        assert said.status is Status.HIT
    else:
        assert (said.reason, said.path) == (Reason.TOOLS_CHANGED, f"tools[{number}]")
        assert said.cause is not None


@settings(max_examples=60)
@given(st.sampled_from(DIALECTS), st.data())
def test_a_change_in_the_history_is_found_there(dialect: str, data: st.DataObject) -> None:
    """A character in any earlier message, under every API."""

    def body(*texts: str) -> Body:
        made = BODIES[dialect](1)
        messages(made)[-1:] = turns(*texts)
        return made

    client, texts = Client(dialect), [prose(f"turn {number}", 40) for number in range(7)]
    client.send(body(*texts[:5]))
    number = data.draw(st.integers(0, 3))
    at = data.draw(st.integers(0, len(texts[number])))
    texts[number] = texts[number][:at] + data.draw(st.sampled_from("Zé漢\U0001f600")) + texts[number][at:]
    said = client.send(body(*texts))
    index = number + (1 if dialect == "openai_chat" else 0)
    array = "input" if dialect == "openai_responses" else "messages"
    assert (said.reason, said.path) == (Reason.MESSAGES_CHANGED, f"{array}[{index}].content")


# --- Equal is equal, and nothing else is --------------------------------------------------------------------


def segment(value: object, kind: Kind = Kind.TOOL_USE) -> Segment:
    section = Section.TOOLS if kind is Kind.TOOL else Section.MESSAGES
    return Segment(hash(str(value)), section, kind, 0, -1, "assistant", value)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


LOOSELY = frozenset({Cause.KEY_ORDER, Cause.FIELD_ORDER, Cause.RESERIALIZED, Cause.WHITESPACE, Cause.UNICODE})


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=4))
def test_equal_once_the_keys_are_sorted_is_not_equal(value: Any) -> None:
    """The same JSON with its keys in another order is another prompt, known for what it is."""
    other = reversed_keys(value)
    one, two = segment(value), segment(other)
    same = json.dumps(value) == json.dumps(other)
    key = HashKey("k")
    assert (key.digest("", canonical(one)) == key.digest("", canonical(two))) is same
    if not same:
        said = fingerprint.difference(fingerprint.detail(one), fingerprint.detail(two), two)
        assert said.cause in (Cause.KEY_ORDER, Cause.FIELD_ORDER, Cause.REORDERED, Cause.RESERIALIZED)


@given(ARGUMENTS, st.sampled_from([{"indent": 1}, {"separators": (",", ":")}, {"sort_keys": True}]))
def test_equal_once_it_is_parsed_is_not_equal(value: Any, how: dict[str, Any]) -> None:
    """Arguments are a text on the wire: written in another way they are other tokens."""
    texts = json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, **how)
    calls = [segment({"type": "function", "function": {"name": "f", "arguments": text}}) for text in texts]
    key = HashKey("k")
    digests = [key.digest("", canonical(call)) for call in calls]
    assert (digests[0] == digests[1]) is (texts[0] == texts[1])
    if texts[0] != texts[1]:
        said = fingerprint.difference(fingerprint.detail(calls[0]), fingerprint.detail(calls[1]), calls[1])
        assert said.cause in LOOSELY


@given(st.lists(JSON, min_size=2, max_size=2))
def test_one_segment_for_one_text(values: list[Any]) -> None:
    """Two values are one segment only where the JSON that is sent is the same."""
    digests = [HashKey("k").digest("", canonical(segment({"input": value}))) for value in values]
    written = [json.dumps(value) for value in values]
    assert (digests[0] == digests[1]) is (written[0] == written[1])


# --- Nothing but the prompt counts --------------------------------------------------------------------------


def prompt_of(dialect: str, body: Body) -> Prompt:
    return providers.BY_NAME[dialect].prompt(body)


@given(ANY, st.randoms(use_true_random=False))
def test_the_order_of_a_requests_fields_says_nothing(request_: tuple[str, Body], chance: Any) -> None:
    """``messages`` in front of ``tools`` or behind them: providers render them in an order of their own."""
    dialect, body = request_
    fields = list(body.items())
    chance.shuffle(fields)
    one, other = prompt_of(dialect, body), prompt_of(dialect, dict(fields))
    assert [part.key for part in one.segments] == [part.key for part in other.segments]
    assert one._replace(segments=other.segments) == other


@given(ANY, TEXTS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_nor_do_verdicts_depend_on_it(request_: tuple[str, Body], text: str, chance: Any) -> None:
    dialect, body = request_
    later = appended(body, text, "And then?")
    runs = []
    for shuffled in (False, True):
        client = Client(dialect)
        for sent in (body, later, {**later, "tools": later.get("tools", [])[1:]}):
            fields = list(sent.items())
            if shuffled:
                chance.shuffle(fields)
            client.send(dict(fields))
            runs.append((shuffled, client.full))
    assert [said for shuffled, said in runs if shuffled] == [said for shuffled, said in runs if not shuffled]


def test_hashes_are_seeded_anew_in_every_process(tmp_path: Path) -> None:
    """The interpreter's own hashes find what is known, and differ from run to run; what is said does not."""
    bodies = []
    for number, system in enumerate((prose("a"), prose("a").replace("Rule 7", "Law 7"), prose("b"), prose("a"))):
        body = BODIES["anthropic"](1 + 2 * (number % 3)) | {"system": system}
        body["tools"] = body["tools"][number % 2 :] + body["tools"][: number % 2]
        usage = {"input_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 5000}
        bodies.append(json.dumps({"endpoint": "/v1/messages", "t": 60 * number, "body": body, "usage": usage}))
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(bodies), encoding="utf-8")
    command = [sys.executable, "-m", "otel_promptcache", "diagnose", str(log), "--format", "jsonl"]
    said = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(said) == 1
    assert "tools_changed" in said.pop()
