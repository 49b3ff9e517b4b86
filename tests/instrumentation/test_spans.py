"""One call, one span: whose it is, what stands on it, when it begins and ends, and what is around it."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time

import anthropic
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from otel_promptcache import attribute, conversation, prompt, route, strategy
from otel_promptcache.instrumentation import runtime

HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters
AM = {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
OM = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
CLIENT, INTERNAL, SERVER = SpanKind.CLIENT, SpanKind.INTERNAL, SpanKind.SERVER
CHAT = {"gen_ai.operation.name": "chat"}
TOKENS = "gen_ai.usage.input_tokens"
COST = "promptcache.cost.total"


def named(telemetry, name):
    (span,) = [span for span in telemetry.spans if span.name == name]
    return span


def ours(span):
    return {name: value for name, value in span.attributes.items() if name.startswith("promptcache.")}


def with_system(text, **more):
    system = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    return {**AM, "system": system, **more}


COLD = {"input_tokens": 10, "cache_creation_input_tokens": 5000, "cache_read_input_tokens": 0, "output_tokens": 5}
WARM = {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5000, "output_tokens": 5}


def counting(span, monkeypatch):
    """How often something is written on a span, so far."""
    written = []
    write = span.set_attributes
    monkeypatch.setattr(span, "set_attributes", lambda attributes: (written.append(1), write(attributes)))
    return written


# --- Whose span -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (CLIENT, {"gen_ai.operation.name": "chat"}),
        (CLIENT, {"gen_ai.operation.name": "text_completion"}),
        (CLIENT, {"gen_ai.operation.name": "generate_content"}),
        (CLIENT, {"gen_ai.operation.name": "responses"}),
        (INTERNAL, {"openinference.span.kind": "LLM"}),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else value.name,
)
def test_a_model_span_of_somebody_else_is_enriched(kind, attributes, clients, telemetry, quiet):
    """The span that stands for the call gets what is ours; its token counts are its maker's business."""
    with telemetry.tracer.start_as_current_span("theirs", kind=kind, attributes=attributes):
        clients.anthropic.messages.create(**AM)
    span = telemetry.span
    assert (span.name, span.attributes["promptcache.status"], span.attributes[COST]) == ("theirs", "hit", 0.010575)
    assert not any(name.startswith("gen_ai.usage") for name in span.attributes)
    assert span.status.is_unset


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (INTERNAL, {"gen_ai.operation.name": "chat"}),
        (INTERNAL, {"gen_ai.operation.name": "invoke_agent"}),
        (CLIENT, {"gen_ai.operation.name": "invoke_agent"}),
        (CLIENT, {"gen_ai.operation.name": "embeddings"}),
        (INTERNAL, {"gen_ai.operation.name": "execute_tool"}),
        (INTERNAL, {"openinference.span.kind": "AGENT"}),
        (CLIENT, {"http.request.method": "POST"}),
        (SERVER, {"http.route": "/ask"}),
        (INTERNAL, {}),
    ],
)
def test_a_span_of_anything_else_is_never_enriched(kind, attributes, clients, telemetry, quiet):
    """An agent's, a tool's, a server's span is the parent of the call's own."""
    with telemetry.tracer.start_as_current_span("theirs", kind=kind, attributes=attributes) as theirs:
        clients.anthropic.messages.create(**AM)
    span, outer = named(telemetry, "chat claude-sonnet-4-6"), named(telemetry, "theirs")
    assert ours(outer) == {}
    assert span.parent.span_id == theirs.get_span_context().span_id
    assert telemetry.token_spans == [span]


def test_an_enclosing_model_span_with_two_requests_is_enriched_once(clients, telemetry, quiet):
    """The second request inside gets a span of its own, below the first one's."""
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT) as theirs:
        clients.anthropic.messages.create(**AM)
        clients.openai.chat.completions.create(**OM)
    assert named(telemetry, "theirs").attributes[COST] == 0.010575
    second = named(telemetry, "chat gpt-5.6")
    assert second.attributes[COST] == 0.0117
    assert second.parent.span_id == theirs.get_span_context().span_id
    assert len(telemetry.spans) == 2


