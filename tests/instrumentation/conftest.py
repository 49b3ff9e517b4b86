"""A provider on loopback, both SDKs pointed at it, and everything that telemetry says kept in memory.

Anthropic answers: input 100, written 2000 (1500 for 5 minutes, 500 for an hour), read 3000, output 50.
OpenAI answers: prompt 5000, of which read 3000 and written 1500 (1000 for 30 minutes, 500 for 12 hours), output 50.

What goes wrong is chosen by words behind a ``+`` in the model's name: ``claude-sonnet-4-6+gzip+split``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import importlib
import inspect
import json
import logging
import os
import random
import re
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("opentelemetry.sdk")

import anthropic
import openai
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from servers.canned import http_library, transport

import otel_promptcache
from otel_promptcache import pricing
from otel_promptcache.instrumentation import runtime

brotli: Any
try:
    import brotli
except ImportError:
    brotli = None
zstd: Any = None
for name in ("compression.zstd", "backports.zstd"):  # what the HTTP library decodes with
    with contextlib.suppress(ImportError):
        zstd = zstd or importlib.import_module(name)

InMemoryLogs = getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter
SimpleLogs = log_export.SimpleLogRecordProcessor

NATIVE_SCOPE = "com.anthropic.sdk.python"
HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters


# --- The provider -------------------------------------------------------------------------------------------

TEXT = '{"answer": "ok"}'
ANTHROPIC_USAGE: dict[str, Any] = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_creation_input_tokens": 2000,
    "cache_read_input_tokens": 3000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    "service_tier": "standard",
}
CHAT_USAGE: dict[str, Any] = {
    "prompt_tokens": 5000,
    "completion_tokens": 50,
    "total_tokens": 5050,
    "prompt_tokens_details": {"cached_tokens": 3000, "cache_write_tokens": 1500, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
RESPONSES_USAGE: dict[str, Any] = {
    "input_tokens": 5000,
    "output_tokens": 50,
    "total_tokens": 5050,
    "input_tokens_details": {
        "cached_tokens": 3000,
        "cache_write_tokens": 1500,
        "cache_write_tokens_details": {"ttl_12h_tokens": 500, "ttl_30m_tokens": 1000},
    },
    "output_tokens_details": {"reasoning_tokens": 10},
}
BATCH = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "in_progress",
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-02T00:00:00Z",
    "archived_at": None,
    "cancel_initiated_at": None,
    "ended_at": None,
    "results_url": None,
    "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
}
HTML = b"<html><body><h1>Bad gateway</h1></body></html>"
HUGE = 6 * 2**20
ERRORS = {
    "429": (429, "rate_limit_error", "slow down"),
    "500": (500, "api_error", "we broke"),
    "529": (529, "overloaded_error", "too busy"),
}


def sse(data: Any, event: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return (head + "data: " + (data if isinstance(data, str) else json.dumps(data)) + "\n\n").encode()


def frame(event: bytes) -> bytes:
    """The same as Bedrock sends it: in a binary frame."""
    data = event.partition(b"data: ")[2].strip()
    kind = b"chunk"
    payload = json.dumps({"bytes": base64.b64encode(data).decode(), "p": "abcdef"}).encode()
    if b'"type": "error"' in data:
        kind, payload = b"throttlingException", b'{"message": "too busy"}'
    named = b":exception-type" if kind != b"chunk" else b":event-type"
    message = b"exception" if kind != b"chunk" else b"event"
    headers = b""
    for name, value in ((named, kind), (b":content-type", b"application/json"), (b":message-type", message)):
        headers += bytes([len(name)]) + name + b"\x07" + len(value).to_bytes(2, "big") + value
    prelude = (16 + len(headers) + len(payload)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    body = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers + payload
    return body + zlib.crc32(body).to_bytes(4, "big")


@dataclass
class Ask:
    """One request as the provider sees it."""

    path: str
    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    model: str = ""
    usage: dict[str, Any] | None = None
    pieces: int = 3

    @property
    def key(self) -> str:
        """Equal requests get equal ids, so that answers compare."""
        return hashlib.sha256(self.raw).hexdigest()[:10]

    def usage_of(self, default: dict[str, Any]) -> dict[str, Any]:
        if "nousage" in self.words:
            return {}
        if "nullusage" in self.words:
            return {"usage": None}
        return {"usage": self.usage or default}

    @property
    def text(self) -> str:
        return "x" * HUGE if "huge" in self.words else TEXT


def anthropic_message(ask: Ask) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": ask.text}]
    if "unknown" in ask.words:
        content.insert(0, {"type": "crystal_ball", "vision": {"cloudy": True}})
    if "tool" in ask.words and not _has_tool_result(ask.body):
        content.append({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}})
    return {
        "id": f"msg_{ask.key}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        **ask.usage_of(ANTHROPIC_USAGE),
    }


def results(ask: Ask) -> list[bytes]:
    """Three results of a batch: one of Anthropic's, one of OpenAI's, and one that failed."""
    ask.model = "claude-sonnet-4-6"
    succeeded = {"type": "succeeded", "message": anthropic_message(ask)}
    body = chat_completion(replace(ask, model="gpt-5.6"))
    lines: list[dict[str, Any]] = [
        {"custom_id": "a", "result": succeeded},
        {"custom_id": "b", "response": {"status_code": 200, "body": body}},
        {"custom_id": "c", "result": {"type": "expired"}},
    ]
    return [json.dumps(line).encode() + b"\n" for line in lines]


def _has_tool_result(body: dict[str, Any]) -> bool:
    return "tool_result" in json.dumps(body.get("messages"))


def anthropic_events(ask: Ask) -> Iterator[bytes]:
    message = anthropic_message(ask)
    usage = message.get("usage")
    blocks = message["content"]
    start = {**message, "content": [], "stop_reason": None}
    if usage:
        start["usage"] = {**usage, "output_tokens": 1}
    yield sse({"type": "message_start", "message": start}, "message_start")
    if "ping" in ask.words:
        yield b": a comment\n\n"
        yield sse({"type": "ping"}, "ping")
    if "error" in ask.words:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
        yield sse(error, "error")
        return
    for index, block in enumerate(blocks):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        if block["type"] == "crystal_ball":
            empty = block
        yield sse({"type": "content_block_start", "index": index, "content_block": empty}, "content_block_start")
        if block["type"] == "text":
            for piece in _pieces(block["text"], ask.pieces):
                delta = {"type": "text_delta", "text": piece}
                yield sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
        elif block["type"] == "tool_use":
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
        yield sse({"type": "content_block_stop", "index": index}, "content_block_stop")
    last = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    end: dict[str, Any] = {"type": "message_delta", "delta": last}
    if "usage" in message:
        end["usage"] = usage and {name: usage[name] for name in usage if name.endswith("_tokens")}
    yield sse(end, "message_delta")
    yield sse({"type": "message_stop"}, "message_stop")


def _pieces(text: str, count: int) -> list[str]:
    step = max(1, -(-len(text) // count))
    return [text[start : start + step] for start in range(0, len(text), step)]


def chat_completion(ask: Ask) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ask.text, "refusal": None}
    if "unknown" in ask.words:
        message["hologram"] = {"depth": 3}
    return {
        "id": f"chatcmpl-{ask.key}",
        "object": "chat.completion",
        "created": 1,
        "model": ask.model,
        "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
        **ask.usage_of(CHAT_USAGE),
    }


def chat_events(ask: Ask) -> Iterator[bytes]:
    base = {"id": f"chatcmpl-{ask.key}", "object": "chat.completion.chunk", "created": 1, "model": ask.model}
    wanted = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    tail = {"usage": None} if wanted else {}
    if "ping" in ask.words:
        yield b": a comment\n\n"
    for index, piece in enumerate(_pieces(ask.text, ask.pieces)):
        delta = {"role": "assistant", "content": piece} if index == 0 else {"content": piece}
        yield sse({**base, **tail, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if "error" in ask.words:
            yield sse({"error": {"type": "server_error", "message": "we broke", "code": "server_error"}})
            return
    yield sse({**base, **tail, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if wanted:
        yield sse({**base, "choices": [], **ask.usage_of(CHAT_USAGE)})
    yield sse("[DONE]")


def response_object(ask: Ask, *, over: bool = True) -> dict[str, Any]:
    text = {"type": "output_text", "text": ask.text, "annotations": []}
    item = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    output: list[dict[str, Any]] = [item] if over else []
    if "unknown" in ask.words and over:
        output.insert(0, {"id": "u1", "type": "crystal_ball", "vision": {"cloudy": True}})
    return {
        "id": f"resp_{ask.key}",
        "object": "response",
        "created_at": 1,
        "status": "completed" if over else "in_progress",
        "model": ask.model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "output": output,
        **(ask.usage_of(RESPONSES_USAGE) if over else {"usage": None}),
    }


def responses_events(ask: Ask) -> Iterator[bytes]:
    numbers = iter(range(10**6))

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    place = {"output_index": 0, "content_index": 0, "item_id": "m1"}
    yield event("response.created", response=response_object(ask, over=False))
    if "ping" in ask.words:
        yield b": a comment\n\n"
    if "error" in ask.words:
        yield event("error", code="server_error", message="we broke", param=None)
        return
    item = {"id": "m1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    yield event("response.output_item.added", output_index=0, item=item)
    part = {"type": "output_text", "text": "", "annotations": []}
    yield event("response.content_part.added", **place, part=part)
    for piece in _pieces(ask.text, ask.pieces):
        yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
    yield event("response.output_text.done", **place, text=ask.text, logprobs=[])
    whole = response_object(ask)
    yield event("response.content_part.done", **place, part={**part, "text": ask.text})
    yield event("response.output_item.done", output_index=0, item=whole["output"][-1])
    yield event("response.completed", response=whole)


_ANSWERS: tuple[tuple[str, Callable[[Ask], dict[str, Any]], Callable[[Ask], Iterator[bytes]]], ...] = (
    ("/messages", anthropic_message, anthropic_events),
    ("/chat/completions", chat_completion, chat_events),
    ("/responses", response_object, responses_events),
    ("/responses/compact", response_object, responses_events),
    ("/completions", chat_completion, chat_events),
)


def errand(ask: Ask, path: str) -> tuple[str, list[bytes]] | None:
    """Content type and body for a request that carries no prompt."""
    plain = "application/json"
    if path.endswith("/count_tokens"):
        return plain, [b'{"input_tokens": 5100}']
    if path.endswith("/batches"):
        return plain, [json.dumps(BATCH).encode()]
    if path.endswith(("/results", "/content")):
        return "application/x-jsonl", results(ask)
    if "/batches/" in path:
        ended = {"processing_status": "ended", "results_url": f"/v1/messages/batches/{BATCH['id']}/results"}
        return plain, [json.dumps(BATCH | ended).encode()]
    return None


def hosted(ask: Ask, path: str) -> tuple[str, list[bytes]] | None:
    """The same for a platform that has the model in its URL."""
    if path.endswith(("/invoke", ":rawPredict")):
        return "application/json", [json.dumps(anthropic_message(ask)).encode()]
    if path.endswith("/invoke-with-response-stream"):
        return "application/vnd.amazon.eventstream", [frame(event) for event in anthropic_events(ask)]
    if path.endswith(":streamRawPredict"):
        return "text/event-stream; charset=utf-8", list(anthropic_events(ask))
    return None


def answer(ask: Ask) -> tuple[int, str, list[bytes]]:
    """Status, content type and body in the pieces in which it is written."""
    words, plain = ask.words, "application/json"
    for word, (status, kind, message) in ERRORS.items():
        if word in words:
            error = {"type": kind, "message": message, "code": kind}
            return status, plain, [json.dumps({"type": "error", "error": error}).encode()]
    if "429once" in words and ask.headers.get("x-stainless-retry-count", "0") == "0":
        error = {"type": "rate_limit_error", "message": "slow down"}
        return 429, plain, [json.dumps({"type": "error", "error": error}).encode()]
    if "html200" in words or "html502" in words:
        return 502 if "html502" in words else 200, "text/html; charset=utf-8", [HTML]
    if "badjson" in words:
        return 200, plain, [b'{"id": "msg_1", "usage": {"input_tokens": 1']
    if "empty" in words:
        return 200, plain, [b""]
    path = ask.path.partition("?")[0]
    special = errand(ask, path) or hosted(ask, path)
    if special is not None:
        return 200, *special
    for end, whole, events in _ANSWERS:
        if path.endswith(end):
            if not ask.body.get("stream"):
                return 200, plain, [json.dumps(whole(ask)).encode()]
            parts = list(events(ask))
            if "truncated" in words:
                parts = [*parts[:3], parts[3][:20]]
            return 200, "text/event-stream; charset=utf-8", parts
    return 404, plain, [b'{"error": {"message": "no route"}}']


def _zlib(parts: list[bytes], window: int) -> list[bytes]:
    packer = zlib.compressobj(wbits=window)
    packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*packed, packer.flush()]


def _brotli(parts: list[bytes]) -> list[bytes]:
    packer = brotli.Compressor()
    packed = [packer.process(part) + packer.flush() for part in parts]
    return [*packed, packer.finish()]


def _zstd(parts: list[bytes]) -> list[bytes]:
    packer = zstd.ZstdCompressor()
    packed = [packer.compress(part, packer.FLUSH_BLOCK) for part in parts]
    return [*packed, packer.flush()]


ENCODINGS: dict[str, tuple[str, Callable[[list[bytes]], list[bytes]]]] = {
    "gzip": ("gzip", lambda parts: _zlib(parts, 31)),
    "wholegzip": ("gzip", lambda parts: [gzip.compress(b"".join(parts))]),
    "deflate": ("deflate", lambda parts: _zlib(parts, 15)),
    "rawdeflate": ("deflate", lambda parts: _zlib(parts, -15)),
    "br": ("br", _brotli),
    "zstd": ("zstd", _zstd),
    "badgzip": ("gzip", lambda parts: [b"this is no gzip", *parts]),
}


def encoded(words: frozenset[str], parts: list[bytes]) -> tuple[str, list[bytes]]:
    """Content encoding and the body as it goes over the wire, in network writes."""
    name = ""
    for word, (encoding, pack) in ENCODINGS.items():
        if word in words:
            name, parts = encoding, pack(parts)
    if "burst" in words:
        parts = [b"".join(parts)]
    if "split" in words:
        body, chance, parts = b"".join(parts), random.Random(7), []
        while body:
            cut = chance.randint(1, 40)
            parts.append(body[:cut])
            body = body[cut:]
    return name, parts


class Provider:
    """The server: what it was asked, and what it will answer next."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.usages: deque[dict[str, Any]] = deque()
        self.refuses: Callable[[Ask], str] = lambda _: ""
        """What is wrong with a request, if anything: HTTP 400."""
        self.release = threading.Event()
        self._server = _server(self)
        self.host, self.port = self._server.server_address[0], self._server.server_address[1]
        self.url = f"http://{self.host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def reset(self) -> None:
        self.asked.clear()
        self.usages.clear()
        self.refuses = lambda _: ""
        self.release = threading.Event()

    def answers(self, ask: Ask) -> tuple[int, str, list[bytes], str]:
        """Status, content type, body in network writes, content encoding."""
        if complaint := self.refuses(ask):
            error = {"type": "invalid_request_error", "message": complaint}
            return 400, "application/json", [json.dumps({"type": "error", "error": error}).encode()], ""
        status, kind, parts = answer(ask)
        encoding, parts = encoded(ask.words, parts)
        return status, kind, parts, encoding

    def will_report(self, *usages: dict[str, Any]) -> None:
        """Usage of the next answers, in place of the usual one."""
        self.usages.extend(usages)

    def hear(self, path: str, headers: dict[str, str], raw: bytes) -> Ask:
        ask = Ask(path, headers, raw)
        with contextlib.suppress(ValueError):
            parsed = json.loads(raw)
            ask.body = parsed if isinstance(parsed, dict) else {}
        hosted = re.search(r"/models?/([^/]+?)(/invoke|:rawPredict|:streamRawPredict)", path)
        model = unquote(hosted[1]) if hosted else ask.body.get("model")
        name, _, words = (model if isinstance(model, str) else "").partition("+")
        ask.model, ask.words = name, frozenset(filter(None, words.split("+")))
        if not path.endswith(("/count_tokens", "/batches")) and not ask.words & (ERRORS.keys() | {"429once"}):
            ask.usage = self.usages.popleft() if self.usages else None
        self.asked.append(ask)
        return ask

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def _server(provider: Provider) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            ask = provider.hear(self.path, {k.lower(): v for k, v in self.headers.items()}, raw)
            release = provider.release
            with contextlib.suppress(OSError):
                self._answer(ask, release)

        def _answer(self, ask: Ask, release: threading.Event) -> None:
            status, kind, parts, encoding = provider.answers(ask)
            self.send_response(status)
            self.send_header("content-type", kind)
            if encoding:
                self.send_header("content-encoding", encoding)
            if status == 429:
                self.send_header("retry-after-ms", "1")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for number, part in enumerate(parts):
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.wfile.flush()
                if "cut" in ask.words and number >= len(parts) // 2:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if "hold" in ask.words and number == 0:
                    self._wait_for_the_caller_to_go(release)
            self.wfile.write(b"0\r\n\r\n")

        def _wait_for_the_caller_to_go(self, release: threading.Event) -> None:
            """The rest is written once the test says so, or never, when the caller hangs up."""
            self.connection.settimeout(0.01)
            for _ in range(1000):
                with contextlib.suppress(TimeoutError):
                    if not self.connection.recv(1, socket.MSG_PEEK):
                        self.close_connection = True
                        raise OSError
                if release.is_set():
                    break
            self.connection.settimeout(None)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    return Server(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="session")
