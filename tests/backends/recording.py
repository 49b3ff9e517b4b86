"""Calls of every kind, made with the real SDKs against the emulator, and what is true of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from servers.application import OUTPUT, Clients, message, observed, provider, text
from servers.canned import http_library, transport

from otel_promptcache import conversation, route
from otel_promptcache.emulator import Reply, emulator

SERVICE = "shop"
PARENT = "answer"
"""The application's own span around a conversation."""
KIMI = "moonshotai/kimi-k2-instruct-0905"
"""USD a million on Groq: 1 input, 0.50 read, 3 output."""
TALK = "talk-7"
"""The conversation that some of the calls belong to."""
USAGE = "gen_ai.usage."
COST = "promptcache.cost."


@dataclass(frozen=True)
class Truth:
    """What a call used and cost, by the ledger. ``None``: nobody knows."""

    name: str
    model: str
    provider: str
    session: str
    status: str
    error: bool
    input: int | None = None
    read: int | None = None
    write: int | None = None
    uncached: int | None = None
    output: int | None = None
    usd: float | None = None


@dataclass(frozen=True)
class Recorded:
    """Finished spans and the truth of each that stands for a call, by its id."""

    spans: list[ReadableSpan]
    truths: dict[str, Truth]

    @property
    def otlp(self) -> bytes:
        """All of them as a process sends them."""
        return bytes(encode_spans(self.spans).SerializeToString())

    @property
    def attributes(self) -> dict[str, Mapping[str, Any]]:
        """Of each call, by span id."""
        found = {span_id(span): dict(span.attributes or {}) for span in self.spans}
        return {key: found[key] for key in self.truths}

    def with_attributes(self, attributes: Mapping[str, Mapping[str, Any]]) -> Recorded:
        """The same spans, with these attributes instead of their own."""
        spans = [
            ReadableSpan(
                name=span.name,
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes=attributes[span_id(span)],
                events=span.events,
                links=span.links,
                kind=span.kind,
                status=span.status,
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
            for span in self.spans
        ]
        return Recorded(spans, self.truths)


def span_id(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


# --- The calls ----------------------------------------------------------------------------------------------


def conversation_of(clients: Clients, _: str) -> None:
    """Three turns: the first writes, the second reads it, the third finds its history changed."""
    said = [text(1500, word) for word in ("one", "say", "two", "tel", "now")]
    for turns in (said[:1], said[:3], ["edited " + said[0], *said[1:]]):
        asked = message(text(2000, "sys"), *turns)
        asked["messages"][-1]["content"] = [
            {"type": "text", "text": turns[-1], "cache_control": {"type": "ephemeral"}},
        ]
        clients.anthropic.messages.create(**asked)


def hour(clients: Clients, _: str) -> None:
    """Written for an hour, at twice the price; then read."""
    for _turn in range(2):
        clients.anthropic.messages.create(**message(text(3000, "hou"), text(10), ttl="1h"))


def stream(clients: Clients, _: str) -> None:
    """Written and read by streams."""
    for _turn in range(2):
        for _event in clients.anthropic.messages.create(**message(text(2000, "str"), text(10), stream=True)):
            pass


def changed(clients: Clients, _: str) -> None:
    """A system prompt that changes: a miss."""
    for first in ("one", "two"):
        clients.anthropic.messages.create(**message(f"{first}\n{text(1999)}", text(10)))


def small(clients: Clients, _: str) -> None:
    """Too short for the cache."""
    clients.anthropic.messages.create(**message("Be brief.", "hi"))


def failed(clients: Clients, _: str) -> None:
    """Without an answer, and an answer without usage."""
    asked = message(text(2000, "bad"), text(10))
    with pytest.raises(anthropic.InternalServerError):
        clients.anthropic.messages.create(**asked, extra_headers={"x-emulator-fault": "500"})
    clients.anthropic.messages.create(**asked, extra_headers={"x-emulator-fault": "no_usage"})


def private(clients: Clients, _: str) -> None:
    """A model whose price nobody knows."""
    clients.anthropic.messages.create(**message(text(2000, "own"), text(10), model="house-model-2"))


def chat(clients: Clients, _: str) -> None:
    """OpenAI's chat: automatic caching, which on newer models counts what it writes."""
    for model in ("gpt-4.1-mini", "gpt-5.6"):
        for _turn in range(2):
            clients.openai.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text(2560, "cha")}]
            )


