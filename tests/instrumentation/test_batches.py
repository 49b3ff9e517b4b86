"""Batches: submitting and reading them is observed; each item is paid for once, by whoever submitted it."""

from __future__ import annotations

import gc
import inspect
import json
import weakref
from contextvars import ContextVar, copy_context
from typing import Any

import anthropic
import pytest

from otel_promptcache import attribute, conversation, route
from otel_promptcache.emulator import emulator
from otel_promptcache.instrumentation import runtime
from otel_promptcache.observer.batches import Batches

HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters
INPUT, CALLS, COST = "gen_ai.client.inference.usage.input_tokens", "promptcache.calls", "promptcache.cost"
SYSTEM = [{"type": "text", "text": "Be brief. " * 2000, "cache_control": {"type": "ephemeral"}}]
PARAMETERS = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 16,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": "hi"}],
}
REQUESTS: Any = [{"custom_id": f"item-{number}", "params": PARAMETERS} for number in range(3)]


@pytest.fixture
def messages():
    """The batches of the anthropic SDK, answered by the emulator."""
    with emulator() as provider:
        yield anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0).messages.batches


def telemetry_prices():
    return runtime.running().observer.prices


def totals(telemetry):
    telemetry.flush()
    return telemetry.total(CALLS), telemetry.total(INPUT), telemetry.total(COST)


def test_each_item_is_paid_for_once(messages, observe):
    """However often the results are read, to the end or not; at the batch's price."""
    batch = messages.create(requests=REQUESTS)
    alone = [item.result.message.usage for item in messages.results(batch.id)]
    telemetry = observe()
    results = messages.results(batch.id)
    next(iter(results))
    results.close()
    assert telemetry.total(CALLS) <= 3
    for _ in range(3):
        assert [item.result.message.usage for item in messages.results(batch.id)] == alone
    read = sum(usage.cache_read_input_tokens for usage in alone)
    written = sum(usage.cache_creation_input_tokens for usage in alone)
    fresh, output = sum(usage.input_tokens for usage in alone), sum(usage.output_tokens for usage in alone)
    # claude-sonnet-4-6, USD a million: input 3, read 0.30, 5-minute write 3.75, output 15; half of it in a batch.
    usd = (fresh * 3 + read * 0.3 + written * 3.75 + output * 15) / 2e6
    assert totals(telemetry) == (3, fresh + read + written, pytest.approx(usd))
    assert sum(span.attributes["promptcache.batch.items"] for span in telemetry.token_spans) == 3
    assert sum(span.attributes["promptcache.cost.total"] for span in telemetry.token_spans) == pytest.approx(usd)
    assert telemetry.total("promptcache.internal.errors") == 0


def test_reading_has_one_span_with_the_sums(messages, observe):
    """Of what was counted in it, for whoever submitted the batch; reading it again costs nothing."""
    telemetry = observe(metric_keys="team")
    with telemetry.tracer.start_as_current_span("nightly") as nightly, attribute(team="search"), route("/index"):
        batch = messages.create(requests=REQUESTS)
    with telemetry.tracer.start_as_current_span("collecting") as collecting, attribute(team="reading"):
        alone = [item.result.message.usage for item in messages.results(batch.id)]
        list(messages.results(batch.id))
    (span,) = telemetry.token_spans
    read = sum(usage.cache_read_input_tokens for usage in alone)
    written = sum(usage.cache_creation_input_tokens for usage in alone)
    _, tokens, usd = totals(telemetry)
    told = span.attributes
    assert (span.name, span.parent.span_id) == ("fetch_response", collecting.get_span_context().span_id)
    assert [link.context.span_id for link in span.links] == [nightly.get_span_context().span_id]
    assert told["promptcache.batch.items"] == 3
    assert told["gen_ai.usage.input_tokens"] == tokens
    assert told["gen_ai.usage.cache_read.input_tokens"] == read
    assert told["gen_ai.usage.cache_write.input_tokens"] == written
    assert told["gen_ai.usage.output_tokens"] == sum(usage.output_tokens for usage in alone)
    assert told["promptcache.cost.total"] == pytest.approx(usd)
    assert told["promptcache.attr.team"] == "search"
    assert told["promptcache.route"] == "/index"
    assert told["gen_ai.response.model"] == "claude-sonnet-4-6"


