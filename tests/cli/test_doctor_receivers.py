"""``otel-promptcache doctor`` in front of receivers that refuse, throttle, hang, or want something else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from servers import HOST, until
from servers.otlp import OUT_OF_MEMORY, Manner, Receiver, full_queue, receiver, troubled_collector
from servers.tls import tls_in_front_of

from otel_promptcache.cli import _doctor_otlp
from otel_promptcache.cli._doctor_export import GRPC, HTTP, Outcome
from otel_promptcache.cli._doctor_report import Finding, Level
from otel_promptcache.settings import Settings

PROTOCOLS = {"grpc": GRPC, "http": HTTP}
PATIENCE = 60.0
"""Seconds to wait for an answer that comes. Machines are busy at times."""
SILENCE = 5.0
"""Seconds to wait for one that does not come."""
ALL = "traces, metrics, logs"


def examined(
    url: str,
    protocol: str,
    *,
    records: bool = True,
    ledger: bool = True,
    patience: float = PATIENCE,
    **more: str,
) -> list[Finding]:
    """What is said of an environment that sends everything there."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": PROTOCOLS[protocol], **more}
    settings = Settings(ledger=ledger)
    return list(_doctor_otlp.section(settings, patience, environment, records=records).findings)


def told(findings: list[Finding]) -> tuple[str, str, str]:
    """The one line about where everything goes, and what to do."""
    (finding,) = (one for one in findings if one.subject == ALL)
    return finding.level.value, finding.text.partition(": ")[2], finding.advice


