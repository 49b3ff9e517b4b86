"""Starting and stopping: in any order, by any door, before or after the SDKs, and without a trace left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points

import anthropic._base_client
import openai._base_client
import pytest
import wrapt

import otel_promptcache
from otel_promptcache.instrumentation import AnthropicPromptCacheInstrumentor, OpenAIPromptCacheInstrumentor

AM = {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
OM = {"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]}

TARGETS = [
    (sdk._base_client, *target.split("."))
    for sdk in (anthropic, openai)
    for target in (
        "SyncAPIClient.request",
        "AsyncAPIClient.request",
        "BaseClient._build_request",
        "BaseClient._should_retry",
        "SyncAPIClient._process_response",
        "AsyncAPIClient._process_response",
    )
]


def standing():
    """What stands at each place that we patch."""
    return [vars(getattr(module, owner))[name] for module, owner, name in TARGETS]


ORIGINALS = standing()


def layers(function):
    """How many wrappers of ours are around a function."""
    count = 0
    while isinstance(function, wrapt.FunctionWrapper):
        count += function._self_wrapper.__module__.startswith("otel_promptcache")
        function = function.__wrapped__
    return count


@pytest.fixture
def instrumentors():
    """The two instrumentors that OpenTelemetry's launcher finds, left as they were found."""
    found = [AnthropicPromptCacheInstrumentor(), OpenAIPromptCacheInstrumentor()]
    yield found
    for instrumentor in found:
        instrumentor.uninstrument()


def test_entry_points(instrumentors):
    """``opentelemetry-instrument`` finds both under names that no other package uses."""
    found = {point.name: point.load() for point in entry_points(group="opentelemetry_instrumentor")}
    assert found["promptcache-anthropic"] is AnthropicPromptCacheInstrumentor
    assert found["promptcache-openai"] is OpenAIPromptCacheInstrumentor
    assert list(instrumentors[0].instrumentation_dependencies()) == ["anthropic >= 0.79"]
    assert list(instrumentors[1].instrumentation_dependencies()) == ["openai >= 1.109"]


def test_instrument_and_uninstrument(telemetry, clients, provider):
    """Patched once while started; afterwards the original functions stand where they stood, and nobody counts."""
    assert [layers(function) for function in standing()] == [1] * len(TARGETS)
    clients.anthropic.messages.create(**AM)
    otel_promptcache.uninstrument()
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))
    clients.anthropic.messages.create(**AM)
    clients.openai.chat.completions.create(**OM)
    assert len(telemetry.spans) == 1
    assert len(provider.asked) == 3


def test_twice_is_once(telemetry, clients):
    """Starting again changes nothing, nor does stopping again."""
    telemetry.instrument()
    assert [layers(function) for function in standing()] == [1] * len(TARGETS)
    clients.anthropic.messages.create(**AM)
    assert telemetry.total("promptcache.calls") == 1
    otel_promptcache.uninstrument()
    otel_promptcache.uninstrument()
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))


def test_again_after_stopping(observe, clients):
    """A second start observes with the providers it was given; the first one's fall silent."""
    first = observe()
    clients.anthropic.messages.create(**AM)
    otel_promptcache.uninstrument()
    second = observe()
    clients.anthropic.messages.create(**AM)
    clients.anthropic.messages.create(**AM)
    assert (len(first.spans), len(second.spans)) == (1, 2)
    assert second.total("promptcache.calls") == 2


def test_stopping_what_was_never_started():
    """Nothing happens."""
    otel_promptcache.uninstrument()
    AnthropicPromptCacheInstrumentor().uninstrument()
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))


@pytest.mark.parametrize("order", ["instrument() first", "entry points first"])
def test_both_doors(order, observe, clients, instrumentors, telemetry):
    """Started by the launcher and by the application, each call is counted once."""
    if order == "entry points first":
        otel_promptcache.uninstrument()
        for instrumentor in instrumentors:
            instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        telemetry.instrument()
    else:
        for instrumentor in instrumentors:
            instrumentor.instrument()
    assert [layers(function) for function in standing()] == [1] * len(TARGETS)
    clients.anthropic.messages.create(**AM)
    clients.openai.chat.completions.create(**OM)
    assert len(telemetry.spans) == 2
    otel_promptcache.uninstrument()
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))


def test_one_sdk_alone(instrumentors, telemetry, clients):
    """Each instrumentor watches its own SDK."""
    otel_promptcache.uninstrument()
    instrumentors[1].instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    clients.anthropic.messages.create(**AM)
    clients.openai.chat.completions.create(**OM)
    assert [span.name for span in telemetry.spans] == ["chat gpt-5.6"]
    instrumentors[1].uninstrument()
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))


def test_stopping_one_instrumentor_leaves_the_other(instrumentors, telemetry, clients):
    """The other SDK stays observed."""
    otel_promptcache.uninstrument()
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    instrumentors[0].uninstrument()
    clients.anthropic.messages.create(**AM)
    clients.openai.chat.completions.create(**OM)
    assert [span.name for span in telemetry.spans] == ["chat gpt-5.6"]


