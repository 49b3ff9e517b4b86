"""Chat Completions, OpenAI's and everybody's: what of a request is prompt, and what a response says of its tokens."""

from __future__ import annotations

from typing import Any

import pytest

from otel_promptcache.model import Answer, Kind, Section, Segment, Usage
from otel_promptcache.providers import openai_chat

Body = dict[str, Any]

ASK = {"role": "user", "content": "Why?"}
MARK = {"mode": "explicit"}


def paths(body: Body) -> list[str]:
    return [openai_chat.path(segment) for segment in openai_chat.prompt(body).segments]


def keys(*messages: Body) -> list[int]:
    return [one.key for one in openai_chat.prompt({"messages": list(messages)}).segments]


def part(content: Body, role: str = "user") -> Segment:
    (found,) = openai_chat.prompt({"messages": [{"role": role, "content": [content]}]}).segments
    return found


def places(*messages: Body, **fields: Any) -> list[tuple[int, int, bool]]:
    """Breakpoints of a GPT-5.6 request as (length, lifetime in seconds, explicit)."""
    body = {"model": "gpt-5.6", "messages": list(messages)} | fields
    return [tuple(place) for place in openai_chat.prompt(body).breakpoints]


FULL: Body = {
    "model": "gpt-4.1",
    "max_completion_tokens": 64,
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "One"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function"}, {"id": "b", "type": "function"}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "result"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "result"}]},
        {"role": "system", "content": "Later."},
    ],
    "tools": [{"type": "function", "function": {"name": "search"}}],
    "tool_choice": "required",
    "verbosity": "low",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "parallel_tool_calls": False,
}


class TestOrder:
    """Parameters, tools, instructions, messages."""

    def test_parameters_tools_messages(self) -> None:
        """The order is the renderer's, not the body's."""
        assert paths(FULL) == [
            *("parallel_tool_calls", "response_format", "reasoning_effort", "verbosity", "tool_choice", "tools[0]"),
            *("messages[0].content", "messages[1].content", "messages[2].content[0]", "messages[2].content[1]"),
            *("messages[3].tool_calls[0]", "messages[3].tool_calls[1]"),
            *("messages[4].content", "messages[5].content[0]", "messages[6].content"),
        ]

    def test_sections_and_kinds(self) -> None:
        """Leading instructions are the system prompt; later ones belong to the conversation."""
        found = [(one.section, one.kind) for one in openai_chat.prompt(FULL).segments][5:]
        assert found == [
            (Section.TOOLS, Kind.TOOL),
            (Section.SYSTEM, Kind.TEXT),
            (Section.SYSTEM, Kind.TEXT),
            (Section.MESSAGES, Kind.TEXT),
            (Section.MESSAGES, Kind.IMAGE),
            (Section.MESSAGES, Kind.TOOL_USE),
            (Section.MESSAGES, Kind.TOOL_USE),
            (Section.MESSAGES, Kind.TOOL_RESULT),
            (Section.MESSAGES, Kind.TOOL_RESULT),
            (Section.MESSAGES, Kind.TEXT),
        ]

    def test_the_rest_of_the_request(self) -> None:
        """What is no segment but is known of the request."""
        found = openai_chat.prompt(FULL | {"stream": True, "prompt_cache_key": "agent"})
        assert (found.dialect, found.model, found.stream, found.max_tokens) == ("openai_chat", "gpt-4.1", True, 64)
        assert (found.cache_key, found.text_only, found.truncated) == ("agent", False, False)

    def test_the_older_limit(self) -> None:
        """``max_tokens`` where the newer field is not sent."""
        assert openai_chat.prompt({"max_tokens": 9}).max_tokens == 9

    def test_nothing_but_instructions(self) -> None:
        """All of it is system prompt."""
        found = openai_chat.prompt({"messages": [{"role": "system", "content": "x"}] * 2}).segments
        assert [one.section for one in found] == [Section.SYSTEM, Section.SYSTEM]

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            ({"type": "text", "text": "x"}, Kind.TEXT),
            ({"type": "refusal", "refusal": "x"}, Kind.TEXT),
            ({"type": "image_url", "image_url": {"url": "x"}}, Kind.IMAGE),
            ({"type": "input_audio", "input_audio": {}}, Kind.AUDIO),
            ({"type": "file", "file": {}}, Kind.DOCUMENT),
            ({"type": "hologram"}, Kind.OTHER),
        ],
    )
    def test_kinds_of_parts(self, content: Body, kind: Kind) -> None:
        """Unknown ones are opaque, and still part of the prompt."""
        assert part(content).kind is kind

    def test_reasoning_that_is_sent_back(self) -> None:
        """DeepSeek's and others' field."""
        message = {"role": "assistant", "content": "x", "reasoning_content": "Hm"}
        found = openai_chat.prompt({"messages": [ASK, message]}).segments
        assert [one.kind for one in found] == [Kind.TEXT, Kind.TEXT, Kind.REASONING]
        assert openai_chat.path(found[2]) == "messages[1].reasoning_content"


