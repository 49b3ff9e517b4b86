"""Every way to start, in real processes: what a real application sends arrives, once, at a real OTLP receiver."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import otel_promptcache
from otel_promptcache.autoload import configure
from otel_promptcache.cli import auto
from otel_promptcache.cli._doctor_provider import CALLS, Scripted, provider
from otel_promptcache.telemetry import events

LAUNCHER = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
"""Whether this OpenTelemetry can write the ledger."""
PATIENCE = 300

BOTH = """
import os
import anthropic, openai
claude = anthropic.Anthropic(api_key="k", base_url=os.environ["PROVIDER"])
gpt = openai.OpenAI(api_key="k", base_url=os.environ["PROVIDER"] + "/v1")
talk = [{"role": "user", "content": "hello"}]
print(claude.messages.create(model="claude-sonnet-5", max_tokens=9, messages=talk).usage.input_tokens)
print(gpt.chat.completions.create(model="gpt-5.4", messages=talk).usage.prompt_tokens)
stream = gpt.responses.create(model="gpt-5.4", input="hello", stream=True)
print(sum(event.type == "response.completed" for event in stream))
"""
BOTH_CALLS = ("anthropic messages", "openai chat", "openai responses, streamed")

ONE = """
import os
import openai
gpt = openai.OpenAI(api_key="k", base_url=os.environ["PROVIDER"] + "/v1")
print(gpt.chat.completions.create(model="gpt-5.4", messages=[{"role": "user", "content": "hello"}]).usage.prompt_tokens)
"""
ONE_CALL = ("openai chat",)

OWN_SDK = """
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
tracers, loggers = TracerProvider(), LoggerProvider()
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
_logs.set_logger_provider(loggers)
"""
INSTRUMENT = "\nimport otel_promptcache\notel_promptcache.instrument()\n"

LATE_PRICES = """
import importlib.machinery, os, sys, threading
sys.prices_may_come = threading.Event()
sys.prices_may_come.wait(20)
_path = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]
__spec__ = importlib.machinery.PathFinder.find_spec("genai_prices", _path)
__path__, __file__, __package__ = __spec__.submodule_search_locations, __spec__.origin, "genai_prices"
exec(compile(open(__file__).read(), __file__, "exec"))
"""
PRICES_COME_AFTER_THE_END = """
import sys, threading
threading.Timer(0.3, sys.prices_may_come.set).start()
"""
PATIENT = """
import sys
if worker := sys.modules.get("otel_promptcache.worker"):
    worker.FLUSH_SECONDS = 60
