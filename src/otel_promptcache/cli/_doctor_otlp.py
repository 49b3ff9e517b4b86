"""Where OTLP goes by ``OTEL_*``, and whether anybody answers there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from otel_promptcache import semconv
from otel_promptcache.cli._doctor_export import GRPC, HTTP, Answer, Outcome, Target
from otel_promptcache.cli._doctor_probe import BATCH, Probe, ask
from otel_promptcache.cli._doctor_report import Finding, Level, Section, note, ok, problem
from otel_promptcache.cli._doctor_versions import installed
from otel_promptcache.settings import PREFIX, Settings

SIGNALS: Final = ("traces", "metrics", "logs")
_TITLE: Final = "Where OTLP goes, and whether it answers"
_PACKAGES: Final = {
    HTTP: "opentelemetry-exporter-otlp-proto-http",
    GRPC: "opentelemetry-exporter-otlp-proto-grpc",
}
_DEFAULTS: Final = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}
_NAMED: Final = {"otlp_proto_http": HTTP, "otlp_proto_grpc": GRPC}
_ADVICE: Final = {
    # {S} is the signal in capitals.
    Outcome.REJECTS: "its own limits, or fields that it does not take: look at its log; exporters say nothing of it",
    Outcome.THROTTLES: "raise its limit, or send less: a sampler for traces, a longer OTEL_METRIC_EXPORT_INTERVAL, a "
    "Collector that batches; what has waited for OTEL_EXPORTER_OTLP_TIMEOUT is dropped",
    Outcome.BUSY: "look at its log: a memory limit, a full queue, or nobody behind it; what has waited for "
    "OTEL_EXPORTER_OTLP_TIMEOUT is dropped",
    Outcome.TOO_LARGE: "OTEL_BSP_MAX_EXPORT_BATCH_SIZE and OTEL_BLRP_MAX_EXPORT_BATCH_SIZE of 100 or less, or a larger "
    "limit there (max_recv_msg_size_mib, max_request_body_size, client_max_body_size)",
    Outcome.WRONG_PATH: "it takes them at /v1/{s}: that belongs to OTEL_EXPORTER_OTLP_{S}_ENDPOINT, and not to "
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    Outcome.NO_SUCH_SIGNAL: "OTEL_EXPORTER_OTLP_{S}_ENDPOINT names another place for them (over HTTP with its whole "
    "path, /v1/{s}), OTEL_{S}_EXPORTER=none stops sending them",
    Outcome.DENIED: "look at OTEL_EXPORTER_OTLP_HEADERS",
    Outcome.FAILS: "look at the log of what listens there",
    Outcome.WRONG_PROTOCOL: "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, usually on port 4317, or http/protobuf, on 4318",
    Outcome.TLS_ONLY: "https:// in OTEL_EXPORTER_OTLP_ENDPOINT",
    Outcome.WITHOUT_TLS: "http:// in OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_INSECURE=true",
    Outcome.UNTRUSTED: "OTEL_EXPORTER_OTLP_CERTIFICATE names the authority's file",
    Outcome.HANGS: "calls do not wait for it, the end of the process does: find out what it waits for, or set "
    "OTEL_EXPORTER_OTLP_TIMEOUT to less",
    Outcome.BREAKS_OFF: "look at the log of what listens there, and at proxies before it",
    Outcome.REFUSES: "start a collector there (deploy/compose has one), or set OTEL_EXPORTER_OTLP_ENDPOINT; "
    "OTEL_{S}_EXPORTER=console prints them instead",
    Outcome.NO_ROUTE: "look at OTEL_EXPORTER_OTLP_ENDPOINT, and at what lies between: name service, proxy, firewall",
    Outcome.UNSUITABLE: "look at OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_CERTIFICATE",
}
_QUEUES: Final = {"traces": ("OTEL_BSP", "spans"), "logs": ("OTEL_BLRP", "log records")}
_QUEUE: Final = 2048
_COUNTED: Final = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"


class _Asked(NamedTuple):
    """A target and its answer."""

    target: Target
    answer: Answer
    sent: bool
    """Whether a record was."""


def section(
    settings: Settings, timeout: float, environment: Mapping[str, str] | None = None, *, records: bool = True
) -> Section:
    """Each signal's way out, and what is said to requests that are sent along it: ``records`` also with something in
    them, where something of ours goes that way."""
    known = os.environ if environment is None else environment
    general = list(_general(known))
    resolved = [found for signal in SIGNALS for found in resolve(signal, known)]
    targets = [found for found in resolved if isinstance(found, Target)]
    needed = SIGNALS if settings.ledger or settings.prompt_map else SIGNALS[:2]
    trace_id = secrets.token_bytes(16)

    def asked(target: Target) -> _Asked:
        sent = records and target.signal in needed
        return _Asked(target, ask(target, Probe(timeout, trace_id if sent else b"")), sent)

    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        answers = list(pool.map(asked, targets))
    said = [_weighed(found, needed) for found in resolved if isinstance(found, Finding)]
    batched = [target.signal for target in targets if target.signal in needed and target.signal in _QUEUES]
    queues = [finding for signal in batched for finding in _queue(signal, known)]
    return Section(_TITLE, [*general, *said, *_answers(answers, needed), *_sent(answers, trace_id), *queues])


def _general(known: Mapping[str, str]) -> Iterator[Finding]:
    if known.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield problem("OTEL_SDK_DISABLED", "true: nothing is recorded or exported", "unset it")
    if known.get("OTEL_CONFIG_FILE"):
        yield note("OTEL_CONFIG_FILE", "is set: exporters come from that file, and what is said here may not hold")
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS" for signal in SIGNALS)):
        value = known.get(name, "")
        if any("=" not in part for part in value.split(",") if part.strip()):
            yield problem(name, "a part of it has no '=' and is not sent", "name=value, comma separated, URL-encoded")


def resolve(signal: str, known: Mapping[str, str]) -> Iterator[Target | Finding]:
    """The targets of one signal, and what is to be said of exporters that are no OTLP."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in known.get(variable, "otlp").split(",")]
    for name in names:
        if name in ("", "none"):
            yield note(signal, f"not exported: {variable}={name}")
        elif name == "otlp" or name in _NAMED:
            yield _target(signal, known, _NAMED.get(name))
        elif name == "console":
            yield ok(signal, "printed, by the exporter console")
        elif entry_points(group=f"opentelemetry_{signal}_exporter", name=name):
            yield note(signal, f"exporter {name}: not OTLP, not looked at")
        else:
            yield problem(signal, f"exporter {name}: no such exporter is installed", f"look at {variable}")