def test_a_wrapper_of_somebody_else_around_ours(telemetry, clients, provider):
    """It survives our leaving, works on, and what is left of ours inside it does nothing."""
    seen = []

    def theirs(wrapped, instance, args, kwargs):
        seen.append(kwargs.get("options") or args[1])
        return wrapped(*args, **kwargs)

    owner = openai._base_client.SyncAPIClient
    ours = vars(owner)["request"]
    owner.request = wrapt.FunctionWrapper(ours, theirs)
    try:
        clients.openai.chat.completions.create(**OM)
        assert (len(seen), len(telemetry.spans)) == (1, 1)
        otel_promptcache.uninstrument()
        assert type(vars(owner)["request"]) is wrapt.FunctionWrapper
        clients.openai.chat.completions.create(**OM)
        assert (len(seen), len(telemetry.spans)) == (2, 1)
        telemetry.instrument()
        assert [layers(function) for function in standing()] == [1] * len(TARGETS)
        clients.openai.chat.completions.create(**OM)
        assert (len(seen), len(telemetry.spans)) == (3, 2)
        otel_promptcache.uninstrument()
    finally:
        owner.request = ours.__wrapped__
    assert all(now is then for now, then in zip(standing(), ORIGINALS, strict=True))


def test_a_wrapper_of_somebody_else_below_ours(observe, clients):
    """What was patched before us is still patched after us."""
    owner = anthropic._base_client.SyncAPIClient
    original = vars(owner)["request"]
    calls = []

    def theirs(self, *args, **kwargs):
        calls.append(1)
        return original(self, *args, **kwargs)

    owner.request = theirs
    try:
        telemetry = observe()
        clients.anthropic.messages.create(**AM)
        otel_promptcache.uninstrument()
        assert vars(owner)["request"] is theirs
    finally:
        owner.request = original
    assert (len(calls), len(telemetry.spans)) == (1, 1)


def test_a_client_made_before_we_start(clients, observe):
    """The hooks stand on the classes: clients that exist already are observed too."""
    client = clients.anthropic
    telemetry = observe()
    client.messages.create(**AM)
    assert len(telemetry.spans) == 1


def test_a_subclass_of_the_application(observe, clients):
    """A client class of the application's own is observed, once, also where it overrides ``request``."""

    class Mine(anthropic.Anthropic):
        def request(self, *args, **kwargs):
            return super().request(*args, **kwargs)

    telemetry = observe()
    with Mine(base_url=clients._url, api_key="sk-test", max_retries=0) as client:
        client.messages.create(**AM)
    assert telemetry.total("promptcache.calls") == 1


def test_a_stream_that_is_open_when_we_stop(telemetry, provider, clients, quiet):
    """It ends as it would without us; what was begun is told."""
    stream = clients.anthropic.messages.create(stream=True, **{**AM, "model": "claude-sonnet-4-6+hold"})
    next(iter(stream))
    otel_promptcache.uninstrument()
    provider.release.set()
    assert [event.type for event in stream][-1] == "message_stop"
    assert telemetry.span.attributes["gen_ai.usage.output_tokens"] == 50


# --- In a process of its own -------------------------------------------------------------------------------

SCRIPT = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
wrapt_before = "wrapt" in sys.modules  # of older OpenTelemetry SDKs
import otel_promptcache

def start():
    otel_promptcache.instrument(tracer_provider=provider)

def spans():
    return [span.name for span in exporter.get_finished_spans()]

def ask():
    import openai._base_client
    return openai._base_client.SyncAPIClient().request(dict, openai._base_client.Options())
"""
"""What every script begins with."""

SMALL_SDK = """
class Options:
    method, url, json_data = "post", "/chat/completions", {"model": "gpt-5.6", "messages": []}

class Url:
    scheme, host, port = "https", "api.openai.com", None

class Request:
    url, headers = Url, {}

class Response:
    is_closed = is_success = True
    headers = {"content-type": "application/json"}
    content = b'{"usage": {"prompt_tokens": 100, "completion_tokens": 7}}'

class BaseClient:
    def _build_request(self, options, *, retries_taken=0):
        return Request

    def _should_retry(self, response):
        return False

class SyncAPIClient(BaseClient):
    def request(self, cast_to, options, *, stream=False, stream_cls=None):
        self._build_request(options)
        return self._process_response(cast_to=cast_to, options=options, response=Response, stream=stream)

    def _process_response(self, *, cast_to, options, response, stream):
        return response.content.decode()

class AsyncAPIClient(BaseClient):
    async def request(self, cast_to, options, *, stream=False, stream_cls=None): ...
    async def _process_response(self, *, cast_to, options, response, stream): ...