def test_sums_on_the_native_span(observe):
    """Where the SDK has a span for reading the results, and it lasts, else on one beside it; never twice."""
    if not HAS_NATIVE:
        pytest.skip("this anthropic SDK has no spans of its own")
    telemetry = observe()
    with emulator() as provider:
        native = {"tracer_provider": telemetry.tracer_provider}
        client = anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0, open_telemetry=native)
        batch = client.messages.batches.create(requests=REQUESTS)
        for _ in range(2):
            list(client.messages.batches.results(batch.id))
    _, tokens, usd = totals(telemetry)
    (span,) = telemetry.token_spans
    assert span.attributes["gen_ai.usage.input_tokens"] == tokens
    assert span.attributes["promptcache.cost.total"] == pytest.approx(usd)


def test_sums_wait_for_the_prices(messages, observe, monkeypatch):
    """Which the first calls of a process may be too early for."""
    telemetry = observe()
    list_ = telemetry_prices()
    batch = messages.create(requests=REQUESTS)
    with monkeypatch.context() as early:
        early.setattr(list_, "ready", lambda _: False)
        early.setattr(list_, "read", lambda _: early.undo())
        list(messages.results(batch.id))
        telemetry.flush()
    (span,) = telemetry.token_spans
    assert span.attributes["promptcache.cost.total"] == pytest.approx(telemetry.total(COST))


def test_items_without_a_price(files, observe):
    """Leave the sum of the costs out: half a bill is a wrong one."""
    unknown = completion(2) | {"model": "acme-7b"}
    client = files([line(1, completion(1)), line(2, unknown)])
    telemetry = observe()
    client.files.content("file-out")
    telemetry.flush()
    (span,) = telemetry.token_spans
    assert span.attributes["gen_ai.usage.input_tokens"] == 10_000
    assert "promptcache.cost.total" not in span.attributes
    assert telemetry.total(COST) == pytest.approx(ITEM)


def test_the_items_are_the_submitters(messages, observe):
    """Attribution, conversation and trace are those of the code that submitted them, not of the one that reads. A span
    for each of them is a matter of taste: there may be a hundred thousand."""
    telemetry = observe(ledger="true", batch_spans="true")
    with telemetry.tracer.start_as_current_span("nightly") as nightly, attribute(team="search"), conversation("c-1"):
        batch = messages.create(requests=REQUESTS)
    with attribute(team="reading"):
        list(messages.results(batch.id))
    assert {labels.get("promptcache.attr.team") for labels, _ in telemetry.points(CALLS)} == {"search"}
    assert [event["promptcache.attr.team"] for event in telemetry.events()] == ["search"] * 3
    assert len(telemetry.token_spans) == 3
    for span in telemetry.token_spans:
        assert span.parent.span_id == nightly.get_span_context().span_id
        assert span.attributes["gen_ai.conversation.id"] == "c-1"
        assert span.attributes["promptcache.batch.id"] == batch.id
        assert span.name == "chat claude-sonnet-4-6"


def test_the_route_is_the_submitters(messages, observe):
    """Whether it was named or found: the reader's is another one's."""

    def nightly():
        return messages.create(requests=REQUESTS)

    telemetry = observe()
    found = nightly()
    with route("/index"):
        named = messages.create(requests=REQUESTS)
    with route("/collect"):
        for batch in (found, named):
            list(messages.results(batch.id))
    routes = {labels["promptcache.route"] for labels, _ in telemetry.points(CALLS)}
    assert routes == {f"{__name__}:nightly", "/index"}


