"""Providers behind the OpenAI SDK: who they are, what they count, in the spans and metrics of real calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers.canned import transport

OM: dict[str, Any] = {"model": "some-model", "messages": [{"role": "user", "content": "hi"}]}
CALLS = "promptcache.calls"


def completion(usage, **more):
    message = {"role": "assistant", "content": "ok"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    } | more


def answering(http, *documents):
    left = list(documents)
    return lambda _: http.Response(200, json=left.pop(0))


def providers(telemetry, name=CALLS):
    return sorted(labels["gen_ai.provider.name"] for labels, _ in telemetry.points(name))


def test_a_private_host_with_a_name(clients, provider, observe):
    """The setting says who it is, from the first call on and before it is answered."""
    telemetry = observe(provider_hosts=f"{provider.host}=gateway")
    clients.openai.chat.completions.create(**OM)
    assert telemetry.span.attributes["gen_ai.provider.name"] == "gateway"
    assert providers(telemetry) == ["gateway"]


def test_a_setting_that_names_nobody(clients, observe, caplog):
    """Is said, with what it takes."""
    observe(provider_hosts="localhost")
    assert "OTEL_PROMPTCACHE_PROVIDER_HOSTS takes host=provider" in caplog.text


def test_an_engine_is_known_by_its_answers(connect, http, observe):
    """Span and metrics of the first call say so too, and the second begins with it."""
    answer = completion({"prompt_tokens": 100, "completion_tokens": 1}, system_fingerprint="vllm-0.32.0-8c2d89a8")
    clients = connect(respond=answering(http, answer, answer))
    telemetry = observe()
    for _ in range(2):
        clients.openai.chat.completions.create(**OM)
    assert [span.attributes["gen_ai.provider.name"] for span in telemetry.spans] == ["vllm", "vllm"]
    assert {*providers(telemetry)} == {"vllm"}


def test_what_a_host_answers_does_not_part_its_calls(connect, http, observe):
    """The second request finds the first one's prefix, though only the answer told who is there."""
    details = {"prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 4096}}
    answer = completion({"prompt_tokens": 4096, "completion_tokens": 1} | details)
    clients = connect(respond=answering(http, answer, answer))
    telemetry = observe()
    for _ in range(2):
        clients.openai.chat.completions.create(**{**OM, "messages": [{"role": "user", "content": "hi " * 4000}]})
    assert [span.attributes["promptcache.status"] for span in telemetry.spans] == ["cold", "miss"]


@pytest.mark.parametrize(
    ("host", "provider", "usage", "expected"),
    [
        ("api.deepseek.com", "deepseek", {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, (64, None)),
        ("openrouter.ai", "openrouter", {"cache_read_input_tokens": 64, "cache_creation_input_tokens": 30}, (64, 30)),
        ("api.groq.com", "groq", {}, (None, None)),
        ("api.groq.com", "groq", {"prompt_tokens_details": {"cached_tokens": 64}}, (64, None)),
        ("api.x.ai", "x_ai", {"prompt_tokens_details": {"cached_tokens": 64}}, (64, None)),
        ("api.mistral.ai", "mistral_ai", {"num_cached_tokens": 64}, (64, None)),
        ("api.moonshot.ai", "moonshot_ai", {"cached_tokens": 64}, (64, None)),
        ("shop.openai.azure.com", "azure.ai.openai", {"prompt_tokens_details": {"cached_tokens": 0}}, (0, None)),
        ("api.z.ai", "zai", {"prompt_tokens_details": {"cached_tokens": 43}}, (43, None)),
    ],
)
def test_hosted_providers(host, provider, usage, expected, http, observe):
    """By their hosts; what they leave out is not on the span."""
    import openai

    counted = {"prompt_tokens": 100, "completion_tokens": 5} | usage
    answering = openai.DefaultHttpxClient(
        transport=transport("openai", lambda _: http.Response(200, json=completion(counted)))
    )
    client = openai.OpenAI(base_url=f"https://{host}/v1", api_key="k", http_client=answering)
    telemetry = observe(prices="off")
    client.chat.completions.create(**OM)
    told = telemetry.span.attributes
    assert told["gen_ai.provider.name"] == provider
    assert told["gen_ai.usage.input_tokens"] == 100
    names = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens")
    assert tuple(told.get(name) for name in names) == expected
    assert (told["promptcache.status"] == "unknown") is (expected[0] is None)


def test_what_openrouter_says_the_cache_saved(connect, http, observe):
    """In USD, beside our own figure and not in its place."""
    answer = completion({"prompt_tokens": 100, "completion_tokens": 5}, cache_discount=0.0125)
    telemetry = observe(prices="off")
    connect(respond=answering(http, answer)).openai.chat.completions.create(**OM)
    assert telemetry.span.attributes["promptcache.native.cache_discount"] == 0.0125
    assert telemetry.span.attributes["gen_ai.provider.name"] == "openrouter"


def test_another_model_answers(connect, http, observe):
    """The span has both names, and the price is that of the model that answered."""
    answer = completion({"prompt_tokens": 1_000_000, "completion_tokens": 0}, model="gpt-4.1-2025-04-14")
    telemetry = observe()
    connect(respond=answering(http, answer)).openai.chat.completions.create(**{**OM, "model": "router/best"})
    told = telemetry.span.attributes
    assert told["gen_ai.request.model"] == "router/best"
    assert told["gen_ai.response.model"] == "gpt-4.1-2025-04-14"
    assert told["promptcache.cost.total"] == 2.0


def test_a_text_completion(connect, http, observe):
    """The older API: an operation of its own, one count, one price."""
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"index": 0, "text": "ok", "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
    }
    telemetry = observe()
    clients = connect(respond=answering(http, answer))
    clients.openai.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once")
    told = telemetry.span.attributes
    assert telemetry.span.name == "text_completion gpt-3.5-turbo-instruct"
    assert told["gen_ai.operation.name"] == "text_completion"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 10)
    assert told["promptcache.cost.total"] == pytest.approx(1000 * 1.5e-6 + 10 * 2e-6)
    (point,) = telemetry.points("gen_ai.client.inference.usage.input_tokens")
    assert point[0]["gen_ai.operation.name"] == "text_completion"


