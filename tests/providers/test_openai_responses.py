"""Responses: what of a request is prompt, what the server holds, and what a response says of its tokens."""

from __future__ import annotations

from typing import Any

import pytest

from otel_promptcache.model import Answer, Kind, Section, Usage
from otel_promptcache.providers import openai_chat, openai_responses

Body = dict[str, Any]

ASK = {"role": "user", "content": "Why?"}
MARK = {"mode": "explicit"}


def paths(body: Body) -> list[str]:
    return [openai_responses.path(segment) for segment in openai_responses.prompt(body).segments]


def keys(*items: Body) -> list[int]:
    return [one.key for one in openai_responses.prompt({"input": list(items)}).segments]


def places(*items: Body, **fields: Any) -> list[tuple[int, int, bool]]:
    """Breakpoints of a GPT-5.6 request as (length, lifetime in seconds, explicit)."""
    body = {"model": "gpt-5.6", "input": list(items)} | fields
    return [tuple(place) for place in openai_responses.prompt(body).breakpoints]


FULL: Body = {
    "model": "gpt-4.1",
    "max_output_tokens": 64,
    "input": [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "One"}, {"type": "input_image", "image_url": "x"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}", "id": "fc_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "a", "output": "result"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
        {"role": "developer", "content": "Later."},
    ],
    "instructions": "Be brief.",
    "tools": [{"type": "function", "name": "search"}],
    "tool_choice": "required",
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {"verbosity": "low", "format": {"type": "json_object"}},
    "parallel_tool_calls": False,
    "context_management": [{"type": "compaction"}],
}


class TestOrder:
    """Parameters, tools, instructions, history that the server holds, input."""

    def test_parameters_tools_input(self) -> None:
        """The order is the renderer's, not the body's."""
        assert paths(FULL) == [
            *("parallel_tool_calls", "text.format", "text.verbosity", "reasoning.effort", "tool_choice"),
            *("context_management", "tools[0]", "instructions", "input[0].content"),
            *("input[1].content[0]", "input[1].content[1]", "input[2]", "input[3]", "input[4]"),
            *("input[5].content[0]", "input[6].content"),
        ]

    def test_sections_and_kinds(self) -> None:
        """Instructions and leading developer items are the system prompt."""
        found = [(one.section, one.kind) for one in openai_responses.prompt(FULL).segments][6:]
        assert found == [
            (Section.TOOLS, Kind.TOOL),
            (Section.SYSTEM, Kind.TEXT),
            (Section.SYSTEM, Kind.TEXT),
            (Section.MESSAGES, Kind.TEXT),
            (Section.MESSAGES, Kind.IMAGE),
            (Section.MESSAGES, Kind.REASONING),
            (Section.MESSAGES, Kind.TOOL_USE),
            (Section.MESSAGES, Kind.TOOL_RESULT),
            (Section.MESSAGES, Kind.TEXT),
            (Section.MESSAGES, Kind.TEXT),
        ]

    def test_the_rest_of_the_request(self) -> None:
        """What is no segment but is known of the request."""
        found = openai_responses.prompt(FULL | {"stream": True, "prompt_cache_key": "agent"})
        assert (found.dialect, found.model, found.stream, found.max_tokens) == ("openai_responses", "gpt-4.1", True, 64)
        assert (found.cache_key, found.text_only, found.previous_id, found.conversation_id) == ("agent", False, "", "")

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            ({"type": "input_text", "text": "x"}, Kind.TEXT),
            ({"type": "input_image", "image_url": "x"}, Kind.IMAGE),
            ({"type": "input_file", "file_id": "x"}, Kind.DOCUMENT),
            ({"type": "input_audio", "input_audio": {}}, Kind.AUDIO),
            ({"type": "hologram"}, Kind.OTHER),
        ],
    )
    def test_kinds_of_parts(self, content: Body, kind: Kind) -> None:
        """Unknown ones are opaque, and still part of the prompt."""
        (found,) = openai_responses.prompt({"input": [{"role": "user", "content": [content]}]}).segments
        assert found.kind is kind

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("custom_tool_call", Kind.TOOL_USE),
            ("custom_tool_call_output", Kind.TOOL_RESULT),
            ("item_reference", Kind.OTHER),
            ("hologram", Kind.OTHER),
        ],
    )
    def test_kinds_of_items(self, kind: str, expected: Kind) -> None:
        """Items without a role."""
        (found,) = openai_responses.prompt({"input": [{"type": kind}]}).segments
        assert found.kind is expected

    @pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}], ids=["a string", "an object"])
    def test_a_conversation(self, conversation: object) -> None:
        """Its history stands between instructions and input."""
        found = openai_responses.prompt({"instructions": "S", "input": "Why?", "conversation": conversation})
        assert [one.section for one in found.segments] == [Section.SYSTEM, Section.HELD, Section.MESSAGES]
        assert found.conversation_id == "conv_1"

    def test_a_previous_response(self) -> None:
        """Likewise."""
        body = {"instructions": "S", "input": "Why?", "previous_response_id": "resp_1"}
        assert paths(body)[:2] == ["instructions", "previous_response_id"]
        assert openai_responses.prompt(body).previous_id == "resp_1"

    @pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
    @pytest.mark.parametrize("value", [None, "", {}, [], 5, {"id": None}], ids=str)
    def test_nothing_held(self, field: str, value: object) -> None:
        """No id, no history."""
        assert paths({"input": [ASK], field: value}) == ["input[0].content"]