def test_a_submission_holds_nothing_of_the_applications(messages, observe):
    """But attribution and the ids of its span: what was in its context can go."""

    class Session:
        pass

    current: ContextVar[Session] = ContextVar("current")

    def submit():
        session = Session()
        current.set(session)
        messages.create(requests=REQUESTS)
        return weakref.ref(session)

    observe()
    session = copy_context().run(submit)
    gc.collect()
    assert session() is None


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_a_file_of_many_megabytes(pieces, connect, streamed, http, observe, quiet):
    """Only an unfinished line is held, however much comes at once."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    answer = {
        "id": "c",
        "object": "chat.completion",
        "model": "gpt-4.1",
        "choices": [],
        "usage": usage,
        "pad": "x" * 5000,
    }
    lines = [
        json.dumps(
            {"id": f"r{n}", "custom_id": f"{n}", "response": {"status_code": 200, "body": answer}, "error": None}
        )
        for n in range(1200)
    ]
    body = "\n".join(lines).encode()
    step = len(body) // pieces + 1
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    telemetry = observe()
    clients = connect(respond=lambda _: streamed(parts, "application/octet-stream"))
    with clients.openai.files.with_streaming_response.content("file-1") as content:
        assert content.read() == body
    assert sum(value for _, value in telemetry.points(CALLS)) == 1200


def test_a_file_that_is_read_before_its_batch_is_looked_at():
    """Its items are the batch's once that is known, and counted no second time."""
    batches = Batches()
    assert batches.count("file-1", "a")
    batches.wrote("file-1", "batch-1")
    assert not batches.count("file-1", "a")
    assert not batches.count("batch-1", "a")
    assert batches.count("batch-1", "b")
    assert len(batches) == 2
    batches.read("file-2")
    batches.wrote("file-2", "batch-1")
    assert not batches.count("batch-1", "c")
    assert len(batches) == 0


def test_items_are_remembered_up_to_a_limit():
    """Of all batches together; the one that was not looked at for longest is forgotten first, but not who sent it."""
    batches = Batches(items=100)
    for name in ("a", "b", "c"):
        assert all(batches.count(name, f"{name}-{number}") for number in range(40))
        assert len(batches) <= 100
    assert not any(batches.count(name, f"{name}-39") for name in ("b", "c"))
    assert batches.count("a", "a-39")
    assert sum(batches.count("large", str(number)) for number in range(1000)) == 1000
    assert len(batches) <= 100


def test_a_batch_that_was_read_whole_needs_no_items():
    """All of them are counted: which ones need not be known."""
    batches = Batches(items=100)
    for number in range(50):
        assert batches.count("a", str(number))
    batches.read("a")
    assert len(batches) == 0
    assert not batches.count("a", "7")
    assert batches.count("b", "7")


def test_submitting_and_reading_are_observed(messages, observe):
    """As spans without tokens or cost, and durations of operations of their own; an item has no duration."""
    telemetry = observe(batch_spans="true")
    batch = messages.create(requests=REQUESTS)
    list(messages.results(batch.id))
    own = {span.name: span.attributes for span in telemetry.spans if span not in telemetry.token_spans}
    assert sorted(own) == ["create_batch", "fetch_response"]
    assert own["create_batch"]["promptcache.batch.requests"] == 3
    assert own["fetch_response"]["promptcache.batch.items"] == 3
    assert {told["promptcache.batch.id"] for told in own.values()} == {batch.id}
    assert not any("usage" in name or "cost" in name for told in own.values() for name in told)
    durations = telemetry.points("gen_ai.client.operation.duration")
    assert sorted(labels["gen_ai.operation.name"] for labels, _ in durations) == ["create_batch", "fetch_response"]


def test_the_beta_and_the_asynchronous_client(observe, run):
    """Are the same requests."""

    async def whole(url):
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
            batch = await client.beta.messages.batches.create(requests=REQUESTS)
            for _ in range(2):
                async for _ in await client.beta.messages.batches.results(batch.id):
                    pass

    with emulator() as provider:
        telemetry = observe()
        run(whole(provider.url))
    assert telemetry.total(CALLS) == 3


def test_the_ledger_without_spans_of_items(messages, observe):
    """Has each of them, in the trace of whoever submitted them."""
    telemetry = observe(ledger="true")
    with telemetry.tracer.start_as_current_span("nightly") as nightly:
        batch = messages.create(requests=REQUESTS)
    list(messages.results(batch.id))
    assert len({event["gen_ai.response.id"] for event in telemetry.events()}) == 3
    records = [item.log_record for item in telemetry._records.get_finished_logs()]
    assert {record.trace_id for record in records} == {nightly.get_span_context().trace_id}


def test_without_spans(messages, observe):
    """The money is counted all the same."""
    telemetry = observe(spans="never")
    list(messages.results(messages.create(requests=REQUESTS).id))
    assert telemetry.total(CALLS) == 3
    assert telemetry.spans == []