"""
"""What every script ends with. How long an end waits at most is another matter."""


def scripted(name: str) -> Scripted:
    return next(call for call in CALLS if call.name == name)


@dataclass
class Received:
    """What an OTLP receiver was sent, parsed."""

    spans: list[Any] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    events: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def traces(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans += scope.spans
                self.scopes += [scope.scope.name] * len(scope.spans)

    def metric(self, body: bytes) -> None:
        """The newest export counts: counters are cumulative."""
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = metric.sum.data_points or metric.histogram.data_points
                    counts = (point.count if hasattr(point, "count") else _value(point) for point in points)
                    self.metrics[metric.name] = sum(counts)

    def logs(self, body: bytes) -> None:
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                self.events += filter(None, map(event_name, scope.log_records))

    def forget(self) -> None:
        """Begins anew."""
        for found in (self.spans, self.scopes, self.services, self.events, self.metrics):
            found.clear()

    def attribute(self, name: str) -> list[Any]:
        """The values of an attribute, a number or a text, over all spans."""
        found = (a.value for span in self.spans for a in span.attributes if a.key == name)
        return [value.string_value or value.int_value for value in found]


def event_name(record: Any) -> str:
    """The name of an event, where APIs before 1.35 have it too."""
    said = [pair.value.string_value for pair in record.attributes if pair.key == "event.name"]
    return getattr(record, "event_name", "") or "".join(said)


def _value(point: Any) -> float:
    return point.as_int or point.as_double  # type: ignore[no-any-return]


@pytest.fixture
def otlp() -> Iterator[tuple[Received, str]]:
    """A receiver of OTLP over HTTP, and its address."""
    received = Received()
    readers = {"/v1/traces": received.traces, "/v1/metrics": received.metric, "/v1/logs": received.logs}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            readers[self.path](gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield received, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Ended(NamedTuple):
    """A process that is over."""

    output: str
    errors: str
    received: Received

    @property
    def ours(self) -> list[str]:
        """What we said in its log."""
        return re.findall(r"^.*otel-promptcache:.*$", self.errors, re.MULTILINE)


class Application:
    """Runs scripts as an application that knows nothing but its environment."""

    def __init__(self, folder: Path, provider_at: str, otlp: tuple[Received, str]) -> None:
        self.folder = folder
        self.received, collector = otlp
        inherited = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT") if name in os.environ
        }
        self.environment = inherited | {
            "PROVIDER": provider_at,
            "NO_PROXY": "*",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "starting",
            "OTEL_PROMPTCACHE_LEDGER": "true",
        }
        if not events.NAMED:  # the SDKs of that time set up logs only where asked to
            self.environment["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"] = "true"
            self.environment["OTEL_LOGS_EXPORTER"] = "otlp"

    def run(
        self,
        script: str,
        *,
        by: Sequence[str] = (),
        python: str = sys.executable,
        path: Sequence[str | Path] = (),
        **variables: str,
    ) -> Ended:
        file = self.folder / "app.py"
        file.write_text(script + PATIENT)
        searched = {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
        done = subprocess.run(
            [*by, python, str(file)],
            env={"PYTHONWARNINGS": "always::ResourceWarning"} | self.environment | searched | variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not re.search(r"otel_promptcache\S*\.py:\d+: ResourceWarning", done.stderr), done.stderr
        return Ended(done.stdout, done.stderr, self.received)


@pytest.fixture
def app(tmp_path: Path, otlp: tuple[Received, str]) -> Iterator[Application]:
    with provider() as address:
        yield Application(tmp_path, address, otlp)


@pytest.fixture
def auto_path() -> str:
    """What ``otel-promptcache auto path`` prints."""
    command = [sys.executable, "-m", "otel_promptcache", "auto", "path"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def arrived(ended: Ended, names: Sequence[str]) -> None:
    """Exactly these calls arrived, in every signal, and we had nothing to complain of."""
    calls, received = [scripted(name) for name in names], ended.received
    inputs = [call.usage.input for call in calls]
    assert ended.ours == []
    assert sorted(received.attribute("gen_ai.usage.input_tokens")) == sorted(inputs)
    assert len(received.spans) == len(calls), received.scopes
    assert received.events == ["promptcache.call"] * len(calls)
    assert received.metrics["promptcache.calls"] == len(calls)
    assert received.metrics["gen_ai.client.inference.usage.input_tokens"] == sum(inputs)
    assert received.metrics["gen_ai.client.operation.duration"] == len(calls)


def nothing_arrived(ended: Ended) -> None:
    assert ended.received == Received()


def output(names: Sequence[str]) -> str:
    """What the script prints when nobody interferes."""
    shown = {"anthropic messages": scripted("anthropic messages").usage.uncached, "openai responses, streamed": 1}
    return "".join(f"{shown.get(name, scripted(name).usage.input)}\n" for name in names)


# --- environments of their own ------------------------------------------------------------------------------


def environment(folder: Path, paths: Sequence[Path]) -> str:
    """The interpreter of a new virtual environment in which the packages of other folders can be imported."""
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(purelib, "packages.pth").write_text("".join(f"{path}\n" for path in paths))
    return str(python)


PACKAGES = Path(sysconfig.get_path("purelib"))
OURS = Path(otel_promptcache.__file__).parents[1]


@pytest.fixture
def throwaway(tmp_path: Path) -> str:
    """An environment with everything that this one has, to write a ``.pth`` into."""
    return environment(tmp_path / "venv", [PACKAGES, OURS])


def needed(names: Sequence[str]) -> set[str]:
    """Distributions, and everything that they need without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        if name not in found:
            found.add(name)
            waiting += [re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line]
    return found


