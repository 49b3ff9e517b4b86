"""Whose call it is: route, conversation, attribution, found by themselves or said, in spans and in the ledger."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypedDict

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind
from servers import HOST
from servers.application import HAS_NATIVE, Clients, Observed, message, observed, text

from otel_promptcache import attribute, conversation, prompt, route, strategy
from otel_promptcache.emulator import Emulator

HERE = __name__
"""Calls of this module have the route ``HERE:function`` where nothing better is known."""


def routes(seen: Observed) -> list[str]:
    """The routes of all calls, by the ledger, which knows unsampled ones too."""
    return [call["promptcache.route"] for call in seen.ledger]


# --- A web application --------------------------------------------------------------------------------------


def web_application(seen: Observed, clients: Clients) -> FastAPI:
    """Endpoints that ask a model, with the span of an agent framework between the request and the call."""
    app = FastAPI()
    tracer = seen.tracer_provider.get_tracer("an.agent.framework")

    @app.get("/sync/{name}")
    def sync_answer(name: str) -> str:
        with tracer.start_as_current_span(f"invoke_agent {name}", kind=SpanKind.INTERNAL):
            clients.anthropic.messages.create(**message(text(10), name))
        return name

    @app.get("/async/{name}")
    async def async_answer(name: str, wait: float = 0) -> str:
        with tracer.start_as_current_span(f"invoke_agent {name}", kind=SpanKind.INTERNAL):
            await asyncio.sleep(wait)
            await clients.async_anthropic.messages.create(**message(text(10), name))
        return name

    @app.get("/named/{name}")
    def named_answer(name: str) -> str:
        with route("/chosen"):
            clients.anthropic.messages.create(**message(text(10), name))
        return name

    FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.tracer_provider)
    return app


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application behind a real uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    listener = socket.create_server((HOST, 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@pytest.fixture
async def browser(clients: Clients) -> AsyncIterator[Any]:
    """Makes HTTP clients of applications in this process."""
    made: list[httpx2.AsyncClient] = []

    def make(app: FastAPI) -> httpx2.AsyncClient:
        made.append(httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app"))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
    await clients.async_anthropic.close()


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_route_is_the_template(clients: Clients, browser: Any, kind: str, sampler: Sampler) -> None:
    """Of the HTTP request around it all, not its path and not the agent's span; sampling plays no part."""
    with observed(ledger="true", sampler=sampler) as seen:
        await browser(web_application(seen, clients)).get(f"/{kind}/alice")
        assert routes(seen) == [f"/{kind}/{{name}}"]
        labels = [dict(point)["promptcache.route"] for point in seen.points("promptcache.calls")]
        assert labels == [f"/{kind}/{{name}}"]


async def test_a_dropped_request_has_its_own_route(clients: Clients, browser: Any) -> None:
    """The caller's sampling decision holds request by request; routes do not depend on it."""
    sampled, dropped = (f"00-{'ab' * 16}-{'cd' * 8}-0{flag}" for flag in (1, 0))
    with observed(ledger="true", sampler=ParentBased(ALWAYS_ON)) as seen:
        client = browser(web_application(seen, clients))
        for path, parent in (("/sync/a", sampled), ("/async/a", dropped), ("/sync/a", dropped), ("/async/a", sampled)):
            await client.get(path, headers={"traceparent": parent})
        assert routes(seen) == ["/sync/{name}", "/async/{name}", "/sync/{name}", "/async/{name}"]
        assert len(seen.calls) == 2


async def test_concurrent_requests_do_not_mix(clients: Clients, browser: Any) -> None:
    """The slow one is answered while the fast ones come and go."""
    with observed(ledger="true") as seen:
        client = browser(web_application(seen, clients))
        await asyncio.gather(
            client.get("/async/slow", params={"wait": 0.2}),
            *(client.get(f"/sync/{number}") for number in range(3)),
        )
        assert sorted(routes(seen)) == ["/async/{name}", *["/sync/{name}"] * 3]
        by_trace = {span.context.trace_id: span for span in seen.spans if span.kind is SpanKind.SERVER}
        for call in seen.calls:
            request = by_trace[call.context.trace_id]
            assert (call.attributes or {})["promptcache.route"] == (request.attributes or {})["http.route"]