def test_a_fan_out_below_one_model_span(connect, telemetry, quiet):
    """Of ten calls at once one enriches the span around them; ten costs are on ten spans."""

    async def fan_out():
        clients = connect()
        with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
            await asyncio.gather(*(clients.async_anthropic.messages.create(**AM) for _ in range(10)))
        await clients.aclose()

    asyncio.run(fan_out())
    assert [span.attributes[COST] for span in telemetry.spans] == [0.010575] * 10
    assert len(telemetry.token_spans) == 9


def test_a_model_span_that_was_started_but_is_not_current(clients, telemetry, quiet):
    """The newest model span begun in this context is the call's, also where its maker does not make it current."""
    theirs = telemetry.tracer.start_span("theirs", kind=CLIENT, attributes=CHAT)
    clients.anthropic.messages.create(**AM)
    clients.anthropic.messages.create(**AM)
    theirs.end()
    assert named(telemetry, "theirs").attributes[COST] == 0.010575
    assert len(telemetry.token_spans) == 1


def test_a_model_span_of_an_earlier_call_is_left_alone(clients, telemetry, quiet):
    """A span that has ended stands for no call to come."""
    telemetry.tracer.start_span("theirs", kind=CLIENT, attributes=CHAT).end()
    clients.anthropic.messages.create(**AM)
    assert ours(named(telemetry, "theirs")) == {}
    assert telemetry.token_spans == [named(telemetry, "chat claude-sonnet-4-6")]


def test_a_model_span_of_another_thread_is_left_alone(clients, telemetry, quiet):
    """What another thread is doing is none of this call's business."""
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
        calling = threading.Thread(target=clients.anthropic.messages.create, kwargs=AM)
        calling.start()
        calling.join()
    assert ours(named(telemetry, "theirs")) == {}
    assert telemetry.token_spans == [named(telemetry, "chat claude-sonnet-4-6")]


def test_a_parent_from_another_process(clients, telemetry, quiet):
    """A remote parent cannot be enriched; the call's span is its child."""
    remote = SpanContext(0x11, 0x22, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(remote)):
        clients.anthropic.messages.create(**AM)
    assert telemetry.span.parent == remote
    assert telemetry.span.context.trace_id == 0x11


def test_an_owner_that_ends_before_the_usage_comes(clients, telemetry, quiet):
    """A companion carries what is ours, below the owner, from the request's start, and without token counts."""
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT) as theirs:
        stream = clients.anthropic.messages.create(stream=True, **AM)
    list(stream)
    companion, owner = named(telemetry, "promptcache claude-sonnet-4-6"), named(telemetry, "theirs")
    assert ours(owner) == {}
    assert ours(companion)["promptcache.cost.total"] == 0.010575
    assert telemetry.token_spans == []
    assert companion.parent.span_id == theirs.get_span_context().span_id
    assert owner.start_time <= companion.start_time <= owner.end_time <= companion.end_time
    assert telemetry.total("promptcache.calls") == 1


def test_an_owner_that_ends_between_first_and_last_usage(provider, clients, telemetry, eventually, quiet):
    """What was known in time is on the owner; nothing is written on an ended span, and there is no second one."""
    body = {**AM, "model": "claude-sonnet-4-6+hold"}
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
        stream = clients.anthropic.messages.create(stream=True, **body)
        next(iter(stream))
    provider.release.set()
    list(stream)
    assert telemetry.span.attributes[COST] == 0.009825
    assert telemetry.total("promptcache.cost") == pytest.approx(0.010575)


@pytest.mark.parametrize("read", [2, 100], ids=["left", "read to the end"])
@pytest.mark.parametrize("mode", ["tokens", "diagnose"])
def test_usage_in_every_chunk(mode, read, connect, streamed, observe, monkeypatch, quiet):
    """As some providers have it in streams: an owner is told when the input's counts are known, and at the end."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1"}
    chunks = []
    for number in range(1, 101):
        usage = {"prompt_tokens": 5000, "completion_tokens": number, "prompt_tokens_details": {"cached_tokens": 3000}}
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop" if number == 100 else None}
        chunks.append(f"data: {json.dumps({**base, 'choices': [choice], 'usage': usage})}\n\n".encode())
    client = connect(respond=lambda _: streamed(chunks)).openai
    telemetry = observe(mode=mode)
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT) as span:
        written = counting(span, monkeypatch)
        with client.chat.completions.create(stream=True, **OM | {"model": "gpt-4.1"}) as stream:
            for _ in range(read):
                next(stream)
        del stream
    assert len(written) <= 3
    # gpt-4.1, USD a million: output 8
    assert telemetry.span.attributes["promptcache.cost.output"] == pytest.approx(read * 8e-6)
    assert telemetry.total("gen_ai.client.inference.usage.output_tokens") == read


def test_a_span_of_whoever_suppresses_the_others(clients, telemetry, quiet):
    """It is written on, and nothing is made below it; without such a span nobody is observed."""
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT), suppress_instrumentation():
        clients.anthropic.messages.create(**AM)
    assert telemetry.span.attributes[COST] == 0.010575
    with suppress_instrumentation():
        clients.anthropic.messages.create(**AM)
    assert (len(telemetry.spans), telemetry.total("promptcache.calls")) == (1, 1)


LATE = """
def create(wrapped, client, body, tracer):
    answer = wrapped(**body)
    span = tracer.start_span("theirs", kind=CLIENT)
    span.set_attribute("gen_ai.usage.input_tokens", answer.usage.prompt_tokens)
    span.end()
    return answer
