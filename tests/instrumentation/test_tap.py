"""Watching a body on its way: every byte passes untouched, usage is found wherever it lies, nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import threading
import tracemalloc
import zlib
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from servers.canned import http_library

from otel_promptcache.instrumentation import reading, tap

AM = {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
OM = {
    "model": "gpt-5.6",
    "messages": [{"role": "user", "content": "hi"}],
    "stream_options": {"include_usage": True},
}
RM = {"model": "gpt-5.6", "input": "hi"}

PACKAGE = os.path.dirname(os.path.dirname(tap.__file__)) + os.sep
INPUT = "gen_ai.client.inference.usage.input_tokens"
OUTPUT = "gen_ai.client.inference.usage.output_tokens"
TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")

HAS_ZSTD = sys.version_info >= (3, 14) or "backports.zstd" in sys.modules
ENCODINGS = [
    "gzip",
    "wholegzip",
    "deflate",
    "rawdeflate",
    pytest.param("br", marks=pytest.mark.skipif("brotli" not in sys.modules, reason="needs brotli")),
    pytest.param("zstd", marks=pytest.mark.skipif(not HAS_ZSTD, reason="needs zstd")),
]
DELIVERIES = ["plain", "split", "burst", "ping", *ENCODINGS, "gzip+split", "gzip+burst"]


def under(body, words):
    return {**body, "model": f"{body['model']}+{words}"}


def create(clients, dialect):
    """The ``with_streaming_response`` form of a call, which gives the application the bytes themselves."""
    if dialect == "anthropic":
        return clients.anthropic.messages.with_streaming_response.create
    openai = clients.openai
    return (openai.chat.completions if dialect == "chat" else openai.responses).with_streaming_response.create


DIALECTS = [("anthropic", AM, 5100), ("chat", OM, 5000), ("responses", RM, 5000)]


# --- Bytes pass -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("dialect", "body", "tokens"), DIALECTS, ids=[row[0] for row in DIALECTS])
@pytest.mark.parametrize("words", DELIVERIES)
def test_decoded_bytes_and_usage(words, dialect, body, tokens, stream, connect, observe, quiet):
    """Whatever the encoding and wherever the network cuts, the application reads the same and usage is found."""
    body = under({name: value for name, value in body.items() if stream or name != "stream_options"}, words)

    def read():
        with create(connect(), dialect)(stream=stream, **body) as response:
            return b"".join(response.iter_bytes()), dict(response.headers) | {"date": ""}

    without_us = read()
    telemetry = observe()
    assert read() == without_us
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (tokens, 50)
    assert telemetry.total("promptcache.internal.errors") == 0


@pytest.mark.parametrize("words", DELIVERIES)
async def test_decoded_bytes_and_usage_async(words, connect, telemetry, quiet):
    """The same holds for the asynchronous client."""
    clients = connect()
    stream = await clients.async_anthropic.messages.create(stream=True, **under(AM, words))
    kinds = [event.type async for event in stream]
    await clients.aclose()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (5100, 50)


def test_network_chunks_are_passed_as_they_come(connect, streamed, telemetry):
    """The application sees the very chunks of the network, odd ones included."""
    chunks = [b"data: {", b'"id": 1}\n', b"\n", b"\xff\xfe\n\n", b"tail"]
    clients = connect(respond=lambda _: streamed(chunks))
    with create(clients, "chat")(stream=True, **OM) as response:
        assert list(response.http_response.iter_raw()) == chunks


def sse_body(*documents, end="\n", space=" "):
    return "".join(f"data:{space}{json.dumps(document)}{end}{end}" for document in documents).encode()


USAGE = {"input_tokens": 20, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 10, "output_tokens": 1}
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "usage": USAGE},
}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 70}}
CHUNKS = [
    {"id": "c1", "model": "gpt-5.6", "choices": [{"index": 0, "delta": {"content": "a"}}], "usage": None},
    {"id": "c1", "model": "gpt-5.6", "choices": [], "usage": CHAT_USAGE},
]
RESPONSE_USAGE = {"input_tokens": 100, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 70}}
RESPONSES = [
    {"type": "response.created", "response": {"id": "r1", "model": "gpt-5.6", "usage": None}},
    {"type": "response.completed", "response": {"id": "r1", "model": "gpt-5.6", "usage": RESPONSE_USAGE}},
]
SMALL = [("anthropic", AM, [START, DELTA]), ("chat", OM, CHUNKS), ("responses", RM, RESPONSES)]


@pytest.mark.parametrize(("dialect", "request_body", "documents"), SMALL, ids=[row[0] for row in SMALL])
def test_an_event_cut_in_two_at_every_place(dialect, request_body, documents, connect, streamed, telemetry, quiet):
    """Usage is found whichever byte of the body the network cuts behind."""
    body = sse_body(*documents)
    cuts = range(1, len(body))
    answers = iter(cuts)
    clients = connect(respond=lambda _: streamed([body[: (cut := next(answers))], body[cut:]]))
    for _ in cuts:
        with create(clients, dialect)(stream=True, **request_body) as response:
            assert b"".join(response.iter_bytes()) == body
    found = [tuple(span.attributes.get(name) for name in TOKENS) for span in telemetry.spans]
    assert [cut for cut, tokens in zip(cuts, found, strict=True) if tokens != (100, 7)] == []


@pytest.mark.parametrize(
    "body",
    [
        sse_body(*CHUNKS, end="\r\n"),
        sse_body(*CHUNKS, space=""),
        sse_body(*CHUNKS).rstrip(b"\n"),
        b": keep alive\n\n" + sse_body(*CHUNKS) + b": bye\n\n",
        b"id: 7\nretry: 10\n" + sse_body(*CHUNKS) + b"data: [DONE]\n\n",
        sse_body(CHUNKS[0])
        + b'data: {"choices": [{"delta": {"content": "say \\"usage\\" twice"}}]}\n\n'
        + sse_body(CHUNKS[1]),
        sse_body(CHUNKS[0]) + b'data: {"usage" : ' + json.dumps(CHAT_USAGE).encode() + b"}\n\n",
        sse_body(CHUNKS[0]) + b'data: {"usage": not json}\n\n' + sse_body(CHUNKS[1]),
        sse_body(CHUNKS[0]) + b'data: ["usage", "error"]\n\n' + sse_body(CHUNKS[1]),
        sse_body(CHUNKS[1]),
    ],
    ids=["crlf", "no blank", "no end", "comments", "fields", "quoted", "spaced", "broken", "list", "first event"],
)
def test_forms_of_an_event_stream(body, connect, streamed, telemetry, quiet):
    """Line ends, comments and other fields are as the standard allows, and a broken event spoils only itself."""
    clients = connect(respond=lambda _: streamed([body]))
    with create(clients, "chat")(stream=True, **OM) as response:
        assert b"".join(response.iter_bytes()) == body
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (100, 7)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_body_that_is_there_already(stream, connect, http, telemetry, quiet):
    """A mock's answer, loaded before the SDK sees it, is read at once."""
    body = sse_body(*CHUNKS) if stream else json.dumps({"id": "c1", "choices": [], "usage": CHAT_USAGE}).encode()
    kind = "text/event-stream" if stream else "application/json"
    clients = connect(respond=lambda _: http.Response(200, headers={"content-type": kind}, content=body))
    with create(clients, "chat")(stream=stream, **OM) as response:
        assert response.read() == body
    assert (telemetry.total("promptcache.calls"), telemetry.total(INPUT), telemetry.total(OUTPUT)) == (1, 100, 7)


