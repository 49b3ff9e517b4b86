"""``OTEL_PROMPTCACHE_STREAM_USAGE``: streams are asked for usage, and the application never sees it."""

from __future__ import annotations

import asyncio
import copy
import gzip
import inspect
import json
import re
import zlib
from typing import Any

import openai
import pytest

from otel_promptcache.instrumentation.sieve import Sieve

OM: dict[str, Any] = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}
INPUT = "gen_ai.client.inference.usage.input_tokens"


def asked(provider):
    return [ask.body.get("stream_options", "nothing") for ask in provider.asked]


def usages(provider):
    return [said != "nothing" for said in asked(provider)]


def dumped(values):
    return [value.model_dump() if hasattr(value, "model_dump") else value for value in values]


# --- Ways to stream -----------------------------------------------------------------------------------------


def create(c, body):
    return dumped(c.openai.chat.completions.create(stream=True, **body))


async def async_create(c, body):
    return dumped([chunk async for chunk in await c.async_openai.chat.completions.create(stream=True, **body)])


def within(c, body):
    with c.openai.chat.completions.create(stream=True, **body) as stream:
        return dumped(stream)


def raw(c, body):
    return dumped(c.openai.chat.completions.with_raw_response.create(stream=True, **body).parse())


def lines(c, body):
    with c.openai.chat.completions.with_streaming_response.create(stream=True, **body) as response:
        return [line for line in response.iter_lines() if line]


async def async_lines(c, body):
    async with c.async_openai.chat.completions.with_streaming_response.create(stream=True, **body) as response:
        return [line async for line in response.iter_lines() if line]


def helper(c, body):
    with c.openai.chat.completions.stream(**body) as stream:
        return [event.type for event in stream], stream.get_final_completion().model_dump()


async def async_helper(c, body):
    async with c.async_openai.chat.completions.stream(**body) as stream:
        types = [event.type async for event in stream]
        return types, (await stream.get_final_completion()).model_dump()


WAYS = [create, async_create, within, raw, lines, async_lines, helper, async_helper]


def finished(way, clients, body):
    async def whole():
        try:
            return await way(clients, body)
        finally:
            await clients.aclose()

    return asyncio.run(whole()) if inspect.iscoroutinefunction(way) else way(clients, body)


def alike(value):
    """Without what differs where nothing does: the provider's id of another request, and the ``usage: null`` that it
    adds to every other chunk when it is asked."""
    text = re.sub(r"chatcmpl-[0-9a-f]+", "ID", json.dumps(value))
    return re.sub(r'(\\?)"usage\1": null, ', "", text)