@pytest.fixture
def without_sdk(tmp_path: Path) -> str:
    """An environment with our own dependencies and the openai SDK only."""
    packages = tmp_path / "packages"
    for name in needed(["otel-promptcache", "openai"]):
        for file in metadata.files(name) or ():
            depth = 2 if file.parts[0] == "opentelemetry" else 1  # the folder that distributions share
            source, link = PACKAGES.joinpath(*file.parts[:depth]), packages.joinpath(*file.parts[:depth])
            if ".." not in file.parts and source.exists() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
    return environment(tmp_path / "venv", [packages, OURS])


# --- (a) to (f): whoever starts us --------------------------------------------------------------------------


class TestLauncher:
    """``opentelemetry-instrument python app.py``."""

    def test_every_call_arrives_once(self, app: Application) -> None:
        """Spans, metrics and ledger of three calls; the anthropic SDK's own span is enriched, not doubled."""
        assert LAUNCHER
        ended = app.run(BOTH, by=[LAUNCHER])
        assert ended.output == output(BOTH_CALLS)
        arrived(ended, BOTH_CALLS)
        assert Counter(ended.received.scopes)["otel_promptcache"] >= 2


class TestPath:
    """``PYTHONPATH=$(otel-promptcache auto path) OTEL_PROMPTCACHE_AUTO=1 python app.py``."""

    def test_every_call_arrives_once(self, app: Application, auto_path: str) -> None:
        """The same as under the launcher, and another ``sitecustomize`` still runs."""
        other = app.folder / "other"
        other.mkdir()
        (other / "sitecustomize.py").write_text("print('the other runs')\n")
        ended = app.run(BOTH, path=[auto_path, other], OTEL_PROMPTCACHE_AUTO="1")
        assert ended.output == "the other runs\n" + output(BOTH_CALLS)
        arrived(ended, BOTH_CALLS)
        # Setting up an SDK takes long. It is not counted as our time in the first call, which would pause diagnosis.
        assert len(ended.received.attribute("promptcache.status")) == len(BOTH_CALLS)

    def test_without_the_switch_nothing_of_ours_runs(self, app: Application, auto_path: str) -> None:
        """The directory alone does nothing, but for handing on to the other ``sitecustomize``."""
        other = app.folder / "other"
        other.mkdir()
        (other / "sitecustomize.py").write_text("print('the other runs')\n")
        script = ONE + "import sys\nprint([n for n in sys.modules if n.startswith(('otel_promptcache', 'wrapt'))])\n"
        ended = app.run(script, path=[auto_path, other])
        assert ended.output == "the other runs\n" + output(ONE_CALL) + "[]\n"
        nothing_arrived(ended)

    def test_an_error_of_the_other_sitecustomize_is_told(self, app: Application, auto_path: str) -> None:
        """It fails as it would without us, and we start all the same."""
        other = app.folder / "other"
        other.mkdir()
        (other / "sitecustomize.py").write_text("import nowhere_to_be_found\n")
        script = "import sys\nprint(any('otel_promptcache' in type(f).__module__ for f in sys.meta_path))\n"
        ended = app.run(script, path=[auto_path, other], OTEL_PROMPTCACHE_AUTO="1")
        assert ended.output == "True\n"
        assert "nowhere_to_be_found" in ended.errors