"""


@pytest.mark.parametrize(("file", "counted"), [("/lib/site-packages/peer.py", 5000), ("/app/decorated.py", 10000)])
def test_a_span_that_is_made_when_the_answer_is_there(file, counted, clients, telemetry, quiet):
    """Of a library that wraps the SDK's method: ours is a companion. A function of the application's is none."""
    peer = {"CLIENT": CLIENT, "__name__": "peer"}
    exec(compile(LATE, file, "exec"), peer)
    peer["create"](clients.openai.chat.completions.create, clients.openai, OM, telemetry.tracer)
    assert sum(span.attributes[TOKENS] for span in telemetry.token_spans) == counted
    (span,) = [span for span in telemetry.spans if ours(span)]
    assert span.attributes[COST] == 0.0117
    assert span.name == ("promptcache gpt-5.6" if counted == 5000 else "chat gpt-5.6")


def test_a_provider_without_a_hash(monkeypatch):
    """Some are compared by value."""
    from otel_promptcache import telemetry as room
    from otel_promptcache.instrumentation import runtime

    class Provider(TracerProvider):  # noqa: PLW1641
        def __eq__(self, other):
            return self is other

    provider = Provider()
    with pytest.raises(TypeError):
        hash(provider)
    runtime.start(tracer_provider=provider)
    assert provider in room._watched


@pytest.mark.skipif(not HAS_NATIVE, reason="this anthropic SDK has no spans of its own")
class TestNative:
    """The spans that the anthropic SDK emits itself."""

    def test_raw_stream_below_another_model_span(self, connect, telemetry, quiet):
        """Whoever made the outer span counts; the SDK's own gets no usage from us."""
        client = connect(telemetry.tracer_provider).anthropic
        with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):  # noqa: SIM117
            with client.messages.with_streaming_response.create(**AM) as response:
                response.read()
        assert telemetry.token_spans == []
        assert named(telemetry, "anthropic.messages.create").attributes[COST] == 0.010575

    def test_enriched_and_not_doubled(self, connect, telemetry, quiet):
        """The sum of tokens over the trace is what the provider counted, and ours stands beside it."""
        connect(telemetry.tracer_provider).anthropic.messages.create(**AM)
        span = telemetry.span
        assert span.name == "anthropic.messages.create"
        assert (span.attributes[TOKENS], span.attributes[COST]) == (5100, 0.010575)

    def test_raw_stream_gets_its_missing_usage_from_us(self, connect, telemetry, quiet):
        """The SDK records no usage where the application reads the bytes; nobody else will."""
        client = connect(telemetry.tracer_provider).anthropic
        with client.messages.with_streaming_response.create(**AM) as response:
            response.read()
        assert telemetry.span.attributes[TOKENS] == 5100

    def test_below_a_model_span_of_a_third(self, connect, telemetry, quiet):
        """With two spans for one call the inner one is enriched, once."""
        with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
            connect(telemetry.tracer_provider).anthropic.messages.create(**AM)
        assert ours(named(telemetry, "theirs")) == {}
        assert named(telemetry, "anthropic.messages.create").attributes[COST] == 0.010575

    def test_duration_is_recorded_for_it(self, connect, telemetry, quiet):
        """It records no metrics of its own, so the histogram is ours to fill."""
        connect(telemetry.tracer_provider).anthropic.messages.create(**AM)
        ((_, point),) = telemetry.points("gen_ai.client.operation.duration")
        assert point.count == 1