@pytest.mark.parametrize("words", ["", "+gzip", "+split", "+burst", "+ping", "+gzip+split"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_usage_comes_and_the_application_does_not_see_it(way, words, connect, provider, observe, quiet):
    """The same chunks as without us, and the tokens and the price of a stream that was asked."""
    body = {**OM, "model": OM["model"] + words}
    kept = copy.deepcopy(body)
    without_us = finished(way, connect(), body)
    telemetry = observe(stream_usage="true")
    assert alike(finished(way, connect(), body)) == alike(without_us)
    assert body == kept
    assert asked(provider) == ["nothing", {"include_usage": True}]
    told = telemetry.span.attributes
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.cache_read.input_tokens"]) == (5000, 3000)
    assert told["promptcache.cost.total"] == pytest.approx(0.0117)
    assert "promptcache.usage.available" not in told


def test_off_by_default(clients, provider, observe, quiet):
    """Nothing is added, and the span says that the usage is not available."""
    telemetry = observe()
    create(clients, OM)
    assert asked(provider) == ["nothing"]
    assert telemetry.span.attributes["promptcache.usage.available"] is False


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_headers_and_body_as_they_came(coding, connect, streamed, observe, quiet):
    """A body that came compressed is compressed to whoever reads it raw, and says so."""
    parts = [{"choices": [{"index": 0, "delta": {"content": "ok"}}]}, {"choices": [], "usage": {"prompt_tokens": 7}}]
    events = [f"data: {json.dumps({'id': 'c', 'model': 'm', **part})}\n\n".encode() for part in parts]
    packed = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[coding]
    body = packed(b"".join(events))
    headers = {"content_encoding": coding} if coding else {}
    telemetry = observe(stream_usage="true", prices="off")

    def read(way):
        client = connect(respond=lambda _: streamed([body[:9], body[9:]], **headers)).openai
        with client.chat.completions.with_streaming_response.create(stream=True, **OM) as response:
            told = response.http_response
            return told.headers.get("content-encoding", ""), b"".join(getattr(told, way)())

    assert read("iter_bytes") == (coding, events[0])
    said, raw_ = read("iter_raw")
    unpacked = {"": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[coding]
    assert (said, unpacked(raw_)) == (coding, events[0])
    assert telemetry.total(INPUT) == 14


def test_a_host_that_sends_usage_unasked(http, streamed, observe, quiet):
    """Is not asked, and nothing is kept from the application: it would have had it without us."""
    parts = [{"choices": [{"index": 0, "delta": {"content": "ok"}}]}, {"choices": [], "usage": {"prompt_tokens": 7}}]
    body = [f"data: {json.dumps({'id': 'c', 'model': 'm', **part})}\n\n".encode() for part in parts]
    telemetry = observe(stream_usage="true", prices="off")
    for number, host in enumerate(["openrouter.ai/api", "api.mistral.ai"], 1):
        sent = []

        def respond(request, sent=sent):
            sent.append(json.loads(request.content))
            return streamed(body)

        client = openai.OpenAI(
            base_url=f"https://{host}/v1",
            api_key="k",
            http_client=openai.DefaultHttpxClient(transport=http.MockTransport(respond)),
        )
        found = list(client.chat.completions.create(stream=True, **OM))
        assert ([len(chunk.choices) for chunk in found], "stream_options" in sent[0]) == ([1, 0], False)
        assert telemetry.total(INPUT) == 7 * number


def test_tokens_alone(clients, provider, observe, quiet):
    """It needs no diagnosis."""
    telemetry = observe(stream_usage="true", mode="tokens")
    create(clients, OM)
    assert telemetry.total(INPUT) == 5000


@pytest.mark.parametrize(
    ("said", "sent", "chunks"),
    [
        ({"include_usage": True}, {"include_usage": True}, 5),
        ({"include_usage": False}, {"include_usage": False}, 4),
        ({"include_usage": None}, {"include_usage": None}, 4),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}, 4),
    ],
)
def test_what_the_application_says(said, sent, chunks, clients, provider, observe, quiet):
    """Holds; its other options are kept."""
    observe(stream_usage="true")
    mine = dict(said)
    found = create(clients, {**OM, "stream_options": mine})
    assert (asked(provider), len(found), mine) == ([sent], chunks, said)


def test_what_the_application_says_in_its_extra_body(clients, provider, observe, quiet):
    """As well."""
    observe(stream_usage="true")
    create(clients, {**OM, "extra_body": {"stream_options": {"include_usage": False}}})
    assert asked(provider) == [{"include_usage": False}]


def test_only_streams_of_completions_are_asked(clients, provider, observe, quiet):
    """Everything else says its usage anyway."""
    observe(stream_usage="true")
    clients.openai.chat.completions.create(**OM)
    list(clients.openai.responses.create(model="gpt-5.6", input="hi", stream=True))
    list(clients.anthropic.messages.create(model="claude-sonnet-4-6", max_tokens=5, messages=[], stream=True))
    assert asked(provider) == ["nothing"] * 3


def refusal(ask):
    return "Unrecognized request argument supplied: stream_options" if "stream_options" in ask.body else ""


@pytest.mark.parametrize("way", [create, async_create, raw, lines, helper], ids=lambda way: way.__name__)
def test_a_host_that_refuses(way, connect, provider, observe, quiet):
    """The call is made once more without, as one call; the host is not asked again."""
    provider.refuses = refusal
    telemetry = observe(stream_usage="true")
    finished(way, connect(), OM)
    finished(way, connect(), OM)
    assert usages(provider) == [True, False, False]
    assert telemetry.total("promptcache.calls") == 2
    assert [span.status.is_ok for span in telemetry.spans] == [True, True]


def test_servers_on_one_host(http, observe, quiet):
    """Are told apart by their ports: one that refuses says nothing of another."""
    sent = []

    def respond(request):
        asked_ = "stream_options" in json.loads(request.content)
        sent.append((request.url.port, asked_))
        if asked_ and request.url.port == 8001:
            return http.Response(400, json={"error": {"message": "unknown field stream_options"}})
        return http.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: [DONE]\n\n")

    observe(stream_usage="true")
    for port in (8001, 8002, 8001):
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1",
            api_key="k",
            http_client=openai.DefaultHttpxClient(transport=http.MockTransport(respond)),
        )
        list(client.chat.completions.create(stream=True, **OM))
    assert sent == [(8001, True), (8001, False), (8002, True), (8001, False)]