async def test_what_is_said_wins(clients: Clients, browser: Any) -> None:
    with observed(ledger="true") as seen:
        await browser(web_application(seen, clients)).get("/named/alice")
        assert routes(seen) == ["/chosen"]


def test_behind_a_real_server(clients: Clients) -> None:
    """uvicorn keeps the connection and its threads; every request still has its own route."""
    with (
        observed(ledger="true") as seen,
        served(web_application(seen, clients)) as url,
        httpx2.Client(timeout=60) as client,
    ):
        for path in ("/sync/a", "/async/a", "/named/a", "/sync/b"):
            client.get(url + path).raise_for_status()
        assert routes(seen) == ["/sync/{name}", "/async/{name}", "/chosen", "/sync/{name}"]


# --- Other beginnings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_a_consumer_is_named_by_its_destination(clients: Clients, sampler: Sampler) -> None:
    with observed(ledger="true", sampler=sampler) as seen:
        tracer = seen.tracer_provider.get_tracer("a.messaging.library")
        attributes = {"messaging.destination.name": "questions"}
        with tracer.start_as_current_span("process questions", kind=SpanKind.CONSUMER, attributes=attributes):
            clients.anthropic.messages.create(**message(text(10), "hello"))
        assert routes(seen) == ["questions"]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_a_task_is_named_by_its_name(clients: Clients, sampler: Sampler) -> None:
    """Celery's instrumentation has it in the name of the span; the attribute comes when the task is over."""
    with observed(ledger="true", sampler=sampler) as seen:
        tracer = seen.tracer_provider.get_tracer("opentelemetry.instrumentation.celery")
        with tracer.start_as_current_span("run/jobs.summarise", kind=SpanKind.CONSUMER) as task:
            clients.anthropic.messages.create(**message(text(10), "hello"))
            task.set_attribute("celery.task_name", "jobs.summarise")
            clients.anthropic.messages.create(**message(text(10), "hello"))
        assert routes(seen) == ["jobs.summarise", "jobs.summarise"]


def test_the_innermost_entry_counts(clients: Clients) -> None:
    """A task that runs inside a request is the task's."""
    with observed(ledger="true") as seen:
        start = seen.tracer_provider.get_tracer("app").start_as_current_span
        with (
            start("GET", kind=SpanKind.SERVER, attributes={"http.route": "/chat"}),
            start("process", kind=SpanKind.CONSUMER, attributes={"messaging.destination.name": "questions"}),
        ):
            clients.anthropic.messages.create(**message(text(10), "hello"))
        assert routes(seen) == ["questions"]


def summarise(clients: Clients) -> None:
    clients.anthropic.messages.create(**message(text(10), "hello"))


def test_without_any_span_the_function_is_the_route(clients: Clients) -> None:
    """Module and name of the innermost function of the application, past the SDK's frames and ours."""
    with observed(ledger="true") as seen:
        summarise(clients)
        assert routes(seen) == [f"{HERE}:summarise"]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "dropped"])
def test_a_reused_thread_has_forgotten(clients: Clients, sampler: Sampler) -> None:
    """A worker thread served a request; its next job is not that request's."""
    with observed(ledger="true", sampler=sampler) as seen, ThreadPoolExecutor(1) as pool:
        start = seen.tracer_provider.get_tracer("app").start_as_current_span

        def request() -> None:
            with start("GET", kind=SpanKind.SERVER, attributes={"http.route": "/chat"}):
                summarise(clients)

        def job_in_another_trace() -> None:
            with start("job"):
                summarise(clients)

        for work in (request, lambda: summarise(clients), request, job_in_another_trace):
            pool.submit(work).result()
        assert routes(seen) == ["/chat", f"{HERE}:summarise", "/chat", f"{HERE}:summarise"]


# --- LangGraph ----------------------------------------------------------------------------------------------


class State(TypedDict):
    """What the graph's nodes hand on."""

    question: str


def graph(clients: Clients) -> Any:
    """Two nodes that ask a model, one after the other, with a checkpointer."""

    def plan(state: State) -> State:
        clients.anthropic.messages.create(**message(text(10), state["question"]))
        return state

    async def act(state: State) -> State:
        await clients.async_anthropic.messages.create(**message(text(10), state["question"]))
        return state

    def act_now(state: State) -> State:
        clients.anthropic.messages.create(**message(text(10), state["question"]))
        return state

    built: Any = StateGraph(State)
    built.add_node("plan", plan)
    built.add_node("act", RunnableLambda(act_now, act))
    built.add_edge(START, "plan")
    built.add_edge("plan", "act")
    built.add_edge("act", END)
    return built.compile(checkpointer=InMemorySaver())


