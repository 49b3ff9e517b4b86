"""Recordings: what is recorded of a test's calls, which assertions hold, and what a failed one says."""

from __future__ import annotations

import asyncio
import re
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry import metrics, trace
from servers.application import message, observed, text

from otel_promptcache import route
from otel_promptcache.emulator import Emulator, Reply, emulator
from otel_promptcache.instrumentation import hooks, patches, runtime
from otel_promptcache.semconv import CAUSE_MEANING, REASON_INFO, Cause, Reason, Status
from otel_promptcache.testing import Recording, recording


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with emulator(answer=lambda _: Reply("yes")) as provider:
        yield provider


@pytest.fixture
def provider(running: Emulator) -> Emulator:
    running.reset()
    return running


@pytest.fixture
def client(provider: Emulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.url, api_key="sk-secret", max_retries=0) as made:
        yield made


@pytest.fixture
def recorded(provider: Emulator) -> Iterator[Recording]:
    with recording(clock=provider.clock.now) as made:
        yield made


def failure(assertion: Callable[..., None], *arguments: Any, **more: Any) -> str:
    """What a failing assertion says."""
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **more)
    return str(caught.value)


SYSTEM = "You sell lamps.\nBe kind.\nIt is 2026-11-21 14:05.\n" + text(2000)
LATER = SYSTEM.replace("14:05", "14:06")


