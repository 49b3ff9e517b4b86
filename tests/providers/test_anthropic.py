"""Anthropic Messages: what of a request is prompt, in which order, and what a response says of its tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from otel_promptcache.model import Answer, Breakpoint, Kind, Section, Segment, Usage
from otel_promptcache.providers import anthropic

Body = dict[str, Any]

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
ASK = {"role": "user", "content": "Why?"}


def paths(body: Body) -> list[str]:
    return [anthropic.path(segment) for segment in anthropic.prompt(body).segments]


def segment(content: object, role: str = "user") -> Segment:
    """The segment of a message with one block, behind what a picture changes in front of it."""
    return anthropic.prompt({"messages": [{"role": role, "content": [content]}]}).segments[-1]


def places(body: Body) -> list[tuple[int, int, bool]]:
    """Breakpoints as (length, lifetime in seconds, explicit)."""
    return [tuple(place) for place in anthropic.prompt(body).breakpoints]


FULL: Body = {
    "model": "claude-opus-5",
    "max_tokens": 64,
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]},
    ],
    "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tool_choice": {"type": "any"},
    "tools": [{"name": "search"}, {"name": "fetch"}],
    "speed": "fast",
    "output_config": {"effort": "low", "format": {"type": "json_schema"}},
}


class TestOrder:
    """Segments stand in the provider's own cache order, whatever the order of the body's fields."""

    def test_tools_system_messages(self) -> None:
        """A parameter stands where a change of it cuts the prefix."""
        assert paths(FULL) == [
            *("tools[0]", "tools[1]", "speed", "system[0]", "system[1]"),
            *("tool_choice", "thinking", "output_config.effort", "output_config.format"),
            *("messages[0].content", "messages[1].content[0]", "messages[2].content[0]", "messages[2].content[1]"),
        ]

    def test_sections_and_kinds(self) -> None:
        """Each segment says what it is."""
        found = [(one.section, one.kind) for one in anthropic.prompt(FULL).segments]
        assert found == [
            (Section.TOOLS, Kind.TOOL),
            (Section.TOOLS, Kind.TOOL),
            (Section.PARAMETERS, Kind.PARAMETER),
            (Section.SYSTEM, Kind.TEXT),
            (Section.SYSTEM, Kind.TEXT),
            (Section.PARAMETERS, Kind.PARAMETER),
            (Section.PARAMETERS, Kind.PARAMETER),
            (Section.PARAMETERS, Kind.PARAMETER),
            (Section.PARAMETERS, Kind.PARAMETER),
            (Section.MESSAGES, Kind.TEXT),
            (Section.MESSAGES, Kind.REASONING),
            (Section.MESSAGES, Kind.TEXT),
            (Section.MESSAGES, Kind.TEXT),
        ]

    def test_the_rest_of_the_request(self) -> None:
        """What is no segment but is known of the request."""
        found = anthropic.prompt({**FULL, "stream": True})
        assert (found.dialect, found.model, found.stream, found.max_tokens) == ("anthropic", "claude-opus-5", True, 64)
        assert (found.cache_key, found.previous_id, found.truncated, found.text_only) == ("", "", False, True)

    def test_system_as_a_string(self) -> None:
        """Its path is the field's."""
        assert paths({"system": "Be brief.", "messages": [ASK]}) == ["system", "messages[0].content"]

    @pytest.mark.parametrize(
        ("block", "kind"),
        [
            ({"type": "text", "text": "x"}, Kind.TEXT),
            ({"type": "text", "text": "x", "citations": []}, Kind.TEXT),
            ({"type": "tool_use", "id": "t", "name": "search", "input": {}}, Kind.TOOL_USE),
            ({"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}}, Kind.TOOL_USE),
            ({"type": "tool_result", "tool_use_id": "t", "content": "x"}, Kind.TOOL_RESULT),
            ({"type": "thinking", "thinking": "x"}, Kind.REASONING),
            ({"type": "redacted_thinking", "data": "x"}, Kind.REASONING),
            ({"type": "image", "source": {}}, Kind.IMAGE),
            ({"type": "document", "source": {}}, Kind.DOCUMENT),
            ({"type": "hologram"}, Kind.OTHER),
            ({}, Kind.OTHER),
        ],
    )
    def test_kinds_of_blocks(self, block: Body, kind: Kind) -> None:
        """Unknown ones are opaque, and still part of the prompt."""
        assert segment(block).kind is kind

    @pytest.mark.parametrize("kind", ["image", "document"])
    def test_more_than_text(self, kind: str) -> None:
        """A prompt with a picture or a file in it is not text only."""
        body = {"messages": [{"role": "user", "content": [{"type": kind, "source": {}}]}]}
        assert anthropic.prompt(body).text_only is False

    def test_a_thread_that_is_continued(self) -> None:
        """The server holds what is not on the wire; its id stands in front of the messages."""
        body = {"thread": {"type": "continue", "previous_message_id": "msg_1"}, "system": "S", "messages": [ASK]}
        assert paths(body) == ["system", "thread.previous_message_id", "messages[0].content"]
        assert anthropic.prompt(body).previous_id == "msg_1"

    @pytest.mark.parametrize("thread", [None, {}, {"type": "create"}, "x", [], {"previous_message_id": None}], ids=str)
    def test_a_thread_that_is_not(self, thread: object) -> None:
        """Nothing is held yet."""
        body = {"thread": thread, "messages": [ASK]}
        assert paths(body) == ["messages[0].content"]
        assert anthropic.prompt(body).previous_id == ""


class TestSameness:
    """Equal keys mean equal prompts for the provider, and different keys different ones."""

    def test_a_string_is_one_text_block(self) -> None:
        """In messages and in the system prompt."""
        plain = anthropic.prompt({"system": "S", "messages": [{"role": "user", "content": "x"}]})
        blocks = anthropic.prompt(
            {
                "system": [{"type": "text", "text": "S"}],
                "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
            }
        )
        assert [one.key for one in plain.segments] == [one.key for one in blocks.segments]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"type": "text", "text": "x"}, {"text": "x", "type": "text", "cache_control": MARK}),
            ({"type": "image", "source": {"a": 1}}, {"type": "image", "source": {"a": 1}, "cache_control": HOUR}),
            (
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "text", "text": "x", "cache_control": MARK}],
                },
            ),
        ],
        ids=["text", "image", "nested in a tool result"],
    )
    def test_markers_are_no_text(self, one: Body, other: Body) -> None:
        """The marker may move from turn to turn, the text it stood on is the same."""
        assert segment(one).key == segment(other).key

    def test_markers_on_tools(self) -> None:
        """Likewise."""
        marked, plain = (
            anthropic.prompt({"tools": [tool]}) for tool in ({"name": "a", "cache_control": MARK}, {"name": "a"})
        )
        assert marked.segments[0].key == plain.segments[0].key

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"type": "text", "text": "x"}, {"type": "text", "text": "x "}),
            ({"type": "text", "text": "x"}, {"type": "text", "text": "x", "citations": []}),
            ({"type": "image", "source": {"a": 1, "b": 2}}, {"type": "image", "source": {"b": 2, "a": 1}}),
            ({"type": "hologram", "x": 1}, {"type": "hologram", "x": 2}),
            ({"type": "hologram", "x": 1}, {"type": "hologram", "x": True}),
            ({"type": "hologram", "x": 1}, {"type": "hologram", "x": 1.0}),
            ({"type": "hologram", "x": [[]]}, {"type": "hologram", "x": [{}]}),
        ],
        ids=["a blank", "a field more", "the order of keys", "a number", "1 and true", "1 and 1.0", "list and object"],
    )
    def test_what_makes_a_difference(self, one: Body, other: Body) -> None:
        """Everything that would be sent as other bytes."""
        assert segment(one).key != segment(other).key

    def test_roles_make_a_difference(self) -> None:
        """The same words said by the other side."""
        block = {"type": "text", "text": "x"}
        assert segment(block).key != segment(block, "assistant").key

    @pytest.mark.parametrize(
        "default",
        [
            {"tool_choice": {"type": "auto"}},
            {"tool_choice": None},
            {"thinking": {"type": "disabled"}},
            {"thinking": None},
            {"speed": "standard"},
            {"output_config": {}},
            {"output_config": {"effort": None, "format": None}},
            {"output_format": None},
            {"tools": []},
            {"tools": None},
            {"system": []},
            {"system": None},
        ],
        ids=str,
    )
    def test_an_explicit_default_is_the_same_as_nothing(self, default: Body) -> None:
        """Frameworks send them in one version and not in the next."""
        body = {"model": "claude-opus-5", "messages": [ASK]}
        assert anthropic.prompt(body | default) == anthropic.prompt(body)

    @pytest.mark.parametrize(
        "field", ["temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier", "stream"]
    )
    def test_what_is_no_part_of_the_prompt(self, field: str) -> None:
        """Sampling and delivery."""
        body = {"model": "claude-opus-5", "messages": [ASK]}
        assert anthropic.prompt(body | {field: "x"}).segments == anthropic.prompt(body).segments

    def test_the_older_name_of_the_output_format(self) -> None:
        """``output_format`` became ``output_config.format``."""
        schema = {"type": "json_schema", "schema": {}}
        older, newer = {"output_format": schema}, {"output_config": {"format": schema}}
        assert anthropic.prompt(older).segments == anthropic.prompt(newer).segments
        assert paths(older) == ["output_config.format"]

    def test_the_body_is_left_alone(self) -> None:
        """It is about to be sent."""
        body = copy.deepcopy(FULL)
        body["messages"][2]["content"][1]["cache_control"] = MARK
        before = copy.deepcopy(body)
        anthropic.prompt(body)
        assert body == before