def test_the_helpers_work_on_a_mock(connect, http, telemetry, quiet):
    """``create(stream=True)`` over a mock's loaded body gives the events, and one span."""
    respond = lambda _: http.Response(  # noqa: E731
        200, headers={"content-type": "text/event-stream"}, content=sse_body(*CHUNKS)
    )
    chunks = list(connect(respond=respond).openai.chat.completions.create(stream=True, **OM))
    assert len(chunks) == 2
    assert telemetry.span.attributes["gen_ai.usage.input_tokens"] == 100


# --- What cannot be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_body_that_is_not_what_its_header_says(stream, connect, observe, quiet):
    """Where the application fails to decode it fails as it does without us; usage is unknown, and that is all."""

    def read():
        with (
            pytest.raises(Exception, match=r".") as caught,
            create(connect(), "anthropic")(stream=stream, **under(AM, "badgzip")) as response,
        ):
            response.read()
        return type(caught.value), str(caught.value)

    without_us = read()
    telemetry = observe()
    assert read() == without_us
    assert telemetry.total("promptcache.calls") == 1
    assert telemetry.total("promptcache.usage_missing.calls") == 1
    assert telemetry.total("promptcache.internal.errors") == 0


@pytest.mark.parametrize("error", [zlib.error("bad"), ValueError("bad"), MemoryError()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_our_own_decoder_fails(stream, error, connect, observe, monkeypatch, quiet):
    """An error of our private decoder, of whatever library, costs the usage and nothing else."""

    def broken(_):
        raise error

    telemetry = observe()
    monkeypatch.setattr(reading, "inflater", lambda _: broken)
    with create(connect(), "anthropic")(stream=stream, **under(AM, "gzip")) as response:
        assert response.read()[-1:] in (b"}", b"\n")
    assert telemetry.span.attributes["promptcache.usage.available"] is False
    assert telemetry.total("promptcache.internal.errors") == 0


def test_an_encoding_nobody_knows(connect, streamed, telemetry, quiet):
    """A content encoding that we cannot read leaves usage unknown; the bytes pass."""
    clients = connect(respond=lambda _: streamed([b"\x00\x01", b"\x02"], "application/json", content_encoding="pigeon"))
    with create(clients, "chat")(**OM) as response:
        assert b"".join(response.http_response.iter_raw()) == b"\x00\x01\x02"
    assert telemetry.total("promptcache.usage_missing.calls") == 1
    assert telemetry.total("promptcache.internal.errors") == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n', "overloaded_error"),
        (b'event: error\ndata: {"type": "error", "error": null}\n\n', "error"),
        (b'data: {"type": "error"}\n\n', "error"),
    ],
    ids=["typed", "null", "bare"],
)
def test_error_events_are_recognised_in_the_bytes(body, error, connect, streamed, telemetry, quiet):
    """An error in the stream is the call's error, although the application that reads bytes sees no exception."""
    clients = connect(respond=lambda _: streamed([sse_body(START), body]))
    with create(clients, "anthropic")(stream=True, **AM) as response:
        assert response.read().endswith(body)
    assert telemetry.span.attributes["error.type"] == error
    assert telemetry.span.attributes["gen_ai.usage.input_tokens"] == 100