def _target(signal: str, known: Mapping[str, str], named: str | None) -> Target | Finding:
    def setting(name: str) -> str:
        own = known.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
        return (own or known.get(f"OTEL_EXPORTER_OTLP_{name}") or "").strip()

    protocol = named or setting("PROTOCOL") or GRPC
    if protocol not in _PACKAGES:
        return problem(
            signal, f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not supported in Python", f"{GRPC} or {HTTP}"
        )
    package = _PACKAGES[protocol]
    if not installed(package):
        return problem(signal, f"{protocol} needs {package}, which is not installed", f"pip install {package}")
    url = setting("ENDPOINT") or _DEFAULTS[protocol]
    if protocol == HTTP and not known.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"):
        url = f"{url.removesuffix('/')}/v1/{signal}"
    return Target(
        signal,
        protocol,
        url,
        _secure(protocol, url, setting("INSECURE")),
        _headers(setting("HEADERS")),
        (setting("CERTIFICATE"), setting("CLIENT_CERTIFICATE"), setting("CLIENT_KEY")),
        setting("COMPRESSION").lower(),
    )


def _secure(protocol: str, url: str, insecure: str) -> bool:
    """Whether TLS is used. Over gRPC an address without http:// is secure unless INSECURE says otherwise."""
    scheme = urlsplit(url).scheme if "://" in url else ""
    if protocol == HTTP or scheme == "https":
        return scheme == "https"
    return insecure.lower() != "true" if insecure else scheme != "http"


