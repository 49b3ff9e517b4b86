"""Requests that ask the provider for its own verdict: what is added, who is asked, what becomes of a refusal."""

from __future__ import annotations

import copy
import inspect

import anthropic
import openai
import pytest

BETA = "cache-diagnosis-2026-04-07"
AM = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief. " * 40, "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
}
GPT = {"model": "gpt-5.6", "instructions": "Be brief. " * 40, "input": "hi"}
HAS_NATIVE = "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters
CHAT = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}


def diagnostics(provider):
    """What each request so far said to the provider, of this."""
    return [ask.body.get("diagnostics", "nothing") for ask in provider.asked]


def options(provider):
    return [ask.body.get("prompt_cache_options", "nothing") for ask in provider.asked]


def later(**said):
    """The next turn of the conversation."""
    return {**AM, "messages": [*AM["messages"], {"role": "assistant", "content": "hello"}, {"role": "user", **said}]}


# --- Ways to call, each the same to the provider ------------------------------------------------------------


def create(clients, body):
    return clients.anthropic.messages.create(**body).id


async def async_create(clients, body):
    return (await clients.async_anthropic.messages.create(**body)).id


def stream(clients, body):
    events = list(clients.anthropic.messages.create(stream=True, **body))
    return events[0].message.id


async def async_stream(clients, body):
    events = [event async for event in await clients.async_anthropic.messages.create(stream=True, **body)]
    return events[0].message.id


def helper(clients, body):
    with clients.anthropic.messages.stream(**body) as opened:
        return opened.get_final_message().id


def raw(clients, body):
    return clients.anthropic.messages.with_raw_response.create(**body).parse().id


def streaming_response(clients, body):
    with clients.anthropic.messages.with_streaming_response.create(**body) as response:
        return response.parse().id


def beta(clients, body):
    return clients.anthropic.beta.messages.create(**body).id


WAYS = [create, async_create, stream, async_stream, helper, raw, streaming_response, beta]


async def calls(way, clients, *bodies):
    """Ids of the responses to some requests, one after the other."""
    found = []
    for body in bodies:
        result = way(clients, body)
        found.append(result if isinstance(result, str) else await result)
    await clients.aclose()
    return found


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_anthropic_is_asked_about_a_conversation(way, clients, provider, observe, run, quiet):
    """The first request opts in, every later one names the response before it; the application's own are as they
    were."""
    observe(native_diagnostics="true")
    turns = [AM, later(content="how are you?")]
    before = copy.deepcopy(turns)

    first, _ = run(calls(way, clients, *turns))
    assert diagnostics(provider) == [{"previous_message_id": None}, {"previous_message_id": first}]
    assert turns == before


def test_nothing_else_is_changed(clients, provider, observe, quiet):
    """But for the field the body is the same, byte by byte, and so are the headers but for its length."""
    clients.anthropic.messages.create(**AM)
    telemetry = observe(native_diagnostics="true")
    clients.anthropic.messages.create(**AM)
    without, with_ = provider.asked
    assert with_.raw == without.raw[:-1] + b',"diagnostics":{"previous_message_id":null}}'
    same = [
        {k: v for k, v in ask.headers.items() if k not in ("content-length", "traceparent")} for ask in provider.asked
    ]
    assert same[0] == same[1]
    assert len(telemetry.spans) == 1


def test_openai_is_asked_from_the_second_response_on(clients, provider, observe, quiet):
    """Every response can be compared with; there is nothing to ask about the first. Options of the application stay."""
    observe(native_diagnostics="true")
    first = clients.openai.responses.create(**GPT)
    second = clients.openai.responses.create(**{**GPT, "input": "and now?"})
    mine = {"ttl": "30m"}
    clients.openai.responses.create(**{**GPT, "input": "and then?"}, extra_body={"prompt_cache_options": mine})
    assert options(provider) == [
        "nothing",
        {"comparison_response_id": first.id},
        {"ttl": "30m", "comparison_response_id": second.id},
    ]
    assert mine == {"ttl": "30m"}


def test_a_body_that_can_be_read_once(clients, provider, observe, quiet):
    """A generator is read by the SDK, and by nobody before or after it; also where the request is made again."""
    provider.refuses = lambda ask: "diagnostics: Extra inputs are not permitted" if "diagnostics" in ask.body else ""
    observe(native_diagnostics="true")
    clients.anthropic.messages.create(**{**AM, "messages": ({**one} for one in AM["messages"])})
    assert [ask.body["messages"] for ask in provider.asked] == [AM["messages"]] * 2


# --- Who is asked -------------------------------------------------------------------------------------------