def test_compaction(connect, http, observe):
    """What summing a conversation up costs is counted as any call."""
    usage = {
        "input_tokens": 5000,
        "output_tokens": 50,
        "total_tokens": 5050,
        "input_tokens_details": {"cached_tokens": 3000, "cache_write_tokens": 1500},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    answer = {"id": "resp_1", "object": "response.compaction", "created_at": 1, "output": [], "usage": usage}
    clients = connect(respond=answering(http, answer))
    if not hasattr(clients.openai.responses, "compact"):
        pytest.skip("this openai SDK cannot compact")
    telemetry = observe()
    clients.openai.responses.compact(model="gpt-5.6", input="hi")
    told = telemetry.span.attributes
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.cache_read.input_tokens"]) == (5000, 3000)
    # 3000 x 0.40 + 1500 x 5 + 500 x 4 + 50 x 20 = 11700
    assert told["promptcache.cost.total"] == pytest.approx(0.0117)


def test_a_stream_without_usage_of_llama_cpp(connect, streamed, observe):
    """Its times count the tokens that its usage would."""
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    parts = [
        {**chunk, "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": None}]},
        {
            **chunk,
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "timings": {"cache_n": 1555, "prompt_n": 1, "predicted_n": 6},
        },
    ]
    body = [f"data: {json.dumps(part)}\n\n".encode() for part in parts]
    telemetry = observe(prices="off")
    list(connect(respond=lambda _: streamed(body)).openai.chat.completions.create(stream=True, **OM))
    told = telemetry.span.attributes
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.cache_read.input_tokens"]) == (1556, 1555)
    assert told["gen_ai.provider.name"] == "llama_cpp"


def test_a_stream_that_tells_more_as_it_goes_on(connect, streamed, observe):
    """Counts in every chunk, the first of them without those of the cache: the verdict is that of the last."""
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    early, late = {"prompt_tokens": 4000}, {"prompt_tokens": 4000, "prompt_tokens_details": {"cached_tokens": 3968}}
    body = [
        f"data: {json.dumps({**chunk, 'usage': {**usage, 'completion_tokens': number}})}\n\n".encode()
        for number, usage in enumerate((early, early, late))
    ]
    telemetry = observe(prices="off")
    client = connect(respond=lambda _: streamed(body)).openai
    for _ in range(2):
        list(client.chat.completions.create(stream=True, **OM))
    told = telemetry.spans[-1].attributes
    assert (told["promptcache.status"], told["gen_ai.usage.cache_read.input_tokens"]) == ("hit", 3968)
    assert "promptcache.reason" not in told


def test_a_gateway_has_many_providers(connect, http, observe):
    """What one model's answer shows is not said of another model."""
    usage = {"prompt_tokens": 100, "completion_tokens": 5}
    answers = [completion(usage), completion(usage, x_groq={"id": "req_1"}), completion(usage)]
    telemetry = observe(prices="off")
    client = connect(respond=answering(http, *answers)).openai
    for model in ("gpt-4.1", "openai/gpt-oss-120b", "gpt-4.1"):
        client.chat.completions.create(**{**OM, "model": model})
    named = [span.attributes["gen_ai.provider.name"] for span in telemetry.spans]
    assert named == ["openai", "groq", "openai"]


GUESSES = [
    # The id's form is the engine's; the model is sold by the dialect's maker, or is nobody's.
    ("gpt-4.1", {}, "openai"),
    ("openai/gpt-4.1", {}, "vllm"),
    ("qwen3-32b", {}, "vllm"),
    ("gpt-4.1", {"system_fingerprint": "vllm-0.32.0-8c2d89a8"}, "vllm"),
]


@pytest.mark.parametrize(("model", "more", "name"), GUESSES)
def test_an_id_is_no_proof(model, more, name, connect, http, observe):
    """Gateways have ids of their own making: a model that the dialect's maker sells is not taken for an engine's, with
    its price lost. What only an engine says is believed."""
    told = {"id": "chatcmpl-90a68bcf289a094c", "model": model, **more}
    answer = completion({"prompt_tokens": 1000, "completion_tokens": 1}, **told)
    clients = connect(respond=answering(http, answer, answer))
    telemetry = observe()
    for _ in range(2):
        clients.openai.chat.completions.create(**OM | {"model": model})
    assert [span.attributes["gen_ai.provider.name"] for span in telemetry.spans] == [name] * 2
    assert (telemetry.total("promptcache.unpriced.calls") == 0) == (name == "openai")


def test_a_message_of_a_gateway(connect, http, observe):
    """Likewise: SGLang's ids are those of many a gateway in front of Anthropic."""
    document = {
        "id": "msg_487e61d0063a49aaafffe90ad4aac234",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 1},
    }
    clients = connect(respond=answering(http, document))
    telemetry = observe()
    clients.anthropic.messages.create(model="claude-sonnet-4-6", max_tokens=5, messages=[])
    assert telemetry.span.attributes["gen_ai.provider.name"] == "anthropic"
    assert telemetry.span.attributes["promptcache.cost.total"] == pytest.approx(0.003015)
