"""Route and attribution go along where work is handed to threads, executors and Celery tasks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind
from servers.application import Clients, Observed, message, observed, provider, text

from otel_promptcache import attribute, conversation, prompt, route, strategy
from otel_promptcache.attribution import Hashed, current
from otel_promptcache.emulator import Emulator
from otel_promptcache.instrumentation import handing
from otel_promptcache.model import Attribution

Work = Callable[[], None]


class Subclass(threading.Thread):
    """Does its work in a ``run`` of its own."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def run(self) -> None:
        self._work()


def joined(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def submitted(work: Work) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def mapped(work: Work) -> None:
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda _: work(), range(1)))


async def executed(work: Work) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


WAYS: dict[str, Callable[[Work], Any]] = {
    "threading.Thread": lambda work: joined(threading.Thread(target=work)),
    "a subclass": lambda work: joined(Subclass(work)),
    "threading.Timer": lambda work: joined(threading.Timer(0, work)),
    "ThreadPoolExecutor.submit": submitted,
    "ThreadPoolExecutor.map": mapped,
    "run_in_executor": lambda work: asyncio.run(executed(work)),
    "asyncio.to_thread": lambda work: asyncio.run(asyncio.to_thread(work)),
    "a thread of a thread": lambda work: submitted(lambda: joined(threading.Thread(target=work))),
}


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    with provider() as running:
        yield running


@pytest.fixture
def seen() -> Iterator[Observed]:
    with observed(ledger="true") as found:
        yield found