def test_nobody_unless_asked_for(clients, provider, observe, quiet):
    """The setting is off by default."""
    observe()
    for _ in range(2):
        clients.anthropic.messages.create(**AM)
        clients.openai.responses.create(**GPT)
    assert {*map(str, diagnostics(provider)), *map(str, options(provider))} == {"nothing"}


def test_chat_completions_cannot_be_asked(clients, provider, observe, quiet):
    observe(native_diagnostics="true")
    for _ in range(2):
        clients.openai.chat.completions.create(**CHAT)
    assert options(provider) == ["nothing"] * 2


def test_models_that_know_nothing_of_it(clients, provider, observe, quiet):
    """Before GPT-5.6, and models of others behind the same API."""
    observe(native_diagnostics="true")
    for model in ("gpt-5.1", "llama-4") * 2:
        clients.openai.responses.create(**{**GPT, "model": model})
    assert options(provider) == ["nothing"] * 4


def at(url, http, provider):
    """A client of a host that no test can reach."""

    def respond(request):
        ask = provider.hear(request.url.path, {}, request.content)
        return http.Response(200, headers={"content-type": "application/json"}, content=provider.answers(ask)[2][0])

    transport = http.Client(transport=http.MockTransport(respond))
    return anthropic.Anthropic(base_url=url, api_key="k", http_client=transport)


HOSTS = [
    ("https://api.anthropic.com", True),
    ("https://gateway.example.com", False),
    ("https://openrouter.ai/api", False),
    ("https://bedrock-mantle.us-east-1.api.aws/anthropic", False),
    ("https://api.anthropic.com.example.com", False),
]


@pytest.mark.parametrize(("url", "asked"), HOSTS)
def test_hosts(url, asked, http, provider, observe, quiet):
    """The provider's own; no gateway that nobody has named, no platform."""
    observe(native_diagnostics="true", native_hosts="elsewhere.example.com")
    at(url, http, provider).messages.create(**AM)
    assert diagnostics(provider) == [{"previous_message_id": None} if asked else "nothing"]


def test_a_gateway_that_passes_it_on(http, provider, observe, quiet):
    """``OTEL_PROMPTCACHE_NATIVE_HOSTS`` names it."""
    observe(native_diagnostics="true", native_hosts="elsewhere.example.com, gateway.example.com")
    at("https://gateway.example.com", http, provider).messages.create(**AM)
    assert diagnostics(provider) == [{"previous_message_id": None}]


def test_clients_of_platforms(provider, observe, quiet):
    """Azure's client speaks the same dialect, wherever its server stands."""
    observe(native_diagnostics="true")
    client = openai.AzureOpenAI(base_url=provider.url + "/v1", api_key="k", api_version="2026-01-01", max_retries=0)
    for _ in range(2):
        client.responses.create(**GPT)
    foundry = getattr(anthropic, "AnthropicFoundry", None)
    if foundry is not None:
        foundry(base_url=provider.url, api_key="k", max_retries=0).messages.create(**AM)
    assert {*map(str, diagnostics(provider)), *map(str, options(provider))} == {"nothing"}


def test_who_asks_for_itself(clients, provider, observe, quiet):
    """Is left alone."""
    observe(native_diagnostics="true")
    clients.anthropic.messages.create(**AM, extra_body={"diagnostics": {"previous_message_id": "msg_1"}})
    clients.openai.responses.create(**GPT)
    mine = {"comparison_response_id": "resp_1"}
    clients.openai.responses.create(**GPT, extra_body={"prompt_cache_options": mine})
    assert diagnostics(provider)[0] == {"previous_message_id": "msg_1"}
    assert options(provider)[2] == mine


def test_a_share_of_conversations(connect, http, observe, quiet):
    """Of conversations, not of calls: a response can be compared with only if its own request asked."""
    bodies = []

    def respond(request):
        bodies.append(http.Request("POST", "http://x", content=request.content).content)
        answer = {
            "id": f"msg_{len(bodies)}",
            "type": "message",
            "role": "assistant",
            "model": AM["model"],
            "content": [],
        }
        return http.Response(200, json={**answer, "usage": {"input_tokens": 10, "output_tokens": 1}})

    observe(native_diagnostics="0.25")
    clients = connect(respond=respond)
    asked = []
    for number in range(200):
        first = {
            **AM,
            "system": f"You are number {number}.",
            "messages": [{"role": "user", "content": f"I am {number}"}],
        }
        said = [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "go on"}]
        clients.anthropic.messages.create(**first)
        clients.anthropic.messages.create(**{**first, "messages": [*first["messages"], *said]})
        asked.append([b'"diagnostics"' in body for body in bodies[-2:]])
    assert all(one == two for one, two in asked)
    assert 20 <= sum(one for one, _ in asked) <= 85