# --- OpenAI: results are a file -----------------------------------------------------------------------------


def completion(number: int) -> dict[str, Any]:
    usage = {"prompt_tokens": 5000, "completion_tokens": 50, "total_tokens": 5050}
    details = {"prompt_tokens_details": {"cached_tokens": 3000}}
    return {"id": f"chatcmpl-{number}", "object": "chat.completion", "model": "gpt-4.1", "usage": usage | details}


def line(number: int, body: Any, status: int = 200) -> bytes:
    response = {"status_code": status, "request_id": f"r{number}", "body": body}
    return json.dumps({"id": f"b{number}", "custom_id": f"item-{number}", "response": response, "error": None}).encode()


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-4.1",
    "usage": {"input_tokens": 5000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 3000}},
}
LINES = [
    line(1, completion(1)),
    line(2, RESPONSE),
    line(3, {"error": {"message": "no"}}, 400),
    json.dumps({"id": "b4", "custom_id": "item-4", "response": None, "error": {"code": "batch_expired"}}).encode(),
]
BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-in",
    "completion_window": "24h",
    "status": "completed",
    "created_at": 1,
}


@pytest.fixture
def files(connect, http):
    """A client of the openai SDK whose only file has these lines."""

    def make(lines=LINES, path="/files/file-out/content"):
        def respond(request):
            if request.url.path.endswith(path):
                return http.Response(200, content=b"\n".join(lines) + b"\n")
            told = BATCH | ({"output_file_id": "file-out"} if request.method == "GET" else {})
            return http.Response(200, json=told)

        return connect(respond=respond).openai

    return make


# gpt-4.1 in a batch, USD a million: input 1, read 0.50, output 4. 2000 x 1 + 3000 x 0.50 + 50 x 4
ITEM = 0.0037


def test_openai_items_are_paid_for_once(files, observe):
    """Chat completions and responses; what failed costs nothing."""
    client = files()
    telemetry = observe()
    with attribute(team="search"):
        client.batches.create(input_file_id="file-in", endpoint="/v1/chat/completions", completion_window="24h")
    done = client.batches.retrieve("batch_1")
    with attribute(team="reading"):
        for _ in range(2):
            assert len(client.files.content(done.output_file_id).text.splitlines()) == 4
    assert totals(telemetry) == (2, 10_000, pytest.approx(2 * ITEM))
    assert {labels.get("promptcache.attr.team") for labels, _ in telemetry.points(CALLS)} == {"search"}
    assert [span.name for span in telemetry.spans] == ["create_batch", "fetch_response", "fetch_response"]
    (span,) = telemetry.token_spans
    assert span.attributes["promptcache.cost.total"] == pytest.approx(2 * ITEM)


def test_results_of_a_batch_of_another_process(files, observe):
    """Are the reader's, for nobody else is known."""
    client = files()
    telemetry = observe()
    with attribute(team="reading"):
        client.files.content("file-out")
    telemetry.flush()
    assert telemetry.total(CALLS) == 2
    assert {labels.get("promptcache.attr.team") for labels, _ in telemetry.points(CALLS)} == {"reading"}


def test_a_file_that_is_read_in_part_and_then_whole(connect, http, observe):
    """A part that was asked for as such is not the whole."""

    def respond(request):
        if "range" in request.headers:
            return http.Response(206, content=LINES[0] + b"\n")
        return http.Response(200, content=b"\n".join(LINES))

    client = connect(respond=respond).openai
    telemetry = observe()
    client.files.content("file-out", extra_headers={"range": "bytes=0-999"})
    telemetry.flush()
    assert telemetry.total(CALLS) == 1
    for _ in range(2):
        client.files.content("file-out")
    telemetry.flush()
    assert telemetry.total(CALLS) == 2


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_a_file_that_is_streamed(size, files, observe):
    """Item by item, as it is read."""
    telemetry = observe()
    with files().files.with_streaming_response.content("file-out") as response:
        read = b"".join(response.iter_bytes(size))
    telemetry.flush()
    assert read == b"\n".join(LINES) + b"\n"
    assert telemetry.total(CALLS) == 2