def responses(clients: Clients, _: str) -> None:
    """OpenAI's Responses."""
    for _turn in range(2):
        clients.openai.responses.create(model="gpt-4.1-mini", input=text(2560, "res"))


def compatible(_: Clients, url: str) -> None:
    """Another provider behind OpenAI's SDK, whose prices few lists have."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0) as client:
        for _turn in range(2):
            client.chat.completions.create(model=KIMI, messages=[{"role": "user", "content": text(2560, "dee")}])


REASONED = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
    "usage": {
        "prompt_tokens": 3000,
        "prompt_tokens_details": {"cached_tokens": 2048},
        "completion_tokens": 80,
        "completion_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 3080,
    },
}
"""What a model answers that has reasoned, which the emulator's does not."""


def reasoning(_: Clients, __: str) -> None:
    """Output that is mostly reasoning."""
    http = http_library("openai")
    transported = openai.DefaultHttpxClient(transport=transport("openai", lambda _: http.Response(200, json=REASONED)))
    with openai.OpenAI(api_key="sk-test", max_retries=0, http_client=transported) as client:
        client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": text(2990, "rea")}])


def batch(clients: Clients, _: str) -> None:
    """Two items of a batch, at half the price."""
    asked = message(text(2000, "bat"), text(10))
    requests: Any = [{"custom_id": f"item-{number}", "params": asked} for number in range(2)]
    submitted = clients.anthropic.messages.batches.create(requests=requests)
    list(clients.anthropic.messages.batches.results(submitted.id))


CALLS: tuple[Callable[[Clients, str], None], ...] = (
    hour,
    stream,
    changed,
    small,
    failed,
    private,
    chat,
    responses,
    compatible,
    reasoning,
    batch,
)


@contextmanager
def _made(**settings: str) -> Iterator[Any]:
    with provider() as emulated, emulator(personality="groq", answer=lambda _: Reply(text(OUTPUT, "out"))) as groq:
        emulated.limits.enforced = False
        clients = Clients(emulated.url)
        hosts = f"{urlsplit(groq.url).netloc}=groq"
        with observed(service=SERVICE, ledger="true", provider_hosts=hosts, **settings) as seen:
            tracer = seen.tracer_provider.get_tracer("app")
            with tracer.start_as_current_span(PARENT), conversation(TALK), route(conversation_of.__name__):
                conversation_of(clients, emulated.url)
            for calls in CALLS:
                with route(calls.__name__):
                    calls(clients, groq.url)
            seen.settle()
            yield seen
        clients.close()


def record(**settings: str) -> Recorded:
    """Makes all calls under these settings. Tokens and costs are the same each time."""
    with _made(**settings) as seen:
        spans = list(seen.spans)
        # The items of a batch are told together, on the span of reading the results.
        collecting = {
            span.attributes["promptcache.batch.id"]: span_id(span)
            for span in spans
            if "promptcache.batch.items" in (span.attributes or {})
        }
        said: dict[str, list[dict[str, Any]]] = {}
        for item in seen.records.get_finished_logs():
            told = dict(item.log_record.attributes or {})
            if "promptcache.call.id" in told:
                own = f"{item.log_record.span_id:016x}"
                said.setdefault(collecting.get(told.get("promptcache.batch.id"), own), []).append(told)
        return Recorded(spans, {key: _truth(calls) for key, calls in said.items()})


def _truth(calls: Sequence[Mapping[str, Any]]) -> Truth:
    def total(name: str) -> Any:
        known = [said[name] for said in calls if name in said]
        return sum(known) if known else None

    said = calls[0]
    return Truth(
        name=said["promptcache.route"],
        model=said["gen_ai.request.model"],
        provider=said["gen_ai.provider.name"],
        session=said.get("gen_ai.conversation.id", ""),
        status=said.get("promptcache.status", ""),
        error="error.type" in said,
        input=total(f"{USAGE}input_tokens"),
        read=total(f"{USAGE}cache_read.input_tokens"),
        write=total(f"{USAGE}cache_write.input_tokens"),
        uncached=total("promptcache.uncached_tokens"),
        output=total(f"{USAGE}output_tokens"),
        usd=total(f"{COST}total"),
    )


__all__ = ["CALLS", "PARENT", "SERVICE", "TALK", "Recorded", "Truth", "record", "span_id"]