def _headers(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {unquote(name).strip(): unquote(value).strip() for name, _, value in pairs}


# --- telling ------------------------------------------------------------------------------------------------


def _weighed(finding: Finding, needed: tuple[str, ...]) -> Finding:
    """A way that is closed matters by whether anything of ours takes it."""
    if finding.subject in SIGNALS and finding.subject not in needed and finding.level is Level.PROBLEM:
        return finding._replace(level=Level.NOTE)
    if finding.subject == "logs" and "logs" in needed and "not exported" in finding.text:
        return problem(*finding[1:3], f"{PREFIX}LEDGER and {PREFIX}PROMPT_MAP need logs: unset it")
    return finding


def _answers(asked: list[_Asked], needed: tuple[str, ...]) -> Iterator[Finding]:
    """Signals that go the same way with the same result share a line."""
    groups: dict[tuple[str, str, Answer, Level], list[Target]] = {}
    for target, answer, _ in asked:
        level = Level.OK if answer.outcome is Outcome.ANSWERS else Level.PROBLEM
        if level is Level.PROBLEM and target.signal not in needed:
            level = Level.NOTE
        groups.setdefault((target.protocol, _place(target), answer, level), []).append(target)
    for (protocol, place, answer, level), targets in groups.items():
        signals = [target.signal for target in targets]
        what = f" {' and '.join(signals)}" if answer.outcome is Outcome.NO_SUCH_SIGNAL else ""
        detail = f" ({answer.detail})" if answer.detail else ""
        advice = _advice(answer, targets[0])
        if level is Level.NOTE:
            advice = f"nothing of ours goes there; OTEL_{signals[0].upper()}_EXPORTER=none saves the attempts"
        yield Finding(level, ", ".join(signals), f"{protocol} to {place}: {answer.outcome.value}{what}{detail}", advice)


def _advice(answer: Answer, target: Target) -> str:
    if answer.outcome is Outcome.DENIED and not target.headers:
        return "no header is sent: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20..., or what it asks for"
    if answer.outcome is Outcome.WRONG_PROTOCOL and answer.detail in _PACKAGES:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL={answer.detail}, or the port on which it takes {target.protocol}"
    return _ADVICE.get(answer.outcome, "").format(S=target.signal.upper(), s=target.signal)


def _sent(asked: list[_Asked], trace_id: bytes) -> Iterator[Finding]:
    """What is behind the endpoints has got something, which can be looked for."""
    signals = [target.signal for target, answer, sent in asked if sent and answer.outcome is Outcome.ANSWERS]
    if signals:
        text = (
            f"{semconv.DOCTOR}, one record each of {', '.join(signals)}; trace {trace_id.hex()}: it should be there now"
        )
        yield ok("sent", text)


def _queue(signal: str, known: Mapping[str, str]) -> Iterator[Finding]:
    """How much waits in the process while nobody takes it. The SDK gives up where a batch is to be more than that."""
    prefix, what = _QUEUES[signal]
    names = f"{prefix}_MAX_QUEUE_SIZE", f"{prefix}_MAX_EXPORT_BATCH_SIZE"
    texts = [known.get(name, "").strip() for name in names]
    if not all(text.isdecimal() or not text for text in texts):
        return  # the SDK says so itself, and goes by its defaults
    size, batch = (int(text) if text else default for text, default in zip(texts, (_QUEUE, BATCH), strict=True))
    if batch > size:
        yield problem(
            names[1],
            f"{batch:,} is more than {names[0]} holds ({size:,}): the SDK gives up, and exports nothing",
            names[0],
        )
        return
    counted = known.get(_COUNTED, "").strip().lower() == "true"
    small = size < _QUEUE
    yield Finding(
        Level.NOTE if small else Level.OK,
        names[0],
        f"{size:,} {what} wait while nobody takes them; then the oldest are dropped"
        f"{', and counted' if counted else f' ({_COUNTED}=true counts them)'}",
        f"of more than {size:,} {what} between two exports, only the newest {size:,} arrive" if small else "",
    )


def _place(target: Target) -> str:
    """The endpoint without what may be secret in it: user, password, query."""
    parts = urlsplit(target.url if "://" in target.url else f"//{target.url}")
    host = parts.netloc.rpartition("@")[2]
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    path = parts.path.removesuffix(f"/v1/{target.signal}") if target.protocol == HTTP else ""
    return f"{scheme}{host}{path}{'' if parts.scheme else ' (TLS)' if target.secure else ''}"