# --- Refusals -----------------------------------------------------------------------------------------------


def unknown(ask):
    """As a provider that does not know the field puts it."""
    if "diagnostics" in ask.body:
        return "diagnostics: Extra inputs are not permitted"
    if "comparison_response_id" in ask.body.get("prompt_cache_options", {}):
        return "Unknown parameter: 'prompt_cache_options.comparison_response_id'."
    return ""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_refused_question_is_taken_back(way, clients, provider, observe, run, quiet):
    """The call is made again without it and succeeds; it is one call; the host is asked once more with the beta header,
    and then no more."""
    provider.refuses = unknown
    telemetry = observe(native_diagnostics="true")
    run(calls(way, clients, *[AM] * 4))
    null = {"previous_message_id": None}
    assert diagnostics(provider) == [null, "nothing", null, "nothing", "nothing", "nothing"]
    headers = [BETA in ask.headers.get("anthropic-beta", "") for ask in provider.asked]
    assert headers == [False, False, True, False, False, False]
    assert telemetry.total("promptcache.calls") == 4
    assert len(telemetry.token_spans) == 4
    assert [span.status.is_ok for span in telemetry.spans] == [True] * 4


def test_openai_refuses(clients, provider, observe, quiet):
    """No header could help: the host is asked once."""
    provider.refuses = unknown
    telemetry = observe(native_diagnostics="true")
    for _ in range(4):
        clients.openai.responses.create(**GPT)
    assert [one != "nothing" for one in options(provider)] == [False, True, False, False, False]
    assert telemetry.total("promptcache.calls") == 4


def test_a_deployment_that_still_wants_the_header(clients, provider, observe, quiet):
    """It gets it, beside those of the application, once it has refused the field without."""
    provider.refuses = lambda ask: "" if BETA in ask.headers.get("anthropic-beta", "") else unknown(ask)
    observe(native_diagnostics="true")
    for _ in range(3):
        clients.anthropic.messages.create(**AM, extra_headers={"anthropic-beta": "one-2026-01-01"})
    sent = [(ask.headers["anthropic-beta"], "diagnostics" in ask.body) for ask in provider.asked]
    with_header = (f"one-2026-01-01,{BETA}", True)
    assert sent == [("one-2026-01-01", True), ("one-2026-01-01", False), with_header, with_header]


def test_a_refusal_of_something_else(clients, provider, observe, quiet):
    """Is the application's, at once, as it is, where the host is known to take the question."""
    telemetry = observe(native_diagnostics="true")
    clients.anthropic.messages.create(**AM)
    provider.refuses = lambda _: "max_tokens: Field required"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        clients.anthropic.messages.create(**AM)
    assert len(provider.asked) == 2
    assert telemetry.total("promptcache.calls") == 2


def test_ids_stay_in_their_account(connect, provider, observe, quiet):
    """A response of one key is not named to the provider under another, however alike the prompts are."""
    observe(native_diagnostics="true")
    for key in ("one", "two", "one"):
        connect().anthropic.with_options(api_key=key).messages.create(**AM)
    named = [ask.body["diagnostics"]["previous_message_id"] for ask in provider.asked]
    assert (named[0], named[1], bool(named[2])) == (None, None, True)


def test_a_refusal_that_is_followed_by_another(clients, provider, observe, quiet):
    """The error of the repeated request is the one that the application gets, without a trace of ours."""
    provider.refuses = lambda ask: unknown(ask) or "max_tokens: Field required"
    telemetry = observe(native_diagnostics="true")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens") as raised:
        clients.anthropic.messages.create(**AM)
    assert not isinstance(raised.value.__context__, anthropic.APIError)
    assert telemetry.total("promptcache.calls") == 1


@pytest.mark.skipif(not HAS_NATIVE, reason="this anthropic has no spans of its own")
def test_a_native_span_around_each_request(connect, provider, observe, quiet):
    """The SDK ends one span with the refusal and starts another: tokens and verdict are on that one alone."""
    provider.refuses = unknown
    telemetry = observe(native_diagnostics="true")
    connect(tracer_provider=telemetry.tracer_provider).anthropic.messages.create(**AM)
    failed, answered = telemetry.spans
    assert "promptcache.status" not in failed.attributes
    assert "promptcache.status" in answered.attributes
    assert telemetry.token_spans == [answered]
    assert telemetry.total("promptcache.calls") == 1


def test_retries_ask_as_well(connect, provider, observe, quiet):
    """An attempt that failed for another reason is made again as it was."""
    observe(native_diagnostics="true")
    connect(max_retries=1).anthropic.messages.create(**{**AM, "model": "claude-sonnet-4-6+429once"})
    assert diagnostics(provider) == [{"previous_message_id": None}] * 2