# --- The stream object ------------------------------------------------------------------------------------


def test_the_stream_stays_what_it_is(connect, telemetry):
    """``response.stream`` is still the HTTP library's kind of stream, and its attributes are the inner stream's."""
    http = http_library("openai")
    with create(connect(), "chat")(**under(OM, "hold")) as response:
        stream = response.http_response.stream
        assert isinstance(stream, http.SyncByteStream)
        assert not isinstance(stream, http.AsyncByteStream)
        assert isinstance(stream._stream, http.SyncByteStream)
        assert stream._stream is not stream
        with pytest.raises(AttributeError, match="nothing"):
            _ = stream.nothing


async def test_the_async_stream_stays_what_it_is(connect, telemetry):
    """The same for asynchronous streams."""
    http = http_library("openai")
    clients = connect()
    async with clients.async_openai.chat.completions.with_streaming_response.create(**OM) as response:
        stream = response.http_response.stream
        assert isinstance(stream, http.AsyncByteStream)
        assert not isinstance(stream, http.SyncByteStream)
        await response.read()
    await clients.aclose()


def test_a_stream_of_both_kinds_stays_both(streamed, http):
    """A stream that serves sync and async clients still does."""
    response = streamed([b"{}"], "application/json")
    assert tap.tap(response, SimpleNamespace(left=lambda: None, items=False))
    assert isinstance(response.stream, http.SyncByteStream)
    assert isinstance(response.stream, http.AsyncByteStream)


def test_elapsed_is_known_after_the_body(connect, telemetry):
    """The HTTP library measures ``elapsed`` on its own stream, which it still closes."""
    with create(connect(), "anthropic")(stream=True, **AM) as response:
        response.read()
        assert response.http_response.elapsed.total_seconds() > 0


def test_the_body_can_be_read_once_only(connect, telemetry, http):
    """Reading a consumed stream is refused in the HTTP library's own words."""
    with create(connect(), "anthropic")(stream=True, **AM) as response:
        assert list(response.http_response.iter_raw())
        with pytest.raises(http.StreamConsumed):
            list(response.http_response.iter_raw())


