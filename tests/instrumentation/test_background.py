"""Responses in the background: priced once, when the end is known, for whoever asked for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import openai
import pytest
from opentelemetry.trace import SpanKind

from otel_promptcache import attribute, route

CALLS, COST = "promptcache.calls", "promptcache.cost"
ASKED: dict[str, Any] = {"model": "gpt-4.1", "input": "hi", "background": True}
USAGE = {
    "input_tokens": 5000,
    "output_tokens": 50,
    "total_tokens": 5050,
    "input_tokens_details": {"cached_tokens": 3000},
}
# gpt-4.1, USD a million: input 2, read 0.50, output 8
USD = (2000 * 2 + 3000 * 0.5 + 50 * 8) / 1e6


def response(status, usage=None, **more):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "background": True,
        "status": status,
        "model": "gpt-4.1",
        "error": None,
        "incomplete_details": None,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    } | more


QUEUED, WORKING, DONE = response("queued"), response("in_progress"), response("completed", USAGE)
FAILED = response("failed", error={"code": "server_error", "message": "we broke"})
INCOMPLETE = response("incomplete", USAGE, incomplete_details={"reason": "max_output_tokens"})


def events(*documents):
    found = []
    for number, document in enumerate(documents):
        kind = f"response.{'created' if document['status'] == 'queued' else document['status']}"
        data = json.dumps({"type": kind, "sequence_number": number, "response": document})
        found.append(f"event: {kind}\ndata: {data}\n\n".encode())
    return found


@pytest.fixture
def answering(connect, http, streamed):
    """Clients whose requests are answered with these, one after the other; a list of them is a stream."""

    def make(*answers):
        left = list(answers)

        def respond(_):
            answer = left.pop(0)
            return streamed(answer) if isinstance(answer, list) else http.Response(200, json=answer)

        return connect(respond=respond)

    return make


def totals(telemetry):
    telemetry.flush()
    return telemetry.total(CALLS), telemetry.total(COST)


def test_a_response_is_paid_for_once(answering, observe, quiet):
    """When it is done, however often it is asked for; until then there is no call."""
    client = answering(QUEUED, WORKING, DONE, DONE, DONE).openai
    telemetry = observe(ledger="true")
    client.responses.create(**ASKED)
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (0, 0)
    assert telemetry.events() == []
    for _ in range(3):
        assert client.responses.retrieve("resp_1").usage.input_tokens == 5000
    assert totals(telemetry) == (1, pytest.approx(USD))
    assert telemetry.total("promptcache.usage_missing.calls") == 0
    (span,) = telemetry.token_spans
    assert (span.name, span.attributes["gen_ai.usage.cache_read.input_tokens"]) == ("chat gpt-4.1", 3000)
    assert span.attributes["promptcache.cost.total"] == pytest.approx(USD)
    assert [event["gen_ai.response.id"] for event in telemetry.events()] == ["resp_1"]
    assert telemetry.total("promptcache.internal.errors") == 0


def test_it_is_the_submitters(answering, observe):
    """Attribution, route and trace."""
    client = answering(QUEUED, DONE).openai
    telemetry = observe()
    with telemetry.tracer.start_as_current_span("asking") as asking, attribute(team="search"), route("/ask"):
        client.responses.create(**ASKED)
    with attribute(team="reading"), route("/poll"):
        client.responses.retrieve("resp_1")
    ((labels, _),) = telemetry.points(CALLS)
    assert (labels["promptcache.attr.team"], labels["promptcache.route"]) == ("search", "/ask")
    (span,) = telemetry.token_spans
    assert span.parent.span_id == asking.get_span_context().span_id


def test_its_request_was_timed_when_it_was_made(answering, observe):
    """Not again when the answer is fetched."""
    client = answering(QUEUED, DONE).openai
    telemetry = observe()
    client.responses.create(**ASKED)
    client.responses.retrieve("resp_1")
    telemetry.flush()
    assert sum(point.count for _, point in telemetry.points("gen_ai.client.operation.duration")) == 1


def test_asynchronous(answering, observe, quiet):
    """Alike."""
    clients = answering(QUEUED, DONE, DONE)

    async def whole():
        await clients.async_openai.responses.create(**ASKED)
        for _ in range(2):
            await clients.async_openai.responses.retrieve("resp_1")
        await clients.aclose()

    telemetry = observe()
    asyncio.run(whole())
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_a_stream_that_is_read_to_the_end(answering, observe, quiet):
    """Is a call like any other; asking for the response later costs nothing."""
    client = answering(events(QUEUED, WORKING, DONE), DONE).openai
    telemetry = observe()
    assert len(list(client.responses.create(stream=True, **ASKED))) == 3
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))
    assert len(telemetry.spans) == 1


def test_a_stream_that_is_taken_up_again(answering, observe, quiet):
    """After it was dropped: the end is told by the second."""
    client = answering(events(QUEUED, WORKING, DONE), events(WORKING, DONE), DONE).openai
    telemetry = observe()
    with client.responses.create(stream=True, **ASKED) as stream:
        next(stream)
    assert totals(telemetry) == (0, 0)
    assert len(list(client.responses.retrieve("resp_1", stream=True, starting_after=0))) == 2
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_a_stream_and_a_retrieval_at_once(answering, observe, quiet):
    """Whichever is first to tell the end."""
    client = answering(events(QUEUED, WORKING, DONE), DONE).openai
    telemetry = observe()
    with client.responses.create(stream=True, **ASKED) as stream:
        next(stream)
        client.responses.retrieve("resp_1")
        assert len(list(stream)) == 2
    assert totals(telemetry) == (1, pytest.approx(USD))


ENDS = {
    "incomplete": (INCOMPLETE, USD, 0, ""),
    "failed": (FAILED, 0, 0, "server_error"),
    "failed, and billed": (FAILED | {"usage": USAGE}, USD, 0, "server_error"),
    "cancelled": (response("cancelled"), 0, 1, ""),
}


@pytest.mark.parametrize(("end", "usd", "missing", "error"), ENDS.values(), ids=ENDS)
def test_ends(end, usd, missing, error, answering, observe, quiet):
    """One call each, with what was billed for it."""
    client = answering(QUEUED, end, end).openai
    telemetry = observe(ledger="true")
    client.responses.create(**ASKED)
    for _ in range(2):
        client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(usd))
    assert telemetry.total("promptcache.usage_missing.calls") == missing
    assert [event.get("error.type", "") for event in telemetry.events()] == [error]


def test_a_body_that_is_too_long_to_be_read(answering, observe, quiet):
    """Pictures come in it: its usage is found all the same, and the model is the one that was asked for."""
    pictures = response("completed", USAGE, output=[{"type": "image_generation_call", "result": "x" * (5 << 20)}])
    clients = answering(QUEUED, pictures)
    telemetry = observe()
    clients.openai.responses.retrieve(clients.openai.responses.create(**ASKED).id)
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_a_stream_that_breaks_off(answering, observe, quiet):
    """The response goes on without it, and is paid for when somebody asks for it."""
    error = {
        "type": "error",
        "code": "server_error",
        "message": "the stream is gone",
        "param": None,
        "sequence_number": 1,
    }
    clients = answering([*events(QUEUED), f"event: error\ndata: {json.dumps(error)}\n\n".encode()], DONE)
    telemetry = observe()
    with contextlib.suppress(openai.APIError):
        list(clients.openai.responses.create(**ASKED, stream=True))
    clients.openai.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_it_takes_nobodys_span(answering, observe, quiet):
    """Where it is fetched, a span may be open that stands for another call."""
    clients = answering(QUEUED, DONE)
    telemetry = observe()
    identity = clients.openai.responses.create(**ASKED).id
    model = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4.1-mini"}
    with telemetry.tracer.start_as_current_span("chat gpt-4.1-mini", kind=SpanKind.CLIENT, attributes=model) as span:
        clients.openai.responses.retrieve(identity)
    assert "promptcache.cost.total" not in span.attributes
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_cancelling_it(answering, observe, quiet):
    """Tells the end as well."""
    client = answering(QUEUED, response("cancelled", USAGE), response("cancelled", USAGE)).openai
    telemetry = observe()
    client.responses.create(**ASKED)
    client.responses.cancel("resp_1")
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_responses_that_nobody_waits_for(answering, observe, quiet):
    """Of another process, or paid for already: looking at them costs nothing, and makes no span."""
    client = answering(DONE, DONE | {"background": False}, DONE).openai
    telemetry = observe()
    client.responses.retrieve("resp_1")
    assert (totals(telemetry), telemetry.spans) == ((0, 0), [])
    client.responses.create(model="gpt-4.1", input="hi")
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))


def test_below_a_span_of_somebody_elses(answering, observe, quiet):
    """Who counts the tokens of a call that has a span of another's is not us: ours stands beside it."""
    client = answering(QUEUED, DONE).openai
    telemetry = observe()
    chat = {"gen_ai.operation.name": "chat"}
    with telemetry.tracer.start_as_current_span("theirs", kind=SpanKind.CLIENT, attributes=chat):
        client.responses.create(**ASKED)
    client.responses.retrieve("resp_1")
    assert telemetry.token_spans == []
    (span,) = [span for span in telemetry.spans if "promptcache.cost.total" in span.attributes]
    assert span.attributes["promptcache.cost.total"] == pytest.approx(USD)
    assert totals(telemetry) == (1, pytest.approx(USD))


