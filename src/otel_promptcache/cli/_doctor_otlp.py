"""Where OTLP goes by ``OTEL_*``, and whether anybody answers there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from otel_promptcache.cli._doctor_export import GRPC, HTTP, Answer, Outcome, Target, send
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
    Outcome.NO_SUCH_SIGNAL: "OTEL_EXPORTER_OTLP_{S}_ENDPOINT names another place for them (over HTTP with its whole "
    "path, /v1/{s}), OTEL_{S}_EXPORTER=none stops sending them",
    Outcome.DENIED: "look at OTEL_EXPORTER_OTLP_HEADERS",
    Outcome.FAILS: "look at the log of what listens there",
    Outcome.WRONG_PROTOCOL: "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, usually on port 4317, or http/protobuf, on 4318",
    Outcome.UNTRUSTED: "http:// without TLS; else OTEL_EXPORTER_OTLP_CERTIFICATE names the authority's file",
    Outcome.REFUSES: "start a collector there (deploy/compose has one), or set OTEL_EXPORTER_OTLP_ENDPOINT; "
    "OTEL_{S}_EXPORTER=console prints them instead",
    Outcome.NO_ROUTE: "look at OTEL_EXPORTER_OTLP_ENDPOINT, and at what lies between: name service, proxy, firewall",
    Outcome.UNSUITABLE: "look at OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_CERTIFICATE",
}


class _Asked(NamedTuple):
    """A target and its answer."""

    target: Target
    answer: Answer


def section(settings: Settings, timeout: float, environment: Mapping[str, str] | None = None) -> Section:
    """Each signal's way out, and an empty export request sent along it."""
    known = os.environ if environment is None else environment
    general = list(_general(known))
    resolved = [found for signal in SIGNALS for found in resolve(signal, known)]
    targets = [found for found in resolved if isinstance(found, Target)]
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        asked = list(pool.map(lambda target: _Asked(target, send(target, timeout)), targets))
    needed = SIGNALS if settings.ledger or settings.prompt_map else SIGNALS[:2]
    said = [found for found in resolved if isinstance(found, Finding)]
    return Section(_TITLE, [*general, *(_weighed(one, needed) for one in said), *_answers(asked, needed)])


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
    for target, answer in asked:
        level = Level.OK if answer.outcome is Outcome.ANSWERS else Level.PROBLEM
        if level is Level.PROBLEM and target.signal not in needed:
            level = Level.NOTE
        groups.setdefault((target.protocol, _place(target), answer, level), []).append(target)
    for (protocol, place, answer, level), targets in groups.items():
        signals = [target.signal for target in targets]
        what = f" {' and '.join(signals)}" if answer.outcome is Outcome.NO_SUCH_SIGNAL else ""
        detail = f" ({answer.detail})" if answer.detail else ""
        advice = _ADVICE.get(answer.outcome, "").format(S=signals[0].upper(), s=signals[0])
        if level is Level.NOTE:
            advice = f"nothing of ours goes there; OTEL_{signals[0].upper()}_EXPORTER=none saves the attempts"
        yield Finding(level, ", ".join(signals), f"{protocol} to {place}: {answer.outcome.value}{what}{detail}", advice)


def _place(target: Target) -> str:
    """The endpoint without what may be secret in it: user, password, query."""
    parts = urlsplit(target.url if "://" in target.url else f"//{target.url}")
    host = parts.netloc.rpartition("@")[2]
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    path = parts.path.removesuffix(f"/v1/{target.signal}") if target.protocol == HTTP else ""
    return f"{scheme}{host}{path}{'' if parts.scheme else ' (TLS)' if target.secure else ''}"
