"""What the dialects share: nothing in a body can make them raise, and what is too long is cut, not guessed."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache.model import Prompt
from otel_promptcache.providers import (
    DIALECTS,
    Dialect,
    _wire,
    anthropic,
    dialect_for,
    openai_chat,
    openai_completions,
    provider_for,
)
from otel_promptcache.providers.rules import ROWS, Matching, rules_for

Body = dict[str, Any]

MARK = {"type": "ephemeral"}
by_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
by_talking_dialect = pytest.mark.parametrize(
    "dialect", [one for one in DIALECTS if one is not openai_completions], ids=lambda dialect: dialect.name
)


def read(dialect: Dialect, body: Body) -> Prompt:
    """The prompt, with the path of every segment looked up, as a diagnosis might."""
    found = dialect.prompt(body)
    assert all(isinstance(dialect.path(segment), str) for segment in found.segments)
    assert all(0 < place.length <= len(found.segments) for place in found.breakpoints)
    return found


# --- Whatever stands in a body --------------------------------------------------------------------------------


class Hostile:
    """An object that must not be touched."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("touched")

    __repr__ = __str__ = __iter__ = __len__ = __bool__ = _refuse


def endless() -> Iterator[Body]:
    while True:
        yield {"role": "user", "content": "x"}


FIELDS = [
    *("model", "messages", "system", "tools", "input", "prompt", "instructions", "thread", "cache_control"),
    "tool_choice",
    *("thinking", "speed", "output_config", "output_format", "text", "reasoning", "conversation"),
    *("previous_response_id", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "stream"),
    *("max_tokens", "max_output_tokens", "response_format", "context_management"),
]
PARTS = [
    *("role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "reasoning_content", "output"),
    *("cache_control", "prompt_cache_breakpoint", "id", "annotations"),
]
GARBAGE = [None, True, -1, 2.5, float("nan"), float("inf"), "", "x", b"x", [], {}, [None], [[]], ["x"], [5]]
GARBAGE += [{"x": 1}, {5: "x"}, {None: None}, (), ("x",), {"content": [None, "x", 5, {}]}, {"type": []}, {"role": {}}]
GARBAGE += [object(), Hostile(), {Hostile(): 1}, "\ud800", "\0", "😀" * 3]


@by_dialect
@pytest.mark.parametrize("field", FIELDS)
def test_any_field_may_be_anything(dialect: Dialect, field: str) -> None:
    """Alone, and in a request that is otherwise in order."""
    good = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "x"}], "input": "x"}
    for garbage in GARBAGE:
        read(dialect, {field: garbage})
        read(dialect, good | {field: garbage})


@by_dialect
@pytest.mark.parametrize("field", PARTS)
def test_any_field_of_a_message_may_be_anything(dialect: Dialect, field: str) -> None:
    """And of a part of one, of a tool, of a block of the system prompt."""
    for garbage in GARBAGE:
        broken = {"role": "user", "content": "x", "type": "text", "text": "x"} | {field: garbage}
        everywhere = [broken]
        read(dialect, dict.fromkeys(("messages", "input", "system", "tools"), everywhere))
        within = [
            {"role": "user", "content": everywhere},
            {"role": "tool", "content": everywhere, "output": everywhere},
        ]
        read(dialect, {"messages": within, "input": within})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS + PARTS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)


@by_dialect
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
@settings(max_examples=50)
def test_no_body_makes_it_raise(dialect: Dialect, body: Body) -> None:
    """Any JSON under the names that are looked at; and the same body is the same prompt again."""
    assert [one.key for one in read(dialect, body).segments] == [one.key for one in read(dialect, body).segments]


@by_dialect
@given(document=JSON)
@settings(max_examples=50)
def test_no_response_makes_it_raise(dialect: Dialect, document: Any) -> None:
    """Whole bodies, events of a stream, and usage; counts are whole numbers and not negative."""
    names = ("usage", "error", "diagnostics", "prompt_cache_diagnostics", "choices", "delta", "id", "model", "status")
    usage = dialect.usage(document)
    for name in names:
        assert dialect.answer({name: document}) is not None
        for kind in ("message_start", "message_delta", "error", "response.completed", document):
            dialect.event({"type": kind, "message": {name: document}, "response": {name: document}, name: document}, {})
    counts = [] if usage is None else [usage.input_total, usage.read, usage.write, usage.output, usage.reasoning]
    assert all(one is None or (type(one) is int and one >= 0) for one in counts)


@by_dialect
def test_iterators_are_not_read(dialect: Dialect) -> None:
    """They could be read once, and the SDK is to do that."""
    untouched = endless()
    read(dialect, {"messages": untouched, "input": untouched, "tools": untouched})
    read(
        dialect, {"messages": [{"role": "user", "content": untouched}], "input": [{"role": "u", "content": untouched}]}
    )
    assert untouched.gi_frame.f_lasti == endless().gi_frame.f_lasti  # type: ignore[attr-defined]


