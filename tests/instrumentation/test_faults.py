"""Every function of ours, made to fail in turn: the application notices nothing.

Nothing here is listed by hand. A run of ordinary calls is profiled for every function of the package that it enters;
each of them is then replaced, wherever it is referred to, by one that raises and by one that returns nothing, and the
calls are made again. Results, exceptions, their messages and the order of events must be those without us.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import logging
import os
import sys
import threading
import traceback
import types
from time import perf_counter, sleep
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import otel_promptcache
from otel_promptcache import pricing
from otel_promptcache.history.memory import Memory
from otel_promptcache.instrumentation import runtime
from otel_promptcache.observer import Breaker

PACKAGE = os.path.dirname(otel_promptcache.__file__) + os.sep

OUTSIDE = {
    # Not ours to contain: what stands in somebody else's stack is the wall itself, and is a few lines for that reason.
    "instrumentation/hooks.py:request": "stands in the SDK's stack; everything it calls is contained by it",
    "instrumentation/hooks.py:async_request": "the same for the asynchronous client",
    "instrumentation/hooks.py:_left": "the part of both that is run when the request has raised",
    "instrumentation/hooks.py:build_request": "the same",
    "instrumentation/hooks.py:process_response": "the same",
    "instrumentation/tap.py:Tapped.__init__": "makes what the HTTP library will call; its caller is contained",
    "instrumentation/tap.py:Tapped.__iter__": "stands in the HTTP library's stack",
    "instrumentation/tap.py:Tapped.__aiter__": "the same for asynchronous streams",
    "instrumentation/tap.py:Tapped.close": "the same",
    "instrumentation/tap.py:Tapped.aclose": "the same",
    "instrumentation/tap.py:Tapped.__del__": "the same",
    "instrumentation/tap.py:Tapped.__getattr__": "answers for the inner stream",
    "telemetry/context.py:Watcher.on_start": "stands in the application's start_span",
    "telemetry/context.py:Watcher._on_ending": "does nothing",
    "telemetry/context.py:Watcher.on_end": "does nothing",
    "telemetry/context.py:hear_of_unsampled.<locals>.heard": "stands in the application's start_span",
    "telemetry/__init__.py:Telemetry._instruments.<locals>.observed.<locals>.callback": "stands in the metric reader",
    "_collection.py:_told": "stands in the garbage collector",
    "worker.py:Worker._run": "is the whole of a thread of ours: nobody is above it",
}

UNTOLD = {
    # Contained, and not counted in promptcache.internal.errors.
    "instrumentation/hooks.py:Frame.leave": "contained by the hook itself, which does nothing but contain",
    "instrumentation/hooks.py:_enter": "the same",
    "instrumentation/reading.py:Reader.complete": "contained by the stream itself, which does nothing but contain",
    "instrumentation/reading.py:Reader.feed": "the same",
    "instrumentation/reading.py:Reader.left": "called by destructors, where nothing may be told",
    "observer/call.py:Call.left": "the same",
    "_collection.py:collecting": "the same",
    "worker.py:Worker.hand_over": "the same",
    "worker.py:Worker._rouse": "the same",
    "observer/__init__.py:Observer.trouble": "is the counting",
    "observer/__init__.py:Observer._tell": "is the counting",
    "telemetry/context.py:scope_name": "contained in the application's start_span",
    "telemetry/__init__.py:Telemetry.trouble": "is the counting",
    "telemetry/counters.py:Table.add_error": "is the counting",
}

RAISES = ("RuntimeError", "MemoryError", "RecursionError")
MAX_LINES = 8
SLOWER = 60.0
"""Seconds a run may take longer than without us: a bound against hanging, not a measurement."""
PATIENCE = 0.25
"""Seconds that the worker may take for its part; it may itself be what fails."""


# --- Ordinary calls ----------------------------------------------------------------------------------------

NUMBERS = itertools.count()
USAGE = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_creation_input_tokens": 5000,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 5000, "ephemeral_1h_input_tokens": 0},
}
TOOLS = [
    {"name": name, "description": f"Gives the {name} of a place, in plain words.", "input_schema": {"type": "object"}}
    for name in ("weather", "population")
]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def asked(number, *, minute="00", tools=None, **more):
    """A conversation that nobody had before: system prompt, tools, a picture, one question."""
    text = f"You are number {number}. The time is 09:{minute}.\n" + "Be helpful and brief, as always.\n" * 40
    return {
        "model": "claude-sonnet-4-6",
        "max_tokens": 64,
        "system": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}],
        "tools": TOOLS if tools is None else tools,
        "messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "What is this?"}]}],
        **more,
    }


def content(value):
    """Class and content of what the application holds."""
    if hasattr(value, "model_dump"):
        return type(value).__name__, value.model_dump(warnings=False)
    return value


class Application:
    """Makes calls of every kind, and gives what came of each."""

    def __init__(self, clients, telemetry):
        self.clients = clients
        self.telemetry = telemetry
        self.runner = asyncio.Runner()
        self.calls = {name[4:]: getattr(self, name) for name in sorted(dir(self)) if name.startswith("call")}

    def outcome(self, name, number):
        try:
            result = self.calls[name](number)
            if asyncio.iscoroutine(result):
                result = self.runner.run(result, context=contextvars.copy_context())
        except Exception as error:
            return type(error).__name__, str(error)
        return [content(item) for item in result] if isinstance(result, list) else content(result)

    def call1_create(self, number):
        return self.clients.anthropic.messages.create(**asked(number))

    def call7_system_changed(self, number):
        return self.clients.anthropic.messages.create(**asked(number, minute="01"))

    def call2_stream(self, number):
        return list(self.clients.anthropic.messages.create(stream=True, **asked(number, tools=TOOLS[::-1])))

    async def call3_async_create(self, number):
        body = asked(number, tool_choice={"type": "any"}, cache_control={"type": "ephemeral"})
        return await self.clients.async_anthropic.messages.create(**body)

    async def call7_async_stream(self, number):
        stream = await self.clients.async_anthropic.messages.create(stream=True, **asked(number))
        return [event async for event in stream]

    def call7_stream_closed_early(self, number):
        stream = self.clients.anthropic.messages.create(stream=True, **asked(number))
        first = next(iter(stream))
        stream.close()
        return first

    def call8_within_a_request(self, number):
        attributes = {"http.route": "/ask"}
        with self.telemetry.tracer.start_as_current_span("GET /ask", kind=SpanKind.SERVER, attributes=attributes):
            return self.clients.anthropic.messages.create(**asked(number))

    def call8_within_a_model_span(self, number):
        attributes = {"gen_ai.operation.name": "chat"}
        with self.telemetry.tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=attributes):
            stream = self.clients.anthropic.messages.create(stream=True, **asked(number))
        return list(stream)

    def call4_chat(self, number):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Who is number {number}?"}]
        return self.clients.openai.chat.completions.create(model="gpt-5.6", messages=messages)

    def call8_chat_stream(self, number):
        messages = [{"role": "user", "content": [{"type": "text", "text": f"Who is number {number}?"}]}]
        options = {"include_usage": True}
        create = self.clients.openai.chat.completions.create
        return list(create(model="gpt-5.6", messages=messages, stream=True, stream_options=options))

    def call5_responses(self, number):
        first = self.clients.openai.responses.create(model="gpt-5.6", input=f"number {number}", instructions="Brief!")
        then = self.clients.openai.responses.create(model="gpt-5.6", input="go on", previous_response_id=first.id)
        return [first, then]

    def call9_responses_stream(self, number):
        item = {"role": "user", "content": [{"type": "input_text", "text": f"number {number}"}]}
        return list(self.clients.openai.responses.create(model="gpt-5.6", input=[item], stream=True))

    def call6_error(self, number):
        return self.clients.anthropic.messages.create(**asked(number, model="claude-sonnet-4-6+429"))

    def call9_error_event(self, number):
        return list(
            self.clients.anthropic.messages.create(stream=True, **asked(number, model="claude-sonnet-4-6+error"))
        )

    def call9_question_refused(self, number):
        if self.telemetry.witness is not None:
            self.telemetry.witness._stages.clear()
        return self.clients.anthropic.messages.create(**asked(number, model="claude-sonnet-4-6+refuse"))

    def call9_unknown_model(self, number):
        return self.clients.anthropic.messages.create(**asked(number, model="claude-of-nowhere"))

    def call9_gzip(self, number):
        return list(
            self.clients.anthropic.messages.create(stream=True, **asked(number, model="claude-sonnet-4-6+gzip"))
        )

    def call9_text_completion(self, number):
        return self.clients.openai.completions.with_raw_response.create(
            model="gpt-5.6", prompt=f"number {number}"
        ).content

    def call9_count_tokens(self, number):
        return self.clients.anthropic.messages.count_tokens(
            model="claude-sonnet-4-6", messages=[{"role": "user", "content": f"number {number}"}]
        )

    def call9_batch(self, number):
        batches = self.clients.anthropic.messages.batches
        batch = batches.create(requests=[{"custom_id": "a", "params": asked(number)}])
        return [item.custom_id for item in batches.results(batch.id)]

    def call9_file_of_results(self, number):
        return self.clients.openai.files.content(f"file-{number}").content

    def call9_frames(self, number):
        body = asked(number, model="claude-sonnet-4-6", stream=True)
        create = self.clients.anthropic.messages.with_streaming_response.create
        with create(**body, extra_headers={"x-frames": "1"}) as response:
            return response.read()

    def call_metrics_are_collected(self, _):
        self.telemetry.collect()


ALWAYS = ("1_create", "2_stream", "3_async_create", "4_chat", "5_responses", "6_error")
"""Calls made under every fault; of the others up to this many that enter the function at fault."""
MORE = 4
COUNTED = "_metrics_are_collected"
"""Comes last: what was left to be counted is counted while the fault lasts."""


@pytest.fixture
def application(connect, provider, http, streamed, observe):
    """An application over a transport in memory, that the provider's own code answers."""

    def respond(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        ask = provider.hear(request.url.path, headers, request.content)
        if "refuse" in ask.words and "diagnostics" in ask.body:
            error = {"type": "invalid_request_error", "message": "diagnostics: Extra inputs are not permitted"}
            return http.Response(400, json={"type": "error", "error": error})
        ask.usage = USAGE if "/messages" in ask.path else None
        ask.raw = b""  # answers differ by nothing but the kind of request
        if "x-frames" in headers:
            ask.path = "/model/claude-sonnet-4-6/invoke-with-response-stream"
        status, kind, parts, encoding = provider.answers(ask)
        if ask.body.get("stream") and status == 200:
            encoded = {"content_encoding": encoding} if encoding else {}
            return streamed(parts, kind, **encoded)
        return http.Response(status, headers={"content-type": kind}, content=b"".join(parts))

    application = Application(
        connect(respond=respond), SimpleNamespace(tracer=trace.get_tracer("nobody"), collect=lambda: None, witness=None)
    )
    yield application
    application.runner.run(application.clients.aclose())
    application.runner.close()


# --- Functions and faults ----------------------------------------------------------------------------------


def place(code):
    return code.co_filename.removeprefix(PACKAGE) + ":" + code.co_qualname


def room(code):
    return place(code).partition(":")[0]


def ours(code):
    return code.co_filename.startswith(PACKAGE)


def entered(run):
    """Code of this package that runs in a call of ``run``, on any thread."""
    codes = set()

    def profile(frame, event, _):
        if event == "call" and ours(frame.f_code):
            codes.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return codes


def functions_of(codes):
    """Every living function made of one of these codes: methods, properties, closures, what a cache wraps."""
    found = {}
    for candidate in gc.get_objects():
        if type(candidate) is types.FunctionType and candidate.__code__ in codes:
            found.setdefault(candidate.__code__, []).append(candidate)
    return found


FIRED: list[int] = []


def fault(kind):
    """The code of a function that takes anything, leaves a mark in ``FIRED``, and raises ``kind`` or gives None."""
    space = {}
    action = "return None" if kind == "None" else f"raise {kind}('injected')"
    exec(f"def fault(*args, **kwargs):\n    ('FIRED').append(1)\n    {action}", space)
    code = space["fault"].__code__
    # It will run among the names of some other module: what it needs is brought along as a constant.
    return code.replace(co_consts=tuple(FIRED if value == "FIRED" else value for value in code.co_consts))


class Faulty:
    """Functions that fail for as long as the block runs."""

    def __init__(self, functions, code):
        self._functions = functions
        self._code = code

    def __enter__(self):
        self._kept = [function.__code__ for function in self._functions]
        for function in self._functions:
            function.__code__ = self._code.replace(co_freevars=function.__code__.co_freevars)

    def __exit__(self, *_):
        for function, code in zip(self._functions, self._kept, strict=True):
            function.__code__ = code


@functools.cache
def caches():
    """(module, cache) of everything of ours that remembers results, and keeps a function from being entered again."""
    modules = [(name, module) for name, module in sys.modules.items() if name.startswith("otel_promptcache")]
    return [
        (name, value) for name, module in modules for value in vars(module).values() if hasattr(value, "cache_clear")
    ]


def forget(room=""):
    """Empties them; prices only for their own sake, because looking them up takes longer than everything else."""
    for name, cache in caches():
        if not name.startswith("otel_promptcache.pricing") or room.startswith("pricing/"):
            cache.cache_clear()
    if room.startswith("pricing/"):
        pricing.LISTED._tariff.cache_clear()


class Lines(logging.Handler):
    """Counts what is logged at WARNING or above."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        if record.name != "opentelemetry.attributes":  # older SDKs say each time that a value has another type
            self.lines.append(f"{record.name}: {record.getMessage()}")


ENTERED = {}
"""Code of ours by the call that enters it; found once."""


class Trial:
    """The application under one fault after another, in one process."""

    def __init__(self, application, observe):
        self.application = application
        self.observer = None
        self.names = list(application.calls)
        self.expected, took = self.run(self.names)
        assert self.run(self.names)[0] == self.expected
        self.patience = took + SLOWER
        # With every option on: whatever is done for any of them may fail, too.
        self.telemetry = application.telemetry = observe(
            ledger="true", prompt_map="true", native_diagnostics="true", budget_ms="0"
        )
        self.observer = runtime.running().observer
        self.telemetry.witness = self.observer.witness
        self.table = runtime.running().telemetry.table
        self.lines = Lines()
        self.run(self.names)  # imports and first times are over
        assert not self.observer.errors
        if not ENTERED:
            ENTERED.update({name: self.entered_by(name) for name in self.names})
        self.codes = set().union(*ENTERED.values())
        self.functions = functions_of(self.codes)

    def entered_by(self, name):
        cold = entered(lambda: forget("pricing/") or self.run([name]))
        return cold | entered(lambda: self.run([name]))

    def run(self, names):
        """Makes some of the calls with a prompt that is new to everybody; gives outcomes and seconds."""
        number = next(NUMBERS)
        began = perf_counter()
        found = {name: contextvars.copy_context().run(self.application.outcome, name, number) for name in names}
        if self.observer is not None:
            self.wait()
        return found, perf_counter() - began

    def wait(self):
        """Lets the worker do its part, without a function of ours; not for ever, for it may be the one at fault."""
        worker, until = self.observer.worker, perf_counter() + PATIENCE
        while (worker._jobs or not worker._idle.is_set()) and perf_counter() < until:
            sleep(0.0005)

    def counted(self):
        """What promptcache.internal.errors would say, without collecting everything else."""
        return sum(point.value for point in self.table.errors())

    def plan(self, code):
        more = [name for name in self.names if code in ENTERED[name] and name not in (*ALWAYS, COUNTED)]
        return [*ALWAYS, *more[:MORE], COUNTED]

    def fresh(self, code):
        """Each fault is the first one: nothing is known, nothing has been said, and diagnosis is not paused."""
        forget(room(code))
        self.observer.history = Memory(self.observer.key, 100_000)
        self.observer.breaker = Breaker()
        self.observer._said.clear()
        self.observer.errors.clear()
        self.telemetry.exporter.clear()
        FIRED.clear()
        self.lines.lines.clear()

    def under(self, code, kind):
        """What an application would notice of this function failing so, as a list of complaints."""
        self.fresh(code)
        logging.getLogger().addHandler(self.lines)
        before = self.counted()
        try:
            with Faulty(self.functions[code], fault(kind)):
                outcomes, took = self.run(self.plan(code))
        except BaseException as error:
            return [f"{type(error).__name__} leaks: {error}"]
        finally:
            logging.getLogger().removeHandler(self.lines)
        complaints = [f"{name} gives {str(got)[:80]}" for name, got in outcomes.items() if got != self.expected[name]]
        if took > self.patience:
            complaints.append(f"takes {took:.1f} s")
        if len(self.lines.lines) > MAX_LINES:
            complaints.append(f"logs {len(self.lines.lines)} lines: {self.lines.lines[0][:200]}")
        if kind in RAISES and FIRED and self.counted() == before and place(code) not in UNTOLD:
            complaints.append("is not counted")
        if kind == "None":  # nonsense that was remembered stays nonsense, an error leaves nothing behind
            self.fresh(code)
        return complaints + self.afterwards(code)

    def afterwards(self, code):
        """Once the fault is over everything works again."""
        self.observer.worker.flush()
        forget(room(code))
        self.observer.breaker = Breaker()
        self.observer.errors.clear()
        self.telemetry.exporter.clear()
        if self.run(["1_create"])[0]["1_create"] != self.expected["1_create"]:
            return ["calls fail afterwards"]
        attributes = self.telemetry.spans[-1].attributes if self.telemetry.spans else {}
        # 100 x 3 + 5000 x 3.75 + 50 x 15 a million; "miss" where the earlier run left its mark
        status, cost = attributes.get("promptcache.status"), attributes.get("promptcache.cost.total")
        if status not in ("cold", "miss") or cost != 0.0198:
            return [f"calls are not observed afterwards: {dict(attributes)}"]
        return [f"errors afterwards: {dict(self.observer.errors)}"] if self.observer.errors else []


@pytest.fixture
def trial(application, observe, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    return Trial(application, observe)


def test_the_functions_are_found(trial):
    """A run enters a few hundred functions in every room, and all but those made on the way can be replaced."""
    rooms = {room(code) for code in trial.functions}
    assert len(trial.functions) > 150
    assert rooms >= {
        "attribution.py",
        "diagnosis/__init__.py",
        "fingerprint/__init__.py",
        "history/__init__.py",
        "history/memory.py",
        "instrumentation/hooks.py",
        "instrumentation/reading.py",
        "instrumentation/tap.py",
        "observer/__init__.py",
        "observer/call.py",
        "observer/pricelist.py",
        "pricing/__init__.py",
        "pricing/pricefile.py",
        "pricing/prices.py",
        "providers/__init__.py",
        "providers/anthropic.py",
        "providers/openai_chat.py",
        "providers/openai_responses.py",
        "providers/rules.py",
        "settings.py",
        "telemetry/__init__.py",
        "telemetry/context.py",
        "telemetry/counters.py",
        "telemetry/ledger.py",
        "telemetry/spans.py",
        "worker.py",
    }
    made_on_the_way = {place(code) for code in trial.codes - trial.functions.keys()}
    assert [name for name in made_on_the_way if "<locals>" not in name] == []
    assert {name for name in OUTSIDE if name not in map(place, trial.codes)} <= {
        "instrumentation/tap.py:Tapped.__getattr__",  # asked for by some versions of the SDKs only
        "telemetry/context.py:Watcher._on_ending",  # asked for by later versions of the OpenTelemetry SDK
        "worker.py:Worker._run",  # entered once, before the run
        "_collection.py:_told",  # entered when the interpreter thinks fit
    }


@pytest.mark.parametrize("kinds", [["None"], ["RuntimeError"], ["MemoryError", "RecursionError"]], ids=" or ".join)
def test_any_function_may_fail(kinds, trial):
    """Whichever function of ours raises, or gives nothing, the application gets what it gets without us."""
    codes = sorted((code for code in trial.functions if place(code) not in OUTSIDE), key=place)
    faults = zip(codes[:: 2 * len(kinds) if len(kinds) > 1 else 1], itertools.cycle(kinds))
    noticed = [f"{place(code)} {complaint}" for code, kind in faults for complaint in trial.under(code, kind)]
    assert not noticed, "\n".join(noticed)


OUR_FRAMES = 6
"""Python frames that we add to the SDK's own stack where a call needs most of it."""


def test_a_stack_that_is_nearly_full(application, observe):
    """A call for which the stack just suffices still succeeds; where we find no room we leave the call alone."""

    def works(room):
        limit = sys.getrecursionlimit()
        depth = sum(1 for _ in traceback.walk_stack(None))
        sys.setrecursionlimit(depth + room)
        try:
            return application.call1_create(next(NUMBERS)).usage.output_tokens == 50
        except Exception:
            return False
        finally:
            sys.setrecursionlimit(limit)

    assert works(500)
    enough = next(room for room in range(20, 300) if works(room))
    observe()
    assert [room for room in range(enough + OUR_FRAMES, enough + 100) if not works(room)] == []
    assert works(500)