def test_a_body_can_be_closed_twice(connect, telemetry):
    """Closing again is harmless, and counts nothing."""
    stream = connect().anthropic.messages.create(stream=True, **under(AM, "hold"))
    next(iter(stream))
    stream.close()
    stream.close()
    assert telemetry.total("promptcache.calls") == 1


async def test_a_stream_opened_in_one_task_and_read_in_another(connect, telemetry, quiet):
    """No context is left behind, nothing is logged, and the span ends once."""
    clients = connect()
    box = {}

    async def opens():
        stream = await clients.async_anthropic.messages.create(stream=True, **AM)
        box["events"] = aiter(stream)
        await anext(box["events"])
        assert not trace.get_current_span().get_span_context().is_valid

    async def reads():
        async for _ in box["events"]:
            pass
        assert not trace.get_current_span().get_span_context().is_valid

    await asyncio.create_task(opens())
    await asyncio.create_task(reads())
    await clients.aclose()
    assert telemetry.span.attributes["gen_ai.usage.output_tokens"] == 50


async def test_a_stream_left_to_the_event_loop(connect, telemetry, quiet):
    """An iterator that is dropped half way is closed by the loop, and the span ends without an error."""
    clients = connect()
    stream = await clients.async_anthropic.messages.create(stream=True, **under(AM, "hold"))
    events = aiter(stream)
    await anext(events)
    del events, stream
    for _ in range(100):  # older SDKs need several turns
        gc.collect()
        await asyncio.sleep(0.02)
        if telemetry.spans:
            break
    await clients.aclose()
    assert telemetry.span.status.is_unset
    assert telemetry.span.attributes["gen_ai.usage.input_tokens"] == 5100


def locks_of_ours():
    """Every lock held by a living object or module of ours that cannot be taken twice, by where it is kept."""
    names = [name for name in sys.modules if name.startswith("otel_promptcache")]
    holders = [(name, vars(sys.modules[name])) for name in names]
    for thing in gc.get_objects():
        if getattr(type(thing), "__module__", None) in names:  # not every type has one
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            values = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
            holders.append((type(thing).__qualname__, values | getattr(thing, "__dict__", {})))
    found = {}
    for holder, values in holders:
        for name, value in values.items():
            inner = getattr(getattr(value, "_cond", value), "_lock", value)  # of an Event, of a Condition, itself
            if type(inner) is type(threading.Lock()):
                found[f"{holder}.{name}"] = inner
    return found


def test_a_stream_may_be_collected_anywhere(connect, streamed, telemetry, quiet):
    """A collection of garbage runs in the middle of anything, our own locks held: it must wait for none of them."""
    clients = connect(respond=lambda _: streamed([sse_body(*CHUNKS[:1]), sse_body(*CHUNKS[1:])]))
    list(clients.openai.chat.completions.create(stream=True, **OM))
    locks, stuck = locks_of_ours(), []
    assert "Worker._idle" in locks
    for name, lock in locks.items():
        box = {"stream": clients.openai.chat.completions.create(stream=True, **OM)}
        next(iter(box["stream"]))
        box["itself"] = box  # nothing but a collection will end it

        def collect(lock=lock):
            with lock:
                gc.collect()

        collects = threading.Thread(target=collect, daemon=True)
        del box
        collects.start()
        collects.join(60)
        if collects.is_alive():
            stuck.append(name)
    assert stuck == []
    telemetry.flush()
    assert telemetry.total("promptcache.calls") == len(locks) + 1


def at_entry(number, do):
    """A profile function that does something as the function of ours with this number is entered."""
    entries = itertools.count()

    def profile(frame, event, _):
        if event == "call" and PACKAGE in frame.f_code.co_filename and next(entries) == number:
            do()

    return profile, entries