def test_duration_is_left_to_an_owner_that_measures_it(clients, telemetry, quiet):
    """Other instrumentations record the same histogram; two of them would double its count."""
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
        clients.anthropic.messages.create(**AM)
    assert telemetry.points("gen_ai.client.operation.duration") == []


def test_spans_always(clients, observe, quiet):
    """``SPANS=always`` makes a span of ours and leaves the other's alone."""
    telemetry = observe(spans="always")
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
        clients.anthropic.messages.create(**AM)
    assert ours(named(telemetry, "theirs")) == {}
    assert named(telemetry, "chat claude-sonnet-4-6").attributes[TOKENS] == 5100


def test_spans_never(clients, observe, quiet):
    """``SPANS=never`` touches no span; metrics and ledger are complete."""
    telemetry = observe(spans="never", ledger="true")
    with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
        clients.anthropic.messages.create(**AM)
    clients.anthropic.messages.create(**AM)
    assert ours(telemetry.span) == {}
    assert telemetry.total("promptcache.calls") == 2
    assert [event[COST] for event in telemetry.events()] == [0.010575, 0.010575]


# --- Sampling ---------------------------------------------------------------------------------------------


def test_what_a_sampler_drops(clients, observe, quiet):
    """No span; but the money is counted and in the ledger."""
    telemetry = observe(sampler=sampling.ALWAYS_OFF, ledger="true")
    list(clients.anthropic.messages.create(stream=True, **AM))
    assert telemetry.spans == []
    assert telemetry.total("promptcache.cost") == pytest.approx(0.010575)
    assert [event[COST] for event in telemetry.events()] == [0.010575]


def test_no_attributes_are_built_for_a_dropped_span(clients, observe, monkeypatch):
    """Where no span records, building what would stand on it is saved."""
    from otel_promptcache.telemetry import spans

    built = []
    for name in ("own_attributes", "convention_attributes"):
        monkeypatch.setattr(spans, name, lambda seen, name=name: built.append(name) or {})
    telemetry = observe(sampler=sampling.ALWAYS_OFF)
    clients.anthropic.messages.create(**AM)
    assert (built, telemetry.total("promptcache.calls")) == ([], 1)


def test_what_a_head_sampler_is_told(clients, observe):
    """Operation, provider, model, address and port are known before the request."""

    class Sampler(sampling.Sampler):
        def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, *rest, **more):
            self.told = {"name": name, "kind": kind, **(attributes or {})}
            return sampling.SamplingResult(sampling.Decision.DROP)

        def get_description(self):
            return "told"

    sampler = Sampler()
    observe(sampler=sampler)
    clients.anthropic.messages.create(stream=True, **AM).close()
    port = sampler.told.pop("server.port")
    assert isinstance(port, int)
    assert sampler.told == {
        "name": "chat claude-sonnet-4-6",
        "kind": CLIENT,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-6",
        "gen_ai.request.stream": True,
        "server.address": "127.0.0.1",
    }


# --- What is current ---------------------------------------------------------------------------------------


@pytest.fixture
def inside(telemetry, http, connect):
    """Clients whose requests make a span of their own, as an HTTP instrumentation does."""

    def respond(_):
        with telemetry.tracer.start_as_current_span("POST", kind=CLIENT):
            usage = {"prompt_tokens": 100, "completion_tokens": 7}
            return http.Response(200, json={"id": "c1", "object": "chat.completion", "choices": [], "usage": usage})

    return connect(respond=respond)


def current():
    return trace.get_current_span().get_span_context().is_valid


def test_our_span_is_current_during_the_request(inside, telemetry, quiet):
    """The HTTP client's span is its child, and so is whatever propagates context."""
    inside.openai.chat.completions.create(**OM)
    assert not current()
    assert named(telemetry, "POST").parent.span_id == named(telemetry, "chat gpt-5.6").context.span_id


async def test_our_span_is_current_during_an_async_request(inside, telemetry, quiet):
    """The same in a task, which afterwards has its own context back."""
    with telemetry.tracer.start_as_current_span("the task") as task:
        await inside.async_openai.chat.completions.create(**OM)
        assert trace.get_current_span() is task
    await inside.aclose()
    assert named(telemetry, "POST").parent.span_id == named(telemetry, "chat gpt-5.6").context.span_id
    assert named(telemetry, "chat gpt-5.6").parent.span_id == named(telemetry, "the task").context.span_id