class TestBreakpoints:
    """Where the provider is asked to store an entry, and for how long."""

    def test_explicit(self) -> None:
        """On tools, system blocks and content blocks, counted in segments."""
        body = {
            "tools": [{"name": "a"}, {"name": "b", "cache_control": HOUR}],
            "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {}, "cache_control": MARK}]},
                {"role": "assistant", "content": "x"},
                ASK,
            ],
        }
        assert paths(body)[3] == "images"  # pictures anywhere change what the messages begin with
        assert places(body) == [(2, 3600, True), (3, 300, True), (5, 300, True)]
        assert anthropic.prompt(body).automatic is False

    def test_on_a_part_of_a_tool_result(self) -> None:
        """It ends with the segment it stands in."""
        parts = [{"type": "text", "text": "x", "cache_control": HOUR}, {"type": "text", "text": "y"}]
        result = {"type": "tool_result", "tool_use_id": "t", "content": parts}
        assert places({"messages": [ASK, {"role": "user", "content": [result]}]}) == [(2, 3600, True)]

    def test_the_block_itself_wins_over_its_parts(self) -> None:
        """One breakpoint a segment."""
        part = {"type": "text", "text": "x", "cache_control": HOUR}
        result = {"type": "tool_result", "tool_use_id": "t", "content": [part], "cache_control": MARK}
        assert places({"messages": [{"role": "user", "content": [result]}]}) == [(1, 300, True)]

    @pytest.mark.parametrize(
        ("control", "ttl"),
        [(MARK, 300), (HOUR, 3600), ({}, 300), ({"ttl": "9m"}, 300), ({"ttl": 3600}, 300), ("yes", 300), (True, 300)],
        ids=str,
    )
    def test_lifetimes(self, control: object, ttl: int) -> None:
        """Five minutes unless an hour is asked for; nonsense is the default."""
        assert places({"system": [{"type": "text", "text": "S", "cache_control": control}]}) == [(1, ttl, True)]

    def test_null_is_no_marker(self) -> None:
        """Libraries send it for \"not set\"."""
        assert places({"system": [{"type": "text", "text": "S", "cache_control": None}], "cache_control": None}) == []

    def test_automatic(self) -> None:
        """The top-level field marks the last block."""
        body = {"cache_control": HOUR, "system": "S", "messages": [ASK]}
        assert places(body) == [(2, 3600, False)]
        assert anthropic.prompt(body).automatic is True

    @pytest.mark.parametrize(
        ("tail", "length"),
        [
            ([{"type": "text", "text": ""}], 1),
            ([{"type": "thinking", "thinking": "Hm"}], 1),
            ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": ""}], 1),
            ([{"type": "text", "text": "x"}], 2),
            ([{"type": "tool_use", "id": "t", "name": "n", "input": {}}], 2),
        ],
    )
    def test_automatic_walks_back(self, tail: list[Body], length: int) -> None:
        """Empty text and thinking cannot carry a marker."""
        body = {"cache_control": MARK, "messages": [ASK, {"role": "assistant", "content": tail}]}
        assert places(body) == [(length, 300, False)]

    def test_automatic_on_a_marked_block(self) -> None:
        """Is the marker that stands there."""
        block = {"type": "text", "text": "x", "cache_control": MARK}
        body = {"cache_control": MARK, "messages": [{"role": "user", "content": [block]}]}
        assert places(body) == [(1, 300, True)]

    @pytest.mark.parametrize("body", [{}, {"messages": []}, {"thinking": {"type": "adaptive"}}], ids=str)
    def test_automatic_on_nothing(self, body: Body) -> None:
        """There is no block to mark."""
        assert places(body | {"cache_control": MARK}) == []