def test_a_thread_is_a_conversation(clients: Clients) -> None:
    """LangGraph's ``thread_id``, in every node, and not after it."""
    with observed(ledger="true") as seen:
        agent = graph(clients)
        for thread in ("thread-1", "thread-2"):
            agent.invoke({"question": "hello"}, {"configurable": {"thread_id": thread}})
        summarise(clients)
        conversations = [call.get("gen_ai.conversation.id") for call in seen.ledger]
        assert conversations == ["thread-1", "thread-1", "thread-2", "thread-2", None]
        assert routes(seen) == [f"{HERE}:{name}" for name in ("plan", "act_now", "plan", "act_now", "summarise")]


async def test_the_route_is_found_through_a_graph(clients: Clients, browser: Any) -> None:
    """The HTTP request around the graph, from nodes that run in threads and from those that run in tasks."""
    with observed(ledger="true") as seen:
        app, agent = FastAPI(), graph(clients)

        @app.get("/agent/{name}")
        async def ask(name: str) -> str:
            await agent.ainvoke({"question": name}, {"configurable": {"thread_id": f"thread of {name}"}})
            return name

        @app.get("/plain/{name}")
        def ask_plainly(name: str) -> str:
            agent.invoke({"question": name}, {"configurable": {"thread_id": f"thread of {name}"}})
            return name

        FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.tracer_provider)
        await browser(app).get("/agent/alice")
        await browser(app).get("/plain/bob")
        assert routes(seen) == ["/agent/{name}", "/agent/{name}", "/plain/{name}", "/plain/{name}"]
        conversations = [call["gen_ai.conversation.id"] for call in seen.ledger]
        assert conversations == ["thread of alice", "thread of alice", "thread of bob", "thread of bob"]


# --- What the application says ------------------------------------------------------------------------------


def said(seen: Observed) -> list[dict[str, Any]]:
    """What is on the span of each call, which has to be what is in the ledger."""
    names = ("promptcache.attr", "promptcache.strategy", "gen_ai.prompt", "gen_ai.conversation")
    spans = [{k: v for k, v in (span.attributes or {}).items() if k.startswith(names)} for span in seen.calls]
    ledger = [{k: v for k, v in call.items() if k.startswith(names)} for call in seen.ledger]
    assert sorted(map(repr, spans)) == sorted(map(repr, ledger))
    return ledger


def test_helpers_are_blocks_and_decorators(clients: Clients) -> None:
    with observed(ledger="true") as seen:
        with conversation("c-1"), strategy("long-ttl"), prompt("answer", "v3"), attribute(team="search"):
            summarise(clients)

        @conversation("c-1")
        @strategy("long-ttl")
        @prompt("answer", "v3")
        @attribute(team="search")
        def decorated() -> None:
            summarise(clients)

        decorated()
        summarise(clients)
        expected = {
            "gen_ai.conversation.id": "c-1",
            "promptcache.strategy": "long-ttl",
            "gen_ai.prompt.name": "answer",
            "gen_ai.prompt.version": "v3",
            "promptcache.attr.team": "search",
        }
        assert said(seen) == [expected, expected, {}]


def test_inner_values_are_laid_over_outer_ones(clients: Clients) -> None:
    with observed(ledger="true") as seen:
        with attribute(team="search", tenant="acme"):
            with attribute(tenant="globex", feature="summary"):
                summarise(clients)
            summarise(clients)
        assert said(seen) == [
            {
                "promptcache.attr.team": "search",
                "promptcache.attr.tenant": "globex",
                "promptcache.attr.feature": "summary",
            },
            {"promptcache.attr.team": "search", "promptcache.attr.tenant": "acme"},
        ]