class TestSameness:
    """Equal keys mean equal prompts for the provider, and different keys different ones."""

    @pytest.mark.parametrize(
        "other",
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Why?", "prompt_cache_breakpoint": MARK}]},
            {"type": "message", "role": "user", "content": "Why?"},
            {"role": "user", "content": "Why?", "id": "msg_1", "status": "completed"},
        ],
        ids=str,
    )
    def test_forms_of_one_message(self, other: Body) -> None:
        """String or part, marked or not, with or without what the server added."""
        assert keys(ASK) == keys(other)

    def test_input_as_a_string(self) -> None:
        """Is a message of the user."""
        assert [one.key for one in openai_responses.prompt({"input": "Why?"}).segments] == keys(ASK)

    def test_output_that_is_sent_back(self) -> None:
        """Annotations and probabilities are not read by the model."""
        text = {"type": "output_text", "text": "x"}
        extra = text | {"annotations": [{"a": 1}], "logprobs": []}
        assert keys({"role": "assistant", "content": [text]}) == keys({"role": "assistant", "content": [extra]})

    def test_ids_of_items_that_are_sent_back(self) -> None:
        """They are made anew by the server, and no part of the prompt."""
        call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
        assert keys(call) == keys(call | {"id": "fc_1", "status": "completed"})
        assert keys(call) != keys(call | {"call_id": "b"})

    def test_markers_in_the_output_of_a_tool(self) -> None:
        """They move from turn to turn there too."""
        plain = {"type": "input_text", "text": "x"}
        item = {"type": "function_call_output", "call_id": "a"}
        assert keys(item | {"output": [plain]}) == keys(item | {"output": [plain | {"prompt_cache_breakpoint": MARK}]})
        assert keys(item | {"output": [plain]}) != keys(item | {"output": [plain, plain]})

    @pytest.mark.parametrize(
        "default",
        [
            *({"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"text": {"format": {"type": "text"}}}),
            *({"text": {"verbosity": "medium"}}, {"text": None}, {"reasoning": None}, {"reasoning": {}}),
            *({"tools": []}, {"tools": None}, {"instructions": None}, {"context_management": None}),
        ],
        ids=str,
    )
    def test_an_explicit_default_is_the_same_as_nothing(self, default: Body) -> None:
        """Frameworks send them in one version and not in the next."""
        body = {"model": "gpt-4.1", "input": [ASK]}
        assert openai_responses.prompt(body | default) == openai_responses.prompt(body)

    @pytest.mark.parametrize("field", ["temperature", "top_p", "user", "metadata", "store", "include", "truncation"])
    def test_what_is_no_part_of_the_prompt(self, field: str) -> None:
        """Sampling and delivery."""
        body = {"input": [ASK]}
        assert openai_responses.prompt(body | {field: "x"}).segments == openai_responses.prompt(body).segments

    def test_instructions_are_what_a_system_message_is_in_chat(self) -> None:
        """Engines that speak both render them alike, and one reads what the other stored."""
        (one,) = openai_responses.prompt({"instructions": "Be brief."}).segments
        (other,) = openai_chat.prompt({"messages": [{"role": "system", "content": "Be brief."}]}).segments
        assert one.key == other.key

    def test_instructions_are_no_developer_message(self) -> None:
        """They are rendered at another place."""
        (one,) = openai_responses.prompt({"instructions": "Be brief."}).segments
        (other,) = openai_responses.prompt({"input": [{"role": "developer", "content": "Be brief."}]}).segments
        assert one.key != other.key


DEVELOPER = {"role": "developer", "content": "Be brief."}
SAID = {"role": "assistant", "content": "Because."}
CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "x"}


def marked(text: str, **fields: Any) -> Body:
    return {"role": "user", "content": [{"type": "input_text", "text": text, "prompt_cache_breakpoint": MARK | fields}]}


class TestBreakpoints:
    """From GPT-5.6 on entries end at breakpoints, one of which is implied."""

    @pytest.mark.parametrize(
        ("items", "length"),
        [
            ([DEVELOPER, ASK], 2),
            ([DEVELOPER, ASK, SAID], 2),
            ([DEVELOPER, ASK, SAID, ASK], 4),
            ([ASK, CALL, RESULT], 3),
            ([ASK, CALL, RESULT, RESULT], 4),
            ([DEVELOPER, DEVELOPER], 2),
            ([DEVELOPER, SAID], 1),
        ],
    )
    def test_implied(self, items: list[Body], length: int) -> None:
        """After the newest message of the user or result of a tool, else after the leading instructions."""
        assert places(*items) == [(length, 1800, False)]

    def test_explicit(self) -> None:
        """Beside the implied one, with lifetimes of their own, else the request's."""
        assert places(marked("One", ttl="30m"), SAID, marked("Two"), ASK, prompt_cache_options={"ttl": "12h"}) == [
            (1, 1800, True),
            (3, 43_200, True),
            (4, 43_200, False),
        ]

    def test_explicit_on_the_implied_place(self) -> None:
        """Is the one that counts."""
        assert places(ASK, SAID, marked("Two", ttl="12h")) == [(3, 43_200, True)]

    def test_explicit_mode(self) -> None:
        """Nothing is implied."""
        assert places(marked("One"), SAID, ASK, prompt_cache_options={"mode": "explicit"}) == [(1, 1800, True)]
        assert places(ASK, prompt_cache_options={"mode": "explicit"}) == []

    def test_on_a_part_of_a_result(self) -> None:
        """It ends with the item it stands in."""
        output = [{"type": "input_text", "text": "x", "prompt_cache_breakpoint": MARK | {"ttl": "12h"}}]
        assert places(ASK, CALL, RESULT | {"output": output}) == [(3, 43_200, True)]

    def test_earlier_models(self) -> None:
        """They read any prefix."""
        assert places(ASK, model="gpt-5.5") == []


class TestUsage:
    """Cached and written tokens lie inside ``input_tokens``."""

    def test_everything(self) -> None:
        """All classes at once."""
        raw = {
            "input_tokens": 400,
            "output_tokens": 50,
            "input_tokens_details": {
                "cached_tokens": 300,
                "cache_write_tokens": 79,
                "cache_write_tokens_details": {"ttl_30m_tokens": 70, "ttl_12h_tokens": 9},
            },
            "output_tokens_details": {"reasoning_tokens": 20},
        }
        assert openai_responses.usage(raw) == Usage(400, 300, 79, 50, 20, ((1800, 70), (43_200, 9)))

    @pytest.mark.parametrize(
        ("details", "read", "write"),
        [
            (None, None, None),
            ({}, None, None),
            ({"cached_tokens": 0}, 0, None),
            ({"cached_tokens": None, "cache_write_tokens": None}, None, None),
            ({"cached_tokens": 64.0, "cache_write_tokens": "9"}, 64, None),
        ],
        ids=str,
    )
    def test_absent_is_not_zero(self, details: object, read: int | None, write: int | None) -> None:
        """Nulls and strings are not reported."""
        found = openai_responses.usage({"input_tokens": 100, "input_tokens_details": details})
        assert found is not None
        assert (found.input_total, found.read, found.write) == (100, read, write)

    @pytest.mark.parametrize("raw", [None, {}, [], "x", {"input_tokens": None}, {"prompt_tokens": 5}], ids=str)
    def test_no_usage(self, raw: object) -> None:
        """Without a count of input there is none."""
        assert openai_responses.usage(raw) is None


RESPONSE: Body = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5.6",
    "status": "completed",
    "service_tier": "flex",
    "error": None,
    "usage": {"input_tokens": 5, "output_tokens": 2},
}


