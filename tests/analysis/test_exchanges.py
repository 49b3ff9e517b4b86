"""Recorded traffic in every form that people have it in: one and the same exchange comes out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from otel_promptcache.analysis import replay
from otel_promptcache.analysis.documents import TrafficError
from otel_promptcache.analysis.exchanges import Exchange, body_of, read

MESSAGES = {
    "model": "claude-sonnet-5",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Beantworte Fragen zur Bestellung."}],
    "messages": [{"role": "user", "content": "Wo ist mein Paket?"}],
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-5",
    "usage": {"input_tokens": 9, "cache_read_input_tokens": 2048, "cache_creation_input_tokens": 0, "output_tokens": 3},
}
CHAT = {
    "model": "gpt-5.4",
    "messages": [{"role": "system", "content": "Réponds."}, {"role": "user", "content": "Où ?"}],
}
COMPLETION = {
    "id": "chatcmpl-1",
    "model": "gpt-5.4",
    "choices": [],
    "usage": {"prompt_tokens": 2057, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2048}},
}
STREAM = "\n\n".join(
    f"data: {json.dumps(event)}"
    for event in (
        {"type": "message_start", "message": {**MESSAGE, "usage": {**MESSAGE["usage"], "output_tokens": 1}}},  # type: ignore[dict-item]
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
)
AT = 1_763_733_600.5


def written(folder: Path, name: str, *rows: object) -> str:
    path = folder / name
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def only(name: str) -> Exchange:
    exchanges = read([name]).exchanges
    assert len(exchanges) == 1
    return exchanges[0]


LINES: dict[str, dict[str, Any]] = {
    "body and response": {
        "url": "https://api.anthropic.com/v1/messages",
        "body": MESSAGES,
        "response": MESSAGE,
        "t": AT,
    },
    "request and response": {"request": MESSAGES, "response": MESSAGE, "timestamp": "2025-11-21T14:00:00.5Z"},
    "bodies as text": {
        "request_body": json.dumps(MESSAGES),
        "response_body": json.dumps(MESSAGE),
        "start_time": AT * 1000,
        "path": "/v1/messages",
    },
    "a stream": {"request": {"url": "http://127.0.0.1/v1/messages", "body": MESSAGES}, "response": STREAM, "time": AT},
    "nothing but usage": {"body": MESSAGES, "usage": MESSAGE["usage"], "response_id": "msg_1", "t": AT},
    "the body itself": {**MESSAGES, "response": MESSAGE, "t": AT},
    "the model invocation log of Bedrock": {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2025-11-21T14:00:00.5Z",
        "region": "eu-central-1",
        "modelId": "claude-sonnet-5",
        "input": {
            "inputBodyJson": {
                "anthropic_version": "bedrock-2023-05-31",
                **{k: MESSAGES[k] for k in ("messages", "system")},
            }
        },
        "output": {"outputBodyJson": MESSAGE},
    },
}


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("name", ["requests.jsonl", "requests.jsonl.gz"])
def test_a_log_line(form: str, name: str, tmp_path: Path) -> None:
    found = only(written(tmp_path, name, LINES[form]))
    assert found.dialect.name == "anthropic"
    assert found.provider == "anthropic"
    assert (found.at, found.timed) == (AT, True)
    assert found.dialect.prompt(found.body).model == "claude-sonnet-5"
    assert found.body["messages"] == MESSAGES["messages"]
    assert found.answer.response_id == "msg_1"
    assert found.answer.usage is not None
    assert (found.answer.usage.read, found.answer.usage.input_total) == (2048, 2057)


def test_other_dialects_by_their_shape(tmp_path: Path) -> None:
    chat = only(written(tmp_path, "a.jsonl", {"request": CHAT, "response": COMPLETION}))
    assert (chat.dialect.name, chat.provider) == ("openai_chat", "openai")
    assert chat.answer.usage is not None
    assert chat.answer.usage.read == 2048
    responses = only(written(tmp_path, "b.jsonl", {"body": {"model": "gpt-5.4", "input": "¿Dónde está?"}}))
    assert responses.dialect.name == "openai_responses"
    assert responses.answer.usage is None


def test_gemini_names_its_model_in_the_url(tmp_path: Path) -> None:
    row = {
        "url": "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent?alt=json",
        "request": {"contents": [{"role": "user", "parts": [{"text": "어디에 있나요?"}]}]},
        "response": {"usageMetadata": {"promptTokenCount": 2057, "cachedContentTokenCount": 2048}},
    }
    found = only(written(tmp_path, "a.jsonl", row))
    assert (found.dialect.name, found.provider) == ("gemini", "gcp.gemini")
    assert found.dialect.prompt(found.body).model == "gemini-2.5-flash"
    assert found.answer.usage is not None
    assert found.answer.usage.read == 2048


def test_the_host_names_the_provider(tmp_path: Path) -> None:
    row = {"url": "https://api.deepseek.com/chat/completions", "body": CHAT, "response": COMPLETION}
    assert only(written(tmp_path, "a.jsonl", row)).provider == "deepseek"
    row = {"endpoint": "/v1/chat/completions", "provider": "vllm", "body": CHAT, "response": COMPLETION}
    assert only(written(tmp_path, "b.jsonl", row)).provider == "vllm"


def test_times(tmp_path: Path) -> None:
    """Durations in seconds or milliseconds; where nobody measured, no two requests overlap; without any time, order."""
    rows = [{"body": MESSAGES, "t": AT, **more} for more in ({"ttft": 0.5, "duration": 2}, {"duration_ms": 1500}, {})]
    measured, total, neither = read([written(tmp_path, "a.jsonl", *rows)]).exchanges
    assert (measured.begun - AT, measured.ended - AT) == (0.5, 2.0)
    assert (total.begun - AT, total.ended - AT) == (1.5, 1.5)
    assert neither.at < neither.begun <= neither.ended < AT + 0.01
    first, second = read([written(tmp_path, "b.jsonl", MESSAGES, MESSAGES)]).exchanges
    assert first.at < first.ended < second.at
    assert not first.timed


def test_a_case_of_a_corpus_is_a_world_of_its_own(tmp_path: Path) -> None:
    request = {"t": 0.0, "ttft": 1.0, "duration": 2.0, "session": "s", "endpoint": "eu/key1", "body": MESSAGES,
               "response_id": "r", "usage": MESSAGE["usage"]}  # fmt: skip
    rows = [{"id": name, "provider": "anthropic", "requests": [request, request]} for name in ("one", "two")]
    reading = read([written(tmp_path, "corpus.jsonl.gz", *rows)])
    assert [len(case) for case in reading.cases()] == [2, 2]
    found = reading.exchanges[3]
    assert (found.name, found.number, found.endpoint, found.begun, found.ended) == ("two", 1, "eu/key1", 1.0, 2.0)


def test_logs_go_on_in_the_next_file(tmp_path: Path) -> None:
    files = [written(tmp_path, name, {"body": MESSAGES, "t": AT}) for name in ("log.1", "log.2")]
    assert [len(case) for case in read(files).cases()] == [2]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_cassettes_of_vcrpy(suffix: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    cassette = {
        "interactions": [
            {
                "request": {"uri": "https://api.anthropic.com/v1/messages", "body": json.dumps(MESSAGES)},
                "response": {"body": {"string": body}, "status": {"code": 200}},
            }
            for body in (json.dumps(MESSAGE), STREAM)
        ],
        "version": 1,
    }
    path = tmp_path / f"cassette{suffix}"
    dumped = json.dumps(cassette, indent=1) if suffix == ".json" else yaml.safe_dump(cassette)
    path.write_text(dumped, encoding="utf-8")
    first, second = read([str(path)]).exchanges
    assert first.answer.usage == second.answer.usage
    assert first.answer.usage is not None


def test_har(tmp_path: Path) -> None:
    entry = {
        "startedDateTime": "2025-11-21T14:00:00.5Z",
        "request": {"url": "https://api.anthropic.com/v1/messages", "postData": {"text": json.dumps(MESSAGES)}},
        "response": {"content": {"text": json.dumps(MESSAGE)}},
    }
    found = only(written(tmp_path, "page.har", {"log": {"version": "1.2", "entries": [entry]}}))
    assert (found.at, found.answer.response_id) == (AT, "msg_1")


def test_what_has_no_prompt_is_counted(tmp_path: Path) -> None:
    rows = [
        {"url": "https://api.anthropic.com/v1/files/file_011CcaGs24UqTfYHgDWn7trH", "body": None},
        {"url": "https://api.cohere.com/v2/chat", "body": CHAT},
        {"level": "info", "message": "started"},
        {"body": MESSAGES},
    ]
    reading = read([written(tmp_path, "log.jsonl", *rows)])
    assert len(reading.exchanges) == 1
    assert reading.skipped == {"/v1/files/*": 1, "/v2/chat": 1, "no request body": 1}


def test_a_line_that_is_cut_off_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "growing.jsonl"
    path.write_text(json.dumps({"body": MESSAGES}) + '\n{"body": {"model": "cl', encoding="utf-8")
    assert len(read([str(path)]).exchanges) == 1


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "[1, 2]", "\x00\x01"])
def test_a_file_without_traffic(text: str, tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrafficError, match=r"no requests\. Readable are"):
        read([str(path)])


def test_a_body_alone_or_wrapped(tmp_path: Path) -> None:
    for name, document in (("a.json", MESSAGES), ("b.json", {"request": MESSAGES, "response": MESSAGE})):
        assert body_of(written(tmp_path, name, document))["messages"] == MESSAGES["messages"]
    with pytest.raises(TrafficError, match="no request body"):
        body_of(written(tmp_path, "c.json", MESSAGE))
    with pytest.raises(TrafficError, match="not one JSON document"):
        body_of(written(tmp_path, "d.json", MESSAGES, MESSAGES))


# --- Whatever stands in the file ----------------------------------------------------------------------------

NAMES = some.sampled_from(
    ["body", "response", "usage", "t", "duration", "url", "messages", "content", "role", "input", "tools", "model",
     "id", "requests", "sequence", "interactions", "log", "entries", "text", "type", "message", "provider", "session"]
)  # fmt: skip
LEAVES = (
    some.none()
    | some.booleans()
    | some.integers(-1, 2**70)
    | some.floats()
    | some.sampled_from(["user", "text", "anthropic", "/v1/messages", "http://[bad", "2025-11-21T14:00:00Z", "\ud800"])
)
ANY = some.recursive(LEAVES, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=4))
ROWS = some.dictionaries(NAMES, ANY, max_size=6)
CALLS = some.fixed_dictionaries(
    {
        "body": some.fixed_dictionaries(
            {"messages": some.lists(ANY, max_size=3)}, optional={"system": ANY, "tools": ANY}
        )
    },
    optional={"response": ANY, "usage": ANY, "t": ANY, "url": ANY, "duration": ANY, "ttft": ANY, "provider": ANY},
)
ENTRIES = some.fixed_dictionaries(
    {"type": some.sampled_from(["user", "assistant", "system"]), "uuid": some.sampled_from(["a", "b", "c", 1, None])},
    optional={
        "parentUuid": some.sampled_from(["a", "b", "c", "gone", None, 3]),
        "message": ANY | some.fixed_dictionaries({"role": ANY, "content": ANY, "model": ANY, "usage": ANY, "id": ANY}),
        "timestamp": ANY,
        "isSidechain": ANY,
        "isCompactSummary": ANY,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(some.lists(ROWS | CALLS | ENTRIES, min_size=1, max_size=5))
def test_no_file_is_too_strange(tmp_path: Path, rows: list[Any]) -> None:
    """Read and judged, or refused with a sentence."""
    try:
        cases = read([written(tmp_path, "strange.jsonl", *rows)]).cases()
    except TrafficError:
        return
    for case in cases:
        for one, judged in zip(case, replay.replay(case), strict=True):
            assert judged.exchange is one
            assert one.at < one.begun <= one.ended
            assert judged.diagnosis.lost >= 0