@by_dialect
def test_tuples_are_lists(dialect: Dialect) -> None:
    """Of messages, of parts, of tools."""
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    talk, tools = [{"role": "user", "content": parts}], [{"name": "a"}]
    frozen = ({"role": "user", "content": tuple(parts)},)
    lists = read(dialect, {"messages": talk, "input": talk, "tools": tools})
    assert read(dialect, {"messages": frozen, "input": frozen, "tools": tuple(tools)}).segments == lists.segments


@by_dialect
@pytest.mark.parametrize("text", ["\ud800 alone", "a\0b", "\u2028", "e\u0301", "😀", "\x7f\x80\xff"], ids=ascii)
def test_any_text_is_told_from_any_other(dialect: Dialect, text: str) -> None:
    """Lone surrogates, NUL, composed and decomposed letters."""

    def keys(said: str) -> list[int]:
        talk = [{"role": "user", "content": said}, {"role": "user", "content": [{"type": "odd", "x": said}]}]
        return [one.key for one in read(dialect, {"messages": talk, "input": talk}).segments]

    assert keys(text) == keys("".join(list(text)))
    assert set(keys(text)).isdisjoint(keys(text + "x"))
    assert set(keys("é")).isdisjoint(keys("e\u0301"))


@by_dialect
def test_deep_nesting(dialect: Dialect) -> None:
    """Deeper than any serialiser goes."""
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    talk = [{"role": "user", "content": [{"type": "odd", "x": deep}]}]
    read(dialect, {"messages": talk, "input": talk, "tools": [{"x": deep}], "tool_choice": [deep]})


@by_talking_dialect
def test_messages_that_are_none(dialect: Dialect) -> None:
    """What is no message adds nothing, and moves no other."""
    talk = [None, "x", 5, [], {"role": "user", "content": "Why?"}, {}, {"role": "user"}, {"content": "Why?"}]
    found = [one for one in read(dialect, {"messages": talk, "input": talk}).segments if one.role == "user"]
    assert [(one.element, one.value) for one in found] == [(4, "Why?")]


# --- Limits ---------------------------------------------------------------------------------------------------

MESSAGE = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.text(alphabet="ab", max_size=12)),
    st.builds(
        lambda texts: {
            "role": "user",
            "content": [{"type": "text", "text": text, "cache_control": MARK} for text in texts],
        },
        st.lists(st.text(alphabet="ab", max_size=12), max_size=3),
    ),
    st.builds(lambda text: {"role": "user", "content": [{"type": "odd", "x": text}]}, st.text(max_size=12)),
)


@by_dialect
@given(st.lists(MESSAGE, max_size=12), st.integers(1, 12), st.integers(1, 80))
def test_what_is_too_long_is_cut_at_its_end(dialect: Dialect, talk: list[Body], segments: int, characters: int) -> None:
    """The fingerprint covers the beginning, says so, and marks nothing that it does not cover."""
    body = {"messages": talk, "input": talk}
    whole = read(dialect, body)
    with mock.patch.multiple(_wire, MAX_SEGMENTS=segments, MAX_CHARACTERS=characters):
        cut = read(dialect, body)
    assert cut.segments == whole.segments[: len(cut.segments)]
    assert cut.truncated or len(cut.segments) == len(whole.segments)
    assert len(cut.segments) <= segments
    assert set(cut.breakpoints) <= set(whole.breakpoints)


@by_dialect
@given(st.lists(MESSAGE, max_size=12), st.integers(-14, 14))
def test_segments_of_a_run_are_those_made_singly(dialect: Dialect, talk: list[Body], at: int) -> None:
    """Whether or not messages in a row are kept as one, and in whatever order they are looked at."""
    body = {"messages": talk, "input": talk}
    with mock.patch.object(_wire, "_RUN", 10**9):
        singly = list(read(dialect, body).segments)
    with mock.patch.object(_wire, "_RUN", 2):
        runs = read(dialect, body).segments
    assert (len(runs), runs[at:], runs[:at:-2]) == (len(singly), singly[at:], singly[:at:-2])
    if -len(singly) <= at < len(singly):
        assert runs[at] == singly[at]
    else:
        with pytest.raises(IndexError):
            runs[at]
    assert list(runs) == singly == runs


@by_talking_dialect
@pytest.mark.parametrize(
    "form", [lambda text: text, lambda text: [{"type": "text", "text": text}]], ids=["text", "parts"]
)
def test_the_limit_itself_is_within(dialect: Dialect, form: Any) -> None:
    """One more is beyond."""
    talk = [{"role": "user", "content": form("four")}] * 4
    with mock.patch.multiple(_wire, MAX_SEGMENTS=3, MAX_CHARACTERS=1000):
        assert read(dialect, {"messages": talk[:3], "input": talk[:3]}).truncated is False
        assert read(dialect, {"messages": talk, "input": talk}).truncated is True
    with mock.patch.multiple(_wire, MAX_SEGMENTS=1000, MAX_CHARACTERS=12):
        assert read(dialect, {"messages": talk[:3], "input": talk[:3]}).truncated is False
        assert read(dialect, {"messages": talk, "input": talk}).truncated is True