MESSAGE: Body = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-opus-5",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Because."}],
    "usage": {
        "input_tokens": 21,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 79,
        "cache_creation": {"ephemeral_5m_input_tokens": 70, "ephemeral_1h_input_tokens": 9},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
        "server_tool_use": {"web_search_requests": 2},
        "service_tier": "standard",
        "speed": "fast",
        "inference_geo": "us",
    },
}


class TestUsage:
    """``input_tokens`` counts only what follows the last breakpoint: the total is the sum of three fields."""

    def test_everything(self) -> None:
        """All classes at once."""
        assert anthropic.usage(MESSAGE["usage"]) == Usage(
            input_total=400,
            read=300,
            write=79,
            output=50,
            reasoning=20,
            write_by_ttl=((300, 70), (3600, 9)),
            tier="standard",
            speed="fast",
            geo="us",
            web_searches=2,
            server_tools=2,
        )

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ({"input_tokens": 5}, (5, None, None, None, ())),
            ({"input_tokens": 5, "cache_read_input_tokens": None, "cache_creation": None}, (5, None, None, None, ())),
            ({"input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 0}, (5, 0, None, 0, ())),
            ({"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}, (0, 0, 0, None, ())),
            (
                {"input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 7}},
                (12, None, 7, None, ((3600, 7),)),
            ),
            (
                {
                    "input_tokens": 5,
                    "cache_creation_input_tokens": 9,
                    "cache_creation": {"ephemeral_5m_input_tokens": 7},
                },
                (14, None, 9, None, ((300, 7),)),
            ),
            ({"input_tokens": 5.0, "cache_read_input_tokens": 2.0}, (7, 2, None, None, ())),
            ({"input_tokens": 5, "cache_read_input_tokens": "2", "output_tokens": 1.5}, (5, None, None, None, ())),
            ({"input_tokens": 5, "cache_read_input_tokens": -1, "output_tokens": True}, (5, None, None, None, ())),
            ({"input_tokens": 5, "output_tokens": float("inf")}, (5, None, None, None, ())),
            ({"input_tokens": 5, "output_tokens": float("nan")}, (5, None, None, None, ())),
        ],
        ids=str,
    )
    def test_absent_is_not_zero(self, raw: Body, expected: tuple[Any, ...]) -> None:
        """Nulls, missing levels, whole floats are read; what is no count is not reported."""
        found = anthropic.usage(raw)
        assert found is not None
        assert (found.input_total, found.read, found.write, found.output, found.write_by_ttl) == expected

    @pytest.mark.parametrize("raw", [None, {}, [], "x", 5, {"output_tokens": 5}, {"input_tokens": None}], ids=str)
    def test_no_usage(self, raw: object) -> None:
        """Without a count of input there is none."""
        assert anthropic.usage(raw) is None

    def test_batch(self) -> None:
        """The tier names the way it was processed, which has its price."""
        found = anthropic.usage({"input_tokens": 5, "service_tier": "batch"})
        assert found is not None
        assert (found.tier, found.processing) == ("batch", "batch")


class TestAnswer:
    """A whole response body."""

    def test_message(self) -> None:
        """Id, model, the reason to stop, usage."""
        found = anthropic.answer(MESSAGE)
        assert (found.response_id, found.model, found.finish_reasons) == ("msg_1", "claude-opus-5", ("end_turn",))
        assert found.usage == anthropic.usage(MESSAGE["usage"])
        assert (found.native, found.error_type) == ((), "")

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "overloaded_error"),
            ({"type": "error", "error": None}, "error"),
            ({"type": "error"}, "error"),
        ],
        ids=str,
    )
    def test_error(self, body: Body, error: str) -> None:
        """An error although the status may have said otherwise."""
        assert anthropic.answer(body) == Answer(None, error_type=error)

    @pytest.mark.parametrize(
        ("diagnostics", "native"),
        [
            (None, ()),
            ({"cache_miss_reason": None}, (("type", "pending"),)),
            (
                {"cache_miss_reason": {"type": "tools_changed", "cache_missed_input_tokens": 900}},
                (("type", "tools_changed"), ("missed_tokens", 900)),
            ),
            (
                {"cache_miss_reason": {"type": "previous_message_not_found"}},
                (("type", "previous_message_not_found"),),
            ),
            ({"cache_miss_reason": {"type": "a_new_one"}}, (("type", "a_new_one"),)),
        ],
        ids=["not asked for", "pending", "a reason", "a reason without tokens", "a reason nobody knows yet"],
    )
    def test_the_provider_s_own_verdict(self, diagnostics: Body | None, native: tuple[Any, ...]) -> None:
        """Verbatim, with its three states apart."""
        assert anthropic.answer(MESSAGE | {"diagnostics": diagnostics}).native == native