"""
"""An SDK with the six targets and nothing else: a real one takes a second to import."""
OLD = "ignore:pkg_resources is deprecated"
"""What the oldest opentelemetry-instrumentation is warned of."""
ANSWER = '{"usage": {"prompt_tokens": 100, "completion_tokens": 7}}'


@pytest.fixture
def in_a_process(tmp_path):
    """Runs a script with an ``openai`` package of the given source, or the real one, and gives the lines it prints."""

    def process(script, base_client=SMALL_SDK):
        if base_client is not None:
            (tmp_path / "openai").mkdir()
            (tmp_path / "openai" / "__init__.py").write_text("")
            (tmp_path / "openai" / "_base_client.py").write_text(base_client)
        path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT + textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "OTEL_PROMPTCACHE_PRICES": "off", "PYTHONPATH": path, "PYTHONWARNINGS": OLD},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return process


ORDERS = {
    "before the import": "start(); import openai._base_client",
    "after the import": "import openai._base_client; start()",
    "between the packages": "import openai; start(); import openai._base_client",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_start_and_import_in_any_order(order, in_a_process):
    """Imported before or after, the SDK is observed."""
    script = f"""
    assert ("wrapt" in sys.modules) == wrapt_before
    {order}
    print(ask(), spans())
    """
    assert in_a_process(script) == [f"{ANSWER} ['chat gpt-5.6']"]


def test_the_real_sdk_imported_later(in_a_process):
    """The same with the SDK itself: starting does not import it, importing it patches it."""
    script = """
    start()
    assert "openai" not in sys.modules and "anthropic" not in sys.modules
    import openai
    try:
        openai.OpenAI(base_url="http://127.0.0.1:9", api_key="k", max_retries=0).responses.create(model="m", input="hi")
    except openai.APIConnectionError:
        print(spans())
    """
    assert in_a_process(script, None) == ["['chat m']"]


def test_stopped_before_the_import(in_a_process):
    """An SDK that is imported after we stopped is not patched."""
    script = """
    start()
    otel_promptcache.uninstrument()
    print(ask(), spans())
    print(type(vars(sys.modules["openai._base_client"].SyncAPIClient)["request"]).__name__)
    """
    assert in_a_process(script) == [f"{ANSWER} []", "function"]


def test_sdks_that_are_not_installed(in_a_process):
    """Starting and stopping are silent."""
    script = """
    sys.modules["anthropic"] = sys.modules["openai"] = None
    start()
    otel_promptcache.uninstrument()
    print("done")
    """
    assert in_a_process(script) == ["done"]


def test_a_version_without_a_target(in_a_process):
    """One warning names what is missing, however often we start, and the calls work."""
    script = """
    start()
    print(ask())
    start()
    print(ask())
    otel_promptcache.uninstrument()
    start()
    print(ask())
    """
    warning, *rest = in_a_process(script, SMALL_SDK.replace("_build_request", "_construct_request"))
    assert warning == (
        "WARNING otel_promptcache otel-promptcache: this version of openai has no BaseClient._build_request; its calls "
        "are observed in part or not at all. `otel-promptcache doctor` lists versions that are known to work"
    )
    assert rest == [ANSWER] * 3


STRANGE = {
    "empty": "",
    "bare classes": "class SyncAPIClient: pass",
    "no classes": "SyncAPIClient = AsyncAPIClient = BaseClient = None",
    "properties": "class BaseClient:\n    _build_request = property(None)",
}


@pytest.mark.parametrize("base_client", STRANGE.values(), ids=STRANGE)
def test_a_version_that_looks_like_nothing_we_know(base_client, in_a_process):
    """Whatever stands at the targets, starting and stopping never raise, and say so once."""
    script = """
    start()
    import openai._base_client
    otel_promptcache.uninstrument()
    print("done")
    """
    *warnings, last = in_a_process(script, base_client)
    assert last == "done"
    assert [line.partition(" has no ")[0] for line in warnings] == [
        "WARNING otel_promptcache otel-promptcache: this version of openai"
    ]


def test_an_sdk_that_breaks_while_it_is_imported(in_a_process):
    """Its own error reaches the application, unchanged."""
    script = """
    start()
    try:
        import openai._base_client
    except RuntimeError as error:
        print(error)
    """
    assert in_a_process(script, "raise RuntimeError('of the SDK')") == ["of the SDK"]


@pytest.mark.parametrize("name", ["OpenAI", "AsyncOpenAI"])
def test_a_wrapper_of_somebody_else_on_what_a_client_inherits(name, observe, connect):
    """Put there before us it holds the function below our hook: it is wrapped in turn, and given back."""
    owner, calls = getattr(openai, name), []
    base = vars(openai._base_client.SyncAPIClient if name == "OpenAI" else openai._base_client.AsyncAPIClient)[
        "request"
    ]

    def theirs(wrapped, instance, args, kwargs):
        calls.append(1)
        return wrapped(*args, **kwargs)

    owner.request = put = wrapt.FunctionWrapper(base, theirs)
    try:
        for seen in (1, 2):  # again, after stopping
            telemetry = observe()
            clients = connect()
            if name == "OpenAI":
                clients.openai.chat.completions.create(**OM)
            else:
                asyncio.run(_closing(clients))
            assert (len(calls), len(telemetry.spans)) == (seen, 1)
            otel_promptcache.uninstrument()
            assert vars(owner)["request"] is put
    finally:
        del owner.request


async def _closing(clients):
    await clients.async_openai.chat.completions.create(**OM)
    await clients.aclose()