@pytest.mark.slow
class TestPth:
    """``otel-promptcache auto enable``, in a throwaway environment."""

    def test_enable_and_disable(self, app: Application, throwaway: str) -> None:
        """Enabled, calls arrive; disabled, the same start sends nothing."""

        def command(action: str) -> str:
            arguments = [throwaway, "-m", "otel_promptcache", "auto", action]
            return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()

        assert command("status") == "disabled"
        command("enable")
        assert command("status") == "enabled"
        arrived(app.run(ONE, python=throwaway, OTEL_PROMPTCACHE_AUTO="1"), ONE_CALL)
        command("disable")
        assert command("status") == "disabled"
        app.received.forget()
        nothing_arrived(app.run(ONE, python=throwaway, OTEL_PROMPTCACHE_AUTO="1"))

    def test_without_the_switch_nothing_is_imported(self, throwaway: str) -> None:
        """Enabled for good, it costs every other start one look at the environment."""
        subprocess.run([throwaway, "-m", "otel_promptcache", "auto", "enable"], check=True, capture_output=True)
        show = "import sys; print(sorted(n for n in sys.modules if n.startswith(('otel', 'opentelemetry', 'wrapt'))))"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL", "PYTHON"))}
        for variables, ours in ({}, False), ({"OTEL_PROMPTCACHE_AUTO": "1"}, True):
            command = [throwaway, "-c", show]
            shown = subprocess.run(command, env=clean | variables, capture_output=True, text=True, check=True).stdout
            assert ("otel_promptcache.autoload" in shown) is ours
            assert "wrapt" not in shown
            assert "opentelemetry" not in shown  # not before an SDK is imported


class TestInCode:
    """``otel_promptcache.instrument()``, with an SDK that the application sets up."""

    @pytest.mark.parametrize(
        "script", [INSTRUMENT + OWN_SDK + ONE, OWN_SDK + ONE.replace("gpt =", f"{INSTRUMENT}gpt =")]
    )
    def test_every_call_arrives_once(self, app: Application, script: str) -> None:
        """Before the SDKs are imported and providers set, or after."""
        ended = app.run(script)
        assert ended.output == output(ONE_CALL)
        arrived(ended, ONE_CALL)


class TestTogether:
    """All ways at once."""

    @pytest.mark.slow
    def test_patched_once(self, app: Application, throwaway: str, auto_path: str) -> None:
        """Launcher, path, ``.pth`` and code: one wrapper around each target, one span a call."""
        subprocess.run([throwaway, "-m", "otel_promptcache", "auto", "enable"], check=True, capture_output=True)
        depth = """
from openai._base_client import SyncAPIClient
found, depth = vars(SyncAPIClient)["request"], 0
while hasattr(found, "__wrapped__"):
    found, depth = found.__wrapped__, depth + 1
print(depth)
"""
        assert LAUNCHER
        script = INSTRUMENT + BOTH + INSTRUMENT + depth
        ended = app.run(script, by=[LAUNCHER], python=throwaway, path=[auto_path], OTEL_PROMPTCACHE_AUTO="1")
        assert ended.output == output(BOTH_CALLS) + "1\n"
        arrived(ended, BOTH_CALLS)

    def test_switch_and_code(self, app: Application, auto_path: str) -> None:
        """Without the launcher, whose presence makes the switch stand back."""
        script = INSTRUMENT + ONE + INSTRUMENT
        ended = app.run(script, path=[auto_path], OTEL_PROMPTCACHE_AUTO="1")
        arrived(ended, ONE_CALL)


class TestOwnProvider:
    """The switch, in an application that configures OpenTelemetry itself."""

    def test_is_not_overtaken(self, app: Application, auto_path: str) -> None:
        """Its provider, set after the import of an SDK, is the one that is used, and the only one."""
        mine = OWN_SDK.replace("TracerProvider(), ", "TracerProvider(resource=Resource({'service.name': 'mine'})), ")
        script = "import openai\nfrom opentelemetry.sdk.resources import Resource\n" + mine + ONE
        ended = app.run(script, path=[auto_path], OTEL_PROMPTCACHE_AUTO="1")
        arrived(ended, ONE_CALL)
        assert ended.received.services == {"mine"}
        assert "Overriding" not in ended.errors

    def test_a_meter_provider_counts_too(self, app: Application, auto_path: str) -> None:
        """Whoever sets up metrics alone wants metrics alone."""
        script = "import openai\n" + "".join(
            line + "\n"
            for line in OWN_SDK.splitlines()
            if "etric" in line or line.startswith("from opentelemetry import")
        )
        ended = app.run(script + ONE, path=[auto_path], OTEL_PROMPTCACHE_AUTO="1")
        assert ended.received.metrics["promptcache.calls"] == 1
        assert ended.received.spans == []
        assert "Overriding" not in ended.errors
        assert ended.ours == []


