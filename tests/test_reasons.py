"""Reasons beyond a changed text: what became of a history, of breakpoints, and what is left when nothing changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_diagnosis import (
    BODIES,
    EPHEMERAL,
    SYSTEM,
    Body,
    Client,
    Verdict,
    anthropic_body,
    chat_body,
    counted,
    prose,
    tool,
    turns,
    wire_usage,
)

from otel_promptcache import fingerprint
from otel_promptcache.diagnosis import actor, explanation
from otel_promptcache.model import Diagnosis, Kind, Section, Segment
from otel_promptcache.semconv import Cause, Confidence, Reason, Status

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=6)

LONG = [f"{who} {number}: {prose(f'turn {number}', 8)}" for number in range(12) for who in ("Question", "Answer")]


def talk(*texts: str) -> Body:
    return anthropic_body(1) | {"messages": turns(*texts)}


def marked(body: Body, *places: tuple[str, int], ttl: str = "") -> Body:
    """With explicit breakpoints only, behind these elements; a message becomes a block to carry one."""
    body = copy.deepcopy(body)
    body.pop("cache_control", None)
    control = EPHEMERAL | ({"ttl": ttl} if ttl else {})
    for section, index in places:
        element = body[section][index]
        if section == "messages":
            if type(element["content"]) is str:
                element["content"] = [{"type": "text", "text": element["content"]}]
            element = element["content"][-1]
        element["cache_control"] = control
    return body


class TestHistory:
    """Dropped, summed up, or rewritten again and again."""

    def test_the_oldest_messages_were_dropped(self) -> None:
        client = Client()
        client.send(talk(*LONG[:9]))
        said = client.send(talk(*LONG[4:11]))
        assert said[:2] == (Status.MISS, Reason.HISTORY_TRUNCATED)
        assert said.path == "messages[0].content"

    def test_dropped_behind_the_first_question(self) -> None:
        """Windows often keep the task itself."""
        client = Client()
        client.send(talk(*LONG[:9]))
        assert client.send(talk(LONG[0], *LONG[5:11])).reason is Reason.HISTORY_TRUNCATED

    def test_a_note_in_their_place(self) -> None:
        """That says no more than that they are gone."""
        client = Client()
        client.send(talk(*LONG[:9]))
        assert client.send(talk("[older messages removed]", *LONG[5:11])).reason is Reason.HISTORY_TRUNCATED

    def test_a_summary_in_their_place(self) -> None:
        client = Client()
        client.send(talk(*LONG[:13]))
        summary = "Zusammenfassung: " + prose("what was said", 6)
        said = client.send(talk(summary, "Verstanden.", *LONG[12:15]))
        assert said[:2] == (Status.MISS, Reason.HISTORY_COMPACTED)

    def test_a_summary_of_everything_in_a_known_conversation(self) -> None:
        """Nothing of it is left but its id."""
        client = Client()
        client.send(talk(*LONG[:13]), conversation="c")
        said = client.send(talk("概要: " + prose("what was said", 6), "了解。", "And now?"), conversation="c")
        assert said.reason is Reason.HISTORY_COMPACTED

    def test_a_summary_without_a_known_conversation(self) -> None:
        """Is the beginning of one, as far as anybody can see."""
        client = Client()
        client.send(talk(*LONG[:13]))
        assert client.send(talk("概要: " + prose("what was said", 6), "了解。", "And now?")).reason is None

    def test_one_message_of_many_is_no_cut(self) -> None:
        client = Client()
        client.send(talk(*LONG[:9]))
        body = talk(*LONG[:11])
        del body["messages"][3]
        said = client.send(body)
        assert (said.reason, said.cause) == (Reason.MESSAGES_CHANGED, Cause.REMOVED)

    def test_an_edit_with_every_turn(self) -> None:
        """The first is an edit; from the second in a row on it is a habit."""
        client = Client()
        texts = list(LONG)
        client.send(talk(*texts[:9]))
        texts[1] = "(the answer was taken out)"
        first = client.send(talk(*texts[:11]))
        texts[3] = "(the answer was taken out)"
        second = client.send(talk(*texts[:13]))
        third = client.send(talk(*texts[:15]))
        assert [first.cause, second.cause] == [Cause.EDITED, Cause.RECURRENT_EDIT]
        assert third == Verdict(Status.HIT)

    @pytest.mark.parametrize("kind", ["thinking", "redacted_thinking"])
    def test_reasoning_that_was_left_out(self, kind: str) -> None:
        client = Client()
        thought = {"type": kind, "thinking": prose("a thought", 4), "signature": "c2ln"}
        body = talk(*LONG[:3])
        body["messages"][1]["content"] = [thought, {"type": "text", "text": LONG[1]}]
        client.send(body)
        said = client.send(talk(*LONG[:5]))
        assert (said.reason, said.cause) == (Reason.MESSAGES_CHANGED, Cause.REASONING_DROPPED)


class TestBreakpoints:
    """Where entries are, and where requests look for them."""

    def test_the_last_one_moved_to_the_front(self) -> None:
        client = Client()
        client.send(marked(talk(*LONG[:9]), ("messages", 8)))
        said = client.send(marked(talk(*LONG[:11]), ("system", 0)))
        assert said[:2] == (Status.MISS, Reason.BREAKPOINT_MOVED)

    def test_on_text_that_never_comes_again(self) -> None:
        client = Client()
        client.send(marked(talk(LONG[0]), ("messages", 0)))
        said = client.send(marked(talk(LONG[2]), ("messages", 0)))
        assert said[:2] == (Status.MISS, Reason.BREAKPOINT_MISPLACED)

    def test_a_marked_system_prompt_is_enough(self) -> None:
        client = Client()
        client.send(marked(talk(LONG[0]), ("system", 1), ("messages", 0)))
        assert client.send(marked(talk(LONG[2]), ("system", 1), ("messages", 0))) == Verdict(Status.HIT)

    @pytest.mark.parametrize("others", [[], [("tools", 0), ("tools", 2), ("system", 0)]], ids=["free", "used up"])
    def test_it_stays_while_the_conversation_grows(self, others: list[tuple[str, int]]) -> None:
        """Told at the third request; that the mark stands still twice may be a pause."""
        client = Client()
        said = [client.send(marked(talk(*LONG[:n]), *others, ("messages", 2))) for n in (3, 9, 13, 17)]
        reason = Reason.BREAKPOINT_LIMIT if others else Reason.BREAKPOINT_FROZEN
        assert [one.reason for one in said] == [None, None, reason, reason]
        assert said[-1].status is Status.PARTIAL

    def test_only_the_system_prompt_is_marked(self) -> None:
        """That is a choice."""
        client = Client()
        said = [client.send(marked(talk(*LONG[:n]), ("system", 1))) for n in (3, 9, 13, 17)]
        assert [one.reason for one in said] == [None] * 4

    def test_markers_that_are_gone(self) -> None:
        """The same call site marked the same blocks before: somebody took the marks away."""
        client = Client()
        client.send(marked(talk(*LONG[:3]), ("system", 1), ("messages", 2)))
        said = client.send(marked(talk(*LONG[:5])))
        assert said[:2] == (Status.MISS, Reason.MARKER_LOST)
        assert client.full is not None
        assert client.full.also == (Reason.BREAKPOINT_MISSING,)
        assert client.full.confidence is Confidence.LIKELY

    def test_another_call_site_that_marks_nothing(self) -> None:
        client = Client()
        client.send(marked(talk(*LONG[:3]), ("system", 1), ("messages", 2)))
        said = client.send(marked(talk(*LONG[:5])), route="/export")
        assert said[:2] == (Status.MISS, Reason.BREAKPOINT_MISSING)

    def test_one_parameter_of_the_request_is_no_mark_by_hand(self) -> None:
        client = Client()
        client.send(talk(*LONG[:3]) | {"cache_control": EPHEMERAL})
        assert client.send(marked(talk(*LONG[:5])))[:2] == (Status.MISS, Reason.BREAKPOINT_MISSING)

    @pytest.mark.parametrize("another", [False, True], ids=["the next turn", "another question"])
    def test_marks_that_do_not_arrive(self, another: bool) -> None:
        """This endpoint stored the first request. What it had evicted it would have stored anew: it saw no mark."""
        client = Client()
        client.send(marked(talk(*LONG[:3]), ("system", 1), ("messages", 2)))
        texts = LONG[6:7] if another else LONG[:5]
        body = marked(talk(*texts), ("system", 1), ("messages", len(texts) - 1))
        said = client.send(body, counted(3000, 0, 0, "anthropic"))
        assert said[:2] == (Status.MISS, Reason.MARKER_LOST)

    def test_marks_that_arrive_and_are_stored_anew(self) -> None:
        client = Client()
        client.send(marked(talk(*LONG[:3]), ("system", 1), ("messages", 2)))
        body = marked(talk(*LONG[:5]), ("system", 1), ("messages", 4))
        said = client.send(body, counted(3000, 0, 2900, "anthropic"))
        assert said[:2] == (Status.MISS, Reason.PROVIDER_EVICTED)

    def test_one_conversation_whose_instructions_nothing_marks(self) -> None:
        """GPT-5.6 and later mark the newest message only; a second question shares the instructions in vain."""
        client = Client("openai_chat")
        bodies = [chat_body(1) | {"model": "gpt-5.6-sol"} for _ in range(2)]
        bodies[1]["messages"][-1]["content"] = "Something else altogether: when is the desk open on Sundays?"
        usage = counted(2300, 0, 2300, "openai_chat")
        client.send(bodies[0], usage, conversation="c")
        assert client.send(bodies[1], usage, conversation="c")[:2] == (Status.MISS, Reason.BREAKPOINT_MISSING)
        client = Client("openai_chat")
        client.send(bodies[0], usage)
        assert client.send(bodies[1], usage) == Verdict(Status.COLD)

    def test_instructions_that_change_where_only_the_newest_message_is_marked(self) -> None:
        """The change comes first: with a mark nothing could have been read either."""
        client = Client("openai_chat")
        usage = counted(2300, 0, 2300, "openai_chat")
        client.send(chat_body(1) | {"model": "gpt-5.6-sol"}, usage)
        body = chat_body(1) | {"model": "gpt-5.6-sol"}
        body["messages"][0]["content"] = body["messages"][0]["content"].replace("Rule 9 on", "Law 9 on", 1)
        body["messages"][-1]["content"] = "Something else altogether: when is the desk open on Sundays?"
        said = client.send(body, usage)
        assert said[:3] == (Status.MISS, Reason.SYSTEM_CHANGED, Cause.EDITED)


class TestTime:
    """Too early, or under another lifetime."""

    def test_sent_before_the_first_answer_began(self) -> None:
        """Also where every request has a question of its own, and nothing marks what they share."""
        client = Client("openai_chat")
        bodies = [chat_body(1) | {"model": "gpt-5.6-sol"} for _ in range(2)]
        bodies[1]["messages"][-1]["content"] = "Something else altogether: when is the desk open on Sundays?"
        usage = counted(2300, 0, 2300, "openai_chat")
        first, second = client.start(bodies[0]), client.start(bodies[1], after=0.05)
        client.finish(first, usage)
        assert client.finish(second, usage)[:2] == (Status.MISS, Reason.CONCURRENT_WRITE)
        assert client.full is not None
        assert client.full.also == (Reason.BREAKPOINT_MISSING,)

    @pytest.mark.parametrize(("after", "reason"), [(0.5, Reason.WRITE_NOT_VISIBLE), (30, Reason.PROVIDER_EVICTED)])
    def test_a_moment_after_it_began(self, after: float, reason: Reason) -> None:
        client = Client()
        client.send(talk(*LONG[:3]))
        said = client.send(talk(*LONG[:5]), wire_usage("anthropic", 2600, 0, 2600), after=after)
        assert said[:2] == (Status.MISS, reason)

    def test_a_shorter_life_than_before(self) -> None:
        """Asked for an hour first and for five minutes then: twenty minutes later nothing is left."""
        client = Client()
        client.send(marked(talk(*LONG[:3]), ("messages", 2), ttl="1h"))
        said = client.send(
            marked(talk(*LONG[:5]), ("messages", 2), ("messages", 4)),
            wire_usage("anthropic", 2600, 0, 2600),
            after=1200,
        )
        assert said[:2] == (Status.MISS, Reason.TTL_CHANGED)


class TestProvider:
    """The prefix was the same, in scope and in time."""

    def test_more_requests_a_minute_than_one_machine_serves(self) -> None:
        client = Client("openai_chat")
        for _ in range(18):
            client.send(chat_body(1), after=1)
        said = client.send(chat_body(3), counted(2300, 0, 0, "openai_chat"), after=1)
        assert said[:2] == (Status.MISS, Reason.ROUTING_OVERFLOW)

    def test_a_provider_that_promises_nothing(self) -> None:
        client = Client("openai_chat")
        client.send(chat_body(1), host="api.deepseek.com")
        said = client.send(chat_body(3), counted(2300, 0, 0, "openai_chat"), host="api.deepseek.com")
        assert said[:2] == (Status.MISS, Reason.IMPLICIT_UNRELIABLE)

    @pytest.mark.parametrize(
        ("lines", "reason"), [(60, Reason.NEAR_MINIMUM), (110, Reason.UNSUPPORTED), (4, Reason.BELOW_MINIMUM)]
    )
    def test_marked_and_neither_stored_nor_read(self, lines: int, reason: Reason) -> None:
        client = Client()
        body = {"model": "claude-opus-5", "system": prose("short", lines), "messages": turns("Hello?")}
        body["cache_control"] = EPHEMERAL
        size = len(str(body)) // 4
        assert client.send(body, wire_usage("anthropic", size, 0, 0))[:2] == (Status.UNCACHEABLE, reason)

    def test_another_model_answered(self) -> None:
        """A router fell back; nothing in the request says so."""
        client = Client()
        client.send(talk(*LONG[:3]), served="claude-opus-5-20260801")
        usage = wire_usage("anthropic", 2600, 0, 2600)
        said = client.send(talk(*LONG[:5]), usage, served="claude-opus-5-20260915")
        assert said[:2] == (Status.MISS, Reason.MODEL_CHANGED)

    def test_a_context_that_the_server_edits(self) -> None:
        """What it holds cannot be seen, but that it was asked to edit it can."""
        client = Client("openai_responses")
        edits: dict[str, Any] = {"context_management": [{"type": "compaction"}]}
        body = {"model": "gpt-5.4", "instructions": SYSTEM, "input": "One?", **edits}
        client.send(body, counted(2300, 0), response_id="r1")
        said = client.send(body | {"input": "Two?", "previous_response_id": "r1"}, counted(2400, 0))
        assert said[:2] == (Status.MISS, Reason.CONTEXT_CHANGED)


def test_what_a_diagnosis_rests_on() -> None:
    """Hashes equal or not, the gap, the lifetime, the rule and where it stands, and how sure we are."""
    client = Client()
    client.send(talk(*LONG[:3]))
    client.send(talk(*LONG[:5]), wire_usage("anthropic", 2600, 0, 2600), after=30)
    assert client.full is not None
    evidence = client.full.evidence
    assert evidence is not None
    assert (evidence.equal, evidence.of, evidence.gap, evidence.ttl) == (8, 10, 30, 300)
    assert "platform.claude.com" in evidence.source
    assert client.full.confidence is Confidence.CERTAIN


@pytest.mark.parametrize(
    ("dialect", "field", "values", "cause"),
    [
        ("openai_chat", "cache_salt", ("a", "b"), Cause.CACHE_SALT),
        ("openai_chat", "chat_template_kwargs", ({"think": True}, {"think": False}), Cause.CHAT_TEMPLATE),
        ("openai_chat", "chat_template", ("{{ a }}", "{{ b }}"), Cause.CHAT_TEMPLATE),
        ("openai_chat", "lora_path", ("a", "b"), Cause.LORA),
        ("anthropic", "betas", (["a"], ["a", "b"]), Cause.BETA_FEATURES),
    ],
)
def test_parameters_of_engines_and_platforms(dialect: str, field: str, values: tuple[Any, Any], cause: Cause) -> None:
    """Each is part of what an engine hashes."""
    client = Client(dialect)
    body = anthropic_body if dialect == "anthropic" else chat_body
    client.send(body(1) | {field: values[0]})
    said = client.send(body(3) | {field: values[1]})
    assert (said.reason, said.cause, said.path) == (Reason.PARAMETERS_CHANGED, cause, field)


def test_a_tool_that_runs_at_the_provider() -> None:
    """Turned on between two turns."""
    client = Client()
    client.send(anthropic_body(1))
    body = anthropic_body(3)
    body["tools"].append({"type": "web_search_20250305", "name": "web_search"})
    assert client.send(body)[1:4] == (Reason.TOOLS_CHANGED, Cause.SERVER_TOOLS, "tools[3]")


def test_one_sentence_says_it_all() -> None:
    """What happened, where, how we know, and what to do about it."""
    client = Client()
    client.send(talk(*LONG[:3]))
    body = talk(*LONG[:5])
    body["system"][1]["text"] += "\nIt is 14:05."
    client.send(talk(*LONG[:3]) | {"system": [body["system"][0], {"type": "text", "text": body["system"][1]["text"]}]})
    body["system"][1]["text"] = body["system"][1]["text"].replace("14:05", "14:06")
    client.send(body)
    assert client.full is not None
    assert explanation(client.full, "system[1]") == (
        "The system prompt differs from the earlier request's (`system[1]`, line 21). By the look of it: a time stands "
        "in the text and moved. 4 of 10 segments are equal. "
        "Fix: Leave the time out, or send it in the newest user message."
    )
    assert actor(client.full) == "application"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    """With or without a place and a cause."""
    said = explanation(Diagnosis(Status.MISS, reason, Cause.EDITED), "messages[2].content")
    assert said.count("Fix: ") == 1
    assert said.endswith(".")


def test_two_versions_of_a_prompt_in_use() -> None:
    """While one is rolled out neither is a change of the other, and each is compared with its nearest kin."""

    def version(rule: str, question: str) -> Body:
        body = talk(question)
        body["system"][0]["text"] = body["system"][0]["text"].replace("Rule 9 on", rule, 1)
        return marked(body, ("system", 1), ("messages", 0))

    client = Client()
    assert client.send(version("Rule 9 on", LONG[0])).reason is None
    assert client.send(version("Law 9 on", LONG[2])).reason is Reason.SYSTEM_CHANGED
    for number in range(4, 12, 2):
        assert client.send(version("Rule 9 on", LONG[number])).reason is None
        assert client.send(version("Law 9 on", LONG[number + 1])).reason is None
    said = client.send(version("Rule  9 on", LONG[1]))
    assert (said.reason, said.cause, said.line) == (Reason.SYSTEM_CHANGED, Cause.WHITESPACE, 9)


class TestMutations:
    """Whatever is mutated wherever, it is found at that place; what is no mutation is no miss."""

    @staticmethod
    def conversation(client: Client, body: Body) -> None:
        assert client.send(body).status in (Status.COLD, Status.HIT)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_one_mutation_is_found_at_its_place(self, data: st.DataObject) -> None:
        """A character put somewhere into some message of the history."""
        client = Client()
        texts = list(LONG[:9])
        client.send(talk(*texts))
        index = data.draw(st.integers(0, 7))
        at = data.draw(st.integers(0, len(texts[index])))
        sign = data.draw(st.sampled_from("Zé漢\U0001f600"))
        texts[index] = texts[index][:at] + sign + texts[index][at:]
        said = client.send(talk(*texts, "And then?", "Then nothing."))
        assert (said.reason, said.path) == (Reason.MESSAGES_CHANGED, f"messages[{index}].content")
        assert said.line == 1 + texts[index].count("\n", 0, at)
        assert client.again == client.full

    @settings(max_examples=30, deadline=None)
    @given(st.permutations(range(4)))
    def test_permuted_tools_are_reordered(self, order: list[int]) -> None:
        """Whichever way."""
        tools = [tool(name) for name in ("people", "places", "papers", "prices")]
        client = Client()
        client.send(anthropic_body(1) | {"tools": tools})
        said = client.send(anthropic_body(3) | {"tools": [tools[index] for index in order]})
        if list(order) == sorted(order):
            assert said == Verdict(Status.HIT)
        else:
            assert (said.reason, said.cause) == (Reason.TOOLS_CHANGED, Cause.REORDERED)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sampled_from(["again", "append", "roll", "sample"]), min_size=1, max_size=6),
        st.sampled_from(["anthropic", "openai_chat", "openai_responses"]),
    )
    def test_what_is_never_a_miss(self, steps: list[str], dialect: str) -> None:
        """The same once more, a turn more, the marker moved along, other sampling."""
        client, length, extra = Client(dialect), 1, {}
        for number, step in enumerate(["again", *steps]):
            length += 2 * (step in ("append", "roll")) * (length < 5)
            extra = {"temperature": number / 10, "max_tokens": 100 + number} if step == "sample" else extra
            body = BODIES[dialect](length) | extra
            if step == "roll" and dialect == "anthropic":
                body = marked(body, ("system", 1), ("messages", length - 1))
            assert client.send(body).reason is None

    @settings(max_examples=60, deadline=None)
    @given(
        st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner), max_leaves=8)
    )
    def test_equal_forms_of_unequal_bytes_are_told_apart(self, value: Any) -> None:
        """Keys in another order are another prompt, and never nothing."""
        old = {"name": "f", "description": "d", "input_schema": {"a": value, "b": 1}}
        new = {**old, "input_schema": {"b": 1, "a": value}}
        client = Client()
        client.send(anthropic_body(1) | {"tools": [old]})
        assert client.send(anthropic_body(3) | {"tools": [new]})[1:3] == (Reason.TOOLS_CHANGED, Cause.KEY_ORDER)


class TestBadInput:
    """Prompts that were built to confuse cost no more than a large one, and what was not looked at is said."""

    @pytest.mark.parametrize(
        "value",
        [
            {"a": "\ud800\0", "b": [float("nan"), float("inf")]},
            {"n": 10**400},
            {"text": None, "type": ["text"]},
            [[[]]] * 50,
        ],
        ids=["signs", "number", "types", "lists"],
    )
    def test_what_no_api_sends(self, value: Any) -> None:
        client = Client()
        bodies = [anthropic_body(3) for _ in range(2)]
        for number, body in enumerate(bodies):
            body["messages"][0]["content"] = [{"type": "odd", "value": value, "number": number}]
        client.send(bodies[0])
        assert client.send(bodies[1]).status in (Status.MISS, Status.COLD)

    def test_nested_ten_thousand_deep(self) -> None:
        deep: Any = []
        for _ in range(10_000):
            deep = [deep]
        segment = Segment(1, Section.TOOLS, Kind.TOOL, 0, -1, "tool", {"name": "f", "input_schema": deep})
        found = fingerprint.detail(segment)
        assert found is not None
        assert found.truncated
        assert len(found.lines) == 2

    def test_a_million_lines(self) -> None:
        segment = Segment(1, Section.SYSTEM, Kind.TEXT, 0, -1, "system", "\n" * 1_000_000)
        found = fingerprint.detail(segment)
        assert found is not None
        assert found.truncated
        assert len(found.lines) <= 200_000

    def test_ten_megabytes_in_one_line(self) -> None:
        """What lies beyond the limit is not compared, and no cause is made up for it."""
        old, new = (
            Segment(number, Section.SYSTEM, Kind.TEXT, 0, -1, "system", "x" * 10_000_000 + str(number))
            for number in range(2)
        )
        assert fingerprint.difference(fingerprint.detail(old), fingerprint.detail(new), new)[:2] == (None, None)

    def test_a_million_empty_blocks(self) -> None:
        """The fingerprint covers the beginning, and so says the diagnosis."""
        client = Client()
        client.send(talk(LONG[0]))
        body = talk(LONG[0])
        body["system"][0]["text"] = body["system"][0]["text"].replace("Rule 9 on", "Law 9 on", 1)
        body["messages"] += [{"role": "user", "content": [{"type": "text", "text": ""}] * 1_000_000}]
        client.send(body)
        assert client.full is not None
        assert client.full.evidence is not None
        assert client.full.evidence.truncated
        assert "Only the beginning" in explanation(client.full)

    def test_a_million_leaves(self) -> None:
        segment = Segment(1, Section.TOOLS, Kind.TOOL, 0, -1, "tool", {"enum": [""] * 1_000_000})
        found = fingerprint.detail(segment)
        assert found is not None
        assert found.truncated
        assert len(found.lines) == 20_000

    def test_numbers_that_differ_in_spelling_only(self) -> None:
        """Equal as numbers, unequal on the wire."""
        client = Client()
        old, new = (anthropic_body(1), anthropic_body(3))
        old["tools"][0]["input_schema"]["properties"]["limit"]["default"] = 1
        new["tools"][0]["input_schema"]["properties"]["limit"]["default"] = 1.0
        client.send(old)
        assert client.send(new)[1:3] == (Reason.TOOLS_CHANGED, Cause.RESERIALIZED)