NAMED = {
    # What is wrong: the outcome, a word of its detail over gRPC and over HTTP, and a word of what to do.
    Manner.REFUSES: (Outcome.REFUSES, "UNAVAILABLE", "", "start a collector there"),
    Manner.THROTTLES: (Outcome.THROTTLES, "RESOURCE_EXHAUSTED: not now", "429, Retry-After 1 s", "send less"),
    Manner.BUSY: (Outcome.BUSY, "UNAVAILABLE: not now", "503, Retry-After 1 s", "a memory limit, a full queue"),
    Manner.DENIES: (Outcome.DENIED, "UNAUTHENTICATED", "401", "no header is sent: OTEL_EXPORTER_OTLP_HEADERS="),
    Manner.FORBIDS: (Outcome.DENIED, "PERMISSION_DENIED", "403", "no header is sent: OTEL_EXPORTER_OTLP_HEADERS="),
    Manner.REJECTS: (Outcome.REJECTS, "quota exceeded", "quota exceeded", "exporters say nothing of it"),
    Manner.HANGS: (Outcome.HANGS, "", "", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    Manner.CLOSES: (Outcome.BREAKS_OFF, "UNAVAILABLE", "ConnectionResetError", "proxies before it"),
    Manner.BREAKS_OFF: (Outcome.BREAKS_OFF, "", "HTTP 200", "proxies before it"),
    Manner.BABBLES: (Outcome.WRONG_PROTOCOL, "UNAVAILABLE", "BadStatusLine", "usually on port 4317"),
    Manner.WEB_PAGE: (Outcome.WRONG_PROTOCOL, "is no OTLP", "is no OTLP", "usually on port 4317"),
}


CASES = [
    (manner, protocol)
    for manner in NAMED
    for protocol in PROTOCOLS
    if (manner, protocol) != (Manner.BREAKS_OFF, "grpc")  # which of its ends gRPC tells of is a matter of chance
]


@pytest.mark.parametrize(("manner", "protocol"), CASES)
def test_what_is_wrong_is_named_in_one_line(manner: Manner, protocol: str) -> None:
    """With what to do about it, for all signals at once."""
    outcome, over_grpc, over_http, advice = NAMED[manner]
    patience = SILENCE if manner is Manner.HANGS else PATIENCE
    with receiver(manner, protocol) as there:
        level, text, said = told(examined(there.url, protocol, patience=patience))
    assert level == "problem"
    assert text.startswith(outcome.value)
    assert (over_grpc if protocol == "grpc" else over_http) in text
    assert advice in said


def test_an_error_that_breaks_off() -> None:
    """The status is told, without the words that did not come."""
    with socket.create_server((HOST, 0)) as listening:

        def answer() -> None:
            for _ in range(3):
                client, _ = listening.accept()
                with client:
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n\x12\x05")

        threading.Thread(target=answer, daemon=True).start()
        _, text, _ = told(examined(f"http://{HOST}:{listening.getsockname()[1]}", "http"))
    assert text == f"{Outcome.BUSY.value} (HTTP 503)"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_full_batch_that_is_too_large(protocol: str) -> None:
    """Of spans and of ledger events; the requests that show it have nothing in them that could be kept."""
    with receiver(Manner.SMALL, protocol) as there:
        found = {finding.subject: finding for finding in examined(there.url, protocol)}
        assert found["metrics"].level is Level.OK
        assert Outcome.TOO_LARGE.value in found["traces, logs"].text
        assert "512 records can have 1.0 MiB" in found["traces, logs"].text
        assert "MAX_EXPORT_BATCH_SIZE" in found["traces, logs"].advice


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_is_well(protocol: str, compression: str) -> None:
    """An empty request, a record, and one of the size of a batch; the records can be found by their trace."""
    with receiver(Manner.TAKES, protocol) as there:
        found = examined(there.url, protocol, OTEL_EXPORTER_OTLP_COMPRESSION=compression)
        sizes = sorted(len(body) for signal, body in there.requests if signal == "traces")
    assert told(found)[:2] == ("ok", "answers (HTTP 200)" if protocol == "http" else "answers")
    (sent,) = (finding.text for finding in found if finding.subject == "sent")
    assert sent.startswith("promptcache.doctor, one record each of traces, metrics, logs; trace ")
    assert len(sizes) == 3
    assert (sizes[2] > 1_000_000) == (not compression or protocol == "grpc")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_left_behind_where_that_is_wanted(protocol: str) -> None:
    """``--empty``; nor are logs sent where nothing of ours is one."""
    with receiver(Manner.TAKES, protocol) as there:
        examined(there.url, protocol, records=False)
        assert {body for _, body in there.requests} == {b""}
        assert len(there.requests) == 3
        examined(there.url, protocol, ledger=False)
        assert {signal for signal, body in there.requests if body} == {"traces", "metrics"}


# --- The real Collector -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with troubled_collector(tmp_path_factory.mktemp("collector")) as there:
        yield there


OTHER = {"grpc": "http", "http": "grpc"}


@pytest.mark.server
class TestCollector:
    """As it is built, with settings of its own."""

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_it_takes_what_doctor_sends(self, well: dict[str, str], protocol: str) -> None:
        assert told(examined(well[protocol], protocol))[0] == "ok"

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_the_other_protocol_s_port(self, well: dict[str, str], protocol: str) -> None:
        """gRPC on the port of HTTP, and HTTP on that of gRPC."""
        level, text, advice = told(examined(well[OTHER[protocol]], protocol))
        assert (level, text) == ("problem", f"{Outcome.WRONG_PROTOCOL.value} ({PROTOCOLS[OTHER[protocol]]})")
        assert f"OTEL_EXPORTER_OTLP_PROTOCOL={PROTOCOLS[OTHER[protocol]]}" in advice

    @pytest.mark.parametrize("path", ["", "/v1/traces/v1/traces", "/api/otlp"])
    def test_another_path(self, well: dict[str, str], path: str) -> None:
        """Without the signal's own, with it twice, with another."""
        found = examined(well["http"], "http", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=well["http"] + path)
        (line,) = (finding for finding in found if finding.subject == "traces")
        assert line.text.endswith(f"{Outcome.WRONG_PATH.value} (HTTP 404 at {path or '/'})")
        assert "it takes them at /v1/traces" in line.advice

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_tls_on_one_side_only(self, well: dict[str, str], protocol: str) -> None:
        """And on both, with a certificate that nobody here trusts."""
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(context)
        level, text, advice = told(examined(well[protocol].replace("http:", "https:"), protocol))
        assert (level, text) == ("problem", Outcome.WITHOUT_TLS.value)
        assert "http:// in OTEL_EXPORTER_OTLP_ENDPOINT" in advice
        with tls_in_front_of(int(well[protocol].rpartition(":")[2]), context) as port:
            level, text, advice = told(examined(f"http://{HOST}:{port}", protocol))
            assert (level, text) == ("problem", Outcome.TLS_ONLY.value)
            assert "https:// in OTEL_EXPORTER_OTLP_ENDPOINT" in advice
            level, text, advice = told(examined(f"https://{HOST}:{port}", protocol))
            assert text.startswith(Outcome.UNTRUSTED.value)
            assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in advice

    def test_a_limit_of_memory_that_is_reached(self, tmp_path: Path) -> None:
        """It takes empty requests all the same."""
        with troubled_collector(tmp_path, processors=OUT_OF_MEMORY) as there:
            for protocol, url in there.items():
                # It looks at its memory now and then: for a moment it takes one signal and refuses another.
                until(lambda p=protocol, u=url: (Level.PROBLEM, ALL) in {found[:2] for found in examined(u, p)})
                assert told(examined(url, protocol, records=False))[0] == "ok"
                level, text, _ = told(examined(url, protocol))
                assert level == "problem"
                assert text.startswith(Outcome.BUSY.value)
                assert "data refused due to high memory usage" in text

    def test_a_queue_that_is_full(self, tmp_path: Path) -> None:
        """Because what is behind it hangs."""
        with ExitStack() as running:
            behind: Receiver = running.enter_context(receiver(Manner.HANGS, "grpc"))
            there = running.enter_context(troubled_collector(tmp_path, exporters=full_queue(behind)))
            for protocol, url in there.items():
                # One is on its way, one waits, the next is too many, of each signal.
                until(lambda p=protocol, u=url: (Level.PROBLEM, ALL) in {found[:2] for found in examined(u, p)})
                level, text, _ = told(examined(url, protocol))
                assert level == "problem"
                assert text.startswith(Outcome.BUSY.value)
                assert "sending queue is full" in text

    def test_small_requests_only(self, tmp_path: Path) -> None:
        small = {"grpc_settings": {"max_recv_msg_size_mib": 1}, "http_settings": {"max_request_body_size": 100_000}}
        with troubled_collector(tmp_path, **small) as there:
            for protocol, url in there.items():
                found = {finding.subject: finding for finding in examined(url, protocol)}
                assert Outcome.TOO_LARGE.value in found["traces, logs"].text