OTHERS = {
    "a text": [b"hello", b"there"],
    "a picture": [b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100],
    "requests of a batch": [json.dumps({"custom_id": "a", "method": "POST", "body": {}}).encode()],
    "other lines": [b'{"a": 1}', *LINES],
    "one long line": [b"x" * 5_000_000],
    "nothing": [],
}


@pytest.mark.parametrize("lines", OTHERS.values(), ids=OTHERS)
def test_other_files(lines, files, observe, quiet):
    """Are nobody's results, whatever they hold."""
    client = files(lines)
    without_us = client.files.content("file-out").content
    telemetry = observe()
    assert client.files.content("file-out").content == without_us
    telemetry.flush()
    assert telemetry.total(CALLS) == 0
    assert telemetry.total("promptcache.internal.errors") == 0


ODD = [
    b"",
    b"[]",
    b"5",
    b'{"custom_id": 5, "result": 7}',
    b'{"custom_id": "a", "result": {"type": "succeeded"}}',
    b'{"custom_id": "a", "result": {"type": "succeeded", "message": {"usage": []}}}',
    b'{"custom_id": "a", "result": {"type": "errored", "error": 5}}',
    b'{"custom_id": "a", "response": {"body": {"object": []}}}',
    b'{"custom_id": "a", "response": {"body": {"object": "embedding", "usage": {"prompt_tokens": 5}}}}',
    b'{"custom_id": "a", "respon',
    b"\xff\xfe",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_lines_of_any_form(odd, files, observe, quiet):
    """Cost their own item at most: those beside them are counted."""
    client = files([LINES[0], odd, LINES[1]])
    telemetry = observe()
    client.files.content("file-out")
    telemetry.flush()
    assert telemetry.total(CALLS) == 2
    assert telemetry.total("promptcache.internal.errors") == 0


ANSWERS = [
    b"",
    b"[]",
    b"5",
    b'{"id": 5}',
    b'{"data": 5}',
    b'{"input_tokens": "x"}',
    b"<html>",
    b'{"id": "b", "data": [5]}',
]


@pytest.mark.parametrize("body", ANSWERS)
def test_answers_of_any_form(body, connect, http, observe, quiet):
    """To errands: the application gets what it gets without us."""
    headers = {"content-type": "application/json"}

    def outcomes():
        clients = connect(respond=lambda _: http.Response(200, headers=headers, content=body))
        found = []
        for call in (
            lambda: clients.anthropic.messages.count_tokens(model="claude-sonnet-4-6", messages=[]),
            lambda: clients.anthropic.messages.batches.create(requests=REQUESTS),
            lambda: clients.openai.batches.retrieve("b"),
            clients.openai.batches.list,
        ):
            try:
                found.append(repr(call()))
            except Exception as error:
                found.append(type(error).__qualname__)
        return found

    without_us = outcomes()
    telemetry = observe()
    assert outcomes() == without_us
    assert telemetry.total("promptcache.internal.errors") == 0
    assert telemetry.total(CALLS) == 0


def test_an_errand_that_fails(clients, observe, quiet):
    """Is an error of its own span."""
    telemetry = observe()
    with pytest.raises(anthropic.RateLimitError):
        clients.anthropic.messages.count_tokens(model="claude-sonnet-4-6+429", messages=[])
    assert telemetry.span.attributes["error.type"] == "rate_limit_error"
    assert not telemetry.span.status.is_ok


def test_openai_counts_tokens(connect, http, observe):
    """Observed, not priced."""
    telemetry = observe()
    clients = connect(respond=lambda _: http.Response(200, json={"object": "response.input_tokens", "input_tokens": 7}))
    if not hasattr(clients.openai.responses, "input_tokens"):
        pytest.skip("this openai SDK cannot count")
    assert clients.openai.responses.input_tokens.count(model="gpt-5.6", input="hi").input_tokens == 7
    assert telemetry.span.attributes["promptcache.counted.tokens"] == 7
    assert telemetry.total(CALLS) == 0


def test_off(messages, observe):
    """Nothing is observed."""
    telemetry = observe(mode="off")
    list(messages.results(messages.create(requests=REQUESTS).id))
    assert (telemetry.spans, telemetry.total(CALLS)) == ([], 0)