@pytest.fixture(params=["alone", "beside OpenTelemetry's"])
def instrumented(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without and with the instrumentation of threads that OpenTelemetry has."""
    if request.param == "alone":
        yield
        return
    theirs = pytest.importorskip("opentelemetry.instrumentation.threading").ThreadingInstrumentor()
    theirs.instrument()
    yield
    theirs.uninstrument()


@pytest.fixture
def ask(emulated: Emulator) -> Iterator[Work]:
    clients = Clients(emulated.url)
    yield lambda: clients.anthropic.messages.create(**message(text(2000), text(10))) and None
    clients.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("instrumented")
def test_what_was_said_goes_along(way: str, seen: Observed, ask: Work) -> None:
    with route("/letters"), conversation("c1"), attribute(team="mail", user="bob"):
        WAYS[way](ask)
        ask()
    there, here = seen.ledger
    told = ("promptcache.route", "gen_ai.conversation.id", "promptcache.attr.team", "promptcache.attr.user")
    assert {name: there[name] for name in told} == {name: here[name] for name in told}
    assert (there["promptcache.route"], there["promptcache.attr.team"]) == ("/letters", "mail")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("instrumented")
def test_the_route_of_a_request_goes_along(way: str, seen: Observed, ask: Work) -> None:
    """And an inner one, of a message that the thread handles, holds."""
    tracer = seen.tracer_provider.get_tracer("web")

    def handle() -> None:
        ask()
        with tracer.start_as_current_span("work", kind=SpanKind.CONSUMER, attributes={"celery.task_name": "inner"}):
            ask()

    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes={"http.route": "/chat"}):
        WAYS[way](handle)
    assert [call["promptcache.route"] for call in seen.ledger] == ["/chat", "inner"]


def test_the_route_outlasts_its_request(seen: Observed, ask: Work) -> None:
    """Of work that goes on when the answer has been given."""
    answered = threading.Event()
    work = threading.Thread(target=lambda: answered.wait(60) and ask())
    span = seen.tracer_provider.get_tracer("web").start_as_current_span
    with span("GET", kind=SpanKind.SERVER, attributes={"http.route": "/chat"}), attribute(team="mail"):
        work.start()
    answered.set()
    work.join()
    (call,) = seen.ledger
    assert (call["promptcache.route"], call["promptcache.attr.team"]) == ("/chat", "mail")


@pytest.mark.usefixtures("instrumented", "seen")
def test_a_pool_serves_everybody() -> None:
    """Its threads begin with whoever comes first, and do not stay his."""
    held = []
    with ThreadPoolExecutor(1) as pool:
        for team in ("mail", "", "search"):
            with attribute(**({"team": team} if team else {})):
                pool.submit(lambda: held.append(current().keys)).result()
    assert held == [(("team", "mail"),), (), (("team", "search"),)]


@pytest.mark.usefixtures("seen")
def test_only_what_is_ours_goes_along() -> None:
    """The application's own variables stay behind, as without us, and nothing of ours stays in a thread's object."""
    theirs = contextvars.ContextVar("theirs", default="")
    theirs.set("here")
    held = []
    with attribute(team="mail"):
        thread = threading.Thread(target=lambda: held.append((theirs.get(), current().keys)))
        joined(thread)
    assert held == [("", (("team", "mail"),))]
    assert "run" not in vars(thread)


@pytest.mark.parametrize("who", ["they wrap what we have wrapped", "we wrap what they have wrapped"])
def test_beside_others_who_replace_run(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry does: it takes the function behind the method, where there is one, and passes the thread to it."""

    def theirs() -> None:
        start = threading.Thread.start

        def wrapped(thread: threading.Thread) -> None:
            behind = getattr(thread.run, "__func__", thread.run)
            thread.run = lambda: behind(thread)  # type: ignore[method-assign]
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", wrapped)

    held = []
    if who.startswith("we"):
        theirs()
    with observed(), attribute(team="mail"):
        if who.startswith("they"):
            theirs()
        joined(threading.Thread(target=lambda: held.append(1)))
    assert held == [1]


@pytest.mark.usefixtures("seen")
def test_a_thread_that_does_not_start() -> None:
    """Whose error it is, and nothing stays in its object."""
    thread = threading.Thread(target=int)
    joined(thread)
    with attribute(team="mail"), pytest.raises(RuntimeError, match="once"):
        thread.start()
    assert "run" not in vars(thread)


@pytest.mark.usefixtures("seen")
def test_errors_are_the_works_own() -> None:
    with attribute(team="mail"), ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result()


def test_it_can_be_left() -> None:
    """By a setting; and without us nothing goes along."""
    held: list[Any] = []

    def look() -> None:
        with attribute(team="mail"):
            joined(threading.Thread(target=lambda: held.append(current().keys)))

    with observed(carry="false"):
        look()
    with observed():
        look()
    look()
    assert held == [(), (("team", "mail"),), ()]


# --- Headers of Celery's messages ---------------------------------------------------------------------------

shout = partial(str.upper)
NAMES = st.text(max_size=20)
KEYS = st.dictionaries(NAMES | st.just("user"), NAMES, max_size=3).map(lambda keys: tuple(sorted(keys.items())))


@given(st.builds(Attribution, NAMES, NAMES, NAMES, NAMES, NAMES, KEYS, st.just("")))
def test_a_header_says_what_was_said(said: Attribution) -> None:
    keys = {name: shout(value) if name == "user" else value for name, value in said.keys}
    written = handing.as_header(said, shout)
    assert written or said == Attribution()
    assert (handing.from_header(written) or Attribution()) == said._replace(keys=tuple(sorted(keys.items())))


def test_a_user_is_hashed_once() -> None:
    """Who comes from another process goes on to the next as he is."""
    written = handing.as_header(Attribution(keys=(("user", "bob"),)), shout)
    assert "bob" not in written
    (user,) = dict((handing.from_header(written) or Attribution()).keys).values()
    assert (user, type(user)) == ("BOB", Hashed)
    assert handing.as_header(Attribution(keys=(("user", user),)), str.lower) == written


@pytest.mark.parametrize(
    "header", [None, "", "{", "[]", "5", '{"keys":5}', '{"route":', b"{}", {"route": "/a"}, "x" * 5000, '"a"']
)
def test_headers_of_others(header: Any) -> None:
    """Are none."""
    assert handing.from_header(header) in (None, Attribution())


def test_too_much_is_left_out() -> None:
    assert handing.as_header(Attribution(route="x" * 5000), shout) == ""


@pytest.mark.usefixtures("seen")
def test_a_task_that_is_sent_and_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Celery's own signals; what is done in the same process without a message keeps what was said there."""
    celery = pytest.importorskip("celery")
    signals = pytest.importorskip("celery.signals")
    app = celery.Celery("test")
    held = []

    @app.task
    def look() -> None:
        held.append(current())

    said = (route("/letters"), strategy("short"), prompt("letter", "2"), attribute(team="mail"))
    headers: dict[str, Any] = {}
    with said[0], said[1], said[2], said[3]:
        signals.before_task_publish.send(sender="look", headers=headers)
        look.apply()
        meant = current()
    look.request_stack.push(celery.app.task.Context(headers))
    signals.task_prerun.send(sender=look, task_id="1", task=look)
    held.append(current())
    signals.task_postrun.send(sender=look, task_id="1", task=look)
    held.append(current())
    assert held == [meant, meant, Attribution()]