def test_our_span_is_not_current_while_a_stream_is_read(clients, telemetry, quiet):
    """Spans of the application between two events are not children of the call."""
    for _ in clients.anthropic.messages.create(stream=True, **AM):
        assert not current()
        telemetry.tracer.start_span("between").end()
    assert all(span.parent is None for span in telemetry.spans)


def test_our_span_is_not_current_after_an_error(clients, telemetry, quiet):
    """An exception leaves no context behind."""
    with pytest.raises(anthropic.RateLimitError):
        clients.anthropic.messages.create(**{**AM, "model": "claude-sonnet-4-6+429"})
    assert not current()


# --- What stands on it -------------------------------------------------------------------------------------


def test_the_span_of_a_stream(clients, telemetry, quiet):
    """Everything the conventions know of the call, under their names and in their types."""
    list(clients.anthropic.messages.create(stream=True, **AM))
    attributes = dict(telemetry.span.attributes)
    first_chunk = attributes.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(first_chunk, float)
    assert 0 < first_chunk <= (telemetry.span.end_time - telemetry.span.start_time) / 1e9
    assert attributes.pop("gen_ai.response.id").startswith("msg_")
    attributes.pop("server.port")
    assert {name: value for name, value in attributes.items() if not name.startswith("promptcache.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-6",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.model": "claude-sonnet-4-6",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": 5100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 3000,
        "gen_ai.usage.cache_write.input_tokens": 2000,
        "server.address": "127.0.0.1",
    }


def test_our_own_attributes(clients, telemetry, quiet):
    """Verdict, money, identity: names, types and values."""
    clients.anthropic.messages.create(**with_system("Be brief. " * 100))
    attributes = ours(telemetry.span)
    for name in ("promptcache.prefix.id", "promptcache.lineage.id", "promptcache.key.id"):
        assert int(attributes.pop(name), 16)
    sections = attributes.pop("promptcache.fingerprint").split(",")
    assert [section.partition(":")[0] for section in sections] == ["system", "messages"]
    assert attributes.pop("promptcache.price.version").startswith("genai-prices ")
    assert attributes.pop("promptcache.route").endswith(":test_our_own_attributes")
    assert attributes == {
        "promptcache.status": "hit",
        "promptcache.hit_ratio": 3000 / 5100,
        "promptcache.hit_depth": 0.0,
        "promptcache.cost.total": 0.010575,
        "promptcache.cost.read": 0.0009,
        "promptcache.cost.write": 0.008625,
        "promptcache.cost.uncached": 0.0003,
        "promptcache.cost.output": 0.00075,
        "promptcache.cost.without_cache": 0.01605,
        "promptcache.cost.saving": 0.005475,
        "promptcache.schema": 1,
    }


def test_a_span_lasts_as_long_as_the_call(provider, clients, telemetry, quiet):
    """It ends with the last byte, not when ``create`` returns."""
    stream = clients.anthropic.messages.create(stream=True, **{**AM, "model": "claude-sonnet-4-6+hold"})
    next(iter(stream))
    assert telemetry.spans == []
    provider.release.set()
    list(stream)
    span = telemetry.span
    ((_, point),) = telemetry.points("gen_ai.client.operation.duration")
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(point.sum, abs=1e-6)


def test_a_miss_links_to_the_request_it_should_have_matched(provider, clients, telemetry, quiet):
    """The link leads to the span of the earlier request and says the reason."""
    provider.will_report(COLD, COLD)
    clients.anthropic.messages.create(**with_system("The time is 09:00. " + "Be helpful. " * 100))
    clients.anthropic.messages.create(**with_system("The time is 09:01. " + "Be helpful. " * 100))
    first, second = telemetry.spans
    assert first.links == ()
    (link,) = second.links
    assert (link.context.trace_id, link.context.span_id) == (first.context.trace_id, first.context.span_id)
    assert dict(link.attributes) == {"promptcache.reason": "system_changed"}
    attributes = ours(second)
    assert (attributes["promptcache.status"], attributes["promptcache.reason"]) == ("miss", "system_changed")
    assert (attributes["promptcache.cause"], attributes["promptcache.path"]) == ("timestamp", "system[0]")
    assert (attributes["promptcache.line"], attributes["promptcache.lost.tokens"]) == (1, 5000)
    # 5000 x (3.75 - 0.30) a million
    assert attributes["promptcache.lost.usd"] == 0.01725


def test_a_miss_explains_itself(provider, clients, telemetry, quiet):
    """One line: what happened, where, how it is known, what to do; how sure, and who can act. Nothing of the prompt."""
    provider.will_report(COLD, COLD)
    clients.anthropic.messages.create(**with_system("The time is 09:00. " + "Be helpful. " * 100))
    clients.anthropic.messages.create(**with_system("The time is 09:01. " + "Be helpful. " * 100))
    first, second = map(ours, telemetry.spans)
    assert second["promptcache.explanation"] == (
        "The system prompt differs from the earlier request's (`system[0]`, line 1). By the look of it: a time stands "
        "in the text and moved. 0 of 2 segments are equal. "
        "Fix: Leave the time out, or send it in the newest user message."
    )
    told = "promptcache.explanation", "promptcache.confidence", "promptcache.actionability"
    assert not set(told) & set(first)


@pytest.mark.parametrize(
    ("usage", "confidence", "who"),
    [(COLD, "certain", "application"), ({"input_tokens": 10, "output_tokens": 5}, None, "application")],
    ids=["a moment after", "no usage"],
)
def test_how_sure_and_who_can_act(usage, confidence, who, provider, clients, observe, quiet):
    """Where there is room beside what the call cost."""
    telemetry = observe(prices="false")
    now = time.time()
    runtime.running().observer.clock = lambda: now  # two seconds after the write the verdict would be another one
    provider.will_report(COLD, usage)
    for _ in range(2):
        clients.anthropic.messages.create(**with_system("Be helpful. " * 100))
    attributes = ours(telemetry.spans[-1])
    assert attributes.get("promptcache.confidence") == confidence
    assert attributes["promptcache.actionability"] == who


def test_a_link_between_spans_of_somebody_else(provider, clients, telemetry, quiet):
    """An enriched owner is linked from and to like a span of ours, once."""
    provider.will_report(COLD, COLD)
    for minute in ("00", "01"):
        with telemetry.tracer.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT):
            body = with_system(f"The time is 09:{minute}. " + "Be helpful. " * 100)
            list(clients.anthropic.messages.create(stream=True, **body))
    first, second = telemetry.spans
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