# --- (g): nobody listens ------------------------------------------------------------------------------------


class TestNobodyListens:
    """Exactly one warning, which says what to do; the application is as it would be without us."""

    @pytest.mark.slow
    def test_no_sdk(self, app: Application, without_sdk: str, auto_path: str) -> None:
        """The package to install is named, whether we are started in code or by the switch."""
        for script, variables in (INSTRUMENT + ONE, {}), (ONE, {"OTEL_PROMPTCACHE_AUTO": "1"}):
            ended = app.run(
                script + "import sys; assert 'opentelemetry.sdk' not in sys.modules",
                python=without_sdk,
                path=[auto_path],
                **variables,
            )
            assert ended.output == output(ONE_CALL)
            assert len(ended.ours) == 1
            assert "pip install 'otel-promptcache[otlp]'" in ended.ours[0]
        nothing_arrived(ended)

    def test_no_provider(self, app: Application) -> None:
        """The launcher and the switch are named."""
        ended = app.run(INSTRUMENT + ONE)
        assert ended.output == output(ONE_CALL)
        assert len(ended.ours) == 1
        assert "opentelemetry-instrument" in ended.ours[0]
        assert "OTEL_PROMPTCACHE_AUTO=1" in ended.ours[0]
        nothing_arrived(ended)

    def test_unusable_configuration(self, app: Application, auto_path: str) -> None:
        """What the SDK has against ``OTEL_*`` is told in its own words."""
        ended = app.run(ONE, path=[auto_path], OTEL_PROMPTCACHE_AUTO="1", OTEL_EXPORTER_OTLP_PROTOCOL="http/json")
        assert ended.output == output(ONE_CALL)
        assert len(ended.ours) == 1
        assert "Unsupported OTLP protocol 'http/json'" in ended.ours[0]
        nothing_arrived(ended)

    def test_no_exporter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A component that is not installed comes with the command that installs it."""
        for name in ("OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            monkeypatch.setenv(name, os.environ.get(name, ""))  # what is set while configuring is taken back
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nobodys")
        monkeypatch.setattr(configure, "_configured", lambda: False)
        why = configure.configure_sdk()
        assert "nobodys" in why
        assert why.endswith("; pip install 'otel-promptcache[otlp]'")


# --- the end ------------------------------------------------------------------------------------------------


class TestExit:
    """An application that ends right after its last call, while work for that call is still queued."""

    WAYS: Mapping[str, tuple[str, bool, bool]] = {
        # What comes before the script, whether the launcher starts it, whether the switch is on.
        "launcher": ("", True, False),
        "switch": ("", False, True),
        "code, then SDK": (INSTRUMENT + OWN_SDK, False, False),
    }

    @pytest.mark.parametrize("way", WAYS)
    def test_everything_is_flushed(self, app: Application, auto_path: str, way: str) -> None:
        """Prices come only after the script has ended; still the call arrives, with its cost, in every signal."""
        before, launched, switched = self.WAYS[way]
        shim = app.folder / "shim"
        shim.mkdir()
        (shim / "genai_prices.py").write_text(LATE_PRICES)
        ended = app.run(
            before + ONE + PRICES_COME_AFTER_THE_END,
            by=[LAUNCHER] if launched and LAUNCHER else [],
            path=[auto_path, shim],
            **({"OTEL_PROMPTCACHE_AUTO": "1"} if switched else {}),
        )
        arrived(ended, ONE_CALL)
        assert ended.received.metrics["promptcache.cost"] > 0


def test_the_file_is_the_one_that_doctor_looks_for() -> None:
    """``auto`` and ``doctor`` agree on where the ``.pth`` lies."""
    assert Path(auto.pth_path()).parent == PACKAGES