async def test_tasks_keep_what_was_said_to_them(clients: Clients) -> None:
    """Two tasks at a time, a decorated coroutine among them."""

    async def ask() -> None:
        await asyncio.sleep(0.01)
        await clients.async_anthropic.messages.create(**message(text(10), "hello"))

    async def of(tenant: str) -> None:
        with attribute(tenant=tenant), conversation(f"of {tenant}"):
            await ask()

    @attribute(tenant="initech")
    @conversation("of initech")
    async def decorated() -> None:
        await ask()

    with observed(ledger="true") as seen:
        await asyncio.gather(of("acme"), of("globex"), decorated())
        await clients.async_anthropic.close()
        pairs = {call["promptcache.attr.tenant"]: call["gen_ai.conversation.id"] for call in said(seen)}
    assert pairs == {"acme": "of acme", "globex": "of globex", "initech": "of initech"}


def test_threads_get_it(clients: Clients) -> None:
    """With the context, as frameworks copy it, or without."""
    with observed(ledger="true") as seen, ThreadPoolExecutor(1) as pool:
        with attribute(team="search"), conversation("c-1"):
            copied = contextvars.copy_context()
            pool.submit(copied.run, summarise, clients).result()
            pool.submit(summarise, clients).result()
        assert said(seen) == [{"promptcache.attr.team": "search", "gen_ai.conversation.id": "c-1"}] * 2


@pytest.mark.parametrize("native", [False, True], ids=["our span", "the SDK's own span"])
def test_a_conversation_named_on_a_surrounding_span(emulated: Emulator, native: bool) -> None:
    """An agent framework's, also where the span that stands for the call lies between."""
    if native and not HAS_NATIVE:
        pytest.skip("this anthropic SDK has no spans of its own")
    with observed(ledger="true") as seen:
        clients = Clients(emulated.url, seen.tracer_provider if native else None)
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": "c-7"}
        with seen.tracer_provider.get_tracer("an.agent").start_as_current_span("agent", attributes=attributes):
            summarise(clients)
            with conversation("c-8"):
                summarise(clients)
        summarise(clients)
        clients.close()
        assert [call.get("gen_ai.conversation.id") for call in seen.ledger] == ["c-7", "c-8", None]


# --- Baggage ------------------------------------------------------------------------------------------------


def test_baggage_members_are_taken_over_by_name(clients: Clients) -> None:
    """Only those that the setting names; what the application says itself wins."""
    with observed(ledger="true", baggage_keys="tenant,user,team") as seen:
        arrived = {"baggage": "tenant=acme,user=alice,session=secret-session,team=search"}
        token = context.attach(W3CBaggagePropagator().extract(arrived))
        try:
            summarise(clients)
            with attribute(team="support"):
                summarise(clients)
        finally:
            context.detach(token)
        summarise(clients)
        first, second, third = said(seen)
    assert (first["promptcache.attr.tenant"], first["promptcache.attr.team"]) == ("acme", "search")
    assert second["promptcache.attr.team"] == "support"
    assert third == {}
    assert "secret-session" not in repr(first)
    assert len(first["promptcache.attr.user"]) == 16
    assert "alice" not in repr(first)


async def test_baggage_of_an_http_request(clients: Clients, browser: Any) -> None:
    """From the header of the request through FastAPI to the call."""
    with observed(ledger="true", baggage_keys="tenant") as seen:
        client = browser(web_application(seen, clients))
        await client.get("/sync/alice", headers={"baggage": "tenant=acme"})
        await client.get("/async/alice")
        assert said(seen) == [{"promptcache.attr.tenant": "acme"}, {}]


def test_no_baggage_unless_asked_for(clients: Clients) -> None:
    with observed(ledger="true") as seen:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            summarise(clients)
        finally:
            context.detach(token)
        assert said(seen) == [{}]


def test_the_current_span_is_the_callers_again(clients: Clients) -> None:
    """Nothing of ours stays current after a call."""
    with observed() as seen:
        with seen.tracer_provider.get_tracer("app").start_as_current_span("work") as work:
            summarise(clients)
            assert trace.get_current_span() is work
        assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.skipif(not HAS_NATIVE, reason="this anthropic SDK has no spans of its own")
def test_a_dropped_span_of_the_sdk_does_not_stay_current(emulated: Emulator) -> None:
    """Else it is the parent of everything that follows in this thread, and all of that is dropped too."""
    with observed(sampler=ALWAYS_OFF) as seen:
        clients = Clients(emulated.url, seen.tracer_provider)
        copied = contextvars.copy_context()
        copied.run(summarise, clients)
        clients.close()
        assert not copied.run(trace.get_current_span).get_span_context().is_valid