START: Body = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude-opus-5",
        "usage": {
            "input_tokens": 21,
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 79,
            "cache_creation": {"ephemeral_5m_input_tokens": 70, "ephemeral_1h_input_tokens": 9},
            "output_tokens": 3,
        },
        "diagnostics": {"cache_miss_reason": {"type": "model_changed", "cache_missed_input_tokens": 5}},
    },
}
DELTA: Body = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}}


def stream(*events: Body) -> list[Answer | None]:
    state: Body = {}
    return [anthropic.event(event, state) for event in events]


class TestStream:
    """The split of the written tokens comes first, the count of the output last."""

    def test_start_and_end_are_laid_over_each_other(self) -> None:
        """Output is counted once: the start's count is of an answer that has not begun."""
        start, end = stream(START, DELTA)
        assert start is not None
        assert end is not None
        assert start.usage == Usage(400, 300, 79, write_by_ttl=((300, 70), (3600, 9)))
        assert end.usage == Usage(400, 300, 79, output=50, write_by_ttl=((300, 70), (3600, 9)))
        assert (start.finish_reasons, end.finish_reasons) == ((), ("end_turn",))
        assert (end.response_id, end.model) == ("msg_1", "claude-opus-5")
        assert end.native == (("type", "model_changed"), ("missed_tokens", 5))

    def test_the_end_is_cumulative(self) -> None:
        """A server tool read and wrote more on the way; the split is still the start's."""
        usage = {"input_tokens": 30, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 100}
        *_, end = stream(START, DELTA | {"usage": usage | {"output_tokens": 50}})
        assert end is not None
        assert end.usage == Usage(830, 700, 100, output=50, write_by_ttl=((300, 70), (3600, 9)))

    def test_nulls_at_the_end_take_nothing_away(self) -> None:
        """Older gateways repeat the fields without values."""
        nulls = {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 50}
        *_, end = stream(START, DELTA | {"usage": nulls})
        assert end is not None
        assert end.usage == Usage(400, 300, 79, output=50, write_by_ttl=((300, 70), (3600, 9)))

    def test_an_end_without_a_start(self) -> None:
        """The stream was joined late: what is known is told."""
        (end,) = stream(DELTA | {"usage": {"input_tokens": 21, "output_tokens": 50}})
        assert end is not None
        assert end.usage == Usage(21, output=50)

    def test_an_error_on_the_way(self) -> None:
        """What was counted before stays counted."""
        start, error = stream(START, {"type": "error", "error": {"type": "overloaded_error"}})
        assert start is not None
        assert error == Answer(None, error_type="overloaded_error")

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "ping"},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": '"usage": 7'}},
            {"type": "message_stop"},
            {"type": "an_event_nobody_knows_yet", "usage": {"input_tokens": 5}},
            {},
        ],
        ids=str,
    )
    def test_other_events_say_nothing(self, event: Body) -> None:
        """Only three kinds are read."""
        assert stream(START, event)[1] is None

    def test_streams_do_not_meet(self) -> None:
        """Two at once, each with its own state; the events themselves are left as they were."""
        before = copy.deepcopy(START)
        stream(START, DELTA)
        assert stream(START)[0] == anthropic.event(START, {})
        assert before == START