LAVISH = {
    "many": {f"key_{number}": "v" * 40 for number in range(30)},
    "long": {f"key_{number}": "v" * 1000 for number in range(3)},
    "long names": {f"{'k' * 300}_{number}": "v" for number in range(9)},
    "not ascii": {f"key_{number}": "\N{SNOWMAN}" * 300 for number in range(9)},
}


@pytest.mark.parametrize("keys", LAVISH.values(), ids=LAVISH)
@pytest.mark.parametrize("size", [10, 2000], ids=["short", "long"])
def test_few_and_small_attributes(size, keys, provider, clients, telemetry, quiet):
    """Whatever is said of a call, at most 25 attributes and two kilobytes are ours, and the verdict is among them."""
    provider.will_report(COLD, COLD)
    for minute in ("00", "01"):
        with (
            attribute(user="u" * size, **keys),
            route("r" * size),
            strategy("s" * size),
            prompt("p" * size, "1" * size),
        ):
            body = with_system(f"The time is 09:{minute}. " + "Be helpful. " * 100)
            clients.anthropic.messages.create(**body)
    attributes = dict(telemetry.spans[-1].attributes)
    attributes = {
        name: value for name, value in attributes.items() if name.startswith(("promptcache", "gen_ai.prompt"))
    }
    assert len(attributes) <= 25
    assert len(json.dumps(attributes, ensure_ascii=False).encode()) <= 2048
    assert attributes["promptcache.status"] == "miss"
    # 5000 x 3.75 + 10 x 3 + 5 x 15 a million
    assert attributes["promptcache.cost.total"] == 0.018855
    assert attributes["promptcache.schema"] == 1