def test_a_refusal_with_422(connect, http, observe, quiet):
    """As validating servers put it."""
    sent = []

    def respond(request):
        sent.append(json.loads(request.content))
        if "stream_options" in sent[-1]:
            return http.Response(422, json={"detail": [{"loc": ["body", "stream_options"], "type": "extra_forbidden"}]})
        return http.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: [DONE]\n\n")

    observe(stream_usage="true")
    assert create(connect(respond=respond), OM) == []
    assert ["stream_options" in body for body in sent] == [True, False]


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_host_that_refuses_without_a_word(status, connect, http, observe, quiet):
    """As long as it has never taken the question, any refusal may be for it."""
    sent = []

    def respond(request):
        sent.append(json.loads(request.content))
        if "stream_options" in sent[-1]:
            return http.Response(status, json={"message": "no"})
        return http.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: [DONE]\n\n")

    observe(stream_usage="true")
    client = connect(respond=respond, max_retries=0)
    assert (create(client, OM), create(client, OM)) == ([], [])
    assert ["stream_options" in body for body in sent] == [True, False, False]


def test_a_host_that_is_out_of_order(connect, http, observe, quiet):
    """Is no host that refuses the question: once it answers again, it is asked."""
    sent = []

    def respond(request):
        sent.append(json.loads(request.content))
        if len(sent) <= 2:
            return http.Response(500, json={"message": "no"})
        return http.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: [DONE]\n\n")

    observe(stream_usage="true")
    client = connect(respond=respond, max_retries=0)
    with pytest.raises(openai.InternalServerError):
        create(client, OM)
    assert create(client, OM) == []
    assert ["stream_options" in body for body in sent] == [True, False, True]


def test_a_refusal_of_something_else(clients, provider, observe, quiet):
    """Is the application's, at once, where the host is known to take the question."""
    telemetry = observe(stream_usage="true")
    create(clients, OM)
    provider.refuses = lambda _: "messages: too long"
    with pytest.raises(openai.BadRequestError, match="too long"):
        create(clients, OM)
    assert (len(provider.asked), telemetry.total("promptcache.calls")) == (2, 2)


def test_retries_ask_as_well(connect, provider, observe, quiet):
    """An attempt that failed for another reason is made again as it was."""
    observe(stream_usage="true")
    create(connect(max_retries=1), {**OM, "model": "gpt-5.6+429once"})
    assert asked(provider) == [{"include_usage": True}] * 2


def test_a_body_that_is_there_already(connect, http, observe, quiet):
    """From a mock or a recording."""
    parts = [{"choices": [{"index": 0, "delta": {"content": "ok"}}]}, {"choices": [], "usage": {"prompt_tokens": 7}}]
    body = "".join(f"data: {json.dumps({'id': 'c', 'model': 'm', **part})}\n\n" for part in parts) + "data: [DONE]\n\n"
    headers = {"content-type": "text/event-stream"}
    telemetry = observe(stream_usage="true", prices="off")
    found = create(connect(respond=lambda _: http.Response(200, headers=headers, content=body.encode())), OM)
    assert [len(chunk["choices"]) for chunk in found] == [1]
    assert telemetry.total(INPUT) == 7