@pytest.mark.parametrize(
    ("path", "handled"),
    [
        ("/v1/messages", True),
        ("/proxy/anthropic/v1/messages", True),
        ("/v1/messages/count_tokens", False),
        ("/v1/messages/batches", False),
        ("/v1/complete", False),
    ],
)
def test_the_calls_that_carry_a_prompt(path: str, handled: bool) -> None:
    """And cost money when they are answered."""
    assert anthropic.handles(path) is handled


def test_breakpoints_are_values() -> None:
    """Named fields over plain numbers."""
    body = {"system": [{"type": "text", "text": "S", "cache_control": HOUR}]}
    assert anthropic.prompt(body).breakpoints == (Breakpoint(length=1, ttl=3600, explicit=True),)


def test_a_picture_behind_many_messages() -> None:
    """What it changes stands in front of all of them, and none of them moves."""
    said = [{"role": "user", "content": f"Message {number}"} for number in range(12)]
    shown = {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "AA=="}}]}
    plain = anthropic.prompt({"system": "Be brief.", "messages": said}).segments
    found = anthropic.prompt({"system": "Be brief.", "messages": [*said, shown]}).segments
    assert [one.role for one in found[:2]] == ["system", "images"]
    assert [plain[0], *found[2:-1]] == list(plain)