ODD = [b"", b"[]", b"5", b"<html>", b'{"id": 5}', b'{"id": "resp_1", "status": []}', b'{"id": "resp_1", "usage": 7}']


@pytest.mark.parametrize("body", ODD)
def test_answers_of_any_form(body, connect, http, observe, quiet):
    """The application gets what it gets without us."""
    headers = {"content-type": "application/json"}

    def outcome():
        left = [json.dumps(QUEUED).encode(), body]
        client = connect(respond=lambda _: http.Response(200, headers=headers, content=left.pop(0))).openai
        client.responses.create(**ASKED)
        try:
            return repr(client.responses.retrieve("resp_1"))
        except Exception as error:
            return type(error).__qualname__

    without_us = outcome()
    telemetry = observe()
    assert outcome() == without_us
    assert telemetry.total("promptcache.internal.errors") == 0


def test_a_response_that_is_not_found(connect, http, observe, quiet):
    """Is the application's error, and still waited for."""
    answers = [(200, QUEUED), (404, {"error": {"message": "not found"}}), (200, DONE)]

    def respond(_):
        status, document = answers.pop(0)
        return http.Response(status, json=document)

    client = connect(respond=respond).openai
    telemetry = observe()
    client.responses.create(**ASKED)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    client.responses.retrieve("resp_1")
    assert totals(telemetry) == (1, pytest.approx(USD))