class TestCalls:
    """What is known of each call."""

    def test_a_conversation(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Status, counts and money, in the order of the calls."""
        client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(SYSTEM, "one", "yes", "two"))
        first, second = recorded.calls
        assert [first.number, first.status, second.number, second.status] == [1, Status.COLD, 2, Status.HIT]
        assert second.usage is not None
        assert first.usage is not None
        assert second.usage.read == first.usage.write == 2013
        assert second.cost is not None
        assert float(second.cost.read) == pytest.approx(2013 * 0.3e-6)
        assert recorded.hit_ratio == 2013 / (first.usage.input_total + second.usage.input_total)  # type: ignore[operator]
        assert second.cached
        assert not first.cached

    def test_begins_empty_each_time(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """What an earlier test sent explains nothing in this one: to a new recording a read comes unannounced."""
        with recording():
            client.messages.create(**message(SYSTEM, "one"))
        with recording() as second:
            client.messages.create(**message(LATER, "one"))
            assert [call.status for call in second.calls] == [Status.COLD]

    def test_route_and_error(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """The route is the one the application named, else the calling function; a failed call is a call."""
        client.messages.create(**message(SYSTEM, "one"))
        with route("/chat"), pytest.raises(anthropic.InternalServerError):
            client.messages.create(**message(SYSTEM, "two"), extra_headers={"x-emulator-fault": "500"})
        assert [call.route.rpartition(":")[2] for call in recorded.calls] == ["test_route_and_error", "/chat"]
        assert [call.error for call in recorded.calls] == ["", "api_error"]

    def test_streams(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """As any other call."""
        client.messages.create(**message(SYSTEM, "one"))
        with client.messages.stream(**message(SYSTEM, "one", "yes", "two")) as stream:
            assert stream.get_final_text() == "yes"
        recorded.assert_cached(-1)

    def test_openai(self, provider: Emulator, recorded: Recording) -> None:
        """Both of its dialects."""
        with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-secret") as made:
            for said in ("one", "two"):
                made.chat.completions.create(
                    model="gpt-4.1",
                    messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": said}],
                )
            made.responses.create(model="gpt-4.1", instructions=SYSTEM, input="one")
            made.responses.create(model="gpt-4.1", instructions=LATER, input="one")
        assert [call.status for call in recorded.calls][:2] == [Status.COLD, Status.HIT]
        assert "call 4" in failure(recorded.assert_prefix_stable)

    def test_asynchronous_clients(self, provider: Emulator, recorded: Recording) -> None:
        """Calls side by side are calls like others, numbered as they were made."""

        async def run() -> None:
            async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="sk-secret") as made:
                await made.messages.create(**message(SYSTEM, "one"))
                await asyncio.gather(*(made.messages.create(**message(SYSTEM, said)) for said in ("two", "three")))

        asyncio.run(run())
        assert [call.status for call in recorded.calls] == [Status.COLD, Status.HIT, Status.HIT]
        recorded.assert_prefix_stable()

    def test_time_is_the_emulators(self, client: anthropic.Anthropic, provider: Emulator, recorded: Recording) -> None:
        """Six idle minutes take no time, and are the reason of the miss."""
        client.messages.create(**message(SYSTEM, "one"))
        provider.clock.advance(6 * 60)
        client.messages.create(**message(SYSTEM, "one"))
        said = failure(recorded.assert_cached, 1)
        assert "ttl_expired" in said
        assert REASON_INFO[Reason.TTL_EXPIRED].fix in said
        recorded.assert_prefix_stable()


class TestBesideOthers:
    """A recording takes nothing from whoever else observes, and sets nothing that is not its own."""

    def test_an_active_instrumentation_goes_on(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """Its spans and its verdicts are those it would have without a recording, and its history is its own."""
        with observed() as seen:
            client.messages.create(**message(SYSTEM, "one"))
            with recording() as recorded:
                client.messages.create(**message(SYSTEM, "one", "yes", "two"))
                assert [call.status for call in recorded.calls] == [Status.HIT]
            client.messages.create(**message(SYSTEM, "one", "yes", "two", "yes", "three"))
            assert [span.attributes["promptcache.status"] for span in seen.calls if span.attributes] == [
                "cold",
                "hit",
                "hit",
            ]
            assert seen.total("promptcache.calls") == 3

    def test_streams_and_errors_are_told_to_both(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """However a call ends."""
        with observed() as seen, recording() as recorded:
            with client.messages.stream(**message(SYSTEM, "one")) as stream:
                stream.until_done()
            with client.messages.create(**message(SYSTEM, "one", "yes", "two"), stream=True) as events:
                next(iter(events))
            with pytest.raises(anthropic.InternalServerError):
                client.messages.create(**message(SYSTEM, "one"), extra_headers={"x-emulator-fault": "500"})
            ours = [(str(call.status), call.error) for call in recorded.calls]
            theirs = [
                (found["promptcache.status"], found.get("error.type", ""))
                for found in (span.attributes or {} for span in seen.calls)
            ]
        assert ours[:2] == theirs[:2] == [("cold", ""), ("hit", "")]
        assert [call.error for call in recorded.calls] == ["", "", "api_error"]

    def test_one_that_stops_meanwhile(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """The hooks stay for the recording."""
        with recording() as recorded:
            with observed():
                client.messages.create(**message(SYSTEM, "one"))
            client.messages.create(**message(SYSTEM, "two"))
            assert len(recorded.calls) == 2

    def test_an_application_that_has_turned_us_off(
        self, client: anthropic.Anthropic, provider: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``OTEL_PROMPTCACHE_MODE=off`` is the application's setting, not its test's."""
        with observed(mode="off") as seen, recording() as recorded:
            client.messages.create(**message(SYSTEM, "one"))
            assert len(recorded.calls) == 1
            assert seen.calls == []

    def test_nothing_is_left(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """No hook, no listener, no provider of OpenTelemetry set."""
        before = trace.get_tracer_provider(), metrics.get_meter_provider()
        with recording() as outer, recording() as inner:
            client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(SYSTEM, "two"))
        assert (len(outer.calls), len(inner.calls)) == (1, 1)
        assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == before
        assert hooks._observer is None
        assert not any(patches.applied(patch) for patch in patches.PATCHES)
        assert not runtime.running()

    def test_spans_are_nobodys(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """The span of an instrumentation that knows nothing of us is not claimed or written on."""
        with observed(mode="off") as seen:
            tracer = seen.tracer_provider.get_tracer("theirs")
            with (
                recording() as recorded,
                tracer.start_as_current_span(
                    "chat", kind=trace.SpanKind.CLIENT, attributes={"gen_ai.operation.name": "chat"}
                ),
            ):
                client.messages.create(**message(SYSTEM, "one"))
            (span,) = seen.spans
            assert dict(span.attributes or {}) == {"gen_ai.operation.name": "chat"}
            assert len(recorded.calls) == 1


class TestHitRatio:
    """``assert_hit_ratio``: sums, never a mean of ratios."""

    def test_holds(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Of all calls, or of some."""
        for said in ("one", "two", "three"):
            client.messages.create(**message(SYSTEM, said))
        recorded.assert_hit_ratio(min=0.6)
        recorded.assert_hit_ratio(min=0.99, calls=recorded.calls[1:])

    def test_fails_with_the_place(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Sum, call, path, line, class of difference, what to do, and what it cost."""
        client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(LATER, "one"))
        said = failure(recorded.assert_hit_ratio)
        assert said.startswith("hit ratio 0.000 is below 0.8: 0 of 4,028 input tokens were read from cache in 2 calls")
        assert "test_recording:test_fails_with_the_place) differs from call 1 at `system[0]`, line 3" in said
        assert f"timestamp. {CAUSE_MEANING[Cause.TIMESTAMP]}" in said
        assert REASON_INFO[Reason.SYSTEM_CHANGED].fix in said
        assert re.search(r"lost: 2,013 tokens that were in the cache, 0\.0069\d\d USD", said)
        assert re.search(r"2 +miss +0 +2,013 +2,014 ", said)

    def test_the_same_problem_is_told_once(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """With the calls that met it again."""
        for minute in range(10, 20):
            client.messages.create(**message(SYSTEM.replace("14:05", f"14:{minute}"), "one"))
        said = failure(recorded.assert_hit_ratio)
        assert said.count("line 3: timestamp") == 1
        assert "and likewise: call 3, 4, 5, 6, 7, 8, 9, 10" in said

    def test_no_call_is_a_failure(self, recorded: Recording) -> None:
        """A test of nothing must not pass."""
        for assertion in (recorded.assert_hit_ratio, recorded.assert_prefix_stable, recorded.assert_no_unread_writes):
            assert "no call was recorded" in failure(assertion)

    def test_no_usage(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Unknown is not zero, and not enough."""
        client.messages.create(**message(SYSTEM, "one"), extra_headers={"x-emulator-fault": "no_usage"})
        assert "the hit ratio is unknown, not 0.8: none of 1 call reported token counts" in failure(
            recorded.assert_hit_ratio
        )


def _tools(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "description": f"Does {name}.", "input_schema": {"type": "object"}} for name in names]


class TestPrefixStable:
    """``assert_prefix_stable``: about the prompts, whatever the provider makes of them."""

    @pytest.mark.parametrize(
        ("first", "second", "where"),
        [
            (message(SYSTEM, "one"), message(LATER, "one"), "`system[0]`, line 3: timestamp."),
            (message("Be kind.\nUse lamps.", "one"), message("Be kind.\nUse  lamps.", "one"), "line 2: whitespace."),
            (
                message(SYSTEM, "one", tools=_tools("a", "b")),
                message(SYSTEM, "one", tools=_tools("b", "a")),
                "`tools[0]`: reordered.",
            ),
            (
                message(SYSTEM, "one", tools=_tools("a")),
                message(SYSTEM, "one", tools=_tools("a", "b")),
                "`tools[1]`: added.",
            ),
            (
                message(SYSTEM, "one " * 20, "yes", "two"),
                message(SYSTEM, "one  " * 20, "yes", "two", "yes", "three"),
                "`messages[0].content`, line 1: whitespace.",
            ),
            (
                message(SYSTEM, "one " * 20, "yes", "two"),
                message(SYSTEM, "one " * 20, "yes", "two", "yes", "three", model="claude-opus-5-5"),
                "model_changed",
            ),
        ],
        ids=["timestamp", "short", "reordered", "added", "history", "model"],
    )
    def test_fails_with_the_place(
        self,
        first: dict[str, Any],
        second: dict[str, Any],
        where: str,
        client: anthropic.Anthropic,
        recorded: Recording,
    ) -> None:
        """Also for prompts that are too short to be cached."""
        client.messages.create(**first)
        client.messages.create(**second)
        assert where in failure(recorded.assert_prefix_stable)

    def test_holds_for_other_conversations(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """A new question under the same instructions is no change, nor is another agent's prompt."""
        client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(SYSTEM, "two"))
        client.messages.create(**message("You write poems about " + text(500, "sea"), "one"))
        recorded.assert_prefix_stable()

    def test_needs_no_usage(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """A provider that answers without token counts, as many a mock does, will do."""
        for system in (SYSTEM, SYSTEM, LATER):
            client.messages.create(**message(system, "one"), extra_headers={"x-emulator-fault": "no_usage"})
        assert [call.usage for call in recorded.calls] == [None] * 3
        assert "1 of 3 calls changed it\n  call 3" in failure(recorded.assert_prefix_stable)

    def test_is_asked_at_the_time_of_the_call(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """An application may change the very objects that it has sent."""
        asked = message(SYSTEM, "one")
        client.messages.create(**asked)
        asked["system"][0]["text"] = LATER
        client.messages.create(**asked)
        assert "line 3" in failure(recorded.assert_prefix_stable)


class TestUnreadWrites:
    """``assert_no_unread_writes``: the premium for what nobody has read, in USD."""

    def test_holds_when_all_is_read(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """By any later call."""
        client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(SYSTEM, "two"))
        recorded.assert_no_unread_writes()

    def test_holds_when_time_stands(self, client: anthropic.Anthropic, provider: Emulator) -> None:
        """Many a test freezes it."""
        now = provider.clock.now()
        with recording(clock=lambda: now) as recorded:
            client.messages.create(**message(SYSTEM, "one"))
            client.messages.create(**message(SYSTEM, "two"))
        recorded.assert_no_unread_writes()

    def test_fails_with_the_sum(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """2013 tokens at 3.75 in place of 3 USD a million, and why nobody read them."""
        client.messages.create(**message(SYSTEM, "one"))
        client.messages.create(**message(LATER, "one"))
        client.messages.create(**message(LATER, "two"))
        said = failure(recorded.assert_no_unread_writes)
        assert said.startswith(f"{2013 * 0.75e-6:.6f} USD were paid for cache writes that no later call has read")
        assert "call 1: 2,013 tokens written" in said
        assert "test_recording:test_fails_with_the_sum) differs from call 1 at `system[0]`, line 3" in said
        recorded.assert_no_unread_writes(usd=0.01)

    def test_an_unknown_price(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Is no reason to pass."""
        client.messages.create(**message(SYSTEM, "one", model="claude-of-tomorrow"))
        assert "no price is known for claude-of-tomorrow" in failure(recorded.assert_no_unread_writes, usd=1)


class TestCached:
    """``assert_cached``: one call."""

    def test_by_call_index_response_and_id(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Whatever a test has at hand."""
        first = client.messages.create(**message(SYSTEM, "one"))
        second = client.messages.create(**message(SYSTEM, "two"))
        for call in (recorded.calls[1], 1, -1, second, second.id):
            recorded.assert_cached(call)
        assert failure(recorded.assert_cached, first).startswith("call 1 was not read from cache: cold.")

    @pytest.mark.parametrize(
        ("call", "said"),
        [(7, "there is no call 7: 1 were recorded"), ("msg_of_others", "no recorded call has the response id")],
    )
    def test_what_is_no_call(self, call: object, said: str, client: anthropic.Anthropic, recorded: Recording) -> None:
        """Says so, rather than that it was not cached."""
        client.messages.create(**message(SYSTEM, "one"))
        assert said in failure(recorded.assert_cached, call)

    def test_what_cannot_be_cached(self, client: anthropic.Anthropic, recorded: Recording) -> None:
        """With the rule that forbids it."""
        client.messages.create(**message("short", "one"))
        assert REASON_INFO[Reason.BELOW_MINIMUM].meaning in failure(recorded.assert_cached, 0)


def test_no_text_in_a_message(client: anthropic.Anthropic, recorded: Recording) -> None:
    """Neither of a prompt, nor of an answer, nor a key: logs of tests are read by many."""
    client.messages.create(**message("secret-one\n" + SYSTEM, "question-one"))
    client.messages.create(**message("secret-two\n" + LATER, "question-two"))
    messages = [
        failure(recorded.assert_hit_ratio),
        failure(recorded.assert_prefix_stable),
        failure(recorded.assert_no_unread_writes),
        failure(recorded.assert_cached, 1),
        repr(recorded.calls),
    ]
    for words in ("secret", "question", "lamps", "14:0", "sk-"):
        assert not any(words in said for said in messages)


def test_plain_unittest(provider: Emulator) -> None:
    """Without pytest: a context manager that ``enterContext`` takes."""

    class Case(unittest.TestCase):
        def setUp(self) -> None:
            self.promptcache = self.enterContext(recording())

        def test(self) -> None:
            with anthropic.Anthropic(base_url=provider.url, api_key="sk-secret") as made:
                made.messages.create(**message(SYSTEM, "one"))
                made.messages.create(**message(LATER, "one"))
            self.promptcache.assert_prefix_stable()

    result = unittest.TestResult()
    Case("test").run(result)
    ((_, said),) = result.failures
    assert "`system[0]`, line 3" in said