def test_garbage_is_collected_while_calls_are_made(connect, streamed, telemetry, quiet):
    """A stream that was left in a cycle is collected as one function of ours after the other is entered; no call
    hangs, and each is counted."""
    clients = connect(respond=lambda _: streamed([sse_body(*CHUNKS[:1]), sse_body(*CHUNKS[1:])]))
    ended = []

    def call(number):
        prompt = [{"role": "user", "content": f"{number}.{turn}"} for turn in range(3)]
        profile, entries = at_entry(number, gc.collect)
        sys.setprofile(profile)
        list(clients.openai.chat.completions.create(stream=True, **{**OM, "messages": prompt}))
        sys.setprofile(None)
        return next(entries)

    def work():
        for number in range(0, call(-1), 2):
            stream = clients.openai.chat.completions.create(stream=True, **OM)
            next(iter(stream))
            stream.itself = stream
            del stream
            call(number)
            ended.append(number)

    gc.collect()
    gc.freeze()  # so that collecting takes no time
    gc.disable()
    try:
        works = threading.Thread(target=work, daemon=True)
        works.start()
        works.join(300)
        hangs = works.is_alive()
    finally:
        gc.enable()
        gc.unfreeze()
    assert not hangs, f"at function {2 * len(ended)}"
    assert len(ended) > 50
    telemetry.flush()
    assert telemetry.total("promptcache.calls") == 1 + 2 * len(ended)


# --- What it costs ----------------------------------------------------------------------------------------


def deltas(count):
    return [
        sse_body({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"word {n}"}})
        for n in range(count)
    ]


def test_only_events_with_usage_are_parsed(connect, streamed, telemetry, monkeypatch):
    """Of a stream of a thousand events two are parsed as JSON: the first, and the one with the usage."""
    parsed = []

    def loads(data):
        parsed.append(data)
        return json.loads(data)

    monkeypatch.setattr(reading, "json", SimpleNamespace(loads=loads))
    clients = connect(respond=lambda _: streamed([sse_body(START), *deltas(1000), sse_body(DELTA)]))
    with create(clients, "anthropic")(stream=True, **AM) as response:
        response.read()
    assert len(parsed) == 2
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (100, 7)


def test_a_line_without_end_is_not_kept(connect, streamed, telemetry):
    """Of an event beyond all measure at most a few megabytes are held, and the usage behind it is found."""
    piece = b"x" * 2**16

    def body():
        yield sse_body(START)
        yield b'data: {"text": "'
        for _ in range(512):  # 32 MiB
            yield piece
        yield b'"}\n\n'
        last = sse_body(DELTA)
        yield last[:50]
        yield last[50:]

    clients = connect(respond=lambda _: streamed(body()))
    with create(clients, "anthropic")(stream=True, **AM) as response:
        chunks = response.http_response.iter_raw()
        next(chunks)
        tracemalloc.start()
        try:
            for _ in chunks:
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * 2**20
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (100, 7)


def test_a_huge_body_is_not_kept(connect, streamed, telemetry):
    """A whole answer of 32 MiB passes; we keep four at most, and its usage is unknown."""
    piece = b"x" * 2**16

    def body():
        yield b'{"id": "msg_1", "text": "'
        for _ in range(512):
            yield piece
        yield b'", "usage": {"input_tokens": 1, "output_tokens": 1}}'

    clients = connect(respond=lambda _: streamed(body(), "application/json"))
    with create(clients, "anthropic")(**AM) as response:
        tracemalloc.start()
        try:
            for _ in response.http_response.iter_raw():
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * 2**20
    assert telemetry.total("promptcache.usage_missing.calls") == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_answer_of_six_megabytes(stream, connect, telemetry, quiet):
    """The application gets it all, and its usage is known."""
    client = connect().anthropic
    if stream:
        with client.messages.stream(**under(AM, "huge")) as events:
            message = events.get_final_message()
    else:
        message = client.messages.create(**under(AM, "huge"))
    assert len(message.content[0].text) == 6 * 2**20
    assert telemetry.total(INPUT) == 5100
    assert telemetry.total("promptcache.usage_missing.calls") == 0


def test_a_compressed_line_without_end_is_not_kept(connect, streamed, telemetry):
    """What inflates beyond all measure is not kept either."""
    packer = zlib.compressobj(wbits=31)
    head = packer.compress(sse_body(START)) + packer.flush(zlib.Z_SYNC_FLUSH)

    def body():
        for _ in range(64):
            yield packer.compress(b"x" * 2**19) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield packer.compress(b"\n\n" + sse_body(DELTA)) + packer.flush()

    pieces = [head, *body()]
    clients = connect(respond=lambda _: streamed(pieces, content_encoding="gzip"))
    with create(clients, "anthropic")(stream=True, **AM) as response:
        tracemalloc.start()
        try:
            for _ in response.http_response.iter_raw():
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * 2**20
    assert (telemetry.total(INPUT), telemetry.total(OUTPUT)) == (100, 7)