def _provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def provider(_provider: Provider) -> Iterator[Provider]:
    """The provider, asked nothing yet."""
    _provider.reset()
    yield _provider
    _provider.release.set()


# --- The clients --------------------------------------------------------------------------------------------


@pytest.fixture
def http() -> Any:
    """An HTTP library to answer with: the one that the anthropic SDK uses."""
    return http_library()


@pytest.fixture
def streamed(http: Any) -> Callable[..., Any]:
    """A response whose body comes in the given pieces: ``streamed([b"...", b"..."], "text/event-stream")``."""

    class Pieces(http.SyncByteStream, http.AsyncByteStream):
        def __init__(self, pieces: Iterable[bytes]) -> None:
            self.pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            yield from self.pieces

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self.pieces:
                yield piece

    def respond(pieces: Iterable[bytes], kind: str = "text/event-stream", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.Response(200, headers={"content-type": kind, **named}, stream=Pieces(pieces))

    return respond


class Clients:
    """One client a kind, all pointed at the provider, made when they are asked for."""

    def __init__(
        self,
        url: str,
        tracer_provider: TracerProvider | None,
        respond: Callable[[Any], Any] | None,
        options: dict[str, Any],
    ) -> None:
        self._url = url
        self._respond = respond
        self._openai: dict[str, Any] = {"api_key": "sk-test", "max_retries": 0, **options}
        self._anthropic = dict(self._openai)
        if HAS_NATIVE:
            native = {"tracer_provider": tracer_provider} if tracer_provider is not None else False
            self._anthropic["open_telemetry"] = native

    def _http(self, sdk: str) -> dict[str, Any]:
        # Certificates, which take most of the time of making a client, are nothing to a server on loopback.
        return {"verify": False} if self._respond is None else {"transport": transport(sdk, self._respond)}

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        http_client = anthropic.DefaultHttpxClient(**self._http("anthropic"))
        return anthropic.Anthropic(base_url=self._url, http_client=http_client, **self._anthropic)

    @cached_property
    def async_anthropic(self) -> anthropic.AsyncAnthropic:
        http_client = anthropic.DefaultAsyncHttpxClient(**self._http("anthropic"))
        return anthropic.AsyncAnthropic(base_url=self._url, http_client=http_client, **self._anthropic)

    @cached_property
    def openai(self) -> openai.OpenAI:
        http_client = openai.DefaultHttpxClient(**self._http("openai"))
        return openai.OpenAI(base_url=self._url + "/v1", http_client=http_client, **self._openai)

    @cached_property
    def async_openai(self) -> openai.AsyncOpenAI:
        http_client = openai.DefaultAsyncHttpxClient(**self._http("openai"))
        return openai.AsyncOpenAI(base_url=self._url + "/v1", http_client=http_client, **self._openai)

    def close(self) -> None:
        for name in ("anthropic", "openai"):
            if name in vars(self):
                vars(self)[name].close()

    async def aclose(self) -> None:
        for name in ("async_anthropic", "async_openai"):
            if name in vars(self):
                await vars(self)[name].close()


@pytest.fixture
def connect(provider: Provider) -> Iterator[Callable[..., Clients]]:
    """Makes clients. ``tracer_provider`` turns the anthropic SDK's own spans on, ``respond`` stands in for the
    provider and the network; everything else is an option of the client."""
    made: list[Clients] = []

    def make(
        tracer_provider: TracerProvider | None = None, respond: Callable[[Any], Any] | None = None, **options: Any
    ) -> Clients:
        made.append(Clients(provider.url, tracer_provider, respond, options))
        return made[-1]

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def clients(connect: Callable[..., Clients]) -> Clients:
    """Clients without spans of their own."""
    return connect()


# --- What telemetry says ------------------------------------------------------------------------------------


def event_name(record: Any) -> str:
    """The name of an event, where APIs before 1.35 have it too."""
    return getattr(record, "event_name", None) or (record.attributes or {}).get("event.name", "")


def fields(record: Any) -> dict[str, Any]:
    """What an event says."""
    return {name: value for name, value in (record.attributes or {}).items() if name != "event.name"}


class Telemetry:
    """Everything that was exported since ``instrument()``."""

    def __init__(self, sampler: Any = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracer_provider.get_tracer("the.application")
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider(metric_readers=[self._reader])
        self._records = InMemoryLogs()
        self.logger_provider = LoggerProvider()
        self.logger_provider.add_log_record_processor(SimpleLogs(self._records))

    def instrument(self) -> None:
        otel_promptcache.instrument(
            tracer_provider=self.tracer_provider,
            meter_provider=self.meter_provider,
            logger_provider=self.logger_provider,
        )

    def flush(self) -> None:
        """Waits for what is done off the caller's thread."""
        running = runtime.running()
        if running is not None:
            assert running.observer.worker.flush(60)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, in the order in which they ended."""
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The only finished span."""
        (only,) = self.spans
        return only

    @property
    def token_spans(self) -> list[ReadableSpan]:
        return [span for span in self.spans if "gen_ai.usage.input_tokens" in (span.attributes or {})]

    def collect(self) -> Any:
        """All metrics, as an exporter would get them."""
        return self._reader.get_metrics_data()

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """(labels, value) of every point of a metric; for histograms (labels, data point)."""
        data = self.collect()
        found = []
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found += [
                            (dict(point.attributes or {}), getattr(point, "value", point))
                            for point in metric.data.data_points
                        ]
        return found

    def total(self, name: str) -> float:
        """The sum of a counter over all labels."""
        return sum(value for _, value in self.points(name))

    def events(self, name: str = "promptcache.call") -> list[dict[str, Any]]:
        """Attributes of the log records of one event."""
        self.flush()
        records = [item.log_record for item in self._records.get_finished_logs()]
        return [fields(record) for record in records if event_name(record) == name]

    def everything(self) -> str:
        """All that was exported, as one text."""
        self.flush()
        metrics = self.collect()
        parts = [metrics.to_json() if metrics else ""]
        parts += [span.to_json() for span in self.spans]
        parts += [
            item.to_json() if hasattr(item, "to_json") else repr(item) for item in self._records.get_finished_logs()
        ]
        return "\n".join(parts)


@pytest.fixture(autouse=True)
def _nobody_watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins and ends uninstrumented, with default settings."""
    for name in list(os.environ):
        if name.startswith(("OTEL_PROMPTCACHE_", "ANTHROPIC_", "OPENAI_")):
            monkeypatch.delenv(name)
    assert runtime.running() is None
    yield
    otel_promptcache.uninstrument()


@pytest.fixture(scope="session")
def _prices() -> None:
    assert pricing.load()


@pytest.fixture
def observe(_prices: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Telemetry]:
    """Instruments both SDKs under the given settings: ``observe(ledger="true")``.

    There is no limit to our own time unless a test sets one: a busy machine would exceed it.
    """

    def start(*, sampler: Any = None, **settings: str) -> Telemetry:
        settings.setdefault("budget_ms", "0")
        for name, value in settings.items():
            monkeypatch.setenv("OTEL_PROMPTCACHE_" + name.upper(), value)
        telemetry = Telemetry(sampler)
        telemetry.instrument()
        return telemetry

    return start


@pytest.fixture
def telemetry(observe: Callable[..., Telemetry]) -> Telemetry:
    """Both SDKs instrumented, nothing said otherwise."""
    return observe()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody logs at WARNING or above while the test runs."""
    with caplog.at_level(logging.WARNING):
        yield
    loud = [f"{record.name}: {record.getMessage()}" for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == []


@pytest.fixture
def run() -> Callable[[Any], Any]:
    """Runs a call, sync or async, and gives its result."""

    def finish(result: Any) -> Any:
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    return finish


async def _awaited(result: Any) -> Any:
    return await result


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], None]:
    """Waits until a condition holds; bounded, so that a hang is a failure."""

    def wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.005)

    return wait
