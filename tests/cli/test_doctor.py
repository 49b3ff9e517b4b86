"""``otel-promptcache doctor``: what it finds out, and how it says so."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from servers import prometheus, prometheus_config, until_is
from servers.ports import free_ports

from otel_promptcache.cli import (
    _doctor_child,
    _doctor_export,
    _doctor_otlp,
    _doctor_peers,
    _doctor_prometheus,
    _doctor_settings,
    _doctor_versions,
    _doctor_workers,
    auto,
    main,
)
from otel_promptcache.cli._doctor_export import GRPC, HTTP, Outcome, Target
from otel_promptcache.cli._doctor_probe import Probe, ask
from otel_promptcache.cli._doctor_provider import CALLS
from otel_promptcache.cli._doctor_report import Finding, Level, Section, as_json, as_text, note, ok, problem
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.settings import Settings

INPUT = "gen_ai.usage.input_tokens"
SECRET = "abracadabra"
PATIENCE = 60.0
"""Seconds to wait for an answer that comes. Machines are busy at times."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of OpenTelemetry."""
    import os

    for name in list(os.environ):
        if name.startswith(("OTEL_", "ANTHROPIC_", "OPENAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level.value for finding in findings]


# --- the report ---------------------------------------------------------------------------------------------


class TestReport:
    """Findings, for a person and for a program."""

    SECTIONS = (
        Section("One", [ok("short", "fine"), problem("a longer subject", "word " * 30, "do this")]),
        Section("Two", [note("x" * 50, "text")]),
    )

    def test_text_is_aligned(self) -> None:
        """Texts begin in one column, advice stands below them, a subject too long has a line of its own."""
        lines = as_text(self.SECTIONS).splitlines()
        assert lines[0] == "One"
        assert lines[1] == "  ok       short             fine"
        assert lines[2].startswith("  problem  a longer subject  word word")
        assert all(line.startswith(" " * 29 + "word") for line in lines[3:4])
        assert " " * 29 + "> do this" in lines
        assert "  note     " + "x" * 50 in lines
        assert lines[-1] == "1 problem, 1 note."
        assert max(map(len, lines)) <= 100

    def test_nothing_to_say(self) -> None:
        """Where all is well the last line says so."""
        assert as_text([Section("One", [ok("a", "b")])]).endswith("\nEverything is as it should be.\n")

    def test_json(self) -> None:
        """``ok`` is false as soon as one thing is a problem."""
        document = json.loads(as_json(self.SECTIONS))
        assert document["ok"] is False
        assert document["sections"][0]["findings"][0] == {
            "level": "ok",
            "subject": "short",
            "text": "fine",
            "advice": "",
        }
        assert json.loads(as_json(self.SECTIONS[1:]))["ok"] is True


class TestVersions:
    """Packages, and whether they are new enough."""

    def test_what_is_supported_is_read_from_our_metadata(self) -> None:
        """With the packages of the extras."""
        required = _doctor_versions.required()
        assert {"wrapt", "anthropic", "openai", "opentelemetry-api", "opentelemetry-sdk"} <= set(required)

    @pytest.mark.parametrize(
        ("version", "least", "older"),
        [
            ("0.78.9", "0.79", True),
            ("0.79", "0.79.0", False),
            ("1.0", "0.79", False),
            ("0.66b2", "0.45b0", False),
            ("0.9", "0.10", True),
        ],
    )
    def test_older(self, version: str, least: str, *, older: bool) -> None:
        """Numbers, not letters, are compared."""
        assert _doctor_versions.older(version, least) is older

    def test_missing_and_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The OpenTelemetry SDK cannot be done without, one of the model SDKs can; too old is a problem."""
        versions = {"anthropic": "0.20", "opentelemetry-api": "1.45.2"}
        monkeypatch.setattr(_doctor_versions, "installed", lambda name: versions.get(name, ""))
        found = {finding.subject: finding for finding in _doctor_versions.section().findings}
        assert found["opentelemetry-api"].level is Level.OK
        assert found["opentelemetry-sdk"].level is Level.PROBLEM
        assert found["opentelemetry-sdk"].advice == "pip install 'otel-promptcache[otlp]'"
        assert found["anthropic"].text.startswith("0.20, older than the supported ")
        assert found["openai"].level is Level.NOTE


# --- experiments --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiments() -> dict[str, dict[str, Any]]:
    """Both experiments, in this environment as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OTEL_PROMPTCACHE_MODE", raising=False)
        with ThreadPoolExecutor(2) as pool:
            tasks = {
                name: pool.submit(_doctor_child.run, name, ["anthropic", "openai"]) for name in ("patches", "calls")
            }
            return {name: task.result() for name, task in tasks.items()}


class TestExperiments:
    """What comes out of a process that imports, patches and calls."""

    def test_every_target_is_patched(self, experiments: Mapping[str, Any]) -> None:
        """In both SDKs."""
        for sdk in ("anthropic", "openai"):
            assert experiments["patches"][sdk]["error"] == ""
            assert all(there for _, there in experiments["patches"][sdk]["targets"])

    def test_every_call_is_counted_once(self, experiments: Mapping[str, Any]) -> None:
        """Streams and whole answers of three APIs, by us alone or by the SDK's own span."""
        calls = experiments["calls"]["calls"]
        assert [call["name"] for call in calls] == [scripted.name for scripted in CALLS]
        for call, scripted in zip(calls, CALLS, strict=True):
            assert call["error"] == ""
            assert _doctor_peers.total(call["spans"]) == scripted.usage.input
            assert any(span["ours"] for span in call["spans"])

    def test_our_entry_points_are_loaded(self, experiments: Mapping[str, Any]) -> None:
        """As the launcher would."""
        loaded = {name for name, _ in experiments["calls"]["loaded"]}
        assert {"promptcache-anthropic", "promptcache-openai"} <= loaded

    def test_nothing_happens_here(self, experiments: Mapping[str, Any]) -> None:
        """The doctor's own process is neither patched nor given a provider."""
        script = (
            "import sys; from otel_promptcache.cli import _doctor_child as c;"
            "print(c.run('patches', ['openai'])['openai']['error'], 'openai' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert shown == " False\n"

    def test_the_environment_starts_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the launcher nor the switch, even when doctor itself runs under them."""
        launcher = f"x/{_doctor_child.LAUNCHER_PATH}"
        monkeypatch.setenv("PYTHONPATH", f"{launcher}:mine")
        monkeypatch.setenv("OTEL_PROMPTCACHE_AUTO", "1")
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        found = _doctor_child.environment({"A": "b"})
        assert found["PYTHONPATH"] == "mine"
        assert not {"OTEL_PROMPTCACHE_AUTO", "OTEL_SDK_DISABLED"} & set(found)
        assert found["A"] == "b"

    def test_a_process_that_dies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its last words are the reason."""
        with pytest.raises(_doctor_child.ExperimentError, match="KeyError: 'no such task'"):
            _doctor_child.run("no such task", [])

    def test_a_missing_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is named, and a problem."""
        targets = [("SyncAPIClient.request", True), ("BaseClient._build_request", False)]
        result = {"openai": {"error": "", "targets": targets}, "anthropic": {"error": "ImportError: x", "targets": []}}
        monkeypatch.setattr(_doctor_child, "run", lambda *_: result)
        first, second = _doctor_child.patched().findings
        assert first == problem(
            "anthropic", "cannot be imported: ImportError: x", "python -c 'import anthropic' shows the whole error"
        )
        assert second.level is Level.PROBLEM
        assert "no BaseClient._build_request" in second.text


# --- who counts ---------------------------------------------------------------------------------------------

MESSAGES = CALLS[0]


def span(scope: str, *, ours: bool = False, **tokens: int) -> dict[str, Any]:
    return {
        "scope": scope,
        "name": "chat",
        "ours": ours,
        "tokens": {name.replace("__", "."): n for name, n in tokens.items()},
    }


def counting(scope: str, tokens: int = MESSAGES.usage.input, *, ours: bool = False) -> dict[str, Any]:
    return {"scope": scope, "name": "chat", "ours": ours, "tokens": {INPUT: tokens}}


def result(*spans: dict[str, Any], loaded: Sequence[tuple[str, str]] = (), **more: Any) -> dict[str, Any]:
    ours = [("promptcache-anthropic", "otel_promptcache.instrumentation")]
    call = {"name": MESSAGES.name, "error": "", "spans": list(spans)}
    return {"loaded": [*ours, *loaded], "failed": None, "calls": [call], "metrics": []} | more


class TestVerdict:
    """From the spans of one call to a sentence."""

    @pytest.mark.parametrize(
        ("spans", "level", "said"),
        [
            (
                [counting("otel_promptcache", ours=True)],
                "ok",
                "1 span, 33,023 input tokens counted once by otel_promptcache",
            ),
            ([counting("native", ours=True)], "ok", "counted once by native, enriched by us"),
            (
                [counting("native"), span("otel_promptcache", ours=True)],
                "ok",
                "with ours beside it on otel_promptcache",
            ),
            (
                [counting("native"), counting("peer")],
                "problem",
                "counted 2 times: native, peer. A sum over the trace finds 66,046",
            ),
            ([counting("peer"), counting("peer")], "problem", "peer (2x)"),
            (
                [counting("peer", 1009)],
                "problem",
                "peer says 1,009 input tokens where the provider says 33,023: cached",
            ),
            ([span("other", llm__token_count__prompt=33023)], "note", "only as llm.token_count.prompt of other"),
            ([span("other")], "problem", "none carries token counts"),
            ([], "problem", "0 spans, none carries token counts"),
        ],
    )
    def test_by_the_spans(self, spans: list[dict[str, Any]], level: str, said: str) -> None:
        """How often the provider's number is on them decides."""
        (finding,) = _doctor_peers._calls(result(*spans))
        assert finding.level == level
        assert said in finding.text

    def test_as_the_settings_want_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No span of ours is no problem where none is wanted."""
        monkeypatch.setenv("OTEL_PROMPTCACHE_SPANS", "never")
        (finding,) = _doctor_peers._calls(result())
        assert finding.level is Level.NOTE

    def test_a_call_that_fails(self) -> None:
        """Its error is shown."""
        failed = {"name": MESSAGES.name, "error": "ConnectError: x", "spans": []}
        (finding,) = _doctor_peers._calls(result(calls=[failed]))
        assert finding == problem(MESSAGES.name, "the call failed: ConnectError: x")

    def test_histograms(self) -> None:
        """More records than calls are named with their scopes."""
        metrics = [{"name": "gen_ai.client.operation.duration", "scope": scope, "count": 1} for scope in ("peer", "us")]
        (finding,) = _doctor_peers._metrics(result(metrics=metrics))
        assert finding.level is Level.NOTE
        assert finding.text.startswith("1 by peer, 1 by us, for 1 calls")
        assert list(_doctor_peers._metrics(result(metrics=metrics[:1]))) == []

    def test_what_is_loaded(self) -> None:
        """An instrumentor that raises keeps the launcher from loading those behind it: that is a problem."""
        found = list(_doctor_peers._loading(result(failed=("bad", "ValueError: x"))))
        assert found[-1].level is Level.PROBLEM
        assert found[-1].text.startswith("ValueError: x. It stops there")
        assert found[-1].advice == "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=bad"
        launcher = list(_doctor_peers._loading(result(failed=("", "UnknownExtra: x"))))
        assert launcher[-1].advice == "pip install -U opentelemetry-instrumentation opentelemetry-distro"
        missing = list(_doctor_peers._loading(result() | {"loaded": []}))
        assert [finding.subject for finding in missing if finding.level is Level.PROBLEM] == ["ours"]


class TestRemedies:
    """Switches that might help are tried before they are recommended."""

    PEER = ("anthropic", "opentelemetry.instrumentation.anthropic")
    TWICE = result(counting("com.anthropic.sdk.python", ours=True), counting(PEER[1]), loaded=[PEER])

    def remedies(self, monkeypatch: pytest.MonkeyPatch, *good: str) -> tuple[list[Finding], list[str]]:
        """What is recommended, and what was tried, where only these switches help."""
        tried = []

        def run(task: str, sdks: Sequence[str], changes: Mapping[str, str]) -> dict[str, Any]:
            assert (task, sdks) == ("calls", ["anthropic"])
            ((name, value),) = changes.items()
            tried.append(f"{name}={value}")
            return result(counting("one")) if tried[-1] in good else self.TWICE

        monkeypatch.setattr(_doctor_child, "run", run)
        return _doctor_peers._remedies(self.TWICE), sorted(tried)

    def test_what_helps_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And what does not is not."""
        (finding,), tried = self.remedies(monkeypatch, "ANTHROPIC_OPEN_TELEMETRY=false")
        assert tried == ["ANTHROPIC_OPEN_TELEMETRY=false", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=anthropic"]
        assert finding.text.endswith("counted once: ANTHROPIC_OPEN_TELEMETRY=false")

    def test_what_is_disabled_stays_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The switch is added to those of the environment."""
        monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "flask, redis")
        _, tried = self.remedies(monkeypatch)
        assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=flask,redis,anthropic" in tried

    def test_nothing_helps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then that is a problem of its own."""
        (finding,), _ = self.remedies(monkeypatch)
        assert finding.level is Level.PROBLEM

    def test_ours(self) -> None:
        """Where a span of ours counts as well, ours can be left out."""
        twice = result(counting("otel_promptcache", ours=True), counting("peer"))
        assert ("OTEL_PROMPTCACHE_SPANS", "never") in _doctor_peers._switches(twice, [MESSAGES.name])

    def test_nothing_is_tried_without_need(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Calls that are counted once need no switch."""
        monkeypatch.setattr(_doctor_child, "run", lambda *_: pytest.fail("tried"))
        assert _doctor_peers._remedies(result(counting("one"))) == []


PEER = """
import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

class Peer(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()

    def _instrument(self, **kwargs):
        wrapt.wrap_function_wrapper("openai.resources.chat.completions", "Completions.create", create)

    def _uninstrument(self, **kwargs):
        pass

def create(wrapped, instance, args, kwargs):
    if kwargs.get("stream"):
        return wrapped(*args, **kwargs)
    tracer, kind = trace.get_tracer("double_peer"), trace.SpanKind.CLIENT
    said = {"gen_ai.operation.name": "chat"}
    with tracer.start_as_current_span("outer", kind=kind, attributes=said) as outer:
        with tracer.start_as_current_span("inner", kind=kind, attributes=said) as inner:
            answer = wrapped(*args, **kwargs)
            for span in (outer, inner):
                span.set_attribute("gen_ai.usage.input_tokens", answer.usage.prompt_tokens)
    return answer
"""


def test_a_peer_that_counts_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real instrumentor of somebody else's, installed as one: found, named, and the switch that helps is tried."""
    (tmp_path / "double_peer.py").write_text(PEER)
    information = tmp_path / "double_peer-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: double-peer\nVersion: 1.0\n")
    points = "[opentelemetry_instrumentor]\n" + "".join(
        f"{name} = double_peer:Peer\n" for name in ("double", "promptcache-x")
    )
    (information / "entry_points.txt").write_text(points.replace("promptcache-x = double_peer:Peer\n", ""))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(_doctor_child, "present", lambda: ["openai"])
    found = {finding.subject: finding for finding in _doctor_peers.section().findings}
    assert "double" in found["loaded by opentelemetry-instrument"].text
    assert found["openai chat"].level is Level.PROBLEM
    assert "double_peer (2x)" in found["openai chat"].text
    assert found["openai chat, streamed"].level is Level.OK
    assert found["what helps"].text.endswith(": OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=double")


def test_entry_points_that_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's switch would turn all of them off."""
    from importlib.metadata import EntryPoint

    points = [EntryPoint("anthropic", f"{module}:X", "opentelemetry_instrumentor") for module in ("one", "two")]
    monkeypatch.setattr(_doctor_peers, "entry_points", lambda group: points)
    (finding,) = _doctor_peers._entry_points()
    assert finding.text == "2 instrumentors share it: one, two"
    assert finding.advice == "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=anthropic disables all"


# --- where OTLP goes ----------------------------------------------------------------------------------------


@contextmanager
def served(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers by path, its address, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.append({"path": self.path, "body": body, "headers": headers})
            status, content = answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()


def nobody() -> str:
    """An address at which nothing listens."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def target(signal: str, protocol: str, url: str, **more: Any) -> Target:
    return Target(signal, protocol, url, more.get("secure", False), more.get("headers", {}), ("", "", ""))


@pytest.fixture(scope="module")
def collector() -> Iterator[str]:
    """A gRPC server that takes traces only, and only with the key."""

    class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            if "TraceService" not in details.method:
                return None

            def export(request: bytes, context: Any) -> bytes:
                assert request == b""
                if ("x-key", SECRET) not in context.invocation_metadata():
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Service()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None)


class TestResolving:
    """``OTEL_*`` to an endpoint."""

    @pytest.mark.parametrize(
        ("environment", "protocol", "url", "secure"),
        [
            ({}, GRPC, "http://localhost:4317", False),
            ({"PROTOCOL": "http/protobuf"}, HTTP, "http://localhost:4318/v1/traces", False),
            ({"PROTOCOL": "http/protobuf", "ENDPOINT": "https://c/base/"}, HTTP, "https://c/base/v1/traces", True),
            ({"TRACES_PROTOCOL": "http/protobuf", "TRACES_ENDPOINT": "http://c/mine"}, HTTP, "http://c/mine", False),
            ({"ENDPOINT": "https://c:4317"}, GRPC, "https://c:4317", True),
            ({"ENDPOINT": "c:4317"}, GRPC, "c:4317", True),
            ({"ENDPOINT": "c:4317", "INSECURE": "true"}, GRPC, "c:4317", False),
            ({"ENDPOINT": "http://a", "TRACES_ENDPOINT": "http://b"}, GRPC, "http://b", False),
        ],
    )
    def test_endpoint(self, environment: dict[str, str], protocol: str, url: str, *, secure: bool) -> None:
        """General settings, those of the signal, and the defaults of the launcher."""
        known = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environment.items()}
        (found,) = _doctor_otlp.resolve("traces", known)
        assert isinstance(found, Target)
        assert (found.protocol, found.url, found.secure) == (protocol, url, secure)

    @pytest.mark.parametrize(
        ("exporter", "level", "said"),
        [
            ("none", "note", "not exported: OTEL_METRICS_EXPORTER=none"),
            ("console", "ok", "printed"),
            ("in_house", "note", "exporter in_house: not OTLP"),
            ("nobodys", "problem", "exporter nobodys: no such exporter is installed"),
        ],
    )
    def test_other_exporters(self, exporter: str, level: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Are said to be what they are."""
        monkeypatch.setattr(_doctor_otlp, "entry_points", lambda name, group: name == "in_house")
        (found,) = _doctor_otlp.resolve("metrics", {"OTEL_METRICS_EXPORTER": exporter})
        assert isinstance(found, Finding)
        assert found.level == level
        assert said in found.text

    def test_an_exporter_names_its_protocol(self) -> None:
        """And several can be named."""
        found = list(_doctor_otlp.resolve("logs", {"OTEL_LOGS_EXPORTER": "otlp_proto_http, console"}))
        assert isinstance(found[0], Target)
        assert found[0].protocol == HTTP
        assert len(found) == 2

    def test_an_impossible_protocol(self) -> None:
        """Is a problem, before anything is sent."""
        (found,) = _doctor_otlp.resolve("traces", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
        assert isinstance(found, Finding)
        assert found.level is Level.PROBLEM

    def test_an_exporter_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The package is named."""
        monkeypatch.setattr(_doctor_otlp, "installed", lambda _: "")
        (found,) = _doctor_otlp.resolve("traces", {})
        assert isinstance(found, Finding)
        assert found.advice == "pip install opentelemetry-exporter-otlp-proto-grpc"


class TestSending:
    """One empty export request, and what becomes of it."""

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (200, Outcome.ANSWERS),
            (404, Outcome.NO_SUCH_SIGNAL),
            (401, Outcome.DENIED),
            (415, Outcome.WRONG_PROTOCOL),
            (302, Outcome.FAILS),
            (500, Outcome.FAILS),
        ],
    )
    def test_http(self, status: int, outcome: Outcome) -> None:
        """The status decides; zero bytes of protobuf are sent, with the headers of the environment."""
        with served(lambda _: (status, b"")) as (url, received):
            sent = target("traces", HTTP, f"{url}/v1/traces", headers={"x-key": SECRET})
            assert _doctor_export.send(sent, PATIENCE).outcome is outcome
        (request,) = received
        assert request["body"] == b""
        assert request["headers"]["x-key"] == SECRET
        assert request["headers"]["content-type"] == "application/x-protobuf"

    @pytest.mark.parametrize(
        ("signal", "key", "outcome"),
        [
            ("traces", SECRET, Outcome.ANSWERS),
            ("traces", "wrong", Outcome.DENIED),
            ("metrics", SECRET, Outcome.NO_SUCH_SIGNAL),
            ("logs", SECRET, Outcome.NO_SUCH_SIGNAL),
        ],
    )
    def test_grpc(self, collector: str, signal: str, key: str, outcome: Outcome) -> None:
        """A real unary call."""
        assert _doctor_export.send(target(signal, GRPC, collector, headers={"X-Key": key}), PATIENCE).outcome is outcome

    def test_each_to_the_other(self, collector: str) -> None:
        """gRPC to a server of HTTP/1, and HTTP/1 to a server of gRPC."""
        with served(lambda _: (200, b"")) as (url, _):
            assert _doctor_export.send(target("traces", GRPC, url), PATIENCE).outcome is Outcome.WRONG_PROTOCOL
        sent = target("traces", HTTP, f"{collector}/v1/traces")
        assert _doctor_export.send(sent, PATIENCE).outcome is Outcome.WRONG_PROTOCOL

    def test_tls_to_a_server_without(self) -> None:
        """Either way."""
        with served(lambda _: (200, b"")) as (url, _):
            secure = url.replace("http:", "https:")
            for protocol in (GRPC, HTTP):
                sent = target("traces", protocol, secure, secure=True)
                assert _doctor_export.send(sent, PATIENCE).outcome is Outcome.UNTRUSTED
                assert ask(sent, Probe(PATIENCE, b"")).outcome is Outcome.WITHOUT_TLS

    @pytest.mark.parametrize("protocol", [GRPC, HTTP])
    def test_nothing_listens(self, protocol: str) -> None:
        """The port refuses."""
        assert _doctor_export.send(target("traces", protocol, nobody()), PATIENCE).outcome is Outcome.REFUSES

    @pytest.mark.parametrize("protocol", [GRPC, HTTP])
    def test_silence(self, protocol: str) -> None:
        """A server that accepts and says nothing is given up in time."""
        import socket

        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            sent = target("traces", protocol, f"http://127.0.0.1:{mute.getsockname()[1]}")
            assert _doctor_export.send(sent, 0.3).outcome is Outcome.NO_ROUTE

    @pytest.mark.parametrize(
        ("code", "details", "outcome"),
        [
            ("UNAVAILABLE", "errors resolving nowhere: Domain name not found", Outcome.NO_ROUTE),
            ("UNAVAILABLE", "the collector is full", Outcome.BUSY),
            ("RESOURCE_EXHAUSTED", "", Outcome.THROTTLES),
            ("RESOURCE_EXHAUSTED", "received message larger than max (5 vs. 4)", Outcome.TOO_LARGE),
            ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", Outcome.UNTRUSTED),
            ("INTERNAL", "", Outcome.FAILS),
            ("DEADLINE_EXCEEDED", "", Outcome.NO_ROUTE),
        ],
    )
    def test_status_of_grpc(self, code: str, details: str, outcome: Outcome) -> None:
        """Words tell apart what one code says."""
        assert _doctor_export._status(code, details).outcome is outcome

    def test_unsuitable(self, tmp_path: Path) -> None:
        """What cannot be sent at all is no traceback."""
        assert _doctor_export.send(target("traces", HTTP, "c:4318/v1/traces"), 1).outcome is Outcome.UNSUITABLE
        sent = Target("traces", GRPC, "https://c", True, {}, (str(tmp_path / "missing"), "", ""))
        assert _doctor_export.send(sent, 1).outcome is Outcome.UNSUITABLE


class TestWhereItGoes:
    """The section as a whole."""

    def section(self, environment: Mapping[str, str], *, ledger: bool = False) -> list[Finding]:
        return list(_doctor_otlp.section(Settings(ledger=ledger), PATIENCE, environment, records=False).findings)

    WAITING = ok(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "2,048 spans wait while nobody takes them; then the oldest are dropped "
        "(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true counts them)",
    )

    def test_all_answer(self) -> None:
        """Signals that go the same way share a line, which shows neither user nor password nor query."""
        with served(lambda _: (200, b"")) as (url, received):
            endpoint = url.replace("http://", f"http://user:{SECRET}@")
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP}
            assert self.section(environment) == [
                ok("traces, metrics, logs", f"http/protobuf to {url}: answers (HTTP 200)"),
                self.WAITING,
            ]
        assert {request["headers"]["authorization"] for request in received} == {"Basic dXNlcjphYnJhY2FkYWJyYQ=="}
        assert sorted(request["path"] for request in received) == ["/v1/logs", "/v1/metrics", "/v1/traces"]

    def test_a_backend_for_traces(self) -> None:
        """Metrics that are not taken are a problem; logs only when something of ours needs them."""
        with served(lambda path: (200 if "traces" in path else 404, b"")) as (url, _):
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP}
            assert levels(self.section(environment)) == ["ok", "problem", "note", "ok"]
            with_ledger = self.section(environment, ledger=True)
        assert [(finding.subject, finding.level) for finding in with_ledger] == [
            ("traces", Level.OK),
            ("metrics, logs", Level.PROBLEM),
            ("OTEL_BSP_MAX_QUEUE_SIZE", Level.OK),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", Level.OK),
        ]
        assert "OTEL_METRICS_EXPORTER=none" in with_ledger[1].advice

    @pytest.mark.parametrize(
        ("environment", "level", "said"),
        [
            ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, Level.PROBLEM, "512 is more than OTEL_BSP_MAX_QUEUE_SIZE holds (100)"),
            ({"OTEL_BSP_MAX_QUEUE_SIZE": "600"}, Level.NOTE, "600 spans wait while nobody takes them"),
            ({"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}, Level.OK, "are dropped, and counted"),
        ],
    )
    def test_the_queue_in_the_process(self, environment: dict[str, str], level: Level, said: str) -> None:
        """What the SDK gives up on, and what is small."""
        with served(lambda _: (200, b"")) as (url, _):
            there = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP}
            found = self.section({**there, **environment})[-1]
        assert (found.level, said in found.text) == (level, True)

    def test_headers_are_never_shown(self) -> None:
        """Neither good ones nor bad ones."""
        for headers in (f"authorization=Bearer {SECRET}", SECRET, f"a=b,{SECRET}"):
            with served(lambda _: (401, b"")) as (url, _):
                environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP}
                found = self.section(environment | {"OTEL_EXPORTER_OTLP_HEADERS": headers})
            assert SECRET not in str(found)
            assert any("OTEL_EXPORTER_OTLP_HEADERS" in finding.advice + finding.subject for finding in found)

    def test_everything_is_off(self) -> None:
        """The ledger without logs, and the SDK turned off, are problems."""
        off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
        assert levels(self.section(off)) == ["note", "note", "note"]
        assert levels(self.section(off, ledger=True)) == ["note", "note", "problem"]
        assert levels(self.section({"OTEL_SDK_DISABLED": "true", **off}))[0] == "problem"


# --- settings, labels, start --------------------------------------------------------------------------------


class TestWorkers:
    """Under which names processes count."""

    @pytest.mark.parametrize(
        ("attributes", "level", "said"),
        [("", Level.OK, "another one in each"), ("service.instance.id=pod-7", Level.NOTE, "pod-7, in every process")],
        ids=["the SDK's", "chosen"],
    )
    def test_by_the_environment(self, attributes: str, level: Level, said: str, monkeypatch: Any) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
        (finding,) = _doctor_workers.section().findings
        assert (finding.subject, finding.level) == ("service.instance.id", level)
        assert finding.text.startswith(said)

    def test_without_any(self) -> None:
        """As with SDKs that name no process."""
        assert levels(list(_doctor_workers.findings(["", ""]))) == ["problem"]


class TestSettings:
    """What is set, what cannot be used."""

    def section(self) -> dict[str, Finding]:
        return {f.subject: f for f in _doctor_settings.settings_section(_doctor_settings.current()).findings}

    def test_the_key_is_never_shown(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Neither from the environment nor from the file; fingerprints compare, and the key has an id."""
        monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", SECRET)
        found = self.section()
        assert found["OTEL_PROMPTCACHE_HASH_KEY"] == ok("OTEL_PROMPTCACHE_HASH_KEY", "set, not shown")
        assert found["fingerprints"].level is Level.OK
        file = tmp_path / "promptcache.toml"
        file.write_text(f'hash_key = "{SECRET}"\nmode = "tokens"\n')
        monkeypatch.setenv("OTEL_PROMPTCACHE_CONFIG_FILE", str(file))
        found = self.section()
        assert SECRET not in str(found)
        assert found["OTEL_PROMPTCACHE_CONFIG_FILE: mode"].text == "tokens"

    def test_without_a_key(self) -> None:
        """Processes cannot be compared: worth a note."""
        assert self.section()["fingerprints"].level is Level.NOTE

    def test_what_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sentence of the setting, not the value: it might be a secret in the wrong place."""
        monkeypatch.setenv("OTEL_PROMPTCACHE_MODE", SECRET)
        found = self.section()
        assert found["OTEL_PROMPTCACHE_MODE"] == problem(
            "OTEL_PROMPTCACHE_MODE", "takes one of off, tokens, diagnose; using diagnose"
        )

    def test_a_slip_of_the_pen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The nearest setting is suggested."""
        monkeypatch.setenv("OTEL_PROMPTCACHE_LEGER", "true")
        found = self.section()["OTEL_PROMPTCACHE_LEGER"]
        assert found.level is Level.PROBLEM
        assert found.advice == "OTEL_PROMPTCACHE_LEDGER?"

    @pytest.mark.parametrize("content", [None, "mode = ", "\xff"])
    def test_an_unreadable_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None) -> None:
        """Missing, no TOML, no text."""
        file = tmp_path / "promptcache.toml"
        if content is not None:
            file.write_bytes(content.encode("latin-1"))
        monkeypatch.setenv("OTEL_PROMPTCACHE_CONFIG_FILE", str(file))
        assert self.section()["OTEL_PROMPTCACHE_CONFIG_FILE"].level is Level.PROBLEM


class TestNewerSettings:
    """One line about each, whatever it is set to."""

    def said(self, subject: str) -> tuple[Level, str]:
        found = {f.subject: f for f in _doctor_settings.settings_section(_doctor_settings.current()).findings}
        return found[subject].level, found[subject].text

    def test_by_default(self) -> None:
        """Nobody is asked, changes and advice are told; nothing of it is a worry."""
        assert self.said("native diagnostics") == (Level.OK, "off: requests leave as the application made them")
        assert self.said("change journal")[0] is Level.OK
        assert self.said("advice")[0] is Level.OK

    def test_who_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_PROMPTCACHE_NATIVE_HOSTS", "gateway.example")
        level, text = self.said("native diagnostics")
        assert level is Level.NOTE
        assert "gateway.example" in text
        monkeypatch.setenv("OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS", "0.25")
        level, text = self.said("native diagnostics")
        assert level is Level.OK
        assert text.startswith(
            "asked about 0.25 of all conversations at api.anthropic.com, api.openai.com, loopback, gateway.example; "
        )

    def test_a_journal_that_no_other_process_can_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OTEL_PROMPTCACHE_JOURNAL_FILE", str(tmp_path / "journal.json"))
        assert self.said("change journal")[0] is Level.PROBLEM
        monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", SECRET)
        assert self.said("change journal") == (Level.OK, f"on; {tmp_path / 'journal.json'} is not there yet")

    @pytest.mark.parametrize(
        ("content", "level", "words"),
        [
            ('{"format": 1, "key": "KEY", "strands": []}', Level.OK, "goes on under key"),
            ('{"format": 1, "key": "0badc0de", "strands": []}', Level.PROBLEM, "key_mismatch"),
            ("[]", Level.PROBLEM, "cannot be read (ValueError)"),
            ("{", Level.PROBLEM, "cannot be read (JSONDecodeError)"),
        ],
    )
    def test_the_journal_s_file(
        self, content: str, level: Level, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "journal.json"
        file.write_text(content.replace("KEY", HashKey(SECRET).id))
        monkeypatch.setenv("OTEL_PROMPTCACHE_JOURNAL_FILE", str(file))
        monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", SECRET)
        found = self.said("change journal")
        assert found[0] is level
        assert words in found[1]

    def test_a_folder_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Files are replaced as a whole: whoever cannot write to the folder writes nothing."""
        monkeypatch.setenv("OTEL_PROMPTCACHE_JOURNAL_FILE", str(tmp_path / "nowhere" / "journal.json"))
        monkeypatch.setenv("OTEL_PROMPTCACHE_HASH_KEY", SECRET)
        assert self.said("change journal") == (Level.PROBLEM, f"{tmp_path / 'nowhere'} cannot be written to")

    def test_what_is_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_PROMPTCACHE_JOURNAL", "false")
        monkeypatch.setenv("OTEL_PROMPTCACHE_ADVICE", "false")
        assert self.said("change journal")[0] is Level.NOTE
        assert self.said("advice")[0] is Level.NOTE

    def test_advice_without_prices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_PROMPTCACHE_PRICES", "false")
        assert self.said("advice")[0] is Level.NOTE


class TestCardinality:
    """Labels, and how many values they have."""

    def test_labels_and_limit(self) -> None:
        """The keys of the setting are among them; one that has no bound is worth a note."""
        found = _doctor_settings.cardinality(Settings(metric_keys=("team", "user_id")))
        assert "promptcache.attr.team, promptcache.attr.user_id: at most 100 values each" in found[0].text
        assert [finding.subject for finding in found if finding.level is Level.NOTE] == ["promptcache.attr.user_id"]

    def test_every_metric_is_named_once(self) -> None:
        """The older histogram only when it is on."""
        from otel_promptcache import semconv

        def named(settings: Settings) -> list[str]:
            findings = _doctor_settings.cardinality(settings)
            return sorted(name for f in findings[1:] if f.level is Level.OK for name in f.text.split(", "))

        names = sorted(metric.name for metric in semconv.METRICS)
        assert named(Settings(token_usage_metric=True)) == names
        assert named(Settings()) == [name for name in names if name != "gen_ai.client.token.usage"]


class TestPrometheus:
    """Label values, counted by a Prometheus."""

    LABELS = ("gen_ai.request.model", "promptcache.route", "promptcache.attr.team")

    def answered(self, metrics: Mapping[str, int], values: Mapping[str, tuple[int, int]]) -> list[Finding]:
        """Findings, where Prometheus has these metrics and (values, overflowing series) of labels."""
        from urllib.parse import unquote

        def answer(path: str) -> tuple[int, bytes]:
            query = unquote(path)
            if "count by (__name__)" in query:
                rows = [{"metric": {"__name__": name}, "value": [0, str(n)]} for name, n in metrics.items()]
            elif "resets" in query:
                rows = []
            else:
                label = next((name for name in values if name in query), "")
                number = values[label]["__other__" in query] if label else 0
                rows = [{"metric": {}, "value": [0, str(number)]}] if number else []
            return 200, json.dumps({"status": "success", "data": {"result": rows}}).encode()

        with served(answer) as (url, _):
            return _doctor_prometheus.findings(url, self.LABELS, PATIENCE)

    @pytest.mark.parametrize("dot", ["_", "."])
    def test_labels_at_the_limit(self, dot: str) -> None:
        """Are named, whether Prometheus keeps the dots of names or not."""
        values = {"gen_ai.request.model": (3, 0), "promptcache.route": (101, 7), "promptcache.attr.team": (85, 0)}
        found = self.answered(
            {f"promptcache{dot}calls": 40, f"promptcache{dot}cost": 2},
            {name.replace(".", dot): counts for name, counts in values.items()},
        )
        assert [(finding.subject, finding.level) for finding in found] == [
            ("Prometheus", Level.OK),
            ("service.instance.id", Level.OK),
            ("gen_ai.request.model", Level.OK),
            ("promptcache.route", Level.PROBLEM),
            ("promptcache.attr.team", Level.NOTE),
        ]
        assert "42 series of ours" in found[0].text

    @pytest.mark.server
    def test_a_real_one(self, tmp_path: Path) -> None:
        """Its answers are understood as they are."""
        routes = [*(f"/route/{number}" for number in range(100)), "__other__"]
        page = "# TYPE promptcache_calls_total counter\n" + "".join(
            f'promptcache_calls_total{{promptcache_route="{route}",gen_ai_request_model="m{index % 3}"}} 1\n'
            for index, route in enumerate(routes)
        )
        turns = itertools.cycle((9, 7))
        shared = 'promptcache_calls_total{exported_instance="pod-7",exported_job="shop"}'

        def scraped(_: Any) -> tuple[int, bytes]:
            return 200, f"{page}{shared} {next(turns)}\n".encode()

        with served(scraped) as (url, _):
            config = prometheus_config([url.removeprefix("http://")], "100ms")
            with prometheus(config, tmp_path) as server:

                def said() -> list[tuple[str, Level, str]]:
                    found = _doctor_prometheus.findings(server.url, self.LABELS, PATIENCE)
                    return [(one.subject, one.level, re.sub(r" fell \d+ ", " fell N ", one.text)) for one in found[1:]]

                fell = "pod-7: a counter fell N times in an hour, for several processes have it"
                wanted = [
                    ("service.instance.id", Level.PROBLEM, fell),
                    ("gen_ai.request.model", Level.OK, "3 values"),
                    ("promptcache.route", Level.PROBLEM, "at its limit: 1 series hold everything else as __other__"),
                    ("promptcache.attr.team", Level.OK, "0 values"),
                ]
                until_is(said, wanted)  # a scrape that comes late leaves a gap between two of its questions

    def test_nothing_of_ours(self) -> None:
        """Perhaps another one is meant."""
        assert levels(self.answered({}, {})) == ["note"]

    @pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]"])
    def test_no_prometheus(self, content: bytes) -> None:
        """Whatever else it may be."""
        with served(lambda _: (200, content)) as (url, _):
            assert levels(_doctor_prometheus.findings(url, self.LABELS, PATIENCE)) == ["problem"]
        assert levels(_doctor_prometheus.findings(nobody(), self.LABELS, PATIENCE)) == ["problem"]
        assert levels(_doctor_prometheus.findings("file:///etc", self.LABELS, PATIENCE)) == ["problem"]


class TestStart:
    """Whether anything starts us."""

    def section(self, *, auto_is_set: bool = False) -> dict[str, Finding]:
        return {f.subject: f for f in _doctor_settings.start_section(Settings(auto=auto_is_set)).findings}

    @pytest.fixture(autouse=True)
    def _nothing_enabled(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(auto, "pth_path", lambda: str(tmp_path / auto.FILE))
        monkeypatch.delenv("PYTHONPATH", raising=False)

    def test_the_switch_alone(self) -> None:
        """Is looked at by nobody."""
        assert self.section()["OTEL_PROMPTCACHE_AUTO"].level is Level.OK
        assert self.section(auto_is_set=True)["OTEL_PROMPTCACHE_AUTO"].level is Level.PROBLEM

    def test_the_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes it work."""
        monkeypatch.setenv("PYTHONPATH", auto.directory())
        found = self.section(auto_is_set=True)
        assert found["OTEL_PROMPTCACHE_AUTO"].level is Level.OK
        assert found["PYTHONPATH"].level is Level.OK

    def test_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As ``auto enable`` writes it, or something else under its name."""
        assert main(["auto", "enable"]) == 0
        assert self.section(auto_is_set=True)["OTEL_PROMPTCACHE_AUTO"].level is Level.OK
        Path(auto.pth_path()).write_text("import nothing\n")
        assert self.section()[auto.FILE].level is Level.PROBLEM

    def test_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the launcher's own switch."""
        monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "promptcache-openai")
        finding = self.section()["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]
        assert finding.text == "opentelemetry-instrument leaves promptcache-openai out"


# --- the command --------------------------------------------------------------------------------------------


class TestCommand:
    """``otel-promptcache doctor``."""

    @pytest.fixture
    def _canned(self, monkeypatch: pytest.MonkeyPatch, experiments: Mapping[str, Any]) -> None:
        """The experiments, made once."""
        processes = itertools.count()
        found = {**experiments, "instance": lambda: {"instance": str(next(processes))}}
        monkeypatch.setattr(_doctor_child, "run", lambda task, *_: one() if callable(one := found[task]) else one)

    @pytest.mark.usefixtures("_canned")
    def test_all_is_well(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 0, and all sections."""
        with served(lambda _: (200, b"")) as (url, _):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
            assert main(["doctor", "--format", "json", "--timeout", "60"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is True
        assert [section["title"] for section in document["sections"]] == [
            "Versions",
            "Patched",
            "Who else instruments, and are tokens counted twice",
            "Where OTLP goes, and whether it answers",
            "Settings",
            "Cardinality of metrics",
            "Several processes",
            "Automatic start",
        ]

    @pytest.mark.usefixtures("_canned")
    def test_nobody_answers(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 1, and what to do."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nobody())
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
        assert main(["doctor", "--timeout", "60"]) == 1
        shown = capsys.readouterr().out
        assert "refuses: nothing listens there" in shown
        assert "set OTEL_EXPORTER_OTLP_ENDPOINT" in shown.replace("\n", " ").replace("  ", "")
        assert SECRET not in shown

    @pytest.mark.usefixtures("_canned")
    def test_a_section_that_fails(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """The others are still told."""
        monkeypatch.setattr(_doctor_settings, "start_section", lambda _: 1 / 0)
        assert main(["doctor", "--timeout", "60"]) == 1
        shown = capsys.readouterr().out
        assert "ZeroDivisionError" in shown
        assert "Versions" in shown
