"""Recorded answers of many providers, served on loopback to the real SDKs: each call says what the provider counted."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import anthropic
import openai
import pytest

from otel_promptcache.providers import dialect_for

Exchange = dict[str, Any]

# gen_ai.provider.name, where recordings use another word.
NAMES = {"mistral": "mistral_ai", "xai": "x_ai", "llamacpp": "llama_cpp", "bedrock": "aws.bedrock"}
READ = ("cache_read_input_tokens", "cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens")
WRITE = ("cache_creation_input_tokens", "cache_write_tokens")
WAYS = {
    "anthropic": ("anthropic", "/v1/messages"),
    "openai_chat": ("openai", "/chat/completions"),
    "openai_responses": ("openai", "/responses"),
}


@pytest.fixture
def tape() -> Iterator[Any]:
    """A server that plays one recorded answer after the other, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            response = server.exchange["response"]  # type: ignore[attr-defined]
            streamed = "sse" in response
            body = response["sse"].encode() if streamed else json.dumps(response["body"]).encode()
            self.send_response(_status(response))
            self.send_header("content-type", "text/event-stream" if streamed else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def exchanges(recorded: Path) -> Iterator[tuple[str, str, Exchange]]:
    """(name, dialect, exchange) of everything that speaks one of ours."""
    for folder in ("cassettes", "selfhosted"):
        for file in sorted((recorded / folder).glob("*.json")):
            for number, exchange in enumerate(json.loads(file.read_text(encoding="utf-8"))["sequence"]):
                dialect = dialect_for(re.sub(r"\?$", "", exchange["endpoint"]))
                if dialect is not None and dialect.name in WAYS:
                    yield f"{file.stem}[{number}]", dialect.name, exchange


def call(client: Any, dialect: str, exchange: Exchange) -> None:
    """Makes the request through the SDK, read to its end; what it cannot parse is the application's concern."""
    body = {name: value for name, value in exchange["request_body"].items() if name != "stream"}
    stream = "sse" in exchange["response"]
    create = {
        "anthropic": lambda: client.messages.with_raw_response.create,
        "openai_chat": lambda: client.chat.completions.with_raw_response.create,
        "openai_responses": lambda: client.responses.with_raw_response.create,
    }[dialect]()
    required = {"model": body.pop("model", "m")}
    for name in ("messages", "max_tokens", "input"):
        if name in body:
            required[name] = body.pop(name)
    try:
        raw = create(**required, stream=stream, extra_body=body)
        if stream:
            list(raw.parse())
    except (anthropic.APIStatusError, openai.APIStatusError):
        assert _status(exchange["response"]) >= 400


def test_every_recorded_answer(recorded, tape, observe):
    """Exactly the noted counts on span and ledger, streamed or not; absent is not zero. The host is named by the
    setting, as it would be by the providers' own host names."""
    url = f"http://127.0.0.1:{tape.server_port}"
    clients = {
        "anthropic": anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, **_silent()),
        "openai": openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0),
    }
    played = 0
    by_provider = itertools.groupby(
        sorted(exchanges(recorded), key=lambda one: one[2]["provider"]), key=lambda one: one[2]["provider"]
    )
    import otel_promptcache

    for recorded_as, group in by_provider:
        provider = NAMES.get(recorded_as, recorded_as)
        telemetry = observe(
            ledger="true", mode="tokens", prices="off", provider_hosts=f"127.0.0.1:{tape.server_port}={provider}"
        )
        for name, dialect, exchange in group:
            tape.exchange = exchange
            before = len(telemetry.spans)
            call(clients[WAYS[dialect][0]], dialect, exchange)
            (span,) = telemetry.spans[before:]
            noted = exchange.get("cache_usage", _of_an_engine(exchange))
            event = telemetry.events()[-1]
            for told in (span.attributes, event):
                assert told.get("gen_ai.usage.cache_read.input_tokens") == _first(noted, READ), name
                assert told.get("gen_ai.usage.cache_write.input_tokens") == _first(noted, WRITE), name
            assert span.attributes["gen_ai.provider.name"] == provider
            assert ("error.type" in span.attributes) is (_status(exchange["response"]) >= 400), name
            played += 1
        assert telemetry.total("promptcache.internal.errors") == 0
        otel_promptcache.uninstrument()
    assert played >= 150


def _silent() -> dict[str, Any]:
    import inspect

    return {"open_telemetry": False} if "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters else {}


def _status(response: dict[str, Any]) -> int:
    return int(str(response["status"])[:3])


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((usage[name] for name in names if name in usage), None)


def _of_an_engine(exchange: Exchange) -> dict[str, Any]:
    """Counts of a self-hosted engine, whose recordings have no note of them: read with regular expressions."""
    response = exchange["response"]
    text = response["sse"] if "sse" in response else json.dumps(response["body"])

    def last(*names: str) -> dict[str, int]:
        found = [re.findall(rf'"{name}"\s*:\s*(\d+)', text) for name in names]
        return next(({names[0]: int(each[-1])} for each in found if each), {})

    read = last("cached_tokens", "cache_read_input_tokens", "cache_n")
    return read | last("cache_write_tokens", "created_cache_tokens", "cache_creation_input_tokens")