class TestAnswer:
    """A whole Response object."""

    def test_response(self) -> None:
        """Id, model, status, usage with the tier of the response."""
        assert openai_responses.answer(RESPONSE) == Answer(
            Usage(5, output=2, tier="flex"), "resp_1", "gpt-5.6", finish_reasons=("completed",)
        )

    @pytest.mark.parametrize(
        ("fields", "reasons"),
        [
            ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, ("max_output_tokens",)),
            ({"status": "incomplete", "incomplete_details": None}, ("incomplete",)),
            ({"status": "in_progress"}, ()),
            ({"status": "queued"}, ()),
            ({"status": None}, ()),
        ],
        ids=str,
    )
    def test_why_it_stopped(self, fields: Body, reasons: tuple[str, ...]) -> None:
        """Only where it has."""
        assert openai_responses.answer(RESPONSE | fields).finish_reasons == reasons

    @pytest.mark.parametrize(
        ("error", "name"),
        [({"code": "server_error"}, "server_error"), ({"type": "t", "code": "c"}, "t"), ({}, "error"), (None, "")],
        ids=str,
    )
    def test_error(self, error: object, name: str) -> None:
        """A failed response may still have usage."""
        found = openai_responses.answer(RESPONSE | {"error": error, "status": "failed"})
        assert (found.error_type, found.usage) == (name, Usage(5, output=2, tier="flex"))

    @pytest.mark.parametrize(
        ("diagnostics", "native"),
        [
            (None, ()),
            ({"type": "cache_hit"}, (("type", "cache_hit"),)),
            (
                {
                    "type": "cache_miss",
                    "reason": "tools_changed",
                    "cache_missed_tokens": 900,
                    "comparison_reusable_tokens": 100,
                },
                (
                    *(("type", "cache_miss"), ("reason", "tools_changed")),
                    *(("missed_tokens", 900), ("reusable_tokens", 100)),
                ),
            ),
            (
                {
                    "type": "cache_miss",
                    "reason": "a_new_one",
                    "cache_missed_tokens": 0,
                    "comparison_reusable_tokens": None,
                },
                (("type", "cache_miss"), ("reason", "a_new_one"), ("missed_tokens", 0)),
            ),
            ({"type": "comparison_response_not_found"}, (("type", "comparison_response_not_found"),)),
            ({"type": "unavailable"}, (("type", "unavailable"),)),
            ("unavailable", ()),
        ],
        ids=["not asked for", "hit", "miss", "a reason nobody knows yet", "not found", "unavailable", "nonsense"],
    )
    def test_the_provider_s_own_verdict(self, diagnostics: object, native: tuple[Any, ...]) -> None:
        """Verbatim; the enumeration is open."""
        assert openai_responses.answer(RESPONSE | {"prompt_cache_diagnostics": diagnostics}).native == native


