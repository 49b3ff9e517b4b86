"""What providers offer around the answer: batches, their own diagnostics, isolation, routing, limits, refusals."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from logged import ours

from otel_promptcache.emulator import Clock, Emulator, PortInUseError, emulator, linear
from otel_promptcache.emulator.batches import Batch
from otel_promptcache.semconv import Reason, Status

CLAUDE = "claude-opus-5"
MARK = {"type": "ephemeral"}
SYSTEM = [{"type": "text", "text": "s" * 8000, "cache_control": MARK}]
QUESTION = [{"role": "user", "content": "What is new?"}]
ASK: dict[str, Any] = {"model": CLAUDE, "max_tokens": 100, "system": SYSTEM, "messages": QUESTION}
RESPOND: dict[str, Any] = {"model": "gpt-5.6", "instructions": "s" * 8000, "input": "What is new?"}
CHAT: dict[str, Any] = {
    "model": "gpt-5.6",
    "messages": [{"role": "developer", "content": "s" * 8000}, {"role": "user", "content": "What is new?"}],
}


class TestBatches:
    """Message batches, through the Anthropic SDK."""

    def request(self, name: str, **changes: Any) -> Any:
        return {"custom_id": name, "params": {**ASK, **changes}}

    def test_from_creation_to_results(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """In progress when it is created, ended when it is asked for; the second request reads what the first wrote."""
        created = claude.messages.batches.create(requests=[self.request("a"), self.request("b")])
        assert (created.processing_status, created.request_counts.processing) == ("in_progress", 2)
        batch = claude.messages.batches.retrieve(created.id)
        assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 2)
        results = {line.custom_id: line.result.message.usage for line in claude.messages.batches.results(batch.id)}
        assert [results["a"].cache_creation_input_tokens, results["b"].cache_read_input_tokens] == [2000, 2000]
        assert {usage.service_tier for usage in results.values()} == {"batch"}

    def test_it_takes_its_time(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """As long as the option says; until then there are no results."""
        provider.batch_seconds = 600
        batch = claude.messages.batches.create(requests=[self.request("a")])
        assert claude.messages.batches.retrieve(batch.id).processing_status == "in_progress"
        assert httpx2.get(f"{provider.url}/v1/messages/batches/{batch.id}/results", headers=KEY).status_code == 404
        provider.clock.advance(600)
        assert claude.messages.batches.retrieve(batch.id).processing_status == "ended"

    def test_bad_requests_are_results_of_their_own(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """One errs, the others do not: five marks, a stream, a request that only warms up."""
        wrong = [{"system": SYSTEM * 5}, {"stream": True}, {"max_tokens": 0}]
        requests = [self.request(str(n), **change) for n, change in enumerate([{}, *wrong])]
        batch = claude.messages.batches.create(requests=requests)
        results = {line.custom_id: line.result for line in claude.messages.batches.results(batch.id)}
        assert [results[str(n)].type for n in range(4)] == ["succeeded", *["errored"] * 3]
        assert "maximum of 4 blocks" in results["1"].error.error.message

    def test_a_long_list_has_pages_and_an_end(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The SDK turns them by itself, forwards; backwards each page is the one in front of an id."""
        made = [claude.messages.batches.create(requests=[self.request("a")]).id for _ in range(45)][::-1]
        assert [batch.id for batch in claude.messages.batches.list()] == made
        assert [batch.id for batch in claude.messages.batches.list(limit=45)] == made
        assert [batch.id for batch in claude.messages.batches.list(after_id=made[39])] == made[40:]
        page = claude.messages.batches.list(before_id=made[30], limit=20)
        assert ([batch.id for batch in page.data], page.has_more) == (made[10:30], True)
        assert [batch.id for batch in claude.messages.batches.list(before_id=made[5])] == made[:5]
        for wrong in ({"after_id": "msgbatch_none"}, {"after_id": made[0], "before_id": made[1]}):
            with pytest.raises(anthropic.BadRequestError):
                claude.messages.batches.list(**wrong)

    def test_list_cancel_delete(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The newest first; what is canceled has no answers; what is deleted is gone."""
        provider.batch_seconds = 600
        first, second = (claude.messages.batches.create(requests=[self.request("a")]) for _ in range(2))
        assert [batch.id for batch in claude.messages.batches.list()] == [second.id, first.id]
        assert claude.messages.batches.cancel(first.id).processing_status == "canceling"
        with pytest.raises(anthropic.BadRequestError, match="still processing"):
            claude.messages.batches.delete(first.id)
        provider.clock.advance(600)
        assert claude.messages.batches.retrieve(first.id).request_counts.canceled == 1
        assert [line.result.type for line in claude.messages.batches.results(first.id)] == ["canceled"]
        assert claude.messages.batches.delete(first.id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.retrieve(first.id)
        with pytest.raises(anthropic.NotFoundError):
            claude.with_options(api_key="other").messages.batches.retrieve(second.id)

    @pytest.mark.parametrize(
        ("requests", "message"),
        [
            (None, "requests: Field required"),
            ([], "at least 1"),
            ([{"params": ASK}], r"requests\.0\.custom_id"),
            ([{"custom_id": "a"}], r"requests\.0\.params"),
            ([{"custom_id": "a", "params": ASK}] * 2, "duplicate custom_id 'a'"),
        ],
    )
    def test_refusals(self, provider: Emulator, claude: anthropic.Anthropic, requests: Any, message: str) -> None:
        """Before anything is worked off."""
        body = {} if requests is None else {"requests": requests}
        with pytest.raises(anthropic.BadRequestError, match=message):
            claude.post("/v1/messages/batches", body=body, cast_to=object)

    def test_times(self) -> None:
        """As RFC 3339 writes them."""
        document = Batch("b", "o", [], 0.0, 60.0).document("http://x", 60.0)
        assert (document["created_at"], document["ended_at"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z")
        assert document["expires_at"] == "1970-01-02T00:00:00Z"


KEY = {"x-api-key": "key", "anthropic-version": "2023-06-01"}
TOOLS = [{"name": "find", "input_schema": {"type": "object"}}]


class TestAnthropicDiagnostics:
    """``diagnostics.previous_message_id``: how a prompt differs from that of an earlier message."""

    def ask(self, claude: anthropic.Anthropic, previous: str | None, **changes: Any) -> Any:
        header = {"anthropic-beta": "cache-diagnosis-2026-04-07"}
        diagnostics = {"previous_message_id": previous}
        return claude.messages.create(**{**ASK, **changes}, diagnostics=diagnostics, extra_headers=header)

    @pytest.mark.parametrize(
        ("changes", "verdict"),
        [
            ({}, None),
            ({"messages": [*QUESTION, {"role": "assistant", "content": "x"}, *QUESTION]}, None),
            ({"model": "claude-opus-5-5"}, ("model_changed", 2000)),
            ({"speed": "fast"}, ("model_changed", 2000)),
            ({"tools": TOOLS}, ("tools_changed", 2000)),
            ({"system": [{**SYSTEM[0], "text": "t" * 8000}]}, ("system_changed", 2000)),
            ({"messages": [{"role": "user", "content": "What?"}]}, ("messages_changed", 0)),
            ({"tool_choice": {"type": "none"}}, ("unavailable", None)),
        ],
    )
    def test_reasons(
        self, provider: Emulator, claude: anthropic.Anthropic, changes: Any, verdict: tuple[str, int | None] | None
    ) -> None:
        """In the API's words, with the tokens that would have been read; null where nothing differs."""
        first = self.ask(claude, None)
        assert first.diagnostics is None
        extra = {"extra_body": {"speed": changes["speed"]}} if "speed" in changes else {}
        given = {name: value for name, value in changes.items() if name != "speed"}
        found = self.ask(claude, first.id, **given, **extra).diagnostics
        if verdict is None:
            assert found is None
        else:
            reason = found.cache_miss_reason
            assert (reason.type, getattr(reason, "cache_missed_input_tokens", None)) == verdict

    def test_unknown_messages(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Of another account, or from before a restart."""
        first = self.ask(claude, None)
        stranger = claude.with_options(api_key="other")
        for client, previous in ((stranger, first.id), (claude, "msg_none")):
            reason = self.ask(client, previous).diagnostics.cache_miss_reason
            assert reason.type == "previous_message_not_found"

    def test_nobody_asked(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Then the field is not there; in a stream it is in the first event."""
        assert "diagnostics" not in claude.messages.create(**ASK).to_dict()
        changed = {**ASK, "tools": TOOLS, "stream": True}
        previous = {"previous_message_id": claude.messages.create(**ASK).id}
        events = list(claude.messages.create(**changed, diagnostics=previous))
        assert events[0].message.diagnostics.cache_miss_reason.type == "tools_changed"


class TestOpenaiDiagnostics:
    """``prompt_cache_options.comparison_response_id``."""

    def ask(self, gpt: openai.OpenAI, previous: str, **changes: Any) -> Any:
        options = {"comparison_response_id": previous}
        return gpt.responses.create(**{**RESPOND, **changes}, prompt_cache_options=options)

    @pytest.mark.parametrize(
        ("changes", "verdict"),
        [
            ({}, ("cache_hit", None, None)),
            ({"model": "gpt-6"}, ("cache_miss", "model_changed", 0)),
            ({"prompt_cache_key": "a"}, ("cache_miss", "prompt_cache_key_changed", 0)),
            ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, ("cache_miss", "tools_changed", 0)),
            ({"text": {"verbosity": "low"}}, ("cache_miss", "verbosity_changed", 0)),
            ({"reasoning": {"effort": "low"}}, ("cache_miss", "reasoning_effort_changed", 0)),
            ({"service_tier": "flex"}, ("cache_miss", "service_tier_changed", 0)),
            ({"input": "Why?"}, ("cache_miss", "input_changed", 2000)),
            ({"instructions": "t" * 8000}, ("cache_miss", "input_changed", 0)),
            ({"parallel_tool_calls": False}, ("unavailable", None, None)),
        ],
    )
    def test_reasons(self, provider: Emulator, gpt: openai.OpenAI, changes: Any, verdict: tuple[Any, ...]) -> None:
        """In the API's words, with the tokens that both prompts begin with."""
        first = gpt.responses.create(**RESPOND)
        response = self.ask(gpt, first.id, **changes)
        found = response.prompt_cache_diagnostics.to_dict()
        assert (found["type"], found.get("reason"), found.get("comparison_reusable_tokens")) == verdict
        assert response.prompt_cache_options.comparison_response_id == first.id

    def test_unknown_and_unavailable(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """No such response; nothing differs and all has expired, for which the API has no word."""
        assert self.ask(gpt, "resp_none").prompt_cache_diagnostics.type == "comparison_response_not_found"
        first = gpt.responses.create(**RESPOND)
        provider.clock.advance(3600)
        assert self.ask(gpt, first.id).prompt_cache_diagnostics.type == "unavailable"

    def test_in_a_stream(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """With the Response at the end."""
        first = gpt.responses.create(**RESPOND)
        options = {"comparison_response_id": first.id}
        events = list(gpt.responses.create(**RESPOND, stream=True, prompt_cache_options=options))
        assert events[0].response.prompt_cache_diagnostics is None
        assert events[-1].response.prompt_cache_diagnostics.type == "cache_hit"


class TestIsolation:
    """Keys are apart, unless they belong to one workspace or organisation."""

    def read(self, client: anthropic.Anthropic, **headers: str) -> int:
        return client.messages.create(**ASK, extra_headers=headers).usage.cache_read_input_tokens

    def test_by_key(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """The second key starts cold."""
        other = claude.with_options(api_key="other")
        assert [self.read(client) for client in (claude, other, claude, other)] == [0, 0, 2000, 2000]

    def test_by_workspace(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """Named by the emulator's option, or by the client's header; never the key itself in the state."""
        provider.workspaces = {"key": "team", "other": "team"}
        other, third = (claude.with_options(api_key=name) for name in ("other", "third"))
        assert [self.read(client) for client in (claude, other, third)] == [0, 2000, 0]
        assert self.read(third, **{"anthropic-workspace-id": "team"}) == 2000
        assert {entry["owner"] for entry in provider.state()["entries"]} == {
            "workspace team",
            provider.owner("third", {}),
        }

    def test_by_organisation(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """OpenAI's header."""
        clients = [gpt.with_options(api_key=key, organization="org") for key in ("a", "b")]
        reads = [client.chat.completions.create(**CHAT).usage.prompt_tokens_details.cached_tokens for client in clients]
        assert reads == [0, 2003]


class TestRouting:
    """OpenAI: a cache lives on one machine; beyond 15 requests a minute the next machine is taken."""

    def reads(self, gpt: openai.OpenAI, times: int, **more: Any) -> list[int]:
        usages = [gpt.chat.completions.create(**CHAT, **more).usage for _ in range(times)]
        return [usage.prompt_tokens_details.cached_tokens for usage in usages]

    def test_overflow(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """The 16th of a minute misses, and says why; the minute over, the first machine has all it had."""
        assert self.reads(gpt, 17) == [0, *[2003] * 14, 0, 2003]
        overflown = provider.requests[15]
        assert (overflown.machine, overflown.accounting.status) == ("machine 2", Status.MISS)
        assert "cached on another machine" in overflown.why
        provider.clock.advance(60)
        assert self.reads(gpt, 1) == [2003]
        assert provider.last.machine == ""

    def test_the_key_divides_the_load(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Two keys stay on two first machines."""
        for name in ("a", "b"):
            assert self.reads(gpt, 15, prompt_cache_key=name) == [0, *[2003] * 14]

    def test_it_can_be_turned_off(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """For load tests of other things."""
        provider.machine_rate = 0
        assert self.reads(gpt, 40) == [0, *[2003] * 39]

    def test_anthropic_does_not_overflow(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Nothing of the kind is documented."""
        reads = [claude.messages.create(**ASK).usage.cache_read_input_tokens for _ in range(20)]
        assert reads == [0, *[2000] * 19]


class TestAnthropicRefusals:
    """Marks that the API refuses, with the place in its own notation."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"system": [{**SYSTEM[0], "cache_control": {"type": "eternal"}}]}, r"system\.0\.cache_control\.type"),
            ({"system": [{**SYSTEM[0], "cache_control": {**MARK, "ttl": "2h"}}]}, r"system\.0\.cache_control\.ttl"),
            ({"cache_control": {**MARK, "ttl": "30m"}}, r"cache_control\.ttl: Input should be '5m' or '1h'"),
            (
                {"messages": [{"role": "assistant", "content": [{"type": "thinking", "cache_control": MARK}]}]},
                r"messages\.0\.content\.0\.thinking\.cache_control: Extra inputs are not permitted",
            ),
            ({"max_tokens": -1}, "max_tokens"),
        ],
    )
    def test_marks(self, provider: Emulator, claude: anthropic.Anthropic, change: Any, message: str) -> None:
        """A lifetime or a type that is none, reasoning that cannot be marked."""
        with pytest.raises(anthropic.BadRequestError, match=message):
            claude.post("/v1/messages", body={**ASK, **change}, cast_to=object)

    def test_unknown_fields_are_taken(
        self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI
    ) -> None:
        """What the emulator does not know does no harm."""
        extra = {"extra_body": {"brand_new": {"a": [1]}}, "extra_headers": {"anthropic-beta": "brand-new-2027-01-01"}}
        assert claude.messages.create(**ASK, **extra).stop_reason == "end_turn"
        assert gpt.responses.create(**RESPOND, extra_body={"brand_new": 1}).status == "completed"


OPTIONS = "prompt_cache_options"


class TestOpenaiRefusals:
    """Caching options where they do not belong."""

    @pytest.mark.parametrize(
        ("path", "change", "param", "code"),
        [
            ("/responses", {"prompt_cache_key": "k" * 65}, "prompt_cache_key", "string_above_max_length"),
            ("/responses", {"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl", "invalid_value"),
            (
                "/chat/completions",
                {"prompt_cache_options": {"ttl": "12h"}},
                "prompt_cache_options.ttl",
                "invalid_value",
            ),
            ("/responses", {"prompt_cache_options": {"mode": "none"}}, "prompt_cache_options.mode", "invalid_value"),
            ("/responses", {"prompt_cache_retention": "in_memory"}, "prompt_cache_retention", "invalid_value"),
            (
                "/responses",
                {"model": "gpt-4.1", "prompt_cache_options": {"mode": "explicit"}},
                "prompt_cache_options",
                "unsupported_parameter",
            ),
            ("/responses", {"input": "s" * 10_485_761}, "input", "string_above_max_length"),
        ],
    )
    def test_options(
        self, provider: Emulator, gpt: openai.OpenAI, path: str, change: Any, param: str, code: str
    ) -> None:
        """In the API's shape, with parameter and code."""
        body = {**RESPOND, **CHAT, **change}
        with pytest.raises(openai.BadRequestError) as refusal:
            gpt.post(path, body=body, cast_to=object)
        assert (refusal.value.param, refusal.value.code) == (param, code)

    def test_retention_of_older_models(self, provider: Emulator, gpt: openai.OpenAI) -> None:
        """Both are taken, and one keeps for a day."""
        for retention, read in (("in_memory", 0), ("24h", 1920)):
            provider.reset()
            body = {**CHAT, "model": "gpt-4.1", "prompt_cache_retention": retention}
            gpt.chat.completions.create(**body)
            provider.clock.advance(3600)
            assert gpt.chat.completions.create(**body).usage.prompt_tokens_details.cached_tokens == read


class TestLimits:
    """A body, or a prompt, that is too long."""

    def test_the_body(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """32 MiB at Anthropic."""
        huge = [{"role": "user", "content": "s" * (32 * 2**20)}]
        with pytest.raises(anthropic.RequestTooLargeError) as refusal:
            claude.messages.create(**{**ASK, "messages": huge})
        assert refusal.value.body["error"] == {
            "type": "request_too_large",
            "message": "Request exceeds the maximum size",
        }

    def test_the_context_window(self, provider: Emulator, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
        """An option, in each provider's words."""
        provider.context_window = 2002
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 2003 tokens > 2002 maximum"):
            claude.messages.create(**ASK)
        with pytest.raises(openai.BadRequestError) as refusal:
            gpt.chat.completions.create(**CHAT)
        assert refusal.value.code == "context_length_exceeded"
        provider.context_window = 2003
        assert claude.messages.create(**ASK).stop_reason == "end_turn"

    def test_more_than_the_emulator_reads(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """Within the provider's limit, but no context window is that long."""
        huge = [{"role": "user", "content": "s" * (17 * 2**20)}]
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            claude.messages.create(**{**ASK, "messages": huge})


class TestUnknownModels:
    """They are assumed to be like the provider's others."""

    def test_a_warning(self, provider: Emulator, claude: anthropic.Anthropic, caplog: pytest.LogCaptureFixture) -> None:
        """Once for each, in the log and in the state; the minimum is 1,024."""
        with caplog.at_level(logging.WARNING, "otel_promptcache.emulator"):
            for _ in range(2):
                usage = claude.messages.create(**{**ASK, "model": "claude-novel-9"}).usage
        assert usage.cache_read_input_tokens == 2000
        (warning,) = provider.warnings
        assert warning.startswith("anthropic: no rule names the model 'claude-novel-9'; assumed are a minimum of 1024")
        assert [record.message for record in ours(caplog)] == [warning]
        assert provider.state()["warnings"] == [warning]

    @pytest.mark.parametrize("model", ["claude-opus-5", "claude-sonnet-4-6", "claude-3-7-sonnet-latest"])
    def test_known_ones(self, provider: Emulator, claude: anthropic.Anthropic, model: str) -> None:
        """No word about them."""
        claude.messages.create(**{**ASK, "model": model})
        assert provider.warnings == []


class TestClock:
    """Time goes forward."""

    def test_set(self, provider: Emulator) -> None:
        """To a moment; not to a past one, and the message says so."""
        now = provider.clock.now()
        door = provider.url + "/_emulator/clock"
        assert httpx2.post(door, json={"set": now + 1000}).json()["now"] >= now + 1000
        refused = httpx2.post(door, json={"set": now})
        assert refused.status_code == 400
        assert "does not go back" in refused.json()["error"]
        assert httpx2.get(door).json()["now"] >= now + 1000
        with pytest.raises(ValueError, match="does not go back"):
            provider.clock.set(now)
        with pytest.raises(ValueError, match="does not go back"):
            provider.clock.advance(-1)

    def test_a_standing_clock(self) -> None:
        """Moves when it is told to, and only then."""
        clock = Clock.standing(1_000_000)
        assert (clock.now(), clock.advance(60), clock.now()) == (1_000_000, 1_000_060, 1_000_060)

    def test_a_source_that_goes_back(self) -> None:
        """As a corrected system clock does: the emulator's stands still meanwhile."""
        times = iter([100.0, 90.0, 101.0])
        clock = Clock(lambda: next(times))
        assert [clock.now() for _ in range(3)] == [100.0, 100.0, 101.0]


class TestInspection:
    """Why the last request hit or missed."""

    def test_the_last_request(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """In process and over HTTP."""
        assert httpx2.get(provider.url + "/_emulator/last").status_code == 404
        with pytest.raises(LookupError):
            _ = provider.last
        claude.messages.create(**ASK)
        assert provider.last.why == "nothing that this prompt begins with was stored before"
        claude.messages.create(**ASK)
        assert provider.last.why == "a stored prefix was read; 2000 of 2003 tokens, up to system[0]"
        provider.clock.advance(301)
        claude.messages.create(**ASK)
        shown = httpx2.get(provider.url + "/_emulator/last").json()
        assert shown["why"] == "a prefix could not be read; the cached prefix had expired"
        assert (shown["reason"], shown["read"], shown["written"]) == (Reason.TTL_EXPIRED, 0, 2000)

    def test_eviction_over_http(self, provider: Emulator, claude: anthropic.Anthropic) -> None:
        """All at once."""
        claude.messages.create(**ASK)
        assert httpx2.post(provider.url + "/_emulator/evict").json() == {"evicted": True}
        assert claude.messages.create(**ASK).usage.cache_read_input_tokens == 0


class TestServing:
    """In the foreground, as a command does."""

    def test_a_port_in_use(self) -> None:
        """Says so, whichever way it is started."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(PortInUseError, match=f"port {port} of 127.0.0.1 is in use"), emulator(port):
                pass

    def test_until_it_is_interrupted(self) -> None:
        """It tells where it listens, answers, and ends with the signal."""
        code = (
            "from otel_promptcache.emulator import Emulator, serve\n"
            "serve(Emulator(), '127.0.0.1', 0, lambda url: print(url, flush=True))"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                assert httpx2.get(url + "/_emulator/state").status_code == 200
                process.terminate()
                assert process.wait(60) in (0, -15)
            finally:
                process.kill()

    def test_latency_in_words(self) -> None:
        """A base, and so much for a token that was not read and for one that is said."""
        latency = linear(0.1, uncached=0.001, output=0.01)
        assert latency(2000, 10) == pytest.approx(2.2)
        with pytest.raises(ValueError, match="seconds >= 0"):
            linear(-1)