def test_a_real_limit() -> None:
    """More messages than any conversation has."""
    found = anthropic.prompt({"messages": [{"role": "user", "content": "x"}] * 30_000})
    assert (len(found.segments), found.truncated) == (20_000, True)


# --- Small readers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), (7, 7), (7.0, 7), (0.0, 0), (10**12, 10**12)),
        *((None, None), (True, None), (False, None), ("7", None), (7.5, None), (-1, None), (-1.0, None)),
        *((float("inf"), None), (float("-inf"), None), (float("nan"), None), ([7], None), ({}, None)),
    ],
    ids=str,
)
def test_counts(value: object, expected: int | None) -> None:
    """A whole number, not negative; providers send others at times."""
    assert _wire.count(value) == expected


@given(st.lists(JSON, min_size=2, max_size=2))
@settings(max_examples=50)
def test_structures_are_told_apart_by_their_bytes(pair: list[Any]) -> None:
    """Equal bytes exactly for equal values, whatever else refers to them."""
    one, other = pair
    shared = [one, one]
    fresh = marshal.loads(marshal.dumps(shared))
    assert _wire.structure(shared) == _wire.structure(fresh)
    if _wire.structure(one) == _wire.structure(other):
        assert repr(one) == repr(other)


def test_unmarked_leaves_its_argument_alone() -> None:
    """And returns it as it is where there is nothing to take off."""
    plain = {"type": "tool_result", "content": [{"type": "text", "text": "x"}]}
    marked = {"type": "tool_result", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}
    assert _wire.unmarked(plain) is plain
    assert _wire.unmarked(marked) == plain
    assert marked["content"][0]["cache_control"] == MARK  # type: ignore[index]


# --- Which dialect, whose rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages?beta=true", "anthropic"),
        ("/v1/messages/", "anthropic"),
        ("/chat/completions", "openai_chat"),
        ("/openai/deployments/gpt/chat/completions?api-version=2026", "openai_chat"),
        ("/v1/responses", "openai_responses"),
        ("/v1/embeddings", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/models", None),
        ("", None),
    ],
)
def test_the_dialect_of_a_path(path: str, name: str | None) -> None:
    """None for what carries no prompt."""
    found = dialect_for(path)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("x.openai.azure.com", "azure.ai.openai"),
        ("api.deepseek.com", "deepseek"),
        ("api.groq.com", "groq"),
        ("api.x.ai", "x_ai"),
        ("api.mistral.ai", "mistral_ai"),
        ("openrouter.ai", "openrouter"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
        ("us-east5-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("localhost", "openai"),
        ("", "openai"),
    ],
)
def test_who_answers_at_a_host(host: str, provider: str) -> None:
    """Else whoever made the dialect."""
    assert provider_for(host, openai_chat) == provider


class TestRules:
    """Facts as rows, each with its source; the first row that fits holds."""

    @pytest.mark.parametrize(
        ("model", "minimum"),
        [
            *(("claude-opus-5-5", 512), ("claude-fable-5-2", 512), ("claude-opus-5", 512), ("claude-fable-5-1", 512)),
            *(("claude-opus-4-8", 1024), ("claude-sonnet-5", 1024), ("claude-sonnet-4-6", 1024), ("claude-new", 1024)),
            *(("claude-opus-4-7", 2048), ("claude-3-5-haiku-20241022", 2048), ("claude-mythos-preview", 2048)),
            *(("claude-opus-4-6", 4096), ("claude-opus-4-5-20251101", 4096), ("claude-haiku-4-5", 4096)),
        ],
    )
    def test_minimum_of_anthropic_models(self, model: str, minimum: int) -> None:
        """Everything else is alike."""
        found = rules_for("anthropic", model)
        assert (found.minimum, found.lookback, found.max_breakpoints, found.ttl) == (minimum, 20, 4, 300)

    @pytest.mark.parametrize(
        ("provider", "model", "expected"),
        [
            ("openai", "gpt-5.6", (Matching.BREAKPOINT, 1024, 1, 1800)),
            ("openai", "gpt-6.2-sol", (Matching.BREAKPOINT, 1024, 1, 1800)),
            ("openai", "gpt-5.5", (Matching.PREFIX, 1024, 2048, 86_400)),
            ("openai", "gpt-4.1", (Matching.PREFIX, 1024, 128, 600)),
            ("deepseek", "deepseek-chat", (Matching.PREFIX, 128, 128, 86_400)),
            ("groq", "openai/gpt-oss-20b", (Matching.PREFIX, 128, 128, 7200)),
            ("somebody", "anything", (Matching.PREFIX, 0, 16, 300)),
            ("", "", (Matching.PREFIX, 0, 16, 300)),
        ],
    )
    def test_others(self, provider: str, model: str, expected: tuple[Matching, int, int, int]) -> None:
        """Nobody is left without a row."""
        found = rules_for(provider, model)
        assert (found.matching, found.minimum, found.granule, found.ttl) == expected

    def test_every_row_has_a_source_and_a_day(self) -> None:
        """A number that nobody can look up again is no fact."""
        assert [row for row in ROWS if not row.source or not row.read_on.startswith("2026-")] == []