def test_a_chunk_that_has_choices_too_is_passed_on(connect, streamed, observe, quiet):
    """Some providers put usage into the last chunk of all."""
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7}}
    telemetry = observe(stream_usage="true", prices="off")
    found = create(connect(respond=lambda _: streamed([f"data: {json.dumps(last)}\n\n".encode()])), OM)
    assert (len(found), telemetry.total(INPUT)) == (1, 7)


def test_left_early(clients, provider, observe, quiet):
    """A stream that is closed is closed; it is one call without usage."""
    telemetry = observe(stream_usage="true")
    stream = clients.openai.chat.completions.create(stream=True, **{**OM, "model": "gpt-5.6+hold"})
    next(iter(stream))
    stream.close()
    assert telemetry.span.attributes["promptcache.usage.available"] is False


async def test_a_task_that_is_canceled(connect, observe, quiet):
    """While it reads: one call without usage, and no error of ours."""
    clients = connect()
    telemetry = observe(stream_usage="true")
    began = asyncio.Event()

    async def reads():
        create = clients.async_openai.chat.completions.create
        async for _ in await create(stream=True, **{**OM, "model": "gpt-5.6+hold"}):
            began.set()

    task = asyncio.create_task(reads())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clients.aclose()
    telemetry.flush()
    assert telemetry.span.attributes["promptcache.usage.available"] is False
    assert telemetry.total("promptcache.internal.errors") == 0


@pytest.mark.parametrize("words", ["cut", "truncated", "error", "badgzip"])
@pytest.mark.parametrize("way", [create, async_create], ids=lambda way: way.__name__)
def test_broken_streams(way, words, connect, observe, quiet):
    """Break as they do without us, in the words of the HTTP library or the SDK."""
    body = {**OM, "model": f"gpt-5.6+{words}"}

    def outcome(clients):
        try:
            return alike(finished(way, clients, body))
        except Exception as error:
            return type(error).__qualname__, str(error)

    without_us = outcome(connect())
    telemetry = observe(stream_usage="true")
    assert outcome(connect()) == without_us
    assert telemetry.total("promptcache.internal.errors") == 0


SURPLUS = b'data: {"choices":[],"usage":{"prompt_tokens":7}}\n\n'
KEPT = [
    b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":7}}\n\n',
    b'data: {"choices":[],"usage":null,"prompt_filter_results":[]}\n\n',
    b'data: {"choices":[],"usage": nonsense\n\n',
    b': "usage"\n\n',
    b'data: "usage"\n\n',
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("size", [1, 3, 7, 50, 10_000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_what_the_sieve_holds_back(size, newline):
    """The one event that has usage and nothing else, however the body is cut and its lines end."""
    kept = b"".join(KEPT).replace(b"\n", newline)
    body = b"".join([*KEPT[:3], SURPLUS, *KEPT[3:]]).replace(b"\n", newline)
    sieve = Sieve()
    passed = b"".join(sieve.sift(body[start : start + size]) for start in range(0, len(body), size)) + sieve.rest()
    assert passed == kept


@pytest.mark.parametrize("fault", [lambda *_: 1 / 0, lambda *_: None], ids=["raises", "nothing"])
@pytest.mark.parametrize("way", [create, async_create], ids=lambda way: way.__name__)
def test_a_sieve_that_fails(way, fault, connect, observe, monkeypatch):
    """Holds nothing back: the application gets all chunks, at worst the one that was asked for too."""
    without_us = alike(finished(way, connect(), OM))
    observe(stream_usage="true")
    monkeypatch.setattr(Sieve, "sift", fault)
    assert alike(finished(way, connect(), OM)).startswith(without_us[:-1])


def test_what_the_sieve_never_sees_the_end_of():
    """Is passed on all the same."""
    sieve = Sieve()
    assert sieve.sift(b'data: {"usage"') + sieve.rest() == b'data: {"usage"'
    endless = b'data: "usage' + b"x" * 5_000_000
    assert sieve.sift(endless) == endless