def test_attribution(clients, telemetry, quiet):
    """What the application said of a call stands on its span; a user is a keyed hash."""
    said = attribute(team="search", user="alice"), route("/ask"), strategy("two marks"), prompt("answer", "7")
    with said[0], said[1], said[2], said[3], conversation("c-1"):
        clients.anthropic.messages.create(**AM)
    attributes = telemetry.span.attributes
    assert attributes["promptcache.attr.team"] == "search"
    assert len(attributes["promptcache.attr.user"]) == 16
    assert attributes["promptcache.route"] == "/ask"
    assert attributes["promptcache.strategy"] == "two marks"
    assert (attributes["gen_ai.prompt.name"], attributes["gen_ai.prompt.version"]) == ("answer", "7")
    assert attributes["gen_ai.conversation.id"] == "c-1"


# --- Retries, suppression, nesting -------------------------------------------------------------------------


def passing(request, call_next):
    """A middleware that does nothing."""
    return call_next(request)


@pytest.mark.parametrize("middleware", [None, [passing]], ids=["plain", "middleware"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_retries_are_one_call(stream, middleware, connect, telemetry, quiet):
    """A refused attempt and the one that succeeds are one span, counted once, priced once, and no error."""
    options = {} if middleware is None else {"middleware": middleware}
    try:
        client = connect(max_retries=2).anthropic.with_options(**options)
    except TypeError:
        pytest.skip("this anthropic SDK has no middleware")
    result = client.messages.create(stream=stream, **{**AM, "model": "claude-sonnet-4-6+429once"})
    if stream:
        list(result)
    span = telemetry.span
    assert span.attributes["http.request.resend_count"] == 1
    assert (span.attributes[TOKENS], span.attributes[COST]) == (5100, 0.010575)
    assert span.attributes["promptcache.status"] == "hit"
    assert span.status.is_unset
    assert "error.type" not in span.attributes
    assert telemetry.total("promptcache.calls") == 1


def test_retries_that_all_fail_are_one_call(connect, telemetry, quiet):
    """The error that the application sees at last is the call's."""
    with pytest.raises(anthropic.RateLimitError):
        connect(max_retries=2).anthropic.messages.create(**{**AM, "model": "claude-sonnet-4-6+429"})
    span = telemetry.span
    assert span.attributes["http.request.resend_count"] == 2
    assert (span.attributes["error.type"], span.status.status_code) == ("rate_limit_error", StatusCode.ERROR)
    assert telemetry.total("promptcache.calls") == 1


def test_suppressed_instrumentation(clients, observe, quiet):
    """Under OpenTelemetry's suppression key nothing is observed at all."""
    telemetry = observe(ledger="true")
    with suppress_instrumentation():
        clients.anthropic.messages.create(**AM)
        list(clients.openai.chat.completions.create(stream=True, **OM))
    assert telemetry.spans == []
    assert telemetry.points("promptcache.calls") == []
    assert telemetry.events() == []
    clients.anthropic.messages.create(**AM)
    assert telemetry.total("promptcache.calls") == 1


def test_calls_made_by_a_middleware(connect, telemetry, quiet):
    """A call that a middleware makes within a call has its own span, tokens and price, and takes none from it."""
    inner = connect()

    def middleware(request, call_next):
        inner.openai.chat.completions.create(**OM)
        inner.anthropic.messages.count_tokens(model=AM["model"], messages=AM["messages"])
        answer = call_next(request)
        list(inner.anthropic.messages.create(stream=True, **{**AM, "model": "claude-opus-4-6"}))
        return answer

    try:
        outer = connect(middleware=[middleware]).anthropic
    except TypeError:
        pytest.skip("this anthropic SDK has no middleware")
    outer.messages.create(**AM)
    assert not current()
    spans = {span.name: span for span in telemetry.spans}
    assert spans.pop("count_tokens claude-sonnet-4-6").attributes["promptcache.counted.tokens"] == 5100
    assert set(spans) == {"chat claude-sonnet-4-6", "chat gpt-5.6", "chat claude-opus-4-6"}
    assert [spans[name].attributes[TOKENS] for name in sorted(spans)] == [5100, 5100, 5000]
    assert telemetry.total("promptcache.calls") == 3
    assert spans["chat claude-sonnet-4-6"].attributes[COST] == 0.010575


def test_two_tracer_providers(clients, connect, telemetry, quiet):
    """A model span of another provider than ours is recognised while it is current."""
    elsewhere = TracerProvider().get_tracer("theirs")
    with elsewhere.start_as_current_span("theirs", kind=CLIENT, attributes=CHAT) as theirs:
        clients.anthropic.messages.create(**AM)
    assert theirs.attributes[COST] == 0.010575
    assert telemetry.spans == []