class TestStream:
    """The Response object comes at the beginning without usage, and at the end with it."""

    def test_beginning_and_end(self) -> None:
        """Nothing is counted twice."""
        begun = RESPONSE | {"status": "in_progress", "usage": None}
        state: Body = {}
        assert openai_responses.event({"type": "response.created", "response": begun}, state) == Answer(
            None, "resp_1", "gpt-5.6", pending=True
        )
        assert openai_responses.event(
            {"type": "response.completed", "response": RESPONSE}, state
        ) == openai_responses.answer(RESPONSE)

    @pytest.mark.parametrize(
        ("event", "name"),
        [
            ({"type": "error", "code": "server_error", "message": "x"}, "server_error"),
            ({"type": "error", "code": None}, "error"),
            ({"type": "response.failed", "response": {"id": "r", "error": {"code": "server_error"}}}, "server_error"),
        ],
        ids=str,
    )
    def test_error(self, event: Body, name: str) -> None:
        """As an event of its own, or in the Response."""
        found = openai_responses.event(event, {})
        assert found is not None
        assert found.error_type == name

    @pytest.mark.parametrize(
        "event", [{"type": "response.output_text.delta", "delta": '"usage": 5'}, {"response": None}, {}], ids=str
    )
    def test_other_events_say_nothing(self, event: Body) -> None:
        """Deltas, and what nobody knows yet."""
        assert openai_responses.event(event, {}) is None


@pytest.mark.parametrize(
    ("path", "handled"),
    [
        ("/v1/responses", True),
        ("/openai/v1/responses", True),
        ("/v1/responses/resp_1", False),
        ("/v1/responses/compact", True),
        ("/v1/responses/input_tokens", False),
    ],
)
def test_the_calls_that_carry_a_prompt(path: str, handled: bool) -> None:
    """And cost money when they are answered."""
    assert openai_responses.handles(path) is handled


def test_the_same_message_has_the_same_key_in_both_apis() -> None:
    """An application that moves from one to the other resends its history."""
    chat = openai_chat.prompt({"messages": [ASK, SAID]}).segments
    responses = openai_responses.prompt({"input": [ASK, SAID]}).segments
    assert [one.key for one in chat] == [one.key for one in responses]