class TestSameness:
    """Equal keys mean equal prompts for the provider, and different keys different ones."""

    def test_a_string_is_one_text_part(self) -> None:
        """With or without a breakpoint on it."""
        parts = [{"type": "text", "text": "Why?", "prompt_cache_breakpoint": MARK}]
        assert keys(ASK) == keys({"role": "user", "content": parts})

    @pytest.mark.parametrize(
        "other",
        [
            {"role": "assistant", "content": "Why?"},
            {"role": "user", "content": "Why? "},
            {"role": "user", "content": "Why?", "name": "Ada"},
            {"role": "tool", "content": "Why?", "tool_call_id": "a"},
            {"role": "user", "content": [{"type": "text", "text": "Why?", "extra": 1}]},
            {"role": "user", "content": [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}]},
        ],
        ids=str,
    )
    def test_what_makes_a_difference(self, other: Body) -> None:
        """Role, text, the speaker's name, the call that a result answers, fields, parts."""
        assert keys(ASK) != keys(other)

    def test_results_of_different_calls(self) -> None:
        """The same words in answer to another call."""
        one, other = ({"role": "tool", "content": "x", "tool_call_id": call} for call in "ab")
        assert keys(one) != keys(other)

    def test_a_call_s_arguments_are_text(self) -> None:
        """The order of keys in them counts."""
        one, other = (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": arguments}}]}
            for arguments in ('{"a":1,"b":2}', '{"b":2,"a":1}')
        )
        assert keys(one) != keys(other)

    @pytest.mark.parametrize(
        "default",
        [
            *({"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"response_format": {"type": "text"}}),
            *({"verbosity": "medium"}, {"reasoning_effort": None}, {"tools": []}, {"tools": None}),
        ],
        ids=str,
    )
    def test_an_explicit_default_is_the_same_as_nothing(self, default: Body) -> None:
        """Frameworks send them in one version and not in the next."""
        body = {"model": "gpt-4.1", "messages": [ASK]}
        assert openai_chat.prompt(body | default) == openai_chat.prompt(body)

    @pytest.mark.parametrize("field", ["temperature", "top_p", "stop", "seed", "user", "metadata", "n", "store"])
    def test_what_is_no_part_of_the_prompt(self, field: str) -> None:
        """Sampling and delivery."""
        assert (
            openai_chat.prompt({"messages": [ASK], field: "x"}).segments
            == openai_chat.prompt({"messages": [ASK]}).segments
        )


SYSTEM = {"role": "system", "content": "Be brief."}
SAID = {"role": "assistant", "content": "Because."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "x"}


def marked(text: str, **fields: Any) -> Body:
    return {"role": "user", "content": [{"type": "text", "text": text, "prompt_cache_breakpoint": MARK | fields}]}


class TestBreakpoints:
    """From GPT-5.6 on entries end at breakpoints, one of which is implied."""

    @pytest.mark.parametrize(
        ("messages", "length"),
        [
            ([SYSTEM, ASK], 2),
            ([SYSTEM, ASK, SAID], 2),
            ([SYSTEM, ASK, SAID, ASK], 4),
            ([SYSTEM, ASK, CALL, RESULT], 4),
            ([SYSTEM, ASK, CALL, RESULT, RESULT], 5),
            ([SYSTEM, SYSTEM], 2),
            ([SYSTEM, SAID], 1),
        ],
    )
    def test_implied(self, messages: list[Body], length: int) -> None:
        """After the newest message of the user or result of a tool, else after the leading instructions."""
        assert places(*messages) == [(length, 1800, False)]

    @pytest.mark.parametrize("model", ["gpt-5.5", "gpt-4.1", "o4-mini", "deepseek-chat", ""])
    def test_none_before_gpt_5_6(self, model: str) -> None:
        """Earlier models read any prefix."""
        assert places(ASK, model=model) == []

    @pytest.mark.parametrize("model", ["gpt-5.6", "gpt-5.6-sol", "gpt-6.1-terra", "gpt-7"])
    def test_from_gpt_5_6_on(self, model: str) -> None:
        """And what comes after."""
        assert places(ASK, model=model) == [(1, 1800, False)]

    def test_nothing_to_mark(self) -> None:
        """An answer alone is no place for it."""
        assert places(SAID) == []

    def test_explicit(self) -> None:
        """Beside the implied one, with lifetimes of their own."""
        assert places(marked("One", ttl="12h"), SAID, marked("Two", ttl="30m"), SAID, ASK) == [
            (1, 43_200, True),
            (3, 1800, True),
            (5, 1800, False),
        ]

    def test_explicit_on_the_implied_place(self) -> None:
        """Is the one that counts."""
        assert places(ASK, SAID, marked("Two", ttl="12h")) == [(3, 43_200, True)]

    def test_explicit_mode(self) -> None:
        """Nothing is implied."""
        assert places(marked("One"), SAID, ASK, prompt_cache_options={"mode": "explicit"}) == [(1, 1800, True)]
        assert openai_chat.prompt({"prompt_cache_options": {"mode": "explicit"}}).automatic is False
        assert openai_chat.prompt({}).automatic is True

    def test_lifetime_of_the_request(self) -> None:
        """A breakpoint that names no lifetime has the request's."""
        options = {"ttl": "12h"}
        assert places(marked("One"), SAID, ASK, prompt_cache_options=options) == [(1, 43_200, True), (3, 43_200, False)]
        assert places(marked("One", ttl="30m"), prompt_cache_options=options) == [(1, 1800, True)]

    @pytest.mark.parametrize(
        ("fields", "seconds"),
        [
            ({}, None),
            ({"prompt_cache_retention": "24h"}, 86_400),
            ({"prompt_cache_retention": "in_memory"}, 600),
            ({"prompt_cache_retention": "forever"}, None),
            ({"prompt_cache_options": {"ttl": "30m"}, "prompt_cache_retention": "24h"}, 1800),
        ],
        ids=str,
    )
    def test_retention(self, fields: Body, seconds: int | None) -> None:
        """The newer option before the deprecated field."""
        assert openai_chat.prompt(fields).retention == seconds


class TestUsage:
    """Cached and written tokens lie inside ``prompt_tokens``."""

    def test_everything(self) -> None:
        """All classes at once."""
        raw = {
            "prompt_tokens": 400,
            "completion_tokens": 50,
            "prompt_tokens_details": {
                "cached_tokens": 300,
                "cache_write_tokens": 79,
                "cache_write_tokens_details": {"ttl_30m_tokens": 70, "ttl_12h_tokens": 9},
            },
            "completion_tokens_details": {"reasoning_tokens": 20},
        }
        assert openai_chat.usage(raw) == Usage(400, 300, 79, 50, 20, ((1800, 70), (43_200, 9)))

    @pytest.mark.parametrize(
        ("raw", "read", "write"),
        [
            ({}, None, None),
            ({"prompt_tokens_details": None}, None, None),
            ({"prompt_tokens_details": {"cached_tokens": None}}, None, None),
            ({"prompt_tokens_details": {"cached_tokens": 0}}, 0, None),
            ({"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}, 0, 0),
            ({"prompt_tokens_details": {"cached_tokens": 64.0}}, 64, None),
            ({"prompt_tokens_details": {"cached_tokens": "64"}}, None, None),
            ({"prompt_tokens_details": {"cached_tokens": False}}, None, None),
            ({"prompt_tokens_details": [64]}, None, None),
            ({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, 64, None),
            ({"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 100}, 0, None),
            ({"prompt_cache_hit_tokens": 64, "prompt_tokens_details": {"cached_tokens": 32}}, 32, None),
            ({"num_cached_tokens": 64}, 64, None),
            ({"num_cached_tokens": 0}, 0, None),
            ({"cached_tokens": 64}, 64, None),
            ({"cache_read_input_tokens": 64, "cache_creation_input_tokens": 30}, 64, 30),
            ({"prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 96}}, 0, 96),
            ({"prompt_tokens_details": {"cached_tokens": None, "created_cache_tokens": None}}, None, None),
        ],
        ids=str,
    )
    def test_absent_is_not_zero(self, raw: Body, read: int | None, write: int | None) -> None:
        """DeepSeek, Mistral and Moonshot report hits at the top level, gateways in Anthropic's fields, vLLM what it
        stored."""
        found = openai_chat.usage(raw | {"prompt_tokens": 100})
        assert found is not None
        assert (found.input_total, found.read, found.write, found.output) == (100, read, write, None)

    def test_hits_and_misses_are_a_total(self) -> None:
        """DeepSeek's two counts are the whole prompt."""
        found = openai_chat.usage({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36})
        assert found == Usage(100, 64)

    def test_writes_by_lifetime_of_a_gateway(self) -> None:
        """Anthropic's split, as an extra field."""
        raw = {"cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_5m_input_tokens": 30}}
        found = openai_chat.usage({"prompt_tokens": 100, **raw})
        assert found is not None
        assert (found.write, found.write_by_ttl) == (30, ((300, 30),))

    @pytest.mark.parametrize(("total", "output"), [(652, 216), (504, 68), (None, 68)])
    def test_reasoning_beside_the_completion(self, total: int | None, output: int) -> None:
        """xAI's total shows that reasoning is not within the completion."""
        details = {"completion_tokens_details": {"reasoning_tokens": 148}}
        raw = {"prompt_tokens": 436, "completion_tokens": 68, "total_tokens": total, **details}
        found = openai_chat.usage(raw)
        assert found is not None
        assert (found.output, found.reasoning) == (output, 148)

    @pytest.mark.parametrize("raw", [None, {}, [], "x", {"prompt_tokens": None}, {"completion_tokens": 5}], ids=str)
    def test_no_usage(self, raw: object) -> None:
        """Without a count of input there is none."""
        assert openai_chat.usage(raw) is None


class TestAnswer:
    """A whole body, or a chunk of a stream: they are read alike."""

    def test_completion(self) -> None:
        """Id, model, reasons to stop, usage with the tier of the response."""
        body = {
            "id": "chatcmpl-1",
            "model": "gpt-4.1-2026",
            "service_tier": "flex",
            "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}, {}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        }
        assert openai_chat.answer(body) == Answer(
            Usage(5, output=2, tier="flex"), "chatcmpl-1", "gpt-4.1-2026", finish_reasons=("stop", "length")
        )

    @pytest.mark.parametrize(
        ("error", "name"),
        [
            ({"type": "server_error", "code": "x"}, "server_error"),
            ({"type": None, "code": "rate_limit"}, "rate_limit"),
            ({"code": 502}, "error"),
            ({}, "error"),
        ],
        ids=str,
    )
    def test_error(self, error: Body, name: str) -> None:
        """In a body, or in the middle of a stream."""
        assert openai_chat.answer({"error": error}) == Answer(None, error_type=name)
        assert openai_chat.event({"error": error}, {}) == Answer(None, error_type=name)

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({"x_groq": {"usage": {"prompt_tokens": 5}}, "usage": None}, Usage(5)),
            ({"choices": [{"usage": {"prompt_tokens": 5, "cached_tokens": 4}}]}, Usage(5, 4)),
            ({"timings": {"cache_n": 4, "prompt_n": 1, "predicted_n": 2}}, Usage(5, 4, output=2)),
            ({"timings": {"cache_n": 4, "prompt_n": 1}, "usage": {"prompt_tokens": 5}}, Usage(5, 4)),
            ({"timings": {"cache_n": "4", "prompt_n": 1}}, None),
            ({"timings": 5, "x_groq": 5, "choices": [5, {"usage": 5}]}, None),
        ],
        ids=str,
    )
    def test_usage_elsewhere(self, document: Body, expected: Usage | None) -> None:
        """Streams of Groq and Moonshot, and llama.cpp's times, where nobody asked for usage."""
        assert openai_chat.event(document, {}).usage == expected

    @pytest.mark.parametrize(
        ("document", "discount"),
        [
            ({"cache_discount": 0.0125}, 0.0125),
            ({"usage": {"prompt_tokens": 5, "cache_discount": -0.5}}, -0.5),
            ({"cache_discount": None}, None),
            ({"cache_discount": "0.1"}, None),
            ({"cache_discount": float("nan")}, None),
            ({}, None),
        ],
        ids=str,
    )
    def test_what_the_cache_saved(self, document: Body, discount: float | None) -> None:
        """As OpenRouter says; writes may cost more than they save."""
        assert openai_chat.answer(document).discount == discount

    def test_no_error(self) -> None:
        """Null is the absence of one."""
        assert openai_chat.answer({"error": None, "id": "x"}) == Answer(None, "x")

    def test_chunks(self) -> None:
        """Only the last one has usage, and only where it was asked for."""
        first = openai_chat.event({"id": "c", "model": "m", "choices": [{"delta": {}}], "usage": None}, {})
        last = openai_chat.event({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 5}}, {})
        assert first == Answer(None, "c", "m")
        assert last == Answer(Usage(5), "c", "m")


@pytest.mark.parametrize(
    ("path", "handled"),
    [
        ("/v1/chat/completions", True),
        ("/openai/deployments/x/chat/completions", True),
        ("/v1/completions", False),
        ("/v1/chat/completions/chatcmpl-1", False),
    ],
)
def test_the_calls_that_carry_a_prompt(path: str, handled: bool) -> None:
    """And cost money when they are answered."""
    assert openai_chat.handles(path) is handled
